//! Offers durable records to the sink until it takes them, in order.
//!
//! The only writer of the settled position. Offering again is harmless, so the position is not durable.

use std::sync::Arc;

use sublet_core::usage::{UsageRecord, UsageSink};
use sublet_core::{DurationMs, Result};
use tokio::sync::watch;

use super::segments::{Cursor, Segments};
use crate::config::JournalConfig;

pub(crate) struct Settler {
    segments: Arc<Segments>,
    sink: Arc<dyn UsageSink>,
    config: JournalConfig,
    cursor: Cursor,
    settled: watch::Sender<u64>,
}

impl Settler {
    pub fn new(segments: Arc<Segments>, sink: Arc<dyn UsageSink>, config: JournalConfig) -> Self {
        let cursor = segments.start();
        let (settled, _) = watch::channel(cursor.last_read());
        Self { segments, sink, config, cursor, settled }
    }

    /// Tells the last settled sequence.
    pub fn watch_settled(&self) -> watch::Receiver<u64> {
        self.settled.subscribe()
    }

    /// Settles everything durable once; an error means some of it is left.
    pub async fn settle_all(&mut self) -> Result<u64> {
        let mut count = 0;
        loop {
            let (records, next) = self.gather()?;
            if records.is_empty() && next == self.cursor {
                return Ok(count);
            }
            for batch in records.chunks(self.config.settle_batch_records_max.max(1)) {
                let report = self.sink.settle(batch).await?;
                count += report.settled;
                if report.quarantined > 0 {
                    tracing::warn!(records = report.quarantined, "usage records wait in quarantine");
                }
            }
            self.cursor = next;
            self.segments.settled(&self.cursor)?;
            self.settled.send_replace(self.cursor.last_read());
        }
    }

    /// Reads frames until a batch is full or nothing more is durable.
    fn gather(&self) -> Result<(Vec<UsageRecord>, Cursor)> {
        let mut records = Vec::new();
        let mut cursor = self.cursor.clone();
        while records.len() < self.config.settle_batch_records_max {
            let wanted = self.config.settle_batch_records_max - records.len();
            let Some((more, next)) = self.segments.read(&cursor, wanted)? else { break };
            records.extend(more);
            cursor = next;
        }
        Ok((records, cursor))
    }

    /// Settles for ever; ends when it is aborted by its owner.
    pub async fn run(mut self) {
        let mut durable = self.segments.watch_durable();
        let mut backoff = self.config.settle_backoff_first;
        loop {
            match self.settle_all().await {
                Ok(_) => {
                    backoff = self.config.settle_backoff_first;
                    if durable.changed().await.is_err() {
                        return;
                    }
                    tokio::time::sleep(self.config.settle_interval.to_std()).await;
                }
                Err(error) => {
                    tracing::warn!(?error, "usage records could not be settled; they are offered again");
                    tokio::time::sleep(backoff.to_std()).await;
                    backoff = DurationMs::from_millis(backoff.millis().saturating_mul(2)).min(self.config.settle_backoff_max);
                }
            }
        }
    }
}
