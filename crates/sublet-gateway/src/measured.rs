//! How fast models answer here: first tokens and throughput of the last requests, kept in memory only.
//!
//! Only what tells a model's speed counts: single answers to requests that wait for them. Lines of batches give way
//! to others, and of an answer that a server elsewhere gives as a whole nobody saw the first token.
//!
//! Invariants: at most [`SAMPLES_MAX`] samples of each of [`MODELS_MAX`] models; none older than [`AGE_MAX`] is shown.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use sublet_api::card::{MeasuredSpeed, Percentiles};
use sublet_core::{DurationMs, Timestamp, TokenCount};

/// Requests of one model that are remembered.
const SAMPLES_MAX: usize = 256;
/// Models that are remembered; one more takes the place of the one that was idle longest.
const MODELS_MAX: usize = 1_024;
/// How long a request tells something of now.
const AGE_MAX: DurationMs = DurationMs::from_seconds(3_600);

/// One answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Sample {
    pub admitted_at: Timestamp,
    pub first_token_at: Timestamp,
    pub finished_at: Timestamp,
    pub output: TokenCount,
}

impl Sample {
    /// From admission to the first text, in milliseconds, rounded up.
    fn first_token_ms(&self) -> u64 {
        micros(self.admitted_at, self.first_token_at).div_ceil(1_000)
    }

    /// Tokens in a second after the first one.
    fn tokens_per_second(&self) -> Option<u64> {
        let tokens = u64::try_from(self.output.get()).unwrap_or(0).checked_sub(1).filter(|tokens| *tokens > 0)?;
        tokens.saturating_mul(1_000_000).checked_div(micros(self.first_token_at, self.finished_at))
    }
}

fn micros(from: Timestamp, to: Timestamp) -> u64 {
    u64::try_from(to.micros() - from.micros()).unwrap_or(0)
}

#[derive(Default)]
pub(crate) struct Measured {
    models: Mutex<HashMap<String, VecDeque<Sample>>>,
}

impl Measured {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, VecDeque<Sample>>> {
        self.models.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn record(&self, model: &str, sample: Sample) {
        let mut models = self.lock();
        if !models.contains_key(model) {
            if models.len() >= MODELS_MAX {
                let last = |samples: &VecDeque<Sample>| samples.back().map(|sample| sample.finished_at);
                let idle = models.iter().min_by_key(|(_, samples)| last(samples)).map(|(name, _)| name.clone());
                idle.map(|name| models.remove(&name));
            }
            models.insert(model.to_owned(), VecDeque::with_capacity(SAMPLES_MAX));
        }
        if let Some(samples) = models.get_mut(model) {
            if samples.len() == SAMPLES_MAX {
                samples.pop_front();
            }
            samples.push_back(sample);
        }
    }

    /// What the last requests were like; `None` if there were none.
    pub fn of(&self, model: &str, now: Timestamp) -> Option<MeasuredSpeed> {
        let recent: Vec<Sample> = {
            let models = self.lock();
            let since = now.minus(AGE_MAX);
            models.get(model)?.iter().filter(|sample| sample.finished_at > since).copied().collect()
        };
        // The smaller the better here, the larger the better there.
        let mut waits: Vec<u64> = recent.iter().map(Sample::first_token_ms).collect();
        waits.sort_unstable();
        let mut speeds: Vec<u64> = recent.iter().filter_map(Sample::tokens_per_second).collect();
        speeds.sort_unstable_by(|a, b| b.cmp(a));
        Some(MeasuredSpeed {
            requests: u32::try_from(recent.len()).unwrap_or(u32::MAX),
            first_token_ms: percentiles(&waits)?,
            output_tokens_per_second: percentiles(&speeds),
        })
    }
}

/// Of values from the best to the worst, by nearest rank.
fn percentiles(values: &[u64]) -> Option<Percentiles> {
    let rank = |percent: usize| values.get((values.len() * percent).div_ceil(100).checked_sub(1)?).copied();
    Some(Percentiles { p50: rank(50)?, p90: rank(90)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(second: i64, first_ms: i64, output: i64, decode_ms: i64) -> Sample {
        let admitted_at = Timestamp::from_seconds(second);
        let first_token_at = admitted_at.plus(DurationMs::from_millis(first_ms));
        let finished_at = first_token_at.plus(DurationMs::from_millis(decode_ms));
        Sample { admitted_at, first_token_at, finished_at, output: TokenCount::new(output) }
    }

    #[test]
    fn nine_of_ten_were_at_least_as_good_as_the_ninetieth() {
        let measured = Measured::default();
        assert_eq!(measured.of("m", Timestamp::from_seconds(0)), None);
        for n in 1..=10 {
            // The n-th waits n milliseconds and makes 100 tokens in n times 100 milliseconds.
            measured.record("m", sample(n, n, 101, n * 100));
        }
        let found = measured.of("m", Timestamp::from_seconds(20)).expect("ten requests");
        assert_eq!((found.requests, found.first_token_ms), (10, Percentiles { p50: 5, p90: 9 }));
        assert_eq!(found.output_tokens_per_second, Some(Percentiles { p50: 200, p90: 111 }));
        assert_eq!(measured.of("other", Timestamp::from_seconds(20)), None);
    }

    #[test]
    fn one_token_tells_no_throughput_and_old_requests_tell_nothing() {
        let measured = Measured::default();
        measured.record("m", sample(1, 7, 1, 0));
        let found = measured.of("m", Timestamp::from_seconds(2)).expect("a request");
        assert_eq!((found.first_token_ms.p90, found.output_tokens_per_second), (7, None));
        assert_eq!(measured.of("m", Timestamp::from_seconds(3_700)), None);
    }

    #[test]
    fn memory_is_bounded_in_requests_and_models() {
        let measured = Measured::default();
        for n in 0..1_000 {
            measured.record("busy", sample(n, n, 5, 5));
        }
        assert_eq!(measured.of("busy", Timestamp::from_seconds(1_000)).map(|found| found.requests), Some(256));
        for n in 0..2_000 {
            measured.record(&format!("m{n}"), sample(2_000 + n, 1, 5, 5));
        }
        assert_eq!(measured.lock().len(), MODELS_MAX);
        assert_eq!(measured.of("busy", Timestamp::from_seconds(2_000)), None, "the one that was idle longest went");
    }
}
