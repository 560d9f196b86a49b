//! Keys: hashed, on three planes.

use sha2::{Digest, Sha256};
use sublet_core::admission::ModelAccess;
use sublet_core::id::{KeyId, OrganizationId, ProjectId};
use sublet_core::key::{KeyPlane, Secret};
use sublet_core::rate::RateLimits;
use sublet_core::{Error, ErrorCode, Result, Scope, Timestamp};

use crate::database::Tx;
use crate::page::{Page, PageRequest};
use crate::row::{Row, RowReader};
use crate::{list_sql, params};

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Key {
    pub id: KeyId,
    pub plane: KeyPlane,
    /// `None` on the operator's plane.
    pub organization: Option<OrganizationId>,
    /// Present on the project plane only.
    pub project: Option<ProjectId>,
    pub name: String,
    pub hint: String,
    pub models: ModelAccess,
    pub rates: RateLimits,
    pub expires_at: Option<Timestamp>,
    pub revoked_at: Option<Timestamp>,
    pub created_at: Timestamp,
}

/// What is stored of a secret. A secret has 256 random bits, so a plain hash cannot be searched.
pub fn secret_hash(secret: &Secret) -> String {
    hash_text(secret.reveal())
}

/// SHA-256 as lower-case hex.
pub fn hash_text(text: &str) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = |byte: u8| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]];
    Sha256::digest(text.as_bytes()).iter().flat_map(|byte| digits(*byte)).map(char::from).collect()
}

fn from_row(row: &Row) -> Result<Key> {
    let mut row = row.reader();
    Ok(Key {
        id: row.parse()?,
        plane: row.parse()?,
        organization: row.optional_parse()?,
        project: row.optional_parse()?,
        name: row.string()?,
        hint: row.string()?,
        models: read_models(&mut row)?,
        rates: RateLimits {
            requests_per_minute: read_limit(&mut row)?,
            tokens_per_minute: read_limit(&mut row)?,
            concurrent_requests: read_limit(&mut row)?,
        },
        expires_at: row.optional_time()?,
        revoked_at: row.optional_time()?,
        created_at: row.time()?,
    })
}

fn read_models(row: &mut RowReader<'_>) -> Result<ModelAccess> {
    Ok(match row.json::<Option<Vec<String>>>()? {
        None => ModelAccess::All,
        Some(names) => ModelAccess::Only(names),
    })
}

fn read_limit(row: &mut RowReader<'_>) -> Result<Option<u32>> {
    row.optional_int()?
        .map(|limit| u32::try_from(limit).map_err(|_| Error::internal("a stored rate limit is out of range")))
        .transpose()
}

pub async fn insert(tx: &mut Tx, key: &Key, secret: &Secret) -> Result<()> {
    let models = match &key.models {
        ModelAccess::All => "null".to_owned(),
        ModelAccess::Only(names) => crate::row::to_json(names)?,
    };
    tx.execute(
        "INSERT INTO api_keys (id, plane, organization_id, project_id, name, secret_hash, hint, models, requests_per_minute,
             tokens_per_minute, concurrent_requests, expires_at, revoked_at, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, NULL, $13)",
        params![
            key.id.as_str(),
            key.plane.as_str(),
            key.organization.as_ref().map(OrganizationId::as_str),
            key.project.as_ref().map(ProjectId::as_str),
            key.name.as_str(),
            secret_hash(secret),
            key.hint.as_str(),
            models,
            key.rates.requests_per_minute.map(i64::from),
            key.rates.tokens_per_minute.map(i64::from),
            key.rates.concurrent_requests.map(i64::from),
            key.expires_at,
            key.created_at
        ],
    )
    .await?;
    Ok(())
}

/// The key with this secret, revoked and expired ones included: the caller decides and says why.
pub async fn find_by_secret(tx: &mut Tx, secret: &Secret) -> Result<Option<Key>> {
    find_by_secret_hash(tx, &secret_hash(secret)).await
}

async fn find_by_secret_hash(tx: &mut Tx, hash: &str) -> Result<Option<Key>> {
    let row = tx
        .fetch_optional(
            "SELECT id, plane, organization_id, project_id, name, hint, models, requests_per_minute, tokens_per_minute,
                 concurrent_requests, expires_at, revoked_at, created_at FROM api_keys WHERE secret_hash = $1",
            params![hash],
        )
        .await?;
    row.as_ref().map(from_row).transpose()
}

