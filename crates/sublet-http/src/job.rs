//! Jobs and their logs.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes as Piece;
use futures_util::stream;
use sublet_api::job as wire;
use sublet_api::object::JobTag;
use sublet_cloud::Actor;
use sublet_cloud::data::{Attempt, JobFilter};
use sublet_cloud::job::{JobStatement, NewJob};
use sublet_cloud::restart::waits_until;
use sublet_core::id::JobId;
use sublet_core::job::{AttemptState, JobLimits, JobSpec, JobState, OnEnd};
use sublet_core::restart::RestartPolicy;
use sublet_core::runner::Exit;
use sublet_core::{Bytes, DurationMs, Error, ErrorCode, Result};

use crate::App;
use crate::answer::{Answer, json, text_of};
use crate::context::{Context, once, page_answer, page_request};
use crate::wire::{count, metadata, money};

/// Bytes of a log read at once.
const LOG_PIECE_BYTES: usize = 64 * 1024;
/// Pause before a followed log is looked at again.
const FOLLOW_PAUSE: Duration = Duration::from_millis(150);
/// Most bytes of one answer that does not follow.
const LOG_ANSWER_BYTES_MAX: u64 = 64 * 1024 * 1024;

fn status(state: JobState) -> wire::JobStatus {
    match state {
        JobState::Queued | JobState::Starting => wire::JobStatus::Queued,
        JobState::Running => wire::JobStatus::Running,
        JobState::Stopping { .. } => wire::JobStatus::Stopping,
        JobState::Requeued { .. } => wire::JobStatus::Requeued,
        JobState::Succeeded => wire::JobStatus::Succeeded,
        JobState::Cancelled => wire::JobStatus::Cancelled,
        JobState::Failed | JobState::Interrupted { .. } | JobState::Refused => wire::JobStatus::Failed,
    }
}

/// The stored states that are shown as `status`.
const fn states(status: wire::JobStatus) -> [&'static str; 3] {
    match status {
        wire::JobStatus::Queued => ["queued", "starting", "starting"],
        wire::JobStatus::Running => ["running"; 3],
        wire::JobStatus::Stopping => ["stopping"; 3],
        wire::JobStatus::Requeued => ["requeued"; 3],
        wire::JobStatus::Succeeded => ["succeeded"; 3],
        wire::JobStatus::Cancelled => ["cancelled"; 3],
        wire::JobStatus::Failed => ["failed", "interrupted", "refused"],
    }
}

fn to_wire(statement: &JobStatement) -> Result<wire::Job> {
    let (job, last) = (&statement.job, statement.attempts.last());
    let never_started = || (job.state == JobState::Refused).then(|| Exit::NotStarted { reason: job.message.clone() });
    Ok(wire::Job {
        object: JobTag,
        id: job.id.clone(),
        organization: job.organization.clone(),
        project: job.project.clone(),
        lease: job.lease.clone(),
        status: status(job.state),
        command: job.spec.command.clone(),
        exit: job.exit.clone().or_else(never_started).map(Into::into),
        isolation: last.and_then(|attempt| attempt.isolation.as_ref()).map(Into::into),
        contained: last.map_or_else(Vec::new, |attempt| attempt.contained.iter().map(|event| event.what.clone()).collect()),
        created_at: job.created_at.into(),
        started_at: job.started_at.map(Into::into),
        ended_at: job.ended_at.map(Into::into),
        restart: (!job.spec.restart.is_never()).then(|| restart_to_wire(&job.spec.restart)),
        restarts: job.restarts,
        waiting: wait_to_wire(statement)?,
        attempts: statement.attempts.iter().map(attempt_to_wire).collect::<Result<_>>()?,
        device_milliseconds: count(statement.device_time.get())?,
        cpu_milliseconds: count(last.map_or(0, |attempt| attempt.cpu_time.millis()))?,
        peak_memory_bytes: count(last.map_or(0, |attempt| attempt.peak_memory.get()))?,
        cost: money(statement.cost, statement.lease.currency),
        charges: statement.charges.iter().map(|charge| charge.id.clone()).collect(),
        metadata: metadata(&job.metadata)?,
    })
}

