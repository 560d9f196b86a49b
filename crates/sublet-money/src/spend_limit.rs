//! What a spend limit does when it is reached, and at which parts of it somebody is told.
//!
//! Work is *new* until something is held for it, and *admitted* from then on. A hard limit refuses both beyond its
//! amount; a soft one refuses nothing; one that lets work finish refuses new work at its amount, and admitted work at
//! its amount and a stated overrun. So what may be spent at most is known of every limit but a soft one.
//!
//! Invariant: terms that [`check`] lets pass can be kept. Whatever could never happen is refused when it is set.
//!
//! Deliberately absent: the state of a window, and who is told how.

use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sublet_core::Nanos;
use sublet_core::error::{Error, ErrorCode, Result};

/// What happens when a limit is reached.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum AtLimit {
    /// Nothing is spent beyond it: the next token is not paid for.
    #[default]
    Hard,
    /// Nothing is stopped.
    Soft,
    /// New work is refused; what was admitted may go on beyond the limit by this much, all of it together.
    FinishThenStop { overrun_max: Nanos },
}

/// Whether money was held for it before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Work {
    New,
    Admitted,
}

impl AtLimit {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hard => "hard",
            Self::Soft => "soft",
            Self::FinishThenStop { .. } => "finish_then_stop",
        }
    }
    /// Reads its two stored parts.
    pub fn from_parts(name: &str, overrun_max: Nanos) -> Result<Self> {
        match name {
            "hard" => Ok(Self::Hard),
            "soft" => Ok(Self::Soft),
            "finish_then_stop" => Ok(Self::FinishThenStop { overrun_max }),
            _ => Err(Error::internal(format!("a limit is '{name}' when it is reached"))),
        }
    }
    /// What admitted work may go beyond the limit by; of a soft limit nothing, since that is none.
    pub const fn overrun_max(self) -> Nanos {
        match self {
            Self::Hard | Self::Soft => Nanos::ZERO,
            Self::FinishThenStop { overrun_max } => overrun_max,
        }
    }
    /// What work may take beyond what is taken already; never negative.
    pub fn room(self, amount: Nanos, taken: Nanos, work: Work) -> Nanos {
        let overrun = match (self, work) {
            (Self::Soft, _) => return Nanos::MAX,
            (Self::Hard | Self::FinishThenStop { .. }, Work::New) => Nanos::ZERO,
            (Self::Hard | Self::FinishThenStop { .. }, Work::Admitted) => self.overrun_max(),
        };
        Nanos::new(amount.get().saturating_add(overrun.get()).saturating_sub(taken.get()).max(0))
    }
}

/// Of what a threshold is a part.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlertBasis {
    /// What was settled in the window.
    Actual,
    /// What is expected at the end of the window.
    Forecast,
}

impl AlertBasis {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Actual => "actual",
            Self::Forecast => "forecast",
        }
    }
}

impl FromStr for AlertBasis {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        [Self::Actual, Self::Forecast]
            .into_iter()
            .find(|basis| basis.as_str() == text)
            .ok_or_else(|| Error::new(ErrorCode::InvalidRequest, "an alert is on actual or forecast spend").param("alerts"))
    }
}

/// A threshold: so many percent of the limit.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct AlertRule {
    pub basis: AlertBasis,
    /// 1 to [`PERCENT_MAX`].
    pub percent: u16,
}

/// The highest threshold.
pub const PERCENT_MAX: u16 = 1_000;
/// Most thresholds of one limit.
pub const ALERTS_MAX: usize = 10;

/// A limit as somebody wants it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LimitTerms {
    pub amount: Nanos,
    pub at_limit: AtLimit,
    pub alerts: Vec<AlertRule>,
}

/// What the terms are for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LimitPlace {
    /// Its window ends at some instant.
    pub ends: bool,
    /// Every end user has it for himself.
    pub is_each: bool,
}

