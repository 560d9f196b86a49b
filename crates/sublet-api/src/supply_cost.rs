//! What supply costs the owner, as he declares it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sublet_core::id::SiteId;
use sublet_core::money::Currency;
use sublet_core::notice::NoticeClass;
use sublet_core::runner::IsolationLevel;
use sublet_core::tier::ServiceTier;

use crate::money::{Amount, Money};
use crate::object::SupplyCostsTag;
use crate::price::{Meter, Subject, TimeOfUse};
use crate::schema::{CurrencyText, IdText, IsolationText, NoticeText, TierText};
use crate::time::{Rfc3339, UnixSeconds};

/// One version of what supply costs. It is never changed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct SupplyCosts {
    pub object: SupplyCostsTag,
    /// Content hash.
    pub version: String,
    /// Counts the versions in its currency from 1.
    pub number: u64,
    #[schemars(with = "CurrencyText")]
    pub currency: Currency,
    /// In force from this instant on, until a version that was published later and begins not before it.
    pub effective_at: Rfc3339,
    /// The version published before this one; null for the first.
    pub replaces: Option<String>,
    pub energy: Option<EnergyPrice>,
    pub devices: Vec<DeviceCost>,
    pub models: Vec<ModelCost>,
    pub created_at: UnixSeconds,
}

/// Body that declares what supply costs. What is left out has no known cost.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PublishSupplyCosts {
    #[schemars(with = "CurrencyText")]
    pub currency: Currency,
    /// The first instant of a month in UTC that is not closed; that of the running month if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effective_at: Option<Rfc3339>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub energy: Option<EnergyPrice>,
    #[serde(default)]
    pub devices: Vec<DeviceCost>,
    #[serde(default)]
    pub models: Vec<ModelCost>,
}

/// What a kilowatt-hour costs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EnergyPrice {
    pub per_kwh: Amount,
    /// Times of the week in which it costs something else; each band has an amount.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_of_use: Option<TimeOfUse>,
}

/// What one device of a kind costs: the power it draws, and either its depreciation, a cost for an hour or a transfer
/// price.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeviceCost {
    pub kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub power: Option<Power>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub depreciation: Option<Depreciation>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_hour: Option<Amount>,
    /// What the owner's business pays its own infrastructure team for an hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transfer_price: Option<Amount>,
}

/// What a device draws.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Power {
    /// While a workload runs.
    pub busy_watts: u32,
    /// Otherwise.
    pub idle_watts: u32,
}

/// Straight-line depreciation: (price − residual) ÷ (months × 730) an hour.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Depreciation {
    pub price: Amount,
    /// What it is worth at the end of its life.
    #[serde(default)]
    pub residual: Amount,
    pub months: u16,
}

/// What a million tokens of a model that runs here cost.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelCost {
    pub model: String,
    pub input: Amount,
    /// As other input if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cached_input: Option<Amount>,
    pub output: Amount,
}

/// A price that is below what supply is declared to cost. Nothing is refused for it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct PriceBelowCost {
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<TierText>")]
    pub service_tier: Option<ServiceTier>,
    /// In which it is furthest below; left out outside of all bands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub band: Option<String>,
    /// Units of the meter that the amounts are for.
    pub per: u64,
    /// Of the cheapest tier.
    pub price: Money,
    pub cost: Money,
    /// Cost less price.
    pub short: Money,
}
