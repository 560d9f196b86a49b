//! How far the months of an account are closed. Months close in their order; what is charged to a closed one is
//! invoiced in the oldest that is open.

use sublet_core::id::OrganizationId;
use sublet_core::{Nanos, Result, Timestamp};
use sublet_money::period::PeriodKey;

use crate::database::Tx;
use crate::params;
use crate::row::Row;

/// Most months of an account: a century.
const MONTHS_MAX: i64 = 1_200;

/// The oldest month of an account that is not closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OpenMonth {
    pub period: PeriodKey,
    pub ends_at: Timestamp,
}

/// `None` for an account of which nobody looked yet whether a month is over; else also how often use of it was rated anew.
pub async fn find_open(tx: &mut Tx, organization: &OrganizationId) -> Result<Option<(OpenMonth, i64)>> {
    let row = tx
        .fetch_optional(
            "SELECT open_period, open_ends_at, rerates FROM billing_accounts WHERE organization_id = $1",
            params![organization.as_str()],
        )
        .await?;
    let Some(row) = row else { return Ok(None) };
    let mut row = row.reader();
    Ok(Some((OpenMonth { period: row.parse()?, ends_at: row.time()? }, row.int()?)))
}

/// Counts what was rated anew of an account, and says its number; the account is open. Every settlement reads what this
/// writes, so none of them misses it.
pub async fn count_rerate(tx: &mut Tx, organization: &OrganizationId) -> Result<i64> {
    let row = tx
        .fetch_one(
            "UPDATE billing_accounts SET rerates = rerates + 1 WHERE organization_id = $1 RETURNING rerates",
            params![organization.as_str()],
        )
        .await?;
    row.reader().int()
}

/// Says which month of an account is its first, unless that was said before.
pub async fn open(tx: &mut Tx, organization: &OrganizationId, month: &OpenMonth) -> Result<()> {
    tx.execute(
        "INSERT INTO billing_accounts (organization_id, open_period, open_ends_at) VALUES ($1, $2, $3)
         ON CONFLICT (organization_id) DO NOTHING",
        params![organization.as_str(), month.period.to_string(), month.ends_at],
    )
    .await?;
    Ok(())
}

/// Closes the oldest open month, after which another one is: its invoice comes next. `false` if it is not the oldest
/// open one.
pub async fn close(tx: &mut Tx, organization: &OrganizationId, closed: PeriodKey, next: &OpenMonth) -> Result<bool> {
    let moved = tx
        .execute(
            "UPDATE billing_accounts SET open_period = $3, open_ends_at = $4 WHERE organization_id = $1 AND open_period = $2",
            params![organization.as_str(), closed.to_string(), next.period.to_string(), next.ends_at],
        )
        .await?;
    if moved == 1 {
        tx.execute(
            "INSERT INTO closed_months (organization_id, period, billed_at, carry) VALUES ($1, $2, NULL, 0)",
            params![organization.as_str(), closed.to_string()],
        )
        .await?;
    }
    Ok(moved == 1)
}

/// Customers of whom nobody looked yet whether a month is over: those behind an id, in the order of ids.
pub async fn unopened(tx: &mut Tx, after: Option<&OrganizationId>, limit: i64) -> Result<Vec<OrganizationId>> {
    let rows = tx
        .fetch_all(
            "SELECT id FROM organizations WHERE id > $1 AND class IN ('external', 'partner') AND NOT EXISTS
                 (SELECT 1 FROM billing_accounts WHERE billing_accounts.organization_id = organizations.id) ORDER BY id LIMIT $2",
            params![after.map_or("", OrganizationId::as_str), limit],
        )
        .await?;
    rows.iter().map(|row| row.reader().parse()).collect()
}

/// Accounts whose oldest open month ended until then, or with a closed month that has no invoice yet: those behind an
/// id, in the order of ids.
pub async fn due(tx: &mut Tx, until: Timestamp, after: Option<&OrganizationId>, limit: i64) -> Result<Vec<OrganizationId>> {
    let rows = tx
        .fetch_all(
            "SELECT organization_id FROM billing_accounts WHERE open_ends_at <= $1 AND organization_id > $2
             UNION SELECT organization_id FROM closed_months WHERE billed_at IS NULL AND organization_id > $2
             ORDER BY organization_id LIMIT $3",
            params![until, after.map_or("", OrganizationId::as_str), limit],
        )
        .await?;
    rows.iter().map(|row| row.reader().parse()).collect()
}

