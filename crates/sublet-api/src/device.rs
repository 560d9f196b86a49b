//! Machines and their devices.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sublet_core::id::{DeviceId, LeaseId, NodeId, OrganizationId, SiteId};
use sublet_core::runner::IsolationLevel;

use crate::list::list_query;
use crate::object::{DeviceTag, NodeTag};
use crate::schema::{IdText, IsolationText};
use crate::time::UnixSeconds;

/// A machine.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Node {
    pub object: NodeTag,
    #[schemars(with = "IdText<NodeId>")]
    pub id: NodeId,
    pub name: String,
    /// What runs workloads there.
    pub runner: String,
    /// Where it is.
    #[schemars(with = "IdText<SiteId>")]
    pub site: SiteId,
    pub devices: u32,
    /// The strictest separation it can give.
    #[schemars(with = "IsolationText")]
    pub isolation: IsolationLevel,
    pub created_at: UnixSeconds,
}

/// One accelerator or CPU slot.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Device {
    pub object: DeviceTag,
    #[schemars(with = "IdText<DeviceId>")]
    pub id: DeviceId,
    #[schemars(with = "IdText<NodeId>")]
    pub node: NodeId,
    pub name: String,
    /// `cpu` or the accelerator's model.
    pub kind: String,
    /// The hardware's own identifier.
    pub uuid: String,
    pub memory_bytes: u64,
    pub status: DeviceStatus,
    /// Who uses it now.
    #[schemars(with = "Option<IdText<LeaseId>>")]
    pub lease: Option<LeaseId>,
    #[schemars(with = "Option<IdText<OrganizationId>>")]
    pub organization: Option<OrganizationId>,
    /// Kept out of sale: no new lease is placed on it.
    pub cordoned: bool,
    pub created_at: UnixSeconds,
}

/// What a device does now.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeviceStatus {
    Idle,
    /// Leased to a customer.
    Sold,
    /// Leased to one of the owner's own teams.
    Internal,
    Lost,
}

impl DeviceStatus {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Sold => "sold",
            Self::Internal => "internal",
            Self::Lost => "lost",
        }
    }
}

list_query! {
    /// Which devices.
    DeviceListQuery {
        #[schemars(with = "Option<IdText<NodeId>>")]
        node: NodeId,
        status: DeviceStatus,
    }
}
