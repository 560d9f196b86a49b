//! Time zones of the bundled IANA database, so that every process knows the same clocks whatever its machine has.

use std::fmt;
use std::sync::{Arc, LazyLock};

use jiff::tz::{TimeZone, TimeZoneDatabase};
use serde::{Deserialize, Serialize};
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
