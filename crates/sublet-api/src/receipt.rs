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
    /// When that month is over; its invoice is issued, and with it this charge sealed, after this.
    pub sealed_after: Rfc3339,
    /// The receipt, whose text is to be kept as it is; none until the invoice is issued.
    pub receipt: Option<String>,
}
