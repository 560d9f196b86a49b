//! Use of a past time that is rated by another price list than it was.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sublet_core::admission::PriceVersion;
use sublet_core::id::{OrganizationId, ProjectId, RerateId, SiteId};
use sublet_core::notice::NoticeClass;
use sublet_core::runner::IsolationLevel;
use sublet_core::tier::ServiceTier;

use crate::money::Money;
use crate::object::RerateTag;
use crate::price::{Meter, Subject};
use crate::schema::{IdText, IsolationText, NoticeText, PriceVersionText, TierText};
use crate::time::{Rfc3339, UnixSeconds};

/// Body that asks what use would have been by another list. Nothing is changed until it is applied.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SimulateRerate {
    /// The version that was wrong. Use that other versions priced stays as it is.
    #[schemars(with = "PriceVersionText")]
    pub of: PriceVersion,
    /// The version that is right: of a public list, or of the contract of one customer.
    #[schemars(with = "PriceVersionText")]
    pub to: PriceVersion,
    /// The first instant of the use that is looked at.
    pub from: Rfc3339,
    /// The instant behind the last; not in the future.
    pub until: Rfc3339,
    /// One customer; all of the lists' currency if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<IdText<OrganizationId>>")]
    pub organization: Option<OrganizationId>,
    /// One line that customers read.
    pub reason: String,
}

/// How far it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RerateStatus {
    /// Nothing was changed.
    Simulated,
    /// It is being applied, customer by customer.
    Approved,
    /// It was applied to everybody who was not refused.
    Applied,
    /// Of a customer: its contract or its credit does not allow it, and nothing was changed.
    Refused,
}

impl RerateStatus {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Simulated => "simulated",
            Self::Approved => "approved",
            Self::Applied => "applied",
            Self::Refused => "refused",
        }
    }
}

/// Use of a past time by another list, and what it comes to.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Rerate {
    pub object: RerateTag,
    #[schemars(with = "IdText<RerateId>")]
    pub id: RerateId,
    #[schemars(with = "PriceVersionText")]
    pub of: PriceVersion,
    #[schemars(with = "PriceVersionText")]
    pub to: PriceVersion,
    pub from: Rfc3339,
    pub until: Rfc3339,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<IdText<OrganizationId>>")]
    pub organization: Option<OrganizationId>,
    pub reason: String,
    pub status: RerateStatus,
    /// For how many customers anything changes, how many of them pay more, and how many were refused.
    pub customers: u64,
    pub raised: u64,
    pub refused: u64,
    /// What the use was charged, as parts of its lines, and what it costs by the other list. Without what was refused.
    pub charged: Money,
    pub would_be: Money,
    pub requested_by: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applied_by: Option<String>,
    pub created_at: UnixSeconds,
    pub applied_at: Option<UnixSeconds>,
    /// Who was refused first, then those for whom most changes; at most a hundred. Left out in lists.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub most_changed: Vec<ReratedCustomer>,
}

/// What it comes to for one customer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ReratedCustomer {
    #[schemars(with = "IdText<OrganizationId>")]
    pub organization: OrganizationId,
    pub status: RerateStatus,
    pub charged: Money,
    pub would_be: Money,
    /// Why it was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<String>,
    /// How many lines change.
    pub lines: u64,
    /// Those that change most; at most fifty.
    pub most_changed: Vec<ReratedLine>,
}

/// What one line gains or loses.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ReratedLine {
    #[schemars(with = "IdText<ProjectId>")]
    pub project: ProjectId,
    /// The month of the use.
    pub period: String,
    #[schemars(with = "PriceVersionText")]
    pub price_version: PriceVersion,
    pub subject: Subject,
    pub meter: Meter,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<NoticeText>")]
    pub notice: Option<NoticeClass>,
    /// For device time whose site has a price of its own: the site.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<IdText<SiteId>>")]
    pub site: Option<SiteId>,
    /// For device time whose isolation has a price of its own: the isolation that is demanded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<IsolationText>")]
    pub isolation: Option<IsolationLevel>,
    /// For tokens: the tier; left out for the default one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<TierText>")]
    pub service_tier: Option<ServiceTier>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub band: Option<String>,
    /// In the meter's unit; negative where use leaves the line.
    pub quantity: i64,
    /// What the line had before, in the meter's unit.
    pub quantity_before: u64,
    pub amount: Money,
}
