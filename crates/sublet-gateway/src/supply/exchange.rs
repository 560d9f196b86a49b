//! One request to a replica, as a generation.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use sublet_core::engine::{Allowance, Cover, FinishReason, GenerationEvent, GenerationStream};
use sublet_core::id::ReplicaId;
use sublet_core::supply::{RemoteModel, ReplicaSource};
use sublet_core::tier::ServiceTier;
use sublet_core::usage::Measured;
use sublet_core::{DurationMs, Error, ErrorCode, Result, TokenCount};
use tokio::time::{Instant, timeout_at};

use super::Supply;
use super::events::{EventReader, LineTooLong};
use super::pump::detached;
use super::queue::{Place, Queue, Ticket};
use super::reply::{Refusal, Seen, Unreadable, refusal, retry_after};
use super::request::{OutputMax, UpstreamBody};
use super::station::{Entry, Station};
use super::tally::Tally;
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
    /// Who is served first, and who gives way.
    pub tier: ServiceTier,
}

/// Starts an exchange. Dropping the stream ends it, and closes the connection if it is still in use.
pub(crate) fn start(supply: Arc<Supply>, order: Order) -> GenerationStream {
    let (queue, kept) = (VecDeque::new(), Vec::new());
    let may_have_to_go = order.tier == ServiceTier::Flex;
    let exchange = Exchange { supply, order, stage: Stage::New, queue, kept, tally: Tally::default(), announced: 0 };
    if may_have_to_go {
        return detached(exchange);
    }
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
    place: Place,
}

/// What came of asking the replicas.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tried {
    /// One answers, or it has failed.
    Settled,
    /// All that could be asked are full.
    Full,
    /// The same, and this is the shortest wait that one of them wants.
    Busy(DurationMs),
}

