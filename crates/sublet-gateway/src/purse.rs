//! One key's money in this gateway, or that for one class of its requests: an open slice, what is held of it, and who waits for more.
//!
//! Invariants, asserted in every build:
//! - held + captured ≤ granted;
//! - a capture is at most its hold; a hold is released exactly once, by [`Money`]'s drop or capture;
//! - at most one grant per purse is under way, and no lock is held while it is.
//!
//! Waiters are served first come, first served. An extension that was refused stays in line only as
//! long as some other request of the key could still release money; once all of them wait, all are
//! told, so nobody waits for himself.
//!
//! Deliberately absent: prices and tokens (see `pricing`), and what becomes of a request that is refused.

mod money;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use sublet_core::admission::{Admission, SliceGrant, SliceRequest, SliceReturn, SliceTarget, SpendClass};
use sublet_core::id::{GatewayId, KeyId, OrganizationId, SliceId};
use sublet_core::{BoxFuture, Clock, DurationMs, Error, ErrorCode, IdMint, Nanos, Result, Timestamp};
use tokio::sync::oneshot;

use crate::burn::Burn;
use crate::generation::monotonic;
use crate::metrics::GrantTimes;

pub(crate) use money::Money;

/// A grant asks for this many times what is needed now, unless money is short.
const GROWTH_FACTOR: i64 = 4;
/// And leaves at least this share of what the limits still allow to others: one part in so many is taken.
const GROWTH_SHARE: i64 = 4;

/// What all purses of a gateway share.
pub(crate) struct Bank {
    pub admission: Arc<dyn Admission>,
    pub clock: Arc<dyn Clock>,
    pub ids: IdMint,
    pub grants: Arc<GrantTimes>,
    pub gateway: GatewayId,
    pub fence: i64,
    pub tight_for: DurationMs,
}

/// Gives back slices that lie idle, when another key of the organization needs the money.
pub(crate) trait IdleSlices: Send + Sync {
    /// Answers what became available.
    fn release(&self, organization: OrganizationId) -> BoxFuture<'_, Nanos>;
    /// Whether there may be any to give back.
    fn has_any(&self, organization: &OrganizationId) -> bool;
}

/// How much a request needs, and how much it would like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Ask {
    pub least: Nanos,
    pub wanted: Nanos,
}

pub(crate) struct Purse {
    bank: Arc<Bank>,
    idle: Weak<dyn IdleSlices>,
    key: KeyId,
    organization: OrganizationId,
    /// Which requests of the key it is for.
    class: SpendClass,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    slice: Option<OpenSlice>,
    /// Was asked for and never answered: the cloud may have opened it.
    doubtful: Option<SliceId>,
    granted: Nanos,
    held: Nanos,
    captured: Nanos,
    /// Usage records that were handed to the journal and not refused by it.
    records: i64,
    /// Records the journal has not answered for yet.
    unanswered: u64,
    /// Requests that hold money here.
    requests: u64,
    waiters: VecDeque<Waiter>,
    refilling: bool,
    retired: bool,
    /// A return is under way.
    offered: bool,
    tight_until: Timestamp,
    used_at: Timestamp,
    available: Option<Nanos>,
    burn: Burn,
    refusal: Option<Error>,
    /// Grants that were asked for so far.
    asked: u64,
}

#[derive(Clone)]
struct OpenSlice {
    id: SliceId,
    window_ends_at: Option<Timestamp>,
}

struct Waiter {
    ask: Ask,
    extension: bool,
    /// Grants that had been asked for when it came: one of those says nothing about what is left since.
    came_after: u64,
    /// Refused once; waits for others to release.
    starved: Arc<AtomicBool>,
    reply: oneshot::Sender<Result<Money>>,
}

impl Waiter {
    fn is_starved(&self) -> bool {
        self.starved.load(Ordering::Acquire)
    }
}

/// An answer that may have to be awaited.
pub(crate) enum Held {
    Now(Money),
    Wait(oneshot::Receiver<Result<Money>>),
    /// The purse takes no new requests: its window ended or it was given back.
    Retired,
}

/// An answer to an extension: `Now` has been added already.
pub(crate) enum Extended {
    Now,
    Wait(Waiting),
}

