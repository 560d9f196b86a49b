//! The customer's home: money first, then what it was spent on.

use askama::Template;
use axum::body::Body;
use http::Response;
use sublet_cloud::data::PageRequest;
use sublet_core::key::KeyPlane;
use sublet_core::{Result, Scope};

use super::figure::{Amount, Count, Span};
use super::job::JobRow;
use super::key::KeyRow;
use super::limit::LimitRow;
use super::request::RequestRow;
use super::shell::Shell;
use super::usage::{CHART_DAYS, DayChart, ModelRow, SkuRow};
use super::visit::Visit;
use super::{Console, job, key, limit, operator, request, shell, usage};

/// Rows of each list on the home page.
const ROWS_ON_HOME: i64 = 8;

#[derive(Template)]
#[template(path = "customer.html")]
struct CustomerPage {
    shell: Shell,
    is_admin: bool,
    period: Span,
    spent: Amount,
    available: Amount,
    /// Part of what is available, if the account may go below zero.
    credit_limit: Option<Amount>,
    held: Amount,
    requests_total: Count,
    chart: Option<DayChart>,
    limits: Vec<LimitRow>,
    models: Vec<ModelRow>,
    skus: Vec<SkuRow>,
    requests: Vec<RequestRow>,
    jobs: Vec<JobRow>,
    keys: Vec<KeyRow>,
}

/// The first page, by the plane of the key.
pub async fn home_of_plane(console: Console, visit: Visit) -> Result<Response<Body>> {
    match visit.actor.plane {
        KeyPlane::Operator => operator::home(console, visit).await,
        KeyPlane::Project | KeyPlane::Admin => home(console, visit).await,
    }
}

async fn home(console: Console, visit: Visit) -> Result<Response<Body>> {
    let (cloud, actor) = (&console.app.cloud, &visit.actor);
    let id = actor.organization()?;
    let balance = cloud.credit_balance(actor, id).await?;
    let currency = balance.currency;
    let amount = |nanos| Amount::new(nanos, currency);
    let report = cloud.usage(actor, None).await?;
    let days = cloud.spend_by_day(actor, CHART_DAYS).await?;
    let is_admin = actor.plane == KeyPlane::Admin;
    let requests = match actor.scope {
        Scope::Project { .. } => request::rows(cloud, actor, None, ROWS_ON_HOME).await?.0,
        Scope::Operator | Scope::Organization(_) => Vec::new(),
    };
    let keys = if is_admin { key::rows(cloud, actor).await? } else { Vec::new() };
    let page = PageRequest { limit: Some(ROWS_ON_HOME), ..PageRequest::default() };
    let jobs = job::rows(&console, actor, &page).await?.0;
    let funds = balance.funds;
    shell::html(&CustomerPage {
        shell: Shell::of(&console, actor, "Overview", "/console").await?,
        is_admin,
        period: Span(report.interval),
        spent: amount(report.total),
        available: amount(funds.available),
        credit_limit: (!funds.credit_limit.is_zero()).then(|| amount(funds.credit_limit)),
        held: amount(report.held),
        requests_total: Count(report.models.iter().map(|model| model.requests).sum()),
        chart: usage::day_chart(&days, currency)?,
        limits: limit::rows(cloud, actor, currency).await?,
        models: usage::models(&report, currency),
        skus: usage::skus(&report.lines)?,
        requests,
        jobs,
        keys,
    })
}
