//! Reading what an attempt left in its work directory.
//!
//! The directory was written by somebody hostile. Every path is resolved by the kernel beneath the directory's own
//! descriptor, without following any link and without crossing a mount, and only regular files are read: a link to
//! /etc/shadow or a pipe that never answers leads nowhere.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Dir, FileType, Mode, OFlags, ResolveFlags};
use sublet_core::error::{Error, ErrorCode, Result};
use sublet_core::quantity::Bytes;

/// Files listed at most.
pub const LIST_MAX: usize = 10_000;
/// Directories are followed so deep.
const DEPTH_MAX: usize = 32;
/// Bytes read in one call.
const READ_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A regular file in a work directory.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Artifact {
    /// Relative to the work directory.
    pub path: PathBuf,
    pub size: Bytes,
}

fn open_beneath(work: BorrowedFd<'_>, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    rustix::fs::openat2(work, path, flags | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK, Mode::empty(), resolve)
}

/// The regular files below a work directory, sorted by path, at most [`LIST_MAX`].
pub fn list(work: &OwnedFd) -> Vec<Artifact> {
    let mut found = Vec::new();
    let mut open = vec![(PathBuf::new(), 0)];
    while let Some((directory, depth)) = open.pop() {
        let path = if depth == 0 { Path::new(".") } else { directory.as_path() };
        let Ok(descriptor) = open_beneath(work.as_fd(), path, OFlags::RDONLY | OFlags::DIRECTORY) else { continue };
        let Ok(entries) = Dir::read_from(&descriptor) else { continue };
        for entry in entries.flatten() {
            let Ok(name) = entry.file_name().to_str() else { continue };
            if name == "." || name == ".." {
                continue;
            }
            let path = directory.join(name);
            match entry.file_type() {
                FileType::Directory if depth < DEPTH_MAX && open.len() < LIST_MAX => open.push((path, depth + 1)),
                FileType::RegularFile if found.len() < LIST_MAX => {
                    let stat = rustix::fs::statat(&descriptor, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW);
                    found.push(Artifact { path, size: Bytes::new(stat.map(|stat| stat.st_size).unwrap_or(0)) });
                }
                _ => {}
            }
        }
    }
    found.sort();
    found
}

/// Part of one file, from `offset`, at most `max` bytes.
pub fn read(work: &OwnedFd, path: &Path, offset: u64, max: usize) -> Result<Vec<u8>> {
    let missing = || Error::new(ErrorCode::NotFound, format!("there is no file '{}' in the work directory", path.display()));
    let file = open_beneath(work.as_fd(), path, OFlags::RDONLY).map_err(|_| missing())?;
    let stat = rustix::fs::fstat(&file).map_err(|_| missing())?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(missing());
    }
    let mut bytes = vec![0; max.min(READ_BYTES_MAX)];
    let read =
        rustix::io::pread(&file, &mut bytes, offset).map_err(|error| Error::internal(format!("read an artifact: {error}")))?;
    bytes.truncate(read);
    Ok(bytes)
}
