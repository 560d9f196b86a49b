//! Automatic top-ups: when an account's saved card is charged, and with how much.
//!
//! Invariants: nothing is charged while a charge is under way, or beyond what the rule allows in a day and a month; a day
//! of a rule that was missed, however many times, is charged for once.
//!
//! Deliberately absent: who charges, and what becomes of it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sublet_core::error::{Error, ErrorCode, Result};
use sublet_core::payment::TopUpCause;
use sublet_core::{Currency, DurationMs, Nanos, Timestamp};

use crate::period::{BillingCalendar, PeriodLength};
use crate::time_of_use::Weekday;

/// After so many charges in a row that came to nothing a rule is paused.
pub const DECLINES_MAX: i64 = 3;
/// How long it is waited after each of them but the last.
const RETRY_AFTER: [DurationMs; 2] = [DurationMs::from_hours(1), DurationMs::from_hours(24)];
/// Days that are looked through for the next one of a rule: two months and a skipped day.
const DAYS_MAX: usize = 64;

/// The days on which a rule tops up: `mon` in each week, `15` in each month. A month that is too short for it has it on
/// its last day.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum TopUpDay {
    Weekly(Weekday),
    Monthly(u8),
}

impl fmt::Display for TopUpDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Weekly(day) => f.write_str(day.as_str()),
            Self::Monthly(day) => write!(f, "{day}"),
        }
    }
}
impl FromStr for TopUpDay {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let weekday = Weekday::ALL.into_iter().find(|day| day.as_str() == text).map(Self::Weekly);
        // Written in one way only.
        let of_month = text.parse().ok().filter(|day: &u8| (1..=31).contains(day) && day.to_string() == text).map(Self::Monthly);
        weekday.or(of_month).ok_or_else(|| {
            let shown: String = text.chars().take(20).collect();
            Error::new(ErrorCode::InvalidRequest, format!("'{shown}' is no day of a week or month"))
                .alternative("mon to sun for each week, 1 to 31 for each month")
        })
    }
}
impl TryFrom<String> for TopUpDay {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}
impl From<TopUpDay> for String {
    fn from(day: TopUpDay) -> Self {
        day.to_string()
    }
}

impl TopUpDay {
    /// The first instant of the first such day that begins after an instant.
    pub fn next_after(self, calendar: &BillingCalendar, after: Timestamp) -> Result<Timestamp> {
        let mut day = calendar.interval_at(PeriodLength::Day, after)?;
        for _ in 0..DAYS_MAX {
            let before = calendar.day_at(day.starts_at)?;
            day = calendar.interval_at(PeriodLength::Day, day.ends_at)?;
            let date = calendar.day_at(day.starts_at)?;
            let is_it = match self {
                Self::Weekly(weekday) => date.weekday() == weekday,
                // A zone can leave a day out; the next one is it then.
                Self::Monthly(wanted) => {
                    let wanted = wanted.min(date.days_in_month());
                    date.day_of_month() >= wanted && !(before.is_same_month(date) && before.day_of_month() >= wanted)
                }
            };
            if is_it {
                return Ok(day.starts_at);
            }
        }
        Err(Error::internal(format!("no day {self} comes after {after}")))
    }
}

/// Tops up when there is too little.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BelowThreshold {
    pub threshold: Nanos,
    pub amount: Nanos,
}

/// Tops up on a day.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OnDay {
    pub day: TopUpDay,
    pub amount: Nanos,
}

/// What an account wants charged, at most.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TopUpRule {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub below: Option<BelowThreshold>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub on: Option<OnDay>,
    /// In a calendar day of the account's zone.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub most_per_day: Option<Nanos>,
    /// In a calendar month of the account's zone.
    pub most_per_month: Nanos,
}

impl TopUpRule {
    pub fn validate(&self, currency: Currency) -> Result<()> {
        let wrong = |param: &str, message: String| Err(Error::new(ErrorCode::InvalidRequest, message).param(param.to_owned()));
        if self.below.is_none() && self.on.is_none() {
            return wrong("below", "a rule says below what, or on which day, or both".to_owned());
        }
        let unit = currency.minor_unit();
        let amounts = [
            ("below.amount", self.below.map(|below| below.amount)),
            ("on.amount", self.on.map(|on| on.amount)),
            ("most_per_day", self.most_per_day),
            ("most_per_month", Some(self.most_per_month)),
        ];
        for (param, amount) in amounts {
            if amount.is_some_and(|amount| amount <= Nanos::ZERO || amount.get() % unit.get() != 0) {
                return wrong(param, format!("it is a multiple of {unit} {currency} above zero"));
            }
        }
        if self.below.is_some_and(|below| below.threshold.is_negative()) {
            return wrong("below.threshold", "credit below zero is a debt, and no threshold".to_owned());
        }
        let largest = [self.below.map(|below| below.amount), self.on.map(|on| on.amount)].into_iter().flatten().max();
        let least = self.most_per_day.map_or(self.most_per_month, |most| most.min(self.most_per_month));
        if largest.is_some_and(|largest| largest > least) {
            return wrong("most_per_month", "a single charge would be more than the rule allows in a day or month".to_owned());
        }
        Ok(())
    }
}

/// Where an account stands when its rule is looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TopUpStanding {
    /// What can be spent, given or paid. Below zero if there are debts.
    pub available: Nanos,
    /// Something that the rule, or somebody with the card, asked for has no end yet.
    pub is_under_way: bool,
    /// What the rule charged, or tries to, in this calendar day and month.
    pub this_day: Nanos,
    pub this_month: Nanos,
    /// Nothing is tried before.
    pub retry_at: Option<Timestamp>,
    /// The next day of the rule.
    pub day_at: Option<Timestamp>,
}

/// What is to be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TopUpPlan {
    Wait,
    Charge(TopUpCause, Nanos),
    /// It would be charged, and that is more than the rule allows in a day or month.
    Capped(TopUpCause, PeriodLength),
}

/// Decides what a rule asks for. A day of the rule comes before the threshold, which is looked at again after it.
pub fn plan_top_up(rule: &TopUpRule, standing: &TopUpStanding, now: Timestamp) -> Result<TopUpPlan> {
    if standing.is_under_way || standing.retry_at.is_some_and(|at| at > now) {
        return Ok(TopUpPlan::Wait);
    }
    let by_day = rule.on.filter(|_| standing.day_at.is_some_and(|at| at <= now)).map(|on| (TopUpCause::Period, on.amount));
    let is_low = |below: &BelowThreshold| standing.available < below.threshold;
    let by_threshold = rule.below.filter(is_low).map(|below| (TopUpCause::Threshold, below.amount));
    let Some((cause, amount)) = by_day.or(by_threshold) else { return Ok(TopUpPlan::Wait) };
    if standing.this_month.checked_add(amount)? > rule.most_per_month {
        return Ok(TopUpPlan::Capped(cause, PeriodLength::Month));
    }
    let this_day = standing.this_day.checked_add(amount)?;
    if rule.most_per_day.is_some_and(|most| this_day > most) {
        return Ok(TopUpPlan::Capped(cause, PeriodLength::Day));
    }
    Ok(TopUpPlan::Charge(cause, amount))
}

/// When it is tried again after so many charges in a row that came to nothing; never by itself if `None`.
pub fn retry_after(declines: i64, now: Timestamp) -> Option<Timestamp> {
    let wait = usize::try_from(declines.checked_sub(1)?).ok().and_then(|number| RETRY_AFTER.get(number))?;
    (declines < DECLINES_MAX).then(|| now.plus(*wait))
}

#[cfg(test)]
#[path = "top_up_rule_tests.rs"]
mod tests;
