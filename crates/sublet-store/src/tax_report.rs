//! Documents with taxes that were issued in some time, of all tenants, and what was booked of taxes then: for the operator
//! only.

use std::collections::BTreeMap;

use sublet_core::id::{CreditNoteId, InvoiceId};
use sublet_core::{Currency, DurationMs, Error, Nanos, Result};
use sublet_money::account::LedgerAccount;
use sublet_money::invoice::Invoice;
use sublet_money::period::Interval;
use sublet_money::place::Jurisdiction;

use crate::credit_note::CreditNote;
use crate::database::Tx;
use crate::params;
use crate::row::Row;

/// Documents that are read at once.
pub const DOCUMENTS_PAGE: i64 = 500;
/// Accounts that are read at once.
const ACCOUNTS_PAGE: i64 = 5_000;
/// An invoice is issued at the instant that its month is noted as billed, or after it, where clocks were put back.
const SLACK: DurationMs = DurationMs::from_hours(24);

/// Invoices of which some may have been issued in that time, those behind an id, in the order of ids.
pub async fn invoices(tx: &mut Tx, when: Interval, after: Option<&InvoiceId>) -> Result<Vec<Invoice>> {
    let rows = tx
        .fetch_all(
            "SELECT i.body FROM invoices i JOIN closed_months m ON m.organization_id = i.organization_id AND m.period = i.period
             WHERE m.billed_at >= $1 AND m.billed_at < $2 AND i.number IS NOT NULL AND i.id > $3 ORDER BY i.id LIMIT $4",
            params![when.starts_at.minus(SLACK), when.ends_at, after.map_or("", InvoiceId::as_str), DOCUMENTS_PAGE],
        )
        .await?;
    rows.iter().map(|row| row.reader().json()).collect()
}

/// Credit notes that were issued in that time, with their invoices, those behind an id, in the order of ids.
pub async fn credit_notes(tx: &mut Tx, when: Interval, after: Option<&CreditNoteId>) -> Result<Vec<(CreditNote, Invoice)>> {
    let rows = tx
        .fetch_all(
            "SELECT n.id, n.number, n.invoice_id, n.organization_id, n.kind, n.amount, n.tax, n.currency, n.reason, n.issued_at, i.body
             FROM credit_notes n JOIN invoices i ON i.id = n.invoice_id
             WHERE n.issued_at >= $1 AND n.issued_at < $2 AND n.id > $3 ORDER BY n.id LIMIT $4",
            params![when.starts_at, when.ends_at, after.map_or("", CreditNoteId::as_str), DOCUMENTS_PAGE],
        )
        .await?;
    let read = |row: &Row| {
        let mut row = row.reader();
        let note = CreditNote {
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
        };
        Ok((note, row.json()?))
    };
    rows.iter().map(read).collect()
}

/// What was posted to the taxes of each jurisdiction in that time, as credits less debits.
pub async fn booked(tx: &mut Tx, when: Interval) -> Result<BTreeMap<(Currency, Jurisdiction), Nanos>> {
    let mut sums: BTreeMap<(Currency, Jurisdiction), Nanos> = BTreeMap::new();
    let mut after = String::new();
    loop {
        let rows = tx
            .fetch_all(
                "SELECT path, currency, CAST(COALESCE(SUM(amount), 0) AS BIGINT) FROM
                     (SELECT n.path AS path, e.currency AS currency, t.amount AS amount
                      FROM journal_entries e JOIN transfers t ON t.entry_id = e.id JOIN account_names n ON n.number = t.credit
                      WHERE e.posted_at >= $1 AND e.posted_at < $2 AND n.path LIKE 'liabilities:tax:%'
                      UNION ALL SELECT n.path AS path, e.currency AS currency, -t.amount AS amount
                      FROM journal_entries e JOIN transfers t ON t.entry_id = e.id JOIN account_names n ON n.number = t.debit
                      WHERE e.posted_at >= $1 AND e.posted_at < $2 AND n.path LIKE 'liabilities:tax:%') AS posted
                 WHERE path > $3 GROUP BY path, currency ORDER BY path LIMIT $4",
                params![when.starts_at, when.ends_at, after.as_str(), ACCOUNTS_PAGE],
            )
            .await?;
        let Some(last) = rows.last() else { return Ok(sums) };
        after = last.reader().string()?;
        for row in &rows {
            let mut row = row.reader();
            let account: LedgerAccount = row.parse()?;
            let jurisdiction = account.jurisdiction().ok_or_else(|| Error::internal(format!("{account} is of no tax")))?;
            let sum = sums.entry((row.parse()?, jurisdiction.clone())).or_default();
            *sum = sum.checked_add(row.nanos()?)?;
        }
    }
}
