//! What a processor paid out to the owner's bank account, and what it still holds.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sublet_core::id::PayoutId;

use crate::money::Money;
use crate::object::{PayoutTag, ProcessorFundsTag};
use crate::payment::words;
use crate::schema::IdText;
use crate::time::Rfc3339;

words! {
    /// How far a payout is.
    PayoutStatus {
        /// It is on its way, or will be.
        Pending = "pending",
        /// It is on the bank account.
        Paid = "paid",
        /// The bank did not take it, or sent it back.
        Failed = "failed",
        Cancelled = "cancelled",
    }
}

/// What a processor paid out.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Payout {
    pub object: PayoutTag,
    #[schemars(with = "IdText<PayoutId>")]
    pub id: PayoutId,
    /// The processor's name of it.
    pub transaction_id: String,
    /// Below zero where the processor took money from the bank account.
    pub amount: Money,
    pub status: PayoutStatus,
    /// Why it failed.
    pub reason: Option<String>,
    pub made_at: Rfc3339,
    /// Since when it is in the books that it arrived.
    pub posted_at: Option<Rfc3339>,
    /// Since when it is in the books that it came back.
    pub returned_at: Option<Rfc3339>,
}

/// What a processor holds, by the books and by its own word.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ProcessorFunds {
    pub object: ProcessorFundsTag,
    /// One for each currency.
    pub currencies: Vec<HeldFunds>,
}

/// What a processor holds of one currency.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct HeldFunds {
    /// What customers paid in there, less what was paid back.
    pub collected: Money,
    /// What it kept for itself.
    pub fees: Money,
    /// What is on the bank account.
    pub paid_out: Money,
    /// What it holds by the books: `collected` less `fees` and `paid_out`.
    pub held: Money,
    /// What it says it holds; null if it did not answer.
    pub reported: Option<Money>,
    /// What it says beyond what the books say.
    pub difference: Option<Money>,
}
