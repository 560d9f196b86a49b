//! The double-entry ledger: accounts and transfers.
//!
//! A transfer debits one account and credits another with the same amount, so debits equal
//! credits by construction. `balance = credits - debits`. An account with a minimum is never
//! debited below it: the check is part of the posting. Transfer ids are idempotent for ever.

use sublet_core::id::{Identifier, OrganizationId, TransferId};
use sublet_core::{Currency, Error, ErrorCode, IdMint, Nanos, Result, Scope, Timestamp};
use sublet_money::posting::JournalEntry;

use crate::database::Tx;
use crate::params;
use crate::row::Row;

/// A ledger account with its sums.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Account {
    pub path: String,
    pub organization: Option<OrganizationId>,
    pub currency: Currency,
    pub debits: Nanos,
    pub credits: Nanos,
    pub minimum: Option<Nanos>,
}

impl Account {
    /// Credits less debits.
    pub fn balance(&self) -> Result<Nanos> {
        self.credits.checked_sub(self.debits)
    }
}

/// A posted transfer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredTransfer {
    pub id: TransferId,
    /// Transfers of one business fact share it.
    pub entry: String,
    pub kind: String,
    pub debit: String,
    pub credit: String,
    pub amount: Nanos,
    pub currency: Currency,
    pub posted_at: Timestamp,
    /// What the fact is about: a slice, a request, a hold, a grant.
    pub subject: String,
}
