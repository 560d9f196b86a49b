//! Alerts of spend limits: a look at each limit that has any, once a minute.
//!
//! A look reads the row that reserving and settling keep anyway, so those do nothing for it. It notes what was settled by
//! this hour, and tells what was crossed in the transaction that saw it; the row of an alert is its own guard against
//! being told twice, by this process or another. The mail and the webhooks that say it are queued there too. The last look of a window comes
//! after its end, when nothing of it is reserved any more, or a day later.
//!
//! Deliberately absent: anything that stops work. Limits do that themselves.

use sublet_core::id::OrganizationId;
use sublet_core::{DurationMs, Nanos, Result, Scope, Timestamp};
use sublet_money::forecast::Hour;
use sublet_money::spend_limit::{AlertBasis, AlertRule, Standing, is_crossed, spent_percent};
use sublet_store::budget::{self, Budget, BudgetRef};
use sublet_store::organization::Organization;
use sublet_store::spend_alert::{self, SpendAlert, Watched};
use sublet_store::{Page, PageRequest, Tx, organization};

use crate::budget::{periods_at, reference_at};
use crate::forecast::{HISTORY_HOURS, foresee};
use crate::mail::{Mail, Recipient};
use crate::{Action, Actor, Cloud};

/// How often a limit is looked at.
const LOOK_EVERY: DurationMs = DurationMs::from_seconds(60);
/// How long after its end a window is looked at that has money reserved: requests and leases that began in it.
const LATE_MAX: DurationMs = DurationMs::from_hours(24);
/// How often it is asked which are due.
const WAKE_EVERY: DurationMs = DurationMs::from_seconds(5);
/// Most limits that one look at what is due takes.
const AT_ONCE: usize = 200;

/// What one look at what is due came to.
struct Looked {
    /// Alerts.
    told: u64,
    /// There may be more that is due.
    is_full: bool,
}

