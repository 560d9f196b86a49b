//! Where the fleet's devices are now.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::object::CapacityTag;
use crate::time::Rfc3339;

/// Devices of one kind by what they do. The states add up to `total`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Capacity {
    pub object: CapacityTag,
    /// `cpu` or the accelerator's model.
    pub device_kind: String,
    pub total: u32,
    pub idle: u32,
    /// Leased to customers.
    pub sold: u32,
    /// Leased to the owner's own teams.
    pub internal: u32,
    /// Kept out of sale by the operator.
    pub cordoned: u32,
    /// Not reachable.
    pub lost: u32,
    pub as_of: Rfc3339,
}
