//! Batches: many requests in one file, and how far they are.
//!
//! A process works on a batch under a *claim*: until an instant, and with a generation that grows with
//! each claim. Whatever an earlier claim still sends is recognized by its generation.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sublet_core::admission::TokenUsage;
use sublet_core::batch::{BatchStatus, LineEndpoint};
use sublet_core::id::{BatchId, FileId, GatewayId, KeyId, OrganizationId, ProjectId};
use sublet_core::{Currency, DurationMs, Error, ErrorCode, Nanos, Result, Scope, Timestamp, TokenCount};

use crate::database::Tx;
use crate::page::{Page, PageRequest};
use crate::params;
use crate::row::{Row, to_json};

/// A batch as it is stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Batch {
    pub id: BatchId,
    pub organization: OrganizationId,
    pub project: ProjectId,
    /// The key that created it pays for it.
    pub key: KeyId,
    pub endpoint: LineEndpoint,
    pub input_file: FileId,
    /// Which store of contents has its files.
    pub home: String,
    /// As the client wrote it.
    pub completion_window: String,
    pub status: BatchStatus,
    /// What is wrong with its file, or why its lines ended.
    pub problems: Vec<Problem>,
    pub quote: Option<BatchQuote>,
    pub output_file: Option<FileId>,
    pub error_file: Option<FileId>,
    pub output_expires_after: Option<DurationMs>,
    /// What unanswered lines say; an empty code while there is nothing to say.
    pub end: BatchEnd,
    /// No line is answered any more.
    pub sealed: bool,
    pub counts: LineCounts,
    pub times: BatchTimes,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
    pub metadata: BTreeMap<String, String>,
    pub generation: i64,
    pub owner: Option<GatewayId>,
    pub forecast_at: Option<Timestamp>,
}

/// Something wrong, with its line if it has one.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Problem {
    pub code: String,
    pub message: String,
    pub param: Option<String>,
    pub line: Option<u32>,
}

/// What a batch may cost, from its counted tokens.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BatchQuote {
    /// What all lines ask for together; 0 in quotes of before it was counted.
    #[serde(default)]
    pub answers: u64,
    pub input_tokens: TokenCount,
    pub output_tokens_max: TokenCount,
    /// The input and one token of each answer.
    pub least: Nanos,
    /// The input and the most output.
    pub most: Nanos,
    pub currency: Currency,
}

/// Why lines stay without an answer.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct BatchEnd {
    pub code: String,
    pub message: String,
}

/// Lines by what became of them, and what they used.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct LineCounts {
    pub total: i64,
    pub completed: i64,
    pub failed: i64,
    pub tokens: TokenUsage,
}

/// When a batch changed its status.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct BatchTimes {
    pub in_progress: Option<Timestamp>,
    pub finalizing: Option<Timestamp>,
    pub completed: Option<Timestamp>,
    pub failed: Option<Timestamp>,
    pub expired: Option<Timestamp>,
    pub cancelling: Option<Timestamp>,
    pub cancelled: Option<Timestamp>,
}

macro_rules! columns {
    () => {
        "id, organization_id, project_id, key_id, endpoint, input_file_id, home, completion_window, status, problems, quote,
             output_file_id, error_file_id, output_expires_after, end_code, end_message, sealed, lines_total, lines_completed,
             lines_failed, input_tokens, cached_input_tokens, output_tokens, times, created_at, expires_at, metadata, generation,
             owner, forecast_at"
    };
}

macro_rules! select {
    ($rest:literal) => {
        concat!("SELECT ", columns!(), " FROM batches ", $rest)
    };
}

fn from_row(row: &Row) -> Result<Batch> {
    let mut row = row.reader();
    Ok(Batch {
        id: row.parse()?,
        organization: row.parse()?,
        project: row.parse()?,
        key: row.parse()?,
        endpoint: row.parse()?,
        input_file: row.parse()?,
        home: row.string()?,
        completion_window: row.string()?,
        status: row.parse()?,
        problems: row.json()?,
        quote: crate::attempt::optional_json(row.optional_text()?)?,
        output_file: row.optional_parse()?,
        error_file: row.optional_parse()?,
        output_expires_after: row.optional_int()?.map(DurationMs::from_millis),
        end: BatchEnd { code: row.string()?, message: row.string()? },
        sealed: row.int()? != 0,
        counts: crate::batch_line::read_counts(&mut row)?,
        times: row.json()?,
        created_at: row.time()?,
        expires_at: row.time()?,
        metadata: row.json()?,
        generation: row.int()?,
        owner: row.optional_parse()?,
        forecast_at: row.optional_time()?,
    })
}

