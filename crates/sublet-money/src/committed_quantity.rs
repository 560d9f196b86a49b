//! Commitments in quantities: in each period so many base units of one thing, at the contract's own price for it.
//!
//! A unit that is missing at the end of a period costs what a unit that is used costs, so the price is one that knows no
//! tiers and no bands: [`CommittedQuantity`] is a thing together with it. What is used beyond the commitment costs the
//! same, or an overage price; that it is overage is known only when the period is over, so use is charged at the
//! contract's price and the difference is settled with the period. Units roll over as units: one that is used up later
//! gives back what it was charged at then.
//!
//! Device time at every site and isolation is of the thing, unless its name says one.
//!
//! Every amount here is an exact product, rounded half to even once.
//!
//! Deliberately absent: commitments to several things at once, and to whatever a family has.

use serde::{Deserialize, Serialize};
use sublet_core::error::{Error, ErrorCode, Result};
use sublet_core::money::divide_half_even;
use sublet_core::{Nanos, Rate};

use crate::canonical::decimal;
use crate::contract::ContractTerms;
use crate::invoice::InvoiceLine;
use crate::price_model::{BOUND_MAX, PriceModel};
use crate::sku::{Quantity, QuantityChange, SkuName};

/// A step of the ramp: what each period is committed to, from one on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuantityStep {
    /// Counted from 1.
    pub from_period: u32,
    /// In base units: tokens, or device-milliseconds.
    pub quantity: Quantity,
}

/// What use beyond the commitment costs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OveragePrice {
    /// For one pricing unit, instead of the contract's price.
    #[serde(with = "decimal")]
    pub price: Nanos,
}

/// What is agreed of a quantity.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuantityTerms {
    /// The contract's price, if left out.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub overage: Option<OveragePrice>,
    pub sku: SkuName,
    pub steps: Vec<QuantityStep>,
}

/// A committed thing with what its units cost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CommittedQuantity<'a> {
    pub terms: &'a QuantityTerms,
    pub price: Rate,
}

fn invalid(param: &str, message: impl Into<String>) -> Error {
    Error::new(ErrorCode::InvalidRequest, message).param(param.to_owned())
}

impl QuantityTerms {
    /// What a period is committed to; after the term it is as in the last one.
    pub fn committed(&self, number: u32) -> Quantity {
        let reached = self.steps.iter().rev().find(|step| step.from_period <= number);
        reached.map_or(Quantity::ZERO, |step| step.quantity)
    }

    /// Refuses what contradicts the rest of the terms.
    pub(crate) fn validate(&self, terms: &ContractTerms) -> Result<()> {
        if !terms.commitments.is_empty() {
            return Err(invalid("commitments", "a contract is committed to amounts or to quantities, not to both")
                .alternative("leave commitments out, or quantities"));
        }
        if !terms.covers.is_empty() {
            return Err(invalid("covers", format!("what counts towards a quantity of {} is its use; leave covers out", self.sku)));
        }
        self.check_steps(terms.periods())?;
        let committed = self.priced(terms)?;
        if let Some(overage) = self.overage {
            if overage.price.is_negative() {
                return Err(invalid("quantities.overage", "a price is not negative"));
            }
            if overage.price == committed.price.nanos() {
                return Err(invalid("quantities.overage", "this is the contract's price already; leave overage out"));
            }
        }
        self.steps.iter().try_for_each(|step| committed.value(step.quantity).map(|_| ())).map_err(|e| e.param("quantities.steps"))
    }

    fn check_steps(&self, periods: u32) -> Result<()> {
        if self.steps.first().is_none_or(|first| first.from_period != 1) {
            return Err(invalid("quantities.steps", "the first quantity is from period 1 on"));
        }
        if self.steps.windows(2).any(|pair| pair[0].from_period >= pair[1].from_period) {
            return Err(invalid("quantities.steps", "quantities are in the order of their periods, one for each"));
        }
        for step in &self.steps {
            if step.from_period > periods {
                let message = format!("the term has {periods} periods, and a quantity is from period {} on", step.from_period);
                return Err(invalid("quantities.steps", message));
            }
            if step.quantity.get() > BOUND_MAX {
                return Err(invalid("quantities.steps", format!("a period is committed to at most {BOUND_MAX} base units")));
            }
        }
        Ok(())
    }

