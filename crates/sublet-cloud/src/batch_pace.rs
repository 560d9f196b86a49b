//! How many lines of batches may run at once: they fill what nothing better uses. Pure.

use sublet_core::engine::EngineLoad;
use sublet_core::{DurationMs, Timestamp};

/// Lines of all batches that run at once, at most.
pub const LINES_IN_FLIGHT_MAX: usize = 16;
/// The same beside somebody who waits for an answer, while there is time.
const LINES_BESIDE_OTHERS: usize = 2;
/// The same when the time left is no more than what is needed.
const LINES_BESIDE_OTHERS_TIGHT: usize = 8;
/// Lines that run although others queue, when the deadline will be missed otherwise.
const LINES_BEFORE_OTHERS_LATE: usize = 4;

/// How a batch stands to its deadline.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Urgency {
    /// Half of the time that is left would do, or nothing is known yet.
    Relaxed,
    /// The time that is left will just do.
    Tight,
    /// It will not.
    Late,
}

/// The urgency of a batch from its forecast.
pub fn urgency(now: Timestamp, forecast: Option<Timestamp>, deadline: Timestamp) -> Urgency {
    let Some(forecast) = forecast else { return Urgency::Relaxed };
    let (needed, left) = (forecast.since(now).millis().max(0), deadline.since(now).millis().max(0));
    if needed > left {
        Urgency::Late
    } else if needed.saturating_mul(2) > left {
        Urgency::Tight
    } else {
        Urgency::Relaxed
    }
}

/// How many lines may run in all. `own` of the engine's sequences are lines of batches.
pub fn lines_allowed(load: EngineLoad, own: usize, urgency: Urgency) -> usize {
    let all = load.running.saturating_add(load.parked).saturating_add(load.queued);
    let others = all.saturating_sub(u64::try_from(own).unwrap_or(u64::MAX));
    match (urgency, load.queued > 0, others > 0) {
        (Urgency::Relaxed, true, _) => 0,
        (Urgency::Relaxed, false, true) => LINES_BESIDE_OTHERS,
        (Urgency::Tight, true, _) => 1,
        (Urgency::Tight, false, true) => LINES_BESIDE_OTHERS_TIGHT,
        (Urgency::Late, true, _) => LINES_BEFORE_OTHERS_LATE,
        (Urgency::Late, false, true) | (_, false, false) => LINES_IN_FLIGHT_MAX,
    }
}

/// When the last line will be answered, if the rest goes as fast as what was done.
pub fn forecast(now: Timestamp, since: Timestamp, done: u64, left: u64) -> Option<Timestamp> {
    if left == 0 {
        return Some(now);
    }
    if done == 0 {
        return None;
    }
    let elapsed = i128::from(now.since(since).millis().max(1));
    // Rounded up: a forecast is rather late than early.
    let needed = (elapsed * i128::from(left) + i128::from(done) - 1) / i128::from(done);
    Some(now.plus(DurationMs::from_millis(i64::try_from(needed).unwrap_or(i64::MAX))))
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
            let allowed = URGENCIES.map(|urgency| lines_allowed(load, own, urgency));
            prop_assert!(allowed.is_sorted() && allowed[2] <= LINES_IN_FLIGHT_MAX, "{allowed:?}");
        }

        #[test]
        fn nothing_begins_while_somebody_queues_and_there_is_time(load in load(), own in 0_usize..20) {
            prop_assume!(load.queued > 0);
            prop_assert_eq!(lines_allowed(load, own, Urgency::Relaxed), 0);
        }

        #[test]
        fn a_forecast_is_never_before_now_and_later_with_more_left(elapsed in 0_i64..1_000_000, done in 1_u64..1_000, left in 0_u64..1_000) {
            let now = Timestamp::from_millis(elapsed);
            let at = |left| forecast(now, Timestamp::EPOCH, done, left).unwrap();
            prop_assert!(at(left) >= now && at(left + 1) >= at(left));
        }
    }

    #[test]
    fn an_idle_engine_is_filled_and_a_busy_one_is_left_alone() {
        let idle = EngineLoad::default();
        let busy = EngineLoad { running: 3, ..idle };
        assert_eq!(URGENCIES.map(|urgency| lines_allowed(idle, 0, urgency)), [16, 16, 16]);
        assert_eq!(URGENCIES.map(|urgency| lines_allowed(busy, 0, urgency)), [2, 8, 16]);
        // Its own lines are not others.
        assert_eq!(lines_allowed(busy, 3, Urgency::Relaxed), 16);
    }

    #[test]
    fn a_batch_is_late_once_its_forecast_is_behind_its_deadline() {
        let at = Timestamp::from_seconds;
        let cases =
            [(None, Urgency::Relaxed), (Some(40), Urgency::Relaxed), (Some(60), Urgency::Tight), (Some(101), Urgency::Late)];
        for (forecast, expected) in cases {
            assert_eq!(urgency(at(0), forecast.map(at), at(100)), expected, "{forecast:?}");
        }
        assert_eq!(forecast(at(10), at(0), 5, 10), Some(at(30)));
        assert_eq!(forecast(at(10), at(0), 0, 10), None);
    }
}
