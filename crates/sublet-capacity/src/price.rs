//! What an hour of a unit costs at least, and what it is worth while others want it.
//!
//! The floor is what running costs the owner beyond standing still: the additional power, with what cooling and
//! distribution take on top (PUE, ISO/IEC 30134-2), at the price of energy, plus wear; for `firm`, which another use would
//! have to wait for, plus depreciation.
//!
//! The price of an hour follows how much of what may safely be sold in it is committed:
//! `λ(u) = floor × (ceiling ÷ floor)^u` with `u = committed ÷ safe`. The first unit costs the floor, the last the ceiling,
//! and each step the same factor. Selling to whoever pays at least that much is the threshold rule of online packing, whose
//! earnings are within a factor of `O(ln(ceiling ÷ floor))` of knowing all buyers beforehand (Y. Zhou, D. Chakrabarty and
//! R. Lukose, *Budget Constrained Bidding in Keyword Auctions and Online Knapsack Problems*, WINE 2008; for posted prices of
//! cloud resources over time Z. Zhang, Z. Li and C. Wu, *Optimal Posted Prices for Online Cloud Resource Allocation*,
//! SIGMETRICS 2017). A window costs the sum over its hours.
//!
//! Invariants: integers only; a price is between floor and ceiling; more committed is never cheaper.
//!
//! Deliberately absent: when prices are published and how they are smoothed, taxes, and what a customer's contract says.

use sublet_core::error::{Error, ErrorCode, Result};
use sublet_core::money::divide_ceil;
use sublet_core::{Nanos, Timestamp};

use crate::calendar::Window;

const WATTS_PER_KILOWATT: i128 = 1_000;
const THOUSANDTHS: i128 = 1_000;
const HOUR_MS: i128 = 3_600_000;
/// Bits behind the point.
const FRACTION_BITS: u32 = 47;
const ONE: u128 = 1 << FRACTION_BITS;
/// Bits of the exponent: a share of 2⁻⁴⁰ of what is safe is told apart.
const EXPONENT_BITS: usize = 40;
/// A ceiling is less than so many floors, so that a product of two factors fits.
const RATIO_MAX: u128 = 1 << 16;

/// What an hour of a unit costs its owner beyond standing still.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RunningCost {
    pub load_watts: u32,
    pub idle_watts: u32,
    /// Power usage effectiveness in thousandths: 1,250 is a quarter on top.
    pub pue_thousandths: u32,
    /// Of a kilowatt-hour.
    pub energy_price: Nanos,
    /// Of an hour under load.
    pub wear: Nanos,
    /// Of an hour; only for what is promised for its whole window.
    pub depreciation: Option<Nanos>,
}

impl RunningCost {
    /// The least price of a unit's hour that does not lose money, rounded up to a nano-unit.
    ///
    /// # Errors
    /// [`ErrorCode::AmountOverflow`] if it is beyond what an amount can be.
    pub fn floor(&self) -> Result<Nanos> {
        let watts = i128::from(self.load_watts.saturating_sub(self.idle_watts));
        let energy = watts * i128::from(self.pue_thousandths) * i128::from(self.energy_price.get().max(0));
        let energy = divide_ceil(energy, WATTS_PER_KILOWATT * THOUSANDTHS);
        let energy = i64::try_from(energy).map(Nanos::new).map_err(|_| too_large())?;
        Nanos::checked_sum([energy, self.wear, self.depreciation.unwrap_or(Nanos::ZERO)])
    }
}

/// Between what an hour costs and what it is worth at most.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PriceBand {
    floor: Nanos,
    ceiling: Nanos,
    /// The second, fourth, … root of ceiling ÷ floor, each with [`FRACTION_BITS`] behind the point and rounded down.
    roots: [u128; EXPONENT_BITS],
}

/// How much of what may safely be sold is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Commitment {
    pub committed: u32,
    pub safe: u32,
}

