//! How a cumulative quantity becomes an exact cost: the price models.
//!
//! A model is a function from the cumulative quantity of a line to an exact fraction of
//! nano-units; [`crate::rating`] charges differences of its rounded values. Tiers have only upper
//! bounds: the next one begins where the one before ends, so no quantity lies between two tiers.
//!
//! Deliberately absent: time of use ([`crate::time_of_use`] chooses among models), and market prices
//! ([`crate::price_index`] changes the amounts of one), which need facts that a quantity does not carry. A flat fee is a
//! price for each unit of something that is counted once.

use serde::{Deserialize, Serialize};
use sublet_core::admission::ROUNDING_SLACK;
use sublet_core::error::{Error, ErrorCode, Result};
use sublet_core::money::{divide_ceil, divide_half_even};
use sublet_core::{Currency, Nanos};

use crate::canonical::decimal;
use crate::sku::{PricingUnit, Quantity, UnitPrice};

/// Most tiers of one price.
pub const TIERS_MAX: usize = 64;

/// Largest bound of a tier or size of a package, in base units: what every reader of JSON keeps exactly (2⁵³).
pub const BOUND_MAX: i64 = 1 << 53;

/// One tier: everything above the tier before, up to and including `up_to`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tier {
    /// In base units (tokens, device-milliseconds). Absent on the last tier, and only there.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub up_to: Option<Quantity>,
    /// For one pricing unit.
    #[serde(with = "decimal")]
    pub price: Nanos,
}

/// How a cumulative quantity is priced. Prices are for one pricing unit of the entry.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum PriceModel {
    /// The same price for every unit.
    PerUnit {
        #[serde(with = "decimal")]
        price: Nanos,
    },
    /// Each unit at the price of the tier it falls in.
    Graduated { tiers: Vec<Tier> },
    /// All units at the price of the tier that the whole quantity reaches. Prices never rise from
    /// tier to tier: otherwise one event could make earlier ones dearer, beyond any hold.
    Volume { tiers: Vec<Tier> },
    /// A price for every started package.
    Package {
        /// Base units in a package.
        size: Quantity,
        /// For one package.
        #[serde(with = "decimal")]
        price: Nanos,
    },
    /// What another model says, but once anything was used so much at least.
    Minimum {
        /// For one line: a project's use in one period.
        #[serde(with = "decimal")]
        least: Nanos,
        /// Not a minimum itself.
        of: Box<Self>,
    },
}

/// An exact cost: `numerator / per` nano-units.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ExactCost {
    pub numerator: i128,
    /// Positive.
    pub per: i64,
}

impl ExactCost {
    /// Rounded half to even: what a line is charged.
    pub fn half_even(self) -> Result<Nanos> {
        to_nanos(divide_half_even(self.numerator, i128::from(self.per)))
    }
    /// Rounded up: what a hold takes.
    pub fn ceil(self) -> Result<Nanos> {
        to_nanos(divide_ceil(self.numerator, i128::from(self.per)))
    }
}

fn to_nanos(value: i128) -> Result<Nanos> {
    i64::try_from(value).map(Nanos::new).map_err(|_| overflow())
}

fn overflow() -> Error {
    Error::new(ErrorCode::AmountOverflow, "a cost left the range of ±9223372036 currency units")
}

/// The product of two 64-bit integers always fits.
fn product(price: Nanos, quantity: i64) -> i128 {
    i128::from(price.get()) * i128::from(quantity)
}

impl PriceModel {
    /// Refuses what cannot be charged: negative prices, tiers out of order, a last tier with an end.
    pub fn validate(&self) -> Result<()> {
        match self {
            Self::PerUnit { price } => check_price(*price),
            Self::Graduated { tiers } => check_tiers(tiers),
            Self::Volume { tiers } => {
                check_tiers(tiers)?;
                match tiers.windows(2).find(|pair| pair[1].price > pair[0].price) {
                    None => Ok(()),
                    Some(pair) => Err(Error::new(
                        ErrorCode::InvalidPrice,
                        format!(
                            "a volume price rises from {} to {}; earlier use would become dearer",
                            pair[0].price, pair[1].price
                        ),
                    )
                    .alternative("use graduated tiers, where each unit keeps the price of its own tier")),
                }
            }
            Self::Package { size, price } => {
                if size.is_zero() || size.get() > BOUND_MAX {
                    return Err(Error::new(
                        ErrorCode::InvalidPrice,
                        format!("a package holds at least one unit and at most {BOUND_MAX}"),
                    ));
                }
                check_price(*price)
            }
            Self::Minimum { of, .. } if matches!(**of, Self::Minimum { .. }) => {
                Err(Error::new(ErrorCode::InvalidPrice, "a minimum of a minimum says two things; give one"))
            }
            Self::Minimum { least, of } => {
                check_price(*least)?;
                of.validate()
            }
        }
    }

