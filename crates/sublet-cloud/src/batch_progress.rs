//! Running the lines of a batch: as many as there is room for, each once under this claim.
//!
//! A line that is recorded is not run again here: settling its record answers its row. A line that was
//! refused for a passing reason left no record, and is offered again after a pause. When nobody can know
//! whether a line is recorded, the claim is given up: the next one runs it under another attempt.

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sublet_core::admission::{Access, TokenUsage};
use sublet_core::batch::{BatchStatus, LineEnd, LineName, LineRequest};
use sublet_core::tier::ServiceTier;
use sublet_core::{DurationMs, Error, ErrorCode, Result, Timestamp};
use sublet_store::batch::{Batch, BatchEnd};
use sublet_store::batch_line::{self, Given, Line, Try};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinSet;
use tokio::time::Sleep;

use crate::batch::{Batches, EXPIRED};
use crate::batch_input::parse_line;
use crate::batch_pace::{LINES_IN_FLIGHT_MAX, Pace, Urgency, lines_allowed, urgency};
use crate::batch_reconciler::Worker;
use crate::batch_validation::problem;

/// How often the batch, its key and its deadline are looked at.
const TICK: Duration = Duration::from_millis(200);
/// Lines that are read from the table at once.
const WINDOW: i64 = 256;
/// Pause after a refusal that says nothing better, and the longest one.
const PAUSE: DurationMs = DurationMs::from_millis(500);
const PAUSE_MAX: DurationMs = DurationMs::from_seconds(30);
/// How often a line may find no money, one [`PAUSE`] apart, before there is none: longer than idle slices of other
/// gateways take to go back.
const POOR_MAX: u32 = 14;
/// How often a line is tried that the model's server fails on; its claim's process counts.
const UPSTREAM_TRIES_MAX: u32 = 3;
/// How often the end waits for answers on their way, one [`TICK`] apart: five seconds.
const SETTLE_LOOKS_MAX: u32 = 25;

/// One line that has run.
struct Ran {
    line: Line,
    end: LineEnd,
    /// Makes room when it is dropped.
    _permit: OwnedSemaphorePermit,
}

/// One of the batches that share the places of lines, until it is dropped.
struct Sharer(Arc<AtomicUsize>);

impl Sharer {
    fn new(sharers: &Arc<AtomicUsize>) -> Self {
        sharers.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(sharers))
    }
    /// Lines of one batch that may run at once.
    fn share(&self) -> usize {
        (LINES_IN_FLIGHT_MAX / self.0.load(Ordering::Acquire).max(1)).max(1)
    }
}

impl Drop for Sharer {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// What comes of a look at the batch.
enum Course {
    On,
    /// Sealed, or cancelled: the next step goes on from the row.
    Over,
    /// The claim is gone or given up.
    Gone,
}

/// The lines of a batch on their way.
struct Progress<'w> {
    worker: &'w Worker,
    batch: Batch,
    access: Arc<Access>,
    running: JoinSet<Ran>,
    sharer: Sharer,
    /// Read from the table, or put back.
    waiting: VecDeque<Line>,
    /// The last line that was read.
    cursor: u32,
    all_read: bool,
    pause: Option<Pin<Box<Sleep>>>,
    /// Money is short: one line at a time, so that a refusal means that there is none.
    alone: bool,
    /// How often in a row there was none.
    poor: u32,
    /// How often the model's server failed, by the line's number; for lines that are tried again.
    failures: BTreeMap<u32, u32>,
    unknown: bool,
    since: Timestamp,
    done: u64,
    left: u64,
}

impl Worker {
    /// Runs lines until all have an answer or there is a reason to stop. False if the claim is gone.
    pub(crate) async fn progress(&self, batch: Batch) -> Result<bool> {
        let access = match self.access(&batch).await? {
            Ok(access) => access,
            Err(error) => return self.stop(&error).await,
        };
        let open = self.open_lines().await?;
        let mut progress = Progress {
            worker: self,
            batch,
            access,
            running: JoinSet::new(),
            sharer: Sharer::new(&self.batches.sharers),
            waiting: VecDeque::new(),
            cursor: 0,
            all_read: false,
            pause: None,
            alone: false,
            poor: 0,
            failures: BTreeMap::new(),
            unknown: false,
            since: self.batches.now(),
            done: 0,
            left: open,
        };
        loop {
            match progress.look().await? {
                Course::On => progress.work().await?,
                Course::Over => return Ok(true),
                Course::Gone => return Ok(false),
            }
        }
    }

    async fn access(&self, batch: &Batch) -> Result<Result<Arc<Access>>> {
        match self.batches.cloud.access_of_key(&batch.key).await {
            Ok(access) => Ok(Ok(access)),
            Err(error) if error.code() == ErrorCode::InvalidApiKey => Ok(Err(error)),
            Err(error) => Err(error),
        }
    }

    async fn open_lines(&self) -> Result<u64> {
        let count = self.batches.cloud.store.read(&self.id, |id, tx| Box::pin(batch_line::count_open(tx, id))).await?;
        Ok(u64::try_from(count).unwrap_or(0))
    }

