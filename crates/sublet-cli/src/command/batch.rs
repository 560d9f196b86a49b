//! `sublet batches`: from a local file to answers in another.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::Value;
use sublet_api::batch::{Anchor, Batch, BatchStatus, CreateBatch, ExpiresAfter};
use sublet_api::client::Client;
use sublet_api::list::ListQuery;
use sublet_core::batch::LineEndpoint;
use sublet_core::error::{Error, ErrorCode, Result};
use sublet_core::file::FilePurpose;
use sublet_core::id::{BatchId, FileId};

use super::file::{self, Download, UploadArgs};
use super::{PageArgs, show_page};
use crate::render::{self, Cell, NOTHING, Table};
use crate::{Context, ExitStatus};

/// Time between two looks at a batch.
const POLL_PAUSE: Duration = Duration::from_secs(1);
/// Most looks at a batch: longer than any batch takes.
const POLLS_MAX: u32 = 25 * 3_600;
/// Looks in a row that may fail because the cloud does not answer.
const FAILURES_MAX: u32 = 10;
/// Longest first line that is read to see what it calls, in bytes.
const LINE_BYTES_MAX: u64 = 1024 * 1024;
/// Problems of a batch that are shown.
const PROBLEMS_SHOWN_MAX: usize = 20;

/// Many requests in one file, answered while models are idle.
#[derive(Subcommand, Debug)]
pub enum BatchCommand {
    /// Send a local file of requests and have them answered
    Create(CreateArgs),
    /// List batches
    List {
        #[command(flatten)]
        page: PageArgs,
    },
    /// Show one batch and how far it is
    #[command(visible_alias = "get")]
    Show { id: BatchId },
    /// Wait for a batch to end and print its answers; the status is 0 if every line has one, else 1
    Results(ResultsArgs),
    /// End a batch; answers that it has are kept
    Cancel { id: BatchId },
}

/// What is to be answered.
#[derive(Args, Debug)]
pub struct CreateArgs {
    /// A file with one request on each line, or the id of one that was sent before
    #[arg(value_name = "PATH|FILE_ID")]
    pub input: String,
    /// What the lines call, such as /v1/chat/completions; what the first line says if left out
    #[arg(long)]
    pub endpoint: Option<LineEndpoint>,
    /// The time in which it is to end: 24h, or less in hours, minutes or seconds
    #[arg(long, value_name = "TIME", default_value = "24h")]
    pub window: String,
    /// Hours after which the files of answers are deleted by themselves; they stay if left out
    #[arg(long, value_name = "HOURS", value_parser = clap::value_parser!(u32).range(1..=720))]
    pub output_expires_after_hours: Option<u32>,
}

/// Where the answers go.
#[derive(Args, Debug)]
pub struct ResultsArgs {
    pub id: BatchId,
    /// Write the answers into this file instead of printing them
    #[arg(long, short, value_name = "PATH")]
    pub output: Option<PathBuf>,
    /// Write the lines without an answer into this file; they are left in the cloud otherwise
    #[arg(long, value_name = "PATH")]
    pub errors: Option<PathBuf>,
    /// Fail if it has not ended yet
    #[arg(long)]
    pub no_wait: bool,
}

impl BatchCommand {
    pub(super) fn run(self, context: &mut Context<'_>) -> Result<ExitStatus> {
        match self {
            Self::Create(args) => args.run(context)?,
            Self::List { page } => {
                let order = page.order();
                let query = ListQuery { limit: page.limit, after: page.after, before: None, order };
                let list = context.client()?.batches(&query)?;
                show_page(context, &list, table)?;
            }
            Self::Show { id } => {
                let batch = context.client()?.batch(&id)?;
                context.show(&batch, |batch| Table::of_fields(fields(batch)))?;
            }
            Self::Results(args) => return args.run(context),
            Self::Cancel { id } => {
                let batch = context.client()?.cancel_batch(&id)?;
                context.show(&batch, |batch| Table::of_fields(fields(batch)))?;
            }
        }
        Ok(ExitStatus::OK)
    }
}

