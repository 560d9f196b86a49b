//! What proves single charges.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sublet_core::id::ChargeId;

use crate::money::Money;
use crate::object::ReceiptTag;
use crate::schema::IdText;
use crate::time::Rfc3339;

/// What proves a charge, as far as it can be proven yet.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Receipt {
    pub object: ReceiptTag,
    #[schemars(with = "IdText<ChargeId>")]
    pub charge: ChargeId,
    pub amount: Money,
    /// The month in whose invoice it is: `2026-11`.
    pub period: String,
    pub status: ReceiptStatus,
    /// For a pending one, when that month is over: its invoice is issued, and with it this charge sealed, after this.
    pub sealed_after: Option<Rfc3339>,
    /// For a sealed one, the receipt, whose text is to be kept as it is.
    pub receipt: Option<String>,
}

/// Whether a charge is proven.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReceiptStatus {
    /// Its invoice is issued and sealed.
    Sealed,
    /// Its invoice is not issued yet.
    Pending,
    /// Its invoice was issued before invoices were sealed, or it is in none.
    Never,
}

impl ReceiptStatus {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sealed => "sealed",
            Self::Pending => "pending",
            Self::Never => "never",
        }
    }
}
