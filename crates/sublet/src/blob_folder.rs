//! Contents of files in a folder.
//!
//! A content is written under another name, synced, and then renamed: whoever sees it sees all of it. The
//! folder has an identity of its own, so that processes that share it know that they do.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use sublet_core::blob::{BlobStore, BlobWriter};
use sublet_core::id::FileId;
use sublet_core::{Clock, DurationMs, Rng, Timestamp};

use crate::real::SystemClock;

const OWNER_ONLY_DIRECTORY: u32 = 0o700;
const OWNER_ONLY_FILE: u32 = 0o600;

/// A folder of contents.
pub struct BlobFolder {
    whole: PathBuf,
    unfinished: PathBuf,
    home: String,
}

impl BlobFolder {
    /// Creates the folder if it is missing.
    pub fn open(path: &Path, rng: &dyn Rng) -> io::Result<Self> {
        let (whole, unfinished) = (path.join("whole"), path.join("unfinished"));
        for folder in [&whole, &unfinished] {
            std::fs::DirBuilder::new().recursive(true).mode(OWNER_ONLY_DIRECTORY).create(folder)?;
        }
        let home = identity(path, rng)?;
        sync(path)?;
        Ok(Self { whole, unfinished, home })
    }
}

/// The folder's identity: whoever is first gives it.
fn identity(path: &Path, rng: &dyn Rng) -> io::Result<String> {
    let place = path.join("identity");
    let mut random = [0_u8; 16];
    rng.fill(&mut random);
    let text: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let proposal = path.join(format!("identity.{text}"));
    write_new(&proposal)?.write_all(text.as_bytes())?;
    File::open(&proposal)?.sync_all()?;
    let linked = std::fs::hard_link(&proposal, &place);
    std::fs::remove_file(&proposal)?;
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => std::fs::read_to_string(&place).map(|text| text.trim().to_owned()),
    }
}

fn write_new(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(OWNER_ONLY_FILE).open(path)
}

fn sync(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn gone_is_fine(result: io::Result<()>) -> io::Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// The files of a folder, each with the time since its last change. Instants of changes are the system's.
fn entries(path: &Path) -> io::Result<Vec<(String, DurationMs)>> {
    let (now, mut found) = (SystemClock.now(), Vec::new());
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        // Another process may have removed it.
        let Ok(changed) = entry.metadata().and_then(|metadata| metadata.modified()) else { continue };
        let micros = changed.duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_micros()).unwrap_or(i64::MAX));
        if let Ok(name) = entry.file_name().into_string() {
            found.push((name, now.since(Timestamp::from_micros(micros))));
        }
    }
    Ok(found)
}

impl BlobStore for BlobFolder {
    fn home(&self) -> &str {
        &self.home
    }
    fn create(&self, id: &FileId) -> io::Result<Box<dyn BlobWriter>> {
        let (from, to) = (self.unfinished.join(id.as_str()), self.whole.join(id.as_str()));
        Ok(Box::new(FolderWriter { file: write_new(&from)?, from, to, is_whole: false }))
    }
    fn read(&self, id: &FileId, offset: u64, bytes_max: usize) -> io::Result<Vec<u8>> {
        let mut file = File::open(self.whole.join(id.as_str()))?;
        file.seek(SeekFrom::Start(offset))?;
        let mut bytes = Vec::new();
        file.take(u64::try_from(bytes_max).unwrap_or(u64::MAX)).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
    fn remove(&self, id: &FileId) -> io::Result<()> {
        if gone_is_fine(std::fs::remove_file(self.whole.join(id.as_str())))? { sync(&self.whole) } else { Ok(()) }
    }
    fn list(&self) -> io::Result<Vec<(FileId, DurationMs)>> {
        let known = |(name, age): (String, DurationMs)| Some((name.parse().ok()?, age));
        Ok(entries(&self.whole)?.into_iter().filter_map(known).collect())
    }
    fn sweep_unfinished(&self, idle: DurationMs) -> io::Result<u64> {
        let mut removed = 0;
        for (name, age) in entries(&self.unfinished)? {
            if age > idle && gone_is_fine(std::fs::remove_file(self.unfinished.join(name)))? {
                removed += 1;
            }
        }
        Ok(removed)
    }
}

/// A content that is not whole yet.
struct FolderWriter {
    file: File,
    from: PathBuf,
    to: PathBuf,
    is_whole: bool,
}

impl BlobWriter for FolderWriter {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)
    }
    fn commit(mut self: Box<Self>) -> io::Result<()> {
        self.file.sync_all()?;
        std::fs::rename(&self.from, &self.to)?;
        self.is_whole = true;
        self.to.parent().map_or(Ok(()), sync)
    }
}

