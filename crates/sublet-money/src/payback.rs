//! When selling what was idle has paid for the devices: the simple payback period.
//!
//! It is the price of what was bought over what comes in for it in a year or, here, in a month of 730 hours. What comes
//! in is the gross margin with its depreciation added back: that is a cost, and no payment.
//!
//! Deliberately absent: interest, residual values, what the owner's own use of the devices is worth.

use sublet_core::error::{Error, ErrorCode, Result};
use sublet_core::money::{divide_ceil, divide_half_even};
use sublet_core::{DurationMs, Nanos};

use crate::supply_cost::HOURS_PER_MONTH;

/// What came in for a shorter time says nothing of a month.
const TIME_MIN: DurationMs = DurationMs::from_hours(24);
/// Longer than this is never.
const MONTHS_MAX: i128 = 12_000;

/// What was bought, and what it brought in for some time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Payback {
    /// Purchase prices.
    pub capital: Nanos,
    pub cash: Nanos,
    /// In which it came in.
    pub time: DurationMs,
}

impl Payback {
    /// What comes in for a month of 730 hours, rounded half to even; nothing of less than a day.
    pub fn monthly_cash(&self) -> Result<Option<Nanos>> {
        if self.time < TIME_MIN {
            return Ok(None);
        }
        let cash = divide_half_even(i128::from(self.cash.get()) * month_millis(), i128::from(self.time.millis()));
        let too_large = |_| Error::new(ErrorCode::AmountOverflow, "what comes in for a month left the range of amounts");
        i64::try_from(cash).map(|cash| Some(Nanos::new(cash))).map_err(too_large)
    }

    /// Tenths of months until the price is earned, rounded up; nothing where nothing was bought or
    /// nothing comes in, and of less than a day.
    pub fn tenths_of_months(&self) -> Option<u32> {
        let (capital, cash) = (i128::from(self.capital.get()), i128::from(self.cash.get()));
        if capital <= 0 || cash <= 0 || self.time < TIME_MIN {
            return None;
        }
        let tenths = divide_ceil(capital * i128::from(self.time.millis()), cash * (month_millis() / 10));
        u32::try_from(tenths).ok().filter(|_| tenths <= MONTHS_MAX * 10)
    }
}

const fn month_millis() -> i128 {
    HOURS_PER_MONTH * 3_600_000
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIT: i64 = 1_000_000_000;

    fn payback(capital: i64, cash: i64, hours: i64) -> Payback {
        Payback { capital: Nanos::new(capital * UNIT), cash: Nanos::new(cash * UNIT), time: DurationMs::from_hours(hours) }
    }

    #[test]
    fn a_price_is_paid_back_by_what_comes_in_for_a_month() {
        let whole = payback(30_000, 2_500, 730);
        assert_eq!((whole.tenths_of_months(), whole.monthly_cash().unwrap()), (Some(120), Some(Nanos::new(2_500 * UNIT))));
        // A third of a month with a third of the money is as long.
        assert_eq!(payback(30_000, 500, 146).tenths_of_months(), Some(120));
        assert_eq!(payback(30_001, 2_500, 730).tenths_of_months(), Some(121), "rounded up");
    }

    #[test]
    fn without_price_or_income_there_is_none() {
        for never in
            [payback(0, 10, 730), payback(10, 0, 730), payback(10, -5, 730), payback(10, 5, 23), payback(9_000_000, 1, 730)]
        {
            assert_eq!(never.tenths_of_months(), None, "{never:?}");
        }
        assert_eq!(payback(10, -5, 365).monthly_cash().unwrap(), Some(Nanos::new(-10 * UNIT)));
        assert_eq!(payback(10, 5, 23).monthly_cash().unwrap(), None);
    }
}
