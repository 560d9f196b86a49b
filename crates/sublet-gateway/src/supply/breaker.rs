//! Whether a replica is worth asking: after failures in a row it is left alone for a while, then one
//! request tries it.

use sublet_core::{DurationMs, Timestamp};

/// Failures in a row after which a replica is left alone.
const FAILURES_MAX: u32 = 3;
/// How long at first; doubles with every failed trial up to the second.
const REST_FIRST: DurationMs = DurationMs::from_seconds(1);
const REST_MAX: DurationMs = DurationMs::from_seconds(30);
/// A trial that never ended gives its place to another after this long.
const TRIAL_MAX: DurationMs = DurationMs::from_seconds(10);

#[derive(Default, Debug)]
pub(crate) struct Breaker {
    failures: u32,
    /// Set while the replica is left alone.
    rest: Option<Rest>,
}

#[derive(Clone, Copy, Debug)]
struct Rest {
    length: DurationMs,
    until: Timestamp,
    /// A trial is under way.
    trial: bool,
}

impl Breaker {
    /// Whether a request may go there now. A `true` at the end of a rest is the one trial of it.
    pub fn admit(&mut self, now: Timestamp) -> bool {
        match &mut self.rest {
            None => true,
            Some(rest) if now < rest.until => false,
            Some(rest) => {
                (rest.until, rest.trial) = (now.plus(TRIAL_MAX), true);
                true
            }
        }
    }

    /// Whether it is left alone.
    pub fn is_open(&self) -> bool {
        self.rest.is_some()
    }

    /// How long until a trial, if it is left alone.
    pub fn wait(&self, now: Timestamp) -> Option<DurationMs> {
        self.rest.map(|rest| rest.until.since(now))
    }

    pub fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// It was seen to be there, which does not mean that it can answer: the next request is its trial.
    pub fn seen(&mut self, now: Timestamp) {
        if let Some(rest) = &mut self.rest {
            (rest.until, rest.trial) = (now, false);
        }
    }

    /// Failures of what was begun before the rest say nothing new.
    pub fn failed(&mut self, now: Timestamp) {
        self.failures = self.failures.saturating_add(1);
        let length = match self.rest {
            None if self.failures < FAILURES_MAX => return,
            None => REST_FIRST,
            Some(rest) if !rest.trial => return,
            Some(rest) => DurationMs::from_millis(rest.length.millis() * 2).min(REST_MAX),
        };
        self.rest = Some(Rest { length, until: now.plus(length), trial: false });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_replica_rests_longer_and_longer_until_a_trial_succeeds() {
        let mut breaker = Breaker::default();
        let mut now = Timestamp::from_seconds(100);
        for _ in 0..2 {
            breaker.failed(now);
            assert!(breaker.admit(now), "a single failure may be chance");
        }
        breaker.failed(now);
        let mut rests = Vec::new();
        for _ in 0..7 {
            assert!(breaker.is_open() && !breaker.admit(now));
            let rest = breaker.wait(now).unwrap();
            (0..8).for_each(|_| breaker.failed(now));
            assert_eq!(breaker.wait(now), Some(rest), "what fails meanwhile was begun before");
            rests.push(rest.seconds_ceil());
            now = now.plus(rest);
            assert!(breaker.admit(now), "the rest is over");
            assert!(!breaker.admit(now), "one trial at a time");
            breaker.failed(now);
        }
        assert_eq!(rests, [1, 2, 4, 8, 16, 30, 30]);
        breaker.succeeded();
        assert!(!breaker.is_open() && breaker.admit(now));
    }

    #[test]
    fn a_trial_that_is_lost_does_not_close_the_replica_for_ever() {
        let mut breaker = Breaker::default();
        let now = Timestamp::from_seconds(100);
        (0..3).for_each(|_| breaker.failed(now));
        let later = now.plus(REST_FIRST);
        assert!(breaker.admit(later));
        assert!(!breaker.admit(later.plus(DurationMs::from_seconds(9))));
        assert!(breaker.admit(later.plus(TRIAL_MAX)));
    }

    #[test]
    fn being_there_is_worth_one_trial_and_no_more() {
        let mut breaker = Breaker::default();
        let now = Timestamp::from_seconds(100);
        (0..3).for_each(|_| breaker.failed(now));
        breaker.seen(now);
        assert!(breaker.is_open() && breaker.admit(now) && !breaker.admit(now));
        breaker.failed(now);
        assert_eq!(breaker.wait(now), Some(DurationMs::from_seconds(2)));
    }
}
