//! Requests to models: counts and money, never content.

use askama::Template;
use axum::body::Body;
use http::Response;
use serde::Deserialize;
use sublet_cloud::data::{PageRequest, UsageEvent};
use sublet_cloud::{Actor, Cloud};
use sublet_core::Result;

use super::figure::{Amount, Count, When, duration_text};
use super::shell::Shell;
use super::visit::Visit;
use super::{Console, shell};

const ROWS_ON_PAGE: i64 = 50;

pub struct RequestRow {
    pub id: String,
    pub at: When,
    pub model: String,
    pub input: Count,
    pub output: Count,
    pub outcome: &'static str,
    pub took: String,
    pub cost: Amount,
    pub quarantined: bool,
}

fn row(event: UsageEvent) -> RequestRow {
    let record = event.record;
    RequestRow {
        at: When(record.admitted_at),
        input: Count(record.tokens.input.get().saturating_add(record.tokens.cached_input.get())),
        output: Count(record.tokens.output.get()),
        outcome: record.outcome.as_str(),
        took: duration_text(record.finished_at.since(record.admitted_at)),
        cost: Amount::new(event.amount, event.currency),
        quarantined: event.quarantine.is_some(),
        id: record.request.to_string(),
        model: record.model,
    }
}

/// The newest requests of the actor's project, after one of them, and whether there are more.
pub async fn rows(cloud: &Cloud, actor: &Actor, after: Option<String>, limit: i64) -> Result<(Vec<RequestRow>, bool)> {
    let page = PageRequest { limit: Some(limit), after, ..PageRequest::default() };
    let found = cloud.list_requests(actor, &page).await?;
    Ok((found.items.into_iter().map(row).collect(), found.has_more))
}

#[derive(Template)]
#[template(path = "requests.html")]
struct RequestsPage {
    shell: Shell,
    requests: Vec<RequestRow>,
    next: Option<String>,
}

/// Which part of a list is shown.
#[derive(Default, Deserialize)]
pub struct After {
    #[serde(default)]
    pub after: Option<String>,
}

pub async fn list(console: Console, visit: Visit) -> Result<Response<Body>> {
    let after = visit.guest.query::<After>()?.after;
    let (requests, has_more) = rows(&console.app.cloud, &visit.actor, after, ROWS_ON_PAGE).await?;
    let next = requests.last().filter(|_| has_more).map(|last| last.id.clone());
    let shell = Shell::of(&console, &visit.actor, "Requests", "/console/requests").await?;
    shell::html(&RequestsPage { shell, requests, next })
}
