//! Price floors: which prices are below what supply is declared to cost, and by how much.
//!
//! Prices and the price of energy both follow the week, each on its own clocks; so a price is compared with the cost at
//! the same instant, through one week. What counts of a price is its cheapest tier, and of one that follows an index the
//! floor. Nothing is refused for it.

use sublet_core::error::{Error, Result};
use sublet_core::money::{divide_ceil, divide_half_even};
use sublet_core::{DurationMs, Nanos, Timestamp};

use crate::price_book::{BandPrice, PriceListVersion};
use crate::price_model::PriceModel;
use crate::sku::{PricingUnit, SkuName};
use crate::supply_cost::SupplyCost;
use crate::time_of_use::BandName;

/// How long prices are compared: everything repeats after a week.
const WEEK: DurationMs = DurationMs::from_hours(7 * 24);
/// Most stretches of a week, one for each minute.
const STRETCHES_MAX: usize = 7 * 24 * 60;

/// A price that does not cover its cost.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BelowCost {
    pub sku: SkuName,
    /// Of the price; `None` outside of all bands.
    pub band: Option<BandName>,
    pub unit: PricingUnit,
    /// Of the cheapest tier, for a unit, rounded down to a nano-unit.
    pub price: Nanos,
    /// For a unit, where it is furthest above the price.
    pub cost: Nanos,
    pub short: Nanos,
}

/// Every price of a list that is below its declared cost at some time of the week, where it is furthest below.
pub fn below_cost(version: &PriceListVersion, costs: &SupplyCost, at: Timestamp) -> Result<Vec<BelowCost>> {
    let mut found = Vec::new();
    if version.currency() != costs.content().currency {
        return Ok(found);
    }
    for entry in version.entries() {
        let priced_at = |instant| match &entry.market {
            // What an index may bring is a price too.
            Some(market) => Ok((Some(market.floor.band()), entry.price_at_level(market.floor))),
            None => Ok::<_, Error>((entry.band_at(instant)?.cloned(), entry.price_at(instant)?)),
        };
        let mut worst: Option<BelowCost> = None;
        let mut instant = at;
        for _ in 0..STRETCHES_MAX {
            let Some((cost, energy_until)) = cost_at(costs, &entry.sku, instant)? else { break };
            let (band, price) = priced_at(instant)?;
            let price = least_price(price)?;
            let short = cost.checked_sub(price)?;
            if short > worst.as_ref().map_or(Nanos::ZERO, |worst| worst.short) {
                worst = Some(BelowCost { sku: entry.sku.clone(), band, unit: entry.unit, price, cost, short });
            }
            let price_until = match &entry.time_of_use {
                Some(bands) => Some(bands.stretch_at(instant)?.until),
                None => None,
            };
            let Some(next) = [energy_until, price_until].into_iter().flatten().min() else { break };
            if next <= instant || next >= at.plus(WEEK) {
                break;
            }
            instant = next;
        }
        found.extend(worst);
    }
    Ok(found)
}

/// What a unit of something costs, and until when that is sure at least.
fn cost_at(costs: &SupplyCost, sku: &SkuName, at: Timestamp) -> Result<Option<(Nanos, Option<Timestamp>)>> {
    match sku {
        SkuName::Device { device, .. } => costs.busy_hour(device, at),
        SkuName::Tokens { kind, model, .. } => Ok(costs.model(model).map(|cost| (cost.of(*kind), None))),
        // The cost of supply of files is not declared.
        SkuName::FileStorage | SkuName::FileEgress => Ok(None),
        // What a request costs is the cost of its tokens, and what a start costs that of its time: a flat price is never below it, and never makes up for theirs.
        SkuName::Requests { .. } | SkuName::Starts { .. } | SkuName::ProjectMonth | SkuName::Fee { .. } => Ok(None),
    }
}

/// What a unit costs where it costs least.
fn least_price(price: BandPrice<'_>) -> Result<Nanos> {
    let priced = price.model();
    let mut model = priced.as_ref();
    while let PriceModel::Minimum { of, .. } = model {
        model = of;
    }
    if let PriceModel::Package { size, price: package } = model {
        let whole = i128::from(package.get()) * i128::from(price.unit.base_units());
        let exact = whole.div_euclid(i128::from(size.get().max(1)));
        return Ok(Nanos::new(i64::try_from(exact).unwrap_or(i64::MAX)));
    }
    Ok(model.prices().into_iter().min().unwrap_or(Nanos::ZERO))
}

/// What a unit of a quantity comes to, rounded half to even; `None` for no quantity.
pub fn per_unit(amount: Nanos, quantity: i64, unit: PricingUnit) -> Option<Nanos> {
    if quantity <= 0 {
        return None;
    }
    let exact = divide_half_even(i128::from(amount.get()) * i128::from(unit.base_units()), i128::from(quantity));
    i64::try_from(exact).ok().map(Nanos::new)
}

/// A part of an amount in thousandths, rounded down; `None` of nothing.
pub fn per_mille(part: Nanos, of: Nanos) -> Option<i64> {
    if of <= Nanos::ZERO {
        return None;
    }
    // Rounded down is the negation of the negated rounded up.
    let up = divide_ceil(i128::from(part.get()) * -1_000, i128::from(of.get()));
    i64::try_from(-up).ok()
}

#[cfg(test)]
#[path = "floor_tests.rs"]
mod tests;
