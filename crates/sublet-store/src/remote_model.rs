//! Models that other servers answer for. They are the cloud's own: no tenant owns one.

use sublet_core::id::ModelId;
use sublet_core::supply::Audience;
use sublet_core::tokenizer::TokenizerName;
use sublet_core::{Error, ErrorCode, Result, Timestamp, TokenCount};

use crate::database::Tx;
use crate::page::{Page, PageRequest};
use crate::row::{Row, to_json};
use crate::{list_sql, params};

/// Most remote models of a cloud: all of them are in the memory of every gateway.
pub const REMOTE_MODELS_MAX: i64 = 10_000;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RemoteModelRow {
    pub id: ModelId,
    /// What customers call it.
    pub name: String,
    pub owned_by: String,
    pub context_window: TokenCount,
    pub output_max: TokenCount,
    pub audience: Audience,
    pub tokenizer: Option<TokenizerName>,
    pub generation: i64,
    pub created_at: Timestamp,
}

fn from_row(row: &Row) -> Result<RemoteModelRow> {
    let mut row = row.reader();
    Ok(RemoteModelRow {
        id: row.parse()?,
        name: row.string()?,
        owned_by: row.string()?,
        context_window: TokenCount::new(row.int()?),
        output_max: TokenCount::new(row.int()?),
        audience: row.json()?,
        tokenizer: row.json()?,
        generation: row.int()?,
        created_at: row.time()?,
    })
}

pub async fn insert(tx: &mut Tx, model: &RemoteModelRow) -> Result<()> {
    let count = tx.fetch_one("SELECT COUNT(*) FROM remote_models", &[]).await?.reader().int()?;
    if count >= REMOTE_MODELS_MAX {
        return Err(Error::new(ErrorCode::Conflict, format!("a cloud has at most {REMOTE_MODELS_MAX} remote models")));
    }
    if let Some(id) = find_name(tx, &model.name).await? {
        return Err(Error::new(ErrorCode::Conflict, format!("the name '{}' belongs to {id}", model.name)).param("name"));
    }
    tx.execute(
        "INSERT INTO remote_models (id, name, owned_by, context_window, output_max, audience, tokenizer, generation, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        params![
            model.id.as_str(),
            model.name.as_str(),
            model.owned_by.as_str(),
            model.context_window.get(),
            model.output_max.get(),
            to_json(&model.audience)?,
            to_json(&model.tokenizer)?,
            model.generation,
            model.created_at
        ],
    )
    .await?;
    Ok(())
}

pub async fn get(tx: &mut Tx, id: &ModelId) -> Result<RemoteModelRow> {
    let row = tx
        .fetch_optional(
            "SELECT id, name, owned_by, context_window, output_max, audience, tokenizer, generation, created_at FROM remote_models WHERE id = $1",
            params![id.as_str()],
        )
        .await?;
    let row = row.ok_or_else(|| Error::new(ErrorCode::NotFound, format!("there is no remote model '{id}'")))?;
    from_row(&row)
}

/// Whether a model of this name is served elsewhere.
pub async fn find_name(tx: &mut Tx, name: &str) -> Result<Option<ModelId>> {
    let row = tx.fetch_optional("SELECT id FROM remote_models WHERE name = $1", params![name]).await?;
    row.map(|row| row.reader().parse()).transpose()
}

/// Writes what may change, if it is still what was read.
pub async fn update(tx: &mut Tx, model: &RemoteModelRow) -> Result<()> {
    let updated = tx
        .execute(
            "UPDATE remote_models SET context_window = $2, output_max = $3, audience = $4, tokenizer = $5,
                 generation = generation + 1 WHERE id = $1 AND generation = $6",
            params![
                model.id.as_str(),
                model.context_window.get(),
                model.output_max.get(),
                to_json(&model.audience)?,
                to_json(&model.tokenizer)?,
                model.generation
            ],
        )
        .await?;
    if updated == 1 {
        return Ok(());
    }
    Err(Error::new(ErrorCode::Conflict, format!("the remote model '{}' was changed at the same time", model.id)))
}

/// Removes a model that has no replicas.
pub async fn delete(tx: &mut Tx, id: &ModelId) -> Result<()> {
    let replicas = tx.fetch_one("SELECT COUNT(*) FROM replicas WHERE model_id = $1", params![id.as_str()]).await?.reader().int()?;
    if replicas > 0 {
        return Err(Error::new(ErrorCode::Conflict, format!("the remote model '{id}' has {replicas} replicas"))
            .alternative("remove its replicas first"));
    }
    tx.execute("DELETE FROM remote_models WHERE id = $1", params![id.as_str()]).await?;
    Ok(())
}

pub async fn list(tx: &mut Tx, page: &PageRequest) -> Result<Page<RemoteModelRow>> {
    let (key, limit) = page.keyset();
    let sql = list_sql!(
        page,
        "SELECT id, name, owned_by, context_window, output_max, audience, tokenizer, generation, created_at FROM remote_models WHERE 1 = 1",
        "id",
        "1",
        "2"
    );
    let rows = tx.fetch_all(sql, &[key, limit]).await?;
    page.page(&rows, from_row)
}

/// All of them, for the memory of a process.
pub async fn list_all(tx: &mut Tx) -> Result<Vec<RemoteModelRow>> {
    let rows = tx
        .fetch_all(
            "SELECT id, name, owned_by, context_window, output_max, audience, tokenizer, generation, created_at FROM remote_models
             ORDER BY name LIMIT 10000",
            &[],
        )
        .await?;
    rows.iter().map(from_row).collect()
}