impl CreateArgs {
    fn run(self, context: &mut Context<'_>) -> Result<()> {
        let client = context.client()?;
        let (input, endpoint, was_sent) = match (self.input.parse::<FileId>(), self.endpoint) {
            (Ok(id), Some(endpoint)) => (id, endpoint, false),
            (Ok(id), None) => {
                return Err(Error::new(ErrorCode::Usage, format!("what the lines of {id} call has to be said"))
                    .alternative("add --endpoint /v1/chat/completions, or what they call"));
            }
            (Err(_), endpoint) => {
                let path = PathBuf::from(&self.input);
                let endpoint = endpoint.map_or_else(|| endpoint_of(&path), Ok)?;
                let upload = UploadArgs { path, purpose: FilePurpose::Batch, expires_after_hours: None };
                (upload.upload(context)?.id, endpoint, true)
            }
        };
        let life = |hours| ExpiresAfter { anchor: Anchor::CreatedAt, seconds: hours * 3_600 };
        let body = CreateBatch {
            input_file_id: input.clone(),
            endpoint: endpoint.as_str().to_owned(),
            completion_window: self.window,
            metadata: None,
            output_expires_after: self.output_expires_after_hours.map(life),
        };
        let created = client.create_batch(&body, &context.fresh_key()).map_err(|error| match was_sent {
            true => give_back(&client, &input, error),
            false => error,
        })?;
        context.show(&created, |batch| Table::of_fields(fields(batch)))?;
        context.note(&format!("its answers: sublet batches results {}", created.id))
    }
}

/// Deletes a file that was sent for a batch that did not begin.
fn give_back(client: &Client, input: &FileId, error: Error) -> Error {
    match client.delete_file(input) {
        Ok(_) => error,
        Err(second) => {
            error.alternative(format!("delete what was sent, which could not be deleted ({second}): sublet files delete {input}"))
        }
    }
}

