//! The audit log: who did what, from where, when, with what result.

use askama::Template;
use axum::body::Body;
use http::Response;
use sublet_cloud::data::{AuditEntry, PageRequest};
use sublet_cloud::{Actor, Cloud};
use sublet_core::Result;

use super::figure::When;
use super::request::After;
use super::shell::Shell;
use super::visit::Visit;
use super::{Console, shell};

const ROWS_ON_PAGE: i64 = 50;

pub struct AuditRow {
    pub at: When,
    pub entry: AuditEntry,
}

pub async fn rows(cloud: &Cloud, actor: &Actor, page: &PageRequest) -> Result<(Vec<AuditRow>, bool)> {
    let found = cloud.list_audit(actor, page).await?;
    Ok((found.items.into_iter().map(|entry| AuditRow { at: When(entry.occurred_at), entry }).collect(), found.has_more))
}

#[derive(Template)]
#[template(path = "audit.html")]
struct AuditPage {
    shell: Shell,
    audit: Vec<AuditRow>,
    next: Option<String>,
}

pub async fn list(console: Console, visit: Visit) -> Result<Response<Body>> {
    let after = visit.guest.query::<After>()?.after;
    let page = PageRequest { limit: Some(ROWS_ON_PAGE), after, ..PageRequest::default() };
    let (audit, has_more) = rows(&console.app.cloud, &visit.actor, &page).await?;
    let next = audit.last().filter(|_| has_more).map(|last| last.entry.id.to_string());
    let shell = Shell::of(&console, &visit.actor, "Audit log", "/console/audit").await?;
    shell::html(&AuditPage { shell, audit, next })
}
