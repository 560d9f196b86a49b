//! One generation as the scheduler sees it, and the stream its caller reads.
//!
//! Invariants: at most [`EVENTS_BUFFERED_MAX`] events wait in the channel and a handful in the
//! outbox, however slow the reader; every stream ends with one terminal event, also when the
//! engine's thread is gone.

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use futures_core::Stream;
use sublet_core::engine::{Allowance, FinishReason, GenerationEvent, Sampling};
use sublet_core::tier::ServiceTier;
use sublet_core::{Error, Timestamp, TokenCount};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::constraint::{self, Rule, TokenSet};
use crate::detokenize::{Piece, Pushed, TextAssembler};
use crate::inbox::Inbox;
use crate::kv::KvCache;
use crate::pooling::Vectors;
use crate::prefix::{self, BlockHash};
use crate::sample::{Choice, Sampler};

/// Events that wait for a reader before its sequence is parked.
pub const EVENTS_BUFFERED_MAX: usize = 32;

/// Who is served before whom: by tier, then by arrival.
pub type Rank = (Reverse<ServiceTier>, u64);

/// A generation.
pub struct Sequence {
    pub rank: Rank,
    /// Since when it waits to be computed.
    pub waits_since: Timestamp,
    /// Prompt, then output.
    pub tokens: Vec<u32>,
    pub prompt_length: usize,
    /// Output tokens at most: the request's maximum or what is left of the context.
    pub output_max: usize,
    pub cache: KvCache,
    pub sampler: Sampler,
    pub assembler: TextAssembler,
    pub allowance: Arc<Allowance>,
    pub outlet: Outlet,
    pub finished: bool,
    started: bool,
    /// What the output has to keep.
    rule: Option<Rule>,
    /// Keeps tenants apart where beginnings are shared.
    salt: Arc<str>,
    /// Positions of the prompt that were not computed.
    reused: usize,
    /// It makes vectors, and no output.
    pub vectors: Option<Vectors>,
}

/// What a caller gave for a sequence.
pub struct SequenceParts {
    pub tokens: Vec<u32>,
    pub output_max: usize,
    pub sampler: Sampler,
    pub assembler: TextAssembler,
    pub allowance: Arc<Allowance>,
    pub rule: Option<Rule>,
    pub salt: Arc<str>,
    pub tier: ServiceTier,
    pub vectors: Option<Vectors>,
}

impl SequenceParts {
    /// A request for vectors, whose first input has these tokens. It draws nothing and keeps nothing for others.
    pub fn embedding((vectors, tokens): (Vectors, Vec<u32>), tier: ServiceTier) -> Self {
        Self {
            tokens,
            output_max: 0,
            sampler: Sampler::new(&Sampling::default(), 0),
            assembler: TextAssembler::new(&[]),
            allowance: Arc::new(Allowance::new(TokenCount::ZERO)),
            rule: None,
            salt: Arc::default(),
            tier,
            vectors: Some(vectors),
        }
    }
}

/// What a sequence can do next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Readiness {
    /// It may produce a token.
    Ready,
    /// It waits for its allowance or its reader.
    Waits,
    /// All its events are delivered, or nobody reads them.
    Over,
}

impl Sequence {
    pub fn new((number, now): (u64, Timestamp), parts: SequenceParts, outlet: Outlet) -> Self {
        Self {
            rank: (Reverse(parts.tier), number),
            waits_since: now,
            prompt_length: parts.tokens.len(),
            tokens: parts.tokens,
            output_max: parts.output_max,
            cache: KvCache::default(),
            sampler: parts.sampler,
            assembler: parts.assembler,
            allowance: parts.allowance,
            outlet,
            finished: false,
            started: false,
            rule: parts.rule,
            salt: parts.salt,
            reused: 0,
            vectors: parts.vectors,
        }
    }

    pub fn tier(&self) -> ServiceTier {
        self.rank.0.0
    }

    /// The hashes of the whole blocks so far.
    pub fn block_hashes(&self) -> Vec<BlockHash> {
        prefix::hashes(&self.salt, &self.tokens)
    }

    pub fn is_started(&self) -> bool {
        self.started
    }

    /// What the cache holds now was not computed for this sequence. Beginning again later is no merit.
    pub fn note_reused(&mut self) {
        if !self.started {
            self.reused = self.cache.length;
        }
    }

    /// Output tokens so far, delivered or not.
    pub fn produced(&self) -> usize {
        self.tokens.len() - self.prompt_length
    }

    /// Tokens that have to be computed before the next one can be chosen.
    pub fn uncomputed(&self) -> usize {
        self.tokens.len() - self.cache.length
    }

