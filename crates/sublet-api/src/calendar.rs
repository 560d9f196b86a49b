//! The coming hours: where units will be, and how much could be leased.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sublet_core::id::SiteId;
use sublet_core::notice::NoticeClass;

use crate::object::{AvailabilityCalendarTag, CapacityCalendarTag};
use crate::schema::{IdText, NoticeText};
use crate::sku::SkuName;
use crate::time::Rfc3339;

/// Which availability, and for how long.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AvailabilityCalendarQuery {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sku: Option<SkuName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<NoticeText>")]
    pub notice: Option<NoticeClass>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<IdText<SiteId>>")]
    pub site: Option<SiteId>,
    /// 1 to 336; 48 if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hours: Option<u16>,
}

/// How much could be leased at a notice and a site from the beginning of each hour on, as far as is known now. Nothing of
/// it is promised.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct AvailabilityCalendar {
    pub object: AvailabilityCalendarTag,
    pub sku: SkuName,
    #[schemars(with = "NoticeText")]
    pub notice: NoticeClass,
    #[schemars(with = "IdText<SiteId>")]
    pub site: SiteId,
    /// The beginning of the first hour; the others follow without gaps.
    pub starts_at: Rfc3339,
    /// One for each hour, as a share of what is healthy: `none`, `low` (up to a quarter), `medium` (up to a half), `high`; or
    /// `unknown`, further ahead than the owner's demand is forecast.
    pub levels: Vec<String>,
}

/// How far ahead.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CapacityCalendarQuery {
    /// 1 to 336; 48 if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hours: Option<u16>,
}

/// A pool hour by hour, as far as it is settled: leases without a window stay.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct CapacityCalendar {
    pub object: CapacityCalendarTag,
    /// `cpu` or the accelerator's model.
    pub device_kind: String,
    #[schemars(with = "IdText<SiteId>")]
    pub site: SiteId,
    pub hours: Vec<CapacityHour>,
}

/// The beginning of an hour. Unhealthy, internal, sold and idle units add up to those that are owned.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct CapacityHour {
    pub at: Rfc3339,
    pub owned: u32,
    /// As now.
    pub unhealthy: u32,
    /// In leases of the owner's teams, promised to one, or held for them by an order.
    pub internal: u32,
    /// Those that there are, shortest notice first.
    pub sold: Vec<SoldUnits>,
    /// What is used outside among them.
    pub idle: u32,
    /// What the owner uses outside now.
    pub outside: u32,
    /// What the reserve rule keeps of what is idle of the kind, at all sites together.
    pub kept: u32,
    /// Neither used outside nor kept.
    pub free: u32,
    /// The most that the owner's own work needs until then, as the curve forecasts it; null where it says nothing.
    pub own_need_max: Option<u32>,
}

/// Units that customers have at a notice.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct SoldUnits {
    #[schemars(with = "NoticeText")]
    pub notice: NoticeClass,
    pub units: u32,
}
