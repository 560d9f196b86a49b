//! Dunning: who is reminded of which invoice, and when an account is suspended until it pays.
//!
//! Invariants: nothing happens before an invoice is overdue; each reminder is planned once; nobody is suspended before the
//! last reminder was delivered, and all of the policy's grace after that is over; what nobody owes suspends nobody.
//!
//! Deliberately absent: fees for being late.

use serde::{Deserialize, Serialize};
use sublet_core::error::{Error, ErrorCode, Result};
use sublet_core::id::InvoiceId;
use sublet_core::{Nanos, Timestamp};

use crate::day::Day;
use crate::period::BillingCalendar;

/// Most reminders of one debt.
pub const REMINDERS_MAX: usize = 10;
/// The latest step, in days after the due day.
pub const DUNNING_DAYS_MAX: u16 = 365;

/// What happens to debts, in days after the day on which they were due. An empty one does nothing.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DunningPolicy {
    /// Each later than the one before it.
    pub reminders: Vec<u16>,
    /// Later than the last reminder; `None` suspends nobody.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub suspend_after: Option<u16>,
}

impl DunningPolicy {
    pub fn validate(&self) -> Result<()> {
        let wrong = |param: &str, message: String| {
            Err(Error::new(ErrorCode::InvalidRequest, message)
                .param(param.to_owned())
                .alternative("reminders 3, 10, 20 and suspension after 30"))
        };
        if self.reminders.len() > REMINDERS_MAX {
            return wrong("reminders", format!("a debt has at most {REMINDERS_MAX} reminders"));
        }
        let is_ascending = self.reminders.windows(2).all(|pair| pair[0] < pair[1]);
        if !is_ascending || self.reminders.iter().any(|days| !(1..=DUNNING_DAYS_MAX).contains(days)) {
            return wrong(
                "reminders",
                format!("reminders are 1 to {DUNNING_DAYS_MAX} days after the due day, each later than the one before"),
            );
        }
        match (self.suspend_after, self.reminders.last()) {
            (Some(_), None) => wrong("suspend_after", "nobody is suspended who was not reminded before".to_owned()),
            (Some(days), Some(last)) if days <= *last || days > DUNNING_DAYS_MAX => wrong(
                "suspend_after",
                format!("a suspension comes later than the last reminder, {DUNNING_DAYS_MAX} days after the due day at most"),
            ),
            (Some(_) | None, _) => Ok(()),
        }
    }
}

/// A reminder.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reminded {
    /// Which one: so many days after the due day.
    pub after_days: u16,
    /// When it was made, in the account's zone. It is delivered later, or never.
    pub on: Day,
}

/// What an issued invoice still asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Debt {
    pub invoice: InvoiceId,
    /// The last day on which it is paid in time, in the account's zone.
    pub due_on: Day,
    pub amount: Nanos,
    /// The latest reminder.
    pub reminded: Option<Reminded>,
    /// The day on which that one was delivered, as far as the sender can know.
    pub delivered_on: Option<Day>,
    pub is_paused: bool,
}

impl Debt {
    fn is_dunned(&self) -> bool {
        self.amount > Nanos::ZERO && !self.is_paused
    }

    /// The latest reminder whose day has come, if it was not made.
    fn reminder(&self, policy: &DunningPolicy, today: Day) -> Result<Option<u16>> {
        let mut latest = None;
        for days in &policy.reminders {
            if self.due_on.plus_days(*days)? <= today {
                latest = Some(*days);
            }
        }
        Ok(latest.filter(|days| self.reminded.is_none_or(|reminded| reminded.after_days < *days)))
    }

    /// Whether it is a reason to suspend its account.
    fn suspends(&self, policy: &DunningPolicy, today: Day) -> Result<bool> {
        let (Some(days), Some(last)) = (policy.suspend_after, policy.reminders.last()) else { return Ok(false) };
        let (Some(reminded), Some(delivered_on)) = (self.reminded, self.delivered_on) else { return Ok(false) };
        let grace = days.saturating_sub(*last);
        let was_warned = reminded.after_days >= *last && delivered_on.plus_days(grace)? <= today;
        Ok(was_warned && self.due_on.plus_days(days)? <= today)
    }
}

/// An account that may owe.
#[derive(Clone, Copy, Debug)]
pub struct DunnedAccount<'a> {
    pub calendar: &'a BillingCalendar,
    pub debts: &'a [Debt],
    pub is_paused: bool,
    pub is_suspended: bool,
}

/// A step.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DunningAction {
    Remind {
        invoice: InvoiceId,
        reminder: Reminded,
    },
    Suspend,
    /// Ends a suspension for which there is no reason any more.
    Lift,
}

/// What is to be done now: reminders, the oldest debt first, then the account.
pub fn plan_dunning(account: DunnedAccount<'_>, policy: &DunningPolicy, now: Timestamp) -> Result<Vec<DunningAction>> {
    let today = account.calendar.day_at(now)?;
    let mut debts: Vec<&Debt> = account.debts.iter().filter(|debt| debt.is_dunned() && !account.is_paused).collect();
    debts.sort_by(|one, other| (one.due_on, &one.invoice).cmp(&(other.due_on, &other.invoice)));
    let (mut actions, mut suspends) = (Vec::new(), false);
    for debt in debts {
        if let Some(after_days) = debt.reminder(policy, today)? {
            let reminder = Reminded { after_days, on: today };
            actions.push(DunningAction::Remind { invoice: debt.invoice.clone(), reminder });
        }
        suspends |= debt.suspends(policy, today)?;
    }
    match (account.is_suspended, suspends) {
        (false, true) => actions.push(DunningAction::Suspend),
        (true, false) => actions.push(DunningAction::Lift),
        (true, true) | (false, false) => {}
    }
    Ok(actions)
}

#[cfg(test)]
#[path = "dunning_tests.rs"]
mod tests;
