//! Files for finance that are delivered by themselves: what goes where, how far it is, and its latest attempts.
//!
//! Invariants: no two schedules have one place; who claimed a schedule changes it only while nobody claimed it since;
//! what was attempted is kept for the last [`RUNS_MAX`] attempts.

use sublet_core::delivery::Target;
use sublet_core::id::{ExportScheduleId, OrganizationId};
use sublet_core::{DurationMs, Error, ErrorCode, Result, Timestamp};
use sublet_money::export_schedule::{Cadence, Coverage, ExportContent, OpenWritten, ScheduleProgress};
use sublet_money::period::PeriodKey;

use crate::database::Tx;
use crate::params;
use crate::row::{Row, to_json};

/// Most schedules.
pub const SCHEDULES_MAX: i64 = 100;
/// Attempts of a schedule that are kept.
pub const RUNS_MAX: i64 = 100;

/// What goes where, and how far it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExportSchedule {
    pub id: ExportScheduleId,
    /// Of whom; of all if `None`.
    pub organization: Option<OrganizationId>,
    pub content: ExportContent,
    pub cadence: Cadence,
    pub target: Target,
    pub progress: ScheduleProgress,
    /// When it is looked at next.
    pub next_at: Timestamp,
    /// Claims so far: who claimed it is known by its number.
    pub attempt: i64,
    /// Attempts that failed since the last that did not.
    pub failures: i64,
    /// What the last attempt that failed said; empty once one did not.
    pub problem: String,
    pub created_by: String,
    pub created_at: Timestamp,
}

/// One attempt.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExportRun {
    pub attempt: i64,
    pub file: String,
    pub period: Option<PeriodKey>,
    pub coverage: Coverage,
    pub rows: i64,
    pub bytes: i64,
    /// Of the file, in hexadecimal digits; empty where there is none.
    pub sha256: String,
    /// Empty for what was delivered.
    pub problem: String,
    pub started_at: Timestamp,
    pub ended_at: Timestamp,
}

fn from_row(row: &Row) -> Result<ExportSchedule> {
    let mut row = row.reader();
    let (id, organization) = (row.parse()?, row.optional_parse()?);
    let (dataset, version, format) = (row.string()?, row.string()?, row.string()?);
    let version = Some(version.as_str()).filter(|version| !version.is_empty());
    let content = ExportContent::from_parts(&dataset, version, Some(&format));
    let content = content.map_err(|error| Error::internal(format!("a stored schedule: {error}")))?;
    let (cadence, target) = (row.parse()?, row.json()?);
    let (next, day, period) = (row.optional_parse()?, row.optional_time()?, row.optional_parse()?);
    Ok(ExportSchedule {
        id,
        organization,
        content,
        cadence,
        target,
        progress: ScheduleProgress { next, open: day.map(|day| OpenWritten { day, period }) },
        next_at: row.time()?,
        attempt: row.int()?,
        failures: row.int()?,
        problem: row.string()?,
        created_by: row.string()?,
        created_at: row.time()?,
    })
}

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT id, organization_id, dataset, version, format, cadence, target, next_period, open_day, open_period, next_at,
                 attempt, failures, problem, created_by, created_at FROM export_schedules ",
            $rest
        )
    };
}

/// Adds one; false if there is one for its place. `place` says where its files go.
pub async fn insert(tx: &mut Tx, new: &ExportSchedule, place: &str) -> Result<bool> {
    let row = tx.fetch_one("SELECT COUNT(*) FROM export_schedules", &[]).await?;
    if row.reader().int()? >= SCHEDULES_MAX {
        return Err(Error::new(ErrorCode::Conflict, format!("there are {SCHEDULES_MAX} schedules, which is the most")));
    }
    let inserted = tx
        .execute(
            "INSERT INTO export_schedules (id, organization_id, dataset, version, format, cadence, target, place, next_period,
                 next_at, attempt, failures, problem, created_by, created_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 0, 0, '', $11, $12) ON CONFLICT (place) DO NOTHING",
            params![
                new.id.as_str(),
                new.organization.as_ref().map(OrganizationId::as_str),
                new.content.dataset(),
                new.content.version().unwrap_or(""),
                new.content.format(),
                new.cadence.as_str(),
                to_json(&new.target)?,
                place,
                new.progress.next.map(|period| period.to_string()),
                new.next_at,
                new.created_by.as_str(),
                new.created_at
            ],
        )
        .await?;
    Ok(inserted == 1)
}

/// All of them, oldest first.
pub async fn list(tx: &mut Tx) -> Result<Vec<ExportSchedule>> {
    tx.fetch_all(select!("ORDER BY id LIMIT $1"), params![SCHEDULES_MAX]).await?.iter().map(from_row).collect()
}

pub async fn get(tx: &mut Tx, id: &ExportScheduleId) -> Result<ExportSchedule> {
    let row = tx.fetch_optional(select!("WHERE id = $1"), params![id.as_str()]).await?;
    from_row(&row.ok_or_else(|| Error::new(ErrorCode::NotFound, format!("there is no export schedule '{id}'")))?)
}

