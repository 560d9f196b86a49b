//! Balances: totals per account, the trial balance over a journal, and a customer's funds.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sublet_core::error::{Error, ErrorCode, Result};
use sublet_core::{Currency, Nanos};

use crate::account::{AccountKind, CreditKind, LedgerAccount, NormalSide, Processor};
use crate::posting::JournalEntry;
use crate::sku::SkuFamily;

/// All that was ever posted to one account, both sides growing.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct AccountTotals {
    pub debits: Nanos,
    pub credits: Nanos,
}

impl AccountTotals {
    /// The balance on an account's normal side.
    pub fn balance(self, side: NormalSide) -> Result<Nanos> {
        match side {
            NormalSide::Debit => self.debits.checked_sub(self.credits),
            NormalSide::Credit => self.credits.checked_sub(self.debits),
        }
    }
}

/// Totals of every account that a journal touches. Memory grows with accounts, not with entries.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct TrialBalance {
    totals: BTreeMap<(Currency, LedgerAccount), AccountTotals>,
}

impl TrialBalance {
    pub fn apply(&mut self, entry: &JournalEntry) -> Result<()> {
        entry.verify()?;
        for transfer in &entry.transfers {
            let debit = self.totals.entry((entry.currency, transfer.debit.clone())).or_default();
            debit.debits = debit.debits.checked_add(transfer.amount)?;
            let credit = self.totals.entry((entry.currency, transfer.credit.clone())).or_default();
            credit.credits = credit.credits.checked_add(transfer.amount)?;
        }
        Ok(())
    }

    pub fn totals(&self, currency: Currency, account: &LedgerAccount) -> AccountTotals {
        self.totals.get(&(currency, account.clone())).copied().unwrap_or_default()
    }

    pub fn iter(&self) -> impl Iterator<Item = (Currency, &LedgerAccount, AccountTotals)> {
        self.totals.iter().map(|((currency, account), totals)| (*currency, account, *totals))
    }

    /// Names the first account whose kept totals differ from those of the journal.
    pub fn verify_against(&self, kept: &Self) -> Result<()> {
        for key in self.totals.keys().chain(kept.totals.keys()) {
            let (journal, book) =
                (self.totals.get(key).copied().unwrap_or_default(), kept.totals.get(key).copied().unwrap_or_default());
            if journal != book {
                return Err(Error::new(ErrorCode::LedgerMismatch, format!("the balance of {} differs from its postings", key.1))
                    .context(format!("{}: postings {journal:?}, balance {book:?}", key.0)));
            }
        }
        Ok(())
    }

    /// Sets an account's totals, for balances read back from where they are kept.
    pub fn insert(&mut self, currency: Currency, account: LedgerAccount, totals: AccountTotals) {
        self.totals.insert((currency, account), totals);
    }
}

/// A customer's funds in the terms of the invariant
/// `deposited + credit_limit + owed = available + sliced + held + captured + suspense + expired + refunded + tax`, where
/// tax is what was paid ahead for it and what was invoiced.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct CustomerFunds {
    /// All that was ever paid in, with the tax in it, and all that was given, as a gift or to make something good.
    pub deposited: Nanos,
    pub credit_limit: Nanos,
    /// Charged by contract beyond what credit was there for, and tax of invoices beyond what was paid ahead.
    pub owed: Nanos,
    /// What can still be spent, the credit limit included.
    pub available: Nanos,
    pub sliced: Nanos,
    pub held: Nanos,
    /// Charged, in advance too, less charges given back.
    pub captured: Nanos,
    pub suspense: Nanos,
    pub expired: Nanos,
    /// Paid out or about to be.
    pub refunded: Nanos,
    /// Kept for the tax of invoices to come.
    pub tax_prepaid: Nanos,
    /// Tax of invoices, less what credit notes gave back.
    pub taxed: Nanos,
}

impl CustomerFunds {
    /// Reads a customer's funds off the totals of its accounts; those of all its taxes together are its totals of
    /// [`AccountKind::Tax`], and those of all its contracts of [`AccountKind::DeferredRevenue`].
    pub fn from_totals(credit_limit: Nanos, totals: impl Fn(AccountKind) -> AccountTotals) -> Result<Self> {
        let balance = |kind: AccountKind| totals(kind).balance(kind.normal_side());
        let (mut received, mut paid_back) = (Nanos::ZERO, Nanos::ZERO);
        for cash in Processor::ALL.map(|processor| totals(AccountKind::Cash(processor))) {
            received = received.checked_add(cash.debits)?;
            paid_back = paid_back.checked_add(cash.credits)?;
        }
        let promotions = totals(AccountKind::Promotions);
        let mut available = credit_limit;
        for credit in CreditKind::ALL {
            available = available.checked_add(balance(AccountKind::Available(credit))?)?;
        }
        let mut captured = balance(AccountKind::Commitments)?.checked_sub(balance(AccountKind::Refunds)?)?;
        for kind in [AccountKind::Fees, AccountKind::DeferredRevenue] {
            captured = captured.checked_add(balance(kind)?)?;
        }
        for family in SkuFamily::ALL {
            captured = captured.checked_add(balance(AccountKind::Usage(family))?)?;
        }
        Ok(Self {
            deposited: Nanos::checked_sum([received, promotions.debits, balance(AccountKind::Compensations)?])?,
            credit_limit,
            owed: balance(AccountKind::Receivable)?.checked_add(balance(AccountKind::TaxReceivable)?)?,
            available,
            sliced: balance(AccountKind::Slices)?,
            held: balance(AccountKind::Holds)?,
            captured,
            suspense: balance(AccountKind::Suspense)?,
            expired: balance(AccountKind::Breakage)?.checked_add(promotions.credits)?,
            refunded: balance(AccountKind::RefundsPayable)?.checked_add(paid_back)?,
            tax_prepaid: balance(AccountKind::TaxPrepaid)?,
            taxed: balance(AccountKind::Tax)?,
        })
    }

    /// Checks the invariant, and that nothing was spent that was not there.
    pub fn verify(&self) -> Result<()> {
        let put_in = self.deposited.checked_add(self.credit_limit)?.checked_add(self.owed)?;
        let parts = [self.available, self.sliced, self.held, self.captured, self.suspense, self.expired, self.refunded];
        let accounted = Nanos::checked_sum(parts)?.checked_add(self.tax_prepaid)?.checked_add(self.taxed)?;
        if put_in != accounted {
            return Err(Error::new(ErrorCode::LedgerMismatch, format!("{put_in} came in and {accounted} is accounted for"))
                .context(format!("{self:?}")));
        }
        let kept = [self.owed, self.available, self.sliced, self.held, self.suspense, self.tax_prepaid];
        let overspent = kept.into_iter().any(Nanos::is_negative);
        if overspent {
            return Err(Error::new(ErrorCode::LedgerMismatch, "more was spent than was available").context(format!("{self:?}")));
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "balance_tests.rs"]
mod tests;
