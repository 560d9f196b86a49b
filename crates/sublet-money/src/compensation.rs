//! What a lease is owed that was taken back, and what its holder gets who leaves early: pure functions of what was sold, what
//! was kept of it, and the rule that held when it was sold.
//!
//! A lease that got the notice it was sold is owed nothing, but for `n0`, which has none: of it, what was lost is not
//! charged. The parts are exact fractions that are added up and rounded once, half to even, to the ledger's unit.
//!
//! A credit for leaving early is a share of the price of the notice that was given, of what was sold, and not used. It pays
//! for time before the deadline, compensation for time behind it or for time that was charged: no time is paid for twice.
//!
//! Deliberately absent: substitutes (a lease that is moved is not interrupted), and what was lost inside the workload:
//! its last checkpoint is not known here.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sublet_core::error::{Error, ErrorCode, Result};
use sublet_core::money::divide_half_even;
use sublet_core::notice::NoticeClass;
use sublet_core::{DurationMs, Nanos, Timestamp};

use crate::sku::Quantity;

/// Parts per million in a whole.
const WHOLE_PPM: u32 = 1_000_000;
/// The most that a part can be multiplied by: ten times.
const SHARE_PPM_MAX: u32 = 10 * WHOLE_PPM;
const HOUR: DurationMs = DurationMs::from_hours(1);
/// The longest time that is free at the end: a week.
const FREE_MAX: DurationMs = DurationMs::from_hours(7 * 24);

/// What a lease of one class is owed that did not get what it was sold.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CompensationRule {
    /// What was charged for the last so long is given back.
    pub free_ms: DurationMs,
    /// So much of the price of what was left of the hour that had begun, counted from the lease's start.
    pub hour_ppm: u32,
    /// So much of the price of the notice that was missing; of `firm`, of what was left of its window.
    pub missing_ppm: u32,
    /// So much of the price of the notice that was given and not used, for who leaves early; never more than all of it, and
    /// nothing of classes without a notice. Rules from before there was such a credit give none.
    #[serde(default)]
    pub early_ppm: u32,
}

/// A rule for each class.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "BTreeMap<NoticeClass, CompensationRule>", into = "BTreeMap<NoticeClass, CompensationRule>")]
pub struct CompensationRules(BTreeMap<NoticeClass, CompensationRule>);

impl Default for CompensationRules {
    /// The ladder of classes: the last hour free (`n0`, `n2m`), twice what was left of the hour (`n15m`), the price of the
    /// missing notice and a quarter (`n1h`, `n24h`), a quarter of the rest (`firm`). Who leaves early gets a quarter.
    fn default() -> Self {
        let rule = |class| {
            let (free_ms, hour_ppm, missing_ppm) = match class {
                NoticeClass::N0 | NoticeClass::N2m => (HOUR, 0, 0),
                NoticeClass::N15m => (DurationMs::ZERO, 2 * WHOLE_PPM, 0),
                NoticeClass::N1h | NoticeClass::N24h => (DurationMs::ZERO, 0, WHOLE_PPM + WHOLE_PPM / 4),
                NoticeClass::Firm => (HOUR, 0, WHOLE_PPM / 4),
            };
            CompensationRule { free_ms, hour_ppm, missing_ppm, early_ppm: if has_notice(class) { WHOLE_PPM / 4 } else { 0 } }
        };
        Self(NoticeClass::ALL.into_iter().map(|class| (class, rule(class))).collect())
    }
}

impl CompensationRules {
    /// Takes rules for all classes, each within its bounds.
    pub fn new(rules: BTreeMap<NoticeClass, CompensationRule>) -> Result<Self> {
        for class in NoticeClass::ALL {
            let invalid = |field: &str, message: String| {
                Err(Error::new(ErrorCode::InvalidRequest, message).param(format!("rules.{class}{field}")))
            };
            let Some(rule) = rules.get(&class) else { return invalid("", format!("there is no rule for {class}")) };
            if rule.free_ms < DurationMs::ZERO || rule.free_ms > FREE_MAX {
                return invalid(".free_ms", format!("a free time is 0 to {} milliseconds", FREE_MAX.millis()));
            }
            for (field, ppm) in [(".hour_ppm", rule.hour_ppm), (".missing_ppm", rule.missing_ppm)] {
                if ppm > SHARE_PPM_MAX {
                    return invalid(field, format!("at most {SHARE_PPM_MAX} parts per million"));
                }
            }
            if rule.early_ppm > WHOLE_PPM {
                return invalid(".early_ppm", format!("at most {WHOLE_PPM} parts per million: what the owner gains"));
            }
            if rule.early_ppm > 0 && !has_notice(class) {
                return invalid(".early_ppm", format!("{class} has no notice of which something can be left: set 0"));
            }
        }
        Ok(Self(rules))
    }

