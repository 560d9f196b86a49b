//! Model cards and aliases. They are the cloud's own: no tenant owns one.

use sublet_core::card::ModelCard;
use sublet_core::{Error, ErrorCode, Result, Timestamp};

use crate::database::Tx;
use crate::params;
use crate::row::{Row, to_json};

/// Most cards of a cloud: all of them are in the memory of every gateway.
pub const CARDS_MAX: i64 = 1_000;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ModelCardRow {
    /// The model's name.
    pub model: String,
    pub card: ModelCard,
    pub generation: i64,
    pub changed_at: Timestamp,
}

fn from_row(row: &Row) -> Result<ModelCardRow> {
    let mut row = row.reader();
    Ok(ModelCardRow { model: row.string()?, card: row.json()?, generation: row.int()?, changed_at: row.time()? })
}

/// Writes a card in the place of the one before it, and its aliases.
pub async fn set(tx: &mut Tx, row: &ModelCardRow) -> Result<()> {
    let others = tx.fetch_one("SELECT COUNT(*) FROM model_cards WHERE model <> $1", params![row.model.as_str()]).await?;
    if others.reader().int()? >= CARDS_MAX {
        return Err(Error::new(ErrorCode::Conflict, format!("a cloud has at most {CARDS_MAX} model cards")));
    }
    tx.execute(
        "INSERT INTO model_cards (model, card, generation, changed_at) VALUES ($1, $2, 1, $3)
         ON CONFLICT (model) DO UPDATE SET card = excluded.card, generation = model_cards.generation + 1, changed_at = excluded.changed_at",
        params![row.model.as_str(), to_json(&row.card)?, row.changed_at],
    )
    .await?;
    tx.execute("DELETE FROM model_aliases WHERE model = $1", params![row.model.as_str()]).await?;
    for alias in &row.card.aliases {
        tx.execute("INSERT INTO model_aliases (alias, model) VALUES ($1, $2)", params![alias.as_str(), row.model.as_str()]).await?;
    }
    Ok(())
}

pub async fn find(tx: &mut Tx, model: &str) -> Result<Option<ModelCardRow>> {
    let sql = "SELECT model, card, generation, changed_at FROM model_cards WHERE model = $1";
    tx.fetch_optional(sql, params![model]).await?.as_ref().map(from_row).transpose()
}

/// The model that an alias stands for.
pub async fn find_alias(tx: &mut Tx, alias: &str) -> Result<Option<String>> {
    let row = tx.fetch_optional("SELECT model FROM model_aliases WHERE alias = $1", params![alias]).await?;
    row.map(|row| row.reader().string()).transpose()
}

/// Forgets a card and its aliases.
pub async fn delete(tx: &mut Tx, model: &str) -> Result<()> {
    tx.execute("DELETE FROM model_aliases WHERE model = $1", params![model]).await?;
    let deleted = tx.execute("DELETE FROM model_cards WHERE model = $1", params![model]).await?;
    if deleted == 0 {
        return Err(Error::new(ErrorCode::NotFound, format!("there is no card of a model '{model}'")));
    }
    Ok(())
}

/// All of them, in the order of names.
pub async fn list_all(tx: &mut Tx) -> Result<Vec<ModelCardRow>> {
    let sql = "SELECT model, card, generation, changed_at FROM model_cards ORDER BY model LIMIT 1000";
    tx.fetch_all(sql, &[]).await?.iter().map(from_row).collect()
}
