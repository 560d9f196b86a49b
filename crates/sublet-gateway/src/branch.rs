//! One answer of a request: what the engine reports of it, and how much of it is paid.

use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::StreamExt;
use sublet_core::engine::{Allowance, FinishReason, GenerationEvent, GenerationStream};
use sublet_core::usage::Measured;
use sublet_core::{Error, Result, TokenCount};

use crate::dialect::STOP_BYTES_MAX;

/// One answer being generated.
pub(crate) struct Branch {
    events: GenerationStream,
    pub allowance: Arc<Allowance>,
    origin: Origin,
    /// What is charged for its prompt, if this is the first answer to it; the others read the same prompt.
    pub prompt: TokenCount,
    /// What is held for it until its tokens are known.
    pub prompt_max: TokenCount,
    /// Output tokens at most, by the request, the model and the context.
    pub cap: i64,
    pub paid: i64,
    /// Output that is there, but waits for money.
    wanted: i64,
    pub reported: i64,
    pub delivered: i64,
    pub cached: i64,
    pub started: bool,
    /// Who counted; `None` while nobody did.
    counted: Option<Measured>,
    pub quiet: bool,
    pub finish: Option<FinishReason>,
}

/// Who generates.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Origin {
    /// The engine of this process: it counts every token, and says when it waits.
    Engine,
    /// Another server: what it did is an estimate until it says.
    Replica,
}

impl Branch {
    pub fn new(events: GenerationStream, allowance: Arc<Allowance>, sizes: BranchSizes) -> Self {
        Self {
            events,
            allowance,
            origin: sizes.origin,
            prompt: sizes.prompt,
            prompt_max: sizes.prompt_max,
            cap: sizes.cap.get(),
            paid: sizes.paid.get(),
            wanted: 0,
            reported: 0,
            delivered: 0,
            cached: 0,
            started: false,
            counted: None,
            quiet: false,
            finish: None,
        }
    }
    pub fn live(&self) -> bool {
        self.finish.is_none()
    }
    /// More is needed soon.
    pub fn needy(&self, step: i64) -> bool {
        let waits = self.quiet || self.wanted > self.paid;
        self.live() && self.paid < self.cap && (waits || self.paid - self.reported <= step / 2)
    }
    /// How much more would be good.
    pub fn lacks(&self, step: i64) -> i64 {
        step.max(self.wanted - self.paid).min(self.cap - self.paid)
    }
    /// What the prompt costs is known for good. A replica may count again up to its end, and more than before.
    pub fn is_counted(&self) -> bool {
        match self.origin {
            Origin::Engine => self.started,
            Origin::Replica => self.finish.is_some(),
        }
    }
    /// Output that is there and waits for money.
    pub fn unpaid(&self) -> i64 {
        if self.live() { (self.wanted.min(self.cap) - self.paid).max(0) } else { 0 }
    }
    pub fn measured(&self) -> Measured {
        match self.origin {
            Origin::Engine => Measured::Engine,
            Origin::Replica => self.counted.unwrap_or(Measured::Estimated),
        }
    }
    /// The replica says what its work was. More than is held for is not believed.
    pub fn count(&mut self, input: TokenCount, cached_input: TokenCount, measured: Measured) {
        self.prompt = input.min(self.prompt_max);
        self.cached = cached_input.get().clamp(0, self.prompt.get());
        self.counted = Some(measured);
    }
    pub fn wait_for(&mut self, output: TokenCount) {
        self.wanted = output.get();
    }
    /// May be parked with text that it cannot deliver yet.
    pub fn may_be_stuck(&self, step: i64) -> bool {
        let ahead = self.paid - self.reported;
        let kept_back_max = i64::try_from(STOP_BYTES_MAX).unwrap_or(i64::MAX);
        self.origin == Origin::Engine && self.live() && self.started && self.paid < self.cap && ahead < kept_back_max + step
    }
    /// Takes a count of output. One that replaces an estimate may be lower than it. An engine that reports more than it was allowed broke its contract; that output is not delivered.
    pub fn advance(&mut self, output: TokenCount) -> Result<()> {
        let shrinks = self.origin == Origin::Engine && output.get() < self.reported;
        if output.get() > self.paid || shrinks {
            let (reported, paid) = (self.reported, self.paid);
            return Err(Error::internal(format!("the engine reported {output} tokens after {reported}, with {paid} paid")));
        }
        self.reported = output.get();
        Ok(())
    }
}

/// Token counts of a new [`Branch`].
#[derive(Clone, Copy)]
pub(crate) struct BranchSizes {
    pub origin: Origin,
    pub prompt: TokenCount,
    pub prompt_max: TokenCount,
    pub cap: TokenCount,
    pub paid: TokenCount,
}

/// The next event of any live branch; the one after the last to speak is asked first, so that none starves.
pub(crate) fn poll_branches(
    branches: &mut [Branch],
    turn: &mut usize,
    context: &mut Context<'_>,
) -> Poll<(usize, Option<GenerationEvent>)> {
    let count = branches.len();
    for offset in 0..count {
        let choice = (*turn + offset) % count;
        let branch = &mut branches[choice];
        if branch.live()
            && let Poll::Ready(event) = branch.events.poll_next_unpin(context)
        {
            *turn = (choice + 1) % count;
            return Poll::Ready((choice, event));
        }
    }
    Poll::Pending
}
