//! Quotes: binding offers of capacity for a short time.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sublet_core::admission::PriceVersion;
use sublet_core::id::{LeaseId, ProjectId, QuoteId, SiteId};
use sublet_core::notice::NoticeClass;
use sublet_core::runner::IsolationLevel;

use crate::list::list_query;
use crate::money::Money;
use crate::object::{Metadata, QuoteTag};
use crate::schema::{IdText, IsolationText, NoticeText, PriceVersionText};
use crate::sku::SkuName;
use crate::time::{Rfc3339, UnixSeconds};

/// An offer: capacity at a price, open until it expires.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Quote {
    pub object: QuoteTag,
    #[schemars(with = "IdText<QuoteId>")]
    pub id: QuoteId,
    #[schemars(with = "IdText<ProjectId>")]
    pub project: ProjectId,
    pub status: QuoteStatus,
    pub sku: SkuName,
    pub units: u32,
    #[schemars(with = "NoticeText")]
    pub notice: NoticeClass,
    /// Where it could be placed.
    #[schemars(with = "IdText<SiteId>")]
    pub site: SiteId,
    /// What a machine has to achieve at least: the stronger of what was asked for and what the owner demands.
    #[schemars(with = "IsolationText")]
    pub isolation: IsolationLevel,
    /// Per device and hour.
    pub price: Money,
    #[schemars(with = "PriceVersionText")]
    pub price_version: PriceVersion,
    /// What is charged at least, in seconds of the lease: the class's shortest life.
    pub minimum_seconds: u64,
    /// The lease ends by itself after this; null runs until it is ended.
    pub maximum_seconds: Option<u64>,
    /// The cost of the shortest life.
    pub minimum_cost: Money,
    /// The most the lease can cost with one job; null if nothing but the limits bounds it.
    pub maximum_cost: Option<Money>,
    /// The lease ends before an hour of a device costs more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maximum_price: Option<Money>,
    /// What has to be set aside: one interval ahead, with notice and grace, when the lease begins, and the start of a job
    /// when that is asked for.
    pub hold: Money,
    /// The most that a job costs once for being started, besides its time; null if it costs nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_price: Option<Money>,
    #[schemars(with = "Option<IdText<LeaseId>>")]
    pub lease: Option<LeaseId>,
    pub created_at: UnixSeconds,
    pub expires_at: Rfc3339,
    pub metadata: Metadata,
}

/// Whether a quote can be taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum QuoteStatus {
    Open,
    /// A lease was made from it.
    Accepted,
    Expired,
}

impl QuoteStatus {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Accepted => "accepted",
            Self::Expired => "expired",
        }
    }
}

/// Body that asks for a quote.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateQuote {
    pub sku: SkuName,
    /// Devices; 1 if left out.
    #[serde(default = "one_unit")]
    #[schemars(range(min = 1))]
    pub units: u32,
    /// `n0` if left out: the cheapest, taken back without notice.
    #[serde(default = "shortest_notice")]
    #[schemars(with = "NoticeText")]
    pub notice: NoticeClass,
    /// Where it has to be; anywhere if left out. A hard constraint: never relaxed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<IdText<SiteId>>")]
    pub site: Option<SiteId>,
    /// The weakest separation that is good enough, where the owner demands no stronger one. A hard constraint: never relaxed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<IsolationText>")]
    pub isolation: Option<IsolationLevel>,
    /// The lease ends by itself after this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub maximum_seconds: Option<u64>,
    /// The lease ends before it costs more. A hard constraint: never relaxed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maximum_cost: Option<Money>,
    /// The lease ends before an hour of a device costs more, told with its notice. A hard constraint: never relaxed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maximum_price: Option<Money>,
    #[serde(default, skip_serializing_if = "Metadata::is_empty")]
    pub metadata: Metadata,
}

const fn one_unit() -> u32 {
    1
}
const fn shortest_notice() -> NoticeClass {
    NoticeClass::N0
}

list_query! {
    /// Which quotes.
    QuoteListQuery { status: QuoteStatus }
}
