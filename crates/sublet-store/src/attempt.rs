//! Attempts, the append-only interval log, and where the reading of each runner's events stands.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sublet_core::id::{AttemptId, DeviceId, JobId, LeaseId, OrganizationId, ProjectId};
use sublet_core::job::AttemptState;
use sublet_core::runner::{Exit, Isolation};
use sublet_core::{Bytes, DurationMs, Error, Result, Timestamp};

use crate::database::Tx;
use crate::row::{Row, to_json};
use crate::{Updated, params};

/// Most attempts that exist at runners at once.
pub const LIVE_ATTEMPTS_MAX: i64 = 50_000;
/// Most intervals in one listing.
pub const INTERVALS_MAX: i64 = 100_000;

/// A limit that acted.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Contained {
    pub at: Timestamp,
    pub what: String,
}

/// One run of a job.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attempt {
    pub id: AttemptId,
    pub job: JobId,
    pub lease: LeaseId,
    pub organization: OrganizationId,
    pub project: ProjectId,
    /// From 1.
    pub number: i64,
    pub runner: String,
    pub devices: Vec<DeviceId>,
    pub state: AttemptState,
    pub placed_at: Timestamp,
    pub started_at: Option<Timestamp>,
    /// The last proof of life.
    pub alive_at: Option<Timestamp>,
    pub ended_at: Option<Timestamp>,
    /// Device time up to here is in the interval log and charged.
    pub settled_until: Option<Timestamp>,
    /// The deadline of the last notice that was given.
    pub notified_for: Option<Timestamp>,
    pub exit: Option<Exit>,
    pub isolation: Option<Isolation>,
    pub contained: Vec<Contained>,
    pub cpu_time: DurationMs,
    pub peak_memory: Bytes,
    pub generation: i64,
}

/// The columns of the list; every query of this file reads them in this order.
macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT id, job_id, lease_id, organization_id, project_id, number, runner, devices, state, placed_at, started_at, alive_at,
                 ended_at, settled_until, notified_for, exit, isolation, contained, cpu_time_ms, peak_memory, generation FROM attempts ",
            $rest
        )
    };
}

pub(crate) fn optional_json<T: DeserializeOwned>(text: Option<&str>) -> Result<Option<T>> {
    text.map(|text| serde_json::from_str(text).map_err(|error| Error::internal(format!("stored JSON: {error}")))).transpose()
}

fn from_row(row: &Row) -> Result<Attempt> {
    let mut row = row.reader();
    Ok(Attempt {
        id: row.parse()?,
        job: row.parse()?,
        lease: row.parse()?,
        organization: row.parse()?,
        project: row.parse()?,
        number: row.int()?,
        runner: row.string()?,
        devices: row.json()?,
        state: row.parse()?,
        placed_at: row.time()?,
        started_at: row.optional_time()?,
        alive_at: row.optional_time()?,
        ended_at: row.optional_time()?,
        settled_until: row.optional_time()?,
        notified_for: row.optional_time()?,
        exit: optional_json(row.optional_text()?)?,
        isolation: optional_json(row.optional_text()?)?,
        contained: row.json()?,
        cpu_time: DurationMs::from_millis(row.int()?),
        peak_memory: Bytes::new(row.int()?),
        generation: row.int()?,
    })
}

/// Inserts an attempt as placed.
pub async fn insert(tx: &mut Tx, attempt: &Attempt) -> Result<()> {
    tx.execute(
        "INSERT INTO attempts (id, job_id, lease_id, organization_id, project_id, number, runner, devices, state, placed_at, contained,
             cpu_time_ms, peak_memory, kept, generation) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, '[]', 0, 0, 'all', $11)",
        params![
            attempt.id.as_str(),
            attempt.job.as_str(),
            attempt.lease.as_str(),
            attempt.organization.as_str(),
            attempt.project.as_str(),
            attempt.number,
            attempt.runner.as_str(),
            to_json(&attempt.devices)?,
            attempt.state.as_str(),
            attempt.placed_at,
            attempt.generation
        ],
    )
    .await?;
    Ok(())
}

/// Writes what can change of an attempt, if it is still of the generation that was read.
pub async fn save(tx: &mut Tx, attempt: &Attempt) -> Result<Updated> {
    let changed = tx
        .execute(
            "UPDATE attempts SET state = $3, started_at = $4, alive_at = $5, ended_at = $6, settled_until = $7, notified_for = $8,
                 exit = $9, isolation = $10, contained = $11, cpu_time_ms = $12, peak_memory = $13, generation = generation + 1
             WHERE id = $1 AND generation = $2",
            params![
                attempt.id.as_str(),
                attempt.generation,
                attempt.state.as_str(),
                attempt.started_at,
                attempt.alive_at,
                attempt.ended_at,
                attempt.settled_until,
                attempt.notified_for,
                attempt.exit.as_ref().map(to_json).transpose()?,
                attempt.isolation.as_ref().map(to_json).transpose()?,
                to_json(&attempt.contained)?,
                attempt.cpu_time.millis(),
                attempt.peak_memory.get()
            ],
        )
        .await?;
    if changed == 1 {
        return Ok(Updated::Done);
    }
    let row = tx.fetch_optional("SELECT generation FROM attempts WHERE id = $1", params![attempt.id.as_str()]).await?;
    Ok(if row.is_some() { Updated::Stale } else { Updated::NotFound })
}

