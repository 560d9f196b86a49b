//! Price-list versions: immutable once written.

use sublet_core::id::PriceListId;
use sublet_core::{Result, Timestamp};

use crate::database::Tx;
use crate::params;
use crate::row::Row;

/// One stored version; the body is the canonical text whose hash is `version`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredPriceVersion {
    pub list: PriceListId,
    pub number: i64,
    pub name: String,
    pub currency: String,
    pub version: String,
    pub effective_at: Timestamp,
    pub body: String,
    pub created_at: Timestamp,
}

fn from_row(row: &Row) -> Result<StoredPriceVersion> {
    let mut row = row.reader();
    Ok(StoredPriceVersion {
        list: row.parse()?,
        number: row.int()?,
        name: row.string()?,
        currency: row.string()?,
        version: row.string()?,
        effective_at: row.time()?,
        body: row.string()?,
        created_at: row.time()?,
    })
}

/// Most versions that are kept in memory; publishing more is refused by the use case.
pub const VERSIONS_MAX: i64 = 10_000;

pub async fn insert(tx: &mut Tx, version: &StoredPriceVersion) -> Result<()> {
    tx.execute(
        "INSERT INTO price_list_versions (price_list_id, number, name, currency, version, effective_at, body, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        params![
            version.list.as_str(),
            version.number,
            version.name.as_str(),
            version.currency.as_str(),
            version.version.as_str(),
            version.effective_at,
            version.body.as_str(),
            version.created_at
        ],
    )
    .await?;
    Ok(())
}

/// All versions, oldest first: price lists are public to every tenant.
pub async fn list(tx: &mut Tx) -> Result<Vec<StoredPriceVersion>> {
    let rows = tx
        .fetch_all(
            "SELECT price_list_id, number, name, currency, version, effective_at, body, created_at FROM price_list_versions
             ORDER BY price_list_id, number LIMIT $1",
            params![VERSIONS_MAX],
        )
        .await?;
    rows.iter().map(from_row).collect()
}
