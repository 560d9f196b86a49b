//! One request while it generates: the engine's events, the money that runs ahead of them, and the
//! record at the end.
//!
//! Invariants: the engine is never allowed a token that is not paid for; the request ends in exactly one
//! of two ways, a record with a capture or a release of everything, also when it is dropped at any point.
//!
//! *Delivered* is what left for the client: on a stream, the text of each [`Step::Delta`], which the body
//! hands to the connection without another wait; otherwise nothing until the whole answer.
//!
//! Deliberately absent: how answers look on the wire.

use std::pin::Pin;
use std::sync::Arc;

use sublet_core::admission::{Access, TokenPrices, TokenUsage};
use sublet_core::engine::{FinishReason, GenerationEvent};
use sublet_core::error::{Error, ErrorCode, Result};
use sublet_core::id::{RequestId, SliceId};
use sublet_core::usage::{AnsweredLine, Measured, Outcome, UsageRecord};
use sublet_core::{DurationMs, Nanos, Timestamp, TokenCount};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, Sleep};

use crate::branch::{Branch, poll_branches};
use crate::ended::Ended;
use crate::gateway::{Entered, Gateway, Phase};
use crate::idempotency::Claim;
use crate::journal::writer::{Submission, Written};
use crate::limits::Pass;
use crate::measured::Sample;
use crate::pricing::{counted_hold, output_covered, output_hold, prompt_hold, provisional_cost};
use crate::purse::{Ask, Extended, Money, Waiting};
pub(crate) use crate::step::{Delta, Step};
use crate::supply::purchase::Supplied;

/// A generation that says nothing for so many quiet intervals is given another step even if the engine
/// does not say that it is parked.
const QUIET_INTERVALS_MAX: u32 = 20;

/// What is known of a request before it generates.
pub(crate) struct Facts {
    pub request: RequestId,
    pub route: &'static str,
    pub access: Arc<Access>,
    pub model: String,
    pub prices: Arc<TokenPrices>,
    pub admitted_at: Timestamp,
    pub client_retry: u32,
    pub streamed: bool,
    /// Which try of the request this is.
    pub attempt: u32,
    /// The line of a batch that it answers; its answer goes in before the end.
    pub line: Option<AnsweredLine>,
    pub bills: Bills,
    /// Who answered, if it was a server elsewhere.
    pub served_by: Option<Arc<Supplied>>,
}

/// What a request is charged for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Bills {
    /// An answer: its prompt and its output. Without output nothing is charged.
    Answer,
    /// The input alone, once all of the answer is there.
    Input,
}

/// What ends with the request.
pub(crate) struct Guards {
    /// Act when they are dropped.
    _entered: Entered,
    pass: Pass,
    claim: Option<Claim>,
}

impl Guards {
    pub fn new(entered: Entered, pass: Pass, claim: Option<Claim>) -> Self {
        Self { _entered: entered, pass, claim }
    }
}

pub(crate) struct Generation {
    gateway: Arc<Gateway>,
    pub facts: Facts,
    guards: Guards,
    /// Taken when the request ends.
    money: Option<Money>,
    slice: SliceId,
    branches: Vec<Branch>,
    /// The branch that is asked first, so that none starves.
    turn: usize,
    pending: Option<Waiting>,
    pending_since: Instant,
    pending_until: Instant,
    /// Why there will be no more money.
    refused: Option<Error>,
    phase: watch::Receiver<Phase>,
    first_token_at: Option<Timestamp>,
    started: bool,
    timer: Pin<Box<Sleep>>,
    last_event: Instant,
    last_look: Instant,
    last_sent: Instant,
}

impl Generation {
    pub fn new(gateway: Arc<Gateway>, facts: Facts, guards: Guards, paid: (Money, SliceId), branches: Vec<Branch>) -> Self {
        let now = monotonic();
        Self {
            phase: gateway.watch_phase(),
            timer: Box::pin(tokio::time::sleep_until(now + gateway.config.heartbeat_after.to_std())),
            gateway,
            facts,
            guards,
            money: Some(paid.0),
            slice: paid.1,
            branches,
            turn: 0,
            pending: None,
            pending_since: now,
            pending_until: now,
            refused: None,
            first_token_at: None,
            started: false,
            last_event: now,
            last_look: now,
            last_sent: now,
        }
    }

    pub fn choices(&self) -> usize {
        self.branches.len()
    }