/// An attempt by id: runners name attempts, so the scope is the cloud's own.
pub async fn find(tx: &mut Tx, id: &AttemptId) -> Result<Option<Attempt>> {
    let row = tx.fetch_optional(select!("WHERE id = $1"), params![id.as_str()]).await?;
    row.as_ref().map(from_row).transpose()
}

/// All runs of a job, oldest first. The caller has checked the job's scope.
pub async fn list_of(tx: &mut Tx, job: &JobId) -> Result<Vec<Attempt>> {
    let rows = tx.fetch_all(select!("WHERE job_id = $1 ORDER BY number LIMIT 1000"), params![job.as_str()]).await?;
    rows.iter().map(from_row).collect()
}

/// All attempts that have not ended, over all tenants.
pub async fn list_live(tx: &mut Tx) -> Result<Vec<Attempt>> {
    let rows =
        tx.fetch_all(select!("WHERE state IN ('placed', 'running') ORDER BY id LIMIT $1"), params![LIVE_ATTEMPTS_MAX]).await?;
    rows.iter().map(from_row).collect()
}

/// The attempt of a lease that has not ended; a lease has at most one.
pub async fn find_live_of(tx: &mut Tx, lease: &LeaseId) -> Result<Option<Attempt>> {
    let row = tx
        .fetch_optional(select!("WHERE lease_id = $1 AND state IN ('placed', 'running') ORDER BY id"), params![lease.as_str()])
        .await?;
    row.as_ref().map(from_row).transpose()
}

/// The attempt that ran last on a lease and has ended. The caller has checked its scope.
pub async fn last_of(tx: &mut Tx, lease: &LeaseId) -> Result<Option<Attempt>> {
    let row = tx
        .fetch_optional(
            select!("WHERE lease_id = $1 AND state = 'ended' AND started_at IS NOT NULL ORDER BY ended_at DESC, id DESC LIMIT 1"),
            params![lease.as_str()],
        )
        .await?;
    row.as_ref().map(from_row).transpose()
}

/// What a runner still keeps of an ended attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kept {
    /// Its work directory and its log.
    All,
    /// Its log.
    Log,
    Nothing,
}

impl Kept {
    const fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Log => "log",
            Self::Nothing => "nothing",
        }
    }
}

/// Ended attempts of a runner of which it keeps `kept`, ended before an instant, oldest first. While a job may go on, all is
/// kept of its newest attempts: of the last three that began, and of those after them.
pub async fn list_ended(tx: &mut Tx, runner: &str, kept: Kept, before: Timestamp, limit: i64) -> Result<Vec<AttemptId>> {
    let rows = tx
        .fetch_all(
            "SELECT id FROM attempts WHERE state = 'ended' AND kept = $1 AND runner = $2 AND ended_at <= $3
                 AND NOT EXISTS (SELECT 1 FROM jobs WHERE jobs.id = attempts.job_id AND jobs.ended_at IS NULL
                     AND (SELECT COUNT(*) FROM attempts AS later WHERE later.job_id = attempts.job_id
                         AND later.runner = attempts.runner AND later.started_at IS NOT NULL
                         AND later.number > attempts.number) < 3)
             ORDER BY id LIMIT $4",
            params![kept.as_str(), runner, before, limit],
        )
        .await?;
    rows.iter().map(|row| row.reader().parse()).collect()
}

/// Takes note of what the runner keeps now.
pub async fn set_kept(tx: &mut Tx, id: &AttemptId, kept: Kept) -> Result<()> {
    tx.execute("UPDATE attempts SET kept = $2 WHERE id = $1", params![id.as_str(), kept.as_str()]).await?;
    Ok(())
}

/// A piece of one device's time that an attempt used. Half-open; never changed once written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AttemptInterval {
    pub attempt: AttemptId,
    pub device: DeviceId,
    pub started_at: Timestamp,
    pub ended_at: Timestamp,
    pub close_reason: CloseReason,
    /// The runner whose events it was made from, and up to which event.
    pub source: String,
    pub source_sequence: u64,
    pub lease: LeaseId,
}

impl AttemptInterval {
    /// Whole milliseconds, rounded down: what one device is charged for.
    pub fn millis(&self) -> i64 {
        self.ended_at.since(self.started_at).millis()
    }
    /// False for time beyond what was held: it ran, and nobody pays for it but us.
    pub const fn is_billed(&self) -> bool {
        match self.close_reason {
            CloseReason::Settled
            | CloseReason::Period
            | CloseReason::Band
            | CloseReason::Exited
            | CloseReason::Lost
            | CloseReason::HoldUsedUp => true,
            CloseReason::Unpaid => false,
        }
    }
}

