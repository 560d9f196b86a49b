//! Orders by which the owner takes capacity back.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sublet_core::id::{DeviceId, LeaseId, NodeId, OrganizationId, ReclaimId, SiteId};
use sublet_core::notice::NoticeClass;

use crate::list::list_query;
use crate::money::Money;
use crate::object::{ReclaimPreviewTag, ReclaimSummaryTag, ReclaimTag};
use crate::schema::{IdText, NoticeText};
use crate::time::{Rfc3339, UnixSeconds};

/// Body that asks for capacity back: placed as it is, or shown before.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateReclaim {
    /// `cpu` or the accelerator's model.
    pub kind: String,
    /// 1 to 10000.
    #[schemars(range(min = 1, max = 10_000))]
    pub units: u32,
    /// When the devices have to be there.
    pub by: Rfc3339,
    /// Until when they are held for the owner's teams; until the order is cancelled if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Rfc3339>,
    /// Anywhere if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<IdText<SiteId>>")]
    pub site: Option<SiteId>,
    /// So many on each of some machines; wherever they are if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub units_per_node: Option<u32>,
    /// All devices of each of some machines.
    #[serde(default)]
    pub whole_nodes: bool,
    /// Notices that were sold may be broken, the shortest first; `firm` never.
    #[serde(default)]
    pub break_promises: bool,
}

/// What an order would do if it were placed now. Nothing is changed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ReclaimPreview {
    pub object: ReclaimPreviewTag,
    pub kind: String,
    pub units: u32,
    pub by: Rfc3339,
    pub plan: ReclaimPlan,
    /// Orders nearby that cost less; each was tried.
    pub cheaper: Vec<NearbyReclaim>,
    pub as_of: Rfc3339,
}

/// An order among others.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ReclaimSummary {
    pub object: ReclaimSummaryTag,
    #[schemars(with = "IdText<ReclaimId>")]
    pub id: ReclaimId,
    pub status: ReclaimStatus,
    pub kind: String,
    pub units: u32,
    pub by: Rfc3339,
    pub until: Option<Rfc3339>,
    /// Devices that it holds.
    pub devices: u32,
    /// Of them, those that are free or with the owner's teams.
    pub there: u32,
    /// Of them, those that were lost or cordoned since.
    pub lost: u32,
    /// Leases that it ends.
    pub victims: u32,
    /// What was foretold to be owed in all, by currency; empty if nothing was.
    pub owed: Vec<Money>,
    pub created_at: UnixSeconds,
}

/// An order.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Reclaim {
    pub object: ReclaimTag,
    #[schemars(with = "IdText<ReclaimId>")]
    pub id: ReclaimId,
    pub status: ReclaimStatus,
    pub kind: String,
    pub units: u32,
    pub by: Rfc3339,
    pub until: Option<Rfc3339>,
    #[schemars(with = "Option<IdText<SiteId>>")]
    pub site: Option<SiteId>,
    pub units_per_node: Option<u32>,
    pub whole_nodes: bool,
    pub break_promises: bool,
    /// Devices that are free or with the owner's teams.
    pub there: u32,
    /// Devices that were lost or cordoned since: so many are missing for the need until they are back.
    pub lost: u32,
    pub plan: ReclaimPlan,
    /// Grows with every change; `If-Match` carries it.
    pub generation: u64,
    pub created_by: String,
    pub created_at: UnixSeconds,
    pub ended_at: Option<Rfc3339>,
}

/// Where an order is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReclaimStatus {
    /// It waits for devices.
    Placed,
    /// All are there, and held.
    Fulfilled,
    /// Nothing is held any more.
    Cancelled,
    /// Its time is over; nothing is held any more.
    Expired,
}

impl ReclaimStatus {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Placed => "placed",
            Self::Fulfilled => "fulfilled",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
        }
    }
}

/// What an order was decided to be.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ReclaimPlan {
    /// Units that are free by then without anybody's interruption.
    pub free_anyway: u32,
    pub devices: Vec<ReclaimedDevice>,
    pub victims: Vec<ReclaimVictim>,
    /// What is owed in all, by currency; empty if nothing is.
    pub owed: Vec<Money>,
    /// Units multiplied by the time that their workloads lose: since the last checkpoint, or since their start.
    pub lost_device_seconds: u64,
}

/// A device of an order.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ReclaimedDevice {
    #[schemars(with = "IdText<DeviceId>")]
    pub device: DeviceId,
    #[schemars(with = "IdText<NodeId>")]
    pub node: NodeId,
    #[schemars(with = "IdText<SiteId>")]
    pub site: SiteId,
    /// Who had it when the order was decided.
    #[schemars(with = "Option<IdText<LeaseId>>")]
    pub lease: Option<LeaseId>,
    /// When it is there at the latest.
    pub free_at: Rfc3339,
}

/// A lease that an order ends.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ReclaimVictim {
    #[schemars(with = "IdText<LeaseId>")]
    pub lease: LeaseId,
    #[schemars(with = "IdText<OrganizationId>")]
    pub organization: OrganizationId,
    pub units: u32,
    #[schemars(with = "NoticeText")]
    pub notice: NoticeClass,
    pub told_at: Rfc3339,
    pub ends_at: Rfc3339,
    /// The notice that was sold is not kept.
    pub breaks_promise: bool,
    /// What it is owed if it runs until then.
    pub owed: Money,
    /// What it was given when it had ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub given: Option<Money>,
    pub lost_device_seconds: u64,
    /// Up to when its work is saved, as it said.
    pub checkpoint_at: Option<Rfc3339>,
}

/// Another order that was tried.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct NearbyReclaim {
    /// For people: what to ask for, and what it costs.
    pub text: String,
    pub kind: String,
    pub units: u32,
    pub by: Rfc3339,
    #[schemars(with = "Option<IdText<SiteId>>")]
    pub site: Option<SiteId>,
    pub victims: u32,
    pub owed: Vec<Money>,
    pub lost_device_seconds: u64,
}

list_query! {
    /// Which orders.
    ReclaimListQuery { status: ReclaimStatus }
}

/// Body that declares a checkpoint.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeclareCheckpoint {
    /// What ran before is saved; now if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Rfc3339>,
}
