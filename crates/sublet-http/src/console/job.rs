//! Jobs: what runs and ran, what each cost, and what it printed.

use askama::Template;
use axum::body::Body;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderName, Response};
use serde::Deserialize;
use sublet_cloud::Actor;
use sublet_cloud::data::{Attempt, JobFilter, PageRequest};
use sublet_cloud::job::JobStatement;
use sublet_core::id::JobId;
use sublet_core::job::JobState;
use sublet_core::key::KeyPlane;
use sublet_core::runner::{Exit, LogChunk};
use sublet_core::{DurationMs, ErrorCode, Result};

use super::figure::{Amount, When, bytes_text, duration_text, sku_text};
use super::request::After;
use super::shell::Shell;
use super::visit::Visit;
use super::{Console, shell};

const ROWS_ON_PAGE: i64 = 50;
/// What of a log is on the page, in bytes from its beginning; the rest is behind its own address.
const LOG_ON_PAGE_BYTES_MAX: usize = 64 * 1024;

pub struct JobRow {
    pub id: String,
    pub command: String,
    pub state: JobState,
    pub class: &'static str,
    pub exit: String,
    pub sku: String,
    pub created: When,
    pub ran: String,
    pub cost: Amount,
}

/// How a state is coloured.
const fn class_of(state: JobState) -> &'static str {
    match state {
        JobState::Queued | JobState::Starting | JobState::Requeued { .. } => "waiting",
        JobState::Running | JobState::Stopping { .. } => "active",
        JobState::Succeeded => "good",
        JobState::Failed | JobState::Refused => "bad",
        JobState::Cancelled | JobState::Interrupted { .. } => "muted",
    }
}

fn exit_text(exit: &Exit) -> String {
    match exit {
        Exit::Code { code } => format!("exit code {code}"),
        Exit::Signal { signal } => format!("signal {signal}"),
        Exit::OutOfMemory => "out of memory".to_owned(),
        Exit::Stopped { forced } => if *forced { "killed" } else { "stopped" }.to_owned(),
        Exit::NotStarted { .. } => "never started".to_owned(),
        Exit::Lost => "its machine was lost".to_owned(),
    }
}

fn row(statement: &JobStatement) -> JobRow {
    let job = &statement.job;
    JobRow {
        id: job.id.to_string(),
        command: job.spec.command.join(" "),
        state: job.state,
        class: class_of(job.state),
        exit: job.exit.as_ref().map_or_else(String::new, exit_text),
        sku: format!("{} × {}", statement.lease.units, sku_text(&statement.lease.sku)),
        created: When(job.created_at),
        ran: duration_text(DurationMs::from_millis(statement.device_time.get())),
        cost: Amount::new(statement.cost, statement.lease.currency),
    }
}

/// The newest jobs that the actor may see, and whether there are more.
pub async fn rows(console: &Console, actor: &Actor, page: &PageRequest) -> Result<(Vec<JobRow>, bool)> {
    let found = console.app.compute.list_jobs(actor, &JobFilter { states: None, lease: None }, page).await?;
    Ok((found.items.iter().map(row).collect(), found.has_more))
}

#[derive(Template)]
#[template(path = "jobs.html")]
struct JobsPage {
    shell: Shell,
    jobs: Vec<JobRow>,
    next: Option<String>,
}

pub async fn list(console: Console, visit: Visit) -> Result<Response<Body>> {
    let after = visit.guest.query::<After>()?.after;
    let page = PageRequest { limit: Some(ROWS_ON_PAGE), after, ..PageRequest::default() };
    let (jobs, has_more) = rows(&console, &visit.actor, &page).await?;
    let next = jobs.last().filter(|_| has_more).map(|last| last.id.clone());
    let shell = Shell::of(&console, &visit.actor, "Jobs", "/console/jobs").await?;
    shell::html(&JobsPage { shell, jobs, next })
}

/// One run of the job.
struct AttemptRow {
    number: i64,
    state: &'static str,
    started: Option<When>,
    ended: Option<When>,
    cpu_time: String,
    peak_memory: String,
    isolation: String,
    contained: Vec<(When, String)>,
}