    /// Lines without an answer end with this error, and the batch says so.
    async fn stop(&self, error: &Error) -> Result<bool> {
        let end = BatchEnd { code: error.code().as_str().to_owned(), message: error.message().to_owned() };
        self.seal(end, Some(problem(error, None))).await
    }
}

impl Progress<'_> {
    /// Looks at what may have changed outside.
    async fn look(&mut self) -> Result<Course> {
        let worker = self.worker;
        let Some(batch) = worker.load().await? else { return Ok(Course::Gone) };
        let now = worker.batches.now();
        if batch.status != BatchStatus::InProgress {
            self.leave().await?;
            return Ok(Course::Over);
        }
        if now >= batch.expires_at {
            self.leave().await?;
            let message = "the completion window ended before this line ran";
            let end = BatchEnd { code: EXPIRED.to_owned(), message: message.to_owned() };
            return over(worker.seal(end, None).await?);
        }
        match worker.access(&batch).await? {
            Ok(access) => self.access = access,
            Err(error) => {
                self.leave().await?;
                return over(worker.stop(&error).await?);
            }
        }
        if self.unknown && self.running.is_empty() {
            return Ok(Course::Gone);
        }
        self.batch = batch;
        worker.foresee(self.forecast(now));
        if self.is_drained() && worker.open_lines().await? == 0 {
            return over(worker.seal(BatchEnd::default(), None).await?);
        }
        Ok(Course::On)
    }

    fn forecast(&self, now: Timestamp) -> Timestamp {
        let running = u64::try_from(self.running.len()).unwrap_or(u64::MAX);
        Pace { since: self.since, done: self.done, running, left: self.left }.forecast(now)
    }

    fn is_drained(&self) -> bool {
        self.all_read && self.waiting.is_empty() && self.running.is_empty()
    }

    /// Ends what runs, and lets answers arrive that are durable already.
    async fn leave(&mut self) -> Result<()> {
        self.running.shutdown().await;
        for _ in 0..SETTLE_LOOKS_MAX {
            if self.worker.open_lines().await? <= self.left {
                return Ok(());
            }
            tokio::time::sleep(TICK).await;
        }
        Ok(())
    }

    /// Starts lines and takes their ends, until it is time to look again.
    async fn work(&mut self) -> Result<()> {
        let tick = tokio::time::sleep(TICK);
        tokio::pin!(tick);
        loop {
            self.fill().await?;
            tokio::select! {
                () = &mut tick => return Ok(()),
                () = pause_over(&mut self.pause) => self.pause = None,
                Some(ran) = self.running.join_next(), if !self.running.is_empty() => match ran {
                    Ok(ran) => {
                        if !self.take(ran).await? {
                            return Ok(());
                        }
                    }
                    // A line that panicked may have left a record.
                    Err(_) => self.unknown = true,
                },
            }
            if self.is_drained() {
                // Answers are on their way to the table.
                return if self.worker.open_lines().await? == 0 {
                    Ok(())
                } else {
                    tick.await;
                    Ok(())
                };
            }
        }
    }

    /// Starts as many lines as there is room for.
    async fn fill(&mut self) -> Result<()> {
        while self.pause.is_none() && !self.unknown && (self.running.is_empty() || !self.alone) {
            if self.waiting.is_empty() {
                self.read_lines().await?;
            }
            let Some((permit, tier)) = self.room() else { return Ok(()) };
            let Some(line) = self.waiting.pop_front() else { return Ok(()) };
            let (batches, batch, access) = (self.worker.batches.clone(), self.batch.clone(), Arc::clone(&self.access));
            self.running.spawn(async move {
                let end = serve((&batches, &batch), access, (&line, tier)).await;
                Ran { line, end, _permit: permit }
            });
        }
        Ok(())
    }

    async fn read_lines(&mut self) -> Result<()> {
        if self.all_read {
            return Ok(());
        }
        let (id, after) = (&self.batch.id, self.cursor);
        let lines =
            self.worker.batches.cloud.store.read(id, move |id, tx| Box::pin(batch_line::open_after(tx, id, after, WINDOW))).await?;
        match lines.last() {
            Some(last) => self.cursor = last.number,
            None => self.all_read = true,
        }
        self.waiting.extend(lines);
        Ok(())
    }

    /// A place for one more line of this batch, if the engine has nothing better to do and others have their
    /// share. A line gives way to everything else as long as there is time for that.
    fn room(&self) -> Option<(OwnedSemaphorePermit, ServiceTier)> {
        let batches = &self.worker.batches;
        if self.running.len() >= self.sharer.share() {
            return None;
        }
        let own = LINES_IN_FLIGHT_MAX - batches.permits.available_permits();
        let now = batches.now();
        let urgency = urgency(now, self.forecast(now), self.batch.expires_at);
        if own >= lines_allowed(batches.engine.load(), own, urgency) {
            return None;
        }
        let tier = if urgency == Urgency::Relaxed { ServiceTier::Flex } else { ServiceTier::Default };
        Arc::clone(&batches.permits).try_acquire_owned().ok().map(|permit| (permit, tier))
    }

    /// Draws the conclusion from a line's end. False if the batch is over.
    async fn take(&mut self, ran: Ran) -> Result<bool> {
        let Ran { line, end, .. } = ran;
        match end {
            LineEnd::Recorded => {
                (self.alone, self.poor) = (false, 0);
                self.count_done();
            }
            LineEnd::Free { body } => self.answer(&line, 200, &body).await?,
            LineEnd::Unknown => self.unknown = true,
            LineEnd::Refused { error, status, body } => match error.code() {
                // A limit on its model or its end user is used up; the other lines have money.
                ErrorCode::InsufficientQuota if error.param_name().is_some() => self.answer(&line, status, &body).await?,
                ErrorCode::InsufficientQuota if self.running.is_empty() && self.poor >= POOR_MAX => {
                    self.leave().await?;
                    self.worker.stop(&error).await?;
                    return Ok(false);
                }
                // What runs holds money, here and elsewhere, which may come free.
                ErrorCode::InsufficientQuota => {
                    self.poor += u32::from(self.running.is_empty());
                    self.alone = true;
                    self.put_back(line, None);
                }
                // The key is looked at again before anything else is started.
                ErrorCode::InvalidApiKey => self.put_back(line, None),
                ErrorCode::UpstreamFailed | ErrorCode::UpstreamTimeout if self.may_fail_again(&line) => self.put_back(line, None),
                code if passes(code) => self.put_back(line, error.retry_after_hint()),
                _ => self.answer(&line, status, &body).await?,
            },
        }
        Ok(true)
    }

    /// Counts a failure of the model's server, which may be of the moment or of the line.
    fn may_fail_again(&mut self, line: &Line) -> bool {
        let failures = self.failures.entry(line.number).or_default();
        *failures += 1;
        let may_fail_again = *failures < UPSTREAM_TRIES_MAX;
        if !may_fail_again {
            self.failures.remove(&line.number);
        }
        may_fail_again
    }

    fn count_done(&mut self) {
        self.done += 1;
        self.left = self.left.saturating_sub(1);
    }

    fn put_back(&mut self, line: Line, after: Option<DurationMs>) {
        self.waiting.push_front(line);
        let pause = after.unwrap_or(PAUSE).clamp(PAUSE, PAUSE_MAX);
        self.pause = Some(Box::pin(tokio::time::sleep(pause.to_std())));
    }

    /// Writes what costs nothing.
    async fn answer(&mut self, line: &Line, status: u16, body: &str) -> Result<()> {
        let name = LineName { batch: self.batch.id.clone(), number: line.number };
        let by = Try { name: &name, request: &line.request, attempt: attempt(&self.batch)? };
        let given = Given { status, body, tokens: TokenUsage::default() };
        self.worker.batches.cloud.store.write((&by, &given), |(by, given), tx| Box::pin(batch_line::answer(tx, by, given))).await?;
        self.count_done();
        Ok(())
    }
}

