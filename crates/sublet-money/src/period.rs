//! Billing periods: calendar days and months in an account's time zone.
//!
//! Periods are half-open and tile time: the end of one is the start of the next, computed by the
//! same function, so every instant is in exactly one. An instant equal to a boundary belongs to
//! the period that begins there.
//!
//! Deliberately absent: "now".

use std::fmt;
use std::str::FromStr;

use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use sublet_core::Timestamp;
use sublet_core::error::{Error, ErrorCode, Result};

use crate::day::Day;
use crate::zone::Zone;

/// Years in which periods can be computed. Outside of them an instant is refused.
pub const YEAR_MIN: i16 = 1900;
pub const YEAR_MAX: i16 = 2200;

/// How long a period is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PeriodLength {
    Day,
    Month,
}

/// A calendar month's name: `2026-03`. Sorts by time.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PeriodKey {
    year: i16,
    month: i8,
}

impl PeriodKey {
    pub const fn year(self) -> i16 {
        self.year
    }
    /// 1 to 12.
    pub const fn month(self) -> i8 {
        self.month
    }
    /// The month after this one.
    pub fn next(self) -> Result<Self> {
        let next = if self.month == 12 { Self { year: self.year + 1, month: 1 } } else { Self { month: self.month + 1, ..self } };
        if next.year > YEAR_MAX { Err(outside()) } else { Ok(next) }
    }
    /// The month that is so many months after this one.
    pub fn plus(self, months: u32) -> Result<Self> {
        let count = i64::from(self.year) * 12 + i64::from(self.month) - 1 + i64::from(months);
        let year = i16::try_from(count / 12).ok().filter(|year| *year <= YEAR_MAX).ok_or_else(outside)?;
        Ok(Self { year, month: i8::try_from(count % 12 + 1).map_err(|_| outside())? })
    }
    /// The month that is so many months before this one.
    pub fn minus(self, months: u32) -> Result<Self> {
        let count = i64::from(self.year) * 12 + i64::from(self.month) - 1 - i64::from(months);
        let year = i16::try_from(count / 12).ok().filter(|year| *year >= YEAR_MIN).ok_or_else(outside)?;
        Ok(Self { year, month: i8::try_from(count % 12 + 1).map_err(|_| outside())? })
    }
    /// How many days it has.
    pub const fn days(self) -> u8 {
        match self.month {
            4 | 6 | 9 | 11 => 30,
            2 if self.year % 4 == 0 && (self.year % 100 != 0 || self.year % 400 == 0) => 29,
            2 => 28,
            _ => 31,
        }
    }
    /// How many months after another one this is; `None` if it is before it.
    pub fn since(self, earlier: Self) -> Option<u32> {
        let months = |key: Self| i64::from(key.year) * 12 + i64::from(key.month);
        u32::try_from(months(self) - months(earlier)).ok()
    }
}

impl fmt::Display for PeriodKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}", self.year, self.month)
    }
}
impl fmt::Debug for PeriodKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}
impl FromStr for PeriodKey {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let parse = || -> Option<Self> {
            let (year, month) = text.split_once('-')?;
            let digits = |part: &str, count| part.len() == count && part.bytes().all(|b| b.is_ascii_digit());
            if !digits(year, 4) || !digits(month, 2) {
                return None;
            }
            let key = Self { year: year.parse().ok()?, month: month.parse().ok()? };
            ((YEAR_MIN..=YEAR_MAX).contains(&key.year) && (1..=12).contains(&key.month)).then_some(key)
        };
        parse().ok_or_else(|| {
            let shown: String = text.chars().take(20).collect();
            Error::new(ErrorCode::InvalidRequest, format!("'{shown}' is not a billing period")).alternative("write it like 2026-03")
        })
    }
}
impl TryFrom<String> for PeriodKey {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}
impl From<PeriodKey> for String {
    fn from(key: PeriodKey) -> Self {
        key.to_string()
    }
}

/// A half-open interval: `starts_at` is in it, `ends_at` is not.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Interval {
    pub starts_at: Timestamp,
    pub ends_at: Timestamp,
}

impl Interval {
    pub fn contains(&self, instant: Timestamp) -> bool {
        self.starts_at <= instant && instant < self.ends_at
    }
    pub fn is_empty(&self) -> bool {
        self.ends_at <= self.starts_at
    }
}

