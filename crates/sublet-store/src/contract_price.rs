//! The price lists that contracts have of their own, and when each version holds.
//!
//! A version is immutable and stays for as long as charges name it. When it holds may change until then.

use sublet_core::admission::PriceVersion;
use sublet_core::id::{ContractId, OrganizationId};
use sublet_core::{Error, Result, Timestamp};
use sublet_money::price_book::PriceListVersion;

use crate::database::Tx;
use crate::params;

/// Most stretches of prices that hold now or later: they are kept in memory.
pub const STRETCHES_MAX: i64 = 2_000;

/// When a version holds for the account of a contract.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PriceStretch {
    pub contract: ContractId,
    pub organization: OrganizationId,
    pub starts_at: Timestamp,
    /// `None`: as long as nothing else is agreed or published.
    pub ends_at: Option<Timestamp>,
    pub version: PriceVersion,
}

/// Keeps a version; one that is there already is the same.
pub async fn insert(tx: &mut Tx, contract: &ContractId, version: &PriceListVersion, now: Timestamp) -> Result<()> {
    tx.execute(
        "INSERT INTO contract_prices (version, contract_id, body, created_at) VALUES ($1, $2, $3, $4)
         ON CONFLICT (version) DO NOTHING",
        params![version.version().0.to_string(), contract.as_str(), version.canonical(), now],
    )
    .await?;
    Ok(())
}

/// The version of a hash, whoever's it is. It is not shown to others: charges name it.
pub async fn of_hash(tx: &mut Tx, version: &PriceVersion) -> Result<Option<PriceListVersion>> {
    let row = tx.fetch_optional("SELECT body FROM contract_prices WHERE version = $1", params![version.0.to_string()]).await?;
    row.map(|row| PriceListVersion::from_canonical(row.reader().text()?, version)).transpose()
}

/// The version that holds for a contract's account at an instant.
pub async fn find_at(
    tx: &mut Tx,
    organization: &OrganizationId,
    contract: &ContractId,
    at: Timestamp,
) -> Result<Option<PriceVersion>> {
    let row = tx
        .fetch_optional(
            "SELECT version FROM contract_price_times WHERE contract_id = $1 AND starts_at <= $2 AND (ends_at IS NULL OR ends_at > $2)
                 AND contract_id IN (SELECT id FROM contracts WHERE organization_id = $3)",
            params![contract.as_str(), at, organization.as_str()],
        )
        .await?;
    row.map(|row| Ok(PriceVersion(row.reader().text()?.into()))).transpose()
}

/// The version that holds for an account at an instant by its contract, if it has one then.
pub async fn find_of_account(tx: &mut Tx, organization: &OrganizationId, at: Timestamp) -> Result<Option<PriceVersion>> {
    let row = tx
        .fetch_optional(
            "SELECT version FROM contract_price_times WHERE starts_at <= $1 AND (ends_at IS NULL OR ends_at > $1)
                 AND contract_id IN (SELECT id FROM contracts WHERE organization_id = $2) ORDER BY starts_at DESC LIMIT 1",
            params![at, organization.as_str()],
        )
        .await?;
    row.map(|row| Ok(PriceVersion(row.reader().text()?.into()))).transpose()
}

/// Forgets what was to hold for a contract from an instant on.
pub async fn remove_from(tx: &mut Tx, contract: &ContractId, from: Timestamp) -> Result<()> {
    tx.execute("DELETE FROM contract_price_times WHERE contract_id = $1 AND starts_at >= $2", params![contract.as_str(), from])
        .await?;
    Ok(())
}

/// Says until when that holds which holds for a contract at an instant, if there is any.
pub async fn set_end(tx: &mut Tx, contract: &ContractId, at: Timestamp, ends_at: Option<Timestamp>) -> Result<()> {
    tx.execute(
        "UPDATE contract_price_times SET ends_at = $3
         WHERE contract_id = $1 AND starts_at <= $2 AND (ends_at IS NULL OR ends_at > $2)",
        params![contract.as_str(), at, ends_at],
    )
    .await?;
    Ok(())
}

/// Lets a version hold from an instant until another.
pub async fn insert_stretch(
    tx: &mut Tx,
    contract: &ContractId,
    version: &PriceVersion,
    (starts_at, ends_at): (Timestamp, Option<Timestamp>),
) -> Result<()> {
    tx.execute(
        "INSERT INTO contract_price_times (contract_id, starts_at, ends_at, version) VALUES ($1, $2, $3, $4)",
        params![contract.as_str(), starts_at, ends_at, version.0.to_string()],
    )
    .await?;
    Ok(())
}

/// What holds now or later for all accounts, by account and instant. More than [`STRETCHES_MAX`] is an error: the rest
/// would be sold at other prices than agreed.
pub async fn live(tx: &mut Tx, now: Timestamp) -> Result<Vec<PriceStretch>> {
    let rows = tx
        .fetch_all(
            "SELECT times.contract_id, contracts.organization_id, times.starts_at, times.ends_at, times.version
             FROM contract_price_times AS times JOIN contracts ON contracts.id = times.contract_id
             WHERE times.ends_at IS NULL OR times.ends_at > $1
             ORDER BY contracts.organization_id, times.starts_at LIMIT $2",
            params![now, STRETCHES_MAX + 1],
        )
        .await?;
    if i64::try_from(rows.len()).unwrap_or(i64::MAX) > STRETCHES_MAX {
        return Err(Error::internal(format!("more than {STRETCHES_MAX} prices by contract hold now or later")));
    }
    rows.iter()
        .map(|row| {
            let mut row = row.reader();
            Ok(PriceStretch {
                contract: row.parse()?,
                organization: row.parse()?,
                starts_at: row.time()?,
                ends_at: row.optional_time()?,
                version: PriceVersion(row.text()?.into()),
            })
        })
        .collect()
}

/// How many stretches hold now or later.
pub async fn count_live(tx: &mut Tx, now: Timestamp) -> Result<i64> {
    let row = tx.fetch_one("SELECT COUNT(*) FROM contract_price_times WHERE ends_at IS NULL OR ends_at > $1", params![now]).await?;
    row.reader().int()
}
