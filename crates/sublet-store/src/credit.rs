//! Credit grants: prepaid and promotional; and the lots of those that do not burn like any other.

use sublet_core::id::{CreditGrantId, OrganizationId};
use sublet_core::{Currency, Error, Nanos, Result, Timestamp};
use sublet_money::account::CreditKind;
use sublet_money::credit_lot::{CreditLot, CreditTerms, LOTS_MAX};

use crate::database::Tx;
use crate::page::{Page, PageRequest};
use crate::row::{Row, RowReader};
use crate::{list_sql, params};

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CreditGrant {
    pub id: CreditGrantId,
    pub organization: OrganizationId,
    /// `paid`, `promotional`, or `committed` of a contract.
    pub kind: String,
    pub amount: Nanos,
    pub currency: Currency,
    pub reference: String,
    pub terms: CreditTerms,
    pub created_at: Timestamp,
    /// What is left of it, where that is told apart: of credit that expires, has a priority or a scope.
    pub remaining: Option<Nanos>,
}

fn from_row(row: &Row) -> Result<CreditGrant> {
    let mut row = row.reader();
    Ok(CreditGrant {
        id: row.parse()?,
        organization: row.parse()?,
        kind: row.string()?,
        amount: row.nanos()?,
        currency: row.parse()?,
        reference: row.string()?,
        terms: terms(&mut row)?,
        created_at: row.time()?,
        remaining: row.optional_int()?.map(Nanos::new),
    })
}

fn terms(row: &mut RowReader<'_>) -> Result<CreditTerms> {
    let priority = u16::try_from(row.int()?).map_err(|_| Error::internal("a priority is out of range"))?;
    Ok(CreditTerms { priority, expires_at: row.optional_time()?, scope: row.parse()? })
}

pub async fn insert(tx: &mut Tx, grant: &CreditGrant) -> Result<()> {
    tx.execute(
        "INSERT INTO credit_grants (id, organization_id, kind, amount, currency, reference, priority, expires_at, scope, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        params![
            grant.id.as_str(),
            grant.organization.as_str(),
            grant.kind.as_str(),
            grant.amount,
            grant.currency.as_str(),
            grant.reference.as_str(),
            i64::from(grant.terms.priority),
            grant.terms.expires_at,
            grant.terms.scope.to_string(),
            grant.created_at
        ],
    )
    .await?;
    Ok(())
}

/// All promotional credit that was granted before an instant.
pub async fn sum_given(tx: &mut Tx, organization: &OrganizationId, before: Timestamp) -> Result<Nanos> {
    let row = tx
        .fetch_one(
            "SELECT CAST(COALESCE(SUM(amount), 0) AS BIGINT) FROM credit_grants
             WHERE organization_id = $1 AND kind = $2 AND created_at < $3",
            params![organization.as_str(), CreditKind::Promotional.as_str(), before],
        )
        .await?;
    row.reader().nanos()
}

pub async fn list(tx: &mut Tx, organization: &OrganizationId, page: &PageRequest) -> Result<Page<CreditGrant>> {
    let (key, limit) = page.keyset();
    let sql = list_sql!(
        page,
        "SELECT id, credit_grants.organization_id, credit_grants.kind, amount, currency, reference, credit_grants.priority,
             credit_grants.expires_at, credit_grants.scope, created_at, remaining
         FROM credit_grants LEFT JOIN credit_lots ON grant_id = id WHERE credit_grants.organization_id = $1",
        "id",
        "2",
        "3"
    );
    let rows = tx.fetch_all(sql, &[organization.as_str().into(), key, limit]).await?;
    page.page(&rows, from_row)
}

fn lot_from_row(row: &Row) -> Result<CreditLot> {
    let mut row = row.reader();
    let (id, kind) = (row.parse()?, row.text()?);
    let kind = CreditKind::ALL.into_iter().find(|known| known.as_str() == kind);
    let kind = kind.ok_or_else(|| Error::internal("a lot is of no kind of credit"))?;
    Ok(CreditLot { id, kind, terms: terms(&mut row)?, remaining: row.nanos()? })
}

pub async fn insert_lot(tx: &mut Tx, organization: &OrganizationId, lot: &CreditLot) -> Result<()> {
    tx.execute(
        "INSERT INTO credit_lots (grant_id, organization_id, kind, priority, expires_at, scope, remaining)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
        params![
            lot.id.as_str(),
            organization.as_str(),
            lot.kind.as_str(),
            i64::from(lot.terms.priority),
            lot.terms.expires_at,
            lot.terms.scope.to_string(),
            lot.remaining
        ],
    )
    .await?;
    Ok(())
}

/// Most lots that are read at once: those of which some is spent elsewhere can come back.
const LOTS_READ_MAX: usize = 10 * LOTS_MAX;

/// Lots of an account in which anything is left.
pub async fn list_lots(tx: &mut Tx, organization: &OrganizationId) -> Result<Vec<CreditLot>> {
    let rows = tx
        .fetch_all(
            "SELECT grant_id, kind, priority, expires_at, scope, remaining FROM credit_lots
             WHERE organization_id = $1 AND remaining > 0 ORDER BY grant_id LIMIT $2",
            params![organization.as_str(), i64::try_from(LOTS_READ_MAX).unwrap_or(i64::MAX)],
        )
        .await?;
    if rows.len() == LOTS_READ_MAX {
        return Err(Error::internal(format!("{organization} has {LOTS_READ_MAX} lots of credit")));
    }
    rows.iter().map(lot_from_row).collect()
}

pub async fn set_remaining(tx: &mut Tx, lot: &CreditGrantId, remaining: Nanos) -> Result<()> {
    tx.execute("UPDATE credit_lots SET remaining = $2 WHERE grant_id = $1", params![lot.as_str(), remaining]).await?;
    Ok(())
}

/// Puts back what was taken from a lot.
pub async fn give_back(tx: &mut Tx, lot: &CreditGrantId, amount: Nanos) -> Result<()> {
    tx.execute("UPDATE credit_lots SET remaining = remaining + $2 WHERE grant_id = $1", params![lot.as_str(), amount]).await?;
    Ok(())
}

/// Accounts with credit that is over and still there: those behind an id, in the order of ids.
pub async fn expired(tx: &mut Tx, now: Timestamp, after: Option<&OrganizationId>, limit: i64) -> Result<Vec<OrganizationId>> {
    let rows = tx
        .fetch_all(
            "SELECT DISTINCT organization_id FROM credit_lots
             WHERE remaining > 0 AND expires_at IS NOT NULL AND expires_at <= $1 AND organization_id > $2
             ORDER BY organization_id LIMIT $3",
            params![now, after.map_or("", OrganizationId::as_str), limit],
        )
        .await?;
    rows.iter().map(|row| row.reader().parse()).collect()
}
