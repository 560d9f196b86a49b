//! Limits on speed: requests and tokens per minute, tokens per day, and requests in flight, of
//! organizations, projects, keys, their models and their end users.
//!
//! All gateways draw from the same buckets (`sublet_core::rate`); each spends what it has drawn without
//! asking. A request passes every limit that applies to it, or is told the one that it does not pass.
//!
//! Deliberately absent: money (see `purse`), and where buckets are kept.

mod drawer;
mod meter;
mod report;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::join_all;
use sublet_core::admission::{Access, Admission};
use sublet_core::id::GatewayId;
use sublet_core::rate::{EndUser, RateMetric, RateRule};
use sublet_core::{Clock, DurationMs, Error, ErrorCode, Result, Timestamp, TokenCount};

use drawer::Drawer;
use meter::{Entry, Meter, Place, Purpose};
pub(crate) use report::RateReport;

/// Maps of meters, so that requests of different keys seldom meet.
const SHARDS: usize = 16;
/// How long a request waits for a draw.
const DRAW_WAIT: DurationMs = DurationMs::from_seconds(10);

pub(crate) struct Limits {
    drawer: Arc<Drawer>,
    shards: Vec<Mutex<HashMap<Arc<str>, Arc<Meter>>>>,
    meters_max: usize,
}

/// What is known of a request so far.
#[derive(Clone, Copy)]
pub(crate) enum Stage<'a> {
    /// Its key.
    Key,
    /// Its body as well.
    Body { model: &'a str, end_user: Option<&'a EndUser> },
}

/// The limits that a request has passed, until it ends.
#[derive(Default)]
pub(crate) struct Pass {
    meters: Vec<Arc<Meter>>,
    /// Given back when they are dropped.
    places: Vec<Place>,
    /// Tokens that were taken.
    counted: i64,
}

impl Pass {
    /// Counts so many tokens in all against every limit on them: more than before, or fewer.
    pub fn count(&mut self, tokens: TokenCount, now: Timestamp) {
        let more = tokens.get().saturating_sub(std::mem::replace(&mut self.counted, tokens.get()));
        for meter in self.meters.iter().filter(|meter| meter.metric().is_tokens()) {
            meter.spend(more, now);
        }
    }

    pub fn report(&self, now: Timestamp) -> RateReport {
        let mut report = RateReport { at: Some(now), ..RateReport::default() };
        for meter in self.meters.iter().filter(|meter| meter.metric() != RateMetric::ConcurrentRequests) {
            report.add(meter.left(now), meter.metric().is_tokens());
        }
        report
    }
}

fn not_in_time() -> Error {
    Error::new(ErrorCode::StoreUnavailable, "the limits could not be asked in time").retry_after(DurationMs::from_seconds(1))
}

/// Tokens are only looked at, and a place is given back: what cannot be undone is taken last.
const fn order(metric: RateMetric) -> u8 {
    match metric {
        RateMetric::TokensPerMinute | RateMetric::TokensPerDay => 0,
        RateMetric::ConcurrentRequests => 1,
        RateMetric::RequestsPerMinute => 2,
    }
}

impl Limits {
    pub fn new(admission: Arc<dyn Admission>, clock: Arc<dyn Clock>, session: (GatewayId, i64), meters_max: usize) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { drawer: Drawer::new(admission, clock, session), shards, meters_max }
    }

    fn shard(&self, bucket: &str) -> MutexGuard<'_, HashMap<Arc<str>, Arc<Meter>>> {
        let sum = bucket.bytes().fold(0_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(byte)));
        self.shards[sum % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn meter(&self, rule: &RateRule, bucket: Arc<str>, now: Timestamp) -> Result<Arc<Meter>> {
        let mut shard = self.shard(&bucket);
        if let Some(meter) = shard.get(&bucket) {
            return Ok(Arc::clone(meter));
        }
        if shard.len() >= self.meters_max.div_ceil(SHARDS) {
            return Err(Error::new(ErrorCode::QueueFull, "too many limits are in use at this gateway")
                .retry_after(DurationMs::from_seconds(5)));
        }
        let meter = Meter::new(rule, Arc::clone(&bucket), now);
        shard.insert(bucket, Arc::clone(&meter));
        Ok(meter)
    }

    /// Counts a request against the limits that can be told at this stage. Those of a refused request are in its pass too,
    /// for its headers.
    pub async fn enter(&self, pass: &mut Pass, access: &Access, stage: Stage<'_>, now: Timestamp) -> Result<()> {
        let mut meters = Vec::new();
        for rule in &access.limits {
            let bucket = match stage {
                Stage::Key if rule.is_plain() => Some(Arc::clone(&rule.name)),
                Stage::Body { model, end_user } if !rule.is_plain() => rule.bucket(model, end_user),
                Stage::Key | Stage::Body { .. } => None,
            };
            if let Some(bucket) = bucket {
                meters.push((self.meter(rule, bucket, now)?, rule.value));
            }
        }
        if meters.is_empty() {
            return Ok(());
        }
        meters.sort_by_key(|(meter, _)| order(meter.metric()));
        pass.meters.extend(meters.iter().map(|(meter, _)| Arc::clone(meter)));
        let taken_last = meters.partition_point(|(meter, _)| meter.metric() != RateMetric::RequestsPerMinute);
        let (undone, taken) = meters.split_at(taken_last);
        self.pass(pass, undone, now).await?;
        self.pass(pass, taken, now).await
    }

    /// Passes meters, all at once.
    async fn pass(&self, pass: &mut Pass, meters: &[(Arc<Meter>, i64)], now: Timestamp) -> Result<()> {
        let mut waits = Vec::new();
        for (meter, value) in meters {
            let (entry, draws) = meter.enter(*value, now);
            if draws {
                self.drawer.add(Arc::clone(meter), Purpose::Serve);
            }
            match entry {
                Entry::Now(place) => pass.places.extend(place),
                Entry::Wait(answer) => waits.push(answer),
            }
        }
        if waits.is_empty() {
            return Ok(());
        }
        let answers = tokio::time::timeout(DRAW_WAIT.to_std(), join_all(waits)).await.map_err(|_| not_in_time())?;
        for answer in answers {
            pass.places.extend(answer.unwrap_or_else(|_| Err(Error::internal("a meter dropped its waiter")))?);
        }
        Ok(())
    }

    fn all(&self) -> Vec<Arc<Meter>> {
        let mut all = Vec::new();
        for shard in &self.shards {
            all.extend(shard.lock().unwrap_or_else(PoisonError::into_inner).values().cloned());
        }
        all
    }

    /// Tells the cloud of debt, gives back what nobody used since `idle`, and forgets what says nothing.
    pub fn sweep(&self, idle: Timestamp) {
        for meter in self.all() {
            if let Some(purpose) = meter.due(idle) {
                self.drawer.add(meter, purpose);
            }
        }
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            shard.retain(|_, meter| Arc::strong_count(meter) > 1 || !meter.is_idle());
        }
    }

    /// Gives back everything that nobody uses, and waits until the cloud knows.
    pub async fn give_back(&self, now: Timestamp) {
        self.drawer.rest().await;
        self.sweep(now);
        self.drawer.rest().await;
    }
}
