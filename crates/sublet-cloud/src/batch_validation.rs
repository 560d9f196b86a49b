//! Reading a batch's file: every line is checked as serving it would, counted, and given its request id.
//!
//! Lines are written as they are checked, each step with what the lines come to so far, so that a reading
//! that is cut off goes on behind the last of them. A wrong line stops the writing: it is met again.
//!
//! Deliberately absent: money. The quote is an estimate; each line takes its own hold when it runs.

use std::collections::HashSet;
use std::sync::Arc;

use sublet_core::admission::Access;
use sublet_core::batch::{BatchStatus, LineEstimate};
use sublet_core::id::BatchId;
use sublet_core::{Error, ErrorCode, Nanos, Result, TokenCount};
use sublet_store::batch::{self, Batch, BatchQuote, LineCounts, Problem};
use sublet_store::batch_line::{self, Line};

use crate::batch::EXPIRED;
use crate::batch_input::{LINE_BYTES_MAX, LINES_MAX, RawLine, Splitter, parse_line};
use crate::batch_reconciler::Worker;

/// Bytes of a file that are read at once.
const PIECE_BYTES: usize = 1024 * 1024;
/// Wrong lines that are named before the rest is not looked at.
const PROBLEMS_MAX: usize = 100;
/// Lines that are written in one transaction: what a crash makes to be read again, at most.
const LINES_PER_STEP: usize = 100;
/// What was read of a file so far.
struct Reading<'w> {
    worker: &'w Worker,
    batch: &'w Batch,
    access: Arc<Access>,
    custom_ids: HashSet<String>,
    /// Checked and not yet written.
    lines: Vec<Line>,
    problems: Vec<Problem>,
    quote: BatchQuote,
}

pub(crate) fn problem(error: &Error, line: Option<u32>) -> Problem {
    Problem {
        code: error.code().as_str().to_owned(),
        message: error.message().to_owned(),
        param: error.param_name().map(str::to_owned),
        line,
    }
}

/// Whether a batch's key was revoked, or its account is suspended and stops what runs.
pub(crate) fn has_no_access(error: &Error) -> bool {
    matches!(error.code(), ErrorCode::InvalidApiKey | ErrorCode::InsufficientQuota)
}

impl Worker {
    /// Brings a batch from validating to in progress, or to failed. False if the claim is gone.
    pub(crate) async fn validate(&self, batch: &Batch) -> Result<bool> {
        if self.batches.now() >= batch.expires_at {
            let message = "the completion window ended before the file was read".to_owned();
            return self.fail(vec![Problem { code: EXPIRED.to_owned(), message, param: None, line: None }]).await;
        }
        let access = match self.batches.cloud.access_of_key(&batch.key).await {
            Ok(access) => access,
            Err(error) if has_no_access(&error) => return self.fail(vec![problem(&error, None)]).await,
            Err(error) => return Err(error),
        };
        let nothing = BatchQuote {
            answers: 0,
            input_tokens: TokenCount::ZERO,
            output_tokens_max: TokenCount::ZERO,
            least: Nanos::ZERO,
            most: Nanos::ZERO,
            currency: access.currency,
        };
        let (last, known) = self.read_before(&batch.id).await?;
        let mut reading = Reading {
            worker: self,
            batch,
            access,
            custom_ids: known.into_iter().collect(),
            lines: Vec::new(),
            problems: Vec::new(),
            quote: batch.quote.clone().unwrap_or(nothing),
        };
        if !reading.read_file(last).await? {
            return Ok(true);
        }
        reading.conclude().await
    }

    /// Where a reading that was cut off stopped, and the ids it had taken.
    async fn read_before(&self, batch: &BatchId) -> Result<(Option<Line>, Vec<String>)> {
        self.batches
            .cloud
            .store
            .read(batch, |batch, tx| {
                Box::pin(async move { Ok((batch_line::last(tx, batch).await?, batch_line::custom_ids(tx, batch).await?)) })
            })
            .await
    }

    /// Ends a batch of which nothing was run.
    async fn fail(&self, problems: Vec<Problem>) -> Result<bool> {
        let now = self.batches.now();
        let changed = self
            .change(|batch| {
                if batch.status == BatchStatus::Validating {
                    batch.status = BatchStatus::Failed;
                    batch.sealed = true;
                    batch.times.failed = Some(now);
                    batch.problems.clone_from(&problems);
                }
            })
            .await?;
        Ok(changed.is_some())
    }
}

