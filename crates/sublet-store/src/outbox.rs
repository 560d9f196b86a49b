//! Outside effects as rows, written with their cause, deduplicated, claimed by lease columns.
//!
//! Invariants: a kind and key is queued once as long as its row is kept, which of mail is for ever; what an earlier claim
//! failed at changes nothing once there is a later one; what was done stays done.

use sublet_core::id::{OrganizationId, OutboxId, WebhookEndpointId};
use sublet_core::{DurationMs, Error, ErrorCode, Result, Scope, Timestamp};

use crate::database::Tx;
use crate::page::{Page, PageRequest};
use crate::row::{Row, Value};
use crate::top_up::stored_as_text;
use crate::{list_sql, params};

stored_as_text! {
    /// What became of an effect.
    OutboxState {
        Queued = "queued",
        Done = "done",
        /// Given up, until an operator has it tried again.
        Failed = "failed",
    }
}

/// One outside effect that has to happen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Effect {
    pub id: OutboxId,
    pub kind: String,
    /// The same kind and key is queued once.
    pub dedup_key: String,
    /// Whose it is; `None` for what is the operator's.
    pub organization: Option<OrganizationId>,
    /// Where it is posted, of a webhook: one at a time.
    pub endpoint: Option<WebhookEndpointId>,
    pub payload: String,
    pub created_at: Timestamp,
}

/// An effect, and how far it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OutboxJob {
    pub effect: Effect,
    pub state: OutboxState,
    /// Since it was queued, or tried again by an operator.
    pub attempts: i64,
    /// When it is tried next, while it is queued.
    pub run_at: Timestamp,
    /// What the last attempt that failed said; empty if none did.
    pub last_error: String,
    /// What was done; empty before that.
    pub outcome: String,
}

fn from_row(row: &Row) -> Result<OutboxJob> {
    let mut row = row.reader();
    let effect = Effect {
        id: row.parse()?,
        kind: row.string()?,
        dedup_key: row.string()?,
        organization: row.optional_parse()?,
        endpoint: row.optional_parse()?,
        payload: row.string()?,
        created_at: row.time()?,
    };
    Ok(OutboxJob {
        effect,
        state: row.parse()?,
        attempts: row.int()?,
        run_at: row.time()?,
        last_error: row.string()?,
        outcome: row.string()?,
    })
}

/// Queues an effect, to be done at once; queueing the same again changes nothing.
pub async fn enqueue(tx: &mut Tx, effect: &Effect) -> Result<()> {
    insert(tx, effect, (OutboxState::Queued, "")).await
}

/// Keeps an effect that is not queued, with why: it failed before it was tried.
pub async fn insert_failed(tx: &mut Tx, effect: &Effect, why: &str) -> Result<()> {
    insert(tx, effect, (OutboxState::Failed, why)).await
}

async fn insert(tx: &mut Tx, effect: &Effect, (state, why): (OutboxState, &str)) -> Result<()> {
    tx.execute(
        "INSERT INTO outbox (id, kind, dedup_key, organization_id, endpoint_id, payload, state, attempts, run_at, last_error,
             created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, 0, $8, $9, $8) ON CONFLICT (kind, dedup_key) DO NOTHING",
        params![
            effect.id.as_str(),
            effect.kind.as_str(),
            effect.dedup_key.as_str(),
            effect.organization.as_ref().map(OrganizationId::as_str),
            effect.endpoint.as_ref().map(WebhookEndpointId::as_str),
            effect.payload.as_str(),
            state.as_str(),
            effect.created_at,
            why
        ],
    )
    .await?;
    Ok(())
}