/// Inserts a batch that nobody has claimed.
pub async fn insert(tx: &mut Tx, batch: &Batch) -> Result<()> {
    tx.execute(
        "INSERT INTO batches (id, organization_id, project_id, key_id, endpoint, input_file_id, home, completion_window, status, problems,
             output_expires_after, end_code, end_message, sealed, lines_total, lines_completed, lines_failed, input_tokens,
             cached_input_tokens, output_tokens, times, created_at, expires_at, metadata, generation, claimed_until, purged)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, '[]', $10, '', '', 0, 0, 0, 0, 0, 0, 0, $11, $12, $13, $14, 0, 0, 0)",
        params![
            batch.id.as_str(),
            batch.organization.as_str(),
            batch.project.as_str(),
            batch.key.as_str(),
            batch.endpoint.as_str(),
            batch.input_file.as_str(),
            batch.home.as_str(),
            batch.completion_window.as_str(),
            batch.status.as_str(),
            batch.output_expires_after.map(DurationMs::millis),
            to_json(&batch.times)?,
            batch.created_at,
            batch.expires_at,
            to_json(&batch.metadata)?
        ],
    )
    .await?;
    Ok(())
}

/// Writes what can change of a batch but its claim. The caller read it in this transaction.
pub async fn save(tx: &mut Tx, batch: &Batch) -> Result<()> {
    let changed = tx
        .execute(
            "UPDATE batches SET status = $2, problems = $3, quote = $4, output_file_id = $5, error_file_id = $6, end_code = $7,
                 end_message = $8, sealed = $9, lines_total = $10, lines_completed = $11, lines_failed = $12, input_tokens = $13,
                 cached_input_tokens = $14, output_tokens = $15, times = $16 WHERE id = $1",
            params![
                batch.id.as_str(),
                batch.status.as_str(),
                to_json(&batch.problems)?,
                batch.quote.as_ref().map(to_json).transpose()?,
                batch.output_file.as_ref().map(FileId::as_str),
                batch.error_file.as_ref().map(FileId::as_str),
                batch.end.code.as_str(),
                batch.end.message.as_str(),
                i64::from(batch.sealed),
                batch.counts.total,
                batch.counts.completed,
                batch.counts.failed,
                batch.counts.tokens.input.get(),
                batch.counts.tokens.cached_input.get(),
                batch.counts.tokens.output.get(),
                to_json(&batch.times)?
            ],
        )
        .await?;
    if changed == 1 { Ok(()) } else { Err(Error::internal(format!("batch {} is gone", batch.id))) }
}

/// The batch, if the scope may see it.
pub async fn find(tx: &mut Tx, scope: &Scope, id: &BatchId) -> Result<Option<Batch>> {
    let row = tx.fetch_optional(select!("WHERE id = $1"), params![id.as_str()]).await?;
    let batch = row.as_ref().map(from_row).transpose()?;
    Ok(batch.filter(|batch| crate::project::is_visible(scope, &batch.organization, &batch.project)))
}

pub async fn get(tx: &mut Tx, scope: &Scope, id: &BatchId) -> Result<Batch> {
    find(tx, scope, id).await?.ok_or_else(|| Error::new(ErrorCode::NotFound, format!("there is no batch '{id}'")))
}

pub async fn list(tx: &mut Tx, scope: &Scope, page: &PageRequest) -> Result<Page<Batch>> {
    let (key, limit) = page.keyset();
    let sql = page.pick(
        select!("WHERE ($1 = '' OR organization_id = $1) AND ($2 = '' OR project_id = $2) AND id > $3 ORDER BY id ASC LIMIT $4"),
        select!("WHERE ($1 = '' OR organization_id = $1) AND ($2 = '' OR project_id = $2) AND id < $3 ORDER BY id DESC LIMIT $4"),
    );
    let organization = scope.organization().map_or("", OrganizationId::as_str);
    let project = scope.project().map_or("", ProjectId::as_str);
    let rows = tx.fetch_all(sql, &[organization.into(), project.into(), key, limit]).await?;
    page.page(&rows, from_row)
}

/// How many batches of a project have not ended.
pub async fn count_open(tx: &mut Tx, project: &ProjectId) -> Result<i64> {
    let row = tx
        .fetch_one(
            "SELECT COUNT(*) FROM batches WHERE project_id = $1 AND status IN ('validating', 'in_progress', 'finalizing', 'cancelling')",
            params![project.as_str()],
        )
        .await?;
    row.reader().int()
}

/// Whether a batch that has not ended reads this file.
pub async fn reads_file(tx: &mut Tx, file: &FileId) -> Result<bool> {
    let row = tx
        .fetch_optional(
            "SELECT id FROM batches WHERE input_file_id = $1 AND status IN ('validating', 'in_progress', 'finalizing', 'cancelling') LIMIT 1",
            params![file.as_str()],
        )
        .await?;
    Ok(row.is_some())
}

/// Who claims, what it can read, and for how long.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Claim {
    pub owner: GatewayId,
    pub home: String,
    /// Whose turn it is.
    pub project: ProjectId,
    pub now: Timestamp,
    pub until: Timestamp,
}

/// Claims the batch of a project that must end first of those that nobody works on.
pub async fn claim(tx: &mut Tx, claim: &Claim) -> Result<Option<Batch>> {
    let row = tx
        .fetch_optional(
            concat!(
                "UPDATE batches SET owner = $1, claimed_until = $2, generation = generation + 1 WHERE id = (
                 SELECT id FROM batches WHERE status IN ('validating', 'in_progress', 'finalizing', 'cancelling')
                     AND project_id = $5 AND home = $3 AND claimed_until <= $4 ORDER BY expires_at, id LIMIT 1) RETURNING ",
                columns!()
            ),
            params![claim.owner.as_str(), claim.until, claim.home.as_str(), claim.now, claim.project.as_str()],
        )
        .await?;
    row.as_ref().map(from_row).transpose()
}