impl Drop for FolderWriter {
    fn drop(&mut self) {
        if !self.is_whole {
            // What stays behind is swept.
            let _ = std::fs::remove_file(&self.from);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::real::SystemRng;

    fn id(text: &str) -> FileId {
        text.parse().unwrap()
    }

    fn write(folder: &BlobFolder, name: &FileId, content: &[u8]) {
        let mut writer = folder.create(name).unwrap();
        for piece in content.chunks(3) {
            writer.append(piece).unwrap();
        }
        writer.commit().unwrap();
    }

    #[test]
    fn a_content_is_seen_whole_or_not_at_all() {
        let place = tempfile::tempdir().unwrap();
        let folder = BlobFolder::open(place.path(), &SystemRng::default()).unwrap();
        let mut writer = folder.create(&id("file_1")).unwrap();
        writer.append(b"half of").unwrap();
        assert_eq!(folder.read(&id("file_1"), 0, 100).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(folder.list().unwrap().is_empty());
        writer.append(b" it").unwrap();
        writer.commit().unwrap();
        assert_eq!(folder.read(&id("file_1"), 5, 100).unwrap(), b"of it");
        assert_eq!(folder.read(&id("file_1"), 0, 4).unwrap(), b"half");
        assert_eq!(folder.read(&id("file_1"), 10, 4).unwrap(), b"");
        assert_eq!(folder.list().unwrap().len(), 1);
        folder.remove(&id("file_1")).unwrap();
        folder.remove(&id("file_1")).unwrap();
        assert!(folder.list().unwrap().is_empty());
    }

    #[test]
    fn a_dropped_beginning_leaves_nothing_and_a_forgotten_one_is_swept() {
        let place = tempfile::tempdir().unwrap();
        let folder = BlobFolder::open(place.path(), &SystemRng::default()).unwrap();
        drop(folder.create(&id("file_1")).unwrap());
        assert_eq!(entries(&folder.unfinished).unwrap(), []);
        std::mem::forget(folder.create(&id("file_2")).unwrap());
        write(&folder, &id("file_3"), b"kept");
        assert_eq!(folder.sweep_unfinished(DurationMs::from_hours(1)).unwrap(), 0);
        assert_eq!(folder.sweep_unfinished(DurationMs::from_hours(-1)).unwrap(), 1);
        assert_eq!(folder.read(&id("file_3"), 0, 9).unwrap(), b"kept");
    }

    #[test]
    fn a_content_is_as_old_as_the_system_says() {
        let place = tempfile::tempdir().unwrap();
        let folder = BlobFolder::open(place.path(), &SystemRng::default()).unwrap();
        write(&folder, &id("file_1"), b"new");
        let written = SystemClock.now().minus(DurationMs::from_hours(3)).micros();
        let content = File::options().write(true).open(folder.whole.join("file_1")).unwrap();
        content.set_modified(UNIX_EPOCH + std::time::Duration::from_micros(u64::try_from(written).unwrap())).unwrap();
        let (_, age) = folder.list().unwrap().remove(0);
        assert!((DurationMs::from_hours(3)..DurationMs::from_hours(4)).contains(&age), "{age:?}");
    }

    #[test]
    fn a_folder_is_the_same_for_everybody_who_opens_it() {
        let place = tempfile::tempdir().unwrap();
        let first = BlobFolder::open(place.path(), &SystemRng::default()).unwrap();
        let second = BlobFolder::open(place.path(), &SystemRng::default()).unwrap();
        write(&first, &id("file_1"), b"shared");
        assert_eq!(second.read(&id("file_1"), 0, 9).unwrap(), b"shared");
        let elsewhere = tempfile::tempdir().unwrap();
        let other = BlobFolder::open(elsewhere.path(), &SystemRng::default()).unwrap();
        assert_eq!((first.home() == second.home(), first.home() == other.home()), (true, false));
    }
}
