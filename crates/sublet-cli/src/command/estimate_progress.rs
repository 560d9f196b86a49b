//! How far a long replay is: a bar on a terminal, a line for each policy elsewhere.

use std::io::Write;

use sublet_capacity::estimate::demand::Demand;

use crate::Context;

/// Rows from which on it is said how far a replay is.
const ROWS_MIN: usize = 200_000;
const BAR_CHARS: usize = 30;

/// The progress of all policies over all pools, in seconds of history.
pub(super) struct Progress {
    /// Seconds of history before each pool, and where the pool begins.
    pools: Vec<(i64, i64)>,
    span_s: i64,
    policies: usize,
    policy: usize,
    name: &'static str,
    is_live: bool,
    is_long: bool,
    shown: Option<i64>,
}

impl Progress {
    pub(super) fn new(demand: &Demand, policies: usize, is_live: bool) -> Self {
        let mut span_s = 0;
        let mut pools = Vec::with_capacity(demand.pools.len());
        for pool in &demand.pools {
            let start_s = pool.steps.first().map_or(demand.end_s, |step| step.at_s);
            pools.push((span_s, start_s));
            span_s += demand.end_s - start_s;
        }
        let rows: usize = demand.pools.iter().map(|pool| pool.steps.len()).sum();
        // Long steps are replayed a minute at a time.
        let minutes = usize::try_from(span_s / 60).unwrap_or(usize::MAX);
        let is_long = rows.max(minutes) >= ROWS_MIN;
        Self { pools, span_s: span_s.max(1), policies, policy: 0, name: "", is_live, is_long, shown: None }
    }

    /// The next policy is replayed.
    pub(super) fn begin(&mut self, place: usize, name: &'static str, context: &mut Context<'_>) {
        (self.policy, self.name) = (place, name);
        if self.is_long && !self.is_live {
            // A replay does not fail because nobody hears how far it is.
            let _ = context.note(&format!("{} of {}: {name}", place + 1, self.policies));
        }
    }

    /// The replay of a pool has come to an instant.
    pub(super) fn at(&mut self, pool: usize, at_s: i64, err: &mut dyn Write) {
        if !self.is_live || !self.is_long {
            return;
        }
        let (before_s, start_s) = self.pools.get(pool).copied().unwrap_or_default();
        let done = i64::try_from(self.policy).unwrap_or(0) * self.span_s + before_s + (at_s - start_s);
        let percent = done * 100 / (self.span_s * i64::try_from(self.policies).unwrap_or(1).max(1));
        if self.shown.is_none_or(|shown| shown < percent) {
            self.shown = Some(percent);
            let full = usize::try_from(percent).unwrap_or(0) * BAR_CHARS / 100;
            let _ = write!(err, "\r{}{} {percent:>3} % {:<30}", "#".repeat(full), "-".repeat(BAR_CHARS - full), self.name);
            let _ = err.flush();
        }
    }

    /// Takes the bar away.
    pub(super) fn end(&self, err: &mut dyn Write) {
        if self.shown.is_some() {
            let _ = write!(err, "\r{:width$}\r", "", width = BAR_CHARS + 40);
            let _ = err.flush();
        }
    }
}
