//! Straight-line recognition: what of an amount that was billed in advance is earned by when.
//!
//! A fee for standing ready is earned by the day, whatever is used. By the end of a day it is R(amount · days so far / days
//! in all), where R rounds half to even; what a month earns is the difference of that at its ends. So months add up to the
//! amount exactly, its last day has what rounding left, and leap days are days like others. Days are those of the
//! calendar: how many hours one of them has in some zone is of no matter.

use sublet_core::Nanos;
use sublet_core::error::{Error, ErrorCode, Result};
use sublet_core::money::divide_half_even;

use crate::period::PeriodKey;

/// An amount that is earned evenly over whole months.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StraightLine {
    pub amount: Nanos,
    pub first: PeriodKey,
    pub last: PeriodKey,
}

impl StraightLine {
    /// What is earned by the end of a month.
    pub fn earned_by(&self, month: PeriodKey) -> Result<Nanos> {
        if self.last < self.first {
            return Err(Error::internal("an amount is earned over a month at least"));
        }
        if month < self.first {
            return Ok(Nanos::ZERO);
        }
        self.earned_after(days(self.first, month.min(self.last))?)
    }

    /// What is earned by the end of so many days.
    pub fn earned_after(&self, days_so_far: i64) -> Result<Nanos> {
        let all = days(self.first, self.last)?;
        let part = divide_half_even(i128::from(self.amount.get()) * i128::from(days_so_far.clamp(0, all)), i128::from(all));
        i64::try_from(part).map(Nanos::new).map_err(|_| Error::new(ErrorCode::AmountOverflow, "a part of an amount is too large"))
    }

    /// What one month earns.
    pub fn of_month(&self, month: PeriodKey) -> Result<Nanos> {
        let before = if month > self.first { self.earned_by(month.minus(1)?)? } else { Nanos::ZERO };
        self.earned_by(month)?.checked_sub(before)
    }
}

/// Days from the beginning of one month to the end of another.
fn days(first: PeriodKey, last: PeriodKey) -> Result<i64> {
    let (mut count, mut month) = (0, first);
    loop {
        count += i64::from(month.days());
        if month >= last {
            return Ok(count);
        }
        month = month.next()?;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn month(text: &str) -> PeriodKey {
        text.parse().unwrap()
    }
    fn line(amount: i64, first: &str, last: &str) -> StraightLine {
        StraightLine { amount: Nanos::new(amount), first: month(first), last: month(last) }
    }

    /// Known failure: a share for each month, rounded by itself, so that a year adds up to another amount.
    fn by_months(line: StraightLine, months: i64) -> i64 {
        (0..months).map(|_| line.amount.get() / months).sum()
    }

    #[test]
    fn a_month_earns_by_its_days_and_a_leap_day_is_a_day() {
        let quarter = line(91_000, "2028-01", "2028-03");
        let months = ["2028-01", "2028-02", "2028-03"].map(|name| quarter.of_month(month(name)).unwrap().get());
        assert_eq!(months, [31_000, 29_000, 31_000]);
        let months =
            ["2027-01", "2027-02", "2027-03"].map(|name| line(90_000, "2027-01", "2027-03").of_month(month(name)).unwrap().get());
        assert_eq!(months, [31_000, 28_000, 31_000]);
        let year = line(1_000, "2027-01", "2027-12");
        assert_ne!(by_months(year, 12), 1_000);
        assert_eq!(year.earned_by(month("2027-12")).unwrap(), Nanos::new(1_000));
        assert_eq!(
            (year.of_month(month("2026-12")).unwrap(), year.of_month(month("2028-01")).unwrap()),
            (Nanos::ZERO, Nanos::ZERO)
        );
    }

    proptest! {
        /// Days, and months, add up to the amount exactly; no day is more than one unit from its even share.
        #[test]
        fn parts_add_up(amount in 0_i64..i64::MAX, start in 0_u32..600, length in 1_u32..13) {
            let first = month("2000-01").plus(start).unwrap();
            let last = first.plus(length - 1).unwrap();
            let line = StraightLine { amount: Nanos::new(amount), first, last };
            let months = (0..length).map(|index| line.of_month(first.plus(index).unwrap()).unwrap().get());
            prop_assert_eq!(months.sum::<i64>(), amount);
            let all = days(first, last).unwrap();
            let mut sum = 0;
            for day in 1..=all {
                let part = line.earned_after(day).unwrap().get() - line.earned_after(day - 1).unwrap().get();
                prop_assert!((i128::from(part) * i128::from(all) - i128::from(amount)).abs() <= i128::from(all));
                sum += part;
            }
            prop_assert_eq!(sum, amount);
        }
    }
}
