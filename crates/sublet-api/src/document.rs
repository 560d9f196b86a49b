//! Invoices and credit notes as files for finance departments.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which document is wanted.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DocumentQuery {
    /// `pdf`, or `ubl` for UBL 2.1 by EN 16931, of issued invoices; `pdf` if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// The number or id of a credit note of the invoice: that document instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credit_note: Option<String>,
}