/// An extension in line.
pub(crate) struct Waiting {
    pub answer: oneshot::Receiver<Result<Money>>,
    starved: Arc<AtomicBool>,
}

impl Waiting {
    /// True if the cloud has refused it, so that only others of its key can help; false while the cloud is still asked.
    pub fn is_starved(&self) -> bool {
        self.starved.load(Ordering::Acquire)
    }
}

/// Replies to be sent after the lock is gone: dropping a reply's money takes the lock again.
type Replies = Vec<(oneshot::Sender<Result<Money>>, Result<Money>)>;

fn send(replies: Replies) {
    for (reply, answer) in replies {
        // A waiter that is gone drops the answer, and its money goes back.
        drop(reply.send(answer));
    }
}

impl Purse {
    pub fn new(bank: Arc<Bank>, idle: Weak<dyn IdleSlices>, owner: (KeyId, OrganizationId), class: SpendClass) -> Arc<Self> {
        let state = State { used_at: bank.clock.now(), ..State::default() };
        Arc::new(Self { bank, idle, key: owner.0, organization: owner.1, class, state: Mutex::new(state) })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Money for a new request.
    pub fn hold(self: &Arc<Self>, ask: Ask) -> Held {
        let now = self.bank.clock.now();
        let mut state = self.lock();
        let window_ended = state.slice.as_ref().and_then(|slice| slice.window_ends_at).is_some_and(|end| now >= end);
        if state.retired || window_ended {
            state.retired = true;
            return Held::Retired;
        }
        state.used_at = now;
        if let Some(amount) = state.take(ask) {
            state.requests += 1;
            return Held::Now(Money { purse: Arc::clone(self), amount, main: true });
        }
        Held::Wait(self.wait(state, ask, false).answer)
    }

    fn wait(self: &Arc<Self>, mut state: MutexGuard<'_, State>, ask: Ask, extension: bool) -> Waiting {
        let (reply, answer) = oneshot::channel();
        let starved = Arc::<AtomicBool>::default();
        let came_after = state.asked;
        state.waiters.push_back(Waiter { ask, extension, came_after, starved: Arc::clone(&starved), reply });
        if !state.refilling {
            state.refilling = true;
            tokio::spawn(refill(Refilling { purse: Arc::clone(self), finished: false }));
        }
        Waiting { answer, starved }
    }

    /// True while the limits granted less than was wanted a moment ago.
    pub fn is_tight(&self) -> bool {
        let now = self.bank.clock.now();
        self.lock().tight_until > now
    }

    /// What the limits and the open slice still allow, as far as is known.
    pub fn remaining(&self) -> Option<Nanos> {
        let state = self.lock();
        state.available.and_then(|available| available.checked_add(state.free()).ok())
    }

    /// The slice that pays; there is one as soon as anything is held.
    pub fn slice(&self) -> Option<SliceId> {
        self.lock().slice.as_ref().map(|slice| slice.id.clone())
    }

    /// True if the cloud holds money for this purse, as far as is known.
    pub fn has_slice(&self) -> bool {
        let state = self.lock();
        state.slice.is_some() || state.doubtful.is_some()
    }

    pub fn held(&self) -> Nanos {
        self.lock().held
    }

    /// True while requests hold or wait for money here, or records are unanswered.
    pub fn is_used(&self) -> bool {
        let state = self.lock();
        state.requests > 0 || state.unanswered > 0 || state.refilling || !state.waiters.is_empty()
    }

    pub fn class(&self) -> &SpendClass {
        &self.class
    }

    pub fn organization(&self) -> &OrganizationId {
        &self.organization
    }

    /// Closes the purse to new requests if nobody has used it since `before`; true if it is closed now.
    pub fn retire_if_unused_since(&self, before: Timestamp) -> bool {
        let now = self.bank.clock.now();
        let mut state = self.lock();
        let window_ended = state.slice.as_ref().and_then(|slice| slice.window_ends_at).is_some_and(|end| now >= end);
        let unused = state.requests == 0 && state.waiters.is_empty() && !state.refilling && state.used_at <= before;
        state.retired |= unused || window_ended;
        state.retired
    }

    /// What to give back, once nothing is held or unanswered and nobody else offers it.
    pub fn begin_return(self: &Arc<Self>) -> Result<Offer, StillInUse> {
        if self.is_used() {
            return Err(StillInUse);
        }
        let mut state = self.lock();
        if !state.retired || state.offered {
            return Err(StillInUse);
        }
        state.offered = true;
        let fence = self.bank.fence;
        let slice = state.slice.as_ref().map(|slice| slice.id.clone()).or_else(|| state.doubtful.clone());
        let slice = slice.map(|slice| SliceReturn { slice, fence, records: state.records });
        Ok(Offer { purse: Arc::clone(self), slice })
    }

    fn release(self: &Arc<Self>, amount: Nanos, main: bool) {
        let mut state = self.lock();
        state.held = expect(state.held.checked_sub(amount));
        if main {
            state.requests -= 1;
            state.used_at = self.bank.clock.now();
        }
        state.check();
        let replies = state.after_release(self);
        drop(state);
        send(replies);
    }
}

/// Something still holds money of the purse.
#[derive(Debug)]
pub(crate) struct StillInUse;

/// A closed purse on its way back; dropped without [`Offer::closed`] it may be offered again.
pub(crate) struct Offer {
    purse: Arc<Purse>,
    /// `None`: there never was a slice.
    pub slice: Option<SliceReturn>,
}

impl Offer {
    /// The slice was given back; there is nothing more to return.
    pub fn closed(self) {
        let mut state = self.purse.lock();
        (state.slice, state.doubtful) = (None, None);
        state.granted = Nanos::ZERO;
        state.captured = Nanos::ZERO;
        state.check();
        // The offer's own drop locks again.
        drop(state);
    }
}

impl Drop for Offer {
    fn drop(&mut self) {
        self.purse.lock().offered = false;
    }
}

fn expect(amount: Result<Nanos>) -> Nanos {
    amount.expect("amounts inside one slice stay in the range of the slice's grant")
}

impl State {
    fn free(&self) -> Nanos {
        expect(expect(self.granted.checked_sub(self.held)).checked_sub(self.captured))
    }

