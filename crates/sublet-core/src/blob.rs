//! The port to where contents of files are kept: a folder, or a store of objects.
//!
//! Invariants: a content is invisible until it is whole and durable, and never changes afterwards; its
//! name is the file's id, so nothing that a client wrote becomes part of a path. All calls block.
//!
//! Deliberately absent: who owns a content. That is a row of the database, written after the content.

use std::io;

use crate::id::FileId;
use crate::time::DurationMs;

/// Contents by file id.
pub trait BlobStore: Send + Sync {
    /// Which store this is, the same for every process that sees the same contents.
    fn home(&self) -> &str;
    /// Begins a new content.
    fn create(&self, id: &FileId) -> io::Result<Box<dyn BlobWriter>>;
    /// At most `bytes_max` bytes from `offset`; fewer only at the end.
    fn read(&self, id: &FileId, offset: u64, bytes_max: usize) -> io::Result<Vec<u8>>;
    /// Removes a content; one that is not there is no error.
    fn remove(&self, id: &FileId) -> io::Result<()>;
    /// Every whole content, and how long ago it was written, by the store's own clock: a cloud's may run otherwise.
    fn list(&self) -> io::Result<Vec<(FileId, DurationMs)>>;
    /// Removes beginnings that nobody went on with for longer than this, by the same clock.
    fn sweep_unfinished(&self, idle: DurationMs) -> io::Result<u64>;
}

/// A content on its way; dropping it forgets it.
pub trait BlobWriter: Send {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// When this returns, the content is whole and durable under its name.
    fn commit(self: Box<Self>) -> io::Result<()>;
}
