//! Who sells, and the taxes that it collects: the operator's own. Invoices have their copy.

use sublet_core::{Error, ErrorCode, Result, Timestamp};
use sublet_money::tax::{SellerProfile, TaxTable};

use crate::database::Tx;
use crate::row::to_json;
use crate::{params, setting};

/// Most images that are kept.
pub const LOGOS_MAX: i64 = 100;
/// The settings that have the profile and the table.
const SELLER: &str = "seller_profile";
const TAX_TABLE: &str = "tax_table";

fn read<T: serde::de::DeserializeOwned>(text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|cause| Error::internal(format!("a setting cannot be read: {cause}")))
}

pub async fn find(tx: &mut Tx) -> Result<Option<SellerProfile>> {
    setting::find(tx, SELLER).await?.as_deref().map(read).transpose()
}

pub async fn set(tx: &mut Tx, profile: &SellerProfile) -> Result<()> {
    setting::set(tx, SELLER, &to_json(profile)?).await
}

/// The taxes that are collected; none if nobody said any.
pub async fn get_taxes(tx: &mut Tx) -> Result<TaxTable> {
    Ok(setting::find(tx, TAX_TABLE).await?.as_deref().map(read).transpose()?.unwrap_or_default())
}

pub async fn set_taxes(tx: &mut Tx, table: &TaxTable) -> Result<()> {
    setting::set(tx, TAX_TABLE, &to_json(table)?).await
}

/// Keeps an image. One that is there stays.
pub async fn insert_logo(tx: &mut Tx, sha256: &str, body: &[u8], now: Timestamp) -> Result<()> {
    let count = tx.fetch_one("SELECT COUNT(*) FROM logos WHERE sha256 <> $1", params![sha256]).await?.reader().int()?;
    if count >= LOGOS_MAX {
        return Err(Error::new(ErrorCode::Conflict, format!("at most {LOGOS_MAX} images are kept for invoices"))
            .alternative("name one that is kept"));
    }
    tx.execute(
        "INSERT INTO logos (sha256, body, created_at) VALUES ($1, $2, $3) ON CONFLICT (sha256) DO NOTHING",
        params![sha256, body, now],
    )
    .await?;
    Ok(())
}

/// An image by its name.
pub async fn find_logo(tx: &mut Tx, sha256: &str) -> Result<Option<Vec<u8>>> {
    let row = tx.fetch_optional("SELECT body FROM logos WHERE sha256 = $1", params![sha256]).await?;
    row.map(|row| Ok(row.reader().bytes()?.to_vec())).transpose()
}
