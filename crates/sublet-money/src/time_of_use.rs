//! Prices that depend on when something is used: bands of a week.
//!
//! A band is a set of windows on the clocks of one time zone, with a price of its own; outside of all
//! windows the entry's own price holds. An instant has exactly one reading on those clocks, so it is in
//! exactly one band, on days when the clocks change too: an hour that comes twice is priced alike both
//! times, and one that is left out costs nothing.
//!
//! Deliberately absent: dates. A day with prices of its own is a version of the list.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use jiff::civil::DateTime;
use serde::{Deserialize, Serialize};
use sublet_core::Timestamp;
use sublet_core::error::{Error, ErrorCode, Result};

use crate::price_model::PriceModel;
use crate::zone::Zone;

/// Most bands of one price.
pub const BANDS_MAX: usize = 8;
/// Most windows of one band.
pub const WINDOWS_MAX: usize = 32;
/// Longest name of a band, in bytes.
pub const BAND_NAME_MAX_BYTES: usize = 32;

const DAY: u16 = 24 * 60;
const WEEK: u16 = 7 * DAY;
const MICROS_PER_MINUTE: i64 = 60_000_000;

/// What a band is called on charges and invoices: `night`, `weekend`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BandName(Arc<str>);

impl BandName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
impl FromStr for BandName {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let is_named = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_'));
        if is_named && (1..=BAND_NAME_MAX_BYTES).contains(&text.len()) {
            return Ok(Self(text.into()));
        }
        let shown: String = text.chars().take(40).collect();
        Err(invalid(format!("'{shown}' is not the name of a band"))
            .alternative(format!("use 1 to {BAND_NAME_MAX_BYTES} of a-z, 0-9, - and _, as in 'night'")))
    }
}
impl TryFrom<String> for BandName {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}
impl From<BandName> for String {
    fn from(name: BandName) -> Self {
        name.0.to_string()
    }
}
impl fmt::Display for BandName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl fmt::Debug for BandName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A day of the week.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Weekday {
    Mon,
    Tue,
    Wed,
    Thu,
    Fri,
    Sat,
    Sun,
}

impl Weekday {
    pub const ALL: [Self; 7] = [Self::Mon, Self::Tue, Self::Wed, Self::Thu, Self::Fri, Self::Sat, Self::Sun];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Mon => "mon",
            Self::Tue => "tue",
            Self::Wed => "wed",
            Self::Thu => "thu",
            Self::Fri => "fri",
            Self::Sat => "sat",
            Self::Sun => "sun",
        }
    }
    /// Minutes of the week before it.
    const fn starts_at(self) -> u16 {
        let days = match self {
            Self::Mon => 0,
            Self::Tue => 1,
            Self::Wed => 2,
            Self::Thu => 3,
            Self::Fri => 4,
            Self::Sat => 5,
            Self::Sun => 6,
        };
        days * DAY
    }
}

/// A reading of a clock, `00:00` to `24:00`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TimeOfDay(u16);

impl FromStr for TimeOfDay {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let parse = || -> Option<u16> {
            let (hours, minutes) = text.split_once(':')?;
            let digits = |part: &str| part.len() == 2 && part.bytes().all(|b| b.is_ascii_digit());
            if !digits(hours) || !digits(minutes) {
                return None;
            }
            let (hours, minutes): (u16, u16) = (hours.parse().ok()?, minutes.parse().ok()?);
            let minute = hours * 60 + minutes;
            (minutes < 60 && minute <= DAY).then_some(minute)
        };
        parse().map(Self).ok_or_else(|| {
            let shown: String = text.chars().take(20).collect();
            invalid(format!("'{shown}' is not a time of day")).alternative("write it like 06:30, from 00:00 to 24:00")
        })
    }
}
impl TryFrom<String> for TimeOfDay {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}
impl From<TimeOfDay> for String {
    fn from(time: TimeOfDay) -> Self {
        time.to_string()
    }
}
impl fmt::Display for TimeOfDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.0 / 60, self.0 % 60)
    }
}

/// From a time of day until another, on some days. One that ends where it begins or before ends on the next day.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// On which it begins.
    pub days: BTreeSet<Weekday>,
    pub from: TimeOfDay,
    pub until: TimeOfDay,
}

impl Window {
    /// The stretches of the week in it, as half-open spans of minutes; the last one may end in the next week.
    fn spans(&self) -> impl Iterator<Item = (u16, u16)> {
        let over_midnight = if self.until <= self.from { DAY } else { 0 };
        self.days.iter().map(move |day| (day.starts_at() + self.from.0, day.starts_at() + self.until.0 + over_midnight))
    }
    fn holds(&self, minute: u16) -> bool {
        self.spans().any(|(from, until)| (from..until).contains(&minute) || (from..until).contains(&(minute + WEEK)))
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.days.len() < Weekday::ALL.len() {
            let days: Vec<&str> = self.days.iter().map(|day| day.as_str()).collect();
            write!(f, "{} ", days.join(","))?;
        }
        write!(f, "{}-{}", self.from, self.until)
    }
}

/// Windows with a price of their own.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Band {
    pub name: BandName,
    pub windows: Vec<Window>,
    pub model: PriceModel,
}

/// The bands of a price.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TimeOfUse {
    /// On whose clocks the windows are.
    pub zone: Zone,
    pub bands: Vec<Band>,
}

/// How long a band holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BandStretch<'a> {
    /// `None` outside of all windows.
    pub band: Option<&'a Band>,
    /// Until then at least.
    pub until: Timestamp,
}

