//! One request to a replica, as a generation.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use sublet_core::engine::{Allowance, Cover, FinishReason, GenerationEvent, GenerationStream};
use sublet_core::id::ReplicaId;
use sublet_core::supply::RemoteModel;
use sublet_core::usage::Measured;
use sublet_core::{DurationMs, Error, ErrorCode, Result, TokenCount};
use tokio::time::{Instant, timeout_at};

use super::Supply;
use super::events::{EventReader, LineTooLong};
use super::reply::{BYTES_PER_TOKEN, Counts, Refusal, Seen, Unreadable, refusal, retry_after};
use super::request::{OutputMax, UpstreamBody};
use super::station::{Seat, Station};
use crate::generation::monotonic;
use crate::routing::Block;

/// Replicas that one request is tried on.
const REPLICAS_TRIED_MAX: usize = 3;
/// Largest answer that is not streamed.
const ANSWER_BYTES_MAX: usize = 64 * 1_024 * 1_024;
/// Largest stream in all.
const STREAM_BYTES_MAX: u64 = 256 * 1_024 * 1_024;
/// No text's tokens are so long on average, but for a short one.
const TOKEN_BYTES_MAX: u64 = 16;
const SHORT_TEXT_BYTES: u64 = 1_024;
/// As much of an error's body as is read.
const ERROR_BYTES_MAX: usize = 64 * 1_024;
/// What a caller is told to wait when no replica can be asked.
const UNAVAILABLE_WAIT: DurationMs = DurationMs::from_seconds(1);

/// What is asked of a model's replicas.
pub(crate) struct Order {
    pub model: Arc<RemoteModel>,
    /// Below the replica's base URL.
    pub path: &'static str,
    pub body: UpstreamBody,
    pub streamed: bool,
    pub output_max: OutputMax,
    /// Answers that are wanted; embeddings have none.
    pub answers: usize,
    /// Output tokens of all answers together, at most.
    pub cap: TokenCount,
    /// What the prompt has at most: more is not believed.
    pub input_max: TokenCount,
    /// What the prompt has, as far as anybody knows before the replica says.
    pub input_estimate: TokenCount,
    /// How the prompt begins, for the choice of a replica.
    pub blocks: Arc<[Block]>,
    pub allowance: Arc<Allowance>,
    /// Says afterwards who answered.
    pub served_by: Arc<OnceLock<ReplicaId>>,
}

/// Starts an exchange. Dropping the stream ends it, and closes the connection if it is still in use.
pub(crate) fn start(supply: Arc<Supply>, order: Order) -> GenerationStream {
    let (queue, kept) = (VecDeque::new(), Vec::new());
    let exchange = Exchange { supply, order, stage: Stage::New, queue, kept, tally: Tally::default(), announced: 0 };
    Box::pin(futures_util::stream::unfold(exchange, |mut exchange| async move {
        let event = exchange.next().await?;
        Some((event, exchange))
    }))
}

enum Stage {
    New,
    Reading(Box<Reading>),
    /// Nothing more is read; what is queued is still passed on.
    Over,
}

/// A stream that is being read.
struct Reading {
    body: Incoming,
    events: EventReader,
    station: Arc<Station>,
    bytes: u64,
    /// The latest instant at which it may still go on.
    until: Instant,
    seat: Seat,
}

/// What was said so far.
#[derive(Default)]
struct Tally {
    /// The replica's own counts, if it gave any.
    counts: Option<Counts>,
    /// Events that carried text since it counted last, and its bytes.
    spoken: u64,
    uncounted_bytes: u64,
    /// Bytes of all text.
    text_bytes: u64,
    /// Ends of answers.
    finishes: usize,
    reason: Option<FinishReason>,
    /// Output that was passed on.
    passed: u64,
}

impl Tally {
    /// `partial` are counts of one answer among several, which some servers give with its events.
    fn add(&mut self, seen: &Seen, partial: bool) {
        self.spoken += u64::from(seen.text_bytes > 0);
        self.uncounted_bytes += seen.text_bytes;
        self.text_bytes += seen.text_bytes;
        if let Some(counts) = seen.counts.filter(|counts| !partial && (counts.output > TokenCount::ZERO || self.text_bytes == 0)) {
            self.counts = Some(counts);
            (self.spoken, self.uncounted_bytes) = (0, 0);
        }
        self.finishes += seen.finishes;
        self.reason = seen.reason.or(self.reason);
    }

