//! What a contract adds to invoices: how far its commitment is used, and what its end brings.
//!
//! Every invoice of a month in which a contract runs says what was counted towards the commitment, in this invoice and
//! in those before it of the same commitment period. The invoice of the period's last month settles it: what is missing
//! is charged, or what was charged as missing in earlier periods is used up by what is beyond the commitment now.
//! Counted is what is invoiced: use that came late counts in the month in which it is billed. Credit notes are not
//! taken off.
//!
//! A commitment that was billed in advance is drawn down instead ([`crate::drawdown`]): nothing is charged as missing.
//!
//! Of a commitment in quantities the units are settled ([`crate::committed_quantity`]), and every amount is what so many
//! cost at the contract's price.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sublet_core::Nanos;
use sublet_core::error::{Error, ErrorCode, Result};
use sublet_core::id::ContractId;

use crate::canonical::decimal;
use crate::committed_quantity::{CommittedQuantity, QuantityBefore, QuantityUse};
use crate::contract::{Agreement, CommitmentPeriod, ContractTerms, TermsVersion};
use crate::drawdown::{Drawdown, Drawn};
use crate::invoice::InvoiceLine;
use crate::period::PeriodKey;
use crate::sku::{Quantity, SkuName};

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
    /// Of what is committed, where that is a quantity.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub quantity: Option<QuantityUse>,
    /// Where the commitment was billed in advance. What is missing and used up of roll-over is there, and nothing above.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub drawdown: Option<Drawdown>,
}

/// What of a commitment period an earlier invoice settled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SettledPeriod {
    /// Counted from 1.
    pub number: u32,
    pub shortfall: Nanos,
    pub roll_over_used: Nanos,
    /// Where a quantity is committed, how much of it the shortfall was, and how much was used up of those before.
    pub missing: Quantity,
    pub quantity_used: Quantity,
    /// For how many periods its shortfall can be used up.
    pub roll_over_periods: u32,
}

/// What earlier invoices of the period counted, and the periods before it in their order.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Earlier<'a> {
    pub counted: Nanos,
    pub quantity: Quantity,
    pub settled: &'a [SettledPeriod],
}

/// What of earlier shortfalls can be used up in a period: the oldest goes first, and each is lost after its time.
/// `settled` are the periods before it, in their order.
pub fn roll_over(settled: &[SettledPeriod], number: u32) -> Result<Nanos> {
    left_over(settled, number, |period| (period.shortfall.get(), period.roll_over_used.get())).map(Nanos::new)
}

/// The same of committed quantities.
pub fn roll_over_quantity(settled: &[SettledPeriod], number: u32) -> Result<Quantity> {
    Quantity::new(left_over(settled, number, |period| (period.missing.get(), period.quantity_used.get()))?)
}

/// `of` says what was missing in a period, and what was used up in it.
fn left_over(settled: &[SettledPeriod], number: u32, of: impl Fn(&SettledPeriod) -> (i64, i64)) -> Result<i64> {
    let mut lots: Vec<(u32, i64)> = Vec::new();
    for period in settled.iter().filter(|period| period.number < number) {
        lots.retain(|(last, _)| *last >= period.number);
        let (missing, mut used) = of(period);
        for (_, left) in &mut lots {
            let taken = used.min(*left);
            *left -= taken;
            used -= taken;
        }
        if used != 0 {
            return Err(mismatch(format!("period {} used up {used} more than was charged as missing before it", period.number)));
        }
        lots.push((period.number.saturating_add(period.roll_over_periods), missing));
    }
    let mut left = lots.into_iter().filter(|(last, _)| *last >= number).map(|(_, left)| left);
    left.try_fold(0_i64, i64::checked_add).ok_or_else(|| Error::new(ErrorCode::AmountOverflow, "what rolls over is too much"))
}

/// Whether use of something counts towards a commitment.
pub fn counts(terms: &ContractTerms, sku: &SkuName) -> bool {
    match &terms.quantities {
        Some(quantities) => quantities.sku.covers(sku),
        None => terms.covers.contains(&sku.family()),
    }
}

