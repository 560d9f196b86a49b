//! Figures of batches, as plain numbers for whoever renders them.

use std::sync::atomic::{AtomicU64, Ordering};

use sublet_core::{DurationMs, Result};
use sublet_store::batch::{self, StatusCount};

use crate::batch::Batches;

/// What became of lines at this process, since its start.
#[derive(Default)]
pub(crate) struct Counters {
    completed: AtomicU64,
    failed: AtomicU64,
    unanswered: AtomicU64,
}

impl Counters {
    pub fn completed(&self) {
        self.completed.fetch_add(1, Ordering::Relaxed);
    }
    pub fn failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }
    /// Lines whose batch ended before they had an answer.
    pub fn unanswered(&self, lines: i64) {
        self.unanswered.fetch_add(u64::try_from(lines).unwrap_or(0), Ordering::Relaxed);
    }
}

/// How batches stand at this process, at one instant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BatchFigures {
    /// Lines that run, and the answers that they ask for.
    pub lines_running: usize,
    pub answers_running: usize,
    /// Lines of batches at work here that wait for a limit or for servers of their own.
    pub lines_aside: usize,
    /// Lines that ended since the start: with an answer, with an error, with neither.
    pub lines_completed: u64,
    pub lines_failed: u64,
    pub lines_unanswered: u64,
}

/// The batches of the whole cloud that have not ended, at one instant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OpenBatchFigures {
    /// A status that none has is left out.
    pub batches: Vec<StatusCount>,
    /// How long the oldest one waits that nobody works on; zero if none does.
    pub oldest_waiting: DurationMs,
}

impl Batches {
    pub fn figures(&self) -> BatchFigures {
        let running = self.places.running();
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        BatchFigures {
            lines_running: running.lines,
            answers_running: running.answers,
            lines_aside: running.aside,
            lines_completed: read(&self.counters.completed),
            lines_failed: read(&self.counters.failed),
            lines_unanswered: read(&self.counters.unanswered),
        }
    }

    pub async fn open_figures(&self) -> Result<OpenBatchFigures> {
        let now = self.now();
        self.cloud
            .store
            .read((), move |(), tx| {
                Box::pin(async move {
                    let batches = batch::count_by_status(tx).await?;
                    let oldest = batch::oldest_waiting(tx, now).await?;
                    let oldest_waiting = oldest.map_or(DurationMs::ZERO, |since| now.since(since).max(DurationMs::ZERO));
                    Ok(OpenBatchFigures { batches, oldest_waiting })
                })
            })
            .await
    }
}