    fn check(&self) {
        let used = expect(self.held.checked_add(self.captured));
        assert!(!self.held.is_negative() && !self.captured.is_negative(), "held and captured are never negative");
        assert!(used <= self.granted, "held {} and captured {} exceed granted {}", self.held, self.captured, self.granted);
    }

    /// Takes from what is free, unless others are in line.
    fn take(&mut self, ask: Ask) -> Option<Nanos> {
        let free = self.free();
        if self.slice.is_none() || !self.waiters.is_empty() || free < ask.least {
            return None;
        }
        let amount = ask.wanted.max(ask.least).min(free);
        self.held = expect(self.held.checked_add(amount));
        self.check();
        Some(amount)
    }

    /// Serves as many waiters as possible: first everybody's least, then what they would like.
    fn serve(&mut self, purse: &Arc<Purse>) -> Replies {
        if self.slice.is_none() {
            return Vec::new();
        }
        let mut left = self.free();
        let mut served = Vec::new();
        while let Some(waiter) = self.waiters.front() {
            if waiter.reply.is_closed() {
                self.waiters.pop_front();
                continue;
            }
            let least = waiter.ask.least;
            if least > left {
                break;
            }
            left = expect(left.checked_sub(least));
            served.extend(self.waiters.pop_front().map(|waiter| (waiter, least)));
        }
        let mut replies = Vec::with_capacity(served.len());
        for (waiter, least) in served {
            let extra = expect(waiter.ask.wanted.checked_sub(least)).max(Nanos::ZERO).min(left);
            left = expect(left.checked_sub(extra));
            let amount = expect(least.checked_add(extra));
            self.held = expect(self.held.checked_add(amount));
            self.requests += u64::from(!waiter.extension);
            let money = Money { purse: Arc::clone(purse), amount, main: !waiter.extension };
            replies.push((waiter.reply, Ok(money)));
        }
        self.check();
        replies
    }

    fn after_release(&mut self, purse: &Arc<Purse>) -> Replies {
        if self.waiters.is_empty() {
            return Vec::new();
        }
        let mut replies = self.serve(purse);
        replies.extend(self.refuse_if_all_wait());
        replies
    }

