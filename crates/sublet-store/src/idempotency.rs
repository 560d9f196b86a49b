//! Idempotency keys: the answer is stored in the transaction of its effect.

use sublet_core::{Error, ErrorCode, Result, Timestamp};

use crate::database::Tx;
use crate::params;

/// A stored answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredAnswer {
    pub status: i64,
    pub response: String,
}

/// One use of an idempotency key, as it arrives.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IdempotentCall {
    /// The caller and the operation, so that keys of two callers never meet.
    pub scope: String,
    pub key: String,
    pub request_hash: String,
}

/// The earlier answer to the same call; an error if the key was used with another body.
pub async fn find(tx: &mut Tx, call: &IdempotentCall) -> Result<Option<StoredAnswer>> {
    let row = tx
        .fetch_optional(
            "SELECT request_hash, status, response FROM idempotency_keys WHERE scope = $1 AND key = $2",
            params![call.scope.as_str(), call.key.as_str()],
        )
        .await?;
    let Some(row) = row else { return Ok(None) };
    let mut row = row.reader();
    if row.text()? != call.request_hash {
        return Err(Error::new(ErrorCode::IdempotencyMismatch, "this Idempotency-Key was used with another body")
            .alternative("use a new key for a new request"));
    }
    Ok(Some(StoredAnswer { status: row.int()?, response: row.string()? }))
}

/// Whether the key was used before, with whatever body.
pub async fn is_known(tx: &mut Tx, call: &IdempotentCall) -> Result<bool> {
    let row = tx
        .fetch_optional(
            "SELECT status FROM idempotency_keys WHERE scope = $1 AND key = $2",
            params![call.scope.as_str(), call.key.as_str()],
        )
        .await?;
    Ok(row.is_some())
}

/// Stores the answer. A concurrent twin fails with a conflict and is rolled back whole.
pub async fn insert(tx: &mut Tx, call: &IdempotentCall, answer: &StoredAnswer, now: Timestamp) -> Result<()> {
    tx.execute(
        "INSERT INTO idempotency_keys (scope, key, request_hash, status, response, created_at) VALUES ($1, $2, $3, $4, $5, $6)",
        params![call.scope.as_str(), call.key.as_str(), call.request_hash.as_str(), answer.status, answer.response.as_str(), now],
    )
    .await?;
    Ok(())
}

/// Answers forgotten in one transaction.
const DELETED_MAX: i64 = 1_000;

/// Forgets answers created before `before`; false if there are more.
pub async fn delete_before(tx: &mut Tx, before: Timestamp) -> Result<bool> {
    let deleted = tx
        .execute(
            "DELETE FROM idempotency_keys WHERE (scope, key) IN
                 (SELECT scope, key FROM idempotency_keys WHERE created_at < $1 ORDER BY created_at LIMIT $2)",
            params![before, DELETED_MAX],
        )
        .await?;
    Ok(i64::try_from(deleted).is_ok_and(|deleted| deleted < DELETED_MAX))
}