fn restart_to_wire(policy: &RestartPolicy) -> wire::JobRestart {
    wire::JobRestart {
        on_interruption: policy.on_interruption,
        exit_codes: policy.exit_codes.iter().copied().collect(),
        restarts_max: Some(policy.restarts_max),
        wait_seconds_max: u64::try_from(policy.wait_max.seconds_ceil()).ok(),
    }
}

fn restart(asked: Option<wire::JobRestart>) -> Result<RestartPolicy> {
    let Some(asked) = asked else { return Ok(RestartPolicy::default()) };
    let usual = RestartPolicy::default();
    let too_long = |_| Error::new(ErrorCode::InvalidRequest, "nobody waits so long").param("restart.wait_seconds_max");
    let seconds = asked.wait_seconds_max.map(i64::try_from).transpose().map_err(too_long)?;
    Ok(RestartPolicy {
        on_interruption: asked.on_interruption,
        exit_codes: asked.exit_codes.into_iter().collect(),
        restarts_max: asked.restarts_max.unwrap_or(usual.restarts_max),
        wait_max: seconds.map_or(usual.wait_max, |seconds| DurationMs::from_millis(seconds.saturating_mul(1_000))),
    })
}

fn wait_to_wire(statement: &JobStatement) -> Result<Option<wire::JobWait>> {
    let job = &statement.job;
    let (Some(position), Some(since), Some(until)) = (statement.position, job.requeued_at, waits_until(job)) else {
        return Ok(None);
    };
    Ok(Some(wire::JobWait { since: since.into(), until: until.into(), position: count(position)?, reason: job.message.clone() }))
}

fn attempt_to_wire(attempt: &Attempt) -> Result<wire::JobAttempt> {
    Ok(wire::JobAttempt {
        number: count(attempt.number)?,
        lease: attempt.lease.clone(),
        status: match attempt.state {
            AttemptState::Placed => wire::JobAttemptStatus::Placed,
            AttemptState::Running => wire::JobAttemptStatus::Running,
            AttemptState::Ended => wire::JobAttemptStatus::Ended,
        },
        started_at: attempt.started_at.map(Into::into),
        ended_at: attempt.ended_at.map(Into::into),
        exit: attempt.exit.clone().map(Into::into),
    })
}

fn size(bytes: Option<u64>, param: &str) -> Result<Option<Bytes>> {
    let size = bytes.map(i64::try_from).transpose();
    size.map(|size| size.map(Bytes::new))
        .map_err(|_| Error::new(ErrorCode::InvalidRequest, "that is more than any machine has").param(param))
}

pub async fn create(app: App, context: Context) -> Result<Answer> {
    let body: wire::CreateJob = context.body()?;
    let limits =
        JobLimits { memory: size(body.memory_bytes, "memory_bytes")?, disk: size(body.disk_bytes, "disk_bytes")?, time: None };
    let spec = JobSpec {
        command: body.command,
        environment: body.environment,
        files: body.files.into_iter().map(|file| (file.path, file.content_base64.0)).collect(),
        limits,
        on_end: match body.on_end {
            wire::OnEnd::EndLease => OnEnd::EndLease,
            wire::OnEnd::KeepLease => OnEnd::KeepLease,
        },
        restart: restart(body.restart)?,
    };
    let new = NewJob { spec, metadata: body.metadata.pairs().clone() };
    let outcome = app.compute.create_job(&context.call()?, &body.lease, &new, &|statement| text_of(&to_wire(statement)?)).await?;
    once(outcome, |statement| to_wire(statement).ok())
}

pub async fn get(app: App, context: Context) -> Result<Answer> {
    let id: JobId = context.path("id")?;
    json(&to_wire(&app.compute.get_job(&context.actor, &id).await?)?)
}

