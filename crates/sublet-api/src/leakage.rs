//! What runs or was metered and brings nothing.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sublet_core::id::OrganizationId;

use crate::money::Money;
use crate::object::LeakageTag;
use crate::schema::IdText;
use crate::time::Rfc3339;

/// All findings; none when all is well.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Leakage {
    pub object: LeakageTag,
    pub as_of: Rfc3339,
    pub findings: Vec<Leak>,
    /// Kinds of which there are more than the hundred that are listed.
    pub more: Vec<String>,
    /// What the listed findings have at stake, by currency.
    pub at_stake: Vec<Money>,
}

/// One thing that brings nothing.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Leak {
    /// Such as `quarantined_usage`.
    pub kind: String,
    /// A request, a job, a lease, a slice, an account of the ledger, an organization's month, a model, a kind of device, a download,
    /// a project or a file.
    pub id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<IdText<OrganizationId>>")]
    pub organization: Option<OrganizationId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Rfc3339>,
    /// At list price where nothing was charged; left out where it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_stake: Option<Money>,
    pub detail: String,
    /// What to do.
    pub remedy: String,
}
