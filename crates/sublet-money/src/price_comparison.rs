//! Whether one price is no dearer than another, whatever is used and when.
//!
//! The answer is yes only where it is proven. What is not compared, packages with prices for units for one, counts as
//! dearer: a price that is protected is then kept.
//!
//! Deliberately absent: what a customer would probably use.

use std::borrow::Cow;

use sublet_core::Nanos;
use sublet_core::error::Result;

use crate::price_book::{BandPrice, PriceEntry};
use crate::price_model::{PriceModel, Tier};
use crate::sku::{PricingUnit, Quantity};
use crate::time_of_use::TimeOfUse;

/// The lesser of a new price and a protected one of the same sku.
///
/// Where both have the same bands (or none), each band is decided on its own: the new model where it is no dearer at any
/// quantity, and the protected one otherwise. Where they have other bands, what is used falls into other lines, so the
/// entry is decided as a whole: the new one if its dearest price is at most the protected one's least. Prices that follow
/// one index between the same bounds are at the same level, and are compared so at a level of one.
pub fn lesser(new: &PriceEntry, protected: &PriceEntry) -> PriceEntry {
    if new.market.is_some() || protected.market.is_some() {
        let is_less = if new.market == protected.market {
            is_below_all(&[Cow::Borrowed(&new.model)], &[Cow::Borrowed(&protected.model)])
        } else {
            is_within(new, protected)
        };
        return if is_less { new.clone() } else { protected.clone() };
    }
    let pick = |new: &PriceModel, kept: &PriceModel| if is_no_dearer(new, kept) { new.clone() } else { kept.clone() };
    let bands = match (&new.time_of_use, &protected.time_of_use) {
        (None, None) => None,
        (Some(one), Some(other)) if is_same_times(one, other) => {
            let mut bands = one.clone();
            for (band, kept) in bands.bands.iter_mut().zip(&other.bands) {
                band.model = pick(&band.model, &kept.model);
            }
            Some(bands)
        }
        (Some(_), _) | (None, Some(_)) if is_within(new, protected) => return new.clone(),
        (Some(_), _) | (None, Some(_)) => return protected.clone(),
    };
    PriceEntry { model: pick(&new.model, &protected.model), time_of_use: bands, ..new.clone() }
}

/// Bands of published versions are in one order.
fn is_same_times(one: &TimeOfUse, other: &TimeOfUse) -> bool {
    one.zone == other.zone
        && one.bands.len() == other.bands.len()
        && one.bands.iter().zip(&other.bands).all(|(one, other)| one.name == other.name && one.windows == other.windows)
}

/// Whether the dearest unit of one entry is at most the cheapest of the other.
fn is_within(new: &PriceEntry, protected: &PriceEntry) -> bool {
    is_below_all(&models_of(new), &models_of(protected))
}

fn models_of(entry: &PriceEntry) -> Vec<Cow<'_, PriceModel>> {
    entry.prices().map(BandPrice::model).collect()
}

/// Whether the dearest unit of some prices is at most the cheapest of others.
fn is_below_all(new: &[Cow<'_, PriceModel>], protected: &[Cow<'_, PriceModel>]) -> bool {
    if new.iter().all(|model| model.is_free()) {
        return true;
    }
    let most: Option<Vec<Nanos>> = new.iter().map(|model| model.dearest_from(Quantity::ZERO).ok()).collect();
    let least: Option<Vec<Nanos>> = protected.iter().map(|model| least_of(model)).collect();
    let (most, least) = (most.and_then(|prices| prices.into_iter().max()), least.and_then(|prices| prices.into_iter().min()));
    most.zip(least).is_some_and(|(most, least)| most <= least)
}

/// What each unit costs at least; `None` where units have no price of their own.
fn least_of(model: &PriceModel) -> Option<Nanos> {
    match model {
        PriceModel::PerUnit { price } => Some(*price),
        PriceModel::Graduated { tiers } | PriceModel::Volume { tiers } => tiers.iter().map(|tier| tier.price).min(),
        PriceModel::Minimum { of, .. } => least_of(of),
        PriceModel::Package { .. } => None,
    }
}

/// Whether a line of any quantity is known to cost at most what it would cost by the other model.
pub fn is_no_dearer(new: &PriceModel, other: &PriceModel) -> bool {
    use PriceModel::{Graduated, Minimum, Package, PerUnit, Volume};
    match (new, other) {
        (Minimum { least, of }, Minimum { least: other_least, of: other }) => least <= other_least && is_no_dearer(of, other),
        (_, Minimum { of: other, .. }) => is_no_dearer(new, other),
        (Minimum { least, of }, _) => least.is_zero() && is_no_dearer(of, other),
        // Of larger packages no more are started.
        (Package { size, price }, Package { size: other_size, price: other_price }) => {
            price.is_zero() || (price <= other_price && size >= other_size)
        }
        (Package { .. }, _) | (_, Package { .. }) => new.is_free(),
        (PerUnit { .. } | Graduated { .. } | Volume { .. }, PerUnit { .. } | Graduated { .. } | Volume { .. }) => {
            is_below(new, other).unwrap_or(false)
        }
    }
}

/// Both costs are straight lines between two bounds of tiers, so their ends are enough; beyond the last bound the steeper
/// line is the dearer one in the end.
fn is_below(new: &PriceModel, other: &PriceModel) -> Result<bool> {
    let (tiers, others) = (tiers_of(new), tiers_of(other));
    let bounds = tiers.iter().chain(&others).filter_map(|tier| tier.up_to);
    let mut ends = vec![Quantity::new(1)?];
    for bound in bounds {
        ends.extend([bound, bound.checked_add(Quantity::new(1)?)?]);
    }
    let unit = PricingUnit::MillionTokens;
    for end in ends {
        if new.exact_cost(unit, end)?.numerator > other.exact_cost(unit, end)?.numerator {
            return Ok(false);
        }
    }
    let last = |tiers: &[Tier]| tiers.last().map(|tier| tier.price);
    Ok(last(&tiers) <= last(&others))
}

fn tiers_of(model: &PriceModel) -> Vec<Tier> {
    match model {
        PriceModel::PerUnit { price } => vec![Tier { up_to: None, price: *price }],
        PriceModel::Graduated { tiers } | PriceModel::Volume { tiers } => tiers.clone(),
        PriceModel::Package { .. } | PriceModel::Minimum { .. } => Vec::new(),
    }
}

#[cfg(test)]
#[path = "price_comparison_tests.rs"]
mod tests;