    /// Everybody who could release money is in line himself: nobody will be served any more.
    fn refuse_if_all_wait(&mut self) -> Replies {
        self.waiters.retain(|waiter| !waiter.reply.is_closed());
        let starving = self.waiters.iter().filter(|waiter| waiter.is_starved()).count();
        let all_wait = u64::try_from(starving).is_ok_and(|starving| starving >= self.requests);
        if starving == 0 || starving < self.waiters.len() || !all_wait {
            return Vec::new();
        }
        let error = self.refusal.clone().unwrap_or_else(|| Error::internal("a waiter starved without a refusal"));
        self.waiters.drain(..).map(|waiter| (waiter.reply, Err(error.clone()))).collect()
    }

    /// The next grant to ask for, or the end of the refill.
    fn next_request(&mut self, purse: &Purse, now: Timestamp) -> Option<SliceRequest> {
        let free = self.free();
        let first = self.waiters.iter().find(|waiter| !waiter.is_starved())?;
        let least = expect(first.ask.least.checked_sub(free)).max(Nanos::ZERO);
        let sum = Nanos::checked_sum(self.waiters.iter().map(|waiter| waiter.ask.wanted)).unwrap_or(Nanos::MAX);
        let short = expect(sum.checked_sub(free)).max(least);
        let wanted = if now < self.tight_until { short } else { short.checked_add(self.growth(short)).unwrap_or(short) };
        let slice = match &self.slice {
            Some(slice) if first.extension => SliceTarget::Finish(slice.id.clone()),
            Some(slice) => SliceTarget::Extend(slice.id.clone()),
            None => SliceTarget::Open(self.doubtful.clone().unwrap_or_else(|| purse.bank.ids.mint())),
        };
        let (gateway, fence, key) = (purse.bank.gateway.clone(), purse.bank.fence, purse.key.clone());
        self.asked += 1;
        Some(SliceRequest { gateway, fence, key, class: purse.class.clone(), slice, wanted, least, is_final: true })
    }

    fn growth(&self, short: Nanos) -> Nanos {
        let several = Nanos::new(short.get().saturating_mul(GROWTH_FACTOR - 1));
        let growth = several.max(Nanos::new(self.burn.two_seconds()));
        match self.available {
            // Rounded down: a share that is too small only means one more grant.
            Some(available) => growth.min(Nanos::new(available.get() / GROWTH_SHARE)),
            None => growth,
        }
    }

    /// Takes a grant in. Of one beyond a limit nothing new is admitted, now or later: those who wait for that are told why.
    fn apply_grant(&mut self, grant: SliceGrant, wanted: Nanos, tight_until: Timestamp) -> Replies {
        if grant.added < wanted {
            self.tight_until = tight_until;
        }
        self.granted = grant.granted;
        self.available = grant.available;
        self.slice = Some(OpenSlice { id: grant.slice, window_ends_at: grant.window_ends_at });
        self.doubtful = None;
        self.check();
        let Some(refusal) = grant.closed_to_new else { return Vec::new() };
        self.retired = true;
        let (admitted, new): (VecDeque<_>, VecDeque<_>) =
            std::mem::take(&mut self.waiters).into_iter().partition(|waiter| waiter.extension);
        self.waiters = admitted;
        new.into_iter().map(|waiter| (waiter.reply, Err(refusal.clone()))).collect()
    }

