//! Usage events: what was served, once for ever per (request, attempt).

use std::collections::BTreeMap;

use sublet_core::id::{ProjectId, RequestId};
use sublet_core::usage::{AnsweredLine, UsageRecord};
use sublet_core::{Currency, Error, Nanos, Result, Scope, Timestamp};

use crate::database::Tx;
use crate::key::hash_text;
use crate::page::{Page, PageRequest};
use crate::row::{Row, Value, to_json};
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

/// A record on its way into the table, encoded once.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Encoded<'a> {
    pub record: &'a UsageRecord,
    body: String,
    /// Two records are the same if these are.
    pub body_hash: String,
}

impl<'a> Encoded<'a> {
    pub fn new(record: &'a UsageRecord) -> Result<Self> {
        let body = match &record.line {
            // An answer is content: it belongs to its batch and is not kept with what it cost.
            Some(line) if !line.answer.is_empty() => {
                let line = Some(AnsweredLine { name: line.name.clone(), answer: String::new() });
                to_json(&UsageRecord { line, ..record.clone() })?
            }
            _ => to_json(record)?,
        };
        Ok(Self { record, body_hash: hash_text(&body), body })
    }
}

/// What a record cost, or why it could not be charged.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewEvent<'a> {
    pub encoded: Encoded<'a>,
    pub amount: Nanos,
    pub currency: Currency,
    pub quarantine: Option<String>,
    /// Another attempt answers its line: it costs nothing.
    pub superseded: bool,
}

impl NewEvent<'_> {
    fn state(&self) -> &'static str {
        match (&self.quarantine, self.superseded) {
            (Some(_), _) => "quarantined",
            (None, true) => "superseded",
            // A supplier is owed for it, and nobody else owes anything.
            (None, false) if self.encoded.record.is_purchase_only() => "unsold",
            (None, false) => "settled",
        }
    }
}

/// The hashes under which attempts of these requests are known.
pub async fn hashes_of(tx: &mut Tx, records: &[UsageRecord]) -> Result<BTreeMap<(RequestId, u32), String>> {
    let requests: Vec<Value<'_>> = records.iter().map(|record| record.request.as_str().into()).collect();
    let rows = tx.fetch_listed("SELECT request_id, attempt, body_hash FROM usage_events WHERE request_id IN ", &requests).await?;
    rows.iter()
        .map(|row| {
            let mut row = row.reader();
            let request = row.parse()?;
            let attempt = u32::try_from(row.int()?).map_err(|_| Error::internal("an attempt's number is not one"))?;
            Ok(((request, attempt), row.string()?))
        })
        .collect()
}

pub async fn insert(tx: &mut Tx, events: &[NewEvent<'_>]) -> Result<()> {
    fn row<'e>(event: &'e NewEvent<'_>) -> Vec<Value<'e>> {
        let NewEvent { encoded, amount, currency, quarantine, .. } = event;
        let record = encoded.record;
        params![
            record.request.as_str(),
            i64::from(record.attempt),
            encoded.body_hash.as_str(),
            record.organization.as_str(),
            record.project.as_str(),
            record.key.as_str(),
            record.slice.as_str(),
            event.state(),
            quarantine.as_deref().unwrap_or(""),
            record.model.as_str(),
            record.tokens.input.get(),
            record.tokens.cached_input.get(),
            record.tokens.output.get(),
            *amount,
            currency.as_str(),
            record.admitted_at,
            record.finished_at,
            encoded.body.as_str()
        ]
        .to_vec()
    }
    let rows: Vec<_> = events.iter().map(row).collect();
    let prefix = "INSERT INTO usage_events (request_id, attempt, body_hash, organization_id, project_id, key_id, slice_id, state, reason, model,
             input_tokens, cached_input_tokens, output_tokens, amount, currency, admitted_at, finished_at, body) VALUES ";
    tx.insert_many(prefix, "", &rows).await?;
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
