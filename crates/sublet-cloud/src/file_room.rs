//! How much room is left for files: what a project keeps, and what is on its way to it.
//!
//! The transaction that writes a file's row decides. What is kept here refuses before the content comes what would
//! be refused after it, and counts uploads under way, so that many of them at once do not fill the disk before any
//! is counted.
//!
//! Deliberately absent: uploads at other processes. Each process bounds its own; rows are counted for all.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sublet_core::id::ProjectId;
use sublet_core::{DurationMs, Error, ErrorCode, Result};
use sublet_store::file::Kept;

/// What files may fill.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FileLimits {
    /// Files of one project.
    pub project_files_max: u32,
    /// What the files of one project come to, in bytes.
    pub project_bytes_max: u64,
    /// Uploads of clients at once, in one process: each keeps a piece in memory.
    pub uploads_max: u32,
}

impl Default for FileLimits {
    fn default() -> Self {
        Self { project_files_max: 10_000, project_bytes_max: 20 * 1024 * 1024 * 1024, uploads_max: 64 }
    }
}

/// The part of all uploads at once that one project has at most.
const PROJECT_SHARE: u32 = 4;

impl FileLimits {
    /// Uploads of one project at once.
    fn project_uploads_max(self) -> u32 {
        (self.uploads_max / PROJECT_SHARE).max(1)
    }

    /// Whether so many more files and bytes fit beside what is kept.
    pub(crate) fn check(self, kept: Kept, more: Kept) -> Result<()> {
        let (files_max, bytes_max) = (self.project_files_max, self.project_bytes_max);
        if kept.files.saturating_add(more.files) > u64::from(files_max) {
            let message = format!("a project keeps at most {files_max} files, and this one has {}", kept.files);
            return Err(full(message));
        }
        if kept.bytes.saturating_add(more.bytes) > bytes_max {
            let (has, adds) = (kept.bytes, more.bytes);
            let message =
                format!("the files of a project come to at most {bytes_max} bytes; this one has {has}, and {adds} more do not fit");
            return Err(full(message));
        }
        Ok(())
    }
}

fn full(message: String) -> Error {
    Error::new(ErrorCode::StorageFull, message)
        .alternative("delete files that are not needed: DELETE /v1/files/{id}")
        .alternative("upload with 'expires_after', and create batches with 'output_expires_after'")
}

/// Uploads under way.
#[derive(Default)]
struct Uploads {
    all: u32,
    by_project: BTreeMap<ProjectId, Pending>,
}

/// Uploads under way of one project, and the bytes that are promised to them.
#[derive(Clone, Copy, Default)]
struct Pending {
    uploads: u32,
    bytes: u64,
}

/// The room of one process. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Room {
    pub limits: FileLimits,
    uploads: Arc<Mutex<Uploads>>,
}

/// One upload that may come, until it is dropped.
pub struct Turn {
    room: Room,
    project: ProjectId,
    /// What the project kept when it began; `None` where it repeats one that was taken before.
    kept: Option<Kept>,
    /// Bytes that are counted for it.
    promised: u64,
}

impl Room {
    pub fn new(limits: FileLimits) -> Self {
        Self { limits, uploads: Arc::default() }
    }

    fn uploads(&self) -> MutexGuard<'_, Uploads> {
        self.uploads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets an upload of at least so many bytes begin.
    pub fn enter(&self, project: &ProjectId, kept: Option<Kept>, bytes_least: u64) -> Result<Turn> {
        let mut uploads = self.uploads();
        let all_max = self.limits.uploads_max;
        if uploads.all >= all_max {
            return Err(Error::new(ErrorCode::QueueFull, format!("{all_max} files are being uploaded already"))
                .retry_after(DurationMs::from_seconds(1)));
        }
        let pending = uploads.by_project.get(project).copied().unwrap_or_default();
        let own_max = self.limits.project_uploads_max();
        if pending.uploads >= own_max {
            let message = format!("a project uploads at most {own_max} files at once, and this one does");
            return Err(Error::new(ErrorCode::ConcurrencyExceeded, message)
                .alternative("wait for an upload to end")
                .retry_after(DurationMs::from_seconds(1)));
        }
        if let Some(kept) = kept {
            self.limits.check(kept.and(pending.as_kept()), Kept { files: 1, bytes: bytes_least })?;
        }
        uploads.all += 1;
        let entry = uploads.by_project.entry(project.clone()).or_default();
        entry.uploads += 1;
        entry.bytes = entry.bytes.saturating_add(bytes_least);
        Ok(Turn { room: self.clone(), project: project.clone(), kept, promised: bytes_least })
    }
}

