//! One request to a replica, as a generation.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use sublet_core::admission::TokenUsage;
use sublet_core::engine::{Cover, FinishReason, GenerationEvent, GenerationStream};
use sublet_core::supplier::Purchase;
use sublet_core::tier::ServiceTier;
use sublet_core::usage::Measured;
use sublet_core::{DurationMs, Error, ErrorCode, Result, TokenCount};
use tokio::time::{Instant, timeout_at};

use super::Supply;
use super::kv::Tokens;
use super::order::{Beginning, Order};
use super::pump::detached;
use super::queue::{Place, Queue, Ticket};
use super::reading::{Reading, Silence};
use super::recount::Uncounted;
use super::reply::{Refusal, Seen, Unreadable, refusal, retry_after};
use super::search::{Found, Miss, Reach, Tried, broken, failure, silence};
use super::station::{Entry, Station};
use super::tally::Tally;
use crate::generation::monotonic;

/// Replicas that one request is tried on.
const REPLICAS_TRIED_MAX: usize = 3;
/// Largest answer that is not streamed.
const ANSWER_BYTES_MAX: usize = 64 * 1_024 * 1_024;
/// No text's tokens are so long on average, but for a short one.
const TOKEN_BYTES_MAX: u64 = 16;
const SHORT_TEXT_BYTES: u64 = 1_024;
/// As much of an error's body as is read.
const ERROR_BYTES_MAX: usize = 64 * 1_024;
/// What a caller is told to wait when no replica can be asked.
const UNAVAILABLE_WAIT: DurationMs = DurationMs::from_seconds(1);

