//! Invoices as documents: the draft of a period may be made again, what is issued never changes.

use sublet_core::id::{InvoiceId, OrganizationId};
use sublet_core::{Currency, Nanos, Result, Scope, Timestamp};
use sublet_money::period::PeriodKey;

use crate::database::Tx;
use crate::page::{Page, PageRequest};
use crate::row::Row;
use crate::{list_sql, params};

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredInvoice {
    pub id: InvoiceId,
    pub organization: OrganizationId,
    pub period: PeriodKey,
    /// `draft` or `issued`.
    pub state: String,
    pub currency: Currency,
    pub total: Nanos,
    /// The document, as JSON.
    pub body: String,
    pub generation: i64,
    pub created_at: Timestamp,
}

fn from_row(row: &Row) -> Result<StoredInvoice> {
    let mut row = row.reader();
    Ok(StoredInvoice {
        id: row.parse()?,
        organization: row.parse()?,
        period: row.parse()?,
        state: row.string()?,
        currency: row.parse()?,
        total: row.nanos()?,
        body: row.string()?,
        generation: row.int()?,
        created_at: row.time()?,
    })
}

/// The invoice of a period, if there is one.
pub async fn find_of_period(tx: &mut Tx, organization: &OrganizationId, period: PeriodKey) -> Result<Option<StoredInvoice>> {
    let row = tx
        .fetch_optional(
            "SELECT id, organization_id, period, state, currency, total, body, generation, created_at FROM invoices
             WHERE organization_id = $1 AND period = $2",
            params![organization.as_str(), period.to_string()],
        )
        .await?;
    row.as_ref().map(from_row).transpose()
}

/// Writes a draft, or replaces the period's draft. An issued invoice is left as it is.
pub async fn put_draft(tx: &mut Tx, invoice: &StoredInvoice) -> Result<()> {
    tx.execute(
        "INSERT INTO invoices (id, organization_id, period, state, currency, total, body, generation, created_at)
         VALUES ($1, $2, $3, 'draft', $4, $5, $6, $7, $8)
         ON CONFLICT (organization_id, period) DO UPDATE SET total = excluded.total, body = excluded.body,
             generation = invoices.generation + 1 WHERE invoices.state = 'draft'",
        params![
            invoice.id.as_str(),
            invoice.organization.as_str(),
            invoice.period.to_string(),
            invoice.currency.as_str(),
            invoice.total,
            invoice.body.as_str(),
            invoice.generation,
            invoice.created_at
        ],
    )
    .await?;
    Ok(())
}

pub async fn find(tx: &mut Tx, scope: &Scope, id: &InvoiceId) -> Result<Option<StoredInvoice>> {
    let row = tx
        .fetch_optional(
            "SELECT id, organization_id, period, state, currency, total, body, generation, created_at FROM invoices WHERE id = $1",
            params![id.as_str()],
        )
        .await?;
    let invoice = row.as_ref().map(from_row).transpose()?;
    Ok(invoice.filter(|invoice| scope.organization().is_none_or(|own| *own == invoice.organization)))
}

pub async fn list(tx: &mut Tx, scope: &Scope, page: &PageRequest) -> Result<Page<StoredInvoice>> {
    let (key, limit) = page.keyset();
    let sql = list_sql!(
        page,
        "SELECT id, organization_id, period, state, currency, total, body, generation, created_at FROM invoices
         WHERE ($1 = '' OR organization_id = $1)",
        "id",
        "2",
        "3"
    );
    let rows = tx.fetch_all(sql, &[scope.organization().map_or("", OrganizationId::as_str).into(), key, limit]).await?;
    page.page(&rows, from_row)
}
