//! The lines of a batch while it runs: where each stands in its file, and its answer once it has one.
//!
//! Invariants, kept by the statements themselves: a line is answered once; it is answered only by an
//! attempt that is its batch's generation, and never after the batch was sealed.

use sublet_core::admission::TokenUsage;
use sublet_core::batch::LineName;
use sublet_core::id::{BatchId, RequestId};
use sublet_core::{Error, Result, TokenCount};

use crate::batch::LineCounts;
use crate::database::Tx;
use crate::params;
use crate::row::{Row, RowReader};

/// A line that is to be answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Line {
    /// Counted from 1.
    pub number: u32,
    pub custom_id: String,
    pub request: RequestId,
    /// Where it stands in the input file.
    pub starts_at_byte: u64,
    pub bytes: u64,
    /// How many answers it asks for.
    pub answers: u32,
}

/// A line with what became of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EndedLine {
    pub line: Line,
    /// HTTP status and body; `None` if it has no answer.
    pub answer: Option<(u16, String)>,
}

/// Which try answers a line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Try<'a> {
    pub name: &'a LineName,
    pub request: &'a RequestId,
    pub attempt: u32,
}

/// What a try gives.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Given<'a> {
    pub status: u16,
    pub body: &'a str,
    pub tokens: TokenUsage,
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn unsigned<T: TryFrom<i64>>(value: i64) -> Result<T> {
    T::try_from(value).map_err(|_| Error::internal(format!("a line has the number {value}")))
}

fn from_row(row: &Row) -> Result<EndedLine> {
    let mut row = row.reader();
    let line = Line {
        number: unsigned(row.int()?)?,
        custom_id: row.string()?,
        request: row.parse()?,
        starts_at_byte: unsigned(row.int()?)?,
        bytes: unsigned(row.int()?)?,
        answers: unsigned(row.int()?)?,
    };
    let is_open = row.text()? == "open";
    let (status, answer) = (unsigned(row.int()?)?, row.string()?);
    Ok(EndedLine { line, answer: (!is_open).then_some((status, answer)) })
}

pub async fn insert(tx: &mut Tx, batch: &BatchId, lines: &[Line]) -> Result<()> {
    let rows: Vec<_> = lines
        .iter()
        .map(|line| {
            params![
                batch.as_str(),
                i64::from(line.number),
                line.custom_id.as_str(),
                line.request.as_str(),
                signed(line.starts_at_byte),
                signed(line.bytes),
                i64::from(line.answers),
                "open",
                0,
                "",
                0,
                0,
                0
            ]
            .to_vec()
        })
        .collect();
    let prefix =
        "INSERT INTO batch_lines (batch_id, number, custom_id, request_id, starts_at_byte, bytes, answers, state, status_code,
             answer, input_tokens, cached_input_tokens, output_tokens) VALUES ";
    tx.insert_many(prefix, "", &rows).await?;
    Ok(())
}

/// Lines behind `after` that have no answer, in their order.
pub async fn open_after(tx: &mut Tx, batch: &BatchId, after: u32, lines_max: i64) -> Result<Vec<Line>> {
    let rows = tx
        .fetch_all(
            "SELECT number, custom_id, request_id, starts_at_byte, bytes, answers, state, status_code, answer FROM batch_lines
             WHERE batch_id = $1 AND state = 'open' AND number > $2 ORDER BY number LIMIT $3",
            params![batch.as_str(), i64::from(after), lines_max],
        )
        .await?;
    rows.iter().map(|row| from_row(row).map(|ended| ended.line)).collect()
}

/// The custom ids of a batch's lines.
pub async fn custom_ids(tx: &mut Tx, batch: &BatchId) -> Result<Vec<String>> {
    // Lines are bounded where they are inserted.
    let rows = tx.fetch_all("SELECT custom_id FROM batch_lines WHERE batch_id = $1", params![batch.as_str()]).await?;
    rows.iter().map(|row| row.reader().string()).collect()
}

/// The last line of a batch.
pub async fn last(tx: &mut Tx, batch: &BatchId) -> Result<Option<Line>> {
    let row = tx
        .fetch_optional(
            "SELECT number, custom_id, request_id, starts_at_byte, bytes, answers, state, status_code, answer FROM batch_lines
             WHERE batch_id = $1 ORDER BY number DESC LIMIT 1",
            params![batch.as_str()],
        )
        .await?;
    row.as_ref().map(|row| from_row(row).map(|ended| ended.line)).transpose()
}

