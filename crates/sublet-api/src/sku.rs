//! What can be leased, and how much of it there is now.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sublet_core::id::{SiteId, SkuId};
use sublet_core::notice::NoticeClass;

use crate::list::list_query;
use crate::money::Money;
use crate::object::{AvailabilityTag, SkuTag};
use crate::price::DeviceHourPrice;
use crate::schema::{IdText, NoticeText};
use crate::time::{Rfc3339, UnixSeconds};

/// A kind of capacity with a price.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Sku {
    pub object: SkuTag,
    #[schemars(with = "IdText<SkuId>")]
    pub id: SkuId,
    /// Short and unique; usable wherever the id is.
    pub name: String,
    pub description: String,
    /// `cpu` or the accelerator's model.
    pub device_kind: String,
    /// Of one device, in bytes.
    pub device_memory_bytes: u64,
    pub prices: Vec<DeviceHourPrice>,
    pub created_at: UnixSeconds,
}

/// How many units could be leased now, at one notice class. What is shown can be placed as shown.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Availability {
    pub object: AvailabilityTag,
    pub sku: SkuName,
    #[schemars(with = "NoticeText")]
    pub notice: NoticeClass,
    /// Where the units are, if sites have prices of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<IdText<SiteId>>")]
    pub site: Option<SiteId>,
    pub available_units: u32,
    pub total_units: u32,
    /// Per device and hour.
    pub price: Money,
    pub as_of: Rfc3339,
}

/// A SKU by its name or its id.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct SkuName(pub String);

impl SkuName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

list_query! {
    /// Which availability.
    AvailabilityQuery {
        sku: SkuName,
        #[schemars(with = "Option<NoticeText>")]
        notice: NoticeClass,
    }
}
