//! Credit grants: prepaid and promotional.

use sublet_core::id::{CreditGrantId, OrganizationId};
use sublet_core::{Currency, Nanos, Result, Timestamp};

use sublet_money::account::CreditKind;

use crate::database::Tx;
use crate::page::{Page, PageRequest};
use crate::row::Row;
use crate::{list_sql, params};

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CreditGrant {
    pub id: CreditGrantId,
    pub organization: OrganizationId,
    /// `paid` or `promotional`.
    pub kind: String,
    pub amount: Nanos,
    pub currency: Currency,
    pub reference: String,
    pub expires_at: Option<Timestamp>,
    pub created_at: Timestamp,
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
        expires_at: row.optional_time()?,
        created_at: row.time()?,
    })
}

pub async fn insert(tx: &mut Tx, grant: &CreditGrant) -> Result<()> {
    tx.execute(
        "INSERT INTO credit_grants (id, organization_id, kind, amount, currency, reference, expires_at, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        params![
            grant.id.as_str(),
            grant.organization.as_str(),
            grant.kind.as_str(),
            grant.amount,
            grant.currency.as_str(),
            grant.reference.as_str(),
            grant.expires_at,
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
        "SELECT id, organization_id, kind, amount, currency, reference, expires_at, created_at FROM credit_grants
         WHERE organization_id = $1",
        "id",
        "2",
        "3"
    );
    let rows = tx.fetch_all(sql, &[organization.as_str().into(), key, limit]).await?;
    page.page(&rows, from_row)
}
