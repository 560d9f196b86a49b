//! The owner's rules of what interrupted leases are owed: versions that are never changed, only followed by another.

use sublet_core::{Result, Timestamp};
use sublet_money::compensation::CompensationRules;

use crate::database::Tx;
use crate::params;
use crate::row::to_json;

/// The rules from an instant on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredRules {
    /// From 1; 0 are those that hold where none were set.
    pub version: i64,
    pub rules: CompensationRules,
    /// `None` for those that hold where none were set.
    pub created_at: Option<Timestamp>,
}

/// The rules that held at an instant.
pub async fn find_at(tx: &mut Tx, at: Timestamp) -> Result<StoredRules> {
    let row = tx
        .fetch_optional(
            "SELECT version, rules, created_at FROM compensation_rules WHERE created_at <= $1
             ORDER BY created_at DESC, version DESC LIMIT 1",
            params![at],
        )
        .await?;
    let Some(row) = row else {
        return Ok(StoredRules { version: 0, rules: CompensationRules::default(), created_at: None });
    };
    let mut row = row.reader();
    Ok(StoredRules { version: row.int()?, rules: row.json()?, created_at: Some(row.time()?) })
}

/// Rules that hold from an instant on.
pub async fn insert(tx: &mut Tx, rules: &CompensationRules, by: &str, at: Timestamp) -> Result<StoredRules> {
    let last = tx.fetch_one("SELECT COALESCE(MAX(version), 0) FROM compensation_rules", &[]).await?.reader().int()?;
    let version = last + 1;
    tx.execute(
        "INSERT INTO compensation_rules (version, rules, created_by, created_at) VALUES ($1, $2, $3, $4)",
        params![version, to_json(rules)?, by, at],
    )
    .await?;
    Ok(StoredRules { version, rules: rules.clone(), created_at: Some(at) })
}
