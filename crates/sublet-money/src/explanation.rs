//! The numbers behind a charge, as plain data for `why` and for whoever recomputes a bill.

use std::fmt;

use serde::{Deserialize, Serialize};
use sublet_core::admission::PriceVersion;
use sublet_core::error::Result;
use sublet_core::{Currency, Nanos};

use crate::canonical::decimal;
use crate::price_book::BandPrice;
use crate::price_model::ExactCost;
use crate::rating::{RatedLine, verify_line};
use crate::sku::{Quantity, QuantityChange, SkuName};
use crate::time_of_use::BandName;

/// One side of a charge: the line's whole quantity, its exact cost, and the cost rounded.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CumulativeCost {
    pub quantity: Quantity,
    /// The exact cost in nano-units as a fraction in lowest terms, such as `45` or `301/2`.
    pub exact_nanos: String,
    /// Rounded half to even.
    #[serde(with = "decimal")]
    pub rounded: Nanos,
}

/// Why a charge is what it is: `amount = after.rounded − before.rounded`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ChargeExplanation {
    pub sku: SkuName,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub band: Option<BandName>,
    pub price_version: PriceVersion,
    /// As operators write it.
    pub price: String,
    pub currency: Currency,
    pub quantity: QuantityChange,
    #[serde(with = "decimal")]
    pub amount: Nanos,
    pub before: CumulativeCost,
    pub after: CumulativeCost,
}

impl ChargeExplanation {
    pub(crate) fn new(line: &RatedLine, price: BandPrice<'_>, currency: Currency) -> Result<Self> {
        verify_line(line.before, price)?;
        verify_line(line.after, price)?;
        let side = |quantity, rounded| -> Result<CumulativeCost> {
            Ok(CumulativeCost { quantity, exact_nanos: fraction(price.exact_cost(quantity)?), rounded })
        };
        Ok(Self {
            sku: line.key.sku.clone(),
            band: line.key.band.clone(),
            price_version: line.key.price_version.clone(),
            price: price.text(currency),
            currency,
            quantity: line.quantity,
            amount: line.amount,
            before: side(line.before.quantity, line.before.charged)?,
            after: side(line.after.quantity, line.after.charged)?,
        })
    }
}

impl fmt::Display for ChargeExplanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.sku)?;
        if let Some(band) = &self.band {
            write!(f, " in {band}")?;
        }
        writeln!(f, ": {} more at {}", self.quantity, self.price)?;
        writeln!(f, "  price version {}", self.price_version.0)?;
        for (name, side) in [("before", &self.before), ("after", &self.after)] {
            writeln!(
                f,
                "  {name:<6} {} in all, exactly {} nano-{}, rounded half to even {}",
                side.quantity, side.exact_nanos, self.currency, side.rounded
            )?;
        }
        write!(f, "  charge {} − {} = {} {}", self.after.rounded, self.before.rounded, self.amount, self.currency)
    }
}

fn fraction(cost: ExactCost) -> String {
    let per = i128::from(cost.per);
    let divisor = greatest_common_divisor(cost.numerator, per);
    let (numerator, denominator) = (cost.numerator / divisor, per / divisor);
    if denominator == 1 { numerator.to_string() } else { format!("{numerator}/{denominator}") }
}

/// Euclid's algorithm; `b` is positive, so the result is too.
fn greatest_common_divisor(a: i128, b: i128) -> i128 {
    let (mut a, mut b) = (a.abs(), b);
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fractions_are_in_lowest_terms() {
        for (numerator, per, text) in [(0, 7, "0"), (45, 1, "45"), (301_000_000, 2_000_000, "301/2"), (-6, 4, "-3/2")] {
            assert_eq!(fraction(ExactCost { numerator, per }), text);
        }
    }
}