/// All lines behind `after` with their answers, in their order.
pub async fn ended_after(tx: &mut Tx, batch: &BatchId, after: u32, lines_max: i64) -> Result<Vec<EndedLine>> {
    let rows = tx
        .fetch_all(
            "SELECT number, custom_id, request_id, starts_at_byte, bytes, answers, state, status_code, answer FROM batch_lines
             WHERE batch_id = $1 AND number > $2 ORDER BY number LIMIT $3",
            params![batch.as_str(), i64::from(after), lines_max],
        )
        .await?;
    rows.iter().map(from_row).collect()
}

/// Answers a line. False if this try may not: the line has its answer, or the batch has moved on.
pub async fn answer(tx: &mut Tx, by: &Try<'_>, given: &Given<'_>) -> Result<bool> {
    let changed = tx
        .execute(
            "UPDATE batch_lines SET state = 'done', status_code = $5, answer = $6, input_tokens = $7, cached_input_tokens = $8,
                 output_tokens = $9
             WHERE batch_id = $1 AND number = $2 AND state = 'open' AND request_id = $3
                 AND EXISTS (SELECT 1 FROM batches WHERE id = $1 AND generation = $4 AND sealed = 0)",
            params![
                by.name.batch.as_str(),
                i64::from(by.name.number),
                by.request.as_str(),
                i64::from(by.attempt),
                i64::from(given.status),
                given.body,
                given.tokens.input.get(),
                given.tokens.cached_input.get(),
                given.tokens.output.get()
            ],
        )
        .await?;
    Ok(changed == 1)
}

/// Lines without an answer, and the answers that they ask for.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Open {
    pub lines: u64,
    pub answers: u64,
}

/// What of a batch has no answer.
pub async fn count_open(tx: &mut Tx, batch: &BatchId) -> Result<Open> {
    let row = tx
        .fetch_one(
            "SELECT COUNT(*), CAST(COALESCE(SUM(answers), 0) AS BIGINT) FROM batch_lines WHERE batch_id = $1 AND state = 'open'",
            params![batch.as_str()],
        )
        .await?;
    let mut row = row.reader();
    Ok(Open { lines: unsigned(row.int()?)?, answers: unsigned(row.int()?)? })
}

/// What became of the lines of a batch so far. Lines without an answer are in the total only.
pub async fn count(tx: &mut Tx, batch: &BatchId) -> Result<LineCounts> {
    let row = tx
        .fetch_one(
            "SELECT COUNT(*), CAST(COALESCE(SUM(CASE WHEN state = 'done' AND status_code = 200 THEN 1 ELSE 0 END), 0) AS BIGINT),
                 CAST(COALESCE(SUM(CASE WHEN state = 'done' AND status_code <> 200 THEN 1 ELSE 0 END), 0) AS BIGINT),
                 CAST(COALESCE(SUM(input_tokens), 0) AS BIGINT), CAST(COALESCE(SUM(cached_input_tokens), 0) AS BIGINT),
                 CAST(COALESCE(SUM(output_tokens), 0) AS BIGINT) FROM batch_lines WHERE batch_id = $1",
            params![batch.as_str()],
        )
        .await?;
    read_counts(&mut row.reader())
}

/// Counts in the order of the columns that hold or compute them.
pub(crate) fn read_counts(row: &mut RowReader<'_>) -> Result<LineCounts> {
    Ok(LineCounts {
        total: row.int()?,
        completed: row.int()?,
        failed: row.int()?,
        tokens: TokenUsage {
            input: TokenCount::new(row.int()?),
            cached_input: TokenCount::new(row.int()?),
            output: TokenCount::new(row.int()?),
        },
    })
}

/// Deletes some lines of a batch; says how many.
pub async fn delete_some(tx: &mut Tx, batch: &BatchId, lines_max: i64) -> Result<u64> {
    tx.execute(
        "DELETE FROM batch_lines WHERE batch_id = $1 AND number IN (SELECT number FROM batch_lines WHERE batch_id = $1 ORDER BY number LIMIT $2)",
        params![batch.as_str(), lines_max],
    )
    .await
}
