//! What a past period would have been under other prices.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sublet_core::id::{OrganizationId, ReplicaId, SiteId};
use sublet_core::money::Currency;
use sublet_core::notice::NoticeClass;
use sublet_core::runner::IsolationLevel;
use sublet_core::tier::ServiceTier;

use crate::money::Money;
use crate::object::PriceSimulationTag;
use crate::price::{Meter, Price, Subject};
use crate::schema::{CurrencyText, IdText, IsolationText, NoticeText, TierText};
use crate::supply_cost::PriceBelowCost;

/// Body that asks for a simulation. Nothing is published.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SimulatePrices {
    /// Whose customers are looked at.
    #[schemars(with = "CurrencyText")]
    pub currency: Currency,
    pub prices: Vec<Price>,
    /// A month like `2026-03`, in each account's own zone; the last whole one if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub period: Option<String>,
}

/// A period as it was charged, and as it would have been had these prices held all the time.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct PriceSimulation {
    pub object: PriceSimulationTag,
    pub period: String,
    /// For everything that these prices sell.
    pub charged: Money,
    pub would_be: Money,
    /// Charged for what these prices do not sell; it would have been refused.
    pub not_sold: Money,
    /// How many customers used anything.
    pub customers: u64,
    /// The hundred for whom most would change, the largest change first.
    pub most_changed: Vec<SimulatedCustomer>,
    /// By thing and band of these prices, all customers together. What was used while a band changed counts as of the one
    /// in which it began.
    pub prices: Vec<SimulatedPrice>,
    /// Suppliers' servers that would not be used any more.
    pub below_floor: Vec<BelowFloor>,
    /// Prices that would be below what supply is declared to cost.
    pub below_cost: Vec<PriceBelowCost>,
}

/// A customer's period.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct SimulatedCustomer {
    #[schemars(with = "IdText<OrganizationId>")]
    pub organization: OrganizationId,
    pub name: String,
    pub charged: Money,
    pub would_be: Money,
}

/// One thing's period.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct SimulatedPrice {
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
    /// In the meter's unit.
    pub quantity: u64,
    pub charged: Money,
    /// Left out for what these prices do not sell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub would_be: Option<Money>,
}

/// A server whose cost would leave less than the least margin.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct BelowFloor {
    pub model: String,
    #[schemars(with = "IdText<ReplicaId>")]
    pub replica: ReplicaId,
    #[schemars(with = "TierText")]
    pub service_tier: ServiceTier,
    pub reason: String,
}