/// Forgets one with its attempts. Whoever is at it cannot finish.
pub async fn remove(tx: &mut Tx, id: &ExportScheduleId) -> Result<()> {
    tx.execute("DELETE FROM export_runs WHERE schedule_id = $1", params![id.as_str()]).await?;
    tx.execute("DELETE FROM export_schedules WHERE id = $1", params![id.as_str()]).await?;
    Ok(())
}

/// The latest attempts, the last one first.
pub async fn list_runs(tx: &mut Tx, id: &ExportScheduleId) -> Result<Vec<ExportRun>> {
    let rows = tx
        .fetch_all(
            "SELECT attempt, file, period, coverage, row_count, byte_count, sha256, problem, started_at, ended_at FROM export_runs
             WHERE schedule_id = $1 ORDER BY attempt DESC LIMIT $2",
            params![id.as_str(), RUNS_MAX],
        )
        .await?;
    let read = |row: &Row| {
        let mut row = row.reader();
        Ok(ExportRun {
            attempt: row.int()?,
            file: row.string()?,
            period: row.optional_parse()?,
            coverage: row.parse()?,
            rows: row.int()?,
            bytes: row.int()?,
            sha256: row.string()?,
            problem: row.string()?,
            started_at: row.time()?,
            ended_at: row.time()?,
        })
    };
    rows.iter().map(read).collect()
}

/// Has one looked at as soon as nobody is at it, and what is open written again.
pub async fn wake(tx: &mut Tx, id: &ExportScheduleId, now: Timestamp) -> Result<()> {
    tx.execute(
        "UPDATE export_schedules SET next_at = $2, open_day = NULL, open_period = NULL WHERE id = $1",
        params![id.as_str(), now],
    )
    .await?;
    Ok(())
}

/// Takes the next that is due for `lease`; another worker may take it again after that.
pub async fn claim(tx: &mut Tx, now: Timestamp, lease: DurationMs) -> Result<Option<ExportSchedule>> {
    let row = tx
        .fetch_optional(
            "UPDATE export_schedules SET claimed_until = $2, attempt = attempt + 1
             WHERE id = (SELECT id FROM export_schedules WHERE next_at <= $1 AND (claimed_until IS NULL OR claimed_until <= $1)
                         ORDER BY next_at, id LIMIT 1)
             RETURNING id, organization_id, dataset, version, format, cadence, target, next_period, open_day, open_period, next_at,
                 attempt, failures, problem, created_by, created_at",
            params![now, now.plus(lease)],
        )
        .await?;
    row.as_ref().map(from_row).transpose()
}

/// Keeps a claim until then; false if somebody claimed it since, or it is gone.
pub async fn renew(tx: &mut Tx, claimed: &ExportSchedule, until: Timestamp) -> Result<bool> {
    let kept = tx
        .execute(
            "UPDATE export_schedules SET claimed_until = $3 WHERE id = $1 AND attempt = $2",
            params![claimed.id.as_str(), claimed.attempt, until],
        )
        .await?;
    Ok(kept == 1)
}

/// Gives a claim back with what came of it; false if somebody claimed it since, or it is gone. `after.next_at` is when it
/// is looked at next; what was woken meanwhile stays so.
pub async fn release(tx: &mut Tx, claimed: &ExportSchedule, after: &ExportSchedule) -> Result<bool> {
    let released = tx
        .execute(
            "UPDATE export_schedules SET claimed_until = NULL, next_period = $4,
                 open_day = CASE WHEN next_at = $3 THEN $5 END, open_period = CASE WHEN next_at = $3 THEN $6 END,
                 failures = $7, problem = $8, next_at = CASE WHEN next_at = $3 THEN $9 ELSE next_at END
             WHERE id = $1 AND attempt = $2",
            params![
                claimed.id.as_str(),
                claimed.attempt,
                claimed.next_at,
                after.progress.next.map(|period| period.to_string()),
                after.progress.open.map(|open| open.day),
                after.progress.open.and_then(|open| open.period).map(|period| period.to_string()),
                after.failures,
                after.problem.as_str(),
                after.next_at
            ],
        )
        .await?;
    Ok(released == 1)
}

/// Notes an attempt, and forgets those long before it.
pub async fn insert_run(tx: &mut Tx, id: &ExportScheduleId, run: &ExportRun) -> Result<()> {
    tx.execute(
        "INSERT INTO export_runs (schedule_id, attempt, file, period, coverage, row_count, byte_count, sha256, problem, started_at,
             ended_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        params![
            id.as_str(),
            run.attempt,
            run.file.as_str(),
            run.period.map(|period| period.to_string()),
            run.coverage.as_str(),
            run.rows,
            run.bytes,
            run.sha256.as_str(),
            run.problem.as_str(),
            run.started_at,
            run.ended_at
        ],
    )
    .await?;
    // Attempts that found nothing due have numbers and no rows.
    tx.execute(
        "DELETE FROM export_runs WHERE schedule_id = $1 AND attempt NOT IN
             (SELECT attempt FROM export_runs WHERE schedule_id = $1 ORDER BY attempt DESC LIMIT $2)",
        params![id.as_str(), RUNS_MAX],
    )
    .await?;
    Ok(())
}
