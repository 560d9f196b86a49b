//! Invoices as documents: the draft of a period may be made again, what is issued never changes but in its state.

use sublet_core::id::{InvoiceId, OrganizationId};
use sublet_core::{Currency, Nanos, Result, Scope, Timestamp};
use sublet_money::invoice::Invoice;
use sublet_money::period::PeriodKey;
use sublet_money::receivable::Receivable;

use crate::database::Tx;
use crate::page::{Page, PageRequest};
use crate::row::{Row, to_json};
use crate::{list_sql, params};

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredInvoice {
    pub invoice: Invoice,
    /// By credit notes, without taxes.
    pub credited: Nanos,
    pub created_at: Timestamp,
}

impl StoredInvoice {
    pub const fn organization(&self) -> &OrganizationId {
        &self.invoice.content.account.organization
    }
    pub const fn period(&self) -> PeriodKey {
        self.invoice.content.period.key
    }
    pub const fn currency(&self) -> Currency {
        self.invoice.content.account.currency
    }
    /// What of its taxes credit notes gave back.
    pub fn credited_tax(&self) -> Result<Nanos> {
        Nanos::checked_sum(self.invoice.content.tax_given_back(self.credited)?)
    }
}

/// What an issued invoice says of gifts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Gifted {
    pub period: PeriodKey,
    pub total: Nanos,
    /// `None` of one without taxes.
    pub gifts: Option<Nanos>,
    /// Of its total, by credit notes.
    pub credited: Nanos,
}

/// Most invoices of one account: three hundred years of months.
const INVOICES_MAX: i64 = 3_612;

/// What the invoices before a month say of gifts, the oldest first.
pub async fn list_gifted(tx: &mut Tx, organization: &OrganizationId, before: PeriodKey) -> Result<Vec<Gifted>> {
    let rows = tx
        .fetch_all(
            "SELECT period, total, gifts, credited FROM invoices WHERE organization_id = $1 AND period < $2 AND state <> 'draft'
             ORDER BY period LIMIT $3",
            params![organization.as_str(), before.to_string(), INVOICES_MAX],
        )
        .await?;
    let read = |row: &Row| {
        let mut row = row.reader();
        Ok(Gifted { period: row.parse()?, total: row.nanos()?, gifts: row.optional_int()?.map(Nanos::new), credited: row.nanos()? })
    };
    rows.iter().map(read).collect()
}

fn from_row(row: &Row) -> Result<StoredInvoice> {
    let mut row = row.reader();
    Ok(StoredInvoice { invoice: row.json()?, credited: row.nanos()?, created_at: row.time()? })
}

/// The invoice of a period, if there is one.
pub async fn find_of_period(tx: &mut Tx, organization: &OrganizationId, period: PeriodKey) -> Result<Option<StoredInvoice>> {
    let row = tx
        .fetch_optional(
            "SELECT body, credited, created_at FROM invoices WHERE organization_id = $1 AND period = $2",
            params![organization.as_str(), period.to_string()],
        )
        .await?;
    row.as_ref().map(from_row).transpose()
}

/// Writes the invoice of a period over its draft. One that was issued is left as it is: `false`.
pub async fn put(tx: &mut Tx, stored: &StoredInvoice) -> Result<bool> {
    let StoredInvoice { invoice, credited, created_at } = stored;
    let written = tx
        .execute(
            "INSERT INTO invoices (id, organization_id, period, state, number, currency, total, credited, body, generation, created_at,
                 tax, gifts)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 1, $10, $11, $12)
             ON CONFLICT (organization_id, period) DO UPDATE SET state = excluded.state, number = excluded.number,
                 total = excluded.total, tax = excluded.tax, gifts = excluded.gifts, body = excluded.body, generation = invoices.generation + 1
             WHERE invoices.state = 'draft'",
            params![
                invoice.id.as_str(),
                stored.organization().as_str(),
                stored.period().to_string(),
                invoice.state.as_str(),
                invoice.number.map(|number| number.to_string()),
                stored.currency().as_str(),
                invoice.content.total,
                *credited,
                to_json(invoice)?,
                *created_at,
                invoice.content.tax_amount(),
                invoice.content.tax.as_ref().map(|tax| tax.gifts.get())
            ],
        )
        .await?;
    Ok(written == 1)
}

