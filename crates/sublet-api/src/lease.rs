//! Leases: rights to use capacity.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sublet_core::admission::PriceVersion;
use sublet_core::id::{DeviceId, LeaseId, OrganizationId, ProjectId, QuoteId};
use sublet_core::notice::NoticeClass;

use crate::list::list_query;
use crate::money::Money;
use crate::object::{LeaseNoticeTag, LeaseTag, Metadata};
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
    /// Credit for a promise that was not kept, once it has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made_good: Option<Money>,
    /// Credit for leaving before its deadline, once it has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub early_credit: Option<Money>,
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

/// What a lease was told of its end.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct LeaseNotice {
    pub object: LeaseNoticeTag,
    #[schemars(with = "IdText<LeaseId>")]
    pub lease: LeaseId,
    #[schemars(with = "IdText<ProjectId>")]
    pub project: ProjectId,
    pub status: LeaseStatus,
    /// How often it was told an end, each sooner than the one before; 0 as long as it was told none.
    pub generation: u64,
    /// Why it ends or ended: `reclaimed`, `device_lost`, `shut_down`, `window_over`, `maximum_cost`, `maximum_price`, `budget`,
    /// `unused`, `job_ended` or `released`; null as long as it does not.
    pub reason: Option<String>,
    /// The same for people.
    pub end_reason: Option<String>,
    pub told_at: Option<Rfc3339>,
    /// By when nothing of it may run; what runs then is stopped.
    pub deadline: Option<Rfc3339>,
}

/// Waiting for a notice.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LeaseNoticeQuery {
    /// How long to wait for a notice, in seconds: 0 to 60; 0 if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_s: Option<u32>,
    /// Only a later one is news; any if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after_generation: Option<u64>,
}

list_query! {
    /// Which leases.
    LeaseListQuery { status: LeaseStatus }
}
