//! Whether the cloud is alive and ready.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::object::HealthTag;

/// The state of the process and of what it needs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Health {
    pub object: HealthTag,
    pub status: HealthStatus,
    pub version: String,
    /// What was looked at; empty for the plain liveness answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<HealthCheck>,
}

/// The answer in a word.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HealthStatus {
    Ok,
    /// Alive but not to be sent work, with status 503.
    Unready,
}

/// One thing the cloud needs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct HealthCheck {
    pub name: String,
    pub ok: bool,
    pub detail: String,
}