/// What of amounts counts in the commitment period that begins with `first`; each is with the month of its use. A month
/// before it that was rated anew and costs less was settled with its own period, and takes nothing off this one.
pub fn counted_from(first: PeriodKey, amounts: impl IntoIterator<Item = (PeriodKey, Nanos)>) -> Result<Nanos> {
    let mut months: BTreeMap<PeriodKey, Nanos> = BTreeMap::new();
    for (used, amount) in amounts {
        let sum = months.entry(used).or_default();
        *sum = sum.checked_add(amount)?;
    }
    Nanos::checked_sum(months.into_iter().map(|(used, sum)| if used < first { sum.max(Nanos::ZERO) } else { sum }))
}

/// What of the lines of a month's invoice counts towards the commitment of the period that begins with `first`.
pub fn counted(terms: &ContractTerms, (first, month): (PeriodKey, PeriodKey), lines: &[InvoiceLine]) -> Result<Nanos> {
    let used = |line: &InvoiceLine| (line.late.map_or(month, |late| late.period), line.charges.amount);
    counted_from(first, lines.iter().filter(|line| counts(terms, &line.sku)).map(used))
}

/// A part of a whole in parts per million, rounded down; `None` of nothing.
pub fn share_ppm(part: i64, whole: i64) -> Option<u64> {
    let share = (i128::from(part) * 1_000_000).checked_div(i128::from(whole))?;
    u64::try_from(share).ok()
}

impl CommitmentLine {
    /// A contract's part of the invoice of a month, which has these lines; `None` if it does not run then.
    pub fn new(
        (contract, agreement): (&ContractId, &Agreement),
        month: PeriodKey,
        lines: &[InvoiceLine],
        before: Earlier<'_>,
    ) -> Result<Option<Self>> {
        let Some((version, period)) = agreement.at(month)? else { return Ok(None) };
        let fee = agreement.notice().filter(|notice| notice.last_month == month).map_or(Nanos::ZERO, |notice| notice.fee);
        let mut line = Self {
            contract: contract.clone(),
            terms: version.hash.clone(),
            number: period.number,
            first: period.first,
            last: period.last,
            committed: period.committed,
            counted_before: before.counted,
            counted: counted(&version.terms, (period.first, month), lines)?,
            roll_over: Nanos::ZERO,
            shortfall: Nanos::ZERO,
            roll_over_used: Nanos::ZERO,
            exit_fee: fee,
            fee_terms: Some(&agreement.newest()?.hash).filter(|newest| !fee.is_zero() && **newest != version.hash).cloned(),
            quantity: None,
            drawdown: None,
        };
        let thing = version.terms.committed_thing()?;
        if let Some(thing) = thing {
            let roll_over = roll_over_quantity(before.settled, period.number)?;
            let before = QuantityBefore { counted: before.quantity, roll_over };
            let committed = period.quantity.unwrap_or_default();
            let used = QuantityUse::new(thing, committed, lines, (before, month == period.last))?;
            line.roll_over = thing.value(roll_over)?;
            line.quantity = Some(used);
        } else {
            line.roll_over = roll_over(before.settled, period.number)?;
        }
        if version.terms.is_drawn_down() {
            let is_over = agreement.at(month.next()?)?.is_none();
            let (of, rolls) = (line.drawn_by(month), version.terms.roll_over_periods);
            line.drawdown = Some(Drawdown::new(of, (period.number, before.settled), rolls, is_over)?);
        }
        (line.shortfall, line.roll_over_used) = line.settled(thing, month)?;
        Ok(Some(line))
    }

    /// How far what was billed in advance is used at the end of a month.
    pub fn drawn_by(&self, month: PeriodKey) -> Drawn {
        let Self { committed, roll_over, counted_before, counted, .. } = *self;
        Drawn { committed, roll_over, counted_before, counted, is_last: month == self.last }
    }