impl TimeOfUse {
    /// Refuses what says nothing or says two things of one minute.
    pub fn validate(&self) -> Result<()> {
        if !(1..=BANDS_MAX).contains(&self.bands.len()) {
            return Err(invalid(format!("a price by time of use has 1 to {BANDS_MAX} bands, not {}", self.bands.len()))
                .alternative("leave time_of_use out if the price is always the same"));
        }
        let mut names = BTreeSet::new();
        for band in &self.bands {
            if !names.insert(&band.name) {
                return Err(invalid(format!("the band '{}' is there twice", band.name))
                    .alternative("put all windows with the same price into one band"));
            }
            if !(1..=WINDOWS_MAX).contains(&band.windows.len()) {
                return Err(invalid(format!(
                    "the band '{}' has 1 to {WINDOWS_MAX} windows, not {}",
                    band.name,
                    band.windows.len()
                ))
                .alternative("the price outside of all windows is the one beside time_of_use"));
            }
            for window in &band.windows {
                if window.days.is_empty() || window.from.0 == DAY {
                    return Err(invalid(format!("a window of the band '{}' begins on some day, before 24:00", band.name)));
                }
            }
            band.model.validate().map_err(|error| error.prefixed(&format!("band '{}'", band.name)))?;
        }
        self.check_windows_are_apart()
    }

    fn check_windows_are_apart(&self) -> Result<()> {
        let mut taken: Vec<Option<&BandName>> = vec![None; usize::from(WEEK)];
        for band in &self.bands {
            for (from, until) in band.windows.iter().flat_map(Window::spans) {
                for minute in (from..until).map(|minute| minute % WEEK) {
                    let Some(place) = taken.get_mut(usize::from(minute)) else { continue };
                    if let Some(other) = place {
                        let day = Weekday::ALL.into_iter().rev().find(|day| day.starts_at() <= minute).unwrap_or(Weekday::Mon);
                        let time = TimeOfDay(minute % DAY);
                        return Err(invalid(format!(
                            "two windows hold {} {time}, one of the band '{other}' and one of '{}'",
                            day.as_str(),
                            band.name
                        ))
                        .alternative("let each minute of the week be in one window at most"));
                    }
                    *place = Some(&band.name);
                }
            }
        }
        Ok(())
    }

    pub fn find(&self, name: &BandName) -> Option<&Band> {
        self.bands.iter().find(|band| band.name == *name)
    }

    /// The same bands in one order, whatever order they were written in.
    #[must_use]
    pub fn in_order(mut self) -> Self {
        self.bands.sort_by(|one, other| one.name.cmp(&other.name));
        for band in &mut self.bands {
            band.windows.sort();
        }
        self
    }

    /// The band that an instant is in.
    pub fn band_at(&self, instant: Timestamp) -> Result<Option<&Band>> {
        Ok(self.band_of(minute_of_week(&self.read_clock(instant)?)))
    }

    /// The band that an instant is in, and until when that is sure. The next band may be the same.
    pub fn stretch_at(&self, instant: Timestamp) -> Result<BandStretch<'_>> {
        let local = self.read_clock(instant)?;
        let minute = minute_of_week(&local);
        let band = self.band_of(minute);
        // Until the clocks change they go on evenly, so the next boundary is so many minutes away.
        let minutes = self.minutes_to_boundary(minute);
        let into_minute = i64::from(local.second()) * 1_000_000 + i64::from(local.subsec_nanosecond()).div_euclid(1_000);
        let boundary = instant.micros() - into_minute + i64::from(minutes) * MICROS_PER_MINUTE;
        let at = jiff::Timestamp::from_microsecond(instant.micros()).map_err(|_| outside(instant))?;
        let change = self.zone.clock().following(at).next().map(|change| change.timestamp().as_microsecond());
        let until = change.map_or(boundary, |change| change.min(boundary));
        Ok(BandStretch { band, until: Timestamp::from_micros(until) })
    }

    fn read_clock(&self, instant: Timestamp) -> Result<DateTime> {
        let at = jiff::Timestamp::from_microsecond(instant.micros()).map_err(|_| outside(instant))?;
        Ok(self.zone.clock().to_datetime(at))
    }

    fn band_of(&self, minute: u16) -> Option<&Band> {
        self.bands.iter().find(|band| band.windows.iter().any(|window| window.holds(minute)))
    }

    /// Minutes from one of the week to the next at which a window begins or ends: at most a week.
    fn minutes_to_boundary(&self, minute: u16) -> u16 {
        let spans = self.bands.iter().flat_map(|band| &band.windows).flat_map(Window::spans);
        let ahead = |boundary: u16| match (boundary % WEEK + WEEK - minute) % WEEK {
            0 => WEEK,
            minutes => minutes,
        };
        spans.flat_map(|(from, until)| [ahead(from), ahead(until)]).min().unwrap_or(WEEK)
    }
}

fn minute_of_week(local: &DateTime) -> u16 {
    let part = |part: i8| u16::try_from(part).unwrap_or(0);
    part(local.date().weekday().to_monday_zero_offset()) * DAY + part(local.hour()) * 60 + part(local.minute())
}

fn invalid(reason: String) -> Error {
    Error::new(ErrorCode::InvalidPrice, reason)
}

fn outside(instant: Timestamp) -> Error {
    Error::new(ErrorCode::InvalidRequest, format!("{instant} is outside the years that prices are kept for"))
}

#[cfg(test)]
#[path = "time_of_use_tests.rs"]
mod tests;