impl Cloud {
    /// Looks at limits until `stop` says so.
    pub async fn run_spend_alerts(&self, mut stop: tokio::sync::watch::Receiver<bool>) {
        while !*stop.borrow() {
            match self.look_at_due().await {
                Ok(Looked { is_full: true, .. }) => continue,
                Ok(_) => {}
                Err(error) => tracing::error!(%error, private = ?error, "limits were not looked at; it is tried again"),
            }
            tokio::select! {
                () = tokio::time::sleep(WAKE_EVERY.to_std()) => {}
                changed = stop.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// Looks at all limits that are due, and answers how many alerts that told.
    pub async fn tell_spend_alerts(&self) -> Result<u64> {
        let mut told = 0;
        loop {
            let looked = self.look_at_due().await?;
            told += looked.told;
            if !looked.is_full {
                return Ok(told);
            }
        }
    }

    async fn look_at_due(&self) -> Result<Looked> {
        let now = self.now();
        let due = self.store.read(now, |now, tx| Box::pin(spend_alert::due(tx, *now, AT_ONCE))).await?;
        let is_full = due.len() >= AT_ONCE;
        let mut told = 0;
        for limit in due {
            match self.store.write((self, &limit), |(cloud, limit), tx| Box::pin(cloud.look(tx, limit, now))).await {
                Ok(alerts) => told += alerts,
                Err(error) => {
                    let (subject, window) = (&limit.subject, limit.window.as_str());
                    tracing::error!(%subject, window, %error, private = ?error, "a limit was not looked at; it is tried again");
                    // It does not stand in the way of those behind it.
                    let put_off = self.store.write(&limit, move |limit, tx| {
                        Box::pin(async move { spend_alert::take(tx, limit, now, now.plus(LOOK_EVERY)).await.map(|_| ()) })
                    });
                    put_off.await?;
                }
            }
        }
        Ok(Looked { told, is_full })
    }

    async fn look(&self, tx: &mut Tx, due: &Watched, now: Timestamp) -> Result<u64> {
        let Some(limit) = spend_alert::take(tx, due, now, now.plus(LOOK_EVERY)).await? else { return Ok(0) };
        let account = organization::get(tx, &Scope::Operator, &limit.organization).await?;
        let running = reference_at(&periods_at(&account.time_zone, now)?, &limit.subject, limit.window);
        let mut told = 0;
        // What was settled after the last look at a window before this one. Each is looked at until it is over, in their order.
        let before = limit.looked_from.filter(|starts_at| *starts_at != running.starts_at);
        let mut looked_from = running.starts_at;
        if let Some(starts_at) = before
            && let Some(over) = budget::find(tx, &BudgetRef { starts_at, ..running.clone() }).await?
        {
            told += self.tell(tx, (&account, &limit.alerts), (&over, None), now).await?;
            let next = over.ends_at.unwrap_or(running.starts_at);
            let is_settled = over.reserved == Nanos::ZERO || next.plus(LATE_MAX) <= now;
            looked_from = if is_settled { next } else { starts_at };
        }
        if limit.looked_from != Some(looked_from) {
            spend_alert::set_looked_from(tx, &BudgetRef { starts_at: looked_from, ..running.clone() }).await?;
        }
        let budget = budget::find(tx, &running).await?;
        let hour = Hour::of(now);
        // A window that nobody spent in yet has no row.
        let settled = budget.as_ref().map_or(Nanos::ZERO, |budget| budget.settled);
        let is_new_hour = spend_alert::sample(tx, &running, hour, settled).await?;
        if is_new_hour {
            spend_alert::forget(tx, &running, hour.minus(HISTORY_HOURS)).await?;
        }
        let Some(budget) = budget else { return Ok(told) };
        // Once an hour is often enough for what is expected weeks from now.
        let wants_forecast = limit.alerts.iter().any(|rule| rule.basis == AlertBasis::Forecast);
        let forecast = match wants_forecast && is_new_hour {
            true => foresee(tx, &limit.organization, &budget, now).await?.map(|forecast| forecast.expected),
            false => None,
        };
        Ok(told + self.tell(tx, (&account, &limit.alerts), (&budget, forecast), now).await?)
    }

    /// Tells what is crossed and was not told.
    async fn tell(
        &self,
        tx: &mut Tx,
        (account, rules): (&Organization, &[AlertRule]),
        (budget, forecast): (&Budget, Option<Nanos>),
        now: Timestamp,
    ) -> Result<u64> {
        let Budget { amount, settled, .. } = *budget;
        let standing = Standing { amount, settled, is_reached: budget.reached_at.is_some(), forecast };
        let crossed: Vec<AlertRule> = rules.iter().copied().filter(|rule| is_crossed(*rule, &standing)).collect();
        if crossed.is_empty() {
            return Ok(0);
        }
        let known = spend_alert::told(tx, &budget.reference, amount).await?;
        let mut told = 0;
        for rule in crossed.into_iter().filter(|rule| !known.contains(rule)) {
            let alert = SpendAlert {
                id: self.ids.mint(),
                organization: account.id.clone(),
                budget: budget.reference.clone(),
                ends_at: budget.ends_at,
                rule,
                amount,
                settled,
                reserved: budget.reserved,
                forecast,
                created_at: now,
            };
            if spend_alert::insert(tx, &alert).await? {
                told += 1;
                self.queue_mail(tx, &mail(&alert, account)).await?;
                self.queue_alert(tx, &alert, account.currency).await?;
            }
        }
        Ok(told)
    }

    /// Alerts that the limits of the actor's organization told.
    pub async fn list_spend_alerts(&self, actor: &Actor, page: &PageRequest) -> Result<Page<SpendAlert>> {
        actor.require(Action::ManageLimits)?;
        let organization: &OrganizationId = actor.organization()?;
        self.store.read((organization, page), |(organization, page), tx| Box::pin(spend_alert::list(tx, organization, page))).await
    }
}

/// What whoever pays is told.
fn mail(alert: &SpendAlert, account: &Organization) -> Mail {
    let SpendAlert { id, organization, budget, rule, amount, settled, forecast, .. } = alert;
    let (subject, window, percent, currency) = (&budget.subject, budget.window.as_str(), rule.percent, account.currency);
    let limit = format!("limit of {subject} ({amount} {currency}, window: {window})");
    let (subject, what) = match rule.basis {
        _ if alert.is_refusal() => (
            format!("Something was refused for lack of money by a spend limit of {}", account.name),
            format!(
                "Something did not fit in what is left of the {limit}: it was refused, or goes on beyond it. {} percent are spent.",
                spent_percent(*settled, *amount)
            ),
        ),
        AlertBasis::Actual => (
            format!("{percent} percent of a spend limit of {} are spent", account.name),
            format!("The {limit} has reached {percent} percent spent."),
        ),
        AlertBasis::Forecast => (
            format!("{percent} percent of a spend limit of {} are expected to be spent", account.name),
            format!("The {limit} has reached {percent} percent expected to be spent."),
        ),
    };
    let expected = forecast.map_or_else(String::new, |forecast| format!("Expected at the end: {forecast} {currency}\n"));
    let ends = alert.ends_at.map_or_else(String::new, |ends_at| format!("The limit starts anew at {ends_at}.\n"));
    Mail {
        key: format!("spend_alert:{id}"),
        to: Recipient::Organization(organization.clone()),
        kind: "spend_alert",
        subject,
        text: format!("{what}\n\nSpent: {settled} {currency}\n{expected}{ends}"),
        attachment: None,
    }
}