    /// Output tokens so far: the replica's count, and what could be seen since.
    fn output(&self) -> u64 {
        let counted = self.counts.map_or(0, |counts| u64::try_from(counts.output.get()).unwrap_or(0));
        counted.saturating_add(self.spoken.max(self.uncounted_bytes.div_ceil(BYTES_PER_TOKEN)))
    }
}

/// Why an attempt came to nothing.
enum Miss {
    /// Another replica would say the same.
    Request(Error),
    /// This one has too much to do, and may be asked again after this.
    Busy(DurationMs),
    /// This one does not serve such requests.
    Unfit(Error),
    Broken(Error),
    /// It was asked and may still be at work: nobody else is.
    Late(Error),
}

fn broken(why: impl Into<String>) -> Miss {
    Miss::Broken(failure(why))
}

fn failure(why: impl Into<String>) -> Error {
    Error::new(ErrorCode::UpstreamFailed, "the model's server gave no usable answer").context(why)
}

fn silence(after: DurationMs) -> Error {
    let message = format!("the model's server said nothing for {} s", after.seconds_ceil());
    Error::new(ErrorCode::UpstreamTimeout, message)
}

struct Exchange {
    supply: Arc<Supply>,
    order: Order,
    stage: Stage,
    queue: VecDeque<GenerationEvent>,
    /// The end of the answer, kept until its counts are there: a client that leaves with it would leave before them.
    kept: Vec<String>,
    tally: Tally,
    /// The output that was last announced as waiting for money.
    announced: u64,
}

impl Exchange {
    async fn next(&mut self) -> Option<GenerationEvent> {
        loop {
            if let Some(output) = self.queue.front().and_then(output_of) {
                if self.order.allowance.tokens() < output && self.announced < output {
                    self.announced = output;
                    return Some(GenerationEvent::Waiting { output: count(output) });
                }
                if self.paid_for(output).await == Cover::Closed {
                    self.cut();
                }
            }
            if let Some(event) = self.queue.pop_front() {
                if let Some(output) = output_of(&event) {
                    self.tally.passed = output;
                }
                return Some(event);
            }
            match &mut self.stage {
                Stage::New => self.open().await,
                Stage::Reading(_) => self.read().await,
                Stage::Over => return None,
            }
        }
    }

    async fn paid_for(&self, output: u64) -> Cover {
        let allowance = &self.order.allowance;
        std::future::poll_fn(|context| allowance.poll_covers(output, context)).await
    }

    /// There will be no more money: what waits is not passed on. Only an end may go on, charged as far as it is paid.
    fn cut(&mut self) {
        let paid = self.order.allowance.tokens();
        let end = self.queue.iter().find_map(|event| match event {
            GenerationEvent::Finished { reason, .. } => Some(*reason),
            _ => None,
        });
        // An event that waits for money has text.
        let has_text = matches!(self.queue.front(), Some(GenerationEvent::Delta { .. }));
        self.queue.clear();
        self.stage = Stage::Over;
        let end = match end {
            Some(reason) if !has_text => {
                self.queue.extend(self.input(Measured::Bounded));
                GenerationEvent::Finished { reason, output: count(paid) }
            }
            _ => GenerationEvent::Finished { reason: FinishReason::Allowance, output: count(self.tally.passed) },
        };
        self.queue.push_back(end);
    }

    /// What the replica counted of the prompt; more than there can be is cut to what there can be.
    fn input(&self, measured: Measured) -> Option<GenerationEvent> {
        let counts = self.tally.counts?;
        let measured = if counts.prompt > self.order.input_max { Measured::Bounded } else { measured };
        let input = counts.prompt.min(self.order.input_max);
        Some(GenerationEvent::Counted { input, cached_input: counts.cached.min(input), measured })
    }

    /// Output so far, at most what was ordered.
    fn output(&self) -> (TokenCount, Measured) {
        let output = count(self.tally.output());
        if output > self.order.cap { (self.order.cap, Measured::Bounded) } else { (output, Measured::Engine) }
    }

