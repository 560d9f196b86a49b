//! What was used.

use sublet_api::list::Cursor;
use sublet_api::object::{BucketTag, CompletionsUsageTag, CostsTag, PageTag, RequestTag, UsageTag};
use sublet_api::usage::{
    Bucket, BucketPage, BucketQuery, BucketWidth, CompletionsUsage, Costs, Request, RequestTokens, ServedBy, UsageLine, UsageQuery,
    UsageSummary,
};
use sublet_cloud::data::{BillingCalendar, Interval, PeriodLength};
use sublet_core::id::RequestId;
use sublet_core::usage::UsageRecord;
use sublet_core::{Error, ErrorCode, Nanos, Result, Timestamp};

use crate::App;
use crate::answer::{Answer, json};
use crate::context::Context;
use crate::wire::{SkuParts, count, money, sku_parts};

/// Usage of the caller's project, or of all projects for an administrator.
pub async fn summary(app: App, context: Context) -> Result<Answer> {
    let interval = interval(&context.query::<UsageQuery>()?)?;
    let report = app.cloud.usage(&context.actor, interval).await?;
    let organization = app.cloud.get_organization(&context.actor, context.actor.organization()?).await?;
    let mut lines = Vec::with_capacity(report.lines.len());
    for line in &report.lines {
        let SkuParts { subject, meter, notice, service_tier, site, isolation } = sku_parts(&line.sku);
        lines.push(UsageLine {
            project: line.project.clone(),
            subject,
            meter,
            notice,
            service_tier,
            site,
            isolation,
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
        service_tier: record.tier,
        route: record.route.clone(),
        outcome: record.outcome,
        served_by: served_by(record),
        usage: RequestTokens {
            input_tokens: count(record.tokens.input.get())?,
            cached_input_tokens: count(record.tokens.cached_input.get())?,
            output_tokens: count(record.tokens.output.get())?,
        },
        measured: record.measured,
        cost: money(cost, event.currency),
        price_version: record.price_version.clone(),
        charges: usage.charges.iter().map(|charge| charge.id.clone()).collect(),
        created_at: record.admitted_at.into(),
        admitted_at: record.admitted_at.into(),
        first_token_at: record.first_token_at.map(Into::into),
        finished_at: record.finished_at.into(),
    })
}

fn served_by(record: &UsageRecord) -> ServedBy {
    match &record.replica {
        None => ServedBy::Engine,
        Some(replica) if record.purchases.iter().any(|bought| bought.replica == *replica) => ServedBy::Supplier,
        Some(_) => ServedBy::Fleet,
    }
}

/// Buckets on one page.
const BUCKETS_DEFAULT: u32 = 7;

/// The half-open buckets of a query, oldest first, and where the next page begins.
async fn buckets(app: &App, context: &Context, query: &BucketQuery) -> Result<(Vec<Interval>, Option<Timestamp>)> {
    let organization = app.cloud.get_organization(&context.actor, context.actor.organization()?).await?;
    let calendar = BillingCalendar::new(&organization.time_zone)?;
    let end = query.end_time.map_or_else(|| app.cloud.clock().now(), |at| at.0);
    let limit = query.limit.map_or(BUCKETS_DEFAULT, |limit| limit.get());
    let mut starts_at = match &query.page {
        Some(page) => Timestamp::from_micros(
            page.0
                .parse()
                .map_err(|_| Error::new(ErrorCode::InvalidRequest, "page is the next_page of an earlier answer").param("page"))?,
        ),
        None => query.start_time.0,
    };
    let mut buckets = Vec::new();
    while starts_at < end && buckets.len() < usize::try_from(limit).unwrap_or(0) {
        let ends_at = match query.bucket_width {
            BucketWidth::Hour => starts_at.plus(sublet_core::DurationMs::from_hours(1)),
            BucketWidth::Day => calendar.interval_at(PeriodLength::Day, starts_at)?.ends_at,
        };
        buckets.push(Interval { starts_at, ends_at: ends_at.min(end) });
        starts_at = ends_at;
    }
    Ok((buckets, (starts_at < end).then_some(starts_at)))
}

fn bucket_page<T>(data: Vec<Bucket<T>>, next: Option<Timestamp>) -> BucketPage<T> {
    let next_page = next.map(|at| Cursor(at.micros().to_string()));
    BucketPage { object: PageTag, data, has_more: next.is_some(), next_page }
}

/// Tokens in buckets of time, in OpenAI's shape.
pub async fn completions(app: App, context: Context) -> Result<Answer> {
    let query: BucketQuery = context.query()?;
    let (intervals, next) = buckets(&app, &context, &query).await?;
    let mut data = Vec::with_capacity(intervals.len());
    for interval in intervals {
        let report = app.cloud.usage(&context.actor, Some(interval)).await?;
        let mut results = Vec::with_capacity(report.models.len());
        for model in &report.models {
            results.push(CompletionsUsage {
                object: CompletionsUsageTag,
                input_tokens: count(model.input_tokens)?.saturating_add(count(model.cached_input_tokens)?),
                input_cached_tokens: count(model.cached_input_tokens)?,
                output_tokens: count(model.output_tokens)?,
                num_model_requests: count(model.requests)?,
                project_id: None,
                model: Some(model.model.clone()),
            });
        }
        data.push(bucket(interval, results));
    }
    json(&bucket_page(data, next))
}

/// Costs in buckets of time, in OpenAI's shape.
pub async fn costs(app: App, context: Context) -> Result<Answer> {
    let query: BucketQuery = context.query()?;
    let (intervals, next) = buckets(&app, &context, &query).await?;
    let mut data = Vec::with_capacity(intervals.len());
    for interval in intervals {
        let report = app.cloud.usage(&context.actor, Some(interval)).await?;
        let results = report
            .lines
            .iter()
            .map(|line| Costs {
                object: CostsTag,
                amount: money(line.amount, line.currency),
                line_item: Some(line.sku.to_string()),
                project_id: Some(line.project.clone()),
            })
            .collect();
        data.push(bucket(interval, results));
    }
    json(&bucket_page(data, next))
}

fn bucket<T>(interval: Interval, results: Vec<T>) -> Bucket<T> {
    Bucket { object: BucketTag, start_time: interval.starts_at.into(), end_time: interval.ends_at.into(), results }
}
