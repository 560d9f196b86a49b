//! Use of a past time that is rated by another price list than it was.

use sublet_api::list::ListQuery;
use sublet_api::object::RerateTag;
use sublet_api::rerate as wire;
use sublet_cloud::data::{Interval, RatedLine, RerateAccount, RerateAccountState, RerateState, RerateSums, StoredRerate};
use sublet_cloud::rerate::{NewRerate, RerateResult};
use sublet_core::id::RerateId;
use sublet_core::{Currency, Result};

use crate::App;
use crate::answer::{Answer, json, text_of};
use crate::context::{Context, once, page_request};
use crate::wire::{SkuParts, count, money, sku_parts};

const fn status(state: RerateState) -> wire::RerateStatus {
    match state {
        RerateState::Simulated => wire::RerateStatus::Simulated,
        RerateState::Approved => wire::RerateStatus::Approved,
        RerateState::Applied => wire::RerateStatus::Applied,
    }
}

const fn account_status(state: RerateAccountState) -> wire::RerateStatus {
    match state {
        RerateAccountState::Simulated => wire::RerateStatus::Simulated,
        RerateAccountState::Applied => wire::RerateStatus::Applied,
        RerateAccountState::Refused => wire::RerateStatus::Refused,
    }
}

fn line_to_wire(line: &RatedLine, currency: Currency) -> Result<wire::ReratedLine> {
    let SkuParts { subject, meter, notice, service_tier, site, isolation } = sku_parts(&line.key.sku);
    Ok(wire::ReratedLine {
        project: line.key.project.clone(),
        period: line.key.period.to_string(),
        price_version: line.key.price_version.clone(),
        subject,
        meter,
        notice,
        service_tier,
        site,
        isolation,
        band: line.key.band.as_ref().map(ToString::to_string),
        quantity: line.quantity.get(),
        quantity_before: count(line.before.quantity.get())?,
        amount: money(line.amount, currency),
    })
}

fn account_to_wire(account: &RerateAccount, currency: Currency) -> Result<wire::ReratedCustomer> {
    Ok(wire::ReratedCustomer {
        organization: account.organization.clone(),
        status: account_status(account.state),
        charged: money(account.charged, currency),
        would_be: money(account.would_be, currency),
        refusal: Some(account.refusal.clone()).filter(|refusal| !refusal.is_empty()),
        lines: count(account.lines)?,
        most_changed: account.shown.iter().map(|line| line_to_wire(line, currency)).collect::<Result<_>>()?,
    })
}

fn to_wire(stored: &StoredRerate, sums: &RerateSums, most_changed: &[RerateAccount]) -> Result<wire::Rerate> {
    let currency = stored.currency;
    Ok(wire::Rerate {
        object: RerateTag,
        id: stored.id.clone(),
        of: stored.of.clone(),
        to: stored.to.clone(),
        from: stored.interval.starts_at.into(),
        until: stored.interval.ends_at.into(),
        organization: stored.organization.clone(),
        reason: stored.reason.clone(),
        status: status(stored.state),
        customers: count(sums.customers)?,
        raised: count(sums.raised)?,
        refused: count(sums.refused)?,
        charged: money(sums.charged, currency),
        would_be: money(sums.would_be, currency),
        requested_by: stored.requested_by.clone(),
        applied_by: stored.applied_by.clone(),
        created_at: stored.created_at.into(),
        applied_at: stored.ended_at.map(Into::into),
        most_changed: most_changed.iter().map(|account| account_to_wire(account, currency)).collect::<Result<_>>()?,
    })
}

fn result_to_wire(result: &RerateResult) -> Result<wire::Rerate> {
    to_wire(&result.rerate, &result.sums, &result.most_changed)
}

pub async fn simulate(app: App, context: Context) -> Result<Answer> {
    let body: wire::SimulateRerate = context.body()?;
    let new = NewRerate {
        of: body.of,
        to: body.to,
        interval: Interval { starts_at: body.from.0, ends_at: body.until.0 },
        organization: body.organization,
        reason: body.reason,
    };
    app.cloud.follow().await?;
    let render = |result: &RerateResult| text_of(&result_to_wire(result)?);
    let outcome = app.cloud.simulate_rerate(&context.call()?, &new, &render).await?;
    once(outcome, |result| result_to_wire(result).ok())
}

pub async fn apply(app: App, context: Context) -> Result<Answer> {
    let id: RerateId = context.path("id")?;
    json(&result_to_wire(&app.cloud.apply_rerate(&context.actor, &id).await?)?)
}

pub async fn get(app: App, context: Context) -> Result<Answer> {
    let id: RerateId = context.path("id")?;
    json(&result_to_wire(&app.cloud.get_rerate(&context.actor, &id).await?)?)
}

pub async fn list(app: App, context: Context) -> Result<Answer> {
    let asked = context.query::<ListQuery>()?.page();
    let page = app.cloud.list_rerates(&context.actor, &page_request(&asked)?).await?;
    let mut rerates = page.items.iter().map(|(stored, sums)| to_wire(stored, sums, &[])).collect::<Result<Vec<_>>>()?;
    if asked.before.is_some() {
        rerates.reverse();
    }
    json(&sublet_api::List::page(rerates, page.has_more, |rerate| rerate.id.to_string()))
}
