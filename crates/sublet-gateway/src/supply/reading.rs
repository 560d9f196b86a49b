//! The stream of a replica while it is read: bounded in bytes, in all its time, and in each silence.

use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Frame, Incoming};
use sublet_core::{DurationMs, Result};
use tokio::time::{Instant, Sleep, sleep_until};

use super::events::{EventReader, LineTooLong};
use super::queue::Place;
use super::search::failure;
use super::station::Station;
use crate::config::SupplyConfig;
use crate::generation::monotonic;

/// Largest stream in all.
const STREAM_BYTES_MAX: u64 = 256 * 1_024 * 1_024;

/// A stream that is being read.
pub(super) struct Reading {
    body: Incoming,
    pub events: EventReader,
    pub station: Arc<Station>,
    bytes: u64,
    /// The latest instant at which it may still go on.
    until: Instant,
    /// When it was heard of last.
    heard: Instant,
    /// Goes off at the latest when the silence is too long. Silences before that are found when it does: it is not set
    /// for each event.
    alarm: Pin<Box<Sleep>>,
    pub place: Place,
}

/// Nothing came for too long.
pub(super) struct Silence;

impl Reading {
    /// A body of which nothing was read.
    pub fn new(body: Incoming, (station, place): (Arc<Station>, Place), config: &SupplyConfig) -> Self {
        let heard = monotonic();
        let until = heard + config.answer_max.to_std();
        let alarm = Box::pin(sleep_until(until.min(heard + config.idle_max.to_std())));
        Self { body, events: EventReader::default(), station, bytes: 0, until, heard, alarm, place }
    }

    /// Reads more bytes; `false` is the end.
    pub async fn more(&mut self) -> Result<bool> {
        loop {
            let frame = self.body.frame().await;
            if let Some(more) = self.take(frame)? {
                return Ok(more);
            }
        }
    }

    /// The same, unless nothing comes for so long.
    pub async fn more_within(&mut self, idle: DurationMs) -> Result<Result<bool>, Silence> {
        loop {
            let Self { body, alarm, .. } = self;
            let frame = tokio::select! {
                biased;
                frame = body.frame() => Some(frame),
                () = alarm.as_mut() => None,
            };
            if let Some(frame) = frame {
                match self.take(frame).transpose() {
                    Some(more) => return Ok(more),
                    None => continue,
                }
            }
            let until = self.until.min(self.heard + idle.to_std());
            if monotonic() >= until {
                return Err(Silence);
            }
            self.alarm.as_mut().reset(until);
        }
    }

    /// Takes what came: whether there may be more. `None` was no data.
    fn take(&mut self, frame: Option<hyper::Result<Frame<Bytes>>>) -> Result<Option<bool>> {
        self.heard = monotonic();
        let Some(frame) = frame else { return Ok(Some(false)) };
        let frame = frame.map_err(|error| failure(format!("its stream broke: {error}")))?;
        let Ok(data) = frame.into_data() else { return Ok(None) };
        self.bytes = self.bytes.saturating_add(u64::try_from(data.len()).unwrap_or(u64::MAX));
        if self.bytes > STREAM_BYTES_MAX {
            return Err(failure(format!("its stream is longer than {STREAM_BYTES_MAX} bytes")));
        }
        self.events.push(&data).map_err(|LineTooLong| failure("an event of its stream is too long"))?;
        Ok(Some(true))
    }
}