/// Starts an exchange. Dropping the stream ends it, and closes the connection if it is still in use.
pub(crate) fn start(supply: Arc<Supply>, order: Order) -> GenerationStream {
    let (queue, kept) = (VecDeque::new(), Vec::new());
    let may_have_to_go = order.tier == ServiceTier::Flex;
    let exchange = Exchange { supply, order, stage: Stage::New, queue, kept, tally: Tally::default(), announced: 0, tokens: None };
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
    /// The prompt's, where somebody says what of them it has.
    tokens: Option<Arc<Tokens>>,
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
        let Some(counts) = self.tally.counts else {
            let input = self.tally.recount?.prompt?.min(self.order.input_max);
            return Some(GenerationEvent::Counted { input, cached_input: TokenCount::ZERO, measured: Measured::Estimated });
        };
        let measured = if counts.prompt > self.order.input_max { Measured::Bounded } else { measured };
        let input = counts.prompt.min(self.order.input_max);
        Some(GenerationEvent::Counted { input, cached_input: counts.cached.min(input), measured })
    }

    /// Output so far, at most what was ordered.
    fn output(&self) -> (TokenCount, Measured) {
        let output = count(self.tally.output());
        let measured = if self.tally.uncounted_bytes > 0 { Measured::Estimated } else { Measured::Engine };
        if output > self.order.cap { (self.order.cap, Measured::Bounded) } else { (output, measured) }
    }

    /// Owes a supplier what it did so far: by its own count, or estimated where it gave none. What cannot be is not owed.
    fn owe(&self, station: &Station) {
        let Some(bid) = self.order.bids.iter().find(|bid| bid.replica == station.replica.id) else { return };
        let (output, measured) = self.output();
        let (prompt, cached, measured) = match self.tally.counts {
            None => {
                let prompt = self.tally.recount.and_then(|recount| recount.prompt).unwrap_or(self.order.input_estimate);
                (prompt.min(self.order.input_max), TokenCount::ZERO, Measured::Estimated)
            }
            Some(counts) if counts.prompt > self.order.input_max => (self.order.input_max, counts.cached, Measured::Bounded),
            Some(counts) => (counts.prompt, counts.cached, measured),
        };
        let cached_input = cached.min(prompt);
        let tokens = TokenUsage { input: prompt.saturating_sub(cached_input), cached_input, output };
        self.order.served_by.owe(Purchase { replica: bid.replica.clone(), cost: bid.cost.clone(), tokens, measured });
    }

    /// Owes a supplier what it counted, if it did: nothing was passed on.
    fn owe_counted(&self, station: &Station) {
        if self.tally.counts.is_some() {
            self.owe(station);
        }
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
        self.tokens = self.supply.prompt_tokens(&self.order).await;
        let mut ticket: Option<Ticket> = None;
        loop {
            let mut pause = config.busy_pause;
            let has_turn = ticket.as_ref().map_or_else(|| !queue.is_taken(tier), Ticket::is_first);
            let reach = if has_turn { Reach::All } else { Reach::Bought };
            if has_turn || !self.order.bids.is_empty() {
                match self.try_replicas(&queue, reach).await {
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
                    Err(error) => return self.fail(self.hinted(error)),
                },
            };
            // A server may have become free without a word: it is asked now and then.
            let woken = timeout_at((monotonic() + pause.to_std()).min(until), ticket.turn()).await;
            if woken.is_err() && monotonic() >= until {
                return self.fail(self.hinted(queue.overdue(config.queue_wait, tier)));
            }
        }
    }

    /// Asks the replicas one after the other.
    async fn try_replicas(&mut self, queue: &Arc<Queue>, reach: Reach) -> Tried {
        let (mut found, mut tried) = (Found::new(reach), 0);
        let (blocks, tokens) = (Arc::clone(&self.order.blocks), self.tokens.clone());
        let known = tokens.as_ref().and_then(|tokens| i64::try_from(tokens.count()).ok()).map(TokenCount::new);
        let size = known.unwrap_or(self.order.input_estimate);
        let prompt = Beginning { blocks: &blocks, tokens: tokens.as_deref(), size };
        let mut stations = self.supply.stations(&self.order.model, prompt);
        stations.retain(|station| reach == Reach::All || station.is_bought());
        for station in stations {
            let reading = self.supply.unread(prompt, &station);
            let seat = match station.enter(reading, self.supply.clock.now()) {
                Entry::Open(seat) => seat,
                Entry::Full => {
                    found.full(&station);
                    continue;
                }
                Entry::Closed => continue,
            };
            tried += 1;
            let may_go = self.order.tier == ServiceTier::Flex && !station.is_bought();
            let place = queue.place(seat, may_go.then(|| station.replica.id.clone()));
            let asked_to_go = place.asked_to_go();
            let attempt = tokio::select! {
                attempt = self.attempt(&station, place) => attempt,
                () = asked_to_go => Err(Miss::GaveWay),
            };
            match attempt {
                Ok(()) => {
                    self.supply.answers(prompt.blocks, &station);
                    if !self.order.streamed {
                        station.succeeded();
                    }
                    self.order.served_by.answers(&station.replica.id);
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
                    found.busy(&station, named);
                }
                Err(Miss::Unfit(error)) => self.missed(&mut found, &station, error),
                Err(Miss::Late(error)) => {
                    self.supply.failed(&station, &format!("{error:?}"));
                    self.lost_sight(&station);
                    self.fail(error);
                    return Tried::Settled;
                }
                Err(Miss::Broken(error)) => {
                    self.supply.failed(&station, &format!("{error:?}"));
                    self.missed(&mut found, &station, error);
                }
            }
            if tried == REPLICAS_TRIED_MAX {
                break;
            }
        }
        self.conclude(found)
    }

    fn missed(&self, found: &mut Found, station: &Station, error: Error) {
        self.lost_sight(station);
        found.missed(station, error);
    }

    /// A supplier was asked in vain. Only what it counted is known to be owed.
    fn lost_sight(&self, station: &Station) {
        if !self.order.served_by.owes(&station.replica.id) {
            self.supply.unaccounted(station);
        }
    }

    /// What comes of having asked.
    fn conclude(&mut self, found: Found) -> Tried {
        match found.outcome() {
            Ok(tried) => return tried,
            Err(Some(error)) => self.fail(error),
            Err(None) => self.fail(self.unavailable()),
        }
        Tried::Settled
    }

    /// All who were asked want to be left alone for longer than anybody waits here.
    fn busy(&self, wait: DurationMs) -> Error {
        Error::new(ErrorCode::QueueFull, format!("all servers of the model '{}' are busy", self.order.model.name))
            .retry_after(wait.max(UNAVAILABLE_WAIT))
    }

    /// With what would open servers that may not be asked now.
    fn hinted(&self, error: Error) -> Error {
        self.order.hints.iter().fold(error, |error, hint| error.alternative(hint.as_str()))
    }

    /// No replica could be asked.
    fn unavailable(&self) -> Error {
        let now = self.supply.clock.now();
        let stations = self.supply.stations(&self.order.model, Beginning::NONE);
        let rests = stations.iter().filter_map(|station| station.rest(now));
        let wait = rests.min().unwrap_or(UNAVAILABLE_WAIT).max(UNAVAILABLE_WAIT);
        let message = format!("no server of the model '{}' can be reached now", self.order.model.name);
        self.hinted(Error::new(ErrorCode::ModelUnavailable, message).retry_after(wait))
    }

    async fn attempt(&mut self, station: &Arc<Station>, place: Place) -> Result<(), Miss> {
        let config = self.supply.config;
        // What is not streamed comes when all of it was generated.
        let wait = if self.order.streamed { config.first_byte_wait } else { config.whole_answer_wait };
        let first_until = monotonic() + wait.to_std();
        let body = self.order.body.for_replica(&station.replica, self.order.output_max);
        let request = station.post(self.order.kind.path(), body).map_err(Miss::Broken)?;
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
        let keeps_text = self.order.model.tokenizer.is_some();
        let said = vec![String::new(); if keeps_text { self.order.answers } else { 0 }];
        self.tally = Tally { said, ..Tally::default() };
        if !self.order.streamed {
            let body = timeout_at(first_until, Limited::new(body, ANSWER_BYTES_MAX).collect()).await.map_err(|_| late())?;
            let body = body.map_err(|error| broken(format!("the answer ended early: {error}")))?.to_bytes();
            // Counting may take a while, and the server is done.
            drop(place);
            return self.whole(&body, station).await;
        }
        let reading = Reading::new(body, (Arc::clone(station), place), &config);
        self.first(reading, first_until).await
    }

    /// Takes a whole answer.
    async fn whole(&mut self, body: &[u8], station: &Station) -> Result<(), Miss> {
        let seen = self.see(body).map_err(|Unreadable(what)| broken(format!("it sent {what}")))?;
        self.tally.add(&seen, false);
        self.owe_counted(station);
        if seen.error.is_some() {
            return Err(Miss::Unfit(failure("it sent an error with status 200")));
        }
        if seen.choices == 0 {
            return Err(broken("its answer holds no answer"));
        }
        let text = String::from_utf8(body.to_vec()).map_err(|_| broken("its answer is not UTF-8"))?;
        if self.is_beyond_order() {
            return Err(broken("its answer is far longer than was ordered"));
        }
        self.begin();
        // Whoever leaves now leaves the cost behind.
        self.owe(station);
        self.recount().await;
        self.owe(station);
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
                let seen = self.see(&data).map_err(|Unreadable(what)| broken(format!("its stream begins with {what}")));
                match seen {
                    Ok(Seen { error: Some(_), .. }) => return Err(Miss::Unfit(failure("its stream begins with an error"))),
                    Ok(seen) => {
                        reading.place.begin_answer();
                        self.begin();
                        self.stage = Stage::Reading(Box::new(reading));
                        self.pass(&data, &seen).await;
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
                return self.finish().await;
            }
            match self.see(&data) {
                Ok(Seen { error: Some(_), .. }) => self.lose(failure("an error in its stream")),
                Ok(seen) => self.pass(&data, &seen).await,
                Err(Unreadable(what)) => self.lose(failure(format!("its stream holds {what}"))),
            }
            return;
        }
        let idle = self.supply.config.idle_max;
        match reading.more_within(idle).await {
            Ok(Ok(true)) => {}
            // Some servers end without saying so.
            Ok(Ok(false)) if self.has_ended() => self.finish().await,
            Ok(Ok(false)) => self.lose(failure("its stream ends before its answer does")),
            Ok(Err(_)) if self.has_ended() && self.tally.counts.is_some() => self.finish().await,
            Ok(Err(error)) => self.lose(error),
            Err(Silence) => self.lose(silence(idle)),
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
            self.lost_sight(&reading.station);
        }
        self.fail(error);
    }

    async fn pass(&mut self, data: &Bytes, seen: &Seen) {
        let had_counts = self.tally.counts;
        // Servers count each answer by itself until all have ended.
        self.tally.add(seen, self.order.answers > 1 && seen.choices > 0);
        if let Stage::Reading(reading) = &self.stage {
            if self.tally.text_bytes > 0 { self.owe(&reading.station) } else { self.owe_counted(&reading.station) }
        }
        if self.is_beyond_order() {
            self.tally.reason = Some(FinishReason::Length);
            return self.finish().await;
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

    fn see(&self, data: &[u8]) -> Result<Seen, Unreadable> {
        Seen::read(data, !self.tally.said.is_empty())
    }

    /// Counts what the server did not, where the model has a tokenizer.
    async fn recount(&mut self) {
        if self.order.model.tokenizer.is_none() || !self.tally.lacks_counts() {
            return;
        }
        let (kind, said) = (self.order.kind, std::mem::take(&mut self.tally.said));
        let body = self.tally.counts.is_none().then(|| self.order.body.unaddressed());
        let uncounted = Uncounted { kind, body, said };
        self.tally.recount = self.supply.recount(&self.order.model, uncounted).await.ok();
    }

    async fn finish(&mut self) {
        // Its place first: counting may take a while, and the server is done.
        if let Stage::Reading(reading) = std::mem::replace(&mut self.stage, Stage::Over) {
            let station = Arc::clone(&reading.station);
            drop(reading);
            station.succeeded();
            self.owe(&station);
            self.recount().await;
            self.owe(&station);
        }
        let (output, measured) = self.output();
        self.queue.extend(self.input(measured));
        self.release_end();
        let reason = self.tally.reason.unwrap_or(FinishReason::Stop);
        self.queue.push_back(GenerationEvent::Finished { reason, output });
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
