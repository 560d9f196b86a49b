//! One answer of a request: what the engine reports of it, and how much of it is paid.

use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::StreamExt;
use sublet_core::engine::{Allowance, FinishReason, GenerationEvent, GenerationStream};
use sublet_core::{Error, Result, TokenCount};

use crate::dialect::STOP_BYTES_MAX;

/// One answer being generated.
pub(crate) struct Branch {
    events: GenerationStream,
    pub allowance: Arc<Allowance>,
    /// Tokens of its prompt, if this is the first answer to it; the others read the same prompt.
    pub prompt: TokenCount,
    /// Output tokens at most, by the request, the model and the context.
    pub cap: i64,
    pub paid: i64,
    pub reported: i64,
    pub delivered: i64,
    pub cached: i64,
    pub started: bool,
    pub quiet: bool,
    pub finish: Option<FinishReason>,
}

impl Branch {
    pub fn new(events: GenerationStream, allowance: Arc<Allowance>, sizes: BranchSizes) -> Self {
        Self {
            events,
            allowance,
            prompt: sizes.prompt,
            cap: sizes.cap.get(),
            paid: sizes.paid.get(),
            reported: 0,
            delivered: 0,
            cached: 0,
            started: false,
            quiet: false,
            finish: None,
        }
    }
    pub fn live(&self) -> bool {
        self.finish.is_none()
    }
    /// More is needed soon.
    pub fn needy(&self, step: i64) -> bool {
        self.live() && self.paid < self.cap && (self.quiet || self.paid - self.reported <= step / 2)
    }
    /// May be parked with text that it cannot deliver yet.
    pub fn may_be_stuck(&self, step: i64) -> bool {
        let ahead = self.paid - self.reported;
        let kept_back_max = i64::try_from(STOP_BYTES_MAX).unwrap_or(i64::MAX);
        self.live() && self.started && self.paid < self.cap && ahead < kept_back_max + step
    }
    /// An engine that reports more than it was allowed broke its contract; that output is not delivered.
    pub fn advance(&mut self, output: TokenCount) -> Result<()> {
        if output.get() > self.paid || output.get() < self.reported {
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
    pub prompt: TokenCount,
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