    pub fn of(&self, class: NoticeClass) -> CompensationRule {
        *self.0.get(&class).expect("there are rules for all classes")
    }

    pub fn iter(&self) -> impl Iterator<Item = (NoticeClass, CompensationRule)> {
        self.0.iter().map(|(class, rule)| (*class, *rule))
    }
}

impl TryFrom<BTreeMap<NoticeClass, CompensationRule>> for CompensationRules {
    type Error = Error;
    fn try_from(rules: BTreeMap<NoticeClass, CompensationRule>) -> Result<Self> {
        Self::new(rules)
    }
}
impl From<CompensationRules> for BTreeMap<NoticeClass, CompensationRule> {
    fn from(rules: CompensationRules) -> Self {
        rules.0
    }
}

/// What was sold, and how it ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Interruption {
    pub class: NoticeClass,
    pub units: u32,
    /// Of a unit and hour, as it was when the holder was told.
    pub price: Nanos,
    pub started_at: Timestamp,
    /// The end of the window that was sold, if it had one.
    pub window_ends_at: Option<Timestamp>,
    /// When its holder was told first that it ends.
    pub told_at: Timestamp,
    /// The last instant at which it could be used.
    pub ended_at: Timestamp,
}

impl Interruption {
    /// The notice that was given.
    pub fn given(&self) -> DurationMs {
        self.ended_at.since(self.told_at).max(DurationMs::ZERO)
    }

    /// How much of what was sold is missing: of the notice, or of a `firm` window. Never what lies beyond the window.
    pub fn missing(&self) -> DurationMs {
        let left = self.window_ends_at.map(|end| end.since(self.ended_at).max(DurationMs::ZERO));
        let missing = match self.class.notice() {
            Some(sold) => DurationMs::from_millis(sold.millis().saturating_sub(self.given().millis()).max(0)),
            None => return left.unwrap_or(DurationMs::ZERO),
        };
        left.map_or(missing, |left| left.min(missing))
    }

    /// Whether anything is owed at all.
    pub fn is_broken(&self) -> bool {
        match self.class {
            NoticeClass::N0 => self.window_ends_at.is_none_or(|end| end > self.ended_at),
            NoticeClass::N2m | NoticeClass::N15m | NoticeClass::N1h | NoticeClass::N24h | NoticeClass::Firm => {
                self.missing() > DurationMs::ZERO
            }
        }
    }

    /// From when on what was charged is given back.
    pub fn free_from(&self, rule: CompensationRule) -> Timestamp {
        self.ended_at.minus(rule.free_ms).max(self.started_at)
    }

    fn rest_of_hour(&self) -> DurationMs {
        let used = self.ended_at.since(self.started_at).millis().max(0);
        let begun = used % HOUR.millis();
        DurationMs::from_millis(if begun == 0 { 0 } else { HOUR.millis() - begun })
    }

    fn priced(&self, time: DurationMs, ppm: u32) -> Result<i128> {
        priced((self.units, self.price), time, ppm)
    }
}

/// The price of all units for a time, times parts per million: a numerator over [`PRICE_DIVISOR`].
fn priced((units, price): (u32, Nanos), time: DurationMs, ppm: u32) -> Result<i128> {
    let factors = [i128::from(units), i128::from(time.millis()), i128::from(ppm)];
    factors.iter().try_fold(i128::from(price.get()), |product, factor| product.checked_mul(*factor)).ok_or_else(overflow)
}

/// Whether leases of a class are sold with a notice that can be used or not.
fn has_notice(class: NoticeClass) -> bool {
    class.notice().is_some_and(|sold| sold > DurationMs::ZERO)
}

/// Milliseconds of an hour, and parts per million.
const PRICE_DIVISOR: i128 = 3_600_000 * 1_000_000;

