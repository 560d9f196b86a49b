//! Bytes that are kept over time: what files come to in parts of time, in byte-hours.
//!
//! Bytes and microseconds are added up exactly, over all files that are kept in a part of time, and divided once, rounded
//! down. So what is charged is never more than what was kept, and less by under one byte-hour for each part.
//!
//! Deliberately absent: prices, and where the parts come from: hours, months and bands of a price.

use sublet_core::error::{Error, ErrorCode, Result};
use sublet_core::{Bytes, DurationMs, Timestamp};

use crate::period::Interval;
use crate::sku::Quantity;

/// What is metered at once.
pub const HOUR: DurationMs = DurationMs::from_hours(1);
/// A file that lives for less costs nothing.
pub const FREE_LIFE: DurationMs = DurationMs::from_seconds(60);

const HOUR_MICROS: i64 = 3_600_000_000;

/// A file, or several of the same times together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeptBytes {
    pub bytes: Bytes,
    /// From the creation to the deletion or the expiry.
    pub interval: Interval,
}

/// The beginning of the hour that an instant is in.
pub const fn hour_of(instant: Timestamp) -> Timestamp {
    Timestamp::from_micros(instant.micros().div_euclid(HOUR_MICROS) * HOUR_MICROS)
}

/// Whether what lived from one instant to another costs nothing.
pub fn is_free(life: Interval) -> bool {
    life.ends_at.since(life.starts_at) < FREE_LIFE
}

/// What is kept in parts of time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ByteTime {
    /// In their order; none begins before the one before it ends.
    parts: Vec<Interval>,
    /// Bytes times microseconds, of each part.
    sums: Vec<i128>,
}

impl ByteTime {
    /// Of parts in their order, which do not overlap.
    pub fn new(parts: Vec<Interval>) -> Result<Self> {
        let overlaps = parts.windows(2).any(|pair| pair[1].starts_at < pair[0].ends_at);
        if overlaps || parts.iter().any(Interval::is_empty) {
            return Err(Error::internal("parts of time are empty or overlap"));
        }
        let sums = vec![0; parts.len()];
        Ok(Self { parts, sums })
    }

    /// Takes in what was kept.
    pub fn add(&mut self, kept: KeptBytes) -> Result<()> {
        let Interval { starts_at, ends_at } = kept.interval;
        if kept.interval.is_empty() {
            return Ok(());
        }
        let first = self.parts.partition_point(|part| part.ends_at <= starts_at);
        let last = self.parts.partition_point(|part| part.starts_at < ends_at);
        for (part, sum) in self.parts.iter().zip(&mut self.sums).take(last).skip(first) {
            let micros = part.ends_at.min(ends_at).micros() - part.starts_at.max(starts_at).micros();
            let product = i128::from(kept.bytes.get()) * i128::from(micros);
            *sum = sum.checked_add(product).ok_or_else(out_of_range)?;
        }
        Ok(())
    }

    /// Byte-hours of each part, rounded down.
    pub fn quantities(&self) -> Result<Vec<Quantity>> {
        let floor = |sum: &i128| i64::try_from(sum.div_euclid(i128::from(HOUR_MICROS))).map_err(|_| out_of_range());
        self.sums.iter().map(|sum| Quantity::new(floor(sum)?)).collect()
    }
}

fn out_of_range() -> Error {
    Error::new(ErrorCode::AmountOverflow, "kept bytes left the range of 64-bit byte-hours")
}

#[cfg(test)]
#[path = "storage_tests.rs"]
mod tests;