/// Whether terms can be kept. An error names the field that cannot.
pub fn check(terms: &LimitTerms, place: LimitPlace) -> Result<()> {
    let refused = |message: &str, param: &str| Err(Error::new(ErrorCode::InvalidRequest, message).param(param));
    if terms.amount.is_negative() {
        return Err(Error::new(ErrorCode::InvalidAmount, "a spend limit is not negative").param("amount"));
    }
    if let AtLimit::FinishThenStop { overrun_max } = terms.at_limit {
        if overrun_max <= Nanos::ZERO {
            return Err(Error::new(ErrorCode::InvalidAmount, "what finishing may cost beyond the limit is above zero")
                .param("overrun_max")
                .alternative("set a hard limit"));
        }
        terms.amount.checked_add(overrun_max)?;
    }
    if terms.at_limit == AtLimit::Soft && terms.alerts.is_empty() {
        return refused("a soft limit stops nothing: without alerts it would do nothing", "alerts");
    }
    if terms.alerts.is_empty() {
        return Ok(());
    }
    if place.is_each {
        return refused("a limit that each end user has for himself has no alerts", "alerts");
    }
    if terms.amount.is_zero() {
        return refused("a threshold is a part of a limit, and there are no parts of zero", "alerts");
    }
    if terms.alerts.len() > ALERTS_MAX {
        return refused(&format!("a limit has at most {ALERTS_MAX} alerts"), "alerts");
    }
    for (position, rule) in terms.alerts.iter().enumerate() {
        check_rule(terms, place, *rule)?;
        if terms.alerts.iter().skip(position + 1).any(|other| other == rule) {
            return refused(
                &format!("an alert at {} percent of {} spend is there twice", rule.percent, rule.basis.as_str()),
                "alerts",
            );
        }
    }
    Ok(())
}

fn check_rule(terms: &LimitTerms, place: LimitPlace, rule: AlertRule) -> Result<()> {
    let refused = |message: String| Err(Error::new(ErrorCode::InvalidRequest, message).param("alerts"));
    if !(1..=PERCENT_MAX).contains(&rule.percent) {
        return refused(format!("an alert is at 1 to {PERCENT_MAX} percent"));
    }
    match rule.basis {
        AlertBasis::Forecast if !place.ends => refused("a limit in total has no end, and so no forecast of it".to_owned()),
        AlertBasis::Forecast => Ok(()),
        AlertBasis::Actual => {
            let most = terms.amount.get().saturating_add(terms.at_limit.overrun_max().get());
            let is_possible = terms.at_limit == AtLimit::Soft
                || i128::from(terms.amount.get()) * i128::from(rule.percent) <= i128::from(most) * 100;
            if is_possible {
                return Ok(());
            }
            refused(format!("{} percent of the limit are never spent: it stops before", rule.percent))
        }
    }
}

/// Where a window stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Standing {
    pub amount: Nanos,
    pub settled: Nanos,
    /// Something was refused, or went on beyond the limit.
    pub is_reached: bool,
    /// What is expected at the window's end, if that can be said.
    pub forecast: Option<Nanos>,
}

/// Whether a threshold is crossed. All of a limit is crossed too when it stopped something: what is settled then stays a
/// little below it, because the next piece of work did not fit.
pub fn is_crossed(rule: AlertRule, standing: &Standing) -> bool {
    match rule.basis {
        AlertBasis::Actual => rule.is_met(standing.settled, standing.amount) || (rule.percent == 100 && standing.is_reached),
        AlertBasis::Forecast => standing.forecast.is_some_and(|forecast| rule.is_met(forecast, standing.amount)),
    }
}

impl AlertRule {
    /// Whether so much is the threshold's part of a limit. One on what is spent that is crossed and not met tells that
    /// something did not fit.
    pub fn is_met(self, spent: Nanos, amount: Nanos) -> bool {
        i128::from(spent.get()) * 100 >= i128::from(amount.get()) * i128::from(self.percent)
    }
}

