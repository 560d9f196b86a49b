//! A disk that can be full, fail to sync, stand still, lose what was not synced, and tear its last block.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use sublet_gateway::{JournalDirectory, JournalFile};

#[derive(Clone, Default, Debug)]
struct Data {
    durable: Vec<u8>,
    content: Vec<u8>,
}

#[derive(Default)]
struct State {
    files: BTreeMap<String, Data>,
    capacity: Option<usize>,
    sync_fails: bool,
    still: bool,
    /// One image of the disk's possible contents per operation, if wanted.
    history: Option<Vec<Image>>,
}

/// Durable and written bytes per file at one instant.
#[derive(Clone)]
pub struct Image(BTreeMap<String, Data>);

#[derive(Clone, Default)]
pub struct Disk(Arc<(Mutex<State>, Condvar)>);

impl Disk {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().unwrap()
    }
    pub fn set_capacity(&self, bytes: Option<usize>) {
        self.lock().capacity = bytes;
    }
    pub fn used(&self) -> usize {
        self.lock().files.values().map(|data| data.content.len()).sum()
    }
    pub fn fail_syncs(&self) {
        self.lock().sync_fails = true;
    }
    /// While it stands still, no sync returns.
    pub fn stand_still(&self, still: bool) {
        self.lock().still = still;
        self.0.1.notify_all();
    }
    pub fn record_history(&self) {
        self.lock().history = Some(Vec::new());
    }
    pub fn history(&self) -> Vec<Image> {
        self.lock().history.clone().unwrap_or_default()
    }
    pub fn files(&self) -> Vec<String> {
        self.lock().files.keys().cloned().collect()
    }
    /// The disk after a power failure now: of the unsynced bytes of each file, `kept` survive, and if
    /// `torn` the last block of those is zeros.
    pub fn crashed(&self, kept: usize, torn: bool) -> Self {
        Image(self.lock().files.clone()).crashed(kept, torn)
    }
    pub fn flip_bit(&self, file: &str, at: usize) {
        let mut state = self.lock();
        let data = state.files.get_mut(file).unwrap();
        data.durable[at] ^= 1;
        data.content[at] ^= 1;
    }
    fn note(state: &mut State) {
        let image = Image(state.files.clone());
        if let Some(history) = &mut state.history {
            history.push(image);
        }
    }
}

impl Image {
    pub fn crashed(&self, kept: usize, torn: bool) -> Disk {
        const BLOCK: usize = 64;
        let disk = Disk::default();
        for (name, data) in &self.0 {
            let mut bytes = data.content.clone();
            let safe = if bytes.starts_with(&data.durable) { data.durable.len() } else { 0 };
            if safe == 0 {
                bytes.clone_from(&data.durable);
            }
            bytes.truncate((safe + kept).max(safe));
            if torn && bytes.len() > safe {
                let from = safe.max(bytes.len().saturating_sub(BLOCK));
                bytes[from..].fill(0);
            }
            disk.lock().files.insert(name.clone(), Data { durable: bytes.clone(), content: bytes });
        }
        disk
    }
    /// Unsynced bytes at most in any file.
    pub fn unsynced(&self) -> usize {
        self.0.values().map(|data| data.content.len().saturating_sub(data.durable.len())).max().unwrap_or(0)
    }
}

struct File {
    disk: Disk,
    name: String,
}

impl JournalFile for File {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let used = self.disk.used();
        let mut state = self.disk.lock();
        let room = state.capacity.map_or(usize::MAX, |capacity| capacity.saturating_sub(used));
        let fits = bytes.len().min(room);
        state.files.get_mut(&self.name).unwrap().content.extend_from_slice(&bytes[..fits]);
        Disk::note(&mut state);
        if fits < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
    fn sync(&mut self) -> io::Result<()> {
        let mut state = self.disk.0.1.wait_while(self.disk.lock(), |state| state.still).unwrap();
        if state.sync_fails {
            return Err(io::Error::other("the disk is gone"));
        }
        let data = state.files.get_mut(&self.name).unwrap();
        data.durable = data.content.clone();
        Disk::note(&mut state);
        Ok(())
    }
    fn truncate(&mut self, length: u64) -> io::Result<()> {
        let mut state = self.disk.lock();
        state.files.get_mut(&self.name).unwrap().content.truncate(usize::try_from(length).unwrap());
        Disk::note(&mut state);
        Ok(())
    }
}

impl JournalDirectory for Disk {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.files())
    }
    fn create(&self, name: &str) -> io::Result<Box<dyn JournalFile>> {
        let mut state = self.lock();
        assert!(state.files.insert(name.to_owned(), Data::default()).is_none(), "{name} exists");
        Disk::note(&mut state);
        Ok(Box::new(File { disk: self.clone(), name: name.to_owned() }))
    }
    fn open(&self, name: &str) -> io::Result<Box<dyn JournalFile>> {
        Ok(Box::new(File { disk: self.clone(), name: name.to_owned() }))
    }
    fn read(&self, name: &str, offset: u64, max: usize) -> io::Result<Vec<u8>> {
        let state = self.lock();
        let content = &state.files.get(name).ok_or(io::ErrorKind::NotFound)?.content;
        let from = usize::try_from(offset).unwrap().min(content.len());
        Ok(content[from..content.len().min(from.saturating_add(max))].to_vec())
    }
    fn len(&self, name: &str) -> io::Result<u64> {
        Ok(u64::try_from(self.lock().files[name].content.len()).unwrap())
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.lock().files.remove(name).map(|_| ()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}