fn overflow() -> Error {
    Error::new(ErrorCode::AmountOverflow, "a compensation left the range of amounts")
}

/// What is owed, in its parts. Each is rounded by itself for the reader; the sum is rounded once.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Compensation {
    pub amount: Nanos,
    pub free: Nanos,
    pub hour: Nanos,
    pub missing: Nanos,
}

/// One charge of a lease: what was metered, and what it cost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Metered {
    pub quantity: Quantity,
    pub amount: Nanos,
}

/// What was charged for the last `time` of device time, of charges whose newest is first: the oldest of them that reaches
/// beyond it counts by its part, rounded half to even. Never below zero.
pub fn charged_for_last(time: Quantity, newest_first: &[Metered]) -> Result<Nanos> {
    let (mut left, mut sum) = (time.get(), Nanos::ZERO);
    for charge in newest_first {
        if left <= 0 {
            break;
        }
        let quantity = charge.quantity.get();
        let part = if quantity <= left {
            charge.amount
        } else {
            let exact = divide_half_even(i128::from(charge.amount.get()) * i128::from(left), i128::from(quantity));
            Nanos::new(i64::try_from(exact).map_err(|_| overflow())?)
        };
        sum = sum.checked_add(part)?;
        left -= quantity;
    }
    Ok(sum.max(Nanos::ZERO))
}

/// What an interruption is worth by a rule; `free` is what was charged from [`Interruption::free_from`] on. `None` if what
/// was sold was kept.
pub fn compensation(interruption: &Interruption, rule: CompensationRule, free: Nanos) -> Result<Option<Compensation>> {
    if !interruption.is_broken() {
        return Ok(None);
    }
    let hour = interruption.priced(interruption.rest_of_hour(), rule.hour_ppm)?;
    let missing = interruption.priced(interruption.missing(), rule.missing_ppm)?;
    let rounded =
        |numerator: i128| i64::try_from(divide_half_even(numerator, PRICE_DIVISOR)).map(Nanos::new).map_err(|_| overflow());
    let amount = free.checked_add(rounded(hour.checked_add(missing).ok_or_else(overflow)?)?)?;
    Ok(Some(Compensation { amount, free, hour: rounded(hour)?, missing: rounded(missing)? }))
}

/// How a holder left whose capacity the owner takes back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EarlyLeave {
    pub class: NoticeClass,
    pub units: u32,
    /// Of a unit and hour, as it was when the holder was told.
    pub price: Nanos,
    /// The end of the window that was sold, if it had one.
    pub window_ends_at: Option<Timestamp>,
    /// When its holder was told that the owner takes it back.
    pub told_at: Timestamp,
    /// When nothing of it ran any more.
    pub left_at: Timestamp,
    /// By when it had to leave.
    pub deadline: Timestamp,
}

impl EarlyLeave {
    /// How much of the notice was given and not used: never more than was sold, and nothing beyond the window.
    pub fn unused(&self) -> DurationMs {
        let until = self.window_ends_at.map_or(self.deadline, |window| window.min(self.deadline));
        let left = until.since(self.left_at.max(self.told_at)).max(DurationMs::ZERO);
        self.class.notice().map_or(DurationMs::ZERO, |sold| sold.min(left))
    }

    /// A share of the price of what was not used, rounded down: never more than the owner gains.
    pub fn credit(&self, rule: CompensationRule) -> Result<Nanos> {
        let exact = priced((self.units, self.price), self.unused(), rule.early_ppm.min(WHOLE_PPM))?;
        i64::try_from(exact.div_euclid(PRICE_DIVISOR)).map(Nanos::new).map_err(|_| overflow())
    }
}

/// A share of what was charged, for a level of service that was missed.
pub fn service_credit(charged: Nanos, share_ppm: u32) -> Result<Nanos> {
    if share_ppm == 0 || share_ppm > WHOLE_PPM {
        let message = format!("a share is 1 to {WHOLE_PPM} parts per million of what was charged");
        return Err(Error::new(ErrorCode::InvalidRequest, message).param("share_ppm"));
    }
    let exact = divide_half_even(i128::from(charged.get()) * i128::from(share_ppm), i128::from(WHOLE_PPM));
    i64::try_from(exact).map(Nanos::new).map_err(|_| overflow())
}

#[cfg(test)]
#[path = "compensation_tests.rs"]
mod tests;