    fn fail(&mut self, error: Error) {
        self.stage = Stage::Over;
        self.queue.push_back(GenerationEvent::Failed(error));
    }

    /// Finds a replica that answers. Nothing was passed on yet, so the next one may be tried.
    async fn open(&mut self) {
        let mut miss = None;
        let mut tried = 0;
        let mut wait: Option<DurationMs> = None;
        let prompt = (Arc::clone(&self.order.blocks), self.order.input_estimate);
        let prompt = (prompt.0.as_ref(), prompt.1);
        for station in self.supply.stations(&self.order.model, prompt) {
            let reading = self.supply.unread(prompt, &station.replica.id);
            let Some(seat) = station.enter(reading, self.supply.clock.now()) else { continue };
            tried += 1;
            match self.attempt(&station, seat).await {
                Ok(()) => {
                    self.supply.answers(prompt.0, &station);
                    if !self.order.streamed {
                        station.succeeded();
                    }
                    // Set once: an exchange has one answer.
                    let _ = self.order.served_by.set(station.replica.id.clone());
                    return;
                }
                Err(Miss::Request(error)) => {
                    station.succeeded();
                    return self.fail(error);
                }
                Err(Miss::Busy(until)) => wait = Some(wait.map_or(until, |other| other.min(until))),
                Err(Miss::Unfit(error)) => miss = Some(error),
                Err(Miss::Late(error)) => {
                    self.supply.failed(&station, &format!("{error:?}"));
                    return self.fail(error);
                }
                Err(Miss::Broken(error)) => {
                    self.supply.failed(&station, &format!("{error:?}"));
                    miss = Some(error);
                }
            }
            if tried == REPLICAS_TRIED_MAX {
                break;
            }
        }
        let error = miss.unwrap_or_else(|| self.unavailable(wait));
        self.fail(error);
    }

    /// No replica took the request. `busy` is the shortest wait that one of them wants, if any was asked.
    fn unavailable(&self, busy: Option<DurationMs>) -> Error {
        let now = self.supply.clock.now();
        let stations = self.supply.stations(&self.order.model, (&[], TokenCount::ZERO));
        let rests: Vec<DurationMs> = stations.iter().filter_map(|station| station.rest(now)).collect();
        if busy.is_some() || rests.len() < stations.len() {
            return Error::new(ErrorCode::QueueFull, format!("all servers of the model '{}' are busy", self.order.model.name))
                .retry_after(busy.unwrap_or(UNAVAILABLE_WAIT).max(UNAVAILABLE_WAIT));
        }
        let wait = rests.into_iter().min().unwrap_or(UNAVAILABLE_WAIT).max(UNAVAILABLE_WAIT);
        Error::new(ErrorCode::ModelUnavailable, format!("no server of the model '{}' can be reached now", self.order.model.name))
            .retry_after(wait)
    }

    async fn attempt(&mut self, station: &Arc<Station>, seat: Seat) -> Result<(), Miss> {
        let config = self.supply.config;
        // What is not streamed comes when all of it was generated.
        let wait = if self.order.streamed { config.first_byte_wait } else { config.whole_answer_wait };
        let first_until = monotonic() + wait.to_std();
        let body = self.order.body.for_replica(&station.replica, self.order.output_max);
        let request = station.post(self.order.path, body).map_err(Miss::Broken)?;
        let late = || if self.order.streamed { Miss::Broken(silence(wait)) } else { Miss::Late(silence(wait)) };
        let answer = timeout_at(first_until, self.supply.client.send(request)).await.map_err(|_| late())?.map_err(broken)?;
        let (head, body) = answer.into_parts();
        if head.status != http::StatusCode::OK {
            let body = timeout_at(first_until, Limited::new(body, ERROR_BYTES_MAX).collect()).await;
            let body = body.ok().and_then(Result::ok).map(http_body_util::Collected::to_bytes).unwrap_or_default();
            let names = (station.replica.upstream_model.as_str(), self.order.model.name.as_str());
            return Err(match refusal(head.status.as_u16(), &body, names) {
                Refusal::Request(error) => Miss::Request(error),
                Refusal::Busy => Miss::Busy(retry_after(&head.headers).unwrap_or(UNAVAILABLE_WAIT)),
                Refusal::Unfit(why) => Miss::Unfit(failure(why)),
                Refusal::Broken(why) => broken(why),
            });
        }
        self.tally = Tally::default();
        if !self.order.streamed {
            let body = timeout_at(first_until, Limited::new(body, ANSWER_BYTES_MAX).collect()).await.map_err(|_| late())?;
            let body = body.map_err(|error| broken(format!("the answer ended early: {error}")))?.to_bytes();
            return self.whole(&body);
        }
        let until = monotonic() + config.answer_max.to_std();
        let reading = Reading { body, events: EventReader::default(), station: Arc::clone(station), bytes: 0, until, seat };
        self.first(reading, first_until).await
    }

