//! Outside effects as rows, written with their cause, deduplicated, claimed by lease columns.

use sublet_core::id::OutboxId;
use sublet_core::{DurationMs, Result, Timestamp};

use crate::database::Tx;
use crate::params;

/// One outside effect that has to happen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OutboxJob {
    pub id: OutboxId,
    pub kind: String,
    /// The same kind and key is queued once for ever.
    pub dedup_key: String,
    pub payload: String,
    pub attempts: i64,
}

/// Queues an effect; queueing the same again changes nothing.
pub async fn enqueue(tx: &mut Tx, job: &OutboxJob, run_at: Timestamp) -> Result<()> {
    tx.execute(
        "INSERT INTO outbox (id, kind, dedup_key, payload, state, attempts, run_at, last_error, created_at)
         VALUES ($1, $2, $3, $4, 'queued', 0, $5, '', $5) ON CONFLICT (kind, dedup_key) DO NOTHING",
        params![job.id.as_str(), job.kind.as_str(), job.dedup_key.as_str(), job.payload.as_str(), run_at],
    )
    .await?;
    Ok(())
}

/// Takes the next due effect for `lease`; another worker may take it again after that.
pub async fn claim(tx: &mut Tx, worker: &str, now: Timestamp, lease: DurationMs) -> Result<Option<OutboxJob>> {
    let row = tx
        .fetch_optional(
            "UPDATE outbox SET claimed_by = $1, claimed_until = $3, attempts = attempts + 1
             WHERE id = (SELECT id FROM outbox WHERE state = 'queued' AND run_at <= $2 AND (claimed_until IS NULL OR claimed_until <= $2)
                         ORDER BY run_at, id LIMIT 1)
             RETURNING id, kind, dedup_key, payload, attempts",
            params![worker, now, now.plus(lease)],
        )
        .await?;
    let Some(row) = row else { return Ok(None) };
    let mut row = row.reader();
    Ok(Some(OutboxJob {
        id: row.parse()?,
        kind: row.string()?,
        dedup_key: row.string()?,
        payload: row.string()?,
        attempts: row.int()?,
    }))
}

pub async fn complete(tx: &mut Tx, id: &OutboxId) -> Result<()> {
    tx.execute("UPDATE outbox SET state = 'done', claimed_until = NULL WHERE id = $1", params![id.as_str()]).await?;
    Ok(())
}

/// Puts a failed effect back for later, or gives it up when `retry_at` is `None`.
pub async fn fail(tx: &mut Tx, id: &OutboxId, error: &str, retry_at: Option<Timestamp>) -> Result<()> {
    let state = if retry_at.is_some() { "queued" } else { "failed" };
    tx.execute(
        "UPDATE outbox SET state = $2, last_error = $3, run_at = COALESCE($4, run_at), claimed_until = NULL WHERE id = $1",
        params![id.as_str(), state, error, retry_at],
    )
    .await?;
    Ok(())
}
