//! What a contract bills in advance, on a commitment period's first day: its fee, and what it is committed to.
//!
//! Invoices are issued when their months end, so what is due on the first day of a period is in the invoice of the month
//! before. A fee is for standing ready, whatever is used: nothing is drawn from it, and it is earned by the day
//! ([`crate::recognition`]). A commitment that the terms bill in advance is drawn down by use, and earned by that
//! ([`crate::drawdown`]). Amendments begin with periods that have not begun, so what is billed is never changed.
//!
//! Deliberately absent: quantities that are billed in advance.

use serde::{Deserialize, Serialize};
use sublet_core::Nanos;
use sublet_core::error::{Error, ErrorCode, Result};
use sublet_core::id::ContractId;

use crate::canonical::decimal;
use crate::contract::{Agreement, ContractTerms, TermsVersion};
use crate::period::PeriodKey;
use crate::recognition::StraightLine;

/// A fee for each commitment period.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeeTerms {
    #[serde(with = "decimal")]
    pub amount: Nanos,
}

impl FeeTerms {
    /// Refuses what cannot be billed.
    pub(crate) fn validate(&self, terms: &ContractTerms) -> Result<()> {
        let minor_unit = terms.currency.minor_unit().get();
        if self.amount <= Nanos::ZERO || self.amount.get() % minor_unit != 0 {
            let message = format!("{} is not an amount in whole minor units of {} above 0", self.amount, terms.currency);
            return Err(Error::new(ErrorCode::InvalidAmount, message).param("fee").alternative("leave fee out if there is none"));
        }
        let all = self.amount.get().checked_mul(i64::from(terms.periods()));
        all.map(|_| ()).ok_or_else(|| Error::new(ErrorCode::AmountOverflow, "the fees of the term are too much").param("fee"))
    }
}

/// What an invoice bills in advance: of the period that begins when the invoice's month ends.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdvanceLine {
    pub contract: ContractId,
    /// The hash of the terms' canonical form.
    pub terms: String,
    /// The commitment period, counted from 1, and its first and last month.
    pub number: u32,
    pub first: PeriodKey,
    pub last: PeriodKey,
    /// Zero where there is none.
    #[serde(with = "decimal")]
    pub fee: Nanos,
    /// What the period is committed to, where that is drawn down.
    #[serde(with = "decimal", skip_serializing_if = "is_nothing", default)]
    pub commitment: Nanos,
}

const fn is_nothing(amount: &Nanos) -> bool {
    amount.is_zero()
}

/// What terms bill of a period before it: its fee, and what it is committed to.
fn billed(terms: &ContractTerms, committed: Nanos) -> (Nanos, Nanos) {
    let commitment = if terms.is_drawn_down() { committed } else { Nanos::ZERO };
    (terms.fee.map_or(Nanos::ZERO, |fee| fee.amount), commitment)
}

impl AdvanceLine {
    /// Of the invoice of a month; `None` if no period of which something is billed begins after it.
    pub fn new((contract, agreement): (&ContractId, &Agreement), month: PeriodKey) -> Result<Option<Self>> {
        let next = month.next()?;
        let Some((version, period)) = agreement.at(next)? else { return Ok(None) };
        let (fee, commitment) = billed(&version.terms, period.committed);
        if period.first != next || fee.is_zero() && commitment.is_zero() {
            return Ok(None);
        }
        Ok(Some(Self {
            contract: contract.clone(),
            terms: version.hash.clone(),
            number: period.number,
            first: period.first,
            last: period.last,
            fee,
            commitment,
        }))
    }

    /// All of it.
    pub fn amount(&self) -> Result<Nanos> {
        self.fee.checked_add(self.commitment)
    }

    /// How the fee is earned.
    pub const fn schedule(&self) -> StraightLine {
        StraightLine { amount: self.fee, first: self.first, last: self.last }
    }

    /// Computes it again from the terms that it names.
    pub fn verify(&self, version: &TermsVersion, month: PeriodKey) -> Result<()> {
        let next = month.next()?;
        // Without a renewal there is nothing after the term; with one it is not known here how often it was renewed.
        let runs = |number: u32| version.terms.renewal.is_some() || number <= version.terms.periods();
        let period = version.terms.period_at(next)?;
        let period = period.filter(|period| period.first == next && version.from <= next && runs(period.number));
        let is_right =
            period.is_some_and(|period| (period.number, period.first, period.last) == (self.number, self.first, self.last));
        let committed = period.map_or(Nanos::ZERO, |period| period.committed);
        if is_right && billed(&version.terms, committed) == (self.fee, self.commitment) && !self.amount()?.is_zero() {
            return Ok(());
        }
        let message = format!("the contract's terms bill something else in advance with {month} than {}", self.amount()?);
        Err(Error::new(ErrorCode::LedgerMismatch, message))
    }
}

#[cfg(test)]
#[path = "advance_tests.rs"]
mod tests;
