//! What a contract bills in advance: the fee of a commitment period, on the period's first day.
//!
//! Invoices are issued when their months end, so what is due on the first day of a period is in the invoice of the month
//! before. A fee is for standing ready, whatever is used: nothing is drawn from it, and it is earned by the day
//! ([`crate::recognition`]). Amendments begin with periods that have not begun, so what is billed is never changed.
//!
//! Deliberately absent: commitments that are billed in advance and drawn down by use.

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
    #[serde(with = "decimal")]
    pub fee: Nanos,
}

impl AdvanceLine {
    /// Of the invoice of a month; `None` if no period with a fee begins after it.
    pub fn new((contract, agreement): (&ContractId, &Agreement), month: PeriodKey) -> Result<Option<Self>> {
        let next = month.next()?;
        let Some((version, period)) = agreement.at(next)? else { return Ok(None) };
        let Some(fee) = version.terms.fee.filter(|_| period.first == next) else { return Ok(None) };
        Ok(Some(Self {
            contract: contract.clone(),
            terms: version.hash.clone(),
            number: period.number,
            first: period.first,
            last: period.last,
            fee: fee.amount,
        }))
    }

    /// How it is earned.
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
        if is_right && version.terms.fee.map(|fee| fee.amount) == Some(self.fee) {
            return Ok(());
        }
        let message = format!("the contract's terms bill another fee in advance with {month} than {}", self.fee);
        Err(Error::new(ErrorCode::LedgerMismatch, message))
    }
}

#[cfg(test)]
#[path = "advance_tests.rs"]
mod tests;