/// What the first line of a file calls.
fn endpoint_of(path: &Path) -> Result<LineEndpoint> {
    let (content, _) = file::open(path)?;
    let mut line = Vec::new();
    let read = BufReader::new(content.take(LINE_BYTES_MAX)).read_until(b'\n', &mut line);
    read.map_err(|error| Error::new(ErrorCode::Usage, format!("{} cannot be read: {error}", path.display())))?;
    let line: Value = serde_json::from_slice(&line).unwrap_or_default();
    let Some(url) = line["url"].as_str() else {
        return Err(Error::new(ErrorCode::Usage, format!("the first line of {} is not a request with a 'url'", path.display()))
            .alternative(r#"{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":{…}} on each line"#));
    };
    url.parse()
}

impl ResultsArgs {
    fn run(self, context: &mut Context<'_>) -> Result<ExitStatus> {
        if context.json && self.output.is_none() {
            return Err(Error::new(ErrorCode::Usage, "--json prints the batch, and the answers are to be printed too")
                .alternative("name a file for the answers with --output PATH"));
        }
        let client = context.client()?;
        let batch = if self.no_wait { client.batch(&self.id)? } else { wait(&client, context, &self.id)? };
        if !has_ended(batch.status) {
            return Err(Error::new(ErrorCode::Conflict, format!("{} has not ended: it is {}", batch.id, progress(&batch)))
                .alternative("leave --no-wait out"));
        }
        match (&batch.output_file_id, &self.output) {
            (None, _) => context.note(&format!("{} has no answers", batch.id))?,
            (Some(id), Some(path)) => file::save(context, Download::file(&client, id)?, path)?,
            (Some(id), None) => file::print(context, Download::file(&client, id)?)?,
        }
        match (&batch.error_file_id, &self.errors) {
            (None, _) => {}
            (Some(id), Some(path)) => file::save(context, Download::file(&client, id)?, path)?,
            (Some(id), None) => context.note(&format!("lines without an answer: sublet files content {id}"))?,
        }
        for problem in batch.errors.iter().flat_map(|errors| &errors.data).take(PROBLEMS_SHOWN_MAX) {
            let place = problem.line.map_or(String::new(), |line| format!("line {line}: "));
            context.note(&format!("{place}{} ({})", render::plain(&problem.message), render::plain(&problem.code)))?;
        }
        context.note(&format!("{} {}", batch.id, progress(&batch)))?;
        if context.json {
            context.print_json(&batch)?;
        }
        let is_whole = batch.status == BatchStatus::Completed && batch.request_counts.failed == 0;
        Ok(if is_whole { ExitStatus::OK } else { ExitStatus(1) })
    }
}

const fn has_ended(status: BatchStatus) -> bool {
    match status {
        BatchStatus::Failed | BatchStatus::Completed | BatchStatus::Expired | BatchStatus::Cancelled => true,
        BatchStatus::Validating | BatchStatus::InProgress | BatchStatus::Finalizing | BatchStatus::Cancelling => false,
    }
}

/// Looks until the batch has ended, and says whenever it has got on.
fn wait(client: &Client, context: &mut Context<'_>, id: &BatchId) -> Result<Batch> {
    let (mut said, mut failures) = (String::new(), 0);
    for _ in 0..POLLS_MAX {
        match client.batch(id) {
            Ok(batch) if has_ended(batch.status) => return Ok(batch),
            Ok(batch) => {
                failures = 0;
                let now = progress(&batch);
                if now != said {
                    context.note(&format!("{id} {now}"))?;
                    said = now;
                }
            }
            Err(error) if error.code() == ErrorCode::Unreachable && failures < FAILURES_MAX => failures += 1,
            Err(error) => return Err(error.alternative(format!("it goes on without you; ask again: sublet batches results {id}"))),
        }
        (context.pause)(POLL_PAUSE);
    }
    Err(Error::new(ErrorCode::Unreachable, format!("{id} did not end in the time that a batch has"))
        .alternative(format!("sublet batches show {id}")))
}

/// How far a batch is, in words.
fn progress(batch: &Batch) -> String {
    let counts = batch.request_counts;
    let failed = if counts.failed > 0 { format!(", {} failed", counts.failed) } else { String::new() };
    format!("{}: {} of {} lines answered{failed}", status_text(batch.status), counts.completed, counts.total)
}

const fn status_text(status: BatchStatus) -> &'static str {
    match status {
        BatchStatus::Validating => "validating",
        BatchStatus::Failed => "failed",
        BatchStatus::InProgress => "in_progress",
        BatchStatus::Finalizing => "finalizing",
        BatchStatus::Completed => "completed",
        BatchStatus::Expired => "expired",
        BatchStatus::Cancelling => "cancelling",
        BatchStatus::Cancelled => "cancelled",
    }
}

fn fields(batch: &Batch) -> Vec<(&'static str, Cell)> {
    let counts = batch.request_counts;
    let quote = batch.sublet.quote.as_ref();
    let cost = quote.map(|quote| format!("{} to {}", render::money(&quote.least), render::money(&quote.most)));
    let forecast = batch.sublet.forecast.map(|forecast| {
        let late = if forecast.meets_deadline { "" } else { ", later than it may" };
        format!("{}{late}", render::unix(forecast.ends_at))
    });
    let file = |id: &Option<FileId>| Cell::optional(id.as_ref().map(FileId::to_string));
    let mut fields = vec![
        ("batch", Cell::text(batch.id.as_str())),
        ("status", Cell::state(status_text(batch.status))),
        ("endpoint", Cell::text(render::plain(&batch.endpoint))),
        ("lines", Cell::text(format!("{} of {} answered, {} failed", counts.completed, counts.total, counts.failed))),
        ("may cost", Cell::optional(cost)),
        ("will end", Cell::optional(forecast)),
        ("must end", Cell::text(render::unix(batch.expires_at))),
        ("input", Cell::text(batch.input_file_id.as_str())),
        ("answers", file(&batch.output_file_id)),
        ("errors", file(&batch.error_file_id)),
    ];
    let problems = batch.errors.iter().flat_map(|errors| &errors.data).take(PROBLEMS_SHOWN_MAX);
    fields.extend(problems.map(|problem| {
        let place = problem.line.map_or(NOTHING.to_owned(), |line| line.to_string());
        ("problem", Cell::text(format!("line {place}: {} ({})", render::plain(&problem.message), render::plain(&problem.code))))
    }));
    fields
}

fn table(batches: &[Batch]) -> Table {
    let rows = batches.iter().map(|batch| {
        let counts = batch.request_counts;
        [
            Cell::text(batch.id.as_str()),
            Cell::state(status_text(batch.status)),
            Cell::number(format!("{}/{}", counts.completed, counts.total)),
            Cell::number(counts.failed),
            Cell::text(render::unix(batch.created_at)),
            Cell::text(render::plain(&batch.endpoint)),
        ]
    });
    let headings = ["batch", "status", "answered", "failed", "created", "endpoint"];
    Table::new(headings, "no batches yet; start one with 'sublet batches create PATH'").rows(rows)
}
