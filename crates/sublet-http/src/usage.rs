//! What was used.

use sublet_api::object::{RequestTag, UsageTag};
use sublet_api::usage::{Request, RequestTokens, UsageLine, UsageQuery, UsageSummary};
use sublet_core::id::RequestId;
use sublet_core::{Error, ErrorCode, Nanos, Result};
use sublet_money::period::Interval;

use crate::App;
use crate::answer::{Answer, json};
use crate::context::Context;
use crate::wire::{count, money, sku_parts};

/// Usage of the caller's project, or of all projects for an administrator.
pub async fn summary(app: App, context: Context) -> Result<Answer> {
    let interval = interval(&context.query::<UsageQuery>()?)?;
    let report = app.cloud.usage(&context.actor, interval).await?;
    let organization = app.cloud.get_organization(&context.actor, context.actor.organization()?).await?;
    let mut lines = Vec::with_capacity(report.lines.len());
    for line in &report.lines {
        let (subject, meter, notice) = sku_parts(&line.sku);
        lines.push(UsageLine {
            project: line.project.clone(),
            subject,
            meter,
            notice,
            quantity: count(line.quantity)?,
            charges: count(line.charges)?,
            cost: money(line.amount, line.currency),
        });
    }
    json(&UsageSummary {
        object: UsageTag,
        start_time: report.interval.starts_at.into(),
        end_time: report.interval.ends_at.into(),
        lines,
        total: money(report.total, organization.currency),
        held: money(report.held, organization.currency),
    })
}

/// Both ends or none.
pub fn interval(query: &UsageQuery) -> Result<Option<Interval>> {
    match (query.start_time, query.end_time) {
        (None, None) => Ok(None),
        (Some(start), Some(end)) if start.0 < end.0 => Ok(Some(Interval { starts_at: start.0, ends_at: end.0 })),
        (Some(_), Some(_)) => Err(Error::new(ErrorCode::InvalidRequest, "end_time is after start_time").param("end_time")),
        (Some(_), None) => Err(Error::new(ErrorCode::InvalidRequest, "start_time needs an end_time").param("end_time")),
        (None, Some(_)) => Err(Error::new(ErrorCode::InvalidRequest, "end_time needs a start_time").param("start_time")),
    }
}

/// One request: counts and money, never content.
pub async fn get_request(app: App, context: Context) -> Result<Answer> {
    let id: RequestId = context.path("id")?;
    let usage = app.cloud.get_request(&context.actor, &id).await?;
    let event = usage.events.last().ok_or_else(|| Error::internal("a request without events"))?;
    let record = &event.record;
    let cost = Nanos::checked_sum(usage.charges.iter().map(|charge| charge.amount))?;
    json(&Request {
        object: RequestTag,
        id,
        project: record.project.clone(),
        key: record.key.clone(),
        model: record.model.clone(),
        route: record.route.clone(),
        outcome: record.outcome,
        usage: RequestTokens {
            input_tokens: count(record.tokens.input.get())?,
            cached_input_tokens: count(record.tokens.cached_input.get())?,
            output_tokens: count(record.tokens.output.get())?,
        },
        cost: money(cost, event.currency),
        price_version: record.price_version.clone(),
        charges: usage.charges.iter().map(|charge| charge.id.clone()).collect(),
        created_at: record.admitted_at.into(),
        admitted_at: record.admitted_at.into(),
        first_token_at: record.first_token_at.map(Into::into),
        finished_at: record.finished_at.into(),
    })
}
