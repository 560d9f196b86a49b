//! What a month returned to the owner, on one page.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sublet_core::money::Currency;
use sublet_core::notice::NoticeClass;

use crate::money::Money;
use crate::object::ReturnReportTag;
use crate::schema::{CurrencyText, NoticeText};
use crate::time::Rfc3339;

/// What was earned, what the devices did, when they are paid for, what was not filled and which promises were kept.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ReturnReport {
    pub object: ReturnReportTag,
    /// Money of use is of each account's own month; all else is of the month in UTC.
    pub month: String,
    #[schemars(with = "CurrencyText")]
    pub currency: Currency,
    pub as_of: Rfc3339,
    /// The declared costs that are in force; null if there are none.
    pub cost_version: Option<String>,
    /// The margin report's net revenue, cost and gross margin.
    pub earned: Money,
    pub cost: Money,
    pub margin: Money,
    /// In thousandths of what was earned whose cost is known, rounded down; null where there is none.
    pub margin_permille: Option<i64>,
    /// What of it has no known cost: it is in no margin.
    pub without_cost: Money,
    /// What the time cost in which no workload ran; null where it is not known of all kinds. It is in no margin.
    pub unused_cost: Option<Money>,
    pub time: DeviceTime,
    pub kinds: Vec<KindTime>,
    pub payback: PaybackPeriod,
    pub unfilled: UnfilledDemand,
    /// Shortest notice first.
    pub promises: Vec<ClassPromises>,
}

/// What devices were, in device-milliseconds. Each moment of each device is in exactly one class, so they add up to what
/// was owned, but for less than a millisecond of each.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct DeviceTime {
    pub owned_milliseconds: u64,
    /// Those that there were.
    pub classes: Vec<ClassTime>,
    /// The owner's own use, inside and outside, in thousandths of what was owned, rounded down; null if nothing was.
    pub before_permille: Option<i64>,
    /// The same with what was sold.
    pub after_permille: Option<i64>,
}

/// One class of device time.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ClassTime {
    /// `own_use`, `outside_use`, `sold_` with a notice class, `held`, `drained`, `reserved`, `idle`, `unhealthy` or `unknown`.
    pub class: String,
    pub milliseconds: u64,
}

/// Devices of one kind.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct KindTime {
    pub kind: String,
    pub time: DeviceTime,
}

/// The simple payback period.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct PaybackPeriod {
    /// Declared purchase prices of the devices that are owned.
    pub capital: Money,
    pub devices: u32,
    /// Those whose kind has a declared purchase price.
    pub priced_devices: u32,
    /// The margin with its depreciation added back.
    pub cash: Money,
    /// For 730 hours; null where less than a day was owned.
    pub monthly_cash: Option<Money>,
    /// Until the capital is earned, in tenths of months, rounded up; null without capital or cash.
    pub tenths_of_months: Option<u32>,
}

/// What customers asked for and did not get.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct UnfilledDemand {
    pub kinds: Vec<UnfilledKind>,
    /// What was asked for in other currencies.
    pub other_currencies: Vec<UnfilledElsewhere>,
    /// On whose clocks days and nights are.
    pub time_zone: String,
    /// False if more was asked for than is kept.
    pub is_complete: bool,
}

/// Of one kind of device.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct UnfilledKind {
    pub kind: String,
    /// Of each project and hour the largest request.
    pub device_milliseconds: u64,
    /// The price at which it would have brought most; null where no price is known.
    pub at: Option<UnfilledPrice>,
    pub reasons: Vec<UnfilledFor>,
    pub notices: Vec<UnfilledAt>,
    /// 24 sums of device-milliseconds, by the hour of the day.
    pub by_hour: Vec<u64>,
    /// `weekday days`, `weekday nights`, `weekend days` or `weekend nights`: what had most for each of its hours.
    pub densest: Option<String>,
    /// Its share of all in thousandths, rounded down.
    pub densest_permille: Option<i64>,
}

/// The one price at which it would have brought most.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct UnfilledPrice {
    /// Per device and hour.
    pub price: Money,
    /// Wanted at this price or a higher one.
    pub device_milliseconds: u64,
    /// What that would have brought.
    pub worth: Money,
}

/// Of one reason.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct UnfilledFor {
    /// `not_enough`, `kept`, `class_withdrawn`, `isolation`, `price` or `not_on_sale`.
    pub reason: String,
    pub device_milliseconds: u64,
}

/// At one notice.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct UnfilledAt {
    #[schemars(with = "NoticeText")]
    pub notice: NoticeClass,
    pub device_milliseconds: u64,
}

/// In a currency that is not the report's.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct UnfilledElsewhere {
    #[schemars(with = "CurrencyText")]
    pub currency: Currency,
    pub device_milliseconds: u64,
}

/// Customers' leases of one notice class that ended in the month.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ClassPromises {
    #[schemars(with = "NoticeText")]
    pub notice: NoticeClass,
    pub ended: u64,
    /// By the owner, whether anything ran on them or not.
    pub ended_by_owner: u64,
    /// Those that were interrupted with the notice that was sold.
    pub kept: u64,
    /// Those that were interrupted with less.
    pub broken: u64,
    /// What was given for interruptions in the month, by currency.
    pub compensation: Vec<Money>,
}
