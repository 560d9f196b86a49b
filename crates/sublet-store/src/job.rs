//! Jobs.

use std::collections::BTreeMap;

use sublet_core::id::{AttemptId, JobId, KeyId, LeaseId, OrganizationId, ProjectId};
use sublet_core::job::{JobSpec, JobState, StopReason};
use sublet_core::runner::Exit;
use sublet_core::{Error, ErrorCode, Result, Scope, Timestamp};

use crate::database::Tx;
use crate::page::{Page, PageRequest};
use crate::row::{Row, to_json};
use crate::{Updated, params};

/// Most jobs of one lease that have not ended.
pub const OPEN_JOBS_PER_LEASE_MAX: i64 = 1_000;
/// Most jobs of one organization that wait to go on.
pub const REQUEUED_JOBS_MAX: i64 = 1_000;
/// Most jobs that one pass of the reconciler looks at.
pub const OPEN_JOBS_MAX: i64 = 50_000;

/// A command and what became of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Job {
    pub id: JobId,
    pub organization: OrganizationId,
    pub project: ProjectId,
    pub lease: LeaseId,
    pub key: Option<KeyId>,
    /// Without the files; see [`list_files`].
    pub spec: JobSpec,
    pub state: JobState,
    /// What its owner should know about its end, in words.
    pub message: String,
    pub attempt: Option<AttemptId>,
    pub exit: Option<Exit>,
    pub generation: i64,
    pub created_at: Timestamp,
    pub started_at: Option<Timestamp>,
    pub ended_at: Option<Timestamp>,
    /// How often it was run again.
    pub restarts: u32,
    /// Since when it is interrupted and has not run again.
    pub requeued_at: Option<Timestamp>,
    /// It is not tried before.
    pub not_before: Option<Timestamp>,
    /// On which its program ran first, by whose prices its start is charged.
    pub start_lease: Option<LeaseId>,
    pub metadata: BTreeMap<String, String>,
}

/// The columns of the list; every query of this file reads them in this order.
macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT id, organization_id, project_id, lease_id, key_id, spec, state, reason, message, attempt_id, exit, generation,
                 created_at, started_at, ended_at, restarts, requeued_at, not_before, start_lease_id, metadata FROM jobs ",
            $rest
        )
    };
}

fn from_row(row: &Row) -> Result<Job> {
    let mut row = row.reader();
    Ok(Job {
        id: row.parse()?,
        organization: row.parse()?,
        project: row.parse()?,
        lease: row.parse()?,
        key: row.optional_parse()?,
        spec: row.json()?,
        state: JobState::restore(row.text()?, row.text()?)?,
        message: row.string()?,
        attempt: row.optional_parse()?,
        exit: crate::attempt::optional_json(row.optional_text()?)?,
        generation: row.int()?,
        created_at: row.time()?,
        started_at: row.optional_time()?,
        ended_at: row.optional_time()?,
        restarts: u32::try_from(row.int()?).map_err(|_| Error::internal("a job with fewer than no restarts"))?,
        requeued_at: row.optional_time()?,
        not_before: row.optional_time()?,
        start_lease: row.optional_parse()?,
        metadata: row.json()?,
    })
}

/// Inserts a job with its files.
pub async fn insert(tx: &mut Tx, job: &Job) -> Result<()> {
    tx.execute(
        "INSERT INTO jobs (id, organization_id, project_id, lease_id, key_id, spec, state, reason, message, generation, created_at,
             metadata) VALUES ($1, $2, $3, $4, $5, $6, $7, '', '', $8, $9, $10)",
        params![
            job.id.as_str(),
            job.organization.as_str(),
            job.project.as_str(),
            job.lease.as_str(),
            job.key.as_ref().map(KeyId::as_str),
            to_json(&job.spec)?,
            job.state.as_str(),
            job.generation,
            job.created_at,
            to_json(&job.metadata)?
        ],
    )
    .await?;
    for (path, content) in &job.spec.files {
        tx.execute(
            "INSERT INTO job_files (job_id, path, content) VALUES ($1, $2, $3)",
            params![job.id.as_str(), path.as_str(), content.as_slice()],
        )
        .await?;
    }
    Ok(())
}

