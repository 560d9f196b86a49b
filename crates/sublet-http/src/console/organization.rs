//! Organizations as the operator sees them: who they are and what they have.

use askama::Template;
use axum::body::Body;
use http::Response;
use sublet_cloud::data::{CreditGrant, Organization, PageRequest};
use sublet_cloud::{Actor, Cloud};
use sublet_core::Result;
use sublet_core::id::OrganizationId;

use super::figure::{Amount, When};
use super::invoice::standing;
use super::request::After;
use super::shell::Shell;
use super::top_up_rule::RuleRow;
use super::visit::Visit;
use super::{Console, shell, top_up_rule};

/// Organizations on one page.
pub const ROWS_ON_PAGE: i64 = 50;

pub struct OrganizationRow {
    pub id: String,
    pub name: String,
    pub class: &'static str,
    pub zone: String,
    pub created: When,
    pub available: Amount,
    pub held: Amount,
    pub captured: Amount,
    pub deposited: Amount,
    pub credit_limit: Amount,
}

async fn row(cloud: &Cloud, actor: &Actor, organization: Organization) -> Result<OrganizationRow> {
    let balance = cloud.credit_balance(actor, &organization.id).await?;
    let amount = |nanos| Amount::new(nanos, balance.currency);
    let funds = balance.funds;
    Ok(OrganizationRow {
        id: organization.id.to_string(),
        name: organization.name,
        class: organization.class.as_str(),
        zone: organization.time_zone,
        created: When(organization.created_at),
        available: amount(funds.available),
        held: amount(funds.sliced.checked_add(funds.held)?),
        captured: amount(funds.captured),
        deposited: amount(funds.deposited),
        credit_limit: amount(funds.credit_limit),
    })
}

/// Organizations with their funds, and whether there are more.
pub async fn rows(cloud: &Cloud, actor: &Actor, page: &PageRequest) -> Result<(Vec<OrganizationRow>, bool)> {
    let found = cloud.list_organizations(actor, None, page).await?;
    let mut rows = Vec::with_capacity(found.items.len());
    for organization in found.items {
        rows.push(row(cloud, actor, organization).await?);
    }
    Ok((rows, found.has_more))
}

#[derive(Template)]
#[template(path = "organizations.html")]
struct OrganizationsPage {
    shell: Shell,
    organizations: Vec<OrganizationRow>,
    next: Option<String>,
}

pub async fn list(console: Console, visit: Visit) -> Result<Response<Body>> {
    let after = visit.guest.query::<After>()?.after;
    let page = PageRequest { limit: Some(ROWS_ON_PAGE), after, ..PageRequest::default() };
    let (organizations, has_more) = rows(&console.app.cloud, &visit.actor, &page).await?;
    let next = organizations.last().filter(|_| has_more).map(|last| last.id.clone());
    let shell = Shell::of(&console, &visit.actor, "Organizations", "/console/organizations").await?;
    shell::html(&OrganizationsPage { shell, organizations, next })
}

type GrantRow = (When, Amount, Option<When>, Option<Amount>, CreditGrant);

#[derive(Template)]
#[template(path = "organization.html")]
struct OrganizationPage {
    shell: Shell,
    organization: OrganizationRow,
    /// What is overdue, and what follows from it.
    standing: Vec<String>,
    /// When each was granted, what it was, when it ends and what is left, where that is told apart.
    grants: Vec<GrantRow>,
    /// What is charged by itself.
    rule: Option<RuleRow>,
}

pub async fn show(console: Console, visit: Visit) -> Result<Response<Body>> {
    let id: OrganizationId = visit.guest.path("id")?;
    let (cloud, actor) = (&console.app.cloud, &visit.actor);
    let found = cloud.get_organization(actor, &id).await?;
    let page = PageRequest { limit: Some(ROWS_ON_PAGE), ..PageRequest::default() };
    let standing = standing(&cloud.dunning(actor, &id).await?);
    let grants = cloud.list_credit(actor, &id, &page).await?.items;
    let grant = |grant: CreditGrant| {
        let amount = |nanos| Amount::new(nanos, grant.currency);
        (When(grant.created_at), amount(grant.amount), grant.terms.expires_at.map(When), grant.remaining.map(amount), grant)
    };
    let rule = top_up_rule::of(cloud, actor, &id).await?;
    let shell = Shell::of(&console, actor, found.name.clone(), "/console/organizations").await?;
    shell::html(&OrganizationPage {
        shell,
        organization: row(cloud, actor, found).await?,
        standing,
        grants: grants.into_iter().map(grant).collect(),
        rule,
    })
}
