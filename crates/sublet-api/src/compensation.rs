//! Credit for promises that were not kept and for leaving early, with its evidence, and the rules by which leases get it.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sublet_core::id::{CompensationId, CreditGrantId, InvoiceId, OrganizationId};

use crate::list::list_query;
use crate::money::Money;
use crate::object::{CompensationRulesTag, CompensationTag};
use crate::schema::IdText;
use crate::time::UnixSeconds;

/// What it is given for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CompensationKind {
    /// A lease was taken back without the notice it was sold.
    Reclaim,
    /// A level of service was missed.
    Sla,
    /// Its holder left before the deadline that it was told.
    Early,
}

/// What was charged for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChargedFamily {
    ModelTokens,
    ModelRequests,
    DeviceTime,
    JobStarts,
    ProjectFees,
    OneTimeFees,
    FileStorage,
    FileEgress,
}

/// Credit for a promise that was not kept, or for leaving early.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Compensation {
    pub object: CompensationTag,
    #[schemars(with = "IdText<CompensationId>")]
    pub id: CompensationId,
    #[schemars(with = "IdText<OrganizationId>")]
    pub organization: OrganizationId,
    pub kind: CompensationKind,
    /// A lease, a job whose start is given back, or an invoice.
    pub subject: String,
    /// Of an invoice: which of its charges; all if null.
    pub family: Option<ChargedFamily>,
    /// Of an invoice: how much of them, in parts per million.
    pub share_ppm: Option<u32>,
    pub amount: Money,
    /// What happened, and how the amount follows from it.
    pub evidence: Map<String, Value>,
    /// One line for the customer.
    pub note: String,
    /// The credit that it is.
    #[schemars(with = "IdText<CreditGrantId>")]
    pub credit_grant: CreditGrantId,
    pub created_at: UnixSeconds,
}

/// Body that gives back a share of an issued invoice's charges for a level of service that was missed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateCompensation {
    #[schemars(with = "IdText<InvoiceId>")]
    pub invoice: InvoiceId,
    /// Which of its charges; all if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub family: Option<ChargedFamily>,
    /// How much of them, in parts per million; 1 to 1000000. With what was given back before at most all of them.
    pub share_ppm: u32,
    /// What was measured: at most 16 KiB.
    pub evidence: Map<String, Value>,
    /// One line that the customer reads.
    pub note: String,
}

list_query! {
    /// Whose; the operator's only.
    CompensationListQuery {
        #[schemars(with = "Option<IdText<OrganizationId>>")]
        organization: OrganizationId,
    }
}

/// What a lease of a class is owed that did not get what it was sold, as the sum of three parts; and what it gets whose
/// holder leaves early.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CompensationRule {
    /// What was charged for the last so many milliseconds is given back; at most a week.
    pub free_ms: i64,
    /// So much of the price of what was left of the hour that had begun, in parts per million; at most ten times.
    pub hour_ppm: u32,
    /// So much of the price of the notice that was missing, or of what was left of a firm window; at most ten times.
    pub missing_ppm: u32,
    /// So much of the price of the notice that was not used, for who leaves before the deadline, in parts per million; at
    /// most all of it, nothing if left out, and 0 for `n0` and `firm`.
    #[serde(default)]
    pub early_ppm: u32,
}

/// What leases are owed that are sold from now on, by their class.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct CompensationRules {
    pub object: CompensationRulesTag,
    /// Counted from 1; 0 as long as none were set.
    pub version: i64,
    /// By notice class: `n0`, `n2m`, `n15m`, `n1h`, `n24h`, `firm`.
    pub rules: BTreeMap<String, CompensationRule>,
    pub created_at: Option<UnixSeconds>,
}

/// Body that sets what leases are owed that are sold from then on: a rule for every class.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SetCompensationRules {
    pub rules: BTreeMap<String, CompensationRule>,
}
