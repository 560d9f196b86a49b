//! Responses that were asked to be kept, each with what it was asked.
//!
//! Invariants: what has expired is never read, whether it was swept or not; a conversation is measured
//! before any of its content is read.

use sublet_core::id::{OrganizationId, ProjectId, ResponseId};
use sublet_core::response::{KeptResponse, Turn};
use sublet_core::{Bytes, Error, ErrorCode, Result, Scope, Timestamp};

use crate::database::Tx;
use crate::params;
use crate::row::{Row, Value};

/// What the responses of a project come to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Kept {
    pub responses: i64,
    pub bytes: Bytes,
}

/// One response of a conversation, without its content.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Link {
    pub id: ResponseId,
    pub previous: Option<ResponseId>,
    pub bytes: Bytes,
}

pub async fn insert(tx: &mut Tx, response: &KeptResponse, expires_at: Timestamp) -> Result<()> {
    let bytes = i64::try_from(response.bytes()).unwrap_or(i64::MAX);
    tx.execute(
        "INSERT INTO responses (id, organization_id, project_id, key_id, previous_id, bytes, created_at, expires_at, input, object)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        params![
            response.id.as_str(),
            response.organization.as_str(),
            response.project.as_str(),
            response.key.as_str(),
            response.previous.as_ref().map(ResponseId::as_str),
            bytes,
            response.created_at,
            expires_at,
            response.input.as_str(),
            response.object.as_str()
        ],
    )
    .await?;
    Ok(())
}

fn turn(row: &Row) -> Result<Turn> {
    let mut row = row.reader();
    Ok(Turn { id: row.parse()?, input: row.string()?, object: row.string()? })
}

/// The owners as a statement compares them: the empty text is everybody.
fn owners(scope: &Scope) -> (&str, &str) {
    (scope.organization().map_or("", OrganizationId::as_str), scope.project().map_or("", ProjectId::as_str))
}

/// The response, if the scope may see it and it has not expired.
pub async fn find(tx: &mut Tx, scope: &Scope, id: &ResponseId, now: Timestamp) -> Result<Option<Turn>> {
    let (organization, project) = owners(scope);
    let row = tx
        .fetch_optional(
            "SELECT id, input, object FROM responses WHERE id = $1 AND ($2 = '' OR organization_id = $2) AND ($3 = '' OR project_id = $3)
                 AND expires_at > $4",
            params![id.as_str(), organization, project, now],
        )
        .await?;
    row.as_ref().map(turn).transpose()
}

pub async fn get(tx: &mut Tx, scope: &Scope, id: &ResponseId, now: Timestamp) -> Result<Turn> {
    find(tx, scope, id, now).await?.ok_or_else(|| Error::new(ErrorCode::NotFound, format!("there is no response '{id}'")))
}

/// The conversation that ends with a response, newest first, at most `links_max` of it. Where a link is missing it ends.
pub async fn list_links(tx: &mut Tx, scope: &Scope, last: &ResponseId, now: Timestamp, links_max: i64) -> Result<Vec<Link>> {
    let (organization, project) = owners(scope);
    let rows = tx
        .fetch_all(
            "WITH RECURSIVE links (id, previous_id, bytes, place) AS (
                 SELECT id, previous_id, bytes, 1 FROM responses WHERE id = $1 AND ($2 = '' OR organization_id = $2)
                     AND ($3 = '' OR project_id = $3) AND expires_at > $4
                 UNION ALL
                 SELECT responses.id, responses.previous_id, responses.bytes, links.place + 1 FROM responses
                     JOIN links ON responses.id = links.previous_id WHERE links.place < $5 AND ($2 = '' OR responses.organization_id = $2)
                     AND ($3 = '' OR responses.project_id = $3) AND responses.expires_at > $4
             ) SELECT id, previous_id, bytes FROM links ORDER BY place",
            params![last.as_str(), organization, project, now, links_max],
        )
        .await?;
    let link = |row: &Row| {
        let mut row = row.reader();
        Ok(Link { id: row.parse()?, previous: row.optional_parse()?, bytes: Bytes::new(row.int()?) })
    };
    rows.iter().map(link).collect()
}

/// Those of these responses that the scope may see, in any order.
pub async fn list_turns(tx: &mut Tx, scope: &Scope, ids: &[ResponseId], now: Timestamp) -> Result<Vec<Turn>> {
    let mut turns = Vec::with_capacity(ids.len());
    for id in ids {
        turns.extend(find(tx, scope, id, now).await?);
    }
    Ok(turns)
}

/// What a project keeps, what has expired and is not swept yet included.
pub async fn count(tx: &mut Tx, project: &ProjectId) -> Result<Kept> {
    let row = tx
        .fetch_one(
            "SELECT COUNT(*), CAST(COALESCE(SUM(bytes), 0) AS BIGINT) FROM responses WHERE project_id = $1",
            params![project.as_str()],
        )
        .await?;
    let mut row = row.reader();
    Ok(Kept { responses: row.int()?, bytes: Bytes::new(row.int()?) })
}

/// Deletes a response that the scope may see. False if there was none.
pub async fn delete(tx: &mut Tx, scope: &Scope, id: &ResponseId) -> Result<bool> {
    let (organization, project) = owners(scope);
    let owned: &[Value<'_>] = params![id.as_str(), organization, project];
    let deleted = tx
        .execute(
            "DELETE FROM responses WHERE id = $1 AND ($2 = '' OR organization_id = $2) AND ($3 = '' OR project_id = $3)",
            owned,
        )
        .await?;
    Ok(deleted == 1)
}

/// Deletes some of what has expired, oldest first, over all tenants; says how many.
pub async fn delete_expired(tx: &mut Tx, now: Timestamp, responses_max: i64) -> Result<u64> {
    tx.execute(
        "DELETE FROM responses WHERE id IN (SELECT id FROM responses WHERE expires_at <= $1 ORDER BY expires_at, id LIMIT $2)",
        params![now, responses_max],
    )
    .await
}
