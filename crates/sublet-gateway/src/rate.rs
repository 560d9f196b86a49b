//! Limits on speed: requests and tokens per minute, and requests in flight, per key.
//!
//! The buckets are GCRA in its leaky-bucket form, in exact integers: a bucket of limit `L` per minute
//! gains `L` parts each microsecond, and one unit is 60,000,000 parts. Token buckets may go negative:
//! output is only known afterwards, and the debt delays what comes next.
//!
//! The source of the equivalence: ITU-T I.371, annex A (virtual scheduling and leaky bucket).

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::{HeaderMap, HeaderName, HeaderValue};
use sublet_core::admission::RateLimits;
use sublet_core::{DurationMs, Error, ErrorCode, Result, Timestamp, TokenCount};

/// Parts of one unit: the microseconds of a minute.
const PARTS_PER_UNIT: i64 = 60_000_000;

/// A bucket that refills to `limit` units within a minute.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    limit: u32,
    parts: i64,
    at: Timestamp,
}

impl Bucket {
    fn full(limit: u32, at: Timestamp) -> Self {
        Self { limit, parts: i64::from(limit) * PARTS_PER_UNIT, at }
    }
    fn capacity(&self) -> i64 {
        i64::from(self.limit) * PARTS_PER_UNIT
    }
    fn refill(&mut self, now: Timestamp) {
        // A clock that jumps back gives nothing and takes nothing.
        let passed = now.micros().saturating_sub(self.at.micros()).max(0);
        self.parts = self.parts.saturating_add(passed.saturating_mul(i64::from(self.limit))).min(self.capacity());
        self.at = self.at.max(now);
    }
    fn has(&self, units: i64) -> bool {
        self.parts >= units.saturating_mul(PARTS_PER_UNIT)
    }
    fn take(&mut self, units: i64) {
        self.parts = self.parts.saturating_sub(units.saturating_mul(PARTS_PER_UNIT));
    }
    fn remaining(&self) -> i64 {
        self.parts.div_euclid(PARTS_PER_UNIT).max(0)
    }
    /// Until `parts` are there, rounded up to milliseconds.
    fn until(&self, parts: i64) -> DurationMs {
        let missing = parts.saturating_sub(self.parts).max(0);
        let per_milli = i64::from(self.limit.max(1)) * 1_000;
        DurationMs::from_millis(missing.div_euclid(per_milli) + i64::from(missing.rem_euclid(per_milli) > 0))
    }
}

#[derive(Default, Debug)]
struct Buckets {
    limits: RateLimits,
    requests: Option<Bucket>,
    tokens: Option<Bucket>,
}

impl Buckets {
    /// Follows a change of the key's limits; a changed bucket starts full.
    fn follow(&mut self, limits: RateLimits, now: Timestamp) {
        if self.limits != limits {
            let changed = |bucket: Option<Bucket>, limit: Option<u32>| match (bucket, limit) {
                (Some(bucket), Some(limit)) if bucket.limit == limit => Some(bucket),
                (_, limit) => limit.map(|limit| Bucket::full(limit, now)),
            };
            self.requests = changed(self.requests, limits.requests_per_minute);
            self.tokens = changed(self.tokens, limits.tokens_per_minute);
            self.limits = limits;
        }
        for bucket in [&mut self.requests, &mut self.tokens].into_iter().flatten() {
            bucket.refill(now);
        }
    }
}

/// The speed of one key.
#[derive(Default, Debug)]
pub(crate) struct KeyRate {
    buckets: Mutex<Buckets>,
    in_flight: AtomicU32,
}

/// What the `x-ratelimit-*` headers say.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct RateReport {
    requests: Option<BucketReport>,
    tokens: Option<BucketReport>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct BucketReport {
    limit: u32,
    remaining: i64,
    reset: DurationMs,
}

