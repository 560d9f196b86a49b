//! Price lists: immutable versions, exact rates.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sublet_core::admission::PriceVersion;
use sublet_core::id::PriceListId;
use sublet_core::money::Currency;
use sublet_core::notice::NoticeClass;
use sublet_core::tier::ServiceTier;

use crate::list::list_query;
use crate::money::{Amount, Money};
use crate::object::PriceListTag;
use crate::schema::{CurrencyText, IdText, NoticeText, PriceVersionText, TierText};
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
}

/// The price of one metered thing: `amount` for every `per` units.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Price {
    pub subject: Subject,
    pub meter: Meter,
    /// For device time: how long before it is taken back the holder is told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<NoticeText>")]
    pub notice: Option<NoticeClass>,
    /// For tokens: the tier; left out for the default one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<TierText>")]
    pub service_tier: Option<ServiceTier>,
    pub amount: Amount,
    /// Units the amount buys, such as 1000000 tokens or 3600000 device-milliseconds.
    #[schemars(range(min = 1))]
    pub per: u64,
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
    /// Devices multiplied by milliseconds.
    DeviceMilliseconds,
}

impl Meter {
    pub const ALL: [Self; 4] = [Self::InputTokens, Self::CachedInputTokens, Self::OutputTokens, Self::DeviceMilliseconds];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InputTokens => "input_tokens",
            Self::CachedInputTokens => "cached_input_tokens",
            Self::OutputTokens => "output_tokens",
            Self::DeviceMilliseconds => "device_milliseconds",
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
    /// Per device and hour.
    pub price: Money,
}

list_query! {
    /// Which published prices.
    PriceListQuery {
        /// In force at this instant; now if left out.
        at: QueryInstant,
    }
}
