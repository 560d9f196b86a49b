//! Where the fleet's devices are now.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use sublet_core::id::SiteId;
use sublet_core::notice::NoticeClass;

use crate::object::CapacityTag;
use crate::schema::{IdText, NoticeText};
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
    /// The same devices by site, with what is known of the owner's demand.
    #[serde(default)]
    pub pools: Vec<PoolCapacity>,
    pub as_of: Rfc3339,
}

/// Devices of one kind at one site, and what may be sold of them.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct PoolCapacity {
    #[schemars(with = "IdText<SiteId>")]
    pub site: SiteId,
    pub owned: u32,
    pub unhealthy: u32,
    /// What the owner's reserve rule keeps of the kind, at all sites together.
    pub reserve: u32,
    /// In leases of the owner's teams, promised to one, or held for them by an order.
    pub internal: u32,
    /// What the owner reported last as used outside.
    pub outside: u32,
    pub outside_reported_at: Option<Rfc3339>,
    /// Free by Sublet's books, what is used outside among them.
    pub idle: u32,
    /// Shortest notice first.
    pub classes: Vec<PoolLevel>,
    /// The instant that the curve was decided for.
    pub decided_at: Option<Rfc3339>,
    pub age_seconds: Option<u64>,
    /// Whether the curve holds; one that does not sells nothing.
    pub is_fresh: bool,
    /// Since when demand is recorded; what is earlier was imported.
    pub observed_from: Option<Rfc3339>,
}

/// One notice class of a pool.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct PoolLevel {
    #[schemars(with = "NoticeText")]
    pub notice: NoticeClass,
    /// Units that customers have at this notice.
    pub sold: u32,
    /// Units that may be promised at this notice or longer ones.
    pub level: Option<u32>,
    /// Why.
    pub reason: Option<String>,
}
