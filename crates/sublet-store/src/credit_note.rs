//! Credit notes: what was taken back of issued invoices.

use sublet_core::id::{CreditNoteId, InvoiceId, OrganizationId};
use sublet_core::{Currency, Nanos, Result, Scope, Timestamp};
use sublet_money::account::CreditKind;
use sublet_money::document::DocumentNumber;

use crate::database::Tx;
use crate::page::{Page, PageRequest};
use crate::row::Row;
use crate::{list_sql, params};

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CreditNote {
    pub id: CreditNoteId,
    pub number: DocumentNumber,
    pub invoice: InvoiceId,
    pub organization: OrganizationId,
    /// What the customer got.
    pub kind: CreditKind,
    pub amount: Nanos,
    /// Of the invoice's taxes, besides.
    pub tax: Nanos,
    pub currency: Currency,
    pub reason: String,
    pub issued_at: Timestamp,
}

fn from_row(row: &Row) -> Result<CreditNote> {
    let mut row = row.reader();
    Ok(CreditNote {
        id: row.parse()?,
        number: row.parse()?,
        invoice: row.parse()?,
        organization: row.parse()?,
        kind: row.parse()?,
        amount: row.nanos()?,
        tax: row.nanos()?,
        currency: row.parse()?,
        reason: row.string()?,
        issued_at: row.time()?,
    })
}

pub async fn insert(tx: &mut Tx, note: &CreditNote) -> Result<()> {
    tx.execute(
        "INSERT INTO credit_notes (id, number, invoice_id, organization_id, kind, amount, tax, currency, reason, issued_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        params![
            note.id.as_str(),
            note.number.to_string(),
            note.invoice.as_str(),
            note.organization.as_str(),
            note.kind.as_str(),
            note.amount,
            note.tax,
            note.currency.as_str(),
            note.reason.as_str(),
            note.issued_at
        ],
    )
    .await?;
    Ok(())
}

/// One of an invoice that the scope may see, by its number or id.
pub async fn find(tx: &mut Tx, scope: &Scope, (invoice, name): (&InvoiceId, &str)) -> Result<Option<CreditNote>> {
    let organization = scope.organization().map_or("", OrganizationId::as_str);
    let row = tx
        .fetch_optional(
            "SELECT id, number, invoice_id, organization_id, kind, amount, tax, currency, reason, issued_at FROM credit_notes
             WHERE ($1 = '' OR organization_id = $1) AND invoice_id = $2 AND (id = $3 OR number = $3)",
            params![organization, invoice.as_str(), name],
        )
        .await?;
    row.as_ref().map(from_row).transpose()
}

/// What notes of an invoice that were issued before one come to.
pub async fn sum_before(tx: &mut Tx, invoice: &InvoiceId, note: &CreditNote) -> Result<Nanos> {
    let row = tx
        .fetch_one(
            "SELECT CAST(COALESCE(SUM(amount), 0) AS BIGINT) FROM credit_notes WHERE invoice_id = $1 AND number < $2",
            params![invoice.as_str(), note.number.to_string()],
        )
        .await?;
    row.reader().nanos()
}

/// What notes took back of an invoice's total until an instant.
pub async fn sum_until(tx: &mut Tx, invoice: &InvoiceId, until: Timestamp) -> Result<Nanos> {
    let row = tx
        .fetch_one(
            "SELECT CAST(COALESCE(SUM(amount), 0) AS BIGINT) FROM credit_notes WHERE invoice_id = $1 AND issued_at <= $2",
            params![invoice.as_str(), until],
        )
        .await?;
    row.reader().nanos()
}

/// Those of one invoice, or all that the scope may see.
pub async fn list(tx: &mut Tx, scope: &Scope, invoice: Option<&InvoiceId>, page: &PageRequest) -> Result<Page<CreditNote>> {
    let (key, limit) = page.keyset();
    let sql = list_sql!(
        page,
        "SELECT id, number, invoice_id, organization_id, kind, amount, tax, currency, reason, issued_at FROM credit_notes
         WHERE ($1 = '' OR organization_id = $1) AND ($2 = '' OR invoice_id = $2)",
        "id",
        "3",
        "4"
    );
    let organization = scope.organization().map_or("", OrganizationId::as_str);
    let rows = tx.fetch_all(sql, &[organization.into(), invoice.map_or("", InvoiceId::as_str).into(), key, limit]).await?;
    page.page(&rows, from_row)
}
