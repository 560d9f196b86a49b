//! Spend by day: what charts are made from.
//!
//! Days are those of the account's time zone, half-open, so that they add up to its periods. What
//! the operator sees is cut in UTC and added up per currency.

use std::collections::BTreeMap;

use sublet_core::{Currency, DurationMs, Nanos, Result, Scope};
use sublet_money::period::{BillingCalendar, Interval, PeriodLength};
use sublet_store::charge::{self, ChargeQuery};
use sublet_store::organization;

use crate::{Action, Actor, Cloud};

/// Most days that are added up in one call.
pub const SPEND_DAYS_MAX: u16 = 62;

/// What was charged on one day.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DaySpend {
    pub interval: Interval,
    pub amounts: BTreeMap<Currency, Nanos>,
}

impl Cloud {
    /// Charges of the last days, today included, oldest first, as far as the actor's scope reaches.
    pub async fn spend_by_day(&self, actor: &Actor, days: u16) -> Result<Vec<DaySpend>> {
        actor.require(Action::ReadUsage)?;
        let now = self.now();
        let days = days.clamp(1, SPEND_DAYS_MAX);
        self.store
            .read(actor, move |actor, tx| {
                Box::pin(async move {
                    let calendar = match actor.scope.organization() {
                        Some(id) => {
                            let own = Scope::Organization(id.clone());
                            BillingCalendar::new(&organization::get(tx, &own, id).await?.time_zone)?
                        }
                        None => BillingCalendar::new("UTC")?,
                    };
                    let mut interval = calendar.interval_at(PeriodLength::Day, now)?;
                    let mut spend = Vec::with_capacity(usize::from(days));
                    for _ in 0..days {
                        let (from, until) = (interval.starts_at, interval.ends_at);
                        let mut amounts = BTreeMap::new();
                        for line in charge::summarize(tx, &ChargeQuery { scope: actor.scope.clone(), from, until }).await? {
                            let sum: &mut Nanos = amounts.entry(line.currency).or_default();
                            *sum = sum.checked_add(line.amount)?;
                        }
                        spend.push(DaySpend { interval, amounts });
                        interval = calendar.interval_at(PeriodLength::Day, from.minus(DurationMs::from_millis(1)))?;
                    }
                    spend.reverse();
                    Ok(spend)
                })
            })
            .await
    }
}