/// Moves an issued invoice on: its state, and what of it was credited.
pub async fn move_on(tx: &mut Tx, stored: &StoredInvoice) -> Result<()> {
    tx.execute(
        "UPDATE invoices SET state = $2, credited = $3, body = $4, credited_tax = $5, generation = generation + 1
         WHERE id = $1 AND state <> 'draft'",
        params![
            stored.invoice.id.as_str(),
            stored.invoice.state.as_str(),
            stored.credited,
            to_json(&stored.invoice)?,
            stored.credited_tax()?
        ],
    )
    .await?;
    Ok(())
}

pub async fn find(tx: &mut Tx, scope: &Scope, id: &InvoiceId) -> Result<Option<StoredInvoice>> {
    let row = tx.fetch_optional("SELECT body, credited, created_at FROM invoices WHERE id = $1", params![id.as_str()]).await?;
    let invoice = row.as_ref().map(from_row).transpose()?;
    Ok(invoice.filter(|invoice| scope.organization().is_none_or(|own| own == invoice.organization())))
}

/// Those of a filter that the scope may see.
pub async fn list(tx: &mut Tx, scope: &Scope, filter: &InvoiceFilter, page: &PageRequest) -> Result<Page<StoredInvoice>> {
    let (key, limit) = page.keyset();
    let sql = list_sql!(
        page,
        "SELECT body, credited, created_at FROM invoices WHERE ($1 = '' OR organization_id = $1) AND ($2 = '' OR state = $2)
             AND ($3 = '' OR organization_id = $3) AND ($4 = '' OR number = $4)",
        "id",
        "5",
        "6"
    );
    let own = scope.organization().map_or("", OrganizationId::as_str);
    let organization = filter.organization.as_ref().map_or("", OrganizationId::as_str);
    let (state, number) = (filter.state.unwrap_or(""), filter.number.as_deref().unwrap_or(""));
    let rows = tx.fetch_all(sql, &[own.into(), state.into(), organization.into(), number.into(), key, limit]).await?;
    page.page(&rows, from_row)
}

/// Issued invoices that are not known to be paid, the oldest first. At most `limit`.
pub async fn list_unpaid(tx: &mut Tx, organization: &OrganizationId, limit: i64) -> Result<Vec<StoredInvoice>> {
    let rows = tx
        .fetch_all(
            "SELECT body, credited, created_at FROM invoices WHERE organization_id = $1 AND state = 'issued' ORDER BY period LIMIT $2",
            params![organization.as_str(), limit],
        )
        .await?;
    rows.iter().map(from_row).collect()
}

/// An issued invoice among those of its account.
pub async fn receivable(tx: &mut Tx, stored: &StoredInvoice) -> Result<Receivable> {
    let row = tx
        .fetch_one(
            "SELECT CAST(COALESCE(SUM(CASE WHEN gross > back AND period < $2 THEN gross - back ELSE 0 END), 0) AS BIGINT),
                 CAST(COALESCE(SUM(CASE WHEN gross < back THEN back - gross ELSE 0 END), 0) AS BIGINT)
             FROM (SELECT organization_id, period, state, total + tax AS gross, credited + credited_tax AS back FROM invoices)
                 AS invoiced WHERE organization_id = $1 AND state <> 'draft'",
            params![stored.organization().as_str(), stored.period().to_string()],
        )
        .await?;
    let mut row = row.reader();
    let (before, given_back) = (row.nanos()?, row.nanos()?);
    let credited = stored.credited.checked_add(stored.credited_tax()?)?;
    Ok(Receivable { total: stored.invoice.content.gross()?, credited, before, given_back })
}

/// Forgets the draft of a month that has no invoice.
pub async fn delete_draft(tx: &mut Tx, organization: &OrganizationId, period: PeriodKey) -> Result<()> {
    tx.execute(
        "DELETE FROM invoices WHERE organization_id = $1 AND period = $2 AND state = 'draft'",
        params![organization.as_str(), period.to_string()],
    )
    .await?;
    Ok(())
}

/// Which invoices are wanted; what is left out does not matter.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct InvoiceFilter {
    /// As [`sublet_money::invoice::InvoiceState::as_str`] names it.
    pub state: Option<&'static str>,
    pub organization: Option<OrganizationId>,
    pub number: Option<String>,
}