pub async fn find(tx: &mut Tx, scope: &Scope, id: &KeyId) -> Result<Option<Key>> {
    let row = tx
        .fetch_optional(
            "SELECT id, plane, organization_id, project_id, name, hint, models, requests_per_minute, tokens_per_minute,
                 concurrent_requests, expires_at, revoked_at, created_at FROM api_keys WHERE id = $1",
            params![id.as_str()],
        )
        .await?;
    let key = row.as_ref().map(from_row).transpose()?;
    Ok(key.filter(|key| {
        scope.organization().is_none_or(|own| key.organization.as_ref() == Some(own))
            && scope.project().is_none_or(|own| key.project.as_ref() == Some(own))
    }))
}

/// Keys of exactly this scope: the operator's, an organization's admin keys, or those of a project.
pub async fn list(tx: &mut Tx, scope: &Scope, page: &PageRequest) -> Result<Page<Key>> {
    let (key, limit) = page.keyset();
    let sql = list_sql!(
        page,
        "SELECT id, plane, organization_id, project_id, name, hint, models, requests_per_minute, tokens_per_minute,
             concurrent_requests, expires_at, revoked_at, created_at FROM api_keys
         WHERE COALESCE(organization_id, '') = $1 AND COALESCE(project_id, '') = $2",
        "id",
        "3",
        "4"
    );
    let organization = scope.organization().map_or("", OrganizationId::as_str);
    let project = scope.project().map_or("", ProjectId::as_str);
    let rows = tx.fetch_all(sql, &[organization.into(), project.into(), key, limit]).await?;
    page.page(&rows, from_row)
}

/// Is there another key of the same plane and owner that neither was revoked nor ends?
pub async fn has_another(tx: &mut Tx, key: &Key) -> Result<bool> {
    let row = tx
        .fetch_optional(
            "SELECT id FROM api_keys
             WHERE COALESCE(organization_id, '') = $1 AND plane = $2 AND id <> $3 AND revoked_at IS NULL AND expires_at IS NULL
             LIMIT 1",
            params![key.organization.as_ref().map_or("", OrganizationId::as_str), key.plane.as_str(), key.id.as_str()],
        )
        .await?;
    Ok(row.is_some())
}

/// Revokes a key now. Revoking again changes nothing.
pub async fn revoke(tx: &mut Tx, scope: &Scope, id: &KeyId, now: Timestamp) -> Result<Key> {
    let key = find(tx, scope, id).await?.ok_or_else(|| Error::new(ErrorCode::NotFound, format!("there is no key '{id}'")))?;
    tx.execute("UPDATE api_keys SET revoked_at = $2 WHERE id = $1 AND revoked_at IS NULL", params![id.as_str(), now]).await?;
    Ok(Key { revoked_at: key.revoked_at.or(Some(now)), ..key })
}

/// Opens a console session for a key.
pub async fn insert_session(tx: &mut Tx, secret: &str, key: &KeyId, now: Timestamp, expires_at: Timestamp) -> Result<()> {
    tx.execute("DELETE FROM sessions WHERE expires_at <= $1", params![now]).await?;
    tx.execute(
        "INSERT INTO sessions (secret_hash, key_id, created_at, expires_at) VALUES ($1, $2, $3, $4)",
        params![hash_text(secret), key.as_str(), now, expires_at],
    )
    .await?;
    Ok(())
}

/// The key behind a live session.
pub async fn find_by_session(tx: &mut Tx, secret: &str, now: Timestamp) -> Result<Option<Key>> {
    let row = tx
        .fetch_optional("SELECT key_id FROM sessions WHERE secret_hash = $1 AND expires_at > $2", params![hash_text(secret), now])
        .await?;
    match row {
        None => Ok(None),
        Some(row) => find(tx, &Scope::Operator, &row.reader().parse()?).await,
    }
}

pub async fn delete_session(tx: &mut Tx, secret: &str) -> Result<()> {
    tx.execute("DELETE FROM sessions WHERE secret_hash = $1", params![hash_text(secret)]).await?;
    Ok(())
}
