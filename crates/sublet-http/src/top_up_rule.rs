//! What an organization wants charged by itself.

use sublet_api::money::Money;
use sublet_api::object::TopUpRuleTag;
use sublet_api::top_up_rule as wire;
use sublet_cloud::data::{BelowThreshold, OnDay, TopUpRule, TopUpRuleState};
use sublet_cloud::top_up_rule::AccountTopUpRule;
use sublet_core::{Currency, Error, ErrorCode, Nanos, Result};

use crate::App;
use crate::answer::{Answer, json};
use crate::context::Context;
use crate::wire::money;

/// The terms, and the one currency of all their amounts.
fn from_wire(terms: &wire::TopUpTerms) -> Result<(TopUpRule, Currency)> {
    let currency = terms.most_per_month.currency;
    let amount = |money: Money, param: &str| -> Result<Nanos> {
        if money.currency == currency {
            return Ok(money.nanos());
        }
        let message = format!("it is in {}, and most_per_month in {currency}", money.currency);
        Err(Error::new(ErrorCode::CurrencyMismatch, message).param(param.to_owned()))
    };
    let below = |below: &wire::TopUpBelow| {
        let (threshold, paid) = (amount(below.threshold, "below.threshold")?, amount(below.amount, "below.amount")?);
        Ok::<_, Error>(BelowThreshold { threshold, amount: paid })
    };
    let on = |on: &wire::TopUpOn| {
        let day = on.day.parse().map_err(|error: Error| error.param("on.day"))?;
        Ok::<_, Error>(OnDay { day, amount: amount(on.amount, "on.amount")? })
    };
    let rule = TopUpRule {
        below: terms.below.as_ref().map(below).transpose()?,
        on: terms.on.as_ref().map(on).transpose()?,
        most_per_day: terms.most_per_day.map(|most| amount(most, "most_per_day")).transpose()?,
        most_per_month: terms.most_per_month.nanos(),
    };
    Ok((rule, currency))
}

fn terms_to_wire(terms: &TopUpRule, currency: Currency) -> wire::TopUpTerms {
    let sum = |amount| money(amount, currency);
    wire::TopUpTerms {
        below: terms.below.map(|below| wire::TopUpBelow { threshold: sum(below.threshold), amount: sum(below.amount) }),
        on: terms.on.map(|on| wire::TopUpOn { day: on.day.to_string(), amount: sum(on.amount) }),
        most_per_day: terms.most_per_day.map(sum),
        most_per_month: sum(terms.most_per_month),
    }
}

fn to_wire(account: AccountTopUpRule) -> wire::TopUpRule {
    let AccountTopUpRule { organization, currency, rule, needs_customer } = account;
    let status = match rule.as_ref().map(|rule| rule.state) {
        None => wire::TopUpRuleStatus::Off,
        Some(TopUpRuleState::Paused) => wire::TopUpRuleStatus::Paused,
        Some(TopUpRuleState::Active) if needs_customer => wire::TopUpRuleStatus::NeedsAction,
        Some(TopUpRuleState::Active) => wire::TopUpRuleStatus::Active,
    };
    wire::TopUpRule {
        object: TopUpRuleTag,
        organization,
        status,
        terms: rule.as_ref().map(|rule| terms_to_wire(&rule.terms, currency)),
        reason: rule.as_ref().and_then(|rule| rule.reason.clone()),
        declines: rule.as_ref().map_or(0, |rule| u32::try_from(rule.declines).unwrap_or(u32::MAX)),
        retry_at: rule.as_ref().and_then(|rule| rule.retry_at).map(Into::into),
        next_day_at: rule.as_ref().and_then(|rule| rule.day_at).map(Into::into),
        set_at: rule.as_ref().map(|rule| rule.set_at.into()),
        set_by: rule.map(|rule| rule.set_by),
    }
}

pub async fn get(app: App, context: Context) -> Result<Answer> {
    json(&to_wire(app.cloud.top_up_rule(&context.actor).await?))
}

pub async fn set(app: App, context: Context) -> Result<Answer> {
    let body: wire::TopUpTerms = context.body()?;
    let (terms, currency) = from_wire(&body)?;
    json(&to_wire(app.cloud.set_top_up_rule(&context.actor, &terms, currency).await?))
}

pub async fn remove(app: App, context: Context) -> Result<Answer> {
    json(&to_wire(app.cloud.remove_top_up_rule(&context.actor).await?))
}
