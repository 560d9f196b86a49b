//! `sublet run`: quote, lease, job, log, cost, and the job's own exit code.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use sublet_api::client::Client;
use sublet_api::job::{Base64, CreateJob, Job, JobFile, JobRestart, JobStatus, OnEnd};
use sublet_api::lease::{CreateLease, Lease};
use sublet_api::object::Metadata;
use sublet_api::quote::Quote;
use sublet_api::time::Rfc3339;
use sublet_core::error::{Error, ErrorCode, Result};
use sublet_core::id::JobId;

use super::job::{LogPosition, exit_status, exit_text};
use super::quote::AskArgs;
use crate::render::{self, Tone, paint};
use crate::value::{ByteSize, Variable};
use crate::{Context, ExitStatus};

/// Time between two looks at a job that is ending.
pub(super) const POLL_PAUSE: Duration = Duration::from_millis(500);
/// The exit status of a command whose job waits to go on: `EX_TEMPFAIL` of sysexits.h.
const STATUS_WAITS: u8 = 75;
/// Most looks at a job whose log has ended: half a minute.
const POLLS_MAX: u32 = 60;
/// Largest sum of the files that travel with a job, in bytes; base 64 makes them a third larger.
const FILES_BYTES_MAX: u64 = 11 * 1024 * 1024;

/// What to run, on what, for how much.
#[derive(Args, Debug)]
pub struct RunArgs {
    #[command(flatten)]
    pub ask: AskArgs,
    /// Memory limit, such as 512M
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<ByteSize>,
    /// Size limit of the work directory, such as 2G
    #[arg(long, value_name = "SIZE")]
    pub disk: Option<ByteSize>,
    /// Copy a file into the work directory first (repeatable)
    #[arg(long = "file", value_name = "PATH[=NAME]")]
    pub files: Vec<FileArgument>,
    /// Set an environment variable (repeatable)
    #[arg(long = "env", value_name = "NAME=VALUE")]
    pub environment: Vec<Variable>,
    #[command(flatten)]
    pub restart: RestartArgs,
    /// Start it, print its id and leave
    #[arg(long)]
    pub detach: bool,
    /// Program and arguments; no shell in between
    #[arg(required = true, last = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

/// When it is run again. Its attempts share its work directory.
#[derive(Args, Debug)]
pub struct RestartArgs {
    /// Run it again when the owner takes its capacity back or its machine is lost
    #[arg(long)]
    pub requeue: bool,
    /// Run it again when it ends with this code (repeatable)
    #[arg(long = "retry-on", value_name = "CODE", value_parser = clap::value_parser!(u8).range(1..))]
    pub retry_on: Vec<u8>,
    /// Run it again so often at most
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_restarts: Option<u32>,
    /// Give it up after waiting so long for capacity to go on
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    pub max_wait: Option<u64>,
}

impl RestartArgs {
    fn policy(self) -> Result<Option<JobRestart>> {
        let is_restarted = self.requeue || !self.retry_on.is_empty();
        if !is_restarted && (self.max_restarts.is_some() || self.max_wait.is_some()) {
            return Err(Error::new(ErrorCode::Usage, "a job that is never run again has no limit to that")
                .alternative("add --requeue or --retry-on CODE"));
        }
        Ok(is_restarted.then_some(JobRestart {
            on_interruption: self.requeue,
            exit_codes: self.retry_on,
            restarts_max: self.max_restarts,
            wait_seconds_max: self.max_wait,
        }))
    }
}

/// A local file and what it is called in the work directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FileArgument {
    pub path: PathBuf,
    pub name: String,
}

impl FromStr for FileArgument {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let (path, name) = match text.split_once('=') {
            Some((path, name)) => (path, Some(name.to_owned())),
            None => (text, None),
        };
        let own_name = || Path::new(path).file_name().and_then(|name| name.to_str()).map(str::to_owned);
        match name.or_else(own_name) {
            Some(name) if !name.is_empty() => Ok(Self { path: PathBuf::from(path), name }),
            _ => Err(Error::new(ErrorCode::Usage, format!("'{text}' does not name a file"))
                .alternative("write --file PATH, or --file PATH=NAME to give it another name in the work directory")),
        }
    }
}

impl RunArgs {
    pub(super) fn run(self, context: &mut Context<'_>) -> Result<ExitStatus> {
        // Whatever can fail without the cloud fails before anything is leased.
        let (files, restart) = (read_files(&self.files)?, self.restart.policy()?);
        let client = context.client()?;
        let quote = self.ask.quote(&client, context)?;
        context.note(&offer_line(&quote, context))?;
        let lease = client.create_lease(&CreateLease { quote: quote.id, metadata: Metadata::default() }, &context.fresh_key())?;
        let environment: BTreeMap<String, String> = self.environment.into_iter().map(|v| (v.name, v.value)).collect();
        let body = CreateJob {
            lease: lease.id.clone(),
            command: self.command,
            environment,
            files,
            memory_bytes: self.memory.map(|size| size.0),
            disk_bytes: self.disk.map(|size| size.0),
            on_end: OnEnd::EndLease,
            restart,
            metadata: Metadata::default(),
        };
        let job = start(&client, context, &lease, &body)?;
        if self.detach {
            return detached(context, &job);
        }
        context.note(&paint(
            &format!("{} runs on {}; stop it with: sublet jobs cancel {}", job.id, lease.id, job.id),
            Tone::Quiet,
            context.style,
        ))?;
        follow_to_the_end(&client, context, &job.id)
    }
}