    /// What is missing at the end of a month, and what of the roll-over is used up.
    fn settled(&self, thing: Option<CommittedQuantity<'_>>, month: PeriodKey) -> Result<(Nanos, Nanos)> {
        if let (Some(thing), Some(used)) = (thing, &self.quantity) {
            return Ok((thing.value(used.missing)?, thing.value(used.roll_over_used)?));
        }
        if month != self.last || self.drawdown.is_some() {
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

    /// What use beyond a committed quantity costs more than it was charged; below zero where it costs less.
    pub fn overage(&self) -> Nanos {
        self.quantity.as_ref().map_or(Nanos::ZERO, |used| used.overage_amount)
    }

    /// What was drawn of what was billed in advance.
    pub fn drawn(&self) -> Nanos {
        self.drawdown.as_ref().map_or(Nanos::ZERO, |drawdown| drawdown.drawn)
    }

    /// What is due for it besides what was billed in advance; below zero where roll-over is used up.
    pub fn charged(&self) -> Result<Nanos> {
        self.shortfall.checked_add(self.exit_fee)?.checked_sub(self.roll_over_used)?.checked_add(self.overage())
    }

    /// What it adds to the invoice; below zero where roll-over is used up, or use was paid in advance.
    pub fn amount(&self) -> Result<Nanos> {
        self.charged()?.checked_sub(self.drawn())
    }

    /// What is earned by it: what is charged, and what lapsed.
    pub fn earned(&self) -> Result<Nanos> {
        self.charged()?.checked_add(self.drawdown.as_ref().map_or(Nanos::ZERO, |drawdown| drawdown.lapsed))
    }

    /// It settles what was billed in advance, whether that adds something or not.
    pub fn settles_drawdown(&self, month: PeriodKey) -> bool {
        self.drawdown.is_some() && month == self.last
    }

    /// Computes it again from the terms that it names. What earlier invoices counted, and what rolls over from them,
    /// is the word of this one.
    pub fn verify(&self, (version, newest): (&TermsVersion, &TermsVersion), month: PeriodKey, lines: &[InvoiceLine]) -> Result<()> {
        let terms = &version.terms;
        if version.from > month || self.fee_terms.is_some() == (version.hash == newest.hash) {
            return Err(mismatch(format!("these are not the contract's terms of {month}")));
        }
        let period = terms.period_at(month)?;
        let Self { number, first, last, committed, .. } = *self;
        let said = CommitmentPeriod { number, first, last, committed, quantity: self.quantity.as_ref().map(|used| used.committed) };
        if period != Some(said) {
            return Err(mismatch(format!("the contract's terms say another commitment for {month}")));
        }
        let counts = counted(terms, (self.first, month), lines)?;
        if counts != self.counted {
            return Err(mismatch(format!("{counts} of the lines count towards the commitment, and not {}", self.counted)));
        }
        let quantity_before = self.quantity.as_ref().map_or(Quantity::ZERO, |used| used.counted_before);
        let is_counted = !self.counted_before.is_zero() || !quantity_before.is_zero();
        if self.first == month && is_counted || self.roll_over.is_negative() || self.number == 1 && !self.roll_over.is_zero() {
            return Err(mismatch(format!(
                "{month} begins a commitment period, of which nothing is counted before, or nothing rolls over into it"
            )));
        }
        let thing = terms.committed_thing()?;
        if let (Some(thing), Some(used)) = (thing, &self.quantity) {
            let before = QuantityBefore { counted: used.counted_before, roll_over: used.roll_over };
            let computed = QuantityUse::new(thing, used.committed, lines, (before, month == self.last))?;
            if computed != *used || self.roll_over != thing.value(used.roll_over)? {
                return Err(mismatch(format!("the committed quantity of {} is used otherwise by its terms", used.sku)));
            }
        }
        if terms.is_drawn_down() != self.drawdown.is_some() {
            return Err(mismatch("the contract's terms say otherwise whether it is billed in advance".to_owned()));
        }
        if let Some(drawdown) = &self.drawdown {
            drawdown.verify(self.drawn_by(month), terms.roll_over_periods)?;
        }
        if self.settled(thing, month)? != (self.shortfall, self.roll_over_used) {
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
