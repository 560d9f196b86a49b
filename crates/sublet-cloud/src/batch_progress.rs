//! Running the lines of a batch: as many as there is room for, each once under this claim.
//!
//! A line that is recorded is not run again here: settling its record answers its row. A line that was
//! refused for a passing reason left no record, and is offered again: after a pause of the batch, or, if what
//! was short is not what every line needs, when its own time has come. When nobody can know whether a line is
//! recorded, the claim is given up: the next one runs it under another attempt.

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use sublet_core::admission::{Access, TokenUsage};
use sublet_core::batch::{BatchStatus, LineEnd, LineName, LineRequest};
use sublet_core::tier::ServiceTier;
use sublet_core::{DurationMs, Error, ErrorCode, Result, Timestamp};
use sublet_store::batch::{Batch, BatchEnd};
use sublet_store::batch_line::{self, Given, Line, Open, Try};
use tokio::task::JoinSet;
use tokio::time::Sleep;

use crate::batch::{Batches, EXPIRED};
use crate::batch_aside::Aside;
use crate::batch_input::parse_line;
use crate::batch_pace::{Pace, Urgency, urgency};
use crate::batch_places::{Seat, Taken, Want};
use crate::batch_reconciler::Worker;
use crate::batch_validation::{has_no_access, problem};

/// The status of a line that was answered.
const ANSWERED: u16 = 200;
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

/// A line that may be started.
struct Ready {
    line: Line,
    /// What it was refused for want of before, if it was set aside.
    waited_for: Option<Arc<str>>,
}

/// One line that has run.
struct Ran {
    ready: Ready,
    end: LineEnd,
    /// Makes room when it is dropped.
    _taken: Taken,
}

/// What comes of a look at the batch.
enum Course {
    On,
    /// Sealed, or cancelled: the next step goes on from the row.
    Over,
    /// The claim is gone or given up.
    Gone,
}

/// When a line that was refused is offered again.
#[derive(Clone, Copy)]
struct Again(DurationMs);

impl Again {
    fn after(hint: Option<DurationMs>) -> Self {
        Self(hint.unwrap_or(PAUSE).clamp(PAUSE, PAUSE_MAX))
    }
}

/// The lines of a batch on their way.
struct Progress<'w> {
    worker: &'w Worker,
    batch: Batch,
    access: Arc<Access>,
    running: JoinSet<Ran>,
    /// Answers that the lines on their way ask for.
    running_answers: u64,
    seat: Seat,
    /// Read from the table, or put back.
    waiting: VecDeque<Ready>,
    /// Refused for want of something that others do not need.
    aside: Aside<Line>,
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
    done: Open,
    left: Open,
}

impl Worker {
    /// Runs lines until all have an answer or there is a reason to stop. False if the claim is gone.
    pub(crate) async fn progress(&self, batch: Batch) -> Result<bool> {
        let access = match self.access(&batch).await? {
            Ok(access) => access,
            Err(error) => return self.stop(&error).await,
        };
        let open = self.open_lines().await?;
        let seat = self.batches.places.join(&batch.id, (&batch.project, batch.expires_at));
        let mut progress = Progress {
            worker: self,
            batch,
            access,
            running: JoinSet::new(),
            running_answers: 0,
            seat,
            waiting: VecDeque::new(),
            aside: Aside::default(),
            cursor: 0,
            all_read: false,
            pause: None,
            alone: false,
            poor: 0,
            failures: BTreeMap::new(),
            unknown: false,
            since: self.batches.now(),
            done: Open::default(),
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
            Err(error) if has_no_access(&error) => Ok(Err(error)),
            Err(error) => Err(error),
        }
    }

    async fn open_lines(&self) -> Result<Open> {
        self.batches.cloud.store.read(&self.id, |id, tx| Box::pin(batch_line::count_open(tx, id))).await
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
        if self.is_drained() && worker.open_lines().await?.lines == 0 {
            return over(worker.seal(BatchEnd::default(), None).await?);
        }
        // Answers that are durable already are those of this claim: it goes when all of them have arrived.
        if worker.gives_way() && self.running.is_empty() && worker.open_lines().await?.lines <= self.left.lines {
            worker.let_go(now).await?;
            return Ok(Course::Gone);
        }
        Ok(Course::On)
    }

    fn forecast(&self, now: Timestamp) -> Timestamp {
        Pace { since: self.since, done: self.done.answers, running: self.running_answers, left: self.left.answers }.forecast(now)
    }

    fn is_drained(&self) -> bool {
        self.all_read && self.waiting.is_empty() && self.aside.is_empty() && self.running.is_empty()
    }