/// A calendar month of some zone.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Period {
    pub key: PeriodKey,
    pub interval: Interval,
}

/// Periods as one account sees them.
#[derive(Clone, Debug)]
pub struct BillingCalendar {
    zone: Zone,
}

impl BillingCalendar {
    /// `zone` is an IANA name such as `Europe/Berlin`.
    pub fn new(zone: &str) -> Result<Self> {
        Ok(Self { zone: Zone::new(zone)? })
    }

    /// The zone's IANA name.
    pub fn zone_name(&self) -> &str {
        self.zone.name()
    }

    /// The billing period that an instant is in.
    pub fn period_at(&self, instant: Timestamp) -> Result<Period> {
        let interval = self.interval_at(PeriodLength::Month, instant)?;
        let first = self.local_date(interval.starts_at)?;
        // A month can begin a day late where a zone skipped its first day; it is still that month.
        Ok(Period { key: PeriodKey { year: first.year(), month: first.month() }, interval })
    }

    /// The billing period of this name.
    pub fn period(&self, key: PeriodKey) -> Result<Period> {
        let first = Date::new(key.year, key.month, 1).map_err(|_| outside())?;
        let interval = self.interval_from(PeriodLength::Month, first)?;
        Ok(Period { key, interval })
    }

    /// The day or month that an instant is in: what a spend limit's window is.
    pub fn interval_at(&self, length: PeriodLength, instant: Timestamp) -> Result<Interval> {
        let date = self.local_date(instant)?;
        let first = first_day(length, date);
        let interval = self.interval_from(length, first)?;
        if interval.contains(instant) {
            return Ok(interval);
        }
        // Where clocks are set back over midnight, an instant's local date can be that of the
        // period before or after the one whose boundaries hold it.
        let neighbour = if instant < interval.starts_at {
            first_day(length, first.yesterday().map_err(|_| outside())?)
        } else {
            next_first_day(length, first)?
        };
        let interval = self.interval_from(length, neighbour)?;
        if interval.contains(instant) {
            Ok(interval)
        } else {
            Err(Error::internal(format!("{instant} is in no period of {}", self.zone)))
        }
    }

    /// The day of an instant.
    pub fn day_at(&self, instant: Timestamp) -> Result<Day> {
        self.local_date(instant).map(Day::of)
    }

    /// When a day is over.
    pub fn end_of(&self, day: Day) -> Result<Timestamp> {
        self.interval_from(PeriodLength::Day, day.date()).map(|interval| interval.ends_at)
    }

    fn local_date(&self, instant: Timestamp) -> Result<Date> {
        let instant = jiff::Timestamp::from_microsecond(instant.micros()).map_err(|_| outside())?;
        let date = self.zone.clock().to_datetime(instant).date();
        // A year of room on both sides, since a neighbouring period may be asked for.
        if (YEAR_MIN - 1..=YEAR_MAX + 1).contains(&date.year()) { Ok(date) } else { Err(outside()) }
    }

    fn interval_from(&self, length: PeriodLength, first: Date) -> Result<Interval> {
        let next = next_first_day(length, first)?;
        Ok(Interval { starts_at: self.midnight(first)?, ends_at: self.midnight(next)? })
    }

    /// The first instant of a day: 00:00, or where clocks jump over it the end of the jump, or where
    /// it comes twice the first of the two.
    fn midnight(&self, date: Date) -> Result<Timestamp> {
        let instant = self.zone.clock().to_ambiguous_timestamp(date.at(0, 0, 0, 0)).compatible().map_err(|_| outside())?;
        Ok(Timestamp::from_micros(instant.as_microsecond()))
    }
}

fn first_day(length: PeriodLength, date: Date) -> Date {
    match length {
        PeriodLength::Day => date,
        PeriodLength::Month => date.first_of_month(),
    }
}

fn next_first_day(length: PeriodLength, first: Date) -> Result<Date> {
    match length {
        PeriodLength::Day => first.tomorrow(),
        PeriodLength::Month => first.last_of_month().tomorrow(),
    }
    .map_err(|_| outside())
}

fn outside() -> Error {
    Error::new(ErrorCode::InvalidRequest, format!("billing periods exist from {YEAR_MIN} to {YEAR_MAX}"))
}

#[cfg(test)]
#[path = "period_tests.rs"]
mod tests;
