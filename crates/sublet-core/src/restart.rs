//! When a job that ended is run again.
//!
//! Pure: from what the job allows, how its attempt ended and what its lease was told to what becomes of it. A job that says
//! nothing is never run again.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorCode, Result};
use crate::job::{JobState, StopReason};
use crate::runner::Exit;
use crate::time::DurationMs;

/// Most restarts of one job, and how many there are if it does not say.
pub const RESTARTS_MAX: u32 = 900;
pub const RESTARTS_DEFAULT: u32 = 100;
/// A job is tried again on the lease that it has only among so many first restarts: its devices are kept for it between them.
pub const RETRIES_MAX: u32 = 20;
/// The longest that a job waits for its next attempt, and how long it does if it does not say.
pub const WAIT_MAX: DurationMs = DurationMs::from_hours(24 * 90);
pub const WAIT_DEFAULT: DurationMs = DurationMs::from_hours(24 * 7);
/// A program that has saved its work and leaves because it was told to ends with this: `EX_TEMPFAIL` of sysexits.h.
pub const EXIT_SAVED: i32 = 75;
/// The first pause before a retry; it doubles up to the longest, which is shorter than a lease may be unused.
const PAUSE_FIRST: DurationMs = DurationMs::from_seconds(10);
const PAUSE_LONGEST: DurationMs = DurationMs::from_seconds(120);

/// What a job asks for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RestartPolicy {
    /// When the owner interrupted it or its machine was lost.
    pub on_interruption: bool,
    /// When its program ended with one of these.
    pub exit_codes: BTreeSet<u8>,
    pub restarts_max: u32,
    /// How long it waits for capacity each time before it is given up.
    pub wait_max: DurationMs,
}

impl Default for RestartPolicy {
    fn default() -> Self {
        Self { on_interruption: false, exit_codes: BTreeSet::new(), restarts_max: RESTARTS_DEFAULT, wait_max: WAIT_DEFAULT }
    }
}

/// How a job goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GoesOn {
    /// It waits for other capacity.
    Elsewhere(StopReason),
    /// On the lease that it has, after a pause.
    Here,
}

impl RestartPolicy {
    pub fn is_never(&self) -> bool {
        !self.on_interruption && self.exit_codes.is_empty()
    }

    pub fn validate(&self) -> Result<()> {
        let refuse = |param: &str, reason: String| Err(Error::new(ErrorCode::InvalidRequest, reason).param(param));
        if self.restarts_max == 0 || self.restarts_max > RESTARTS_MAX {
            return refuse("restart.restarts_max", format!("a job is restarted between 1 and {RESTARTS_MAX} times"));
        }
        if self.wait_max <= DurationMs::ZERO || self.wait_max > WAIT_MAX {
            let days = WAIT_MAX.seconds_ceil().div_euclid(24 * 3_600);
            return refuse("restart.wait_seconds_max", format!("a job waits between a second and {days} days to go on"));
        }
        if self.exit_codes.contains(&0) {
            return refuse("restart.exit_codes", "a program that ends with 0 has succeeded and is not run again".to_owned());
        }
        Ok(())
    }

    /// What becomes of a job that was restarted so often and whose attempt ended so. `taken` is why the owner takes its lease
    /// back, if that is so; `None` is an end for good.
    pub fn after(&self, (ended, exit): (JobState, &Exit), taken: Option<StopReason>, restarts: u32) -> Option<GoesOn> {
        if restarts >= self.restarts_max {
            return None;
        }
        if self.on_interruption {
            let interrupted = ended.reason().filter(|reason| ended.is_final() && reason.is_owners());
            let saved = taken.filter(|_| ended == JobState::Failed && *exit == Exit::Code { code: EXIT_SAVED });
            if let Some(reason) = saved.or(interrupted) {
                return Some(GoesOn::Elsewhere(taken.unwrap_or(reason)));
            }
        }
        let Exit::Code { code } = exit else { return None };
        let is_retried = u8::try_from(*code).is_ok_and(|code| self.exit_codes.contains(&code));
        let goes_on = taken.filter(|_| self.on_interruption).map_or(GoesOn::Here, GoesOn::Elsewhere);
        (is_retried && may_be(goes_on, restarts)).then_some(goes_on)
    }

    /// The same of a job that no runner would start: one that ran before goes on, one that never did has nothing to go on with.
    pub fn after_refusal(&self, taken: Option<StopReason>, restarts: u32) -> Option<GoesOn> {
        if !self.on_interruption || restarts >= self.restarts_max {
            return None;
        }
        taken.map(GoesOn::Elsewhere).or((restarts > 0 && may_be(GoesOn::Here, restarts)).then_some(GoesOn::Here))
    }
}

fn may_be(goes_on: GoesOn, restarts: u32) -> bool {
    goes_on != GoesOn::Here || restarts < RETRIES_MAX
}

