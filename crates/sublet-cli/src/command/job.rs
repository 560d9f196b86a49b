//! `sublet jobs`.

use std::io::Read;

use clap::Subcommand;
use sublet_api::client::Client;
use sublet_api::job::{Job, JobAttempt, JobAttemptStatus, JobExit, JobListQuery, JobLogQuery, JobStatus};
use sublet_core::error::{Error, ErrorCode, Result};
use sublet_core::id::{JobId, LeaseId};

use super::{PageArgs, show_page};
use crate::render::{self, Cell, Table};
use crate::value::word;
use crate::{Context, ExitStatus};

/// Bytes of a log that are read at once.
const LOG_READ_BYTES: usize = 64 * 1024;

/// Commands that run on leases.
#[derive(Subcommand, Debug)]
pub enum JobCommand {
    /// List jobs
    List {
        /// queued, running, stopping, requeued, succeeded, failed or cancelled
        #[arg(long, value_parser = word::<JobStatus>)]
        status: Option<JobStatus>,
        /// Only those on this lease
        #[arg(long)]
        lease: Option<LeaseId>,
        /// Those of every tenant (operator)
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        page: PageArgs,
    },
    /// Show one job
    Show { id: JobId },
    /// Print a job's output
    Logs {
        id: JobId,
        /// Keep printing until the job has ended
        #[arg(long, short)]
        follow: bool,
        /// Of this attempt, counted from 1; of the last one if left out
        #[arg(long)]
        attempt: Option<u32>,
        /// Byte to begin at
        #[arg(long)]
        offset: Option<u64>,
    },
    /// Stop a job
    Cancel { id: JobId },
}

impl JobCommand {
    pub(super) fn run(self, context: &mut Context<'_>) -> Result<()> {
        let client = context.client()?;
        match self {
            Self::List { status, lease, all, page } => {
                let order = page.order();
                let query = JobListQuery { status, lease, limit: page.limit, after: page.after, before: None, order };
                let list = if all { client.all_jobs(&query)? } else { client.jobs(&query)? };
                show_page(context, &list, table)
            }
            Self::Show { id } => {
                let job = client.job(&id)?;
                context.show(&job, |job| Table::of_fields(fields(job)))
            }
            Self::Logs { id, follow, attempt, offset } => {
                let mut position = LogPosition { job: id, attempt, offset: offset.unwrap_or(0) };
                if follow { position.follow(&client, context) } else { position.copy(&client, context, false) }
            }
            Self::Cancel { id } => {
                let job = client.cancel_job(&id)?;
                context.show(&job, |job| Table::of_fields(fields(job)))
            }
        }
    }
}

/// How far a log has been printed.
pub(super) struct LogPosition {
    pub job: JobId,
    /// The last one if none is named.
    pub attempt: Option<u32>,
    pub offset: u64,
}

/// How often a followed log that broke is taken up again without a byte of progress.
const FOLLOW_RETRIES_MAX: u32 = 5;

impl LogPosition {
    /// Prints until the job has ended; a broken connection is taken up where it broke.
    pub fn follow(&mut self, client: &Client, context: &mut Context<'_>) -> Result<()> {
        let mut failures = 0;
        loop {
            let before = self.offset;
            match self.copy(client, context, true) {
                Err(error) if error.code() == ErrorCode::Unreachable => {
                    failures = if self.offset > before { 1 } else { failures + 1 };
                    if failures > FOLLOW_RETRIES_MAX {
                        return Err(error);
                    }
                    (context.pause)(super::run::POLL_PAUSE);
                }
                outcome => return outcome,
            }
        }
    }

    fn copy(&mut self, client: &Client, context: &mut Context<'_>, follow: bool) -> Result<()> {
        let query = JobLogQuery { attempt: self.attempt, offset: Some(self.offset), follow: Some(follow) };
        let mut log = client.job_log(&self.job, &query)?;
        let mut buffer = vec![0; LOG_READ_BYTES];
        loop {
            let count = log.read(&mut buffer).map_err(|error| {
                Error::new(ErrorCode::Unreachable, format!("the log broke off at byte {}: {error}", self.offset))
                    .alternative(format!("sublet jobs logs {} --follow --offset {}", self.job, self.offset))
            })?;
            let Some(bytes @ [_, ..]) = buffer.get(..count) else { return Ok(()) };
            if context.json {
                // Standard output is for the object; the log is talk.
                context.note_bytes(bytes)?;
            } else {
                context.write_data(bytes)?;
            }
            self.offset = self.offset.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
        }
    }
}

