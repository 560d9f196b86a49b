//! What will have been spent when a window ends.
//!
//! Two methods, each explained in a sentence. *Weekly profile*, from two weeks of hours on: the rest of the window costs
//! what the last seven days cost, in the proportion that these hours of the week have in the last weeks. *Run rate*,
//! where there is less: the rest costs as much an hour as the window did so far. Less than a twelfth of a window, or one
//! in which nothing was spent, says nothing: the answer is `None`, never zero.
//!
//! The band of the profile is twice the average difference of a day from the same day a week before,
//! growing with the root of the days to come and with the uncertainty of the level; to the side to which weeks grew it
//! is wider by the growth. The band of the run rate is half and double of the rest: it knows nothing of other days.
//!
//! Invariants: low ≤ expected ≤ high; none is below what is settled and fixed; more settled never lowers any of them;
//! amounts times k give k times the forecast, but for roundings of a nano-unit.
//!
//! Deliberately absent: limits. What would stop spending is not foreseen here, so that a forecast can say "more than that".

use std::collections::BTreeMap;

use sublet_core::error::{Error, ErrorCode, Result};
use sublet_core::money::divide_half_even;
use sublet_core::{Nanos, Timestamp};

use crate::period::Interval;

const HOUR_MICROS: i64 = 3_600_000_000;
const HOUR_SECONDS: i128 = 3_600;
const DAY_SECONDS: i128 = 86_400;
const HOURS_OF_DAY: usize = 24;
const HOURS_OF_WEEK: usize = 168;
/// What the profile needs.
pub const PROFILE_HOURS_MIN: usize = 2 * HOURS_OF_WEEK;
/// What it looks at.
pub const PROFILE_HOURS_MAX: usize = 8 * HOURS_OF_WEEK;
/// The run rate needs one part in so many of the window.
pub const RUN_RATE_SHARE: i128 = 12;
/// Shares are exact to one part in so many.
const SHARE_SCALE: i128 = 1_000_000_000;
/// Roots of numbers are exact to one part in so many.
const ROOT_SCALE: i128 = 1_000_000;

/// How a forecast was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ForecastMethod {
    WeeklyProfile,
    RunRate,
}

impl ForecastMethod {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::WeeklyProfile => "weekly_profile",
            Self::RunRate => "run_rate",
        }
    }
}

/// What will have been spent in a window at its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Forecast {
    pub low: Nanos,
    pub expected: Nanos,
    pub high: Nanos,
    pub method: ForecastMethod,
}

/// What was settled in a window when an hour was looked at last.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sample {
    pub hour: Hour,
    /// Where its window starts.
    pub starts_at: Timestamp,
    pub settled: Nanos,
}

/// Hours since 1970, in UTC.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Hour(i64);

impl Hour {
    pub const fn of(instant: Timestamp) -> Self {
        Self(instant.micros().div_euclid(HOUR_MICROS))
    }
    pub const fn from_number(number: i64) -> Self {
        Self(number)
    }
    pub const fn number(self) -> i64 {
        self.0
    }
    /// The hour that is so many hours before this one.
    pub const fn minus(self, hours: i64) -> Self {
        Self(self.0.saturating_sub(hours))
    }
    const fn starts_at(self) -> i64 {
        self.0.saturating_mul(HOUR_MICROS)
    }
    fn of_week(self) -> usize {
        usize::try_from(self.0.rem_euclid(168)).unwrap_or(0)
    }
}

/// Spend of hours that follow each other.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct History {
    hours: BTreeMap<Hour, i128>,
}

impl History {
    /// From samples in the order of time. What was spent while nobody looked is spread evenly over the hours between two looks.
    pub fn of(samples: &[Sample]) -> Self {
        let mut hours = BTreeMap::new();
        for pair in samples.windows(2) {
            let [before, after] = pair else { continue };
            let base = if after.starts_at == before.starts_at { before.settled } else { Nanos::ZERO };
            // A limit that was removed and set again counts anew.
            let spent = i128::from(after.settled.get().saturating_sub(base.get()).max(0));
            let gap = after.hour.0.saturating_sub(before.hour.0).min(1_000_000);
            let mut left = spent;
            for hour in 1..=gap {
                let part = left.div_euclid(i128::from(gap - hour + 1));
                left -= part;
                hours.insert(Hour(before.hour.0 + hour), part);
            }
        }
        Self { hours }
    }

    /// From the spend of hours that follow each other.
    pub fn of_hours(first: Hour, amounts: &[Nanos]) -> Self {
        let numbered = (first.0..).zip(amounts).map(|(hour, amount)| (Hour(hour), i128::from(amount.get().max(0))));
        Self { hours: numbered.collect() }
    }

    /// The whole hours before an instant, the last one last.
    fn until(&self, instant: Timestamp) -> Vec<(Hour, i128)> {
        let whole: Vec<(Hour, i128)> = self.hours.range(..Hour::of(instant)).map(|(hour, amount)| (*hour, *amount)).collect();
        whole.get(whole.len().saturating_sub(PROFILE_HOURS_MAX)..).unwrap_or_default().to_vec()
    }
}

/// What is known of a window at an instant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Observed<'a> {
    pub window: Interval,
    pub now: Timestamp,
    pub settled: Nanos,
    /// Costs of the rest of the window that are fixed already.
    pub committed: Nanos,
    pub history: &'a History,
}