/// Takes the next due effect of a kind for `lease`; another worker may take it again after that.
pub async fn claim(tx: &mut Tx, (kind, worker): (&str, &str), now: Timestamp, lease: DurationMs) -> Result<Option<OutboxJob>> {
    let row = tx
        .fetch_optional(
            "UPDATE outbox SET claimed_by = $1, claimed_until = $3, attempts = attempts + 1
             WHERE id = (SELECT id FROM outbox WHERE kind = $4 AND state = 'queued' AND run_at <= $2
                             AND (claimed_until IS NULL OR claimed_until <= $2)
                         ORDER BY run_at, id LIMIT 1)
             RETURNING id, kind, dedup_key, organization_id, endpoint_id, payload, created_at, state, attempts, run_at, last_error, outcome",
            params![worker, now, now.plus(lease), kind],
        )
        .await?;
    row.as_ref().map(from_row).transpose()
}

/// As [`claim`], of an endpoint one effect at a time and of an organization so many, so nobody takes all turns.
pub async fn claim_in_turn(
    tx: &mut Tx,
    (kind, worker): (&str, &str),
    per_organization: i64,
    now: Timestamp,
    lease: DurationMs,
) -> Result<Option<OutboxJob>> {
    let row = tx
        .fetch_optional(
            "UPDATE outbox SET claimed_by = $1, claimed_until = $3, attempts = attempts + 1
             WHERE id = (SELECT due.id FROM outbox AS due
                         WHERE due.kind = $4 AND due.state = 'queued' AND due.run_at <= $2
                             AND (due.claimed_until IS NULL OR due.claimed_until <= $2)
                             AND NOT EXISTS (SELECT 1 FROM outbox AS busy
                                             WHERE busy.endpoint_id = due.endpoint_id AND busy.claimed_until > $2)
                             AND (SELECT COUNT(*) FROM outbox AS busy
                                  WHERE busy.organization_id = due.organization_id AND busy.claimed_until > $2
                                      AND busy.kind = $4) < $5
                         ORDER BY due.run_at, due.id LIMIT 1)
             RETURNING id, kind, dedup_key, organization_id, endpoint_id, payload, created_at, state, attempts, run_at, last_error,
                 outcome",
            params![worker, now, now.plus(lease), kind, per_organization],
        )
        .await?;
    row.as_ref().map(from_row).transpose()
}

/// How many effects wait for an endpoint, counted up to so many.
pub async fn count_queued(tx: &mut Tx, endpoint: &WebhookEndpointId, up_to: i64) -> Result<i64> {
    let sql = "SELECT COUNT(*) FROM (SELECT id FROM outbox WHERE endpoint_id = $1 AND state = 'queued' LIMIT $2) AS waiting";
    tx.fetch_one(sql, params![endpoint.as_str(), up_to]).await?.reader().int()
}

/// One that waits for an endpoint, with a key that begins so.
pub async fn queued_id(tx: &mut Tx, endpoint: &WebhookEndpointId, begins: &str) -> Result<Option<OutboxId>> {
    let sql = "SELECT id FROM outbox WHERE endpoint_id = $1 AND state = 'queued' AND dedup_key LIKE $2 || '%' ORDER BY id LIMIT 1";
    let row = tx.fetch_optional(sql, params![endpoint.as_str(), begins]).await?;
    row.as_ref().map(|row| row.reader().parse()).transpose()
}

/// Deletes effects of a kind that are done or failed and were due last before an instant, so many at once.
pub async fn delete_old(tx: &mut Tx, kind: &str, before: Timestamp, limit: i64) -> Result<u64> {
    tx.execute(
        "DELETE FROM outbox WHERE id IN (SELECT id FROM outbox WHERE kind = $1 AND state IN ('done', 'failed') AND run_at < $2
                                         ORDER BY run_at LIMIT $3)",
        params![kind, before, limit],
    )
    .await
}

/// Notes what was done and when, whoever did it.
pub async fn complete(tx: &mut Tx, id: &OutboxId, (outcome, at): (&str, Timestamp)) -> Result<()> {
    tx.execute(
        "UPDATE outbox SET state = 'done', claimed_until = NULL, last_error = '', outcome = $2, done_at = $3
         WHERE id = $1 AND state <> 'done'",
        params![id.as_str(), outcome, at],
    )
    .await?;
    Ok(())
}