impl KeyRate {
    fn buckets(&self) -> MutexGuard<'_, Buckets> {
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a request in flight, and against the limit on requests.
    pub fn enter(self: &Arc<Self>, limits: RateLimits, now: Timestamp) -> Result<InFlight> {
        let guard = self.begin(limits.concurrent_requests)?;
        let mut buckets = self.buckets();
        buckets.follow(limits, now);
        if let Some(bucket) = &mut buckets.requests {
            if !bucket.has(1) {
                return Err(too_fast("requests", bucket.limit, bucket.until(PARTS_PER_UNIT)));
            }
            bucket.take(1);
        }
        // Tokens are checked here as well, so that a key in debt costs no tokenizing.
        if let Some(bucket) = &buckets.tokens
            && !bucket.has(1)
        {
            return Err(too_fast("tokens", bucket.limit, bucket.until(PARTS_PER_UNIT)));
        }
        drop(buckets);
        Ok(guard)
    }

    fn begin(self: &Arc<Self>, limit: Option<u32>) -> Result<InFlight> {
        let running = self.in_flight.fetch_add(1, Ordering::AcqRel);
        let guard = InFlight(Arc::clone(self));
        match limit {
            Some(limit) if running >= limit => Err(Error::new(
                ErrorCode::ConcurrencyExceeded,
                format!("this key may have {limit} requests in flight, and has that many"),
            )
            .alternative("wait for a request to finish")
            .retry_after(DurationMs::from_seconds(1))),
            _ => Ok(guard),
        }
    }

    /// Takes tokens; the bucket may go negative.
    pub fn spend_tokens(&self, tokens: TokenCount, now: Timestamp) {
        let mut buckets = self.buckets();
        if let Some(bucket) = &mut buckets.tokens {
            bucket.refill(now);
            bucket.take(tokens.get());
        }
    }

    pub fn report(&self, now: Timestamp) -> RateReport {
        let mut buckets = self.buckets();
        let report = |bucket: &mut Option<Bucket>| {
            bucket.as_mut().map(|bucket| {
                bucket.refill(now);
                BucketReport { limit: bucket.limit, remaining: bucket.remaining(), reset: bucket.until(bucket.capacity()) }
            })
        };
        let Buckets { requests, tokens, .. } = &mut *buckets;
        RateReport { requests: report(requests), tokens: report(tokens) }
    }

    /// True if forgetting this key changes nothing.
    pub fn is_idle(&self, now: Timestamp) -> bool {
        let report = self.report(now);
        let full = |bucket: Option<BucketReport>| bucket.is_none_or(|bucket| bucket.reset == DurationMs::ZERO);
        self.in_flight.load(Ordering::Acquire) == 0 && full(report.requests) && full(report.tokens)
    }
}

fn too_fast(what: &str, limit: u32, wait: DurationMs) -> Error {
    Error::new(ErrorCode::RateLimitExceeded, format!("this key may use {limit} {what} per minute"))
        .alternative(format!("repeat in {} ms", wait.millis()))
        .retry_after(wait)
}

/// One request of a key, until it is dropped.
#[derive(Debug)]
pub(crate) struct InFlight(Arc<KeyRate>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::AcqRel);
    }
}

const HEADERS: [[HeaderName; 3]; 2] = [
    [
        HeaderName::from_static("x-ratelimit-limit-requests"),
        HeaderName::from_static("x-ratelimit-remaining-requests"),
        HeaderName::from_static("x-ratelimit-reset-requests"),
    ],
    [
        HeaderName::from_static("x-ratelimit-limit-tokens"),
        HeaderName::from_static("x-ratelimit-remaining-tokens"),
        HeaderName::from_static("x-ratelimit-reset-tokens"),
    ],
];

impl RateReport {
    /// A limit that is not set has no header: there is no truthful number for it.
    pub fn write(&self, headers: &mut HeaderMap) {
        for (names, report) in HEADERS.iter().zip([self.requests, self.tokens]) {
            let Some(report) = report else { continue };
            headers.insert(names[0].clone(), HeaderValue::from(report.limit));
            headers.insert(names[1].clone(), HeaderValue::from(report.remaining));
            if let Ok(reset) = HeaderValue::from_str(&duration_text(report.reset)) {
                headers.insert(names[2].clone(), reset);
            }
        }
    }
}