    /// With the contract's price, which is one of the fixed ones.
    pub(crate) fn priced<'a>(&'a self, terms: &ContractTerms) -> Result<CommittedQuantity<'a>> {
        let fixed = || terms.pricing.iter().flat_map(|pricing| &pricing.fixed);
        if let Some(other) = fixed().find(|entry| entry.sku != self.sku && self.sku.covers(&entry.sku)) {
            let message = format!("{} counts towards the quantity of {}, and missing units have one price", other.sku, self.sku);
            return Err(invalid("pricing.fixed", message).alternative(format!("leave the fixed price of {} out", other.sku)));
        }
        let fixed = fixed().find(|entry| entry.sku == self.sku);
        match fixed.map(|entry| (&entry.model, entry.depends_on_time(), entry.unit)) {
            Some((PriceModel::PerUnit { price }, false, unit)) => {
                Ok(CommittedQuantity { terms: self, price: Rate::new(*price, unit.base_units())? })
            }
            Some(_) => Err(invalid("pricing.fixed", format!("missing units of {} have one price: no tiers, no bands", self.sku))),
            None => {
                Err(invalid("pricing.fixed", format!("a quantity is committed at a price of its own: fix one of {}", self.sku)))
            }
        }
    }
}

impl CommittedQuantity<'_> {
    /// What so much costs at the contract's price.
    pub fn value(&self, quantity: Quantity) -> Result<Nanos> {
        self.price.cost_half_even(quantity.get())
    }

    /// What so much beyond the commitment costs more than it was charged at; below zero where it costs less.
    pub fn overage(&self, quantity: Quantity) -> Result<Nanos> {
        let Some(overage) = self.terms.overage else { return Ok(Nanos::ZERO) };
        let more = i128::from(overage.price.get()) - i128::from(self.price.nanos().get());
        let amount = divide_half_even(more * i128::from(quantity.get()), i128::from(self.price.per()));
        i64::try_from(amount).map(Nanos::new).map_err(|_| Error::new(ErrorCode::AmountOverflow, "a cost of overage is too large"))
    }
}

/// How far a quantity is used, as one invoice says it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuantityUse {
    pub sku: SkuName,
    pub committed: Quantity,
    /// By earlier invoices of the period.
    pub counted_before: Quantity,
    /// By this invoice.
    pub counted: Quantity,
    /// What was charged as missing in earlier periods and can be used up in this one.
    pub roll_over: Quantity,
    /// Charged. Zero before the last month, as all that follow.
    pub missing: Quantity,
    /// Of the roll-over; given back.
    pub roll_over_used: Quantity,
    /// Beyond the commitment and the roll-over.
    pub overage: Quantity,
    /// What the overage costs more than the contract's price; below zero where it costs less.
    #[serde(with = "decimal")]
    pub overage_amount: Nanos,
}

/// What invoices and periods before say of a quantity.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct QuantityBefore {
    pub counted: Quantity,
    pub roll_over: Quantity,
}

/// What of an invoice's lines is the thing.
pub fn counted_quantity(terms: &QuantityTerms, lines: &[InvoiceLine]) -> Result<Quantity> {
    // What leaves one line is on another of the same invoice, so only the sum is a quantity.
    let mut lines = lines.iter().filter(|line| terms.sku.covers(&line.sku));
    let sum = lines.try_fold(QuantityChange::ZERO, |sum, line| sum.checked_add(line.quantity))?;
    Quantity::ZERO.changed_by(sum)
}

impl QuantityUse {
    /// Of the invoice that has these lines; the one of a period's last month settles it.
    pub(crate) fn new(
        thing: CommittedQuantity<'_>,
        committed: Quantity,
        lines: &[InvoiceLine],
        (before, is_last): (QuantityBefore, bool),
    ) -> Result<Self> {
        let mut made = Self {
            sku: thing.terms.sku.clone(),
            committed,
            counted_before: before.counted,
            counted: counted_quantity(thing.terms, lines)?,
            roll_over: before.roll_over,
            missing: Quantity::ZERO,
            roll_over_used: Quantity::ZERO,
            overage: Quantity::ZERO,
            overage_amount: Nanos::ZERO,
        };
        if !is_last {
            return Ok(made);
        }
        let used = made.total_counted()?;
        if used < committed {
            made.missing = committed.checked_sub(used)?;
            return Ok(made);
        }
        let beyond = used.checked_sub(committed)?;
        made.roll_over_used = beyond.min(before.roll_over);
        made.overage = beyond.checked_sub(made.roll_over_used)?;
        made.overage_amount = thing.overage(made.overage)?;
        Ok(made)
    }

    /// By all invoices of the period so far.
    pub fn total_counted(&self) -> Result<Quantity> {
        self.counted_before.checked_add(self.counted)
    }
}

#[cfg(test)]
#[path = "committed_quantity_tests.rs"]
mod tests;