    /// The exact cost of a line's whole quantity. Half-open tiers leave no quantity without a price.
    pub fn exact_cost(&self, unit: PricingUnit, quantity: Quantity) -> Result<ExactCost> {
        let per = unit.base_units();
        match self {
            Self::PerUnit { price } => Ok(ExactCost { numerator: product(*price, quantity.get()), per }),
            Self::Graduated { tiers } => Ok(ExactCost { numerator: graduated(tiers, quantity)?, per }),
            Self::Volume { tiers } => {
                let tier = tiers.iter().find(|tier| tier.up_to.is_none_or(|bound| quantity <= bound)).ok_or_else(endless)?;
                Ok(ExactCost { numerator: product(tier.price, quantity.get()), per })
            }
            Self::Package { size, price } => Ok(ExactCost { numerator: packages(*size, *price, quantity), per: 1 }),
            Self::Minimum { of, .. } if quantity.is_zero() => of.exact_cost(unit, quantity),
            Self::Minimum { least, of } => {
                let cost = of.exact_cost(unit, quantity)?;
                Ok(ExactCost { numerator: cost.numerator.max(product(*least, cost.per)), ..cost })
            }
        }
    }

    /// The most that `quantity` more can be charged on a line that holds at least `settled`, in
    /// whatever order other events of the line settle: the dearest tier still reachable, rounded up.
    pub fn hold(&self, unit: PricingUnit, settled: Quantity, quantity: Quantity) -> Result<Nanos> {
        match self {
            // ⌈(a+b)/s⌉ − ⌈a/s⌉ ≤ ⌈b/s⌉, so the packages that a quantity starts on its own are enough.
            Self::Package { size, price } => to_nanos(packages(*size, *price, quantity)),
            // Once something was used, the larger of two costs grows no faster than the cost without a minimum.
            Self::Minimum { least, of } if settled.is_zero() && !quantity.is_zero() => {
                Ok(of.hold(unit, settled, quantity)?.max(*least))
            }
            Self::Minimum { of, .. } => of.hold(unit, settled, quantity),
            Self::PerUnit { .. } | Self::Graduated { .. } | Self::Volume { .. } => {
                let dearest = self.dearest_from(settled)?;
                if dearest.is_zero() || quantity.is_zero() {
                    return Ok(Nanos::ZERO);
                }
                ExactCost { numerator: product(dearest, quantity.get()), per: unit.base_units() }
                    .ceil()?
                    .checked_add(ROUNDING_SLACK)
            }
        }
    }

    /// The most that `amount` is sure to pay for: the largest quantity whose [`Self::hold`] is within it.
    pub fn affordable(&self, unit: PricingUnit, settled: Quantity, amount: Nanos) -> Quantity {
        let pays_for = |quantity: i64| {
            // A hold beyond the range of amounts is beyond this one.
            let hold = Quantity::new(quantity).and_then(|quantity| self.hold(unit, settled, quantity));
            hold.is_ok_and(|hold| hold <= amount)
        };
        if !pays_for(1) {
            return Quantity::ZERO;
        }
        // Holds grow with the quantity: halve what is between one that is paid for and one that is not.
        let (mut paid, mut unpaid) = (1, i64::MAX);
        while unpaid - paid > 1 {
            let middle = paid + (unpaid - paid) / 2;
            if pays_for(middle) { paid = middle } else { unpaid = middle }
        }
        Quantity::new(paid).unwrap_or_default()
    }

    /// The dearest price per pricing unit that a line which holds at least `settled` can still meet.
    /// Packages and minimums have none: their cost is not proportional to a quantity.
    pub fn dearest_from(&self, settled: Quantity) -> Result<Nanos> {
        match self {
            Self::PerUnit { price } => Ok(*price),
            Self::Graduated { tiers } | Self::Volume { tiers } => tiers
                .iter()
                .filter(|tier| tier.up_to.is_none_or(|bound| settled < bound))
                .map(|tier| tier.price)
                .max()
                .ok_or_else(endless),
            Self::Package { .. } | Self::Minimum { .. } => Err(Error::new(
                ErrorCode::UnknownPrice,
                "a price in packages or with a minimum has no price for one unit; take a hold for a quantity",
            )),
        }
    }

    /// The prices in it, for display: one, or one for each tier.
    pub fn prices(&self) -> Vec<Nanos> {
        match self {
            Self::PerUnit { price } | Self::Package { price, .. } => vec![*price],
            Self::Graduated { tiers } | Self::Volume { tiers } => tiers.iter().map(|tier| tier.price).collect(),
            Self::Minimum { of, .. } => of.prices(),
        }
    }

