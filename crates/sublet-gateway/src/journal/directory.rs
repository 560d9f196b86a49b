//! Where segments live: a port with a real and (in tests) a fake implementation that loses and tears.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// A flat directory of segment files. All calls block.
pub trait JournalDirectory: Send + Sync {
    fn list(&self) -> io::Result<Vec<String>>;
    /// Creates an empty file; when this returns, the file's name is durable.
    fn create(&self, name: &str) -> io::Result<Box<dyn JournalFile>>;
    /// Opens a file to append to it.
    fn open(&self, name: &str) -> io::Result<Box<dyn JournalFile>>;
    /// At most `max` bytes from `offset`; fewer only at the end of the file.
    fn read(&self, name: &str, offset: u64, max: usize) -> io::Result<Vec<u8>>;
    fn len(&self, name: &str) -> io::Result<u64>;
    fn remove(&self, name: &str) -> io::Result<()>;
}

/// A file that grows at its end.
pub trait JournalFile: Send {
    /// Writes all bytes, or fails having written some of them.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// When this returns, everything appended is durable.
    fn sync(&mut self) -> io::Result<()>;
    /// Cuts the file; durable after the next [`JournalFile::sync`].
    fn truncate(&mut self, length: u64) -> io::Result<()>;
}

/// A directory of the file system.
#[derive(Clone, Debug)]
pub struct FileDirectory {
    path: PathBuf,
}

impl FileDirectory {
    /// Creates the directory if it does not exist.
    pub fn open(path: impl Into<PathBuf>) -> io::Result<Self> {
        let path = path.into();
        std::fs::create_dir_all(&path)?;
        if let Some(parent) = path.parent() {
            sync_directory(parent)?;
        }
        Ok(Self { path })
    }
}

fn sync_directory(path: &Path) -> io::Result<()> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    File::open(path)?.sync_all()
}

impl JournalDirectory for FileDirectory {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.path)? {
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }
    fn create(&self, name: &str) -> io::Result<Box<dyn JournalFile>> {
        let file = OpenOptions::new().append(true).create_new(true).open(self.path.join(name))?;
        file.sync_all()?;
        sync_directory(&self.path)?;
        Ok(Box::new(file))
    }
    fn open(&self, name: &str) -> io::Result<Box<dyn JournalFile>> {
        Ok(Box::new(OpenOptions::new().append(true).open(self.path.join(name))?))
    }
    fn read(&self, name: &str, offset: u64, max: usize) -> io::Result<Vec<u8>> {
        let mut file = File::open(self.path.join(name))?;
        file.seek(SeekFrom::Start(offset))?;
        let mut bytes = Vec::new();
        file.take(u64::try_from(max).unwrap_or(u64::MAX)).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
    fn len(&self, name: &str) -> io::Result<u64> {
        Ok(std::fs::metadata(self.path.join(name))?.len())
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.path.join(name))?;
        sync_directory(&self.path)
    }
}

impl JournalFile for File {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes)
    }
    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }
    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }
}