    /// Takes a whole answer.
    fn whole(&mut self, body: &[u8]) -> Result<(), Miss> {
        let seen = Seen::read(body).map_err(|Unreadable(what)| broken(format!("it sent {what}")))?;
        if seen.error.is_some() {
            return Err(Miss::Unfit(failure("it sent an error with status 200")));
        }
        if seen.choices == 0 {
            return Err(broken("its answer holds no answer"));
        }
        let text = String::from_utf8(body.to_vec()).map_err(|_| broken("its answer is not UTF-8"))?;
        self.tally.add(&seen, false);
        if self.is_beyond_order() {
            return Err(broken("its answer is far longer than was ordered"));
        }
        self.begin();
        let (output, measured) = self.output();
        self.queue.extend(self.input(measured));
        self.queue.push_back(GenerationEvent::Delta { text, output, logprobs: Vec::new() });
        let reason = self.tally.reason.unwrap_or(FinishReason::Stop);
        self.queue.push_back(GenerationEvent::Finished { reason, output });
        self.stage = Stage::Over;
        Ok(())
    }

    fn begin(&mut self) {
        let input = self.order.input_estimate;
        self.queue.push_back(GenerationEvent::Started { input, cached_input: TokenCount::ZERO });
    }

    /// Reads a stream up to its first event.
    async fn first(&mut self, mut reading: Reading, until: Instant) -> Result<(), Miss> {
        loop {
            if let Some(data) = reading.events.next() {
                let is_end = data.starts_with(b"[DONE]");
                let seen = Seen::read(&data).map_err(|Unreadable(what)| broken(format!("its stream begins with {what}")));
                match seen {
                    Ok(Seen { error: Some(_), .. }) => return Err(Miss::Unfit(failure("its stream begins with an error"))),
                    Ok(seen) => {
                        reading.seat.begin_answer();
                        self.begin();
                        self.stage = Stage::Reading(Box::new(reading));
                        self.pass(&data, &seen);
                        return Ok(());
                    }
                    Err(_) if is_end => return Err(broken("its stream ends before it says anything")),
                    Err(miss) => return Err(miss),
                }
            }
            match timeout_at(until, reading.more()).await {
                Err(_) => return Err(Miss::Broken(silence(self.supply.config.first_byte_wait))),
                Ok(Err(error)) => return Err(Miss::Broken(error)),
                Ok(Ok(false)) => return Err(broken("its stream ends before it says anything")),
                Ok(Ok(true)) => {}
            }
        }
    }

    /// Reads on until there is something to pass on, or the end.
    async fn read(&mut self) {
        let Stage::Reading(reading) = &mut self.stage else { return };
        if let Some(data) = reading.events.next() {
            if data.starts_with(b"[DONE]") {
                return self.finish();
            }
            match Seen::read(&data) {
                Ok(Seen { error: Some(_), .. }) => self.lose(failure("an error in its stream")),
                Ok(seen) => self.pass(&data, &seen),
                Err(Unreadable(what)) => self.lose(failure(format!("its stream holds {what}"))),
            }
            return;
        }
        let idle = self.supply.config.idle_max;
        let until = reading.until.min(monotonic() + idle.to_std());
        match timeout_at(until, reading.more()).await {
            Ok(Ok(true)) => {}
            // Some servers end without saying so.
            Ok(Ok(false)) if self.has_ended() => self.finish(),
            Ok(Ok(false)) => self.lose(failure("its stream ends before its answer does")),
            Ok(Err(_)) if self.has_ended() && self.tally.counts.is_some() => self.finish(),
            Ok(Err(error)) => self.lose(error),
            Err(_) => self.lose(silence(idle)),
        }
    }