    /// Tells those who need at least as much as was refused; extensions stay in line for what others release. Who came
    /// after the question was asked is asked for anew: money may have come back before he did.
    fn apply_refusal(&mut self, request: &SliceRequest, error: &Error, tight_until: Timestamp) -> Replies {
        let refused = request.least;
        if let (true, SliceTarget::Open(slice)) = (is_in_doubt(error), &request.slice) {
            self.doubtful = Some(slice.clone());
        }
        let out_of_money = error.code() == ErrorCode::InsufficientQuota;
        if out_of_money {
            self.tight_until = tight_until;
        } else if matches!(error.code(), ErrorCode::Conflict | ErrorCode::NotFound) {
            self.retired = true;
        }
        self.refusal = Some(error.clone());
        let free = self.free();
        // What is refused to new work may be there for work that was admitted.
        let for_admitted = matches!(request.slice, SliceTarget::Finish(_));
        let mut replies = Replies::new();
        for waiter in std::mem::take(&mut self.waiters) {
            let short = expect(waiter.ask.least.checked_sub(free));
            let came_later = waiter.came_after >= self.asked;
            let was_not_asked_for = waiter.extension && !for_admitted;
            if short < refused || (out_of_money && (came_later || was_not_asked_for)) {
                self.waiters.push_back(waiter);
            } else if out_of_money && waiter.extension {
                waiter.starved.store(true, Ordering::Release);
                self.waiters.push_back(waiter);
            } else {
                replies.push((waiter.reply, Err(error.clone())));
            }
        }
        replies.extend(self.refuse_if_all_wait());
        replies
    }
}

/// Whether the cloud may have done what it reported a failure of: the connection broke before the answer, say.
fn is_in_doubt(error: &Error) -> bool {
    matches!(error.code(), ErrorCode::StoreUnavailable | ErrorCode::Internal)
}

/// Proof that a refill is under way: if the port panics, its drop tells the waiters and lets the next one begin.
struct Refilling {
    purse: Arc<Purse>,
    finished: bool,
}

impl Drop for Refilling {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        let error = Error::internal("the refill of a slice ended early");
        let mut state = self.purse.lock();
        state.refilling = false;
        let abandoned: Replies = state.waiters.drain(..).map(|waiter| (waiter.reply, Err(error.clone()))).collect();
        drop(state);
        send(abandoned);
    }
}

/// Asks for money until nobody unrefused waits.
async fn refill(mut refilling: Refilling) {
    let purse = Arc::clone(&refilling.purse);
    while let Some(request) = next_request(&purse, &mut refilling) {
        let began = monotonic();
        let answer = grant(&purse, &request).await;
        purse.bank.grants.took(began.elapsed());
        let tight_until = purse.bank.clock.now().plus(purse.bank.tight_for);
        let mut state = purse.lock();
        let replies = match answer {
            Ok(grant) => {
                let mut replies = state.apply_grant(grant, request.wanted, tight_until);
                replies.extend(state.serve(&purse));
                replies
            }
            Err(error) => state.apply_refusal(&request, &error, tight_until),
        };
        drop(state);
        send(replies);
    }
}

/// What to ask for next. The end of the refill is decided under the lock, so that no waiter can slip in after it.
fn next_request(purse: &Arc<Purse>, refilling: &mut Refilling) -> Option<SliceRequest> {
    let mut state = purse.lock();
    let replies = state.serve(purse);
    let request = state.next_request(purse, purse.bank.clock.now());
    if request.is_none() {
        state.refilling = false;
        refilling.finished = true;
    }
    drop(state);
    send(replies);
    request
}

/// One grant. Before a refusal stands, and before anything goes on beyond a limit, idle slices of the organization go back.
async fn grant(purse: &Purse, request: &SliceRequest) -> Result<SliceGrant> {
    let ask = |request: &SliceRequest| purse.bank.admission.grant_slice(request.clone());
    let is_out_of_money =
        |answer: &Result<SliceGrant>| answer.as_ref().is_err_and(|error| error.code() == ErrorCode::InsufficientQuota);
    let idle = purse.idle.upgrade();
    let has_idle = idle.as_ref().is_some_and(|idle| idle.has_any(&purse.organization));
    let first = match &request.slice {
        SliceTarget::Finish(id) => SliceRequest { slice: SliceTarget::Extend(id.clone()), is_final: false, ..request.clone() },
        SliceTarget::Open(_) | SliceTarget::Extend(_) => SliceRequest { is_final: !has_idle, ..request.clone() },
    };
    let answer = ask(&first).await;
    if !is_out_of_money(&answer) {
        return answer;
    }
    let released = match idle {
        Some(idle) => idle.release(purse.organization.clone()).await,
        None => Nanos::ZERO,
    };
    if released == Nanos::ZERO && first.is_final {
        return answer;
    }
    if released > Nanos::ZERO && first.slice != request.slice {
        let answer = ask(&first).await;
        if !is_out_of_money(&answer) {
            return answer;
        }
    }
    ask(request).await
}
