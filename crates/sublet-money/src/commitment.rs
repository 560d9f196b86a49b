//! What a contract adds to invoices: how far its commitment is used, and what its end brings.
//!
//! Every invoice of a month in which a contract runs says what was counted towards the commitment, in this invoice and
//! in those before it of the same commitment period. The invoice of the period's last month settles it: what is missing
//! is charged, or what was charged as missing in earlier periods is used up by what is beyond the commitment now.
//! Counted is what is invoiced: use that came late counts in the month in which it is billed. Credit notes are not
//! taken off.

use serde::{Deserialize, Serialize};
use sublet_core::Nanos;
use sublet_core::error::{Error, ErrorCode, Result};
use sublet_core::id::ContractId;

use crate::canonical::decimal;
use crate::contract::{Agreement, CommitmentPeriod, ContractTerms, TermsVersion};
use crate::invoice::InvoiceLine;
use crate::period::PeriodKey;

/// A contract's part of one invoice.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CommitmentLine {
    pub contract: ContractId,
    /// The hash of the terms' canonical form.
    pub terms: String,
    /// The commitment period, counted from 1, and its first and last month.
    pub number: u32,
    pub first: PeriodKey,
    pub last: PeriodKey,
    #[serde(with = "decimal")]
    pub committed: Nanos,
    /// By earlier invoices of the period.
    #[serde(with = "decimal")]
    pub counted_before: Nanos,
    /// By this invoice.
    #[serde(with = "decimal")]
    pub counted: Nanos,
    /// What was charged as missing in earlier periods and can be used up in this one.
    #[serde(with = "decimal")]
    pub roll_over: Nanos,
    /// What is missing; charged. Zero before the last month.
    #[serde(with = "decimal")]
    pub shortfall: Nanos,
    /// Of the roll-over; given back. Zero before the last month.
    #[serde(with = "decimal")]
    pub roll_over_used: Nanos,
    /// For leaving before the end of the term; charged with the contract's last month.
    #[serde(with = "decimal")]
    pub exit_fee: Nanos,
    /// The hash of the newest terms that the fee was computed with, where those are others.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub fee_terms: Option<String>,
}

/// What of a commitment period an earlier invoice settled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SettledPeriod {
    /// Counted from 1.
    pub number: u32,
    pub shortfall: Nanos,
    pub roll_over_used: Nanos,
    /// For how many periods its shortfall can be used up.
    pub roll_over_periods: u32,
}

/// What of earlier shortfalls can be used up in a period: the oldest goes first, and each is lost after its time.
/// `settled` are the periods before it, in their order.
pub fn roll_over(settled: &[SettledPeriod], number: u32) -> Result<Nanos> {
    let mut lots: Vec<(u32, Nanos)> = Vec::new();
    for period in settled.iter().filter(|period| period.number < number) {
        lots.retain(|(last, _)| *last >= period.number);
        let mut used = period.roll_over_used;
        for (_, left) in &mut lots {
            let taken = used.min(*left);
            *left = left.checked_sub(taken)?;
            used = used.checked_sub(taken)?;
        }
        if !used.is_zero() {
            return Err(mismatch(format!("period {} used up {used} more than was charged as missing before it", period.number)));
        }
        lots.push((period.number.saturating_add(period.roll_over_periods), period.shortfall));
    }
    Nanos::checked_sum(lots.into_iter().filter(|(last, _)| *last >= number).map(|(_, left)| left))
}

/// What of an invoice's lines counts towards a commitment.
pub fn counted(terms: &ContractTerms, lines: &[InvoiceLine]) -> Result<Nanos> {
    Nanos::checked_sum(lines.iter().filter(|line| terms.covers.contains(&line.sku.family())).map(|line| line.charges.amount))
}

