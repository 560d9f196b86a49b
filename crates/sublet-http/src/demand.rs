//! Demand of the owner's own work, and by what is sold.

use sublet_api::capacity::{PoolCapacity, PoolLevel};
use sublet_api::demand as wire;
use sublet_api::object::{DemandHistoryTag, DemandImportTag, DemandReportTag, SellingPolicyTag};
use sublet_cloud::data::{DemandStep, Pool, ReserveRule, SellingMode, StoredCurve};
use sublet_cloud::demand::{NewReport, PoolStatement, STEPS_MAX};
use sublet_core::id::SiteId;
use sublet_core::notice::NoticeClass;
use sublet_core::{DurationMs, Error, ErrorCode, Result, Timestamp};

use crate::App;
use crate::answer::{Answer, json};
use crate::context::Context;
use crate::wire::count;

fn pool(device_kind: &str, site: SiteId) -> Result<Pool> {
    Ok(Pool { kind: device_kind.parse().map_err(|error: Error| error.param("device_kind"))?, site })
}

pub async fn report(app: App, context: Context) -> Result<Answer> {
    let body: wire::ReportDemand = context.body()?;
    // More than can be said is beyond the longest, too.
    let seconds = |seconds: u64| i64::try_from(seconds).unwrap_or(i64::MAX).min(i64::MAX / 1_000);
    let new = NewReport {
        pool: pool(&body.device_kind, body.site)?,
        at: body.at.map(|at| at.0),
        in_use: body.in_use,
        queued: body.queued,
        valid: body.valid,
        good_for: body.good_for_seconds.map(|span| DurationMs::from_seconds(seconds(span))),
    };
    let said = app.compute.report_demand(&context.actor, &new).await?;
    json(&wire::DemandReport {
        object: DemandReportTag,
        device_kind: new.pool.kind.to_string(),
        site: new.pool.site,
        at: said.at.into(),
        in_use: said.in_use,
        queued: said.queued,
        valid: said.valid,
        until: said.until.map(Into::into),
    })
}

pub async fn import(app: App, context: Context) -> Result<Answer> {
    let body: wire::ImportDemand = context.body()?;
    let pool = pool(&body.device_kind, body.site)?;
    let step = |step: &wire::DemandStep| DemandStep {
        at_s: step.at,
        capacity: step.capacity,
        in_use: step.in_use,
        queued: step.queued,
        valid: step.valid,
    };
    let steps: Vec<DemandStep> = body.steps.iter().map(step).collect();
    let added = app.compute.import_demand(&context.actor, &pool, &steps).await?;
    json(&wire::DemandImport { object: DemandImportTag, added: u64::try_from(added).unwrap_or(u64::MAX) })
}

pub async fn history(app: App, context: Context) -> Result<Answer> {
    let query: wire::DemandQuery = context.query()?;
    let pool = pool(&query.device_kind, query.site)?;
    let limit = query.limit.map_or(STEPS_MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    if limit == 0 || limit > STEPS_MAX {
        let message = format!("a page has 1 to {STEPS_MAX} rows");
        return Err(Error::new(ErrorCode::InvalidRequest, message).param("limit"));
    }
    let since = Timestamp::from_seconds(query.since.unwrap_or(0).clamp(0, i64::MAX / 1_000_000));
    let mut steps = app.compute.list_demand(&context.actor, &pool, since, limit).await?;
    let is_full = steps.len() == limit;
    let next_since = steps.last().filter(|_| is_full).map(|last| last.at_s + 1);
    let steps = steps.drain(..).map(|step| wire::DemandStep {
        at: step.at_s,
        capacity: step.capacity,
        in_use: step.in_use,
        queued: step.queued,
        valid: step.valid,
    });
    json(&wire::DemandHistory {
        object: DemandHistoryTag,
        device_kind: pool.kind.to_string(),
        site: pool.site.clone(),
        steps: steps.collect(),
        next_since,
    })
}

fn policy_to_wire(mode: SellingMode, reserve: ReserveRule) -> wire::SellingPolicy {
    wire::SellingPolicy {
        object: SellingPolicyTag,
        mode: mode.as_str().to_owned(),
        reserve_units: reserve.minimum_units,
        reserve_thousandths: reserve.fraction_thousandths,
    }
}

pub async fn policy(app: App, context: Context) -> Result<Answer> {
    let mode = app.compute.selling_mode(&context.actor).await?;
    json(&policy_to_wire(mode, app.compute.reserve(&context.actor).await?))
}

pub async fn set_policy(app: App, context: Context) -> Result<Answer> {
    let body: wire::SetSellingPolicy = context.body()?;
    let mode = body.mode.map(|mode| mode.parse::<SellingMode>()).transpose().map_err(|error| error.param("mode"))?;
    let mut reserve = app.compute.reserve(&context.actor).await?;
    let was = reserve;
    reserve.minimum_units = body.reserve_units.unwrap_or(reserve.minimum_units);
    reserve.fraction_thousandths = body.reserve_thousandths.unwrap_or(reserve.fraction_thousandths);
    if reserve != was {
        reserve = app.compute.set_reserve(&context.actor, reserve).await?;
    }
    let mode = match mode {
        Some(mode) => app.compute.set_selling_mode(&context.actor, mode).await?,
        None => app.compute.selling_mode(&context.actor).await?,
    };
    json(&policy_to_wire(mode, reserve))
}

/// What is known of the pools of each kind.
pub async fn pools(app: &App, context: &Context) -> Result<Vec<(String, PoolCapacity)>> {
    let pools = app.compute.list_pools(&context.actor).await?;
    pools.iter().map(|statement| Ok((statement.pool.kind.to_string(), pool_to_wire(statement)?))).collect()
}

fn pool_to_wire(statement: &PoolStatement) -> Result<PoolCapacity> {
    let curve = statement.curve.as_ref();
    let classes = NoticeClass::ALL.into_iter().enumerate().map(|(place, notice)| PoolLevel {
        notice,
        sold: statement.sold[place],
        level: curve.map(|curve| curve.levels[place].units),
        reason: curve.map(|curve| curve.levels[place].reason.to_string()),
    });
    let age = |curve: &StoredCurve| count(statement.as_of.since(curve.decided_at).seconds_ceil().max(0));
    let (figures, reported) = (&statement.figures, statement.reported.as_ref());
    Ok(PoolCapacity {
        site: statement.pool.site.clone(),
        owned: figures.total(),
        unhealthy: figures.total().saturating_sub(figures.capacity),
        reserve: statement.reserve,
        internal: figures.internal,
        outside: reported.map_or(0, |reported| reported.in_use),
        outside_reported_at: reported.map(|reported| reported.at.into()),
        idle: figures.idle,
        classes: classes.collect(),
        decided_at: curve.map(|curve| curve.decided_at.into()),
        age_seconds: curve.map(age).transpose()?,
        is_fresh: statement.is_fresh(),
        observed_from: statement.observed_from.map(Into::into),
    })
}
