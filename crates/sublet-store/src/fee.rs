//! Fees that were charged once. The money is in their charges; here is what the operator wrote. Rows are never changed.

use sublet_core::admission::PriceVersion;
use sublet_core::id::{FeeId, OrganizationId, ProjectId};
use sublet_core::{Currency, Nanos, Result, Scope, Timestamp};
use sublet_money::sku::{FeeName, Quantity};

use crate::database::Tx;
use crate::page::{Page, PageRequest};
use crate::row::Row;
use crate::{list_sql, params};

/// A fee that was charged.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredFee {
    pub id: FeeId,
    pub organization: OrganizationId,
    pub project: ProjectId,
    pub name: FeeName,
    pub quantity: Quantity,
    pub amount: Nanos,
    pub currency: Currency,
    pub price_version: PriceVersion,
    /// What the customer reads.
    pub note: String,
    pub created_by: String,
    pub created_at: Timestamp,
}

fn from_row(row: &Row) -> Result<StoredFee> {
    let mut row = row.reader();
    Ok(StoredFee {
        id: row.parse()?,
        organization: row.parse()?,
        project: row.parse()?,
        name: row.parse()?,
        quantity: Quantity::new(row.int()?)?,
        amount: row.nanos()?,
        currency: row.parse()?,
        price_version: PriceVersion(row.text()?.into()),
        note: row.string()?,
        created_by: row.string()?,
        created_at: row.time()?,
    })
}

pub async fn insert(tx: &mut Tx, fee: &StoredFee) -> Result<()> {
    tx.execute(
        "INSERT INTO fees (id, organization_id, project_id, name, quantity, amount, currency, price_version, note, created_by,
             created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        params![
            fee.id.as_str(),
            fee.organization.as_str(),
            fee.project.as_str(),
            fee.name.as_str(),
            fee.quantity.get(),
            fee.amount,
            fee.currency.as_str(),
            fee.price_version.0.to_string(),
            fee.note.as_str(),
            fee.created_by.as_str(),
            fee.created_at
        ],
    )
    .await?;
    Ok(())
}

/// Those of one account, or of all; newest or oldest first.
pub async fn list(
    tx: &mut Tx,
    scope: &Scope,
    organization: Option<&OrganizationId>,
    page: &PageRequest,
) -> Result<Page<StoredFee>> {
    let (key, limit) = page.keyset();
    let sql = list_sql!(
        page,
        "SELECT id, organization_id, project_id, name, quantity, amount, currency, price_version, note, created_by, created_at
         FROM fees WHERE ($1 = '' OR organization_id = $1)",
        "id",
        "2",
        "3"
    );
    let owner = scope.organization().or(organization).map_or("", OrganizationId::as_str);
    let rows = tx.fetch_all(sql, &[owner.into(), key, limit]).await?;
    page.page(&rows, from_row)
}
