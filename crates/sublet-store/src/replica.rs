//! The servers of remote models.

use sublet_core::id::{ModelId, ReplicaId};
use sublet_core::supply::{REPLICAS_MAX, Replica};
use sublet_core::{Error, ErrorCode, Result, Timestamp};

use crate::database::Tx;
use crate::page::{Page, PageRequest};
use crate::row::{Row, to_json};
use crate::{list_sql, params};

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReplicaRow {
    pub model: ModelId,
    pub replica: Replica,
    pub generation: i64,
    pub created_at: Timestamp,
}

fn from_row(row: &Row) -> Result<ReplicaRow> {
    let mut row = row.reader();
    Ok(ReplicaRow { model: row.parse()?, replica: row.json()?, generation: row.int()?, created_at: row.time()? })
}

pub async fn insert(tx: &mut Tx, row: &ReplicaRow) -> Result<()> {
    let count = tx.fetch_one("SELECT COUNT(*) FROM replicas WHERE model_id = $1", params![row.model.as_str()]).await?;
    if usize::try_from(count.reader().int()?).is_ok_and(|count| count >= REPLICAS_MAX) {
        return Err(Error::new(ErrorCode::Conflict, format!("a model has at most {REPLICAS_MAX} replicas")));
    }
    tx.execute(
        "INSERT INTO replicas (id, model_id, definition, generation, created_at) VALUES ($1, $2, $3, $4, $5)",
        params![row.replica.id.as_str(), row.model.as_str(), to_json(&row.replica)?, row.generation, row.created_at],
    )
    .await?;
    Ok(())
}

pub async fn get(tx: &mut Tx, id: &ReplicaId) -> Result<ReplicaRow> {
    let row = tx
        .fetch_optional("SELECT model_id, definition, generation, created_at FROM replicas WHERE id = $1", params![id.as_str()])
        .await?;
    let row = row.ok_or_else(|| Error::new(ErrorCode::NotFound, format!("there is no replica '{id}'")))?;
    from_row(&row)
}

/// Writes the definition, if it is still the one that was read.
pub async fn update(tx: &mut Tx, row: &ReplicaRow) -> Result<()> {
    let updated = tx
        .execute(
            "UPDATE replicas SET definition = $2, generation = generation + 1 WHERE id = $1 AND generation = $3",
            params![row.replica.id.as_str(), to_json(&row.replica)?, row.generation],
        )
        .await?;
    if updated == 1 {
        return Ok(());
    }
    Err(Error::new(ErrorCode::Conflict, format!("the replica '{}' was changed at the same time", row.replica.id)))
}

pub async fn delete(tx: &mut Tx, id: &ReplicaId) -> Result<()> {
    tx.execute("DELETE FROM replicas WHERE id = $1", params![id.as_str()]).await?;
    Ok(())
}

/// Replicas of one model, or of all.
pub async fn list(tx: &mut Tx, model: Option<&ModelId>, page: &PageRequest) -> Result<Page<ReplicaRow>> {
    let (key, limit) = page.keyset();
    let sql = list_sql!(
        page,
        "SELECT model_id, definition, generation, created_at FROM replicas WHERE ($1 = '' OR model_id = $1)",
        "id",
        "2",
        "3"
    );
    let rows = tx.fetch_all(sql, &[model.map_or("", ModelId::as_str).into(), key, limit]).await?;
    page.page(&rows, from_row)
}

/// All of them, for the memory of a process.
pub async fn list_all(tx: &mut Tx) -> Result<Vec<ReplicaRow>> {
    let rows =
        tx.fetch_all("SELECT model_id, definition, generation, created_at FROM replicas ORDER BY id LIMIT 100000", &[]).await?;
    rows.iter().map(from_row).collect()
}
