//! Prepaid and promotional credit, and where an account's money is.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sublet_core::id::{CreditGrantId, OrganizationId};

use crate::money::Money;
use crate::object::{CreditBalanceTag, CreditGrantTag, Metadata};
use crate::schema::IdText;
use crate::time::{Rfc3339, UnixSeconds};

/// Where an organization's money is. At every instant
/// `deposited + credit_limit + owed = available + sliced + held + captured + suspense + expired + refunded +
/// tax_prepaid + taxed`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct CreditBalance {
    pub object: CreditBalanceTag,
    #[schemars(with = "IdText<OrganizationId>")]
    pub organization: OrganizationId,
    /// All that was ever paid in, with the tax in it, and all credit that was given.
    pub deposited: Money,
    /// How far the balance may go below zero.
    pub credit_limit: Money,
    /// Charged by contract or invoiced as tax beyond what was there for it; the next credit pays it first.
    pub owed: Money,
    /// What can still be spent.
    pub available: Money,
    /// Granted to gateways, not yet spent.
    pub sliced: Money,
    /// Set aside for running leases and jobs.
    pub held: Money,
    /// Charged.
    pub captured: Money,
    /// Lent to a lost gateway, until its journal is known.
    pub suspense: Money,
    pub expired: Money,
    pub refunded: Money,
    /// Kept of payments for the tax of invoices to come; left out where that is nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tax_prepaid: Option<Money>,
    /// Tax of invoices, less what credit notes gave back; left out where that is nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taxed: Option<Money>,
}

/// Credit given to an organization.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct CreditGrant {
    pub object: CreditGrantTag,
    #[schemars(with = "IdText<CreditGrantId>")]
    pub id: CreditGrantId,
    #[schemars(with = "IdText<OrganizationId>")]
    pub organization: OrganizationId,
    pub kind: CreditKind,
    pub amount: Money,
    /// Its own record elsewhere, such as a bank transfer's reference.
    pub reference: Option<String>,
    /// It cannot be spent from this instant on.
    pub expires_at: Option<Rfc3339>,
    /// Credit with a smaller number burns first; 100 is the usual one.
    pub priority: u16,
    pub scope: CreditScope,
    /// What is left of it outside of slices and holds; null for credit without an end, a priority or a scope, which is
    /// not told apart from the rest.
    pub remaining: Option<Money>,
    pub created_at: UnixSeconds,
    pub metadata: Metadata,
}

/// What credit may be spent on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CreditScope {
    #[default]
    All,
    /// Tokens of models, and flat prices of their requests.
    ModelTokens,
    /// Jobs and leases.
    DeviceTime,
    /// What its contract covers; nobody grants it.
    Contract,
}

impl CreditScope {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::ModelTokens => "model_tokens",
            Self::DeviceTime => "device_time",
            Self::Contract => "contract",
        }
    }
}

/// Where credit comes from.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CreditKind {
    /// Somebody paid for it.
    Paid,
    /// A gift.
    Promotional,
    /// Of a contract that bills its commitment in advance; nobody grants it.
    Committed,
}

impl CreditKind {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Paid => "paid",
            Self::Promotional => "promotional",
            Self::Committed => "committed",
        }
    }
}

/// Body that grants credit.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateCreditGrant {
    /// In the organization's currency, above zero. What is paid is gross: the tax in it is kept for invoices.
    pub amount: Money,
    pub kind: CreditKind,
    /// It cannot be spent from this instant on; what is left of it then is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Rfc3339>,
    /// 0 to 1000: credit with a smaller number burns first. 100 if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u16>,
    /// What it may be spent on: everything if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<CreditScope>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    #[serde(default, skip_serializing_if = "Metadata::is_empty")]
    pub metadata: Metadata,
}
