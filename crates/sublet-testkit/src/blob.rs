//! Contents of files in memory, with the instants at which they were written.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sublet_core::blob::{BlobStore, BlobWriter};
use sublet_core::id::FileId;
use sublet_core::{Clock, DurationMs, Timestamp};

/// A content and when it was written.
type Contents = BTreeMap<FileId, (Vec<u8>, Timestamp)>;

/// A store of contents that ends with the test.
pub struct MemoryBlobs {
    home: String,
    clock: Arc<dyn Clock>,
    contents: Arc<Mutex<Contents>>,
}

impl MemoryBlobs {
    pub fn new(home: &str, clock: Arc<dyn Clock>) -> Self {
        Self { home: home.to_owned(), clock, contents: Arc::default() }
    }
    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// A content that no row will ever name.
    pub fn put(&self, id: FileId, content: &[u8]) {
        let now = self.clock.now();
        self.contents().insert(id, (content.to_vec(), now));
    }
    pub fn has(&self, id: &FileId) -> bool {
        self.contents().contains_key(id)
    }
    pub fn count(&self) -> usize {
        self.contents().len()
    }
}

impl BlobStore for MemoryBlobs {
    fn home(&self) -> &str {
        &self.home
    }
    fn create(&self, id: &FileId) -> io::Result<Box<dyn BlobWriter>> {
        let (contents, at) = (Arc::clone(&self.contents), self.clock.now());
        Ok(Box::new(MemoryWriter { id: id.clone(), bytes: Vec::new(), at, contents }))
    }
    fn read(&self, id: &FileId, offset: u64, bytes_max: usize) -> io::Result<Vec<u8>> {
        let contents = self.contents();
        let (bytes, _) = contents.get(id).ok_or(io::ErrorKind::NotFound)?;
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        Ok(bytes[from..].iter().take(bytes_max).copied().collect())
    }
    fn remove(&self, id: &FileId) -> io::Result<()> {
        self.contents().remove(id);
        Ok(())
    }
    fn list(&self) -> io::Result<Vec<(FileId, DurationMs)>> {
        let now = self.clock.now();
        Ok(self.contents().iter().map(|(id, (_, at))| (id.clone(), now.since(*at))).collect())
    }
    fn sweep_unfinished(&self, _: DurationMs) -> io::Result<u64> {
        Ok(0)
    }
}

struct MemoryWriter {
    id: FileId,
    bytes: Vec<u8>,
    at: Timestamp,
    contents: Arc<Mutex<Contents>>,
}

impl BlobWriter for MemoryWriter {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }
    fn commit(self: Box<Self>) -> io::Result<()> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner).insert(self.id, (self.bytes, self.at));
        Ok(())
    }
}