/// What the holder of a claim knows newly.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Renewal {
    pub id: BatchId,
    pub generation: i64,
    pub until: Timestamp,
    pub forecast_at: Option<Timestamp>,
}

/// Keeps a claim. False if somebody else has it.
pub async fn renew(tx: &mut Tx, renewal: &Renewal) -> Result<bool> {
    let changed = tx
        .execute(
            "UPDATE batches SET claimed_until = $3, forecast_at = $4 WHERE id = $1 AND generation = $2",
            params![renewal.id.as_str(), renewal.generation, renewal.until, renewal.forecast_at],
        )
        .await?;
    Ok(changed == 1)
}

/// The first batch of a project that waits for somebody to work on it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Waiting {
    pub project: ProjectId,
    pub expires_at: Timestamp,
    /// When one of those that wait was last worked on; the epoch if none was.
    pub last_turn: Timestamp,
}

/// The projects that have batches which nobody works on, over all tenants: the one first whose last turn is longest ago.
pub async fn waiting(tx: &mut Tx, home: &str, now: Timestamp, projects_max: i64) -> Result<Vec<Waiting>> {
    let rows = tx
        .fetch_all(
            "SELECT project_id, MIN(expires_at), MAX(claimed_until) FROM batches
             WHERE status IN ('validating', 'in_progress', 'finalizing', 'cancelling') AND home = $1 AND claimed_until <= $2
             GROUP BY project_id ORDER BY MAX(claimed_until), MIN(expires_at), project_id LIMIT $3",
            params![home, now, projects_max],
        )
        .await?;
    let read = |row: &Row| -> Result<Waiting> {
        let mut row = row.reader();
        Ok(Waiting { project: row.parse()?, expires_at: row.time()?, last_turn: row.time()? })
    };
    rows.iter().map(read).collect()
}

/// Gives one claim up, so that somebody else has a turn. False if it is gone. Its number is over too: a renewal that
/// is on its way does not bring it back.
pub async fn give_way(tx: &mut Tx, id: &BatchId, generation: i64, now: Timestamp) -> Result<bool> {
    let changed = tx
        .execute(
            "UPDATE batches SET claimed_until = $3, generation = generation + 1 WHERE id = $1 AND generation = $2",
            params![id.as_str(), generation, now],
        )
        .await?;
    Ok(changed == 1)
}

/// How many batches are in a status, over all tenants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StatusCount {
    pub status: BatchStatus,
    pub batches: u64,
}

/// Batches that have not ended, by their status, over all tenants.
pub async fn count_by_status(tx: &mut Tx) -> Result<Vec<StatusCount>> {
    let rows = tx
        .fetch_all(
            "SELECT status, COUNT(*) FROM batches WHERE status IN ('validating', 'in_progress', 'finalizing', 'cancelling') GROUP BY status",
            &[],
        )
        .await?;
    let read = |row: &Row| -> Result<StatusCount> {
        let mut row = row.reader();
        let (status, count) = (row.parse()?, row.int()?);
        let batches = u64::try_from(count).map_err(|_| Error::internal(format!("there are {count} batches")))?;
        Ok(StatusCount { status, batches })
    };
    rows.iter().map(read).collect()
}

/// Since when the oldest batch waits that nobody works on, over all tenants.
pub async fn oldest_waiting(tx: &mut Tx, now: Timestamp) -> Result<Option<Timestamp>> {
    let row = tx
        .fetch_one(
            "SELECT MIN(created_at) FROM batches
             WHERE status IN ('validating', 'in_progress', 'finalizing', 'cancelling') AND claimed_until <= $1",
            params![now],
        )
        .await?;
    row.reader().optional_time()
}

/// Gives up every claim of an owner: its process has just started, or stops.
pub async fn release(tx: &mut Tx, owner: &GatewayId) -> Result<u64> {
    tx.execute(
        "UPDATE batches SET claimed_until = 0 WHERE owner = $1 AND claimed_until > 0
             AND status IN ('validating', 'in_progress', 'finalizing', 'cancelling')",
        params![owner.as_str()],
    )
    .await
}

/// A batch that has ended and still has lines.
pub async fn unpurged(tx: &mut Tx) -> Result<Option<BatchId>> {
    let row = tx
        .fetch_optional(
            "SELECT id FROM batches WHERE status IN ('failed', 'completed', 'expired', 'cancelled') AND purged = 0 ORDER BY id LIMIT 1",
            &[],
        )
        .await?;
    row.map(|row| row.reader().parse()).transpose()
}

pub async fn set_purged(tx: &mut Tx, id: &BatchId) -> Result<()> {
    tx.execute("UPDATE batches SET purged = 1 WHERE id = $1", params![id.as_str()]).await?;
    Ok(())
}