    /// The same with every amount changed. A change that keeps their order keeps a model valid.
    pub fn with_amounts<E>(&self, change: &impl Fn(Nanos) -> Result<Nanos, E>) -> Result<Self, E> {
        let changed = |tiers: &[Tier]| -> Result<Vec<Tier>, E> {
            tiers.iter().map(|tier| Ok(Tier { price: change(tier.price)?, ..*tier })).collect()
        };
        Ok(match self {
            Self::PerUnit { price } => Self::PerUnit { price: change(*price)? },
            Self::Graduated { tiers } => Self::Graduated { tiers: changed(tiers)? },
            Self::Volume { tiers } => Self::Volume { tiers: changed(tiers)? },
            Self::Package { size, price } => Self::Package { size: *size, price: change(*price)? },
            Self::Minimum { least, of } => Self::Minimum { least: change(*least)?, of: Box::new(of.with_amounts(change)?) },
        })
    }

    /// Whether nothing is ever charged.
    pub fn is_free(&self) -> bool {
        let least = if let Self::Minimum { least, .. } = self { *least } else { Nanos::ZERO };
        least.is_zero() && self.prices().iter().all(|price| price.is_zero())
    }

    /// Whether the cost of a quantity on its own bounds its cost on a line: then a hold can grow with it bit by bit.
    pub const fn is_proportional(&self) -> bool {
        match self {
            Self::PerUnit { .. } | Self::Graduated { .. } | Self::Volume { .. } => true,
            Self::Package { .. } | Self::Minimum { .. } => false,
        }
    }

    /// Whether more use can make what was used before cheaper.
    pub fn is_volume(&self) -> bool {
        match self {
            Self::Volume { .. } => true,
            Self::Minimum { of, .. } => of.is_volume(),
            Self::PerUnit { .. } | Self::Graduated { .. } | Self::Package { .. } => false,
        }
    }

    /// What a person reads: `0.15 EUR per 1M tokens`, or the span of the tiers.
    pub fn text(&self, unit: PricingUnit, currency: Currency) -> String {
        let price_text = |amount| UnitPrice { amount, currency, unit }.to_string();
        match self {
            Self::PerUnit { price } => price_text(*price),
            Self::Graduated { tiers } | Self::Volume { tiers } => {
                let kind = if matches!(self, Self::Volume { .. }) { "volume" } else { "graduated" };
                let lowest = tiers.iter().map(|tier| tier.price).min().unwrap_or(Nanos::ZERO);
                let highest = tiers.iter().map(|tier| tier.price).max().unwrap_or(Nanos::ZERO);
                format!("{kind}, {lowest} to {}", price_text(highest))
            }
            Self::Package { size, price } => format!("{price} {currency} per started {size} {}", unit.base_unit_name()),
            Self::Minimum { least, of } => format!("{}, at least {least} {currency}", of.text(unit, currency)),
        }
    }
}

fn packages(size: Quantity, price: Nanos, quantity: Quantity) -> i128 {
    divide_ceil(i128::from(quantity.get()), i128::from(size.get().max(1))) * i128::from(price.get())
}

fn graduated(tiers: &[Tier], quantity: Quantity) -> Result<i128> {
    let mut numerator: i128 = 0;
    let mut start = 0;
    for tier in tiers {
        let end = tier.up_to.map_or(quantity.get(), |bound| bound.get().min(quantity.get()));
        if end > start {
            numerator = numerator.checked_add(product(tier.price, end - start)).ok_or_else(overflow)?;
            start = end;
        }
    }
    if start == quantity.get() { Ok(numerator) } else { Err(endless()) }
}

fn check_price(price: Nanos) -> Result<()> {
    if price.is_negative() {
        return Err(Error::new(ErrorCode::InvalidPrice, format!("a price cannot be negative, and {price} is")));
    }
    Ok(())
}

fn check_tiers(tiers: &[Tier]) -> Result<()> {
    let refuse = |reason: String| Err(Error::new(ErrorCode::InvalidPrice, reason));
    let Some((last, bounded)) = tiers.split_last() else {
        return refuse("a tiered price has at least one tier".to_owned());
    };
    if tiers.len() > TIERS_MAX {
        return refuse(format!("a tiered price has at most {TIERS_MAX} tiers, not {}", tiers.len()));
    }
    if last.up_to.is_some() {
        return refuse("the last tier has no upper bound; a quantity above it would have no price".to_owned());
    }
    let mut reached = Quantity::ZERO;
    for tier in bounded {
        match tier.up_to {
            Some(bound) if bound.get() > BOUND_MAX => return refuse(format!("a tier ends at {BOUND_MAX} at most, not at {bound}")),
            Some(bound) if bound > reached => reached = bound,
            Some(bound) => return refuse(format!("a tier ends at {bound}, which is not above {reached} where it begins")),
            None => return refuse("only the last tier is without an upper bound".to_owned()),
        }
    }
    tiers.iter().try_for_each(|tier| check_price(tier.price))
}

fn endless() -> Error {
    Error::internal("a validated tiered price has no tier for a quantity")
}