fn period(row: &Row) -> Result<PeriodKey> {
    row.reader().parse()
}

/// A month that is closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClosedMonth {
    /// When its invoice was issued, or it was known to need none.
    pub billed_at: Option<Timestamp>,
}

/// `None` for a month that is open, or was over before anybody looked.
pub async fn find_closed(tx: &mut Tx, organization: &OrganizationId, period: PeriodKey) -> Result<Option<ClosedMonth>> {
    let row = tx
        .fetch_optional(
            "SELECT billed_at FROM closed_months WHERE organization_id = $1 AND period = $2",
            params![organization.as_str(), period.to_string()],
        )
        .await?;
    row.map(|row| Ok(ClosedMonth { billed_at: row.reader().optional_time()? })).transpose()
}

/// The oldest closed month without an invoice.
pub async fn find_unbilled(tx: &mut Tx, organization: &OrganizationId) -> Result<Option<PeriodKey>> {
    let row = tx
        .fetch_optional(
            "SELECT period FROM closed_months WHERE organization_id = $1 AND billed_at IS NULL ORDER BY period LIMIT 1",
            params![organization.as_str()],
        )
        .await?;
    row.as_ref().map(period).transpose()
}

/// Notes that a closed month has its invoice, or needs none, and the rounding after it. `false` if that was noted before.
pub async fn billed(
    tx: &mut Tx,
    (organization, period): (&OrganizationId, PeriodKey),
    carry: Nanos,
    now: Timestamp,
) -> Result<bool> {
    let noted = tx
        .execute(
            "UPDATE closed_months SET billed_at = $3, carry = $4 WHERE organization_id = $1 AND period = $2 AND billed_at IS NULL",
            params![organization.as_str(), period.to_string(), now, carry],
        )
        .await?;
    Ok(noted == 1)
}

/// The rounding of all invoices before a month, as far as they are issued.
pub async fn carry_before(tx: &mut Tx, organization: &OrganizationId, period: PeriodKey) -> Result<Nanos> {
    let row = tx
        .fetch_optional(
            "SELECT carry FROM closed_months WHERE organization_id = $1 AND period < $2 AND billed_at IS NOT NULL
             ORDER BY period DESC LIMIT 1",
            params![organization.as_str(), period.to_string()],
        )
        .await?;
    row.map_or(Ok(Nanos::ZERO), |row| row.reader().nanos())
}

/// Months that are closed and have their invoice, or are known to need none.
pub async fn list_billed(tx: &mut Tx, organization: &OrganizationId) -> Result<Vec<PeriodKey>> {
    let rows = tx
        .fetch_all(
            "SELECT period FROM closed_months WHERE organization_id = $1 AND billed_at IS NOT NULL ORDER BY period LIMIT $2",
            params![organization.as_str(), MONTHS_MAX],
        )
        .await?;
    rows.iter().map(period).collect()
}

/// Whether a month is closed and has its invoices, of an account or of all that get any.
pub async fn is_billed(tx: &mut Tx, organization: Option<&OrganizationId>, period: PeriodKey) -> Result<bool> {
    let row = tx
        .fetch_one(
            "SELECT (SELECT COUNT(*) FROM billing_accounts WHERE open_period <= $1 AND ($2 = '' OR organization_id = $2))
                 + (SELECT COUNT(*) FROM closed_months WHERE billed_at IS NULL AND period <= $1 AND ($2 = '' OR organization_id = $2))
                 + (SELECT COUNT(*) FROM organizations WHERE class IN ('external', 'partner') AND ($2 = '' OR id = $2) AND NOT EXISTS
                     (SELECT 1 FROM billing_accounts WHERE billing_accounts.organization_id = organizations.id))",
            params![period.to_string(), organization.map_or("", OrganizationId::as_str)],
        )
        .await?;
    Ok(row.reader().int()? == 0)
}
