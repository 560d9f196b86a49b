//! Small facts about the cloud itself, such as which organizations the first start created.

use sublet_core::Result;

use crate::database::Tx;
use crate::params;

pub async fn find(tx: &mut Tx, name: &str) -> Result<Option<String>> {
    let row = tx.fetch_optional("SELECT value FROM settings WHERE name = $1", params![name]).await?;
    row.map(|row| row.reader().string()).transpose()
}

pub async fn set(tx: &mut Tx, name: &str, value: &str) -> Result<()> {
    tx.execute(
        "INSERT INTO settings (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        params![name, value],
    )
    .await?;
    Ok(())
}
