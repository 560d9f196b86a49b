//! Files for other people's programs.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sublet_core::id::OrganizationId;

use crate::schema::IdText;

/// Which file is wanted.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExportQuery {
    /// `focus`, cost and usage for FinOps programs; beside it `billing-period`, `invoice-detail` and `contract-commitment`; or
    /// `charges`, one row for each charge. `focus` if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataset: Option<String>,
    /// A month like `2026-03`, in each account's own zone; the one that runs if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub period: Option<String>,
    /// `csv` or `parquet`; `csv` if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// Of the FinOps Open Cost and Usage Specification, `1.2` or `1.4`: for `focus`, `1.2` if left out. What is beside it is of
    /// `1.4` alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// For operators: of one organization; of all if left out.
    #[schemars(with = "Option<IdText<OrganizationId>>")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub organization: Option<OrganizationId>,
}