impl CommitmentLine {
    /// A contract's part of the invoice of a month, which has these lines; `None` if it does not run then. `before` is
    /// what earlier invoices of the period counted, `settled` the periods before.
    pub fn new(
        (contract, agreement): (&ContractId, &Agreement),
        month: PeriodKey,
        lines: &[InvoiceLine],
        (before, settled): (Nanos, &[SettledPeriod]),
    ) -> Result<Option<Self>> {
        let Some((version, period)) = agreement.at(month)? else { return Ok(None) };
        let roll_over = roll_over(settled, period.number)?;
        let fee = agreement.notice().filter(|notice| notice.last_month == month).map_or(Nanos::ZERO, |notice| notice.fee);
        let mut line = Self {
            contract: contract.clone(),
            terms: version.hash.clone(),
            number: period.number,
            first: period.first,
            last: period.last,
            committed: period.committed,
            counted_before: before,
            counted: counted(&version.terms, lines)?,
            roll_over,
            shortfall: Nanos::ZERO,
            roll_over_used: Nanos::ZERO,
            exit_fee: fee,
            fee_terms: Some(&agreement.newest()?.hash).filter(|newest| !fee.is_zero() && **newest != version.hash).cloned(),
        };
        (line.shortfall, line.roll_over_used) = line.settled(month)?;
        Ok(Some(line))
    }

    /// What is missing at the end of a month, and what of the roll-over is used up.
    fn settled(&self, month: PeriodKey) -> Result<(Nanos, Nanos)> {
        if month != self.last {
            return Ok((Nanos::ZERO, Nanos::ZERO));
        }
        let beyond = self.total_counted()?.checked_sub(self.committed)?;
        let missing = beyond.checked_neg()?.max(Nanos::ZERO);
        Ok((missing, beyond.max(Nanos::ZERO).min(self.roll_over)))
    }

    /// By all invoices of the period so far.
    pub fn total_counted(&self) -> Result<Nanos> {
        self.counted_before.checked_add(self.counted)
    }

    /// The hashes of the terms that it names: those of the month, and those of the fee where they are others.
    pub fn named_terms(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.terms.as_str()).chain(self.fee_terms.as_deref())
    }

    /// What it adds to the invoice; below zero where roll-over is used up.
    pub fn amount(&self) -> Result<Nanos> {
        self.shortfall.checked_add(self.exit_fee)?.checked_sub(self.roll_over_used)
    }

    /// Computes it again from the terms that it names. What earlier invoices counted, and what rolls over from them,
    /// is the word of this one.
    pub fn verify(&self, (version, newest): (&TermsVersion, &TermsVersion), month: PeriodKey, lines: &[InvoiceLine]) -> Result<()> {
        let terms = &version.terms;
        if version.from > month || self.fee_terms.is_some() == (version.hash == newest.hash) {
            return Err(mismatch(format!("these are not the contract's terms of {month}")));
        }
        let period = terms.period_at(month)?;
        let said = CommitmentPeriod { number: self.number, first: self.first, last: self.last, committed: self.committed };
        if period != Some(said) {
            return Err(mismatch(format!("the contract's terms say another commitment for {month}")));
        }
        let counts = counted(terms, lines)?;
        if counts != self.counted {
            return Err(mismatch(format!("{counts} of the lines count towards the commitment, and not {}", self.counted)));
        }
        if self.first == month && !self.counted_before.is_zero() || self.roll_over.is_negative() {
            return Err(mismatch(format!("{month} begins a commitment period, of which nothing is counted before")));
        }
        if self.settled(month)? != (self.shortfall, self.roll_over_used) {
            return Err(mismatch(format!("the commitment of {} is settled otherwise by its terms", self.committed)));
        }
        let fee_is_right =
            self.exit_fee.is_zero() || (month == self.last && self.exit_fee == terms.exit_fee(self.number, &newest.terms)?);
        if !fee_is_right {
            return Err(mismatch(format!("leaving after period {} costs another fee than {}", self.number, self.exit_fee)));
        }
        Ok(())
    }
}

fn mismatch(message: String) -> Error {
    Error::new(ErrorCode::LedgerMismatch, message)
}

#[cfg(test)]
#[path = "commitment_tests.rs"]
mod tests;
