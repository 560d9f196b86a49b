//! What time it is in the cloud.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::object::ClockTag;
use crate::time::Rfc3339;

/// The cloud's clock.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Clock {
    pub object: ClockTag,
    pub now: Rfc3339,
    /// Whether it can be put forward: only in a cloud that was started with a test clock.
    pub is_test_clock: bool,
    /// How far it is ahead of the real time.
    pub ahead_seconds: u64,
    /// Months that were closed when it was put forward.
    pub closed_months: u64,
    /// Invoices that were issued then.
    pub issued_invoices: u64,
    /// Accounts of which a month could not be closed: the log says why, and it is tried again.
    pub failed_accounts: u64,
}

/// Body that puts a test clock forward.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SetClock {
    /// Later than it is, by 366 days at most.
    pub now: Rfc3339,
}
