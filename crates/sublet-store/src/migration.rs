//! Schema versions: forward only, each in its own transaction.

use sublet_core::{Error, ErrorCode, Result};

use crate::database::{Store, Tx};
use crate::params;

struct Migration {
    version: i64,
    name: &'static str,
    sql: &'static str,
}

const MIGRATIONS: &[Migration] = &[
    Migration { version: 1, name: "foundation", sql: include_str!("../migrations/0001_foundation.sql") },
    Migration { version: 2, name: "changes", sql: include_str!("../migrations/0002_changes.sql") },
    Migration { version: 3, name: "old_answers", sql: include_str!("../migrations/0003_old_answers.sql") },
    Migration { version: 4, name: "remote_models", sql: include_str!("../migrations/0004_remote_models.sql") },
    Migration { version: 5, name: "batches", sql: include_str!("../migrations/0005_batches.sql") },
    Migration { version: 6, name: "model_cards", sql: include_str!("../migrations/0006_model_cards.sql") },
    Migration { version: 7, name: "batch_counts", sql: include_str!("../migrations/0007_batch_counts.sql") },
    Migration { version: 8, name: "rate_limits", sql: include_str!("../migrations/0008_rate_limits.sql") },
    Migration { version: 9, name: "responses", sql: include_str!("../migrations/0009_responses.sql") },
    Migration { version: 10, name: "suppliers", sql: include_str!("../migrations/0010_suppliers.sql") },
    Migration { version: 11, name: "batch_answers", sql: include_str!("../migrations/0011_batch_answers.sql") },
    Migration { version: 12, name: "tokenizers", sql: include_str!("../migrations/0012_tokenizers.sql") },
    Migration { version: 13, name: "price_bands", sql: include_str!("../migrations/0013_price_bands.sql") },
    Migration { version: 14, name: "closed_months", sql: include_str!("../migrations/0014_closed_months.sql") },
    Migration { version: 15, name: "seals", sql: include_str!("../migrations/0015_seals.sql") },
    Migration { version: 16, name: "contracts", sql: include_str!("../migrations/0016_contracts.sql") },
    Migration { version: 17, name: "supply_costs", sql: include_str!("../migrations/0017_supply_costs.sql") },
    Migration { version: 18, name: "charge_hours", sql: include_str!("../migrations/0018_charge_hours.sql") },
    Migration { version: 19, name: "taxes", sql: include_str!("../migrations/0019_taxes.sql") },
    Migration { version: 20, name: "contract_prices", sql: include_str!("../migrations/0020_contract_prices.sql") },
    Migration { version: 21, name: "payments", sql: include_str!("../migrations/0021_payments.sql") },
    Migration { version: 22, name: "credit_lots", sql: include_str!("../migrations/0022_credit_lots.sql") },
    Migration { version: 23, name: "collections", sql: include_str!("../migrations/0023_collections.sql") },
    Migration { version: 24, name: "budgets", sql: include_str!("../migrations/0024_budgets.sql") },
    Migration { version: 25, name: "revenue", sql: include_str!("../migrations/0025_revenue.sql") },
    Migration { version: 26, name: "offerings", sql: include_str!("../migrations/0026_offerings.sql") },
    Migration { version: 27, name: "compensations", sql: include_str!("../migrations/0027_compensations.sql") },
    Migration { version: 28, name: "fees", sql: include_str!("../migrations/0028_fees.sql") },
    Migration { version: 29, name: "cards_and_payouts", sql: include_str!("../migrations/0029_cards_and_payouts.sql") },
    Migration { version: 30, name: "export_schedules", sql: include_str!("../migrations/0030_export_schedules.sql") },
    Migration { version: 31, name: "rerates", sql: include_str!("../migrations/0031_rerates.sql") },
    Migration { version: 32, name: "price_indexes", sql: include_str!("../migrations/0032_price_indexes.sql") },
    Migration { version: 33, name: "numbered_accounts", sql: include_str!("../migrations/0033_numbered_accounts.sql") },
    Migration { version: 34, name: "storage", sql: include_str!("../migrations/0034_storage.sql") },
    Migration { version: 35, name: "webhooks", sql: include_str!("../migrations/0035_webhooks.sql") },
    Migration { version: 36, name: "demand", sql: include_str!("../migrations/0036_demand.sql") },
    Migration { version: 37, name: "reclaims", sql: include_str!("../migrations/0037_reclaims.sql") },
    Migration { version: 38, name: "cordons", sql: include_str!("../migrations/0038_cordons.sql") },
    Migration { version: 39, name: "drawdowns", sql: include_str!("../migrations/0039_drawdowns.sql") },
    Migration { version: 40, name: "observations", sql: include_str!("../migrations/0040_observations.sql") },
    Migration { version: 41, name: "unfilled", sql: include_str!("../migrations/0041_unfilled.sql") },
    Migration { version: 42, name: "restarts", sql: include_str!("../migrations/0042_restarts.sql") },
    Migration { version: 43, name: "kept_attempts", sql: include_str!("../migrations/0043_kept_attempts.sql") },
    Migration { version: 44, name: "lost_gateways", sql: include_str!("../migrations/0044_lost_gateways.sql") },
    Migration { version: 45, name: "notices", sql: include_str!("../migrations/0045_notices.sql") },
];

/// What migrations leave for each engine to say in its own words: SQLite's, then PostgreSQL's.
const WORDS: [(&str, &str, &str); 3] = [
    // A key that the database counts up.
    ("{IDENTITY}", "INTEGER PRIMARY KEY", "BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY"),
    // An integer by which rows are kept.
    ("{KEY}", "INTEGER PRIMARY KEY", "BIGINT PRIMARY KEY"),
    // Rows are kept in the order of their keys, and not once more by number.
    ("{CLUSTERED}", "WITHOUT ROWID", ""),
];

/// The schema version this program writes.
pub const SCHEMA_VERSION: i64 = MIGRATIONS[MIGRATIONS.len() - 1].version;

/// Applies what is missing up to a version. A schema newer than this program is refused and left as it is.
pub(crate) async fn apply(store: &Store, up_to: i64) -> Result<()> {
    store
        .write((), |(), tx| {
            Box::pin(async move {
                let sql = "CREATE TABLE IF NOT EXISTS schema_versions (version BIGINT PRIMARY KEY, name TEXT NOT NULL)";
                tx.script(sql.to_owned()).await
            })
        })
        .await?;
    for migration in MIGRATIONS.iter().filter(|migration| migration.version <= up_to) {
        store.write(migration, |migration, tx| Box::pin(apply_one(migration, tx))).await?;
    }
    Ok(())
}

async fn apply_one(migration: &Migration, tx: &mut Tx) -> Result<()> {
    let row = tx.fetch_one("SELECT COALESCE(MAX(version), 0) FROM schema_versions", &[]).await?;
    let current = row.reader().int()?;
    if current > SCHEMA_VERSION {
        return Err(Error::new(
            ErrorCode::DataDirectoryNewer,
            format!("the database has schema version {current}, this program knows up to {SCHEMA_VERSION}"),
        )
        .alternative("run the newer version of sublet, or restore a backup made by this version"));
    }
    if current >= migration.version {
        return Ok(());
    }
    let mut sql = String::from(migration.sql);
    for (word, sqlite, postgresql) in WORDS {
        sql = sql.replace(word, if tx.is_sqlite() { sqlite } else { postgresql });
    }
    tx.script(sql).await?;
    tx.execute("INSERT INTO schema_versions (version, name) VALUES ($1, $2)", params![migration.version, migration.name]).await?;
    Ok(())
}
