//! A calendar day, without a zone: `2026-07-31`.

use std::fmt;
use std::str::FromStr;

use jiff::ToSpan;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use sublet_core::error::{Error, ErrorCode, Result};

use crate::period::{PeriodKey, YEAR_MAX, YEAR_MIN};
use crate::time_of_use::Weekday;

/// A day of the calendar. Sorts by time.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Day(Date);

impl Day {
    pub(crate) const fn of(date: Date) -> Self {
        Self(date)
    }

    pub(crate) const fn date(self) -> Date {
        self.0
    }

    /// The last day of a month.
    pub fn last_of(month: PeriodKey) -> Result<Self> {
        Date::new(month.year(), month.month(), 1).map(|first| Self(first.last_of_month())).map_err(|_| outside())
    }

    /// So many days later.
    pub fn plus_days(self, days: u16) -> Result<Self> {
        let later = self.0.checked_add(i64::from(days).days()).map_err(|_| outside())?;
        Self::within(later)
    }

    /// 1 to 31.
    pub fn day_of_month(self) -> u8 {
        self.0.day().unsigned_abs()
    }
    /// How many days its month has.
    pub fn days_in_month(self) -> u8 {
        self.0.days_in_month().unsigned_abs()
    }
    pub fn is_same_month(self, other: Self) -> bool {
        (self.0.year(), self.0.month()) == (other.0.year(), other.0.month())
    }
    pub fn weekday(self) -> Weekday {
        match self.0.weekday() {
            jiff::civil::Weekday::Monday => Weekday::Mon,
            jiff::civil::Weekday::Tuesday => Weekday::Tue,
            jiff::civil::Weekday::Wednesday => Weekday::Wed,
            jiff::civil::Weekday::Thursday => Weekday::Thu,
            jiff::civil::Weekday::Friday => Weekday::Fri,
            jiff::civil::Weekday::Saturday => Weekday::Sat,
            jiff::civil::Weekday::Sunday => Weekday::Sun,
        }
    }

    fn within(date: Date) -> Result<Self> {
        if (YEAR_MIN..=YEAR_MAX).contains(&date.year()) { Ok(Self(date)) } else { Err(outside()) }
    }
}

fn outside() -> Error {
    Error::new(ErrorCode::InvalidRequest, format!("days are of the years {YEAR_MIN} to {YEAR_MAX}"))
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}-{:02}", self.0.year(), self.0.month(), self.0.day())
    }
}
impl fmt::Debug for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}
impl FromStr for Day {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let parse = || -> Option<Self> {
            let read = Self::within(text.parse().ok()?).ok()?;
            // Written in one way only.
            (read.to_string() == text).then_some(read)
        };
        parse().ok_or_else(|| {
            let shown: String = text.chars().take(20).collect();
            Error::new(ErrorCode::InvalidRequest, format!("'{shown}' is not a day")).alternative("write it like 2026-07-31")
        })
    }
}
impl TryFrom<String> for Day {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}
impl From<Day> for String {
    fn from(day: Day) -> Self {
        day.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_written_in_one_way() {
        for text in ["2026-01-31", "2024-02-29", "1900-01-01"] {
            assert_eq!(text.parse::<Day>().unwrap().to_string(), text);
        }
        for text in ["", "2026-02-29", "2026-1-1", "20260101", "2026-01-01T00:00", "1899-12-31", "+002026-01-01"] {
            assert!(text.parse::<Day>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_due_day_is_counted_over_the_ends_of_months() {
        let day: Day = "2026-12-31".parse().unwrap();
        assert_eq!(day.plus_days(30).unwrap().to_string(), "2027-01-30");
        assert_eq!(Day::last_of("2024-02".parse().unwrap()).unwrap().to_string(), "2024-02-29");
    }
}