    /// Waits for the engine to begin, so that an early failure can have a status of its own.
    pub async fn begin(&mut self) -> Result<()> {
        let wait = self.gateway.config.first_event_wait.to_std();
        match tokio::time::timeout(wait, self.next()).await {
            Ok(Step::Failed(error)) => Err(error),
            // Delta and Done cannot come first: the engine's contract begins with Started.
            Ok(Step::Started | Step::Silence | Step::Delta(_) | Step::Vector { .. } | Step::Done) | Err(_) => Ok(()),
        }
    }

    /// The next step. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Step {
        loop {
            self.pay_ahead();
            if !self.branches.iter().any(Branch::live) {
                return Step::Done;
            }
            if *self.phase.borrow() == Phase::Stopping {
                return stopped();
            }
            self.arm_timer();
            let Self { phase, pending, branches, timer, turn, .. } = self;
            tokio::select! {
                biased;
                answer = answer_of(pending) => self.on_money(answer),
                (choice, event) = std::future::poll_fn(|context| poll_branches(branches, turn, context)) => {
                    if let Some(step) = self.on_event(choice, event) {
                        return step;
                    }
                }
                () = timer => if let Some(step) = self.on_timer() {
                    return step;
                },
                // Last: whoever listens is entered in a list, which what is there already need not pay for.
                () = stopping(phase) => return stopped(),
            }
        }
    }

    fn step_tokens(&self) -> i64 {
        let tight = self.money.as_ref().is_some_and(|money| money.purse().is_tight());
        let config = &self.gateway.config;
        if tight { config.tight_output_step.get() } else { config.output_step.get() }.max(1)
    }

    /// What the request costs at most before its output, as far as is known now.
    fn prompt_cost(&self) -> Result<Nanos> {
        if self.branches.iter().all(Branch::is_counted) {
            return counted_hold(&self.facts.prices, &self.usage(TokenCount::ZERO));
        }
        let held_for: i64 = self.branches.iter().map(|branch| branch.prompt_max.get()).sum();
        prompt_hold(&self.facts.prices, TokenCount::new(held_for))
    }

    /// Keeps every branch's allowance ahead of what it has produced.
    fn pay_ahead(&mut self) {
        if self.refused.is_some() || self.pending.is_some() {
            return;
        }
        let step = self.step_tokens();
        if !self.branches.iter().any(|branch| branch.needy(step)) {
            return;
        }
        if let Err(error) = self.try_pay_ahead(step) {
            self.refuse(error);
        }
    }

    fn try_pay_ahead(&mut self, step: i64) -> Result<()> {
        self.spend_covered(step)?;
        let needed: i64 = self.branches.iter().filter(|branch| branch.needy(step)).map(|branch| branch.lacks(step)).sum();
        let held = self.held();
        if needed == 0 {
            return Ok(());
        }
        let paid = self.paid();
        let base = self.prompt_cost()?;
        let total = |output: i64| base.checked_add(output_hold(&self.facts.prices, TokenCount::new(output))?)?.checked_sub(held);
        // Less than what waits would let nothing of it through.
        let urgent = self.branches.iter().map(Branch::unpaid).fold(0_i64, i64::saturating_add).max(1);
        let ask = Ask { least: total(paid + urgent)?.max(Nanos::ZERO), wanted: total(paid + needed.max(urgent))?.max(Nanos::ZERO) };
        let Some(money) = &mut self.money else { return Ok(()) };
        match money.extend(ask) {
            Extended::Now => self.spend_covered(step),
            Extended::Wait(answer) => {
                self.pending = Some(answer);
                self.pending_since = monotonic();
                self.pending_until = self.pending_since + self.gateway.config.money_wait_max.to_std();
                Ok(())
            }
        }
    }

    fn held(&self) -> Nanos {
        self.money.as_ref().map_or(Nanos::ZERO, Money::amount)
    }

    fn paid(&self) -> i64 {
        self.branches.iter().map(|branch| branch.paid).sum()
    }

    /// Hands out the tokens that the hold covers beyond those handed out before.
    fn spend_covered(&mut self, step: i64) -> Result<()> {
        let for_output = self.held().checked_sub(self.prompt_cost()?)?;
        let mut spare = output_covered(&self.facts.prices, for_output).get().saturating_sub(self.paid());
        let mut raised = false;
        for branch in &mut self.branches {
            if !branch.needy(step) || spare <= 0 {
                continue;
            }
            let more = branch.lacks(step).min(spare);
            branch.paid += more;
            branch.quiet = false;
            spare -= more;
            branch.allowance.raise_to(TokenCount::new(branch.paid));
            raised = true;
        }
        if raised {
            self.gateway.engine.wake();
        }
        Ok(())
    }

    fn on_money(&mut self, answer: Result<Money>) {
        self.pending = None;
        match (answer, &mut self.money) {
            (Ok(addition), Some(money)) => {
                money.absorb(addition);
                let step = self.step_tokens();
                if let Err(error) = self.spend_covered(step) {
                    self.refuse(error);
                }
            }
            (Ok(_), None) => {}
            (Err(error), _) => self.refuse(error),
        }
    }

    /// No more money: the engine stops at the last paid token.
    fn refuse(&mut self, error: Error) {
        self.refused = Some(error);
        for branch in &self.branches {
            branch.allowance.close();
        }
        self.gateway.engine.wake();
    }

    fn on_event(&mut self, choice: usize, event: Option<GenerationEvent>) -> Option<Step> {
        self.last_event = monotonic();
        let streamed = self.facts.streamed;
        let branch = &mut self.branches[choice];
        branch.quiet = false;
        let speaks = matches!(
            event,
            Some(GenerationEvent::Delta { .. } | GenerationEvent::Vector { .. } | GenerationEvent::Finished { .. })
        );
        if speaks && !branch.started {
            return Some(Step::Failed(Error::internal("a generation spoke before it started")));
        }
        match event {
            Some(GenerationEvent::Started { cached_input, .. }) => {
                branch.started = true;
                branch.cached = cached_input.get().clamp(0, branch.prompt.get());
                (!std::mem::replace(&mut self.started, true)).then_some(Step::Started)
            }
            Some(GenerationEvent::Delta { text, output, logprobs }) => {
                if let Err(error) = branch.advance(output) {
                    return Some(Step::Failed(error));
                }
                if streamed {
                    branch.delivered = branch.reported;
                }
                self.note_first_token();
                self.last_sent = self.last_event;
                (!text.is_empty() || !logprobs.is_empty()).then_some(Step::Delta(Delta { choice, text, logprobs }))
            }
            // Those of one stream come in the order of its inputs.
            Some(GenerationEvent::Vector { values, .. }) => Some(Step::Vector { choice, values }),
            Some(GenerationEvent::Counted { input, cached_input, measured }) => {
                branch.count(input, cached_input, measured);
                None
            }
            Some(GenerationEvent::Waiting { output }) => {
                branch.wait_for(output);
                None
            }
            Some(GenerationEvent::Finished { reason, output }) => {
                if let Err(error) = branch.advance(output) {
                    return Some(Step::Failed(error));
                }
                branch.finish = Some(reason);
                self.failed_grant(reason).map(Step::Failed)
            }
            Some(GenerationEvent::Failed(error)) => Some(Step::Failed(error)),
            None => Some(Step::Failed(Error::internal("a generation ended without an end"))),
        }
    }

    /// Output that ended because the cloud could not be asked is our failure, not an empty purse.
    fn failed_grant(&self, reason: FinishReason) -> Option<Error> {
        let error = self.refused.as_ref()?;
        (reason == FinishReason::Allowance && error.code() != ErrorCode::InsufficientQuota).then(|| error.clone())
    }

    fn note_first_token(&mut self) {
        if self.first_token_at.is_none() {
            let now = self.gateway.clock.now();
            self.first_token_at = Some(now);
            self.gateway.metrics.first_token(now.since(self.facts.admitted_at));
        }
    }

    /// The timer is set to the earliest of what may be waited for. Later deadlines are found when it fires.
    fn arm_timer(&mut self) {
        let mut due = self.last_sent + self.gateway.config.heartbeat_after.to_std();
        if self.pending.is_some() {
            due = due.min(self.pending_until);
        }
        let step = self.step_tokens();
        if self.refused.is_none() && self.pending.is_none() && self.branches.iter().any(|branch| branch.may_be_stuck(step)) {
            due = due.min(self.last_event.max(self.last_look) + self.gateway.config.quiet_extension.to_std());
        }
        if due < self.timer.deadline() || self.timer.is_elapsed() {
            self.timer.as_mut().reset(due);
        }
    }

    fn on_timer(&mut self) -> Option<Step> {
        let now = monotonic();
        let config = &self.gateway.config;
        if now >= self.pending_until
            && let Some(waiting) = &self.pending
        {
            let is_starved = waiting.is_starved();
            self.on_long_wait(is_starved, now);
            return None;
        }
        self.last_look = now;
        let silent = now.saturating_duration_since(self.last_event);
        let quiet = config.quiet_extension.to_std();
        if silent >= quiet && self.pending.is_none() && self.refused.is_none() {
            let step = self.step_tokens();
            for branch in self.branches.iter_mut().filter(|branch| branch.may_be_stuck(step)) {
                branch.quiet |= branch.allowance.is_parked() || silent >= quiet * QUIET_INTERVALS_MAX;
            }
            if silent >= quiet * QUIET_INTERVALS_MAX {
                self.last_event = now;
            }
        }
        if now >= self.last_sent + self.gateway.config.heartbeat_after.to_std() {
            self.last_sent = now;
            return Some(Step::Silence);
        }
        None
    }

    /// Nobody released money in time, or the cloud has still not said whether there is any. The first is an empty purse,
    /// the second is not.
    fn on_long_wait(&mut self, is_starved: bool, now: Instant) {
        let config = &self.gateway.config;
        let error = if is_starved {
            Error::new(ErrorCode::InsufficientQuota, "no money was released in time")
        } else if now < self.pending_since + config.grant_wait_max.to_std() {
            self.pending_until = now + config.money_wait_max.to_std();
            return;
        } else {
            Error::new(ErrorCode::StoreUnavailable, "it was not said in time whether there is money to go on with")
                .retry_after(DurationMs::from_seconds(1))
        };
        // An answer on its way goes back by its own drop.
        self.pending = None;
        self.refuse(error);
    }

    /// What the request used so far, with so much output.
    pub fn usage(&self, output: TokenCount) -> TokenUsage {
        let prompt: i64 = self.branches.iter().map(|branch| branch.prompt.get()).sum();
        let cached: i64 = self.branches.iter().map(|branch| branch.cached).sum();
        TokenUsage { input: TokenCount::new(prompt - cached), cached_input: TokenCount::new(cached), output }
    }

    /// How it ends, once every answer has ended well; [`Generation::complete`] makes it so.
    pub fn ending(&self) -> Ended {
        let tokens = self.usage(TokenCount::new(self.branches.iter().map(|branch| branch.reported).sum()));
        let cost = provisional_cost(&self.facts.prices, &tokens).unwrap_or(Nanos::ZERO);
        Ended { tokens, finishes: self.finishes(), cost, remaining: None, at: self.gateway.clock.now(), durable: None }
    }

    fn finishes(&self) -> Vec<FinishReason> {
        self.branches.iter().filter_map(|branch| branch.finish).collect()
    }

    /// Every answer ended well: records all of it.
    pub fn complete(mut self) -> Ended {
        let finishes = self.finishes();
        let outcome = if finishes.contains(&FinishReason::Allowance) {
            Outcome::BudgetStopped
        } else if finishes.contains(&FinishReason::Length) {
            Outcome::Length
        } else {
            Outcome::Completed
        };
        let output = self.branches.iter().map(|branch| branch.reported).sum();
        self.end(outcome, TokenCount::new(output), finishes)
    }

    /// We failed, or its capacity was needed: records what was delivered.
    pub fn abandon(mut self, error: &Error) -> Ended {
        let output = self.delivered();
        let outcome = if error.code() == ErrorCode::Preempted { Outcome::Preempted } else { Outcome::ServerStopped };
        self.end(outcome, output, Vec::new())
    }

    fn delivered(&self) -> TokenCount {
        TokenCount::new(self.branches.iter().map(|branch| branch.delivered).sum())
    }

    /// Releases or captures the money. What owes nothing leaves no record.
    fn end(&mut self, outcome: Outcome, output: TokenCount, finishes: Vec<FinishReason>) -> Ended {
        let tokens = self.usage(output);
        // What was cached is no work.
        self.guards.pass.count(tokens.input.saturating_add(output), self.gateway.clock.now());
        let mut ended = Ended { tokens, finishes, cost: Nanos::ZERO, remaining: None, at: self.gateway.clock.now(), durable: None };
        let Some(money) = self.money.take() else { return ended };
        self.pending = None;
        let purse = Arc::clone(money.purse());
        let whole = matches!(outcome, Outcome::Completed | Outcome::Length);
        let owes = output > TokenCount::ZERO || (self.facts.bills == Bills::Input && whole);
        if !owes {
            self.gateway.metrics.voided();
            self.end_unsold(money, outcome);
        } else {
            self.gateway.metrics.ended(outcome, &tokens);
            self.measure(output);
            ended.cost = provisional_cost(&self.facts.prices, &tokens).unwrap_or(Nanos::ZERO);
            ended.durable = Some(self.record(money, outcome, tokens));
        }
        ended.remaining = purse.remaining();
        ended
    }

    /// Nobody is charged. What a supplier is owed all the same goes on record, so that it becomes our cost: without the
    /// answer of a line, and without keeping the client from asking again.
    fn end_unsold(&mut self, money: Money, outcome: Outcome) {
        let bought = self.facts.served_by.as_ref().is_some_and(|served_by| !served_by.purchases().is_empty());
        if !bought {
            return drop(money);
        }
        self.gateway.metrics.unsold();
        self.guards.claim = None;
        if self.facts.line.take().is_some() {
            // A line is tried again under its own name.
            self.facts.request = self.gateway.ids.mint();
        }
        let _nobody_waits = self.record(money, outcome, TokenUsage::default());
    }

    /// Takes note of how fast one answer was, where that tells something of its model.
    fn measure(&self, output: TokenCount) {
        let facts = &self.facts;
        let was_seen = facts.streamed || facts.served_by.is_none();
        let is_alone = self.branches.len() == 1 && facts.line.is_none() && facts.bills == Bills::Answer;
        let Some(first_token_at) = self.first_token_at.filter(|_| was_seen && is_alone) else { return };
        let finished_at = self.gateway.clock.now();
        self.gateway.measured.record(&facts.model, Sample { admitted_at: facts.admitted_at, first_token_at, finished_at, output });
    }

    /// The least certain of its branches.
    fn measured(&self) -> Measured {
        let has = |measured| self.branches.iter().any(|branch| branch.measured() == measured);
        [Measured::Bounded, Measured::Estimated].into_iter().find(|measured| has(*measured)).unwrap_or(Measured::Engine)
    }

    fn record(&mut self, money: Money, outcome: Outcome, tokens: TokenUsage) -> oneshot::Receiver<Written> {
        let line = self.facts.line.take();
        let facts = &self.facts;
        let upper = facts.prices.upper_bound(&tokens).expect("a cost below the hold is in range");
        let record = UsageRecord {
            request: facts.request.clone(),
            attempt: facts.attempt,
            gateway: self.gateway.config.gateway.clone(),
            fence: self.gateway.config.fence,
            slice: self.slice.clone(),
            key: facts.access.key.clone(),
            project: facts.access.project.clone(),
            organization: facts.access.organization.clone(),
            model: facts.model.clone(),
            tier: facts.prices.tier,
            route: facts.route.to_owned(),
            price_version: facts.prices.version.clone(),
            admitted_at: facts.admitted_at,
            first_token_at: self.first_token_at,
            finished_at: self.gateway.clock.now(),
            tokens,
            outcome,
            measured: self.measured(),
            client_retry: facts.client_retry,
            line,
            replica: facts.served_by.as_ref().and_then(|served_by| served_by.by()),
            purchases: facts.served_by.as_ref().map_or_else(Vec::new, |served_by| served_by.purchases()),
        };
        let payload = serde_json::to_vec(&record).expect("a usage record has only JSON's own types");
        let captured = money.capture(upper);
        let claim = self.guards.claim.take();
        let (reply, durable) = oneshot::channel();
        let answer = Box::new(move |written| {
            match written {
                Written::Durable | Written::Unknown => {
                    captured.keep();
                    if let Some(claim) = claim {
                        claim.served();
                    }
                }
                Written::Refused => captured.void(),
            }
            // A request that was cut has nobody who waits.
            let _nobody = reply.send(written);
        });
        self.gateway.journal.submit(Submission { payload, answer });
        durable
    }
}

/// A request that is dropped before its end was left by its client, or by a panic of ours.
impl Drop for Generation {
    fn drop(&mut self) {
        if self.money.is_some() {
            let outcome = if std::thread::panicking() { Outcome::ServerStopped } else { Outcome::ClientCancelled };
            let output = self.delivered();
            self.end(outcome, output, Vec::new());
        }
    }
}

/// Time for waits on this machine; what is recorded comes from the clock port.
pub(crate) fn monotonic() -> Instant {
    Instant::now()
}

fn stopped() -> Step {
    Step::Failed(Error::new(ErrorCode::ShuttingDown, "this gateway is stopping; what was delivered is charged"))
}

async fn stopping(phase: &mut watch::Receiver<Phase>) {
    // A gateway that is gone stops its requests too.
    let _stopping = phase.wait_for(|phase| *phase == Phase::Stopping).await;
}

async fn answer_of(pending: &mut Option<Waiting>) -> Result<Money> {
    match pending {
        Some(waiting) => (&mut waiting.answer).await.unwrap_or_else(|_| Err(Error::internal("a purse dropped its waiter"))),
        None => std::future::pending().await,
    }
}
