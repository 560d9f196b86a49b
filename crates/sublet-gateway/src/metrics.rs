//! Counters and histograms, as plain numbers for whoever renders them.

use std::sync::atomic::{AtomicU64, Ordering};

use sublet_core::admission::TokenUsage;
use sublet_core::usage::Outcome;
use sublet_core::{Bytes, DurationMs, Nanos, TokenCount};

/// Upper bounds of the time-to-first-token buckets, in milliseconds; one more bucket has no bound.
pub const FIRST_TOKEN_BOUNDS_MS: [i64; 10] = [5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 10_000];

const OUTCOMES: [Outcome; 6] = [
    Outcome::Completed,
    Outcome::Length,
    Outcome::BudgetStopped,
    Outcome::ClientCancelled,
    Outcome::ServerStopped,
    Outcome::Preempted,
];

/// Upper bounds of the buckets for the time of one grant, in milliseconds; one more bucket has no bound.
pub const GRANT_BOUNDS_MS: [u64; 10] = [1, 2, 5, 10, 25, 50, 100, 250, 1_000, 5_000];

/// How long grants of slices took, refusals and the release of idle slices included.
#[derive(Default)]
pub(crate) struct GrantTimes {
    buckets: [AtomicU64; GRANT_BOUNDS_MS.len() + 1],
    micros: AtomicU64,
}

impl GrantTimes {
    pub fn took(&self, time: std::time::Duration) {
        let bucket = GRANT_BOUNDS_MS.iter().position(|bound| time.as_millis() < u128::from(*bound));
        self.buckets[bucket.unwrap_or(GRANT_BOUNDS_MS.len())].fetch_add(1, Ordering::Relaxed);
        self.micros.fetch_add(u64::try_from(time.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
    pub fn read(&self) -> GrantFigures {
        GrantFigures { buckets: self.buckets.iter().map(read).collect(), micros: read(&self.micros) }
    }
}

/// Times of grants since the start.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct GrantFigures {
    /// Grants per bucket of [`GRANT_BOUNDS_MS`], not cumulative; the last has no bound.
    pub buckets: Vec<u64>,
    /// All of them together, in microseconds.
    pub micros: u64,
}

#[derive(Default)]
pub(crate) struct Metrics {
    outcomes: [AtomicU64; OUTCOMES.len()],
    voided: AtomicU64,
    unsold: AtomicU64,
    refused: AtomicU64,
    input: AtomicU64,
    cached_input: AtomicU64,
    output: AtomicU64,
    first_token: [AtomicU64; FIRST_TOKEN_BOUNDS_MS.len() + 1],
    first_token_millis: AtomicU64,
}

fn add(counter: &AtomicU64, count: i64) {
    counter.fetch_add(u64::try_from(count).unwrap_or(0), Ordering::Relaxed);
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

impl Metrics {
    pub fn ended(&self, outcome: Outcome, tokens: &TokenUsage) {
        if let Some(position) = OUTCOMES.iter().position(|known| *known == outcome) {
            add(&self.outcomes[position], 1);
        }
        add(&self.input, tokens.input.get());
        add(&self.cached_input, tokens.cached_input.get());
        add(&self.output, tokens.output.get());
    }
    pub fn voided(&self) {
        add(&self.voided, 1);
    }
    pub fn unsold(&self) {
        add(&self.unsold, 1);
    }
    pub fn refused(&self) {
        add(&self.refused, 1);
    }
    pub fn first_token(&self, after: DurationMs) {
        let bucket = FIRST_TOKEN_BOUNDS_MS.iter().position(|bound| after.millis() <= *bound).unwrap_or(FIRST_TOKEN_BOUNDS_MS.len());
        add(&self.first_token[bucket], 1);
        add(&self.first_token_millis, after.millis());
    }
    /// Fills in what this type counts itself.
    pub fn snapshot(&self) -> MetricsSnapshot {
        MetricsSnapshot {
            requests: OUTCOMES.iter().zip(&self.outcomes).map(|(outcome, count)| (*outcome, read(count))).collect(),
            voided: read(&self.voided),
            unsold: read(&self.unsold),
            refused: read(&self.refused),
            tokens: TokenUsage {
                input: tokens(&self.input),
                cached_input: tokens(&self.cached_input),
                output: tokens(&self.output),
            },
            first_token: self.first_token.iter().map(read).collect(),
            first_token_sum: DurationMs::from_millis(i64::try_from(read(&self.first_token_millis)).unwrap_or(i64::MAX)),
            ..MetricsSnapshot::default()
        }
    }
}

fn tokens(counter: &AtomicU64) -> TokenCount {
    TokenCount::new(i64::try_from(read(counter)).unwrap_or(i64::MAX))
}

/// The gateway's figures at one instant. Counts are since the start.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct MetricsSnapshot {
    /// Requests with a usage record, by how they ended.
    pub requests: Vec<(Outcome, u64)>,
    /// Requests that ended without output and without a charge, after money was held.
    pub voided: u64,
    /// Requests among those for which a supplier is owed something.
    pub unsold: u64,
    /// Suppliers that were asked and neither delivered nor counted anything.
    pub calls_unaccounted: u64,
    /// Requests refused before anything was generated.
    pub refused: u64,
    pub tokens: TokenUsage,
    /// Requests in flight now.
    pub in_flight: u64,
    /// Money held by requests in flight now.
    pub held: Nanos,
    /// Requests per bucket of [`FIRST_TOKEN_BOUNDS_MS`], not cumulative; the last has no bound.
    pub first_token: Vec<u64>,
    pub first_token_sum: DurationMs,
    pub journal_records: u64,
    pub journal_syncs: u64,
    /// Time spent in sync calls, in microseconds.
    pub journal_sync_micros: u64,
    /// Records handed over and not yet durable.
    pub journal_waiting: u64,
    /// Durable records that are not settled yet.
    pub journal_unsettled: u64,
    /// Size of the segments that are kept.
    pub journal_bytes: Bytes,
    /// Slices that were offered back and are not closed yet.
    pub slices_returning: u64,
    pub grants: GrantFigures,
}
