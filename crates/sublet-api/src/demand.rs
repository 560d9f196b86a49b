//! What the owner's own work demands of each pool, and by what is sold to customers.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sublet_core::id::SiteId;

use crate::object::{DemandHistoryTag, DemandImportTag, DemandReportTag, SellingPolicyTag};
use crate::schema::IdText;
use crate::time::Rfc3339;

/// Body that says what the owner's own systems use of a pool beside Sublet.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReportDemand {
    pub device_kind: String,
    #[schemars(with = "IdText<SiteId>")]
    pub site: SiteId,
    /// By the reporter's clock; now if left out. It orders reports and tells repeats: a report counts from when it is heard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Rfc3339>,
    /// Units that are used outside, those on cordoned devices among them: they are not sold.
    pub in_use: u32,
    /// Units that work outside waits for.
    #[serde(default)]
    pub queued: u32,
    /// False in an outage of what is reported: nothing is known then.
    #[serde(default = "known")]
    pub valid: bool,
    /// Without another report nothing is known of the pool after so many seconds; for ever if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub good_for_seconds: Option<u64>,
}

const fn known() -> bool {
    true
}

/// What was reported last of a pool.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct DemandReport {
    pub object: DemandReportTag,
    pub device_kind: String,
    #[schemars(with = "IdText<SiteId>")]
    pub site: SiteId,
    pub at: Rfc3339,
    pub in_use: u32,
    pub queued: u32,
    pub valid: bool,
    pub until: Option<Rfc3339>,
}

/// What is so from an instant until the next row.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DemandStep {
    /// Seconds since 1970.
    pub at: i64,
    /// Healthy units.
    pub capacity: u32,
    /// Of the owner's own work.
    pub in_use: u32,
    pub queued: u32,
    pub valid: bool,
}

/// Body that adds history from before a pool was observed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImportDemand {
    pub device_kind: String,
    #[schemars(with = "IdText<SiteId>")]
    pub site: SiteId,
    /// 1 to 2,000 rows, oldest first.
    pub steps: Vec<DemandStep>,
}

/// What an import did.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct DemandImport {
    pub object: DemandImportTag,
    /// Rows that were not there before: all of the import, or none.
    pub added: u64,
}

/// Which part of a pool's history.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DemandQuery {
    pub device_kind: String,
    #[schemars(with = "IdText<SiteId>")]
    pub site: SiteId,
    /// Rows from this instant on, in seconds since 1970; all if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<i64>,
    /// 1 to 10,000; as many if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// A pool's recorded demand, oldest first.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct DemandHistory {
    pub object: DemandHistoryTag,
    pub device_kind: String,
    #[schemars(with = "IdText<SiteId>")]
    pub site: SiteId,
    pub steps: Vec<DemandStep>,
    /// Give it as `since` for the rows behind these; none if there are no more.
    pub next_since: Option<i64>,
}

/// By what is sold to customers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct SellingPolicy {
    pub object: SellingPolicyTag,
    /// `static`: the reserve rule. `shadow`: the same, and curves are shown. `learned`: the lesser of the reserve rule and the
    /// curve, and surplus is given back. `nothing`: customers get nothing new, and curves are shown.
    pub mode: String,
    /// The owner's reserve rule: the larger of a number of units and a share of what is healthy.
    pub reserve_units: u32,
    pub reserve_thousandths: u32,
}

/// Body that says by what is sold; what is left out stays.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SetSellingPolicy {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reserve_units: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reserve_thousandths: Option<u32>,
}