/// How long a retry waits on the lease that it has, after so many restarts.
pub fn pause_before_retry(restarts: u32) -> DurationMs {
    let doubled = PAUSE_FIRST.millis().saturating_mul(1_i64 << restarts.min(16));
    DurationMs::from_millis(doubled).min(PAUSE_LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::EndReason;

    const RECLAIMED: StopReason = StopReason::LeaseEnds(EndReason::Reclaimed);

    fn policy() -> RestartPolicy {
        RestartPolicy { on_interruption: true, exit_codes: BTreeSet::from([3]), restarts_max: 2, ..RestartPolicy::default() }
    }

    #[test]
    fn only_what_the_owner_interrupted_goes_on_elsewhere() {
        let stopped = Exit::Stopped { forced: false };
        let budget = StopReason::LeaseEnds(EndReason::Budget);
        let code = |code| Exit::Code { code };
        let (failed, interrupted) = (JobState::Failed, |reason| JobState::Interrupted { reason });
        let elsewhere = Some(GoesOn::Elsewhere(RECLAIMED));
        for (ended, exit, taken, expected) in [
            (interrupted(RECLAIMED), stopped.clone(), Some(RECLAIMED), elsewhere),
            (interrupted(StopReason::Lost), Exit::Lost, None, Some(GoesOn::Elsewhere(StopReason::Lost))),
            (interrupted(StopReason::Lost), Exit::Lost, Some(RECLAIMED), elsewhere),
            (interrupted(budget), stopped.clone(), None, None),
            (interrupted(StopReason::TimeLimit), stopped.clone(), None, None),
            (JobState::Cancelled, stopped, Some(RECLAIMED), None),
            (JobState::Succeeded, code(0), Some(RECLAIMED), None),
            (failed, code(EXIT_SAVED), Some(RECLAIMED), elsewhere),
            (failed, code(EXIT_SAVED), None, None),
            (failed, code(1), Some(RECLAIMED), None),
            (failed, code(3), Some(RECLAIMED), elsewhere),
            (failed, code(3), None, Some(GoesOn::Here)),
            (failed, code(259), None, None),
            (failed, Exit::Signal { signal: 3 }, None, None),
        ] {
            assert_eq!(policy().after((ended, &exit), taken, 1), expected, "{ended:?} {exit:?} {taken:?}");
            assert_eq!(policy().after((ended, &exit), taken, 2), None, "no restart is left: {ended:?} {exit:?}");
            assert_eq!(RestartPolicy::default().after((ended, &exit), taken, 0), None, "nobody asked: {ended:?} {exit:?}");
        }
    }

    #[test]
    fn what_no_runner_starts_goes_on_if_it_ran_before() {
        assert_eq!(policy().after_refusal(None, 0), None);
        assert_eq!(policy().after_refusal(None, 1), Some(GoesOn::Here));
        assert_eq!(policy().after_refusal(Some(RECLAIMED), 0), Some(GoesOn::Elsewhere(RECLAIMED)));
        assert_eq!(policy().after_refusal(Some(RECLAIMED), 2), None);
    }

    #[test]
    fn devices_are_not_kept_for_a_program_that_fails_again_and_again() {
        let policy = RestartPolicy { restarts_max: RESTARTS_MAX, ..policy() };
        let failed = (JobState::Failed, &Exit::Code { code: 3 });
        assert_eq!(policy.after(failed, None, RETRIES_MAX - 1), Some(GoesOn::Here));
        assert_eq!(policy.after(failed, None, RETRIES_MAX), None);
        assert_eq!(policy.after(failed, Some(RECLAIMED), RETRIES_MAX), Some(GoesOn::Elsewhere(RECLAIMED)));
        assert_eq!(policy.after_refusal(None, RETRIES_MAX), None);
    }

    #[test]
    fn pauses_double_and_end() {
        let seconds: Vec<i64> = (0..6).map(|restarts| pause_before_retry(restarts).seconds_ceil()).collect();
        assert_eq!(seconds, [10, 20, 40, 80, 120, 120]);
        assert_eq!(pause_before_retry(u32::MAX), PAUSE_LONGEST);
    }

    #[test]
    fn a_policy_has_bounds() {
        let good = policy();
        assert!(good.validate().is_ok());
        for wrong in [
            RestartPolicy { restarts_max: 0, ..policy() },
            RestartPolicy { restarts_max: RESTARTS_MAX + 1, ..policy() },
            RestartPolicy { wait_max: DurationMs::ZERO, ..policy() },
            RestartPolicy { wait_max: DurationMs::from_millis(WAIT_MAX.millis() + 1), ..policy() },
            RestartPolicy { exit_codes: BTreeSet::from([0]), ..policy() },
        ] {
            assert_eq!(wrong.validate().unwrap_err().code(), ErrorCode::InvalidRequest, "{wrong:?}");
        }
    }
}