/// What the rest of a window will cost, in nano-units.
struct Rest {
    low: i128,
    expected: i128,
    high: i128,
}

impl Observed<'_> {
    fn seconds_left(&self) -> i128 {
        i128::from(self.window.ends_at.micros().saturating_sub(self.now.micros()).max(0)).div_euclid(1_000_000)
    }

    /// What will have been spent at the end of the window; `None` if there is not enough to say anything.
    pub fn forecast(&self) -> Result<Option<Forecast>> {
        let hours = self.history.until(self.now);
        let (rest, method) = if hours.len() >= PROFILE_HOURS_MIN {
            (self.by_profile(&hours), ForecastMethod::WeeklyProfile)
        } else {
            match self.by_run_rate() {
                Some(rest) => (rest, ForecastMethod::RunRate),
                None => return Ok(None),
            }
        };
        let fixed = i128::from(self.committed.get().max(0));
        let at_end = |rest: i128| {
            let sum = i128::from(self.settled.get()) + rest.max(fixed);
            i64::try_from(sum)
                .map(Nanos::new)
                .map_err(|_| Error::new(ErrorCode::AmountOverflow, "a forecast left the range of amounts"))
        };
        Ok(Some(Forecast { low: at_end(rest.low)?, expected: at_end(rest.expected)?, high: at_end(rest.high)?, method }))
    }

    fn by_run_rate(&self) -> Option<Rest> {
        let (starts, ends) = (i128::from(self.window.starts_at.micros()), i128::from(self.window.ends_at.micros()));
        let elapsed = (i128::from(self.now.micros()).min(ends) - starts).max(0);
        let settled = i128::from(self.settled.get());
        if settled <= 0 || elapsed == 0 || elapsed * RUN_RATE_SHARE < ends - starts {
            return None;
        }
        let rest = settled * (ends - starts - elapsed);
        let expected = divide_half_even(rest, elapsed);
        Some(Rest { low: divide_half_even(rest, elapsed * 2), expected, high: expected * 2 })
    }

    fn by_profile(&self, hours: &[(Hour, i128)]) -> Rest {
        let level: i128 = hours.iter().rev().take(HOURS_OF_WEEK).map(|(_, amount)| amount).sum();
        // The oldest hours that make no whole week would weigh some hours of the week more than others.
        let weeks = hours.get(hours.len() % HOURS_OF_WEEK..).unwrap_or_default();
        let expected = divide_half_even(level * self.share_left(weeks), SHARE_SCALE);
        let days: Vec<i128> = hours.rchunks_exact(HOURS_OF_DAY).map(|day| day.iter().map(|(_, amount)| amount).sum()).collect();
        let differences: Vec<i128> =
            days.iter().zip(days.iter().skip(7)).map(|(day, week_before)| day - week_before).take(28).collect();
        let (half, drift) = self.uncertainty(&differences);
        Rest { low: (expected - half + drift.min(0)).max(0), expected, high: expected + half + drift.max(0) }
    }

    /// The hours that are left, as a part of the same hours' weekly spend, times [`SHARE_SCALE`].
    fn share_left(&self, weeks: &[(Hour, i128)]) -> i128 {
        let mut profile = [0_i128; HOURS_OF_WEEK];
        for (hour, amount) in weeks {
            if let Some(sum) = profile.get_mut(hour.of_week()) {
                *sum += amount;
            }
        }
        let total: i128 = profile.iter().sum();
        if total == 0 {
            return 0;
        }
        let (now, end) = (self.now.micros(), self.window.ends_at.micros());
        let mut weighted = 0_i128;
        let mut hour = Hour::of(self.now);
        while hour.starts_at() < end {
            let (from, until) = (hour.starts_at().max(now), hour.starts_at().saturating_add(HOUR_MICROS).min(end));
            let seconds = i128::from(until.saturating_sub(from)).div_euclid(1_000_000);
            weighted += profile.get(hour.of_week()).copied().unwrap_or(0) * seconds;
            hour = Hour(hour.0 + 1);
        }
        divide_half_even(weighted * SHARE_SCALE, total * HOUR_SECONDS)
    }

    /// Half of the band, and what the rest changes by if weeks go on to grow as they did: for n days to come, twice the
    /// average difference times the root of n (1 + n/7), and the average growth times n (n + 7) / 14.
    fn uncertainty(&self, differences: &[i128]) -> (i128, i128) {
        let Some(count) = i128::try_from(differences.len()).ok().filter(|count| *count > 0) else { return (0, 0) };
        let seconds = self.seconds_left();
        let spread: i128 = differences.iter().map(|difference| difference.abs()).sum();
        let growth: i128 = differences.iter().sum();
        let area = seconds * seconds + 7 * DAY_SECONDS * seconds;
        let root = (area * ROOT_SCALE * ROOT_SCALE).div_euclid(7 * DAY_SECONDS * DAY_SECONDS).isqrt();
        let half = divide_half_even(2 * spread * root, count * ROOT_SCALE);
        (half, divide_half_even(growth * area, 14 * count * DAY_SECONDS * DAY_SECONDS))
    }
}

#[cfg(test)]
#[path = "forecast_tests.rs"]
mod tests;
