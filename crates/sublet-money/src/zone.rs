//! Time zones of the bundled IANA database, so that every process knows the same clocks whatever its machine has.

use std::fmt;
use std::sync::{Arc, LazyLock};

use jiff::civil::Time;
use jiff::tz::{TimeZone, TimeZoneDatabase};
use serde::{Deserialize, Serialize};
use sublet_core::Timestamp;
use sublet_core::error::{Error, ErrorCode, Result};

/// The bundled database, whatever else the process or another crate's features would prefer.
pub(crate) static ZONES: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);

/// A time zone by its IANA name.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Zone {
    clock: TimeZone,
    name: Arc<str>,
}

impl Zone {
    /// `name` is an IANA name such as `Europe/Berlin`, in any case.
    pub fn new(name: &str) -> Result<Self> {
        let clock = ZONES.get(name).ok().filter(|found| !found.is_unknown()).ok_or_else(|| {
            let shown: String = name.chars().take(60).collect();
            Error::new(ErrorCode::InvalidRequest, format!("'{shown}' is not an IANA time zone"))
                .alternative("use a name such as Europe/Berlin or UTC")
        })?;
        let name = clock.iana_name().unwrap_or("UTC").into();
        Ok(Self { clock, name })
    }
    /// As the database writes it.
    pub fn name(&self) -> &str {
        &self.name
    }
    /// The first instant after another at which clocks there show a time such as `18:00`. A time that is left out when
    /// clocks go forward comes as much later, one that comes twice comes at either.
    pub fn next_time(&self, text: &str, after: Timestamp) -> Result<Timestamp> {
        let invalid = || {
            let shown: String = text.chars().take(40).collect();
            let error = Error::new(ErrorCode::InvalidRequest, format!("'{shown}' is not a time of day"));
            error.alternative("write it such as 18:00, or as an instant such as 2026-03-01T18:00:00Z")
        };
        let parsed = text.split_once(':').and_then(|(hour, minute)| {
            let is_written = |digits: &&str| digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_digit());
            let number = |digits: &str| Some(digits).filter(is_written)?.parse().ok();
            Time::new(number(hour)?, number(minute)?, 0, 0).ok()
        });
        let time = parsed.ok_or_else(invalid)?;
        let now = jiff::Timestamp::from_microsecond(after.micros()).map_err(|_| invalid())?;
        let mut day = now.to_zoned(self.clock.clone()).date();
        // A day that is left out altogether is followed by one that is not.
        for _ in 0..4 {
            let shown = self.clock.to_ambiguous_timestamp(day.to_datetime(time));
            for at in [shown.compatible(), shown.later()] {
                let at = Timestamp::from_micros(at.map_err(|_| invalid())?.as_microsecond());
                if at > after {
                    return Ok(at);
                }
            }
            day = day.tomorrow().map_err(|_| invalid())?;
        }
        Err(invalid())
    }
    pub(crate) const fn clock(&self) -> &TimeZone {
        &self.clock
    }
}

impl PartialEq for Zone {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}
impl Eq for Zone {}
impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}
impl fmt::Debug for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}
impl TryFrom<String> for Zone {
    type Error = Error;
    fn try_from(name: String) -> Result<Self> {
        Self::new(&name)
    }
}
impl From<Zone> for String {
    fn from(zone: Zone) -> Self {
        zone.name.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_time_of_the_day_is_after_now_and_on_a_day_that_clocks_change_too() {
        let instant = |text: &str| Timestamp::from_micros(text.parse::<jiff::Timestamp>().unwrap().as_microsecond());
        for (zone, text, after, expected) in [
            ("UTC", "18:00", "2026-03-01T17:59:59Z", "2026-03-01T18:00:00Z"),
            ("UTC", "18:00", "2026-03-01T18:00:00Z", "2026-03-02T18:00:00Z"),
            ("Europe/Berlin", "18:00", "2026-07-01T15:00:00Z", "2026-07-01T16:00:00Z"),
            ("Europe/Berlin", "00:30", "2026-03-01T23:00:00Z", "2026-03-01T23:30:00Z"),
            // Half past two does not come on the day that clocks go forward, and comes twice on the other.
            ("Europe/Berlin", "02:30", "2026-03-29T00:00:00Z", "2026-03-29T01:30:00Z"),
            ("Europe/Berlin", "02:30", "2026-10-25T00:00:00Z", "2026-10-25T00:30:00Z"),
            ("Europe/Berlin", "02:30", "2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z"),
            ("Europe/Berlin", "02:30", "2026-10-25T01:30:00Z", "2026-10-26T01:30:00Z"),
        ] {
            let found = Zone::new(zone).unwrap().next_time(text, instant(after)).unwrap();
            assert_eq!(found, instant(expected), "{text} in {zone} after {after}");
        }
        for wrong in ["", "6pm", "6:00", "24:00", "18:60", "18:0", "18:00:00", "-1:00", "+1:00"] {
            assert!(Zone::new("UTC").unwrap().next_time(wrong, Timestamp::EPOCH).is_err(), "{wrong}");
        }
    }
}
