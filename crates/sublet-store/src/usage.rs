//! Usage events: what was served, once for ever per (request, attempt).

use sublet_core::id::{ProjectId, RequestId};
use sublet_core::usage::UsageRecord;
use sublet_core::{Currency, Error, ErrorCode, Nanos, Result, Scope, Timestamp};

use crate::database::Tx;
use crate::key::hash_text;
use crate::page::{Page, PageRequest};
use crate::row::{Row, to_json};
use crate::{list_sql, params};

/// A stored event with what it cost.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UsageEvent {
    pub record: UsageRecord,
    pub amount: Nanos,
    pub currency: Currency,
    /// Why it could not be charged; it waits for an operator. `None` is the normal case.
    pub quarantine: Option<String>,
}

fn from_row(row: &Row) -> Result<UsageEvent> {
    let mut row = row.reader();
    let (record, amount, currency, state, reason) = (row.json()?, row.nanos()?, row.parse()?, row.text()?, row.string()?);
    Ok(UsageEvent { record, amount, currency, quarantine: (state == "quarantined").then_some(reason) })
}

/// What offering an event did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Offered {
    New,
    /// The very same event is known.
    Duplicate,
}

/// Is this event known? The same id with another body is an error.
pub async fn offer(tx: &mut Tx, record: &UsageRecord) -> Result<Offered> {
    let row = tx
        .fetch_optional(
            "SELECT body_hash FROM usage_events WHERE request_id = $1 AND attempt = $2",
            params![record.request.as_str(), i64::from(record.attempt)],
        )
        .await?;
    let Some(row) = row else { return Ok(Offered::New) };
    if row.reader().text()? == hash_text(&to_json(record)?) {
        return Ok(Offered::Duplicate);
    }
    Err(Error::new(ErrorCode::IdempotencyMismatch, format!("usage of {} was recorded before with other figures", record.request)))
}

pub async fn insert(tx: &mut Tx, event: &UsageEvent) -> Result<()> {
    let record = &event.record;
    let body = to_json(record)?;
    let state = if event.quarantine.is_some() { "quarantined" } else { "settled" };
    tx.execute(
        "INSERT INTO usage_events (request_id, attempt, body_hash, organization_id, project_id, key_id, slice_id, state, reason, model,
             input_tokens, cached_input_tokens, output_tokens, amount, currency, admitted_at, finished_at, body)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)",
        params![
            record.request.as_str(),
            i64::from(record.attempt),
            hash_text(&body),
            record.organization.as_str(),
            record.project.as_str(),
            record.key.as_str(),
            record.slice.as_str(),
            state,
            event.quarantine.as_deref().unwrap_or(""),
            record.model.as_str(),
            record.tokens.input.get(),
            record.tokens.cached_input.get(),
            record.tokens.output.get(),
            event.amount,
            event.currency.as_str(),
            record.admitted_at,
            record.finished_at,
            body
        ],
    )
    .await?;
    Ok(())
}

/// The attempts of one request, if the scope may see it.
pub async fn list_of_request(tx: &mut Tx, scope: &Scope, request: &RequestId) -> Result<Vec<UsageEvent>> {
    let rows = tx
        .fetch_all(
            "SELECT body, amount, currency, state, reason FROM usage_events WHERE request_id = $1 ORDER BY attempt LIMIT 100",
            params![request.as_str()],
        )
        .await?;
    let events = rows.iter().map(from_row).collect::<Result<Vec<_>>>()?;
    Ok(events
        .into_iter()
        .filter(|event| crate::project::is_visible(scope, &event.record.organization, &event.record.project))
        .collect())
}

/// Requests of a project, newest first by default.
pub async fn list(tx: &mut Tx, project: &ProjectId, page: &PageRequest) -> Result<Page<UsageEvent>> {
    let (key, limit) = page.keyset();
    let sql = list_sql!(
        page,
        "SELECT body, amount, currency, state, reason FROM usage_events WHERE project_id = $1",
        "request_id",
        "2",
        "3"
    );
    let rows = tx.fetch_all(sql, &[project.as_str().into(), key, limit]).await?;
    page.page(&rows, from_row)
}

/// Events that could not be charged: for the operator.
pub async fn list_quarantined(tx: &mut Tx, page: &PageRequest) -> Result<Page<UsageEvent>> {
    let (key, limit) = page.keyset();
    let sql = list_sql!(
        page,
        "SELECT body, amount, currency, state, reason FROM usage_events WHERE state = 'quarantined'",
        "request_id",
        "1",
        "2"
    );
    let rows = tx.fetch_all(sql, &[key, limit]).await?;
    page.page(&rows, from_row)
}

/// One row of a usage summary.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UsageSummary {
    pub model: String,
    pub requests: i64,
    pub input_tokens: i64,
    pub cached_input_tokens: i64,
    pub output_tokens: i64,
    pub amount: Nanos,
}

/// Which usage is added up. Interval half-open on the instant of admission.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UsageQuery {
    pub scope: Scope,
    pub from: Timestamp,
    pub until: Timestamp,
}

/// Usage per model.
pub async fn summarize(tx: &mut Tx, query: &UsageQuery) -> Result<Vec<UsageSummary>> {
    let organization = query.scope.organization().map_or("", |id| id.as_str());
    let project = query.scope.project().map_or("", |id| id.as_str());
    let rows = tx
        .fetch_all(
            "SELECT model, COUNT(*), CAST(SUM(input_tokens) AS BIGINT), CAST(SUM(cached_input_tokens) AS BIGINT),
                 CAST(SUM(output_tokens) AS BIGINT), CAST(SUM(amount) AS BIGINT) FROM usage_events
             WHERE ($1 = '' OR organization_id = $1) AND ($2 = '' OR project_id = $2) AND admitted_at >= $3 AND admitted_at < $4
                 AND state = 'settled' GROUP BY model ORDER BY model LIMIT 1000",
            params![organization, project, query.from, query.until],
        )
        .await?;
    rows.iter()
        .map(|row| {
            let mut row = row.reader();
            Ok(UsageSummary {
                model: row.string()?,
                requests: row.int()?,
                input_tokens: row.int()?,
                cached_input_tokens: row.int()?,
                output_tokens: row.int()?,
                amount: row.nanos()?,
            })
        })
        .collect()
}