/// The files that came with a job. The caller has checked the job's scope.
pub async fn list_files(tx: &mut Tx, id: &JobId) -> Result<BTreeMap<String, Vec<u8>>> {
    let rows = tx.fetch_all("SELECT path, content FROM job_files WHERE job_id = $1 ORDER BY path", params![id.as_str()]).await?;
    rows.iter()
        .map(|row| {
            let mut row = row.reader();
            Ok((row.string()?, row.bytes()?.to_vec()))
        })
        .collect()
}

/// Deletes the files of a job that ended: its content is not kept.
pub async fn delete_files(tx: &mut Tx, id: &JobId) -> Result<()> {
    tx.execute("DELETE FROM job_files WHERE job_id = $1", params![id.as_str()]).await?;
    Ok(())
}

/// Writes what can change of a job, if it is still of the generation that was read.
pub async fn save(tx: &mut Tx, job: &Job) -> Result<Updated> {
    let changed = tx
        .execute(
            "UPDATE jobs SET state = $3, reason = $4, message = $5, attempt_id = $6, exit = $7, started_at = $8, ended_at = $9,
                 lease_id = $10, restarts = $11, requeued_at = $12, not_before = $13, start_lease_id = $14,
                 generation = generation + 1
             WHERE id = $1 AND generation = $2",
            params![
                job.id.as_str(),
                job.generation,
                job.state.as_str(),
                job.state.reason().map_or("", StopReason::as_str),
                job.message.as_str(),
                job.attempt.as_ref().map(AttemptId::as_str),
                job.exit.as_ref().map(to_json).transpose()?,
                job.started_at,
                job.ended_at,
                job.lease.as_str(),
                i64::from(job.restarts),
                job.requeued_at,
                job.not_before,
                job.start_lease.as_ref().map(LeaseId::as_str)
            ],
        )
        .await?;
    if changed == 1 {
        return Ok(Updated::Done);
    }
    let row = tx.fetch_optional("SELECT generation FROM jobs WHERE id = $1", params![job.id.as_str()]).await?;
    Ok(if row.is_some() { Updated::Stale } else { Updated::NotFound })
}

/// The job, if the scope may see it.
pub async fn find(tx: &mut Tx, scope: &Scope, id: &JobId) -> Result<Option<Job>> {
    let row = tx.fetch_optional(select!("WHERE id = $1"), params![id.as_str()]).await?;
    let job = row.as_ref().map(from_row).transpose()?;
    Ok(job.filter(|job| crate::project::is_visible(scope, &job.organization, &job.project)))
}

pub async fn get(tx: &mut Tx, scope: &Scope, id: &JobId) -> Result<Job> {
    find(tx, scope, id).await?.ok_or_else(|| Error::new(ErrorCode::NotFound, format!("there is no job '{id}'")))
}

/// The most states that are shown by one word.
const STATES_OF_A_STATUS_MAX: usize = 3;

/// Which jobs a list shows.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct JobFilter {
    /// Any of these states; repeat one where there are fewer.
    pub states: Option<[&'static str; STATES_OF_A_STATUS_MAX]>,
    pub lease: Option<LeaseId>,
}

pub async fn list(tx: &mut Tx, scope: &Scope, filter: &JobFilter, page: &PageRequest) -> Result<Page<Job>> {
    let (key, limit) = page.keyset();
    let sql = page.pick(
        select!(
            "WHERE ($1 = '' OR organization_id = $1) AND ($2 = '' OR project_id = $2) AND ($3 = '' OR state IN ($3, $4, $5))
             AND ($6 = '' OR lease_id = $6) AND id > $7 ORDER BY id ASC LIMIT $8"
        ),
        select!(
            "WHERE ($1 = '' OR organization_id = $1) AND ($2 = '' OR project_id = $2) AND ($3 = '' OR state IN ($3, $4, $5))
             AND ($6 = '' OR lease_id = $6) AND id < $7 ORDER BY id DESC LIMIT $8"
        ),
    );
    let organization = scope.organization().map_or("", OrganizationId::as_str);
    let project = scope.project().map_or("", ProjectId::as_str);
    let [first, second, third] = filter.states.unwrap_or_default().map(Into::into);
    let lease = filter.lease.as_ref().map_or("", LeaseId::as_str);
    let values = &[organization.into(), project.into(), first, second, third, lease.into(), key, limit];
    let rows = tx.fetch_all(sql, values).await?;
    page.page(&rows, from_row)
}

