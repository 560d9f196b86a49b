//! Leases: rights to use capacity.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sublet_core::admission::PriceVersion;
use sublet_core::id::{DeviceId, LeaseId, OrganizationId, ProjectId, QuoteId};
use sublet_core::notice::NoticeClass;

use crate::list::list_query;
use crate::money::Money;
use crate::object::{LeaseTag, Metadata};
use crate::schema::{IdText, NoticeText, PriceVersionText};
use crate::sku::SkuName;
use crate::time::{Rfc3339, UnixSeconds};

/// A right to use capacity: {sku, units, window, notice}.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Lease {
    pub object: LeaseTag,
    #[schemars(with = "IdText<LeaseId>")]
    pub id: LeaseId,
    #[schemars(with = "IdText<OrganizationId>")]
    pub organization: OrganizationId,
    #[schemars(with = "IdText<ProjectId>")]
    pub project: ProjectId,
    #[schemars(with = "IdText<QuoteId>")]
    pub quote: QuoteId,
    pub status: LeaseStatus,
    pub sku: SkuName,
    pub units: u32,
    #[schemars(with = "NoticeText")]
    pub notice: NoticeClass,
    #[schemars(with = "Vec<IdText<DeviceId>>")]
    pub devices: Vec<DeviceId>,
    /// Per device and hour.
    pub price: Money,
    #[schemars(with = "PriceVersionText")]
    pub price_version: PriceVersion,
    pub maximum_cost: Option<Money>,
    /// It ends before an hour of a device costs more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maximum_price: Option<Money>,
    /// Charged so far.
    pub cost: Money,
    /// Set aside for the next interval.
    pub held: Money,
    pub starts_at: Rfc3339,
    /// The end of the window; null runs until it is ended.
    pub ends_at: Option<Rfc3339>,
    pub ended_at: Option<Rfc3339>,
    /// Why it ended, for people.
    pub end_reason: Option<String>,
    /// Grows with every change; `ETag` and `If-Match` carry it.
    pub generation: u64,
    pub created_at: UnixSeconds,
    pub metadata: Metadata,
}

/// Where a lease is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LeaseStatus {
    Active,
    /// Its holder was told; workloads are stopping.
    Ending,
    Ended,
}

impl LeaseStatus {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Ending => "ending",
            Self::Ended => "ended",
        }
    }
}

/// Body that takes a quote.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateLease {
    #[schemars(with = "IdText<QuoteId>")]
    pub quote: QuoteId,
    #[serde(default, skip_serializing_if = "Metadata::is_empty")]
    pub metadata: Metadata,
}

list_query! {
    /// Which leases.
    LeaseListQuery { status: LeaseStatus }
}