fn attempt_row(attempt: &Attempt) -> AttemptRow {
    AttemptRow {
        number: attempt.number,
        state: attempt.state.as_str(),
        started: attempt.started_at.map(When),
        ended: attempt.ended_at.map(When),
        cpu_time: duration_text(attempt.cpu_time),
        peak_memory: bytes_text(attempt.peak_memory),
        isolation: attempt.isolation.as_ref().map_or_else(|| "–".to_owned(), |isolation| isolation.level().as_str().to_owned()),
        contained: attempt.contained.iter().map(|contained| (When(contained.at), contained.what.clone())).collect(),
    }
}

#[derive(Template)]
#[template(path = "job.html")]
struct JobPage {
    shell: Shell,
    job: JobRow,
    words: Vec<String>,
    message: String,
    reason: Option<&'static str>,
    lease: String,
    started: Option<When>,
    ended: Option<When>,
    price_per_hour: Amount,
    /// Since when it runs, while it does.
    running_for: Option<String>,
    attempts: Vec<AttemptRow>,
    charges: Vec<(String, Amount)>,
    log: String,
    log_next: u64,
    log_complete: bool,
    log_is_cut: bool,
    can_cancel: bool,
}

pub async fn show(console: Console, visit: Visit) -> Result<Response<Body>> {
    let id: JobId = visit.guest.path("id")?;
    let compute = &console.app.compute;
    let statement = compute.get_job(&visit.actor, &id).await?;
    let log = match compute.read_job_log(&visit.actor, &id, (None, 0), LOG_ON_PAGE_BYTES_MAX).await {
        // The rest of the page is known here all the same.
        Err(error) if error.code() == ErrorCode::Unreachable => {
            LogChunk { bytes: error.to_string().into_bytes(), next_offset: 0, complete: true }
        }
        read => read?,
    };
    let (job, lease, now) = (&statement.job, &statement.lease, console.app.cloud.clock().now());
    let page = JobPage {
        shell: Shell::of(&console, &visit.actor, format!("Job {id}"), "/console/jobs").await?,
        words: job.spec.command.clone(),
        message: job.message.clone(),
        reason: job.state.reason().map(sublet_core::job::StopReason::explanation),
        lease: lease.id.to_string(),
        started: job.started_at.map(When),
        ended: job.ended_at.map(When),
        price_per_hour: Amount::new(lease.price, lease.currency),
        running_for: job.started_at.filter(|_| job.ended_at.is_none()).map(|at| duration_text(now.since(at))),
        attempts: statement.attempts.iter().map(attempt_row).collect(),
        charges: statement
            .charges
            .iter()
            .map(|charge| (charge.id.to_string(), Amount::new(charge.amount, charge.currency)))
            .collect(),
        log: String::from_utf8_lossy(&log.bytes).into_owned(),
        log_next: log.next_offset,
        log_complete: log.complete,
        log_is_cut: log.bytes.len() >= LOG_ON_PAGE_BYTES_MAX,
        can_cancel: visit.actor.plane == KeyPlane::Project && !job.state.is_final(),
        job: row(&statement),
    };
    shell::html(&page)
}

#[derive(Default, Deserialize)]
struct Offset {
    #[serde(default)]
    offset: u64,
}

/// A piece of the log as text; its headers say where to read on.
pub async fn log(console: Console, visit: Visit) -> Result<Response<Body>> {
    let id: JobId = visit.guest.path("id")?;
    let from: Offset = visit.guest.query()?;
    let chunk = console.app.compute.read_job_log(&visit.actor, &id, (None, from.offset), usize::MAX).await?;
    let mut response = Response::new(Body::from(chunk.bytes));
    shell::set(&mut response, CONTENT_TYPE, "text/plain; charset=utf-8");
    shell::set(&mut response, CACHE_CONTROL, "no-store");
    shell::set(&mut response, HeaderName::from_static("x-next-offset"), &chunk.next_offset.to_string());
    shell::set(&mut response, HeaderName::from_static("x-complete"), if chunk.complete { "1" } else { "0" });
    shell::guard(&mut response);
    Ok(response)
}

pub async fn cancel(console: Console, visit: Visit) -> Result<Response<Body>> {
    let id: JobId = visit.guest.path("id")?;
    console.app.compute.cancel_job(&visit.actor, &id).await?;
    Ok(shell::redirect(&format!("/console/jobs/{id}")))
}
