//! Budget windows as the store needs them: days and months in the organization's time zone.

use sublet_core::{Result, Timestamp};
use sublet_money::period::{BillingCalendar, PeriodLength};
use sublet_store::budget::{BudgetRef, BudgetWindow, Periods};

/// The windows that hold an instant.
pub fn periods_at(time_zone: &str, instant: Timestamp) -> Result<Periods> {
    let calendar = BillingCalendar::new(time_zone)?;
    let day = calendar.interval_at(PeriodLength::Day, instant)?;
    let month = calendar.interval_at(PeriodLength::Month, instant)?;
    Ok(Periods { day: (day.starts_at, day.ends_at), month: (month.starts_at, month.ends_at) })
}

/// The window of a limit that runs in these periods.
pub fn reference_at(periods: &Periods, subject: &str, window: BudgetWindow) -> BudgetRef {
    let (starts_at, _) = periods.of(window);
    BudgetRef { subject: subject.to_owned(), window, starts_at }
}