    /// Sends what can be sent, ends what has to end, and says what is next.
    pub fn readiness(&mut self) -> Readiness {
        if !self.finished && self.vectors.is_none() {
            if self.produced() >= self.output_max {
                self.finish(FinishReason::Length);
            } else if self.produced() as u64 >= self.allowance.tokens() {
                // Closed is read before the total, so that a raise before the close is seen.
                if self.allowance.is_closed() && self.produced() as u64 >= self.allowance.tokens() {
                    self.finish(FinishReason::Allowance);
                } else if self.produced() as u64 >= self.allowance.tokens() {
                    let gone = self.outlet.flush() == Flushed::ReaderGone;
                    self.allowance.set_parked(!gone);
                    return if gone { Readiness::Over } else { Readiness::Waits };
                }
            }
        }
        self.allowance.set_parked(false);
        match self.outlet.flush() {
            Flushed::ReaderGone => Readiness::Over,
            Flushed::Full => Readiness::Waits,
            Flushed::Empty if self.finished => Readiness::Over,
            Flushed::Empty => Readiness::Ready,
        }
    }

    /// The prompt is computed.
    pub fn report_started(&mut self) {
        if !self.started {
            self.started = true;
            self.outlet.push(GenerationEvent::Started { input: count(self.prompt_length), cached_input: count(self.reused) });
        }
    }

    /// The whole input is computed: delivers its vector and goes on to the next input, which begins without a cache.
    pub fn deliver_vector(&mut self) {
        let Some(vectors) = &mut self.vectors else { return };
        if !std::mem::replace(&mut self.started, true) {
            self.outlet.push(GenerationEvent::Started { input: vectors.total(), cached_input: TokenCount::ZERO });
        }
        let Some((input, values)) = vectors.take() else {
            self.finished = true;
            self.outlet.push(GenerationEvent::Failed(Error::internal("the model made a state that is no number")));
            return;
        };
        self.outlet.push(GenerationEvent::Vector { input, values });
        match vectors.advance() {
            Some(tokens) => {
                self.prompt_length = tokens.len();
                self.tokens = tokens;
            }
            None => {
                self.finished = true;
                self.outlet.push(GenerationEvent::Finished { reason: FinishReason::Stop, output: TokenCount::ZERO });
            }
        }
    }

    /// The tokens that may come next: `Some(None)` allows all, `None` ended the sequence.
    pub fn allowed(&mut self) -> Option<Option<TokenSet>> {
        let Some(rule) = &mut self.rule else { return Some(None) };
        if rule.is_complete() {
            self.finish(FinishReason::Stop);
            return None;
        }
        match rule.allowed() {
            Ok(allowed) => Some(Some(allowed)),
            Err(problem) => {
                self.fail(&problem);
                None
            }
        }
    }

    /// Takes the next token; `bytes` is its text.
    pub fn accept(&mut self, choice: Choice, bytes: &[u8]) {
        self.tokens.push(choice.token);
        let followed = self.rule.as_mut().map_or(Ok(()), |rule| rule.accept(choice.token));
        match self.assembler.push(bytes, choice.logprobs) {
            Pushed::Open(piece) => {
                self.report(piece);
                if let Err(problem) = followed {
                    self.fail(&problem);
                } else if self.rule.as_ref().is_some_and(Rule::is_complete) {
                    // Complete output has nothing to wait for, also when it just fits.
                    self.finish(FinishReason::Stop);
                } else if self.produced() >= self.output_max {
                    self.finish(FinishReason::Length);
                }
            }
            Pushed::Stopped(place, piece) => {
                self.report(piece);
                self.end(FinishReason::StopString(place));
            }
        }
    }

    /// Delivers what is held back and ends.
    pub fn finish(&mut self, reason: FinishReason) {
        let piece = self.assembler.finish();
        self.report(piece);
        self.end(reason);
    }

    fn report(&mut self, piece: Option<Piece>) {
        if let Some(Piece { text, logprobs }) = piece {
            let output = count_u64(self.assembler.delivered());
            self.outlet.push(GenerationEvent::Delta { text, output, logprobs });
        }
    }

    /// The rule cannot be followed any further.
    fn fail(&mut self, problem: &str) {
        self.end_badly(constraint::broken(problem));
    }

    /// Ends without the rest of its output.
    pub fn end_badly(&mut self, error: Error) {
        self.finished = true;
        self.outlet.push(GenerationEvent::Failed(error));
    }

    fn end(&mut self, reason: FinishReason) {
        self.finished = true;
        self.outlet.push(GenerationEvent::Finished { reason, output: count_u64(self.assembler.delivered()) });
    }
}

fn count(tokens: usize) -> TokenCount {
    count_u64(tokens as u64)
}