/// Prints the output of one attempt after the other. A job that waits to go on is left to itself.
fn follow_to_the_end(client: &Client, context: &mut Context<'_>, id: &JobId) -> Result<ExitStatus> {
    let mut restarts = 0;
    loop {
        LogPosition { job: id.clone(), attempt: None, offset: 0 }.follow(client, context)?;
        let job = wait(client, context, (id, restarts))?;
        if job.status.is_final() {
            return finish(context, &job);
        }
        context.note(&format!("{id} was interrupted; restart {}", job.restarts))?;
        if job.status != JobStatus::Running {
            if context.json {
                context.print_json(&job)?;
            }
            let reason = job.waiting.as_ref().map_or_else(String::new, |waiting| format!(": {}", render::plain(&waiting.reason)));
            context.note(&format!("it waits to go on{reason}; follow it with: sublet jobs logs --follow {id}"))?;
            return Ok(ExitStatus(STATUS_WAITS));
        }
        restarts = job.restarts;
    }
}

/// Starts the job; a lease whose job does not start is ended, so that nobody pays for it.
fn start(client: &Client, context: &mut Context<'_>, lease: &Lease, body: &CreateJob) -> Result<Job> {
    client.create_job(body, &context.fresh_key()).map_err(|error| match client.cancel_lease(&lease.id) {
        Ok(_) => error,
        Err(second) => {
            error.alternative(format!("end the lease, which could not be ended ({second}): sublet leases cancel {}", lease.id))
        }
    })
}

fn detached(context: &mut Context<'_>, job: &Job) -> Result<ExitStatus> {
    if context.json {
        context.print_json(job)?;
    } else {
        context.print(&format!("{}\n", job.id))?;
        context.note(&format!("follow it with: sublet jobs logs --follow {}", job.id))?;
    }
    Ok(ExitStatus::OK)
}

/// The log has ended, so the job is about to, or is run again.
fn wait(client: &Client, context: &mut Context<'_>, (id, restarts): (&JobId, u32)) -> Result<Job> {
    let mut waits = None;
    for _ in 0..POLLS_MAX {
        let job = client.job(id)?;
        let is_again = job.restarts > restarts && job.status == JobStatus::Running;
        if job.status.is_final() || is_again {
            return Ok(job);
        }
        waits = Some(job).filter(|job| job.restarts > restarts);
        (context.pause)(POLL_PAUSE);
    }
    if let Some(job) = waits {
        return Ok(job);
    }
    Err(Error::new(ErrorCode::Unreachable, format!("{id} printed its last line but is not recorded as ended"))
        .alternative(format!("sublet jobs show {id}")))
}

fn finish(context: &mut Context<'_>, job: &Job) -> Result<ExitStatus> {
    let status = exit_status(job);
    if context.json {
        context.print_json(job)?;
        return Ok(status);
    }
    let tone = render::tone_of(job.status.as_str());
    let length = match (job.started_at, job.ended_at) {
        (Some(Rfc3339(start)), Some(Rfc3339(end))) => format!(", ran {}", render::duration(end.since(start))),
        _ => String::new(),
    };
    let head = paint(job.status.as_str(), tone, context.style);
    context.note(&format!(
        "{} {head}: {}{length}, {} of devices, cost {}",
        job.id,
        exit_text(job),
        render::milliseconds(job.device_milliseconds),
        render::money(&job.cost)
    ))?;
    for contained in &job.contained {
        context.note(&format!("limit: {}", render::plain(contained)))?;
    }
    context.note(&paint(&format!("why: sublet why {}", job.id), Tone::Quiet, context.style))?;
    Ok(status)
}

fn offer_line(quote: &Quote, context: &Context<'_>) -> String {
    let most = quote.maximum_cost.as_ref().map_or_else(String::new, |cost| format!(", at most {}", render::money(cost)));
    let text = format!(
        "{} × {} at {}: {} per device-hour, at least {}{most}",
        quote.units,
        render::plain(quote.sku.as_str()),
        quote.notice,
        render::money(&quote.price),
        render::money(&quote.minimum_cost)
    );
    paint(&text, Tone::Quiet, context.style)
}

fn read_files(arguments: &[FileArgument]) -> Result<Vec<JobFile>> {
    let mut total = 0_u64;
    let mut files = Vec::new();
    for argument in arguments {
        let unusable =
            |why: String| Error::new(ErrorCode::Usage, format!("{} cannot be sent: {why}", argument.path.display())).param("file");
        let size = std::fs::metadata(&argument.path).map_err(|error| unusable(error.to_string()))?;
        if !size.is_file() {
            return Err(unusable("it is not a plain file".to_owned()).alternative("pack a directory into one file with tar"));
        }
        total = total.saturating_add(size.len());
        if total > FILES_BYTES_MAX {
            return Err(Error::new(
                ErrorCode::BodyTooLarge,
                format!("the files are larger than {} together", render::bytes(FILES_BYTES_MAX)),
            )
            .param("file"));
        }
        let content = std::fs::read(&argument.path).map_err(|error| unusable(error.to_string()))?;
        files.push(JobFile { path: argument.name.clone(), content_base64: Base64(content) });
    }
    Ok(files)
}
