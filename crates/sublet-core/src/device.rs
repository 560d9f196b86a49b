//! Devices: what can be leased, and what each one does at every instant.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorCode, Result};
use crate::named_state::named_states;

/// Longest name of a device kind, in bytes.
const KIND_MAX_BYTES: usize = 128;

/// `cpu`, or an accelerator's model in lower case: printable ASCII without spaces.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DeviceKind(Arc<str>);

impl DeviceKind {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for DeviceKind {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        if (1..=KIND_MAX_BYTES).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Ok(Self(Arc::from(text)));
        }
        let shown: String = text.chars().take(40).collect();
        Err(Error::new(
            ErrorCode::InvalidRequest,
            format!("'{shown}' is not a device kind name; use 1 to {KIND_MAX_BYTES} printable ASCII characters without spaces"),
        ))
    }
}

impl TryFrom<String> for DeviceKind {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}
impl From<DeviceKind> for String {
    fn from(kind: DeviceKind) -> Self {
        kind.0.to_string()
    }
}
impl fmt::Display for DeviceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl fmt::Debug for DeviceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

named_states! {
    /// Whether a device can be used, apart from who uses it.
    DeviceHealth, "a device's health" {
        Healthy = "healthy",
        /// Kept out of sale by the operator; what runs there may end in its own time.
        Cordoned = "cordoned",
        /// Its runner no longer reports it.
        Lost = "lost",
    }
}

named_states! {
    /// What one device does. Every device is in exactly one class at every instant, so the
    /// classes' times add up to its capacity.
    DeviceClass, "a class of device time" {
        /// Free, and not promised to anybody.
        Idle = "idle",
        /// In a lease, or promised to one, while no workload of it runs.
        Held = "held",
        /// Used by a workload of one of the owner's teams.
        Internal = "internal",
        /// Used by a customer's workload on a lease with notice.
        Lease = "lease",
        /// Used by a customer's workload that can be stopped at once.
        Spot = "spot",
        /// Between the end of a lease's right to use it and its release.
        Drain = "drain",
        /// Cordoned or lost, and in no lease.
        Unhealthy = "unhealthy",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_and_health_parse_back() {
        for class in DeviceClass::ALL {
            assert_eq!(class.as_str().parse::<DeviceClass>().unwrap(), *class);
        }
        for health in DeviceHealth::ALL {
            assert_eq!(health.as_str().parse::<DeviceHealth>().unwrap(), *health);
        }
        assert!("busy".parse::<DeviceClass>().is_err());
    }

    #[test]
    fn a_kind_has_no_spaces_and_is_not_empty() {
        assert_eq!("h100-sxm".parse::<DeviceKind>().unwrap().as_str(), "h100-sxm");
        for text in ["", "a b", "ü", &"x".repeat(129)] {
            assert!(text.parse::<DeviceKind>().is_err(), "{text}");
        }
    }
}
