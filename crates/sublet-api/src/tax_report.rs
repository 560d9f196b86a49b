//! What is reported to those who levy taxes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sublet_core::money::Currency;

use crate::money::Money;
use crate::object::TaxReportTag;
use crate::schema::CurrencyText;
use crate::time::Rfc3339;

/// Which months are reported, and where.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TaxReportQuery {
    /// A month like `2026-03` or a quarter like `2026-Q1`; the running month if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub period: Option<String>,
    /// The time zone in which it is one, such as `Europe/Berlin`; `UTC` if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
}

/// What invoices and credit notes of a month or quarter come to, tax by tax.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct TaxReport {
    pub object: TaxReportTag,
    pub period: String,
    pub zone: String,
    /// Included.
    pub start_time: Rfc3339,
    /// Excluded.
    pub end_time: Rfc3339,
    pub as_of: Rfc3339,
    pub lines: Vec<TaxReportLine>,
    /// What of it is in the books, by jurisdiction and currency.
    pub ledger: Vec<TaxReportTie>,
}

/// One tax at one rate in one currency.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct TaxReportLine {
    /// A country or a part of one: `DE`, `CA-QC`.
    pub jurisdiction: String,
    /// `VAT`, `GST`.
    pub name: String,
    /// By EN 16931: `S` taxed, `Z` taxed at nothing, `E` exempt, `AE` the buyer owes it, `G` export, `O` out of scope.
    pub category: String,
    /// In percent.
    pub rate: String,
    #[schemars(with = "CurrencyText")]
    pub currency: Currency,
    pub invoiced: TaxReportSums,
    pub credited: TaxReportSums,
    /// Of invoices, less credit notes.
    pub base: Money,
    pub tax: Money,
}

/// What documents of one kind come to.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct TaxReportSums {
    pub documents: u64,
    pub base: Money,
    pub tax: Money,
}

/// What documents and books say that a jurisdiction is owed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct TaxReportTie {
    pub jurisdiction: String,
    #[schemars(with = "CurrencyText")]
    pub currency: Currency,
    pub reported: Money,
    /// What was posted to the jurisdiction's accounts in that time.
    pub booked: Money,
    /// Reported less booked: zero, if the books are right.
    pub difference: Money,
}
