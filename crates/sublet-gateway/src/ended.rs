//! How a request ended, and whether that is on the disk.

use sublet_core::admission::TokenUsage;
use sublet_core::engine::FinishReason;
use sublet_core::{Error, ErrorCode, Nanos, Result, Timestamp};
use tokio::sync::oneshot;

use crate::journal::writer::Written;

/// The end of a request, as the answer tells it.
pub(crate) struct Ended {
    pub tokens: TokenUsage,
    pub finishes: Vec<FinishReason>,
    pub cost: Nanos,
    pub remaining: Option<Nanos>,
    pub at: Timestamp,
    /// Resolves when the record is durable; `None` if there is nothing to record.
    pub durable: Option<oneshot::Receiver<Written>>,
}

impl Ended {
    /// What became of the record; `None` if there is nothing to record.
    pub async fn written(&mut self) -> Option<Written> {
        let durable = self.durable.take()?;
        Some(durable.await.unwrap_or(Written::Unknown))
    }

    /// Waits until the record is on the disk. Without it the answer must not be completed.
    pub async fn durable(&mut self) -> Result<()> {
        match self.written().await {
            None | Some(Written::Durable) => Ok(()),
            Some(Written::Refused) => Err(not_written()),
            Some(Written::Unknown) => Err(Error::internal("the usage journal failed while a record was on its way")),
        }
    }
}

/// The record is surely not there.
pub(crate) fn not_written() -> Error {
    let message = "the usage record could not be written, so the answer was not completed and is not charged";
    Error::new(ErrorCode::StorageFull, message)
}
