//! The usage journal: what was served, durable before the last byte of its answer.
//!
//! Segment files hold frames of records (`frame`); one thread writes and syncs them in groups
//! (`writer`); a task reads them and settles them with the cloud (`settler`); a segment is deleted
//! when all of it is settled. Settling is idempotent, so no durable cursor is needed: after a start
//! the kept segments are offered again.
//!
//! Invariants: what was acknowledged survives any crash; what was refused is never read back; damage
//! to synced data stops the start with the file and the offset, it is never skipped.
//!
//! Deliberately absent: money. The journal answers each record once, and the caller draws the conclusions.

pub mod directory;
pub(crate) mod frame;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
pub(crate) mod segments;
pub(crate) mod settler;
pub(crate) mod writer;

pub use directory::{FileDirectory, JournalDirectory, JournalFile};

use std::io;
use std::sync::Arc;

use sublet_core::{Bytes, Clock, Error, ErrorCode, Result};

use crate::config::JournalConfig;
use segments::Segments;
use writer::{Health, Submission, Writer};

/// What opening found.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct OpenReport {
    /// Durable records that may not be settled yet.
    pub records: u64,
    /// An unfinished write that was cut off: nothing in it had been acknowledged.
    pub torn: Option<TornTail>,
}

/// Where a write was cut off.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TornTail {
    pub file: String,
    pub offset: u64,
    pub bytes: u64,
}

/// An open journal. Dropping it writes what is queued and joins the thread.
pub struct Journal {
    segments: Arc<Segments>,
    writer: Writer,
    unsettled_max: Bytes,
}

impl Journal {
    /// Scans all segments, cuts a torn tail and starts the writer.
    pub fn open(directory: Arc<dyn JournalDirectory>, config: JournalConfig, clock: Arc<dyn Clock>) -> Result<(Self, OpenReport)> {
        let (segments, report) = Segments::open(directory)?;
        let segments = Arc::new(segments);
        let writer = Writer::start(Arc::clone(&segments), config, clock)?;
        Ok((Self { segments, writer, unsettled_max: config.unsettled_max }, report))
    }

    pub(crate) fn segments(&self) -> &Arc<Segments> {
        &self.segments
    }

    /// Hands a record over without waiting. The answer is called exactly once, on the writer's thread.
    pub(crate) fn submit(&self, submission: Submission) {
        self.writer.submit(submission);
    }

    /// Why no new work may begin, if so. A full disk is tried again because somebody asked.
    pub fn ready(&self) -> Result<()> {
        match self.writer.health() {
            Health::Ready => {}
            Health::Full => {
                self.writer.try_again();
                return Err(Error::new(ErrorCode::StorageFull, "the disk of the usage journal is full, so no request is started")
                    .alternative("free space and repeat"));
            }
            Health::Failed => {
                return Err(Error::new(
                    ErrorCode::StoreUnavailable,
                    "the usage journal's disk failed, so no request is started; restart after checking it",
                ));
            }
        }
        let unsettled = self.segments.unsettled_bytes();
        if unsettled > self.unsettled_max {
            return Err(Error::new(
                ErrorCode::StoreUnavailable,
                "too many usage records wait for the database, so no request is started",
            )
            .context(format!("{unsettled} bytes of journal are unsettled")));
        }
        Ok(())
    }

    /// Everything submitted before this call is durable or refused when it returns its sequence.
    pub(crate) async fn barrier(&self) -> u64 {
        self.writer.barrier().await;
        self.segments.durable()
    }

    pub(crate) fn figures(&self) -> writer::Figures {
        self.writer.figures()
    }
}

/// An I/O error with the file it concerns. The message is for operators and names no content.
pub(crate) fn io_error(what: &str, file: &str, error: &io::Error) -> Error {
    let code = if is_full(error) { ErrorCode::StorageFull } else { ErrorCode::StoreUnavailable };
    Error::new(code, format!("the usage journal could not {what} {file}: {error}"))
}

/// True for errors that free space cures.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