fn over(sealed: bool) -> Result<Course> {
    Ok(if sealed { Course::Over } else { Course::Gone })
}

/// Whether a refusal says more about the moment than about the line.
fn passes(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::QueueFull
            | ErrorCode::Preempted
            | ErrorCode::ModelUnavailable
            | ErrorCode::RateLimitExceeded
            | ErrorCode::ConcurrencyExceeded
            | ErrorCode::StorageFull
            | ErrorCode::StoreUnavailable
            | ErrorCode::ShuttingDown
            | ErrorCode::Unreachable
    )
}

/// Lines are run as attempts of the claim's number.
fn attempt(batch: &Batch) -> Result<u32> {
    u32::try_from(batch.generation).map_err(|_| Error::internal("a batch was claimed too often"))
}

async fn pause_over(pause: &mut Option<Pin<Box<Sleep>>>) {
    match pause {
        Some(pause) => pause.await,
        None => std::future::pending().await,
    }
}

/// Reads a line from its file and serves it.
async fn serve((batches, batch): (&Batches, &Batch), access: Arc<Access>, (line, tier): (&Line, ServiceTier)) -> LineEnd {
    match request((batches, batch), access, (line, tier)).await {
        Ok(request) => batches.lines.serve(request).await,
        // Its file cannot be read at the moment: nothing was served.
        Err(error) => {
            tracing::warn!(batch = %batch.id, line = line.number, ?error, "a line could not be read from its file");
            let error = Error::new(ErrorCode::StoreUnavailable, "the line could not be read from its file");
            LineEnd::Refused { status: error.code().status(), body: String::new(), error }
        }
    }
}

async fn request(
    (batches, batch): (&Batches, &Batch),
    access: Arc<Access>,
    (line, tier): (&Line, ServiceTier),
) -> Result<LineRequest> {
    let length = usize::try_from(line.bytes).map_err(|_| Error::internal("a line is longer than memory"))?;
    let bytes = batches.files.read_blob(&batch.input_file, line.starts_at_byte, length).await?;
    Ok(LineRequest {
        access,
        endpoint: batch.endpoint,
        body: parse_line(&bytes, batch.endpoint)?.body,
        request: line.request.clone(),
        attempt: attempt(batch)?,
        name: LineName { batch: batch.id.clone(), number: line.number },
        tier,
    })
}