/// The exit status of a command that stands for a job: its own code where there is one, 128 plus
/// the signal as shells do, 127 if it never started, 9 if its machine was lost.
pub(super) fn exit_status(job: &Job) -> ExitStatus {
    let code = match &job.exit {
        Some(JobExit::Code { code }) => *code,
        Some(JobExit::Signal { signal }) => signal.saturating_add(128),
        Some(JobExit::OutOfMemory | JobExit::Stopped { forced: true }) => 137,
        Some(JobExit::Stopped { forced: false }) => 143,
        Some(JobExit::NotStarted { .. }) => 127,
        Some(JobExit::Lost) => i32::from(ErrorCode::Unreachable.exit_status()),
        None => i32::from(!matches!(job.status, JobStatus::Succeeded)),
    };
    ExitStatus(u8::try_from(code).unwrap_or(1))
}

/// How a job ended, in words.
pub(super) fn exit_text(job: &Job) -> String {
    job.exit.as_ref().map_or_else(|| job.status.as_str().to_owned(), end_text)
}

fn end_text(exit: &JobExit) -> String {
    match exit {
        JobExit::Code { code } => format!("exit code {code}"),
        JobExit::Signal { signal } => format!("ended by signal {signal}"),
        JobExit::OutOfMemory => "stopped at its memory limit".to_owned(),
        JobExit::Stopped { forced: false } => "stopped".to_owned(),
        JobExit::Stopped { forced: true } => "stopped by force after its grace time".to_owned(),
        JobExit::NotStarted { reason } => format!("never started: {}", render::plain(reason)),
        JobExit::Lost => "lost with its machine".to_owned(),
    }
}

pub(super) fn fields(job: &Job) -> Vec<(&'static str, Cell)> {
    let isolation =
        job.isolation.as_ref().map(|isolation| format!("{} ({})", isolation.level.as_str(), isolation.mechanisms.join(", ")));
    let mut fields = vec![
        ("job", Cell::text(job.id.as_str())),
        ("status", Cell::state(job.status.as_str())),
        ("end", Cell::text(exit_text(job))),
        ("command", Cell::text(job.command.join(" "))),
        ("lease", Cell::text(job.lease.as_str())),
        ("started", Cell::text(render::rfc3339(job.started_at))),
        ("ended", Cell::text(render::rfc3339(job.ended_at))),
        ("device time", Cell::text(render::milliseconds(job.device_milliseconds))),
        ("cpu time", Cell::text(render::milliseconds(job.cpu_milliseconds))),
        ("peak memory", Cell::text(render::bytes(job.peak_memory_bytes))),
        ("cost", Cell::text(render::money(&job.cost))),
        ("isolation", Cell::optional(isolation)),
        ("limits hit", Cell::optional((!job.contained.is_empty()).then(|| job.contained.join("; ")))),
    ];
    if let Some(restart) = &job.restart {
        let most = restart.restarts_max.map_or_else(String::new, |most| format!(" of at most {most}"));
        fields.push(("restarts", Cell::text(format!("{}{most}", job.restarts))));
        fields.extend(job.attempts.iter().map(|attempt| ("attempt", Cell::text(attempt_text(attempt)))));
    }
    if let Some(waiting) = &job.waiting {
        fields.push(("waits since", Cell::text(render::rfc3339(Some(waiting.since)))));
        fields.push(("position", Cell::text(waiting.position.to_string())));
        fields.push(("given up at", Cell::text(render::rfc3339(Some(waiting.until)))));
        fields.push(("because", Cell::text(&waiting.reason)));
    }
    fields
}

fn attempt_text(attempt: &JobAttempt) -> String {
    let how = match (&attempt.exit, attempt.status) {
        (Some(exit), _) => end_text(exit),
        (None, JobAttemptStatus::Placed) => "placed".to_owned(),
        (None, JobAttemptStatus::Running) => "running".to_owned(),
        (None, JobAttemptStatus::Ended) => "ended".to_owned(),
    };
    let (started, ended) = (render::rfc3339(attempt.started_at), render::rfc3339(attempt.ended_at));
    format!("{}: {started} to {ended} on {}, {how}", attempt.number, attempt.lease)
}

fn table(jobs: &[Job]) -> Table {
    let rows = jobs.iter().map(|job| {
        [
            Cell::text(job.id.as_str()),
            Cell::state(job.status.as_str()),
            Cell::number(render::milliseconds(job.device_milliseconds)),
            Cell::number(render::money(&job.cost)),
            Cell::text(render::unix(job.created_at)),
            Cell::text(shorten(&job.command.join(" "))),
        ]
    });
    Table::new(
        ["job", "status", "device time", "cost", "created", "command"],
        "no jobs yet; start one with 'sublet run -- COMMAND'",
    )
    .rows(rows)
}

/// Longest command shown in a table, in characters.
const COMMAND_CHARS_MAX: usize = 48;

fn shorten(text: &str) -> String {
    if text.chars().count() <= COMMAND_CHARS_MAX {
        return text.to_owned();
    }
    let head: String = text.chars().take(COMMAND_CHARS_MAX - 1).collect();
    format!("{head}…")
}
