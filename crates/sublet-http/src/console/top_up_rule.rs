//! What a customer wants charged to its card by itself, and how far that is.

use askama::Template;
use axum::body::Body;
use http::Response;
use sublet_cloud::data::TopUpRuleState;
use sublet_cloud::top_up_rule::AccountTopUpRule;
use sublet_cloud::{Actor, Cloud};
use sublet_core::id::OrganizationId;
use sublet_core::{Nanos, Result, Scope};

use super::Console;
use super::figure::{Amount, When};
use super::shell::{self, Shell};
use super::visit::Visit;

/// A rule as a person reads it.
pub struct RuleRow {
    pub state: &'static str,
    /// Why it is paused.
    pub reason: String,
    /// Below what it adds how much.
    pub below: Option<(Amount, Amount)>,
    /// On which day it adds how much.
    pub on: Option<(String, Amount)>,
    pub most_per_day: Option<Amount>,
    pub most_per_month: Amount,
    /// Charges in a row that came to nothing.
    pub declines: i64,
    pub retry: Option<When>,
    pub next_day: Option<When>,
    pub set_by: String,
    pub set: When,
}

#[derive(Template)]
#[template(path = "top_up_rule.html")]
struct RulePage {
    shell: Shell,
    rule: Option<RuleRow>,
}

pub async fn show(console: Console, visit: Visit) -> Result<Response<Body>> {
    let found = console.app.cloud.top_up_rule(&visit.actor).await?;
    shell::html(&RulePage {
        shell: Shell::of(&console, &visit.actor, "Automatic top-up", "/console/top-up").await?,
        rule: row(found),
    })
}

/// A customer's, for an operator.
pub async fn of(cloud: &Cloud, actor: &Actor, id: &OrganizationId) -> Result<Option<RuleRow>> {
    let own = Actor { scope: Scope::Organization(id.clone()), ..actor.clone() };
    Ok(row(cloud.top_up_rule(&own).await?))
}

fn row(account: AccountTopUpRule) -> Option<RuleRow> {
    let AccountTopUpRule { currency, rule, needs_customer, .. } = account;
    let rule = rule?;
    let amount = |nanos: Nanos| Amount::new(nanos, currency);
    Some(RuleRow {
        state: match rule.state {
            TopUpRuleState::Paused => "paused",
            TopUpRuleState::Active if needs_customer => "waits for the customer's bank",
            TopUpRuleState::Active => "active",
        },
        reason: rule.reason.unwrap_or_default(),
        below: rule.terms.below.map(|below| (amount(below.threshold), amount(below.amount))),
        on: rule.terms.on.map(|on| (on.day.to_string(), amount(on.amount))),
        most_per_day: rule.terms.most_per_day.map(amount),
        most_per_month: amount(rule.terms.most_per_month),
        declines: rule.declines,
        retry: rule.retry_at.map(When),
        next_day: rule.day_at.map(When),
        set_by: rule.set_by,
        set: When(rule.set_at),
    })
}
