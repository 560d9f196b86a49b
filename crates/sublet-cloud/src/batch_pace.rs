//! How much of batches may run at once: they fill what nothing better uses. Pure.
//!
//! All of it is counted in answers: a line asks for one, or for several that the engine works on at once.

use sublet_core::engine::EngineLoad;
use sublet_core::{DurationMs, Timestamp};

/// Answers to lines of all batches that are under way at once, at most, but for a line that asks for more by itself.
pub const ANSWERS_IN_FLIGHT_MAX: usize = 16;
/// The same beside somebody who waits for an answer, while there is time.
const ANSWERS_BESIDE_OTHERS: usize = 2;
/// The same when the time left is no more than what is needed.
const ANSWERS_BESIDE_OTHERS_TIGHT: usize = 8;
/// Answers that are begun although others queue, when the deadline will be missed otherwise.
const ANSWERS_BEFORE_OTHERS_LATE: usize = 4;

/// How a batch stands to its deadline.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Urgency {
    /// Half of the time that is left would do.
    Relaxed,
    /// The time that is left will just do.
    Tight,
    /// It will not.
    Late,
}

/// The urgency of a batch from its forecast.
pub fn urgency(now: Timestamp, forecast: Timestamp, deadline: Timestamp) -> Urgency {
    let (needed, left) = (forecast.since(now).millis().max(0), deadline.since(now).millis().max(0));
    if needed > left {
        Urgency::Late
    } else if needed.saturating_mul(2) > left {
        Urgency::Tight
    } else {
        Urgency::Relaxed
    }
}

/// How many answers may be under way in all. `own` of the engine's sequences are those of batches.
pub fn answers_allowed(load: EngineLoad, own: usize, urgency: Urgency) -> usize {
    let all = load.running.saturating_add(load.parked).saturating_add(load.queued);
    let others = all.saturating_sub(u64::try_from(own).unwrap_or(u64::MAX));
    match (urgency, load.queued > 0, others > 0) {
        (Urgency::Relaxed, true, _) => 0,
        (Urgency::Relaxed, false, true) => ANSWERS_BESIDE_OTHERS,
        (Urgency::Tight, true, _) => 1,
        (Urgency::Tight, false, true) => ANSWERS_BESIDE_OTHERS_TIGHT,
        (Urgency::Late, true, _) => ANSWERS_BEFORE_OTHERS_LATE,
        (Urgency::Late, false, true) | (_, false, false) => ANSWERS_IN_FLIGHT_MAX,
    }
}

/// How far a batch is, in answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pace {
    /// When its lines began to be run.
    pub since: Timestamp,
    pub done: u64,
    /// Those that are under way now.
    pub running: u64,
    /// Those that are not there yet, those under way among them.
    pub left: u64,
}

impl Pace {
    /// When the last answer will be there, if the rest goes as fast as what was done. While nothing is done,
    /// those that run are taken to be about to end, and if none may run, one: a batch that is starved is late
    /// before its time is over.
    pub fn forecast(self, now: Timestamp) -> Timestamp {
        let done = i128::from(if self.done == 0 { self.running.max(1) } else { self.done });
        let elapsed = i128::from(now.since(self.since).millis().max(1));
        // Rounded up: a forecast is rather late than early.
        let needed = (elapsed * i128::from(self.left) + done - 1) / done;
        now.plus(DurationMs::from_millis(i64::try_from(needed).unwrap_or(i64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const URGENCIES: [Urgency; 3] = [Urgency::Relaxed, Urgency::Tight, Urgency::Late];

    fn load() -> impl Strategy<Value = EngineLoad> {
        (0_u64..40, 0_u64..4, 0_u64..4).prop_map(|(running, parked, queued)| EngineLoad {
            running,
            parked,
            queued,
            steps: 0,
            produced: 0,
        })
    }

    proptest! {
        #[test]
        fn lines_are_bounded_and_never_fewer_when_it_is_more_urgent(load in load(), own in 0_usize..20) {
            let allowed = URGENCIES.map(|urgency| answers_allowed(load, own, urgency));
            prop_assert!(allowed.is_sorted() && allowed[2] <= ANSWERS_IN_FLIGHT_MAX, "{allowed:?}");
        }

        #[test]
        fn nothing_begins_while_somebody_queues_and_there_is_time(load in load(), own in 0_usize..20) {
            prop_assume!(load.queued > 0);
            prop_assert_eq!(answers_allowed(load, own, Urgency::Relaxed), 0);
        }

        #[test]
        fn a_forecast_is_never_before_now_and_later_with_more_left(elapsed in 0_i64..1_000_000, done in 0_u64..1_000, left in 0_u64..1_000) {
            let now = Timestamp::from_millis(elapsed);
            let at = |left| Pace { since: Timestamp::EPOCH, done, running: 0, left }.forecast(now);
            prop_assert!(at(left) >= now && at(left + 1) >= at(left));
        }
    }

    #[test]
    fn an_idle_engine_is_filled_and_a_busy_one_is_left_alone() {
        let idle = EngineLoad::default();
        let busy = EngineLoad { running: 3, ..idle };
        assert_eq!(URGENCIES.map(|urgency| answers_allowed(idle, 0, urgency)), [16, 16, 16]);
        assert_eq!(URGENCIES.map(|urgency| answers_allowed(busy, 0, urgency)), [2, 8, 16]);
        // Its own lines are not others.
        assert_eq!(answers_allowed(busy, 3, Urgency::Relaxed), 16);
    }

    #[test]
    fn a_batch_is_late_once_its_forecast_is_behind_its_deadline() {
        let at = Timestamp::from_seconds;
        for (forecast, expected) in [(40, Urgency::Relaxed), (60, Urgency::Tight), (101, Urgency::Late)] {
            assert_eq!(urgency(at(0), at(forecast), at(100)), expected, "{forecast:?}");
        }
        let pace = Pace { since: at(0), done: 5, running: 2, left: 10 };
        assert_eq!(pace.forecast(at(10)), at(30));
        assert_eq!(Pace { left: 0, ..pace }.forecast(at(10)), at(10));
    }

    #[test]
    fn a_batch_that_is_starved_becomes_urgent_before_its_deadline() {
        let at = Timestamp::from_seconds;
        let pace = Pace { since: at(0), done: 0, running: 0, left: 10 };
        let urgencies = [1, 5, 50].map(|now| urgency(at(now), pace.forecast(at(now)), at(100)));
        assert_eq!(urgencies, [Urgency::Relaxed, Urgency::Tight, Urgency::Late]);
        // Lines that run say that it is not starved.
        assert_eq!(Pace { running: 5, ..pace }.forecast(at(10)), at(30));
    }
}