impl Pending {
    fn as_kept(self) -> Kept {
        Kept { files: u64::from(self.uploads), bytes: self.bytes }
    }
}

impl Turn {
    /// Counts that so many bytes have come in all. Fails once they no longer fit.
    pub(crate) fn grow(&mut self, bytes: u64) -> Result<()> {
        let more = bytes.saturating_sub(self.promised);
        if more == 0 {
            return Ok(());
        }
        let mut uploads = self.room.uploads();
        let Some(pending) = uploads.by_project.get_mut(&self.project) else {
            return Err(Error::internal("an upload under way was not counted"));
        };
        if let Some(kept) = self.kept {
            // Its file is among the pending ones.
            self.room.limits.check(kept.and(pending.as_kept()), Kept { files: 0, bytes: more })?;
        }
        pending.bytes = pending.bytes.saturating_add(more);
        self.promised = bytes;
        Ok(())
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut uploads = self.room.uploads();
        uploads.all = uploads.all.saturating_sub(1);
        if let Some(pending) = uploads.by_project.get_mut(&self.project) {
            pending.uploads = pending.uploads.saturating_sub(1);
            pending.bytes = pending.bytes.saturating_sub(self.promised);
            if pending.uploads == 0 {
                uploads.by_project.remove(&self.project);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Option<Kept> = Some(Kept { files: 0, bytes: 0 });

    fn room() -> Room {
        Room::new(FileLimits { project_files_max: 3, project_bytes_max: 100, uploads_max: 8 })
    }

    fn project(name: &str) -> ProjectId {
        name.parse().unwrap()
    }

    #[track_caller]
    fn refusal(entered: Result<Turn>) -> (ErrorCode, String) {
        let error = entered.err().unwrap();
        (error.code(), error.message().to_owned())
    }

    #[test]
    fn what_is_announced_is_refused_before_it_comes() {
        let (room, one) = (room(), project("proj_1"));
        let (code, message) = refusal(room.enter(&one, Some(Kept { files: 1, bytes: 60 }), 41));
        assert_eq!(code, ErrorCode::StorageFull);
        assert!(message.contains("at most 100 bytes") && message.contains("has 60"), "{message}");
        let (code, message) = refusal(room.enter(&one, Some(Kept { files: 3, bytes: 0 }), 1));
        assert_eq!((code, message.as_str()), (ErrorCode::StorageFull, "a project keeps at most 3 files, and this one has 3"));
        assert!(room.enter(&one, Some(Kept { files: 2, bytes: 60 }), 40).is_ok());
        assert!(room.uploads().by_project.is_empty(), "nothing refused is counted");
    }

    #[test]
    fn what_is_not_announced_is_refused_as_it_comes() {
        let (room, one) = (room(), project("proj_1"));
        let mut turn = room.enter(&one, Some(Kept { files: 0, bytes: 60 }), 0).unwrap();
        turn.grow(40).unwrap();
        turn.grow(40).unwrap();
        assert_eq!(turn.grow(41).unwrap_err().code(), ErrorCode::StorageFull);
    }

    #[test]
    fn uploads_under_way_count_against_each_other_and_leave_nothing() {
        let (room, one) = (room(), project("proj_1"));
        let mut first = room.enter(&one, NOTHING, 0).unwrap();
        let second = room.enter(&one, NOTHING, 90).unwrap();
        first.grow(10).unwrap();
        assert_eq!(first.grow(11).unwrap_err().code(), ErrorCode::StorageFull);
        drop(second);
        first.grow(100).unwrap();
        drop(first);
        assert!(room.uploads().by_project.is_empty() && room.uploads().all == 0);
    }

    #[test]
    fn one_project_does_not_take_all_uploads() {
        let room = room();
        let one: Vec<Turn> = (0..2).map(|_| room.enter(&project("proj_1"), NOTHING, 0).unwrap()).collect();
        let (code, message) = refusal(room.enter(&project("proj_1"), NOTHING, 0));
        assert_eq!((code, message.contains("at most 2 files at once")), (ErrorCode::ConcurrencyExceeded, true), "{message}");
        let others: Vec<Turn> = (2..8).map(|n| room.enter(&project(&format!("proj_{n}")), NOTHING, 0).unwrap()).collect();
        assert_eq!(refusal(room.enter(&project("proj_9"), NOTHING, 0)).0, ErrorCode::QueueFull);
        drop((one, others));
        assert!(room.enter(&project("proj_1"), NOTHING, 0).is_ok());
    }

    #[test]
    fn a_repeat_needs_no_room_of_its_own() {
        let room = room();
        let mut turn = room.enter(&project("proj_1"), None, 1_000).unwrap();
        turn.grow(2_000).unwrap();
    }
}
