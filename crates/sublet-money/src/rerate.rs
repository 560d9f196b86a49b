//! Rating anew: what use of a past time costs by another version of a price list.
//!
//! What a line is charged depends on its quantity and on nothing else ([`crate::rating`]). So use is rated anew by taking
//! it off the line that it is on and putting it on the line of the other list: one charge on each, from where that line
//! stands. Afterwards both are what they would be had the use been there from the beginning, tiers and rounding
//! included, whatever else was used, in whatever order, and however often it was rated anew.
//!
//! By which list a use is rated follows from the list that it was admitted under and from what was rated anew since, in
//! order. Use that comes to be known later finds the same line that way.
//!
//! Deliberately absent: whom it is allowed for, and what pays for it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sublet_core::admission::PriceVersion;
use sublet_core::error::{Error, ErrorCode, Result};
use sublet_core::id::RerateId;
use sublet_core::{Nanos, Timestamp};

use crate::canonical::decimal;
use crate::period::Interval;
use crate::posting::CreditSplit;
use crate::price_book::PriceListVersion;
use crate::price_index::PriceIndexes;
use crate::rating::LineKey;
use crate::sku::{Quantity, QuantityChange, SkuName, TokenKind};

/// Use of a time that is rated by one list instead of another.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rerate {
    pub id: RerateId,
    /// The list that was wrong. Use on others stays where it is.
    pub of: PriceVersion,
    /// The list that is right. What it does not sell stays where it is, too.
    pub to: Arc<PriceListVersion>,
    /// The indexes that its prices follow, as they were then.
    pub indexes: PriceIndexes,
    /// When the use was admitted or began.
    pub interval: Interval,
}

impl Rerate {
    /// Checks what does not depend on any use.
    pub fn validate(of: &PriceListVersion, to: &PriceListVersion, interval: Interval) -> Result<()> {
        if interval.is_empty() {
            return Err(Error::new(ErrorCode::InvalidRequest, "what is rated anew ends after it begins").param("until"));
        }
        if of.currency() != to.currency() {
            let message = format!("one list is in {}, the other in {}", of.currency(), to.currency());
            return Err(Error::new(ErrorCode::CurrencyMismatch, message).param("to"));
        }
        Ok(())
    }

    /// The line of its list that a use comes to; `None` if it stays where it is.
    fn line_of(&self, key: &LineKey, used: &UsedAt) -> Result<Option<LineKey>> {
        if key.price_version != self.of || !self.interval.contains(used.at) {
            return Ok(None);
        }
        let moved =
            |sku: &SkuName, band| LineKey { price_version: self.to.version().clone(), sku: sku.clone(), band, ..key.clone() };
        if let SkuName::Requests { tier, model } = &key.sku {
            // A request goes where its tokens go, whether it has a price of its own there or not.
            let tokens = TokenKind::ALL.map(|kind| SkuName::Tokens { tier: *tier, kind, model: model.clone() });
            return Ok(tokens.iter().any(|sku| self.to.find(sku).is_some()).then(|| moved(&key.sku, None)));
        }
        if let SkuName::Starts { device } = &key.sku {
            // So does a start with its device time.
            return Ok(self.to.sells_time_on(device).then(|| moved(&key.sku, None)));
        }
        let Some(entry) = self.to.resolve(used.placed.as_ref().unwrap_or(&key.sku)) else { return Ok(None) };
        let band = entry.over_time_in(&self.indexes)?.band_at(used.at)?;
        if let Some(max_price) = used.max_price {
            // A price that has none for an hour is above every maximum.
            let price = entry.price_in(band.as_ref())?.model().dearest_from(Quantity::ZERO);
            if price.map_or(true, |price| price > max_price) {
                return Ok(None);
            }
        }
        Ok(Some(moved(&entry.sku, band)))
    }
}

/// What chooses a use's line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UsedAt {
    pub at: Timestamp,
    /// The most that an hour of it may cost, if anybody said so.
    pub max_price: Option<Nanos>,
    /// The full name of device time ([`crate::placement`]).
    pub placed: Option<SkuName>,
}

impl UsedAt {
    /// Of what has no place.
    pub const fn instant(at: Timestamp) -> Self {
        Self { at, max_price: None, placed: None }
    }
}

/// The line that a use is on after all that was rated anew, the earliest first.
pub fn line_after<'r>(mut key: LineKey, used: &UsedAt, rerates: impl IntoIterator<Item = &'r Rerate>) -> Result<LineKey> {
    for rerate in rerates {
        if let Some(moved) = rerate.line_of(&key, used)? {
            key = moved;
        }
    }
    Ok(key)
}

/// Something metered, and the line that it was on first.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MeteredUse {
    pub key: LineKey,
    pub quantity: Quantity,
    pub used: UsedAt,
}

/// What lines gain and lose.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Moves(BTreeMap<LineKey, Move>);

/// What one line gains or loses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Move {
    pub quantity: QuantityChange,
    /// When the first use of it was: an instant of the line's month and band.
    pub first_at: Timestamp,
}

impl Moves {
    /// Takes in one use: `applied` is what was rated anew before, `new` what is now.
    pub fn add(&mut self, used: MeteredUse, applied: &[Rerate], new: &Rerate) -> Result<()> {
        let MeteredUse { key, quantity, used } = used;
        let now = line_after(key, &used, applied)?;
        let then = line_after(now.clone(), &used, [new])?;
        let at = used.at;
        if now == then || quantity.is_zero() {
            return Ok(());
        }
        self.note(now, QuantityChange::from(quantity).checked_neg()?, at)?;
        self.note(then, quantity.into(), at)
    }

    fn note(&mut self, key: LineKey, quantity: QuantityChange, at: Timestamp) -> Result<()> {
        let line = self.0.entry(key).or_insert(Move { quantity: QuantityChange::ZERO, first_at: at });
        line.quantity = line.quantity.checked_add(quantity)?;
        line.first_at = line.first_at.min(at);
        Ok(())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// By line.
    pub fn into_lines(self) -> impl Iterator<Item = (LineKey, Move)> {
        self.0.into_iter()
    }
}

/// What an invoice says of use that was rated anew: why lines are of lists that did not hold then.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RerateNote {
    pub id: RerateId,
    pub of: PriceVersion,
    pub to: PriceVersion,
    pub interval: Interval,
    pub reason: String,
    /// What it adds to this invoice; nothing where only use that came late since is on its lines.
    #[serde(with = "decimal")]
    pub amount: Nanos,
}

/// Which credit comes back for use that costs less. What was spent last comes back first: gifts are spent before paid
/// credit, so paid credit comes back as far as it paid for use, and gifts for the rest.
pub fn give_back(amount: Nanos, paid_for_use: Nanos) -> Result<CreditSplit> {
    let paid = amount.min(paid_for_use.max(Nanos::ZERO));
    Ok(CreditSplit { promotional: amount.checked_sub(paid)?, paid, ..CreditSplit::default() })
}

#[cfg(test)]
#[path = "rerate_tests.rs"]
mod tests;