/// From an instant on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CommitmentFrom {
    pub from: Timestamp,
    pub commitment: Commitment,
}

impl PriceBand {
    /// # Errors
    /// [`ErrorCode::InvalidAmount`] unless the floor is positive and the ceiling between it and 65,535 times it.
    pub fn new(floor: Nanos, ceiling: Nanos) -> Result<Self> {
        let wrong = || {
            Error::new(ErrorCode::InvalidAmount, format!("there are no prices between {floor} and {ceiling}"))
                .alternative("give a floor above 0, and a ceiling from there up to 65535 times as much")
        };
        let widened = |amount: Nanos| u128::try_from(amount.get()).map_err(|_| wrong());
        let (low, high) = (widened(floor)?, widened(ceiling)?);
        let ratio = (high << FRACTION_BITS).checked_div(low).ok_or_else(wrong)?;
        if !(ONE..RATIO_MAX * ONE).contains(&ratio) {
            return Err(wrong());
        }
        let (mut roots, mut root) = ([ONE; EXPONENT_BITS], ratio);
        for place in &mut roots {
            root = (root << FRACTION_BITS).isqrt();
            *place = root;
        }
        Ok(Self { floor, ceiling, roots })
    }

    /// What an hour of one more unit costs. Where nothing may safely be sold it is the ceiling.
    pub fn price(&self, commitment: Commitment) -> Nanos {
        let Commitment { committed, safe } = commitment;
        if committed >= safe {
            return self.ceiling;
        }
        let exponent = (u128::from(committed) << EXPONENT_BITS) / u128::from(safe);
        let factor = self.power(exponent);
        let floor = u128::try_from(self.floor.get()).unwrap_or(0);
        // Half up; both fit, since the factor is below the ratio, and the ceiling is an amount.
        let price = (floor * factor + ONE / 2) >> FRACTION_BITS;
        i64::try_from(price).map_or(self.ceiling, |price| Nanos::new(price).clamp(self.floor, self.ceiling))
    }

    /// Ceiling ÷ floor to the power of a part of 2^[`EXPONENT_BITS`]: the product of the roots whose bits it has.
    fn power(&self, exponent: u128) -> u128 {
        let has = |place: usize| exponent >> (EXPONENT_BITS - 1 - place) & 1 == 1;
        let chosen = self.roots.iter().enumerate().filter(|(place, _)| has(*place));
        chosen.fold(ONE, |factor, (_, root)| (factor * root) >> FRACTION_BITS)
    }

    /// What so many more units cost for a window, one after the other, rounded up to a nano-unit. `steps` are ascending; before
    /// the first of them nothing may be sold, which is the ceiling.
    ///
    /// # Errors
    /// [`ErrorCode::AmountOverflow`] if it is beyond what an amount can be.
    pub fn price_of(&self, window: Window, units: u32, steps: &[CommitmentFrom]) -> Result<Nanos> {
        let first = steps.partition_point(|step| step.from <= window.starts_at);
        let before = first.checked_sub(1).map_or(Commitment { committed: 0, safe: 0 }, |place| steps[place].commitment);
        let inside = steps[first..].iter().take_while(|step| step.from < window.ends_at);
        let mut total = 0_i128;
        let (mut from, mut commitment) = (window.starts_at, before);
        for (until, next) in inside.map(|step| (step.from, step.commitment)).chain([(window.ends_at, before)]) {
            let each = (0..units).map(|more| {
                let committed = commitment.committed.saturating_add(more);
                i128::from(self.price(Commitment { committed, ..commitment }).get())
            });
            total += each.sum::<i128>() * i128::from(until.since(from).millis().max(0));
            (from, commitment) = (until, next);
        }
        i64::try_from(divide_ceil(total, HOUR_MS)).map(Nanos::new).map_err(|_| too_large())
    }
}

fn too_large() -> Error {
    Error::new(ErrorCode::AmountOverflow, "a price is larger than any amount can be").alternative("give smaller prices")
}
