//! Suppliers outside: their terms and costs as the operator sees them, and what an organization permits.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sublet_core::id::{OrganizationId, ReplicaId};
use sublet_core::money::Currency;
use sublet_core::supplier::{CostVersion, ExternalSupply, Region, Retention};
use sublet_core::tier::ServiceTier;

use crate::money::{Amount, Money};
use crate::object::{MarginsTag, ReplicaCostTag};
use crate::schema::{CurrencyText, ExternalSupplyText, IdText, RegionText, RetentionText, TierText, VersionText};
use crate::time::{Rfc3339, UnixSeconds};

/// What a supplier says that it does with prompts and answers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SupplierPolicy {
    /// `none`, `unknown`, or days as `30d`.
    #[schemars(with = "RetentionText")]
    pub retention: Retention,
    /// It may train models on them.
    pub used_for_training: bool,
    /// Where they are processed; unknown if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<RegionText>")]
    pub region: Option<Region>,
}

/// What an organization permits to be done with its prompts and answers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DataPermission {
    /// Which suppliers may see them, when the cloud's own servers have no place: none, those that keep nothing and
    /// train on nothing, or any.
    #[schemars(with = "ExternalSupplyText")]
    pub external: ExternalSupply,
    /// Where suppliers may process them; everywhere if empty.
    #[serde(default)]
    #[schemars(with = "Vec<RegionText>")]
    pub regions: Vec<Region>,
}

/// On which terms a replica is bought, and whether it is used.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ReplicaSupply {
    /// Who is owed for its answers; null for one that was added before suppliers had names, which is not used.
    #[schemars(with = "Option<IdText<OrganizationId>>")]
    pub supplier: Option<OrganizationId>,
    pub data_policy: Option<SupplierPolicy>,
    /// Least part of the price that has to stay, in thousandths, for each kind of token.
    pub min_margin_permille: u16,
    /// The version of its cost in force; null is unknown, and then it is not used.
    #[schemars(with = "Option<VersionText>")]
    pub cost_version: Option<CostVersion>,
    /// How it stands against the prices in force, at each tier that is sold.
    pub tiers: Vec<TierMargin>,
}

/// How a supplier's replica stands at one tier.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct TierMargin {
    #[schemars(with = "TierText")]
    pub service_tier: ServiceTier,
    /// Of the kind of token that earns least, in thousandths of its price, rounded down; null if its price is zero.
    pub margin_permille: Option<i64>,
    /// Why it is not used at this tier; null if it is, for organizations that permit what it does with data.
    pub refused: Option<String>,
}

/// One version of what a supplier's replica costs. It is never changed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ReplicaCost {
    pub object: ReplicaCostTag,
    /// Content hash: what usage records refer to.
    #[schemars(with = "VersionText")]
    pub version: CostVersion,
    #[schemars(with = "IdText<ReplicaId>")]
    pub replica: ReplicaId,
    #[schemars(with = "IdText<OrganizationId>")]
    pub supplier: OrganizationId,
    pub model: String,
    #[schemars(with = "CurrencyText")]
    pub currency: Currency,
    /// In force from this instant until a later version is.
    pub effective_at: Rfc3339,
    /// For a million tokens, as are the others.
    pub input: Amount,
    pub cached_input: Amount,
    pub output: Amount,
    pub created_at: UnixSeconds,
}

/// Body that sets what a supplier's replica costs. Amounts are for a million tokens.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SetReplicaCost {
    pub input: Amount,
    /// As other input if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cached_input: Option<Amount>,
    pub output: Amount,
    /// That of the supplier's account if left out; no other works, since nothing is converted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<CurrencyText>")]
    pub currency: Option<Currency>,
    /// Now if left out; never in the past.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effective_at: Option<Rfc3339>,
}

/// What was bought in a stretch of time, and what stays of what it was sold for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Margins {
    pub object: MarginsTag,
    /// Included.
    pub start_time: Rfc3339,
    /// Excluded.
    pub end_time: Rfc3339,
    pub lines: Vec<MarginLine>,
}

/// What was bought of one supplier for one model.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct MarginLine {
    pub model: String,
    #[schemars(with = "IdText<OrganizationId>")]
    pub supplier: OrganizationId,
    /// Answers that were bought.
    pub purchases: u64,
    /// Those among them that no customer was charged for.
    pub unsold: u64,
    pub input_tokens: u64,
    pub cached_input_tokens: u64,
    pub output_tokens: u64,
    pub revenue: Money,
    pub cost: Money,
    /// Revenue less cost.
    pub margin: Money,
    /// In thousandths of the revenue, rounded down; null where nothing was earned.
    pub margin_permille: Option<i64>,
}
