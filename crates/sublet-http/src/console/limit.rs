//! Spend limits as meters: what is settled, what is held, what is left.

use sublet_cloud::data::{Budget, BudgetWindow, SpendLimit};
use sublet_cloud::{Actor, Cloud};
use sublet_core::admission::Narrowing;
use sublet_core::{Currency, Nanos, Result};

use super::chart::{Part, Svg, meter};
use super::figure::{Amount, When};

/// One limit on one subject.
pub struct LimitRow {
    pub subject: String,
    pub id: String,
    pub window: &'static str,
    pub settled: Amount,
    pub held: Amount,
    pub left: Amount,
    pub limit: Amount,
    pub resets: Option<When>,
    pub meter: Svg,
}

/// What a limit is on, as somebody calls it from their own place.
fn subject_text(name: &str, actor: &Actor) -> String {
    let (subject, requests) = Narrowing::parse(name);
    let is_own_key = actor.key.as_ref().is_some_and(|key| key.as_str() == subject);
    let is_own_project = actor.scope.project().is_some_and(|project| project.as_str() == subject);
    let subject = match sublet_core::id::prefix_of(subject) {
        Some("org") => "Organization",
        Some("proj") if is_own_project => "This project",
        Some("key") if is_own_key => "This key",
        _ => subject,
    };
    requests.name(subject)
}

fn row(limit: &SpendLimit, budget: &Budget, currency: Currency, actor: &Actor) -> Result<LimitRow> {
    let amount = |nanos| Amount::new(nanos, currency);
    let taken = budget.settled.checked_add(budget.reserved)?;
    let left = limit.amount.checked_sub(taken)?.max(Nanos::ZERO);
    let (settled, held, whole) = (amount(budget.settled), amount(budget.reserved), amount(limit.amount));
    let parts = [
        Part::new("spent", format!("spent {} {currency}", settled.text()), budget.settled.get()),
        Part::new("held", format!("held {} {currency}", held.text()), budget.reserved.get()),
    ];
    let description = format!("{} of {} {currency} spent, {} held", settled.text(), whole.text(), held.text());
    Ok(LimitRow {
        subject: subject_text(&limit.subject, actor),
        id: limit.subject.clone(),
        window: match limit.window {
            BudgetWindow::Total => "in total",
            BudgetWindow::Day => "per day",
            BudgetWindow::Month => "per month",
        },
        settled,
        held,
        left: amount(left),
        limit: whole,
        resets: budget.ends_at.map(When),
        meter: meter(limit.amount.get(), &parts, &description),
    })
}

/// Every limit that binds the actor.
pub async fn rows(cloud: &Cloud, actor: &Actor, currency: Currency) -> Result<Vec<LimitRow>> {
    let limits = cloud.list_limits(actor, None).await?;
    limits.iter().map(|(limit, budget)| row(limit, budget, currency, actor)).collect()
}
