//! What supply costs the owner, as he declares it: versions that are never changed. No tenant sees them.

use sublet_core::{Currency, Error, ErrorCode, Result, Timestamp};
use sublet_money::period::PeriodKey;
use sublet_money::supply_cost::SupplyCost;

use crate::database::Tx;
use crate::params;
use crate::row::Row;

/// Most versions in one currency.
pub const VERSIONS_MAX: i64 = 1_000;
/// Most versions in one listing.
pub const LISTED_MAX: i64 = 10_000;

/// One version, as it was published.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredSupplyCost {
    pub cost: SupplyCost,
    /// Counts the versions in its currency from 1.
    pub number: i64,
    pub created_at: Timestamp,
}

fn from_row(row: &Row) -> Result<StoredSupplyCost> {
    let mut row = row.reader();
    let version = row.string()?;
    Ok(StoredSupplyCost { cost: SupplyCost::from_canonical(row.text()?, &version)?, number: row.int()?, created_at: row.time()? })
}

/// Adds the next version in its currency.
pub async fn insert(tx: &mut Tx, stored: &StoredSupplyCost) -> Result<()> {
    if stored.number > VERSIONS_MAX {
        return Err(Error::new(ErrorCode::Conflict, format!("costs in a currency have at most {VERSIONS_MAX} versions")));
    }
    let content = stored.cost.content();
    tx.execute(
        "INSERT INTO supply_costs (version, number, currency, period, body, created_at) VALUES ($1, $2, $3, $4, $5, $6)",
        params![
            stored.cost.version(),
            stored.number,
            content.currency.as_str(),
            content.month.to_string(),
            stored.cost.canonical(),
            stored.created_at
        ],
    )
    .await?;
    Ok(())
}

pub async fn find(tx: &mut Tx, version: &str) -> Result<Option<StoredSupplyCost>> {
    let sql = "SELECT version, body, number, created_at FROM supply_costs WHERE version = $1";
    tx.fetch_optional(sql, params![version]).await?.as_ref().map(from_row).transpose()
}

/// The version that was published last.
pub async fn find_last(tx: &mut Tx, currency: Currency) -> Result<Option<StoredSupplyCost>> {
    let sql = "SELECT version, body, number, created_at FROM supply_costs WHERE currency = $1 ORDER BY number DESC LIMIT 1";
    tx.fetch_optional(sql, params![currency.as_str()]).await?.as_ref().map(from_row).transpose()
}

/// The version in force in a month.
pub async fn find_in_force(tx: &mut Tx, currency: Currency, month: PeriodKey) -> Result<Option<StoredSupplyCost>> {
    let row = tx
        .fetch_optional(
            "SELECT version, body, number, created_at FROM supply_costs WHERE currency = $1 AND period <= $2
             ORDER BY period DESC, number DESC LIMIT 1",
            params![currency.as_str(), month.to_string()],
        )
        .await?;
    row.as_ref().map(from_row).transpose()
}

/// All versions in all currencies, oldest first.
pub async fn list(tx: &mut Tx) -> Result<Vec<StoredSupplyCost>> {
    let sql = "SELECT version, body, number, created_at FROM supply_costs ORDER BY currency, number LIMIT $1";
    tx.fetch_all(sql, params![LISTED_MAX]).await?.iter().map(from_row).collect()
}