/// A duration as OpenAI writes it: `250ms`, `1s`, `6m0s`.
fn duration_text(duration: DurationMs) -> String {
    let millis = duration.millis();
    if millis > 0 && millis < 1_000 {
        return format!("{millis}ms");
    }
    let seconds = duration.seconds_ceil();
    if seconds < 60 { format!("{seconds}s") } else { format!("{}m{}s", seconds / 60, seconds % 60) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(requests: Option<u32>, tokens: Option<u32>, concurrent: Option<u32>) -> RateLimits {
        RateLimits { requests_per_minute: requests, tokens_per_minute: tokens, concurrent_requests: concurrent }
    }

    #[test]
    fn requests_refill_one_by_one_and_the_wait_is_the_real_one() {
        let rate = Arc::new(KeyRate::default());
        let limits = limits(Some(60), None, None);
        let start = Timestamp::from_seconds(100);
        for _ in 0..60 {
            rate.enter(limits, start).unwrap();
        }
        let refused = rate.enter(limits, start).unwrap_err();
        assert_eq!((refused.code(), refused.retry_after_hint()), (ErrorCode::RateLimitExceeded, Some(DurationMs::from_seconds(1))));
        let almost = start.plus(DurationMs::from_millis(999));
        assert_eq!(rate.enter(limits, almost).unwrap_err().retry_after_hint(), Some(DurationMs::from_millis(1)));
        rate.enter(limits, start.plus(DurationMs::from_seconds(1))).unwrap();
    }

    #[test]
    fn tokens_go_into_debt_and_the_debt_is_waited_for() {
        let rate = Arc::new(KeyRate::default());
        let limits = limits(None, Some(60), None);
        let start = Timestamp::from_seconds(100);
        rate.enter(limits, start).unwrap();
        rate.spend_tokens(TokenCount::new(150), start);
        let wait = rate.enter(limits, start).unwrap_err().retry_after_hint();
        assert_eq!(wait, Some(DurationMs::from_seconds(91)), "90 tokens of debt and one to go on with");
        rate.enter(limits, start.plus(DurationMs::from_seconds(91))).unwrap();
    }

    #[test]
    fn requests_in_flight_end_with_their_guard() {
        let rate = Arc::new(KeyRate::default());
        let limits = limits(None, None, Some(2));
        let first = rate.enter(limits, Timestamp::EPOCH).unwrap();
        let _second = rate.enter(limits, Timestamp::EPOCH).unwrap();
        assert_eq!(rate.enter(limits, Timestamp::EPOCH).unwrap_err().code(), ErrorCode::ConcurrencyExceeded);
        drop(first);
        rate.enter(limits, Timestamp::EPOCH).unwrap();
    }

    #[test]
    fn headers_say_what_is_left_and_when_it_is_whole() {
        let rate = Arc::new(KeyRate::default());
        let limits = limits(Some(600), Some(60), None);
        rate.enter(limits, Timestamp::EPOCH).unwrap();
        rate.spend_tokens(TokenCount::new(70), Timestamp::EPOCH);
        let mut headers = HeaderMap::new();
        rate.report(Timestamp::EPOCH).write(&mut headers);
        let seen: Vec<_> = HEADERS.iter().flatten().map(|name| headers[name].to_str().unwrap()).collect();
        assert_eq!(seen, ["600", "599", "100ms", "60", "0", "1m10s"]);
    }

    #[test]
    fn a_clock_that_jumps_back_neither_gives_nor_takes() {
        let rate = Arc::new(KeyRate::default());
        let limits = limits(Some(1), None, None);
        rate.enter(limits, Timestamp::from_seconds(100)).unwrap();
        assert!(rate.enter(limits, Timestamp::from_seconds(10)).is_err());
        assert!(rate.enter(limits, Timestamp::from_seconds(130)).is_err());
        rate.enter(limits, Timestamp::from_seconds(160)).unwrap();
    }
}
