//! Quotes.

use std::collections::BTreeMap;

use sublet_core::id::{LeaseId, OrganizationId, ProjectId, QuoteId};
use sublet_core::quote::{QuoteState, QuoteTerms};
use sublet_core::{Error, ErrorCode, Result, Scope, Timestamp};

use crate::database::Tx;
use crate::page::{Page, PageRequest};
use crate::row::{Row, to_json};
use crate::{list_sql, params};

/// An offer with the terms it was made at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Quote {
    pub id: QuoteId,
    pub organization: OrganizationId,
    pub project: ProjectId,
    pub terms: QuoteTerms,
    /// As stored; [`QuoteState::at`] says what it is at an instant.
    pub state: QuoteState,
    pub lease: Option<LeaseId>,
    pub expires_at: Timestamp,
    pub created_at: Timestamp,
    pub metadata: BTreeMap<String, String>,
}

fn from_row(row: &Row) -> Result<Quote> {
    let mut row = row.reader();
    let (id, organization, project, terms) = (row.parse()?, row.parse()?, row.parse()?, row.json()?);
    let (state, lease, expires_at) = (row.string()?, row.optional_parse()?, row.time()?);
    let state = if state == "accepted" { QuoteState::Accepted } else { QuoteState::Open { expires_at } };
    Ok(Quote { id, organization, project, terms, state, lease, expires_at, created_at: row.time()?, metadata: row.json()? })
}

pub async fn insert(tx: &mut Tx, quote: &Quote) -> Result<()> {
    tx.execute(
        "INSERT INTO quotes (id, organization_id, project_id, terms, state, lease_id, expires_at, created_at, metadata)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        params![
            quote.id.as_str(),
            quote.organization.as_str(),
            quote.project.as_str(),
            to_json(&quote.terms)?,
            quote.state.as_str(),
            quote.lease.as_ref().map(LeaseId::as_str),
            quote.expires_at,
            quote.created_at,
            to_json(&quote.metadata)?
        ],
    )
    .await?;
    Ok(())
}

pub async fn get(tx: &mut Tx, scope: &Scope, id: &QuoteId) -> Result<Quote> {
    let row = tx
        .fetch_optional(
            "SELECT id, organization_id, project_id, terms, state, lease_id, expires_at, created_at, metadata FROM quotes WHERE id = $1",
            params![id.as_str()],
        )
        .await?;
    let quote = row.as_ref().map(from_row).transpose()?;
    quote
        .filter(|quote| crate::project::is_visible(scope, &quote.organization, &quote.project))
        .ok_or_else(|| Error::new(ErrorCode::NotFound, format!("there is no quote '{id}'")))
}

pub async fn list(tx: &mut Tx, scope: &Scope, page: &PageRequest) -> Result<Page<Quote>> {
    let (key, limit) = page.keyset();
    let sql = list_sql!(
        page,
        "SELECT id, organization_id, project_id, terms, state, lease_id, expires_at, created_at, metadata FROM quotes
         WHERE ($1 = '' OR organization_id = $1) AND ($2 = '' OR project_id = $2)",
        "id",
        "3",
        "4"
    );
    let organization = scope.organization().map_or("", OrganizationId::as_str);
    let project = scope.project().map_or("", ProjectId::as_str);
    let rows = tx.fetch_all(sql, &[organization.into(), project.into(), key, limit]).await?;
    page.page(&rows, from_row)
}

/// Marks a quote as taken. False if it was taken before.
pub async fn accept(tx: &mut Tx, id: &QuoteId, lease: &LeaseId) -> Result<bool> {
    let changed = tx
        .execute(
            "UPDATE quotes SET state = 'accepted', lease_id = $2 WHERE id = $1 AND state = 'open'",
            params![id.as_str(), lease.as_str()],
        )
        .await?;
    Ok(changed == 1)
}