/// How many percent of a limit are spent, rounded down.
pub fn spent_percent(spent: Nanos, amount: Nanos) -> i128 {
    i128::from(spent.get()) * 100 / i128::from(amount.get()).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: LimitPlace = LimitPlace { ends: true, is_each: false };

    fn actual(percent: u16) -> AlertRule {
        AlertRule { basis: AlertBasis::Actual, percent }
    }
    fn forecast(percent: u16) -> AlertRule {
        AlertRule { basis: AlertBasis::Forecast, percent }
    }
    fn terms(amount: i64, at_limit: AtLimit, alerts: &[AlertRule]) -> LimitTerms {
        LimitTerms { amount: Nanos::new(amount), at_limit, alerts: alerts.to_vec() }
    }
    fn finish(overrun: i64) -> AtLimit {
        AtLimit::FinishThenStop { overrun_max: Nanos::new(overrun) }
    }

    #[test]
    fn what_cannot_be_kept_is_refused_and_the_field_is_named() {
        let many: Vec<AlertRule> = (1..=11).map(actual).collect();
        let each = LimitPlace { is_each: true, ..ALL };
        let total = LimitPlace { ends: false, ..ALL };
        for (wrong, place, param) in [
            (terms(-1, AtLimit::Hard, &[]), ALL, "amount"),
            (terms(10, finish(0), &[]), ALL, "overrun_max"),
            (terms(10, finish(-1), &[]), ALL, "overrun_max"),
            (terms(10, AtLimit::Soft, &[]), ALL, "alerts"),
            (terms(10, AtLimit::Soft, &[actual(0)]), ALL, "alerts"),
            (terms(10, AtLimit::Soft, &[actual(1_001)]), ALL, "alerts"),
            (terms(10, AtLimit::Soft, &[actual(50), forecast(50), actual(50)]), ALL, "alerts"),
            (terms(10, AtLimit::Soft, &many), ALL, "alerts"),
            (terms(0, AtLimit::Hard, &[actual(50)]), ALL, "alerts"),
            (terms(10, AtLimit::Hard, &[actual(101)]), ALL, "alerts"),
            (terms(10, finish(5), &[actual(151)]), ALL, "alerts"),
            (terms(10, AtLimit::Hard, &[actual(50)]), each, "alerts"),
            (terms(10, AtLimit::Soft, &[actual(50)]), each, "alerts"),
            (terms(10, AtLimit::Hard, &[forecast(50)]), total, "alerts"),
        ] {
            let error = check(&wrong, place).expect_err("it cannot be kept");
            assert_eq!(error.param_name(), Some(param), "{wrong:?}: {error}");
        }
        let error = check(&terms(i64::MAX, finish(1), &[]), ALL).expect_err("it is more than an amount can be");
        assert_eq!(error.code(), ErrorCode::AmountOverflow);
        for right in [
            terms(0, AtLimit::Hard, &[]),
            terms(10, AtLimit::Hard, &[actual(100), forecast(200)]),
            terms(10, finish(5), &[actual(150)]),
            terms(10, AtLimit::Soft, &[actual(1_000)]),
        ] {
            check(&right, ALL).expect("it can be kept");
        }
    }

    #[test]
    fn room_ends_where_the_limit_says() {
        let room = |at_limit: AtLimit, taken, work| at_limit.room(Nanos::new(10), Nanos::new(taken), work).get();
        for (at_limit, taken, new, admitted) in [
            (AtLimit::Hard, 4, 6, 6),
            (AtLimit::Hard, 12, 0, 0),
            (finish(5), 4, 6, 11),
            (finish(5), 12, 0, 3),
            (finish(5), 16, 0, 0),
            (AtLimit::Soft, 99, i64::MAX, i64::MAX),
        ] {
            assert_eq!(
                (room(at_limit, taken, Work::New), room(at_limit, taken, Work::Admitted)),
                (new, admitted),
                "{at_limit:?} {taken}"
            );
        }
    }

    #[test]
    fn a_threshold_is_crossed_exactly_at_its_part_and_all_of_it_also_when_work_was_stopped() {
        let at = |settled, is_reached, forecast: Option<i64>| Standing {
            amount: Nanos::new(200),
            settled: Nanos::new(settled),
            is_reached,
            forecast: forecast.map(Nanos::new),
        };
        for (rule, standing, expected) in [
            (actual(80), at(159, false, None), false),
            (actual(80), at(160, false, None), true),
            (actual(80), at(100, true, None), false),
            (actual(100), at(199, false, None), false),
            (actual(100), at(199, true, None), true),
            (actual(110), at(200, true, None), false),
            (forecast(100), at(0, false, None), false),
            (forecast(100), at(0, true, Some(199)), false),
            (forecast(100), at(0, false, Some(200)), true),
        ] {
            assert_eq!(is_crossed(rule, &standing), expected, "{rule:?} {standing:?}");
        }
    }
}