/// Why an interval ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CloseReason {
    /// The attempt runs on; this part is charged.
    Settled,
    /// A billing period ended.
    Period,
    /// A band of the price ended or began.
    Band,
    /// The program ended.
    Exited,
    /// The machine died; this was the last proof of life.
    Lost,
    /// The money that was held is used up here, and the program ran on.
    HoldUsedUp,
    /// It began where the hold was used up.
    Unpaid,
}

impl CloseReason {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Settled => "settled",
            Self::Period => "period",
            Self::Band => "band",
            Self::Exited => "exited",
            Self::Lost => "lost",
            Self::HoldUsedUp => "hold_used_up",
            Self::Unpaid => "unpaid",
        }
    }
}

impl std::str::FromStr for CloseReason {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        [Self::Settled, Self::Period, Self::Band, Self::Exited, Self::Lost, Self::HoldUsedUp, Self::Unpaid]
            .into_iter()
            .find(|reason| reason.as_str() == text)
            .ok_or_else(|| Error::internal(format!("'{text}' is not a reason why an interval ends")))
    }
}

/// Appends to the log. The same piece twice is an error of the caller and fails.
pub async fn append_interval(tx: &mut Tx, interval: &AttemptInterval) -> Result<()> {
    tx.execute(
        "INSERT INTO attempt_intervals (attempt_id, device_id, started_at, ended_at, close_reason, source, source_sequence,
             lease_id) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        params![
            interval.attempt.as_str(),
            interval.device.as_str(),
            interval.started_at,
            interval.ended_at,
            interval.close_reason.as_str(),
            interval.source.as_str(),
            sequence_to_i64(interval.source_sequence)?,
            interval.lease.as_str()
        ],
    )
    .await?;
    Ok(())
}

fn interval_from_row(row: &Row) -> Result<AttemptInterval> {
    let mut row = row.reader();
    Ok(AttemptInterval {
        attempt: row.parse()?,
        device: row.parse()?,
        started_at: row.time()?,
        ended_at: row.time()?,
        close_reason: row.parse()?,
        source: row.string()?,
        source_sequence: u64::try_from(row.int()?).map_err(|_| Error::internal("a sequence number is negative"))?,
        lease: row.parse()?,
    })
}

/// The pieces of an attempt, in order of device and time. The caller has checked the job's scope.
pub async fn list_intervals(tx: &mut Tx, attempt: &AttemptId) -> Result<Vec<AttemptInterval>> {
    let rows = tx
        .fetch_all(
            "SELECT attempt_id, device_id, started_at, ended_at, close_reason, source, source_sequence, lease_id
             FROM attempt_intervals WHERE attempt_id = $1 ORDER BY device_id, started_at LIMIT $2",
            params![attempt.as_str(), INTERVALS_MAX],
        )
        .await?;
    rows.iter().map(interval_from_row).collect()
}

/// The pieces of one device's time, oldest first: they never overlap.
pub async fn list_intervals_of_device(tx: &mut Tx, device: &DeviceId) -> Result<Vec<AttemptInterval>> {
    let rows = tx
        .fetch_all(
            "SELECT attempt_id, device_id, started_at, ended_at, close_reason, source, source_sequence, lease_id
             FROM attempt_intervals WHERE device_id = $1 ORDER BY started_at, attempt_id LIMIT $2",
            params![device.as_str(), INTERVALS_MAX],
        )
        .await?;
    rows.iter().map(interval_from_row).collect()
}

fn sequence_to_i64(sequence: u64) -> Result<i64> {
    i64::try_from(sequence).map_err(|_| Error::internal("a sequence number left the range of 64-bit integers"))
}

/// The last event of a runner whose effects are in this database; 0 before the first.
pub async fn find_cursor(tx: &mut Tx, runner: &str) -> Result<u64> {
    let row = tx.fetch_optional("SELECT sequence FROM runner_cursors WHERE runner = $1", params![runner]).await?;
    let sequence = row.map(|row| row.reader().int()).transpose()?.unwrap_or(0);
    u64::try_from(sequence).map_err(|_| Error::internal("a cursor is negative"))
}

/// Moves the cursor on, in the transaction of the effects. Stale if somebody else moved it meanwhile.
pub async fn move_cursor(tx: &mut Tx, runner: &str, from: u64, to: u64) -> Result<Updated> {
    let changed = tx
        .execute(
            "INSERT INTO runner_cursors (runner, sequence) VALUES ($1, $3)
             ON CONFLICT (runner) DO UPDATE SET sequence = excluded.sequence WHERE runner_cursors.sequence = $2",
            params![runner, sequence_to_i64(from)?, sequence_to_i64(to)?],
        )
        .await?;
    Ok(if changed == 1 { Updated::Done } else { Updated::Stale })
}