fn count_u64(tokens: u64) -> TokenCount {
    TokenCount::new(i64::try_from(tokens).unwrap_or(i64::MAX))
}

/// The sending side of one stream.
pub struct Outlet {
    outbox: VecDeque<GenerationEvent>,
    sender: mpsc::Sender<GenerationEvent>,
    /// Set while the engine waits for the reader to make room.
    stalled: Arc<AtomicBool>,
}

/// What became of the outbox.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flushed {
    Empty,
    Full,
    ReaderGone,
}

impl Outlet {
    pub fn push(&mut self, event: GenerationEvent) {
        self.outbox.push_back(event);
    }

    pub fn flush(&mut self) -> Flushed {
        if self.sender.is_closed() {
            return Flushed::ReaderGone;
        }
        while let Some(event) = self.outbox.pop_front() {
            if let Err(event) = self.send(event) {
                self.outbox.push_front(event);
                return Flushed::Full;
            }
        }
        Flushed::Empty
    }

    /// A reader that makes room between the two tries would not have seen the flag; one that
    /// makes room after the second does.
    fn send(&self, event: GenerationEvent) -> Result<(), GenerationEvent> {
        let Err(TrySendError::Full(event)) = self.sender.try_send(event) else { return Ok(()) };
        self.stalled.store(true, Ordering::SeqCst);
        match self.sender.try_send(event) {
            Err(TrySendError::Full(event)) => Err(event),
            Ok(()) | Err(TrySendError::Closed(_)) => {
                self.stalled.store(false, Ordering::SeqCst);
                Ok(())
            }
        }
    }
}

/// Both ends of a stream.
pub fn channel(inbox: Arc<Inbox>) -> (Outlet, EventStream) {
    let (sender, receiver) = mpsc::channel(EVENTS_BUFFERED_MAX);
    let stalled = Arc::new(AtomicBool::new(false));
    let outlet = Outlet { outbox: VecDeque::new(), sender, stalled: Arc::clone(&stalled) };
    (outlet, EventStream { receiver, stalled, inbox, ended: false })
}

/// The events of one generation; dropping it cancels the generation.
pub struct EventStream {
    receiver: mpsc::Receiver<GenerationEvent>,
    stalled: Arc<AtomicBool>,
    inbox: Arc<Inbox>,
    ended: bool,
}

impl Stream for EventStream {
    type Item = GenerationEvent;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<GenerationEvent>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let event = match self.receiver.poll_recv(context) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(event) => event,
        };
        if self.stalled.swap(false, Ordering::SeqCst) {
            self.inbox.wake();
        }
        let event = event.unwrap_or_else(|| GenerationEvent::Failed(self.inbox.end_error()));
        self.ended = matches!(event, GenerationEvent::Finished { .. } | GenerationEvent::Failed(_));
        Poll::Ready(Some(event))
    }
}

impl Drop for EventStream {
    fn drop(&mut self) {
        self.receiver.close();
        if !self.ended {
            self.inbox.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sublet_core::ErrorCode;

    fn next(stream: &mut EventStream) -> Option<GenerationEvent> {
        match Pin::new(stream).poll_next(&mut Context::from_waker(std::task::Waker::noop())) {
            Poll::Ready(event) => event,
            Poll::Pending => panic!("an event or the end was due"),
        }
    }

    #[test]
    fn a_stream_whose_engine_is_gone_fails_once_and_ends() {
        let (mut outlet, mut stream) = channel(Arc::new(Inbox::default()));
        outlet.push(GenerationEvent::Started { input: TokenCount::new(1), cached_input: TokenCount::ZERO });
        assert_eq!(outlet.flush(), Flushed::Empty);
        drop(outlet);
        assert!(matches!(next(&mut stream), Some(GenerationEvent::Started { .. })));
        let failure = next(&mut stream);
        assert!(matches!(failure, Some(GenerationEvent::Failed(error)) if error.code() == ErrorCode::Internal));
        assert_eq!(next(&mut stream), None);
    }

    #[test]
    fn a_full_channel_keeps_events_in_order_until_there_is_room() {
        let (mut outlet, mut stream) = channel(Arc::new(Inbox::default()));
        let event = |number| GenerationEvent::Delta { text: "x".to_owned(), output: count(number), logprobs: Vec::new() };
        for number in 0..EVENTS_BUFFERED_MAX + 2 {
            outlet.push(event(number));
        }
        assert_eq!(outlet.flush(), Flushed::Full);
        for number in 0..EVENTS_BUFFERED_MAX + 2 {
            assert_eq!(next(&mut stream), Some(event(number)));
            assert_ne!(outlet.flush(), Flushed::ReaderGone);
        }
        drop(stream);
        assert_eq!(outlet.flush(), Flushed::ReaderGone);
    }
}