/// Puts what was claimed and failed back for later, or gives it up when `retry_at` is `None`. What was claimed again
/// since, or done, stays as it is: false.
pub async fn fail(tx: &mut Tx, claimed: &OutboxJob, error: &str, retry_at: Option<Timestamp>) -> Result<bool> {
    let state = if retry_at.is_some() { OutboxState::Queued } else { OutboxState::Failed };
    let changed = tx
        .execute(
            "UPDATE outbox SET state = $3, last_error = $4, run_at = COALESCE($5, run_at), claimed_until = NULL
         WHERE id = $1 AND attempts = $2 AND state = 'queued'",
            params![claimed.effect.id.as_str(), claimed.attempts, state.as_str(), error, retry_at],
        )
        .await?;
    Ok(changed == 1)
}

/// Has what failed, or waits, tried at once. False if it is done, or somebody is at it.
pub async fn retry(tx: &mut Tx, id: &OutboxId, now: Timestamp) -> Result<bool> {
    let changed = tx
        .execute(
            "UPDATE outbox SET attempts = CASE state WHEN 'failed' THEN 0 ELSE attempts END, state = 'queued', run_at = $2
             WHERE id = $1 AND state <> 'done' AND (claimed_until IS NULL OR claimed_until <= $2)",
            params![id.as_str(), now],
        )
        .await?;
    Ok(changed == 1)
}

/// An effect of a kind, if the scope may see it.
pub async fn get(tx: &mut Tx, scope: &Scope, (kind, id): (&str, &OutboxId)) -> Result<OutboxJob> {
    let row = tx
        .fetch_optional(
            "SELECT id, kind, dedup_key, organization_id, endpoint_id, payload, created_at, state, attempts, run_at, last_error, outcome
             FROM outbox WHERE id = $1 AND kind = $2 AND ($3 = '' OR organization_id = $3)",
            params![id.as_str(), kind, scope.organization().map_or("", OrganizationId::as_str)],
        )
        .await?;
    let row = row.ok_or_else(|| Error::new(ErrorCode::NotFound, format!("there is no {kind} '{id}'")))?;
    from_row(&row)
}

/// The effect of an organization that was queued under a kind and key.
pub async fn find(tx: &mut Tx, organization: &OrganizationId, (kind, key): (&str, &str)) -> Result<Option<OutboxJob>> {
    let row = tx
        .fetch_optional(
            "SELECT id, kind, dedup_key, organization_id, endpoint_id, payload, created_at, state, attempts, run_at, last_error, outcome
             FROM outbox WHERE kind = $1 AND dedup_key = $2 AND organization_id = $3",
            params![kind, key, organization.as_str()],
        )
        .await?;
    row.as_ref().map(from_row).transpose()
}

/// Effects of a kind that the scope may see, in a state or in any.
pub async fn list(
    tx: &mut Tx,
    scope: &Scope,
    (kind, state): (&str, Option<OutboxState>),
    page: &PageRequest,
) -> Result<Page<OutboxJob>> {
    let (key, limit) = page.keyset();
    let sql = list_sql!(
        page,
        "SELECT id, kind, dedup_key, organization_id, endpoint_id, payload, created_at, state, attempts, run_at, last_error, outcome
         FROM outbox WHERE kind = $1 AND ($2 = '' OR organization_id = $2) AND ($3 = '' OR state = $3)",
        "id",
        "4",
        "5"
    );
    let own = scope.organization().map_or("", OrganizationId::as_str);
    let filter: [Value<'_>; 5] = [kind.into(), own.into(), state.map_or("", OutboxState::as_str).into(), key, limit];
    let rows = tx.fetch_all(sql, &filter).await?;
    page.page(&rows, from_row)
}
