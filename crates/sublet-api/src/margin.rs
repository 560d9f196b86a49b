//! The owner's view of a month: revenue, cost of supply, margin, and what his own teams used.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sublet_core::id::{OrganizationId, SiteId};
use sublet_core::money::Currency;
use sublet_core::notice::NoticeClass;
use sublet_core::runner::IsolationLevel;
use sublet_core::tier::ServiceTier;

use crate::money::Money;
use crate::object::{MarginReportTag, ShowbackTag};
use crate::price::{Meter, Subject};
use crate::schema::{CurrencyText, IdText, IsolationText, NoticeText, TierText};
use crate::time::Rfc3339;

/// Which month is reported.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MonthQuery {
    /// A month like `2026-10`, in each account's own zone; the running one if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub month: Option<String>,
    /// That of the first price list if left out; nothing is converted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<CurrencyText>")]
    pub currency: Option<Currency>,
}

/// A month of customers' use, and what supplying it cost.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct MarginReport {
    pub object: MarginReportTag,
    pub month: String,
    #[schemars(with = "CurrencyText")]
    pub currency: Currency,
    pub as_of: Rfc3339,
    /// The declared costs that are in force; null if there are none.
    pub cost_version: Option<String>,
    /// Charged for use in the month.
    pub revenue: Money,
    /// Given as promotional credit, less what of it expired.
    pub promotions: Money,
    /// For promises that were not kept.
    pub compensations: Money,
    /// Given back by credit notes.
    pub refunds: Money,
    /// Paid credit that expired.
    pub breakage: Money,
    /// Charged by contract for what was missing, and for leaving, less what was used up later.
    pub commitments: Money,
    /// Of contracts, as they are earned.
    pub fees: Money,
    /// Of invoices to whole cents.
    pub rounding: Money,
    /// Revenue less promotions, compensations and refunds, with breakage, commitments, fees and rounding.
    pub net_revenue: Money,
    pub costs: CostOfSupply,
    /// All of them, with what is beside.
    pub cost: Money,
    /// Bought from suppliers for models of which no customer and no team used anything.
    pub bought_for_nobody: Money,
    pub processor_fees: Money,
    /// Of revenue whose cost is known.
    pub gross_margin: Money,
    /// In thousandths of the net revenue whose cost is known, rounded down; null where there is none.
    pub margin_permille: Option<i64>,
    /// The part of the revenue whose cost is not known: it is in no margin.
    pub without_cost: Money,
    pub families: Vec<FamilyMargin>,
    pub products: Vec<ProductMargin>,
    pub skus: Vec<SkuMargin>,
    pub customers: Vec<CustomerMargin>,
    pub sites: Vec<SiteMargin>,
    /// What the owner's own teams used: not in the figures above.
    pub internal: MarginFigures,
    pub utilisation: Vec<DeviceUtilisation>,
    pub ledger: LedgerAgreement,
}

/// Costs of supply by kind.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct CostOfSupply {
    pub power: Money,
    pub depreciation: Money,
    /// Of devices with a plain cost for an hour.
    pub device_time: Money,
    /// Paid to the owner's own infrastructure team.
    pub transfer_price: Money,
    /// Of tokens that models of our own made, as declared.
    pub models: Money,
    /// Bought from suppliers.
    pub upstream: Money,
}

/// Sums of what something brought and cost.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct MarginFigures {
    pub revenue: Money,
    pub costs: CostOfSupply,
    pub cost: Money,
    /// The part of the revenue whose cost is not known.
    pub without_cost: Money,
    /// Revenue whose cost is known, less that cost.
    pub margin: Money,
    /// In thousandths of the revenue whose cost is known, rounded down; null where there is none.
    pub margin_permille: Option<i64>,
}

/// What a unit brings: an hour of a device, or a million tokens.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct UnitMargin {
    /// Device-milliseconds or tokens in a unit.
    pub per: u64,
    /// Rounded half to even, as are the others.
    pub revenue: Money,
    pub cost: Money,
    pub margin: Money,
}

/// All tokens, or all device time.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct FamilyMargin {
    /// `model-tokens`, `model-requests`, `device-time`, `project-fees`, `one-time-fees`, `file-storage` or `file-egress`.
    pub family: String,
    pub quantity: u64,
    /// Null where a cost is not known, or nothing was used.
    pub unit: Option<UnitMargin>,
    pub figures: MarginFigures,
}

/// All tokens of a model, or all time on devices of a kind.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ProductMargin {
    pub subject: Subject,
    pub quantity: u64,
    pub unit: Option<UnitMargin>,
    pub figures: MarginFigures,
}

/// One thing with a price.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct SkuMargin {
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
    /// In the meter's unit.
    pub quantity: u64,
    pub unit: Option<UnitMargin>,
    pub figures: MarginFigures,
    /// It cost more than it brought.
    pub below_cost: bool,
}

/// One account.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct CustomerMargin {
    #[schemars(with = "IdText<OrganizationId>")]
    pub organization: OrganizationId,
    pub name: String,
    pub figures: MarginFigures,
}

/// What customers' work brought and cost at one site. Sites add up to the revenue, to its costs and to what has none.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct SiteMargin {
    /// Null for what has no place: tokens, files, fees, and changes by rating anew.
    #[schemars(with = "Option<IdText<SiteId>>")]
    pub site: Option<SiteId>,
    pub figures: MarginFigures,
}

/// Time of all devices of a kind in the month in UTC, as far as it is over.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct DeviceUtilisation {
    pub kind: String,
    pub capacity_milliseconds: u64,
    /// Used by customers' workloads.
    pub sold_milliseconds: u64,
    /// Used by workloads of the owner's own teams.
    pub internal_milliseconds: u64,
    /// In a lease or promised to one, and nothing ran.
    pub held_milliseconds: u64,
    pub idle_milliseconds: u64,
    /// Drained, cordoned or lost.
    pub out_milliseconds: u64,
    /// Sold of the capacity in thousandths, rounded down; null without capacity.
    pub sold_permille: Option<i64>,
    /// What the time cost in which no workload ran; null where it is not known. It is in no margin.
    pub unused_cost: Option<Money>,
}

/// How the report stands to the ledger.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct LedgerAgreement {
    /// Income for use that was posted in the month in UTC, of customers and teams.
    pub posted: Money,
    /// Revenue of the month less that: used in one month and posted in another.
    pub timing: Money,
    /// Revenue of all months.
    pub recognised: Money,
    /// What the income accounts for use add up to.
    pub booked: Money,
    /// Recognised less booked: always zero.
    pub difference: Money,
}

/// What the owner's own teams used in a month, at the prices of the list.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Showback {
    pub object: ShowbackTag,
    pub month: String,
    #[schemars(with = "CurrencyText")]
    pub currency: Currency,
    pub as_of: Rfc3339,
    pub teams: Vec<TeamUse>,
    pub total: MarginFigures,
}

/// What one team used. Its revenue is the transfer price: what a customer would pay.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct TeamUse {
    #[schemars(with = "IdText<OrganizationId>")]
    pub organization: OrganizationId,
    pub name: String,
    pub figures: MarginFigures,
    pub lines: Vec<SkuMargin>,
}
