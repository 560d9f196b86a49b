//! The files of a sealed batch: one with its answers, one with its errors.
//!
//! Both are written from the lines' rows and durable before the transaction that names them and ends the
//! batch. A crash in between leaves contents without a row, which are swept. If a line was answered after its
//! row was read, the files are written again.

use serde_json::Value;
use sublet_core::batch::BatchStatus;
use sublet_core::file::FilePurpose;
use sublet_core::id::FileId;
use sublet_core::{Result, Timestamp};
use sublet_store::batch::{self, Batch, BatchEnd, LineCounts};
use sublet_store::batch_line::{self, EndedLine};
use sublet_store::file::{self, File};

use crate::batch::{CANCELLED, EXPIRED};
use crate::batch_reconciler::Worker;
use crate::file::{NewFile, Owner, Upload, may_be_written};

/// Lines that are read at once; each may have an answer of half a mebibyte.
const LINES_PER_STEP: i64 = 64;
/// The status of an answer that goes into the output file.
const ANSWERED: u16 = 200;

/// The two contents while they are written.
struct Outputs {
    answers: Upload,
    errors: Upload,
    /// Lines with an answer, of either kind.
    answered: i64,
}

impl Outputs {
    async fn append(&mut self, line: &EndedLine, batch: &Batch) -> Result<()> {
        self.answered += i64::from(line.answer.is_some());
        match &line.answer {
            Some((ANSWERED, _)) => self.answers.append(&wire_line(line, batch)).await,
            Some(_) | None => self.errors.append(&wire_line(line, batch)).await,
        }
    }
}

/// What became of the transaction that ends a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ending {
    Ended,
    /// A line was answered after the files were written.
    Outrun,
    /// The claim is gone.
    Gone,
}

impl Worker {
    /// Writes the files of a sealed batch and ends it. False if the claim is gone.
    pub(crate) async fn finalize(&self, batch: &Batch) -> Result<bool> {
        let files = &self.batches.files;
        let mut outputs = Outputs { answers: files.begin_own().await?, errors: files.begin_own().await?, answered: 0 };
        let (mut after, mut total) = (0, 0);
        loop {
            let read = |id| {
                self.batches.cloud.store.read(id, move |id, tx| Box::pin(batch_line::ended_after(tx, id, after, LINES_PER_STEP)))
            };
            let lines = read(batch.id.clone()).await?;
            let Some(last) = lines.last() else { break };
            after = last.line.number;
            for line in &lines {
                total += 1;
                outputs.append(line, batch).await?;
            }
        }
        let answered = outputs.answered;
        let answers = self.store_file(batch, outputs.answers, "output").await?;
        let errors = self.store_file(batch, outputs.errors, "error").await?;
        let named = [&answers, &errors].map(|file| file.as_ref().map(|file| file.id.clone()));
        let ending = self.end([answers, errors], answered).await;
        let is_unused = match &ending {
            Ok(ending) => *ending != Ending::Ended,
            // A batch that has ended after all names them; else they are swept.
            Err(error) => !may_be_written(error),
        };
        if is_unused {
            for id in named.iter().flatten() {
                files.forget(id).await;
            }
        }
        let ending = ending?;
        if ending == Ending::Ended {
            self.batches.counters.unanswered(total - answered);
        }
        Ok(ending != Ending::Gone)
    }

    /// Makes a content durable, if it has anything.
    async fn store_file(&self, batch: &Batch, content: Upload, kind: &str) -> Result<Option<File>> {
        if content.is_empty() {
            return Ok(None);
        }
        let stored = content.commit().await?;
        let filename = format!("{}_{kind}.jsonl", batch.id);
        let new = NewFile { purpose: FilePurpose::BatchOutput, filename, expires_after: batch.output_expires_after };
        let owner = Owner { organization: batch.organization.clone(), project: batch.project.clone() };
        Ok(Some(self.batches.files.file(&owner, stored, &new)))
    }

    /// Names the files and ends the batch, in one transaction, if they have all `answered` lines.
    async fn end(&self, files: [Option<File>; 2], answered: i64) -> Result<Ending> {
        let now = self.batches.now();
        let ended = self
            .in_claim(files, move |files, tx, mut batch| {
                Box::pin(async move {
                    let counts = batch_line::count(tx, &batch.id).await?;
                    // A line that was being settled when the batch was sealed may have been charged since.
                    if counts.completed + counts.failed != answered {
                        return Ok(Ending::Outrun);
                    }
                    for file in files.iter().flatten() {
                        file::insert(tx, file).await?;
                    }
                    let name = |file: &Option<File>| -> Option<FileId> { file.as_ref().map(|file| file.id.clone()) };
                    (batch.output_file, batch.error_file) = (name(&files[0]), name(&files[1]));
                    conclude(&mut batch, counts, now);
                    batch::save(tx, &batch).await.map(|()| Ending::Ended)
                })
            })
            .await?;
        Ok(ended.unwrap_or(Ending::Gone))
    }
}

fn conclude(batch: &mut Batch, counts: LineCounts, now: Timestamp) {
    // A line without an answer failed.
    batch.counts = LineCounts { failed: counts.total - counts.completed, ..counts };
    let (status, ended_at) = match batch.end.code.as_str() {
        EXPIRED => (BatchStatus::Expired, &mut batch.times.expired),
        CANCELLED => (BatchStatus::Cancelled, &mut batch.times.cancelled),
        _ => (BatchStatus::Completed, &mut batch.times.completed),
    };
    *ended_at = Some(now);
    batch.status = status;
}

/// A line of an output file, in OpenAI's shape. Answers are JSON already and go in as they are.
fn wire_line(ended: &EndedLine, batch: &Batch) -> Vec<u8> {
    let EndedLine { line, answer } = ended;
    let custom_id = Value::from(line.custom_id.as_str());
    let body = line.request.as_str().split_once('_').map_or("", |(_, body)| body);
    let end = &batch.end;
    let rest = match answer {
        Some((status, body)) => {
            format!("\"response\":{{\"status_code\":{status},\"request_id\":\"{}\",\"body\":{body}}},\"error\":null", line.request)
        }
        None => format!("\"response\":null,\"error\":{}", end_error(end)),
    };
    format!("{{\"id\":\"batch_req_{body}\",\"custom_id\":{custom_id},{rest}}}\n").into_bytes()
}

fn end_error(end: &BatchEnd) -> Value {
    serde_json::json!({ "code": end.code, "message": end.message })
}
