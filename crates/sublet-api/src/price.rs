//! Price lists: immutable versions, exact rates.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sublet_core::admission::PriceVersion;
use sublet_core::id::{PriceListId, SiteId};
use sublet_core::money::Currency;
use sublet_core::notice::NoticeClass;
use sublet_core::runner::IsolationLevel;
use sublet_core::tier::ServiceTier;

use crate::list::list_query;
use crate::money::{Amount, Money};
use crate::object::PriceListTag;
use crate::offering::OfferingNote;
use crate::schema::{CurrencyText, IdText, IsolationText, NoticeText, PriceVersionText, TierText};
use crate::supply_cost::PriceBelowCost;
use crate::time::{QueryInstant, Rfc3339, UnixSeconds};

/// One version of a price list.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct PriceList {
    pub object: PriceListTag,
    #[schemars(with = "IdText<PriceListId>")]
    pub id: PriceListId,
    pub name: String,
    /// Content hash: what charges and invoices refer to.
    #[schemars(with = "PriceVersionText")]
    pub version: PriceVersion,
    /// Counts the versions of one list from 1.
    pub number: u32,
    #[schemars(with = "CurrencyText")]
    pub currency: Currency,
    /// In force from this instant until a later version is.
    pub effective_at: Rfc3339,
    pub created_at: UnixSeconds,
    pub prices: Vec<Price>,
    /// Of prices by contract only: what they were made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contract: Option<ContractPrices>,
    /// In the answer to publishing only: prices below what supply is declared to cost.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub below_cost: Vec<PriceBelowCost>,
}

/// What prices by contract were made from.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ContractPrices {
    /// Of the contract.
    pub terms_hash: String,
    #[schemars(with = "PriceVersionText")]
    pub public_version: PriceVersion,
    /// The version that public prices are not above for this account, while that is agreed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<PriceVersionText>")]
    pub protected_version: Option<PriceVersion>,
}

/// The price of one metered thing: `amount` for every `per` units, or what `model` says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Price {
    pub subject: Subject,
    pub meter: Meter,
    /// For device time: how long before it is taken back the holder is told.
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
    /// The same price for every unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amount: Option<Amount>,
    /// Instead of `amount`: a price that depends on how much is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<PriceModel>,
    /// What a project's use in a billing period costs at least, once there is any. Not for tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minimum: Option<Amount>,
    /// Units that an amount buys: 1000000 tokens or 3600000 device-milliseconds.
    #[schemars(range(min = 1))]
    pub per: u64,
    /// Times of the week with prices of their own; what is said above is the price of the rest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_of_use: Option<TimeOfUse>,
    /// For device time: an index that the price is multiplied by. Not with `time_of_use`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub market: Option<MarketPrice>,
}

/// A price that follows an index, between bounds. Levels are decimals with at most three places.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MarketPrice {
    /// The index's name.
    pub index: String,
    /// The lowest level that is charged.
    pub floor: String,
    /// The highest level that is charged.
    pub ceiling: String,
}

/// How what a project uses in a billing period is priced as it adds up. Each version of a list and each band begins anew.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum PriceModel {
    /// Each unit at the price of the tier it falls in.
    Graduated { tiers: Vec<PriceTier> },
    /// All units at the price of the tier that the whole quantity reaches; prices never rise from tier to tier.
    Volume { tiers: Vec<PriceTier> },
    /// A price for every started package. Not for tokens.
    Package {
        /// Units in a package.
        #[schemars(range(min = 1))]
        size: u64,
        /// For one package.
        amount: Amount,
    },
}

/// Everything above the tier before, up to and including `up_to`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PriceTier {
    /// In units. Absent on the last tier, and only there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub up_to: Option<u64>,
    /// For `per` units.
    pub amount: Amount,
}

/// Bands of the week with prices of their own. What is used is priced by the clocks of one zone at the moment when a
/// request is admitted, or while a device is used.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TimeOfUse {
    /// IANA name.
    pub time_zone: String,
    pub bands: Vec<PriceBand>,
}

/// Times of the week, and the price in them.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PriceBand {
    /// What charges and invoices call it.
    pub name: String,
    pub windows: Vec<PriceWindow>,
    /// As in the price around it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amount: Option<Amount>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<PriceModel>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minimum: Option<Amount>,
}

/// From a time of day until another. One that ends where it begins or before ends on the next day.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PriceWindow {
    /// On which it begins: `mon` to `sun`; every day if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub days: Option<Vec<String>>,
    /// Like `22:00`.
    pub from: String,
    /// Like `06:00`; `24:00` is the end of the day.
    pub until: String,
}

/// What has a price: a model or a SKU, by name.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", tag = "kind", content = "name")]
pub enum Subject {
    Model(String),
    Sku(String),
}

impl Subject {
    pub fn name(&self) -> &str {
        match self {
            Self::Model(name) | Self::Sku(name) => name,
        }
    }
}

/// What is counted, each in its own unit.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Meter {
    /// Prompt tokens that were computed.
    InputTokens,
    /// Prompt tokens found in a cache.
    CachedInputTokens,
    OutputTokens,
    /// Requests that are charged, besides their tokens.
    Requests,
    /// Devices multiplied by milliseconds.
    DeviceMilliseconds,
    /// Jobs that began to run, besides their device time.
    Starts,
    /// Projects that were used in a month, each once.
    ProjectMonths,
    /// Fees that are charged once, by name.
    Fees,
    /// Bytes that are kept, multiplied by hours.
    ByteHours,
    /// Bytes that are sent.
    BytesSent,
}

impl Meter {
    pub const ALL: [Self; 10] = [
        Self::InputTokens,
        Self::CachedInputTokens,
        Self::OutputTokens,
        Self::Requests,
        Self::DeviceMilliseconds,
        Self::Starts,
        Self::ProjectMonths,
        Self::Fees,
        Self::ByteHours,
        Self::BytesSent,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InputTokens => "input_tokens",
            Self::CachedInputTokens => "cached_input_tokens",
            Self::OutputTokens => "output_tokens",
            Self::Requests => "requests",
            Self::DeviceMilliseconds => "device_milliseconds",
            Self::Starts => "starts",
            Self::ProjectMonths => "project_months",
            Self::Fees => "fees",
            Self::ByteHours => "byte_hours",
            Self::BytesSent => "bytes_sent",
        }
    }
}

/// Body that publishes a price-list version.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PublishPriceList {
    pub name: String,
    #[schemars(with = "CurrencyText")]
    pub currency: Currency,
    /// Now if left out; never in the past.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effective_at: Option<Rfc3339>,
    pub prices: Vec<Price>,
}

/// A price as somebody decides by it: money for a human quantity.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct DeviceHourPrice {
    #[schemars(with = "NoticeText")]
    pub notice: NoticeClass,
    /// Where it is the price, if sites have prices of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<IdText<SiteId>>")]
    pub site: Option<SiteId>,
    /// Per device and hour.
    pub price: Money,
    /// To whom it is sold, where that is not simply everybody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offering: Option<OfferingNote>,
}

list_query! {
    /// Which published prices.
    PriceListQuery {
        /// In force at this instant; now if left out.
        at: QueryInstant,
    }
}