    /// Ends what runs, and lets answers arrive that are durable already.
    async fn leave(&mut self) -> Result<()> {
        self.seat.want(None);
        self.running.shutdown().await;
        for _ in 0..SETTLE_LOOKS_MAX {
            if self.worker.open_lines().await?.lines <= self.left.lines {
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
        let places = Arc::clone(&self.worker.batches.places);
        loop {
            let changed = places.changed.notified();
            tokio::pin!(changed);
            // What changes from here on is not missed.
            changed.as_mut().enable();
            self.fill().await?;
            tokio::select! {
                () = &mut tick => return Ok(()),
                () = pause_over(&mut self.pause) => self.pause = None,
                () = &mut changed => {}
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
                return if self.worker.open_lines().await?.lines == 0 {
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
        loop {
            let want = self.next_want().await?;
            self.seat.want(want);
            self.seat.set_aside(self.aside.len());
            let batches = self.worker.batches.clone();
            let Some((want, taken)) = want.and_then(|want| Some((want, self.seat.take(batches.engine.load())?))) else {
                return Ok(());
            };
            let Some(ready) = self.waiting.pop_front() else { return Ok(()) };
            self.running_answers += u64::from(ready.line.answers);
            let tier = if want.urgency == Urgency::Relaxed { ServiceTier::Flex } else { ServiceTier::Default };
            let (batch, access) = (self.batch.clone(), Arc::clone(&self.access));
            self.running.spawn(async move {
                let end = serve((&batches, &batch), access, (&ready.line, tier)).await;
                Ran { ready, end, _taken: taken }
            });
        }
    }

    /// What would be started next: what was set aside once its time has come, else the next line.
    async fn next_want(&mut self) -> Result<Option<Want>> {
        let is_kept_back = self.pause.is_some() || self.unknown || self.worker.gives_way();
        if is_kept_back || (self.alone && !self.running.is_empty()) {
            return Ok(None);
        }
        let now = self.worker.batches.now();
        for (name, line) in self.aside.take_due(now).into_iter().rev() {
            self.waiting.push_front(Ready { line, waited_for: Some(name) });
        }
        if self.waiting.is_empty() {
            self.read_lines().await?;
        }
        let is_fresh = self.waiting.front().is_some_and(|first| first.waited_for.is_none());
        if is_fresh && self.aside.is_full() {
            // A line that came back goes behind those that may make room.
            let tried = self.waiting.iter().position(|ready| ready.waited_for.is_some());
            let Some(tried) = tried.and_then(|place| self.waiting.remove(place)) else { return Ok(None) };
            self.waiting.push_front(tried);
        }
        let Some(first) = self.waiting.front() else { return Ok(None) };
        let answers = usize::try_from(first.line.answers).unwrap_or(usize::MAX);
        Ok(Some(Want { answers, urgency: urgency(now, self.forecast(now), self.batch.expires_at) }))
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
        self.waiting.extend(lines.into_iter().map(|line| Ready { line, waited_for: None }));
        Ok(())
    }

    /// Draws the conclusion from a line's end. False if the batch is over.
    async fn take(&mut self, ran: Ran) -> Result<bool> {
        let Ran { ready, end, .. } = ran;
        self.running_answers = self.running_answers.saturating_sub(u64::from(ready.line.answers));
        match end {
            LineEnd::Recorded => {
                (self.alone, self.poor) = (false, 0);
                self.passed(&ready);
                self.count_done(&ready.line, ANSWERED);
            }
            LineEnd::Free { body } => self.answer(&ready, ANSWERED, &body).await?,
            LineEnd::Unknown => self.unknown = true,
            LineEnd::Refused { error, status, body } => match error.code() {
                // A limit on its model or its end user is used up; the other lines have money.
                ErrorCode::InsufficientQuota if error.param_name().is_some() => self.answer(&ready, status, &body).await?,
                ErrorCode::InsufficientQuota if self.running.is_empty() && self.poor >= POOR_MAX => {
                    self.leave().await?;
                    self.worker.stop(&error).await?;
                    return Ok(false);
                }
                // What runs holds money, here and elsewhere, which may come free.
                ErrorCode::InsufficientQuota => {
                    self.poor += u32::from(self.running.is_empty());
                    self.alone = true;
                    self.put_back(ready, Again::after(None));
                }
                // The key is looked at again before anything else is started.
                ErrorCode::InvalidApiKey => self.put_back(ready, Again::after(None)),
                ErrorCode::UpstreamFailed | ErrorCode::UpstreamTimeout if self.may_fail_again(&ready.line) => {
                    self.offer_again(ready, &error);
                }
                code if passes(code) => self.offer_again(ready, &error),
                _ => self.answer(&ready, status, &body).await?,
            },
        }
        Ok(true)
    }

    /// Keeps a line that was refused for a passing reason: the batch waits, unless others do not need what was short.
    fn offer_again(&mut self, ready: Ready, error: &Error) {
        let again = Again::after(error.retry_after_hint());
        let Some(name) = error.bottleneck_name() else { return self.put_back(ready, again) };
        let until = self.worker.batches.now().plus(again.0);
        if let Some(waited_for) = &ready.waited_for {
            if waited_for == name {
                self.aside.refused(name, until);
            } else {
                self.aside.passed(waited_for);
            }
        }
        self.aside.put(name, ready.line, until);
    }

    /// What a line waited for was there.
    fn passed(&mut self, ready: &Ready) {
        if let Some(name) = &ready.waited_for {
            self.aside.passed(name);
        }
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

    fn count_done(&mut self, line: &Line, status: u16) {
        let answers = u64::from(line.answers);
        self.done = Open { lines: self.done.lines + 1, answers: self.done.answers + answers };
        self.left = Open { lines: self.left.lines.saturating_sub(1), answers: self.left.answers.saturating_sub(answers) };
        let counters = &self.worker.batches.counters;
        if status == ANSWERED { counters.completed() } else { counters.failed() }
    }

    fn put_back(&mut self, ready: Ready, again: Again) {
        // Whoever waited for something of its own is the next to be tried.
        self.waiting.push_front(ready);
        self.pause = Some(Box::pin(tokio::time::sleep(again.0.to_std())));
    }

    /// Writes what costs nothing.
    async fn answer(&mut self, ready: &Ready, status: u16, body: &str) -> Result<()> {
        let line = &ready.line;
        let name = LineName { batch: self.batch.id.clone(), number: line.number };
        let by = Try { name: &name, request: &line.request, attempt: attempt(&self.batch)? };
        let given = Given { status, body, tokens: TokenUsage::default() };
        self.worker.batches.cloud.store.write((&by, &given), |(by, given), tx| Box::pin(batch_line::answer(tx, by, given))).await?;
        self.passed(ready);
        self.count_done(&ready.line, status);
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