/// Why an attempt came to nothing.
enum Miss {
    /// Another replica would say the same.
    Request(Error),
    /// This one has too much to do; when it wants to be asked again, if it says so.
    Busy(Option<DurationMs>),
    /// Somebody of a higher tier needed its place.
    GaveWay,
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

pub(super) struct Exchange {
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
    pub(super) async fn next(&mut self) -> Option<GenerationEvent> {
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

    /// Finds a replica that answers, and waits for one while all are full. Nothing was passed on yet, so the next
    /// one may be tried.
    async fn open(&mut self) {
        let (queue, tier, config) = (self.supply.queue(&self.order.model.name), self.order.tier, self.supply.config);
        let until = monotonic() + config.queue_wait.to_std();
        let mut ticket: Option<Ticket> = None;
        loop {
            let mut pause = config.busy_pause;
            if ticket.as_ref().map_or_else(|| !queue.is_taken(tier), Ticket::is_first) {
                match self.try_replicas(&queue).await {
                    Tried::Settled => return,
                    Tried::Full => {}
                    Tried::Busy(wait) if monotonic() + wait.to_std() > until => return self.fail(self.busy(wait)),
                    Tried::Busy(wait) => pause = pause.max(wait),
                }
            }
            let ticket = match &ticket {
                Some(ticket) => ticket,
                None => match queue.join(tier) {
                    Ok(joined) => ticket.insert(joined),
                    Err(error) => return self.fail(error),
                },
            };
            // A server may have become free without a word: it is asked now and then.
            let woken = timeout_at((monotonic() + pause.to_std()).min(until), ticket.turn()).await;
            if woken.is_err() && monotonic() >= until {
                return self.fail(queue.overdue(config.queue_wait, tier));
            }
        }
    }

    /// Asks the replicas one after the other.
    async fn try_replicas(&mut self, queue: &Arc<Queue>) -> Tried {
        let (mut miss, mut tried) = (None, 0);
        // Whether some are full, and the shortest wait that those who were asked want.
        let (mut full, mut wait) = (false, None::<DurationMs>);
        let prompt = (Arc::clone(&self.order.blocks), self.order.input_estimate);
        let prompt = (prompt.0.as_ref(), prompt.1);
        for station in self.supply.stations(&self.order.model, prompt) {
            let reading = self.supply.unread(prompt, &station.replica.id);
            let seat = match station.enter(reading, self.supply.clock.now()) {
                Entry::Open(seat) => seat,
                Entry::Full => {
                    full = true;
                    continue;
                }
                Entry::Closed => continue,
            };
            tried += 1;
            let may_go = self.order.tier == ServiceTier::Flex && station.replica.source == ReplicaSource::Fleet;
            let place = queue.place(seat, may_go.then(|| station.replica.id.clone()));
            let asked_to_go = place.asked_to_go();
            let attempt = tokio::select! {
                attempt = self.attempt(&station, place) => attempt,
                () = asked_to_go => Err(Miss::GaveWay),
            };
            match attempt {
                Ok(()) => {
                    self.supply.answers(prompt.0, &station);
                    if !self.order.streamed {
                        station.succeeded();
                    }
                    // Set once: an exchange has one answer.
                    let _ = self.order.served_by.set(station.replica.id.clone());
                    return Tried::Settled;
                }
                Err(Miss::Request(error)) => {
                    station.succeeded();
                    self.fail(error);
                    return Tried::Settled;
                }
                Err(Miss::GaveWay) => return Tried::Full,
                Err(Miss::Busy(named)) => {
                    station.refused();
                    full |= named.is_none();
                    wait = wait.into_iter().chain(named).min();
                }
                Err(Miss::Unfit(error)) => miss = Some(error),
                Err(Miss::Late(error)) => {
                    self.supply.failed(&station, &format!("{error:?}"));
                    self.fail(error);
                    return Tried::Settled;
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
        match (miss, wait) {
            (None, Some(wait)) if !full => return Tried::Busy(wait),
            (None, wait) if full || wait.is_some() => return Tried::Full,
            (None, _) => self.fail(self.unavailable()),
            (Some(error), _) => self.fail(error),
        }
        Tried::Settled
    }

    /// All who were asked want to be left alone for longer than anybody waits here.
    fn busy(&self, wait: DurationMs) -> Error {
        Error::new(ErrorCode::QueueFull, format!("all servers of the model '{}' are busy", self.order.model.name))
            .retry_after(wait.max(UNAVAILABLE_WAIT))
    }

    /// No replica could be asked.
    fn unavailable(&self) -> Error {
        let now = self.supply.clock.now();
        let stations = self.supply.stations(&self.order.model, (&[], TokenCount::ZERO));
        let rests = stations.iter().filter_map(|station| station.rest(now));
        let wait = rests.min().unwrap_or(UNAVAILABLE_WAIT).max(UNAVAILABLE_WAIT);
        Error::new(ErrorCode::ModelUnavailable, format!("no server of the model '{}' can be reached now", self.order.model.name))
            .retry_after(wait)
    }

    async fn attempt(&mut self, station: &Arc<Station>, place: Place) -> Result<(), Miss> {
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
                Refusal::Busy => Miss::Busy(retry_after(&head.headers)),
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
        let reading = Reading { body, events: EventReader::default(), station: Arc::clone(station), bytes: 0, until, place };
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
                        reading.place.begin_answer();
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

    /// Resolves when the place of an answer that has begun is needed.
    pub(super) fn asked_to_go(&self) -> impl Future<Output = ()> + use<> {
        let asked_to_go = match &self.stage {
            Stage::Reading(reading) => Some(reading.place.asked_to_go()),
            Stage::New | Stage::Over => None,
        };
        async move {
            match asked_to_go {
                Some(asked_to_go) => asked_to_go.await,
                None => std::future::pending().await,
            }
        }
    }

    pub(super) fn preempted(&self) -> Error {
        self.supply.queue(&self.order.model.name).preempted()
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
        if speaks {
            self.tally.queued = u64::try_from(self.output().0.get()).unwrap_or(0);
        }
        let output = count(self.tally.queued).min(self.output().0);
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
