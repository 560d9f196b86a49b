//! Files below a directory: written under another name, synced, renamed.
//!
//! A folder is opened part by part from the root on, and no part may be a link, so nothing is written outside. What is
//! unfinished is named by its schedule and attempt, so no two write one file; who begins removes what others left under
//! the same name, which they then cannot rename.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, Dir, Mode, OFlags};
use rustix::io::Errno;
use sublet_core::delivery::{Delivered, Delivery, DeliveryFailure, FileName, Folder};
use sublet_core::id::ExportScheduleId;
use sublet_core::{BoxFuture, Result};

const OWNER_ONLY_DIRECTORY: Mode = Mode::RWXU;
const OWNER_ONLY_FILE: Mode = Mode::RUSR.union(Mode::WUSR);
const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Where a file is to be.
#[derive(Clone)]
struct Place {
    folder: Arc<OwnedFd>,
    /// For messages.
    path: PathBuf,
    name: FileName,
    schedule: ExportScheduleId,
    attempt: i64,
}

impl Place {
    fn unfinished(&self) -> String {
        format!("{}{}.{}.part", beginning(&self.name), self.schedule, self.attempt)
    }
}

/// What the names of unfinished files begin with, whoever's they are.
fn beginning(name: &FileName) -> String {
    format!(".{name}.")
}

/// Whether a name goes on as that of an unfinished file does. A longer name that begins alike does not.
fn is_attempt(rest: &str) -> bool {
    let parts = rest.strip_suffix(".part").and_then(|rest| rest.split_once('.'));
    parts.is_some_and(|(schedule, attempt)| schedule.parse::<ExportScheduleId>().is_ok() && attempt.parse::<i64>().is_ok())
}

pub async fn begin(root: &Path, folder: &Folder, file: &Delivered) -> Result<Box<dyn Delivery>, DeliveryFailure> {
    let (root, folder) = (root.to_owned(), folder.clone());
    let (name, schedule, attempt) = (file.name.clone(), file.schedule.clone(), file.attempt);
    let path = root.join(folder.as_str()).join(name.as_str());
    let opened = apart(path.clone(), move || {
        let place = Place { folder: Arc::new(open_folder(&root, &folder)?), path, name, schedule, attempt };
        clear(&place)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let unfinished = rustix::fs::openat(&place.folder, place.unfinished(), flags, OWNER_ONLY_FILE)?;
        Ok(FolderDelivery { file: Arc::new(File::from(unfinished)), place, is_whole: false })
    });
    Ok(Box::new(opened.await?))
}

/// The folder, created where it is missing. The root may be a link, nothing below it.
fn open_folder(root: &Path, folder: &Folder) -> io::Result<OwnedFd> {
    std::fs::create_dir_all(root)?;
    let mut opened = rustix::fs::open(root, DIRECTORY, Mode::empty())?;
    for part in folder.parts() {
        match rustix::fs::mkdirat(&opened, part, OWNER_ONLY_DIRECTORY) {
            Ok(()) => rustix::fs::fsync(&opened)?,
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        opened = rustix::fs::openat(&opened, part, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())?;
    }
    Ok(opened)
}

/// Removes what attempts left that did not finish.
fn clear(place: &Place) -> io::Result<()> {
    let beginning = beginning(&place.name);
    for entry in Dir::read_from(&place.folder)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().to_str() else { continue };
        if name.strip_prefix(&beginning).is_some_and(is_attempt) {
            match rustix::fs::unlinkat(&place.folder, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

/// Does what blocks on a thread of its own.
async fn apart<T: Send + 'static>(
    path: PathBuf,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, DeliveryFailure> {
    let done = tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)));
    done.map_err(|error| DeliveryFailure(described(&path, &error)))
}

fn described(path: &Path, error: &io::Error) -> String {
    let path = path.display();
    let is_link = error.raw_os_error() == Some(Errno::LOOP.raw_os_error());
    match error.kind() {
        io::ErrorKind::StorageFull => format!("{path}: the disk is full"),
        io::ErrorKind::QuotaExceeded => format!("{path}: the quota of the disk is used up"),
        kind if is_link || kind == io::ErrorKind::NotADirectory => {
            format!("{path}: a part of it is a link or a file, and has to be a directory")
        }
        _ => format!("{path}: {error}"),
    }
}

/// A file that is not whole yet.
struct FolderDelivery {
    file: Arc<File>,
    place: Place,
    is_whole: bool,
}

impl Delivery for FolderDelivery {
    fn append(&mut self, bytes: Vec<u8>) -> BoxFuture<'_, Result<(), DeliveryFailure>> {
        let file = Arc::clone(&self.file);
        Box::pin(apart(self.place.path.clone(), move || (&*file).write_all(&bytes)))
    }
    fn commit(mut self: Box<Self>) -> BoxFuture<'static, Result<(), DeliveryFailure>> {
        Box::pin(async move {
            let (file, place) = (Arc::clone(&self.file), self.place.clone());
            let renamed = apart(place.path.clone(), move || {
                file.sync_all()?;
                rustix::fs::renameat(&place.folder, place.unfinished(), &place.folder, place.name.as_str())?;
                Ok(rustix::fs::fsync(&place.folder)?)
            });
            renamed.await?;
            self.is_whole = true;
            Ok(())
        })
    }
}

impl Drop for FolderDelivery {
    fn drop(&mut self) {
        if !self.is_whole {
            // What stays behind is cleared by the next attempt.
            let _ = rustix::fs::unlinkat(&self.place.folder, self.place.unfinished(), AtFlags::empty());
        }
    }
}
