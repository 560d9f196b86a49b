//! The books: verification, accounts, export, and what waits for a decision.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sublet_core::id::{GatewayId, OrganizationId};
use sublet_core::money::Currency;
use sublet_core::tier::ServiceTier;

use crate::list::{Cursor, list_query};
use crate::money::{Amount, Money};
use crate::object::{EarningsTag, GatewayLossTag, LedgerAccountTag, LedgerVerificationTag, QuarantineTag};
use crate::payment::words;
use crate::price::{Meter, Subject};
use crate::schema::{CurrencyText, IdText, TierText};
use crate::time::{Rfc3339, UnixSeconds};

/// The result of adding everything up again.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct LedgerVerification {
    pub object: LedgerVerificationTag,
    /// Every check passed.
    pub balanced: bool,
    pub as_of: Rfc3339,
    pub accounts: u64,
    pub transfers: u64,
    pub charges: u64,
    pub currencies: Vec<CurrencyTotals>,
    /// What does not add up, one sentence each; at most 100.
    pub findings: Vec<String>,
}

/// Both sides of the books in one currency.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct CurrencyTotals {
    #[schemars(with = "CurrencyText")]
    pub currency: Currency,
    pub debits: Amount,
    pub credits: Amount,
}

/// One account of the ledger.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct LedgerAccount {
    pub object: LedgerAccountTag,
    /// Its identity: readable and hierarchical, such as `liabilities:customers:org_…:available:paid`.
    pub name: String,
    /// Whose it is; null for the house's own.
    #[schemars(with = "Option<IdText<OrganizationId>>")]
    pub organization: Option<OrganizationId>,
    #[schemars(with = "CurrencyText")]
    pub currency: Currency,
    pub debits_posted: Amount,
    pub credits_posted: Amount,
}

list_query! {
    /// Which accounts.
    LedgerAccountListQuery {
        #[schemars(with = "Option<IdText<OrganizationId>>")]
        organization: OrganizationId,
    }
}

/// In which text the journal is exported.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ExportFormat {
    #[default]
    Beancount,
    Hledger,
}

impl ExportFormat {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Beancount => "beancount",
            Self::Hledger => "hledger",
        }
    }
}

/// What to export.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LedgerExportQuery {
    #[serde(default)]
    pub format: ExportFormat,
}

/// What was earned in a stretch of time.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Earnings {
    pub object: EarningsTag,
    /// Included.
    pub start_time: Rfc3339,
    /// Excluded.
    pub end_time: Rfc3339,
    pub lines: Vec<EarningsLine>,
    /// One total for each currency.
    pub totals: Vec<Money>,
}

/// What one organization paid for one thing.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct EarningsLine {
    #[schemars(with = "IdText<OrganizationId>")]
    pub organization: OrganizationId,
    pub subject: Subject,
    pub meter: Meter,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<TierText>")]
    pub service_tier: Option<ServiceTier>,
    /// In the meter's unit.
    pub quantity: u64,
    pub earned: Money,
}

/// A usage record that could not be charged and waits for an operator.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct QuarantineEntry {
    pub object: QuarantineTag,
    /// The identity of the record, such as its request and attempt.
    pub id: Cursor,
    pub reason: String,
    /// The record as it came.
    pub record: serde_json::Value,
    pub created_at: UnixSeconds,
}

words! {
    /// What is done about a gateway that is gone.
    GatewayAction {
        /// What its slices hold waits in suspense for its journal.
        Lost = "lost",
        /// What of it is in suspense goes back to the customers.
        WriteOff = "write_off",
    }
}

/// Body that says what is done about a gateway that is gone.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AnswerGateway {
    pub action: GatewayAction,
    /// One line: why.
    pub note: String,
}

/// What that moved; nothing if it was done before.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct GatewayLoss {
    pub object: GatewayLossTag,
    #[schemars(with = "IdText<GatewayId>")]
    pub gateway: GatewayId,
    pub action: GatewayAction,
    pub slices: u64,
    /// A sum for each currency.
    pub moved: Vec<Money>,
}