impl Reading<'_> {
    /// Reads to the end, or to too many problems. False if the batch is no longer being validated.
    async fn read_file(&mut self, after: Option<Line>) -> Result<bool> {
        let mut offset = after.as_ref().map_or(0, |line| line.starts_at_byte + line.bytes + 1);
        let mut splitter = after.map_or_else(Splitter::default, |line| Splitter::behind(line.number, offset));
        loop {
            let piece = self.worker.batches.files.read_blob(&self.batch.input_file, offset, PIECE_BYTES).await?;
            offset += u64::try_from(piece.len()).unwrap_or(u64::MAX);
            let raw = if piece.is_empty() { splitter.finish().into_iter().collect() } else { splitter.feed(&piece) };
            for line in raw {
                self.take(line).await;
                if self.problems.len() >= PROBLEMS_MAX || self.custom_ids.len() > usize::try_from(LINES_MAX).unwrap_or(usize::MAX) {
                    return Ok(true);
                }
                if self.lines.len() >= LINES_PER_STEP && !self.write().await? {
                    return Ok(false);
                }
            }
            if piece.is_empty() {
                return self.write().await;
            }
        }
    }

    async fn take(&mut self, raw: RawLine) {
        let number = raw.number;
        if let Err(error) = self.check(raw).await {
            self.problems.push(problem(&error, Some(number)));
        }
    }

    async fn check(&mut self, raw: RawLine) -> Result<()> {
        let too_long = || Error::new(ErrorCode::BodyTooLarge, format!("a line has at most {LINE_BYTES_MAX} bytes"));
        let bytes = raw.bytes.ok_or_else(too_long)?;
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let line = parse_line(&bytes, self.batch.endpoint)?;
        if !self.custom_ids.insert(line.custom_id.clone()) {
            let message = format!("'custom_id' names one line only; '{}' was used before", line.custom_id);
            return Err(Error::new(ErrorCode::InvalidRequest, message).param("custom_id"));
        }
        let estimate = self.worker.batches.lines.estimate(Arc::clone(&self.access), self.batch.endpoint, line.body).await?;
        self.add(&estimate)?;
        let request = self.worker.batches.cloud.ids.mint();
        self.lines.push(Line {
            number: raw.number,
            custom_id: line.custom_id,
            request,
            starts_at_byte: raw.starts_at_byte,
            bytes: length,
            answers: estimate.answers,
        });
        // A file of many lines must not keep a thread from everybody else.
        tokio::task::yield_now().await;
        Ok(())
    }

    fn add(&mut self, estimate: &LineEstimate) -> Result<()> {
        let quote = &mut self.quote;
        quote.answers = quote.answers.saturating_add(u64::from(estimate.answers));
        quote.input_tokens = quote.input_tokens.saturating_add(estimate.input);
        quote.output_tokens_max = quote.output_tokens_max.saturating_add(estimate.output_max);
        quote.least = quote.least.checked_add(estimate.least)?;
        quote.most = quote.most.checked_add(estimate.most)?;
        Ok(())
    }

    /// Writes what was checked and what it comes to. False if the batch is no longer being validated.
    async fn write(&mut self) -> Result<bool> {
        let lines = if self.problems.is_empty() { std::mem::take(&mut self.lines) } else { Vec::new() };
        self.lines.clear();
        let written = self
            .worker
            .in_claim((lines, &self.quote), |(lines, quote), tx, mut batch| {
                Box::pin(async move {
                    let goes_on = batch.status == BatchStatus::Validating;
                    if goes_on && !lines.is_empty() {
                        batch_line::insert(tx, &batch.id, lines).await?;
                        batch.quote = Some(BatchQuote::clone(quote));
                        batch::save(tx, &batch).await?;
                    }
                    Ok(goes_on)
                })
            })
            .await?;
        Ok(written == Some(true))
    }

    async fn conclude(mut self) -> Result<bool> {
        let count = u32::try_from(self.custom_ids.len()).unwrap_or(u32::MAX);
        if count > LINES_MAX {
            let error = Error::new(ErrorCode::BodyTooLarge, format!("a batch has at most {LINES_MAX} lines"));
            self.problems.insert(0, problem(&error, None));
        } else if count == 0 && self.problems.is_empty() {
            let error = Error::new(ErrorCode::InvalidRequest, "the file has no lines").param("input_file_id");
            self.problems.push(problem(&error, None));
        }
        if self.problems.is_empty() {
            self.check_money().await?;
        }
        if !self.problems.is_empty() {
            return self.worker.fail(self.problems).await;
        }
        let (now, quote) = (self.worker.batches.now(), self.quote);
        let changed = self
            .worker
            .change(|batch| {
                if batch.status == BatchStatus::Validating {
                    batch.status = BatchStatus::InProgress;
                    batch.times.in_progress = Some(now);
                    batch.quote = Some(quote.clone());
                    batch.counts = LineCounts { total: i64::from(count), ..LineCounts::default() };
                }
            })
            .await?;
        Ok(changed.is_some())
    }

    /// What cannot even be begun is refused before anything is charged.
    async fn check_money(&mut self) -> Result<()> {
        let affordable = self.worker.batches.cloud.affordable(&self.batch.key).await?;
        if affordable < self.quote.least {
            let (least, currency) = (self.quote.least, self.quote.currency);
            let message = format!(
                "the lines cost at least {least} {currency} (their input and one token of output each); the key's limits and the credit leave {affordable}"
            );
            self.problems.push(problem(&Error::new(ErrorCode::InsufficientQuota, message), None));
        }
        Ok(())
    }
}