/// All jobs that have not ended, oldest first, over all tenants.
pub async fn list_open(tx: &mut Tx) -> Result<Vec<Job>> {
    let rows = tx
        .fetch_all(
            select!("WHERE state IN ('queued', 'starting', 'running', 'stopping') ORDER BY id LIMIT $1"),
            params![OPEN_JOBS_MAX],
        )
        .await?;
    rows.iter().map(from_row).collect()
}

/// Jobs of a lease that have not ended, oldest first. The caller has checked the lease's scope.
pub async fn list_open_of(tx: &mut Tx, lease: &LeaseId) -> Result<Vec<Job>> {
    let rows = tx
        .fetch_all(
            select!("WHERE lease_id = $1 AND state IN ('queued', 'starting', 'running', 'stopping') ORDER BY id LIMIT $2"),
            params![lease.as_str(), OPEN_JOBS_PER_LEASE_MAX],
        )
        .await?;
    rows.iter().map(from_row).collect()
}

/// Jobs that wait to go on and whose last attempt was a runner's, that which waits longest first.
pub async fn list_requeued(tx: &mut Tx, scope: &Scope, runner: &str) -> Result<Vec<Job>> {
    let organization = scope.organization().map_or("", OrganizationId::as_str);
    let rows = tx
        .fetch_all(
            select!(
                "WHERE state = 'requeued' AND ($1 = '' OR organization_id = $1)
                     AND EXISTS (SELECT 1 FROM attempts WHERE attempts.id = jobs.attempt_id AND attempts.runner = $2)
                 ORDER BY requeued_at, id LIMIT $3"
            ),
            params![organization, runner, OPEN_JOBS_MAX],
        )
        .await?;
    rows.iter().map(from_row).collect()
}

/// Some jobs that wait to go on at other runners than this one, after an id, in the order of their ids.
pub async fn list_requeued_elsewhere(tx: &mut Tx, scope: &Scope, (runner, after): (&str, &str), limit: i64) -> Result<Vec<Job>> {
    let organization = scope.organization().map_or("", OrganizationId::as_str);
    let rows = tx
        .fetch_all(
            select!(
                "WHERE state = 'requeued' AND ($1 = '' OR organization_id = $1) AND id > $3
                     AND NOT EXISTS (SELECT 1 FROM attempts WHERE attempts.id = jobs.attempt_id AND attempts.runner = $2)
                 ORDER BY id LIMIT $4"
            ),
            params![organization, runner, after, limit],
        )
        .await?;
    rows.iter().map(from_row).collect()
}

/// Which in turn a job is of those of its project that wait to go on, from 1.
pub async fn position_of(tx: &mut Tx, job: &Job) -> Result<i64> {
    let sql = "SELECT COUNT(*) FROM jobs WHERE state = 'requeued' AND project_id = $1
                   AND (requeued_at < $2 OR (requeued_at = $2 AND id <= $3))";
    tx.fetch_one(sql, params![job.project.as_str(), job.requeued_at, job.id.as_str()]).await?.reader().int()
}

/// How many jobs of an organization wait to go on.
pub async fn count_requeued(tx: &mut Tx, organization: &OrganizationId) -> Result<i64> {
    let sql = "SELECT COUNT(*) FROM jobs WHERE state = 'requeued' AND organization_id = $1";
    tx.fetch_one(sql, params![organization.as_str()]).await?.reader().int()
}