/// Jobs of the caller's scope: a project's own, or all for the operator.
pub async fn list(app: App, context: Context) -> Result<Answer> {
    let query: wire::JobListQuery = context.query()?;
    let asked = query.page();
    let filter = JobFilter { states: query.status.map(states), lease: query.lease.clone() };
    let page = app.compute.list_jobs(&context.actor, &filter, &page_request(&asked)?).await?;
    let items = page.items.iter().map(to_wire).collect::<Result<Vec<_>>>()?;
    page_answer(&asked, sublet_cloud::data::Page { items, has_more: page.has_more }, |wire| wire, |wire| wire.id.to_string())
}

pub async fn cancel(app: App, context: Context) -> Result<Answer> {
    let id: JobId = context.path("id")?;
    json(&to_wire(&app.compute.cancel_job(&context.actor, &id).await?)?)
}

/// A reading of a log under way.
struct Reading {
    app: App,
    actor: Actor,
    job: JobId,
    attempt: Option<u32>,
    offset: u64,
    /// Bytes that may still be sent; without a bound while following.
    left: Option<u64>,
    over: bool,
}

/// A job's output as it came: what there is now, or with `follow` until the job has ended.
pub async fn logs(app: App, context: Context) -> Result<Answer> {
    let id: JobId = context.path("id")?;
    let query: wire::JobLogQuery = context.query()?;
    // Whoever may not see the job, or asks where its log is not, is refused before the first byte.
    app.compute.read_job_log(&context.actor, &id, (query.attempt, 0), 1).await?;
    let follow = query.follow == Some(true);
    let reading = Reading {
        app,
        actor: context.actor,
        job: id,
        attempt: query.attempt,
        offset: query.offset.unwrap_or(0),
        left: (!follow).then_some(LOG_ANSWER_BYTES_MAX),
        over: false,
    };
    Ok(Answer::Stream(Body::from_stream(stream::try_unfold(reading, next_piece))))
}

async fn next_piece(mut reading: Reading) -> Result<Option<(Piece, Reading)>> {
    loop {
        if reading.over || reading.left == Some(0) {
            return Ok(None);
        }
        let most =
            reading.left.map_or(LOG_PIECE_BYTES, |left| LOG_PIECE_BYTES.min(usize::try_from(left).unwrap_or(LOG_PIECE_BYTES)));
        let chunk = reading.app.compute.read_job_log(&reading.actor, &reading.job, (reading.attempt, reading.offset), most).await?;
        reading.offset = chunk.next_offset;
        if !chunk.bytes.is_empty() {
            let sent = u64::try_from(chunk.bytes.len()).unwrap_or(u64::MAX);
            reading.left = reading.left.map(|left| left.saturating_sub(sent));
            return Ok(Some((Piece::from(chunk.bytes), reading)));
        }
        if chunk.complete || reading.left.is_some() {
            return Ok(None);
        }
        tokio::time::sleep(FOLLOW_PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_found_by_the_word_that_it_is_shown_with_and_by_no_other() {
        let words = ["queued", "running", "stopping", "requeued", "succeeded", "failed", "cancelled"];
        for word in words {
            let query: wire::JobListQuery = sublet_api::parse_query(&format!("status={word}")).unwrap();
            let wanted = query.status.unwrap();
            for name in JobState::NAMES {
                let shown = status(JobState::restore(name, "cancelled").unwrap());
                assert_eq!(states(wanted).contains(&name), shown == wanted, "{name} {word}");
            }
            assert!(states(wanted).iter().all(|name| JobState::NAMES.contains(name)), "{word}");
        }
        for other in ["interrupted", "starting", "refused", ""] {
            let refused = sublet_api::parse_query::<wire::JobListQuery>(&format!("status={other}")).unwrap_err().to_string();
            assert!(words.iter().all(|word| refused.contains(word)), "{other}: {refused}");
        }
    }
}
