//! Commitments that are billed in advance and drawn down by use.
//!
//! The invoice of the month before a commitment period bills what the period is committed to
//! ([`crate::advance`]). What counts in the period is drawn from that, and from what rolls over: with *S* counted so far,
//! min(max(*S*, 0), committed + roll-over) is drawn, and each invoice takes the growth of that off its lines. So what was
//! billed in advance and what invoices of use come to is together what was used, and what was not used in time.
//!
//! At a period's end what is left rolls over, as far as the terms say, and the rest lapses. It was billed, so nothing is
//! charged as missing.
//!
//! Deliberately absent: quantities that are billed in advance, and a part of a commitment in advance.

use serde::{Deserialize, Serialize};
use sublet_core::Nanos;
use sublet_core::error::{Error, ErrorCode, Result};

use crate::canonical::decimal;
use crate::commitment::{SettledPeriod, roll_over};
use crate::contract::ContractTerms;
use crate::credit_lot::{CreditScope, FamilySet};
use crate::sku::SkuFamily;

/// When what a period is committed to is billed, where not as far as it is missing at its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Billed {
    /// All of it, on the period's first day.
    InAdvance,
}

/// Families that the same credit pays for: a slice pays for tokens and for requests, a hold for time and for starts.
const PAID_TOGETHER: [(SkuFamily, SkuFamily); 2] =
    [(SkuFamily::ModelTokens, SkuFamily::ModelRequests), (SkuFamily::DeviceTime, SkuFamily::JobStarts)];

/// Refuses terms whose commitments cannot be drawn down.
pub(crate) fn validate(terms: &ContractTerms) -> Result<()> {
    if terms.quantities.is_some() {
        let message = "quantities are not billed in advance";
        return Err(Error::new(ErrorCode::InvalidRequest, message)
            .param("billed")
            .alternative("commit to amounts, with a fixed price")
            .alternative("leave billed out"));
    }
    for (one, other) in PAID_TOGETHER {
        let (has, lacks) = if terms.covers.contains(&one) { (one, other) } else { (other, one) };
        if terms.covers.contains(&has) && !terms.covers.contains(&lacks) {
            let (has, lacks) = (has.as_str().replace('-', "_"), lacks.as_str().replace('-', "_"));
            let message = format!("the same credit pays for {has} and {lacks}: both are covered, or neither");
            return Err(Error::new(ErrorCode::InvalidRequest, message).param("covers").alternative(format!("cover {lacks}, too")));
        }
    }
    Ok(())
}

/// What the credit of such a contract may be spent on.
pub fn scope(terms: &ContractTerms) -> CreditScope {
    CreditScope::Covered(FamilySet::new(terms.covers.iter().copied()))
}

/// What an invoice has of a commitment that was billed in advance.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drawdown {
    /// Taken off this invoice: what its lines drew. Below zero where use was taken off them.
    #[serde(with = "decimal")]
    pub drawn: Nanos,
    /// Left of the period's own commitment at its end. Zero before the last month.
    #[serde(with = "decimal")]
    pub unused: Nanos,
    /// Drawn in the period of what rolled over. Zero before the last month.
    #[serde(with = "decimal")]
    pub roll_over_used: Nanos,
    /// Of what is left at the period's end, what cannot be used any more. Zero before the last month.
    #[serde(with = "decimal")]
    pub lapsed: Nanos,
}

/// How far a period's commitment is used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Drawn {
    pub committed: Nanos,
    /// What can be used up of earlier periods.
    pub roll_over: Nanos,
    pub counted_before: Nanos,
    pub counted: Nanos,
    /// It is the period's last month.
    pub is_last: bool,
}

impl Drawn {
    /// All that can be drawn in the period.
    pub fn available(&self) -> Result<Nanos> {
        self.committed.checked_add(self.roll_over)
    }

    fn total_counted(&self) -> Result<Nanos> {
        self.counted_before.checked_add(self.counted)
    }

    /// By all invoices of the period so far.
    pub fn total(&self) -> Result<Nanos> {
        Ok(self.total_counted()?.max(Nanos::ZERO).min(self.available()?))
    }

    /// What is left of it.
    pub fn left(&self) -> Result<Nanos> {
        self.available()?.checked_sub(self.total()?)
    }

    /// Without what lapses.
    fn settled(&self) -> Result<Drawdown> {
        let before = self.counted_before.max(Nanos::ZERO).min(self.available()?);
        let total = self.total()?;
        let roll_over_used = total.checked_sub(self.committed)?.max(Nanos::ZERO);
        let unused = self.committed.checked_sub(total)?.max(Nanos::ZERO);
        let at_end = |amount| if self.is_last { amount } else { Nanos::ZERO };
        let drawn = total.checked_sub(before)?;
        Ok(Drawdown { drawn, unused: at_end(unused), roll_over_used: at_end(roll_over_used), lapsed: Nanos::ZERO })
    }
}

impl Drawdown {
    /// Of a month's invoice. `settled` are the periods before; what cannot be used in the next period lapses, and all of
    /// it where there is none.
    pub fn new(of: Drawn, (number, settled): (u32, &[SettledPeriod]), roll_over_periods: u32, is_over: bool) -> Result<Self> {
        let drawdown = of.settled()?;
        if !of.is_last {
            return Ok(drawdown);
        }
        let mut settled = settled.to_vec();
        settled.push(SettledPeriod {
            number,
            shortfall: drawdown.unused,
            roll_over_used: drawdown.roll_over_used,
            missing: Default::default(),
            quantity_used: Default::default(),
            roll_over_periods,
        });
        let carried = if is_over { Nanos::ZERO } else { roll_over(&settled, number.saturating_add(1))? };
        Ok(Self { lapsed: of.left()?.checked_sub(carried)?, ..drawdown })
    }

    /// Computes it again. How old what rolls over is, is not known here: what lapses is at most what is left, and all of
    /// it where nothing rolls over.
    pub(crate) fn verify(&self, of: Drawn, roll_over_periods: u32) -> Result<()> {
        let least = if of.is_last && roll_over_periods == 0 { of.left()? } else { Nanos::ZERO };
        let most = if of.is_last { of.left()? } else { Nanos::ZERO };
        let computed = Self { lapsed: self.lapsed, ..of.settled()? };
        if computed == *self && (least..=most).contains(&self.lapsed) {
            return Ok(());
        }
        let message = format!("what was billed in advance is drawn down otherwise than by {}", self.drawn);
        Err(Error::new(ErrorCode::LedgerMismatch, message))
    }
}

#[cfg(test)]
#[path = "drawdown_tests.rs"]
mod tests;