    /// The replica failed after something of its answer was passed on.
    fn lose(&mut self, error: Error) {
        if let Stage::Reading(reading) = &self.stage {
            self.supply.failed(&reading.station, &format!("{error:?}"));
        }
        self.fail(error);
    }

    fn pass(&mut self, data: &Bytes, seen: &Seen) {
        let had_counts = self.tally.counts;
        // Servers count each answer by itself until all have ended.
        self.tally.add(seen, self.order.answers > 1 && seen.choices > 0);
        if self.is_beyond_order() {
            self.tally.reason = Some(FinishReason::Length);
            return self.finish();
        }
        let (_, measured) = self.output();
        if self.tally.counts.map(|counts| (counts.prompt, counts.cached)) != had_counts.map(|counts| (counts.prompt, counts.cached))
        {
            self.queue.extend(self.input(measured));
        }
        self.release_end();
        // What was read as JSON is UTF-8.
        let text = String::from_utf8_lossy(data).into_owned();
        if seen.finishes > 0 && self.has_ended() {
            self.kept.push(text);
        } else {
            self.push(text, seen.text_bytes > 0);
        }
    }

    /// Passes on what was kept for the end.
    fn release_end(&mut self) {
        for text in std::mem::take(&mut self.kept) {
            self.push(text, true);
        }
    }

    /// An event that says nothing waits for no money.
    fn push(&mut self, text: String, speaks: bool) {
        let output = if speaks { self.output().0 } else { count(self.tally.passed).min(self.output().0) };
        self.queue.push_back(GenerationEvent::Delta { text, output, logprobs: Vec::new() });
    }

    fn has_ended(&self) -> bool {
        self.tally.finishes > 0 && self.tally.finishes >= self.order.answers
    }

    /// Far more came than was ordered: nothing of it would be paid. An estimate is given the benefit of the doubt.
    fn is_beyond_order(&self) -> bool {
        let cap = u64::try_from(self.order.cap.get()).unwrap_or(0);
        if self.order.answers == 0 {
            return false;
        }
        let too_long = self.tally.text_bytes > cap.saturating_mul(TOKEN_BYTES_MAX).saturating_add(SHORT_TEXT_BYTES);
        let counted = self.tally.counts.is_some() && self.tally.uncounted_bytes == 0;
        too_long || (self.order.streamed && counted && self.tally.output() > cap && self.tally.finishes == 0)
    }

    fn finish(&mut self) {
        if let Stage::Reading(reading) = &self.stage {
            reading.station.succeeded();
        }
        self.stage = Stage::Over;
        let (output, measured) = self.output();
        self.queue.extend(self.input(measured));
        self.release_end();
        let reason = self.tally.reason.unwrap_or(FinishReason::Stop);
        self.queue.push_back(GenerationEvent::Finished { reason, output });
    }
}

impl Reading {
    /// Reads more bytes; `false` is the end.
    async fn more(&mut self) -> Result<bool> {
        loop {
            let Some(frame) = self.body.frame().await else { return Ok(false) };
            let frame = frame.map_err(|error| failure(format!("its stream broke: {error}")))?;
            let Ok(data) = frame.into_data() else { continue };
            self.bytes = self.bytes.saturating_add(u64::try_from(data.len()).unwrap_or(u64::MAX));
            if self.bytes > STREAM_BYTES_MAX {
                return Err(failure(format!("its stream is longer than {STREAM_BYTES_MAX} bytes")));
            }
            self.events.push(&data).map_err(|LineTooLong| failure("an event of its stream is too long"))?;
            return Ok(true);
        }
    }
}

/// The output that must be paid for before this may be passed on.
fn output_of(event: &GenerationEvent) -> Option<u64> {
    match event {
        GenerationEvent::Delta { output, .. } | GenerationEvent::Finished { output, .. } => {
            Some(u64::try_from(output.get()).unwrap_or(0))
        }
        _ => None,
    }
}

fn count(tokens: u64) -> TokenCount {
    TokenCount::new(i64::try_from(tokens).unwrap_or(i64::MAX))
}
