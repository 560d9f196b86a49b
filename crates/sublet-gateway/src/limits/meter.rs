//! What this gateway holds of one limit on speed, and who waits for more of it.
//!
//! Units are drawn from the cloud before they are spent; tokens are spent when they are known, and may
//! leave a debt that the next draw tells. At most one draw of a meter is under way, and no lock is held
//! while it is. Waiters are served first come, first served; a draw that brings nothing refuses them all.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sublet_core::rate::{Draw, Drawn, EndUsers, HOLDING_LIFE, Level, RateMetric, RateRule};
use sublet_core::{DurationMs, Error, ErrorCode, Result, Timestamp};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::burn::Burn;
use crate::generation::monotonic;

/// What is held is not used any more so long before the cloud counts it as lost.
const LIFE_MARGIN: DurationMs = DurationMs::from_seconds(5);
/// What is held on is told again so often.
const RENEWAL: DurationMs = DurationMs::from_seconds(10);
/// A draw asks for at least one part in so many of the limit.
const SHARE: i64 = 64;

pub(crate) struct Meter {
    pub bucket: Arc<str>,
    rule: RateRule,
    state: Mutex<State>,
}

struct State {
    value: i64,
    /// Units that may be spent; negative is debt that nobody was told of.
    free: i64,
    /// Places of requests in flight.
    in_use: i64,
    /// What the cloud counts as held here.
    told: i64,
    told_at: Instant,
    /// What the cloud said is left to everybody.
    level: Level,
    waiters: VecDeque<Reply>,
    /// A draw is under way, or about to be.
    drawing: bool,
    burn: Burn,
    used_at: Timestamp,
    /// Most places that were in use since the last look.
    peak: i64,
}

/// Answers `None` where nothing has to be given back.
type Reply = oneshot::Sender<Result<Option<Place>>>;
/// Sent after the lock is gone: a place that nobody takes locks again.
pub(super) type Replies = Vec<(Reply, Result<Option<Place>>)>;

/// One request in flight, until it is dropped.
pub(crate) struct Place(Arc<Meter>);

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.in_use -= 1;
        state.free += 1;
        state.forget_lost();
        let replies = state.serve(&self.0);
        drop(state);
        send(replies);
    }
}

pub(super) fn send(replies: Replies) {
    for (reply, answer) in replies {
        // Whoever is gone drops the answer, and its place with it.
        drop(reply.send(answer));
    }
}

/// How a request gets in.
pub(super) enum Entry {
    Now(Option<Place>),
    Wait(oneshot::Receiver<Result<Option<Place>>>),
}

/// What a draw is for, beside those who wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Purpose {
    /// Whoever waits is to be served.
    Serve,
    /// The cloud is to know what is held.
    Tell,
    /// What is free is not needed here.
    GiveBack,
    /// So many places are enough, those in use among them.
    KeepPlaces(i64),
}

/// What a limit leaves, for headers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Left {
    pub limit: i64,
    pub remaining: i64,
    pub reset: DurationMs,
}

impl Meter {
    pub fn new(rule: &RateRule, bucket: Arc<str>, now: Timestamp) -> Arc<Self> {
        let state = State {
            value: rule.value,
            free: 0,
            in_use: 0,
            told: 0,
            told_at: monotonic(),
            level: Level::full(rule.metric, rule.value, now),
            waiters: VecDeque::new(),
            drawing: false,
            burn: Burn::default(),
            used_at: now,
            peak: 0,
        };
        Arc::new(Self { bucket, rule: rule.clone(), state: Mutex::new(state) })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn metric(&self) -> RateMetric {
        self.rule.metric
    }

    /// Counts a request, or makes it wait. True beside a wait means that a draw has to be begun.
    pub fn enter(self: &Arc<Self>, value: i64, now: Timestamp) -> (Entry, bool) {
        let mut state = self.lock();
        state.value = value;
        state.used_at = now;
        state.forget_lost();
        if state.waiters.is_empty()
            && let Some(place) = state.take(self, now)
        {
            return (Entry::Now(place), false);
        }
        let (reply, answer) = oneshot::channel();
        state.waiters.push_back(reply);
        (Entry::Wait(answer), !std::mem::replace(&mut state.drawing, true))
    }

    /// Takes tokens, or gives some back; the meter may go into debt.
    pub fn spend(&self, tokens: i64, now: Timestamp) {
        let mut state = self.lock();
        state.free = state.free.saturating_sub(tokens);
        state.burn.add(now, tokens);
        state.used_at = now;
    }

    pub fn left(&self, now: Timestamp) -> Left {
        let state = self.lock();
        let level = state.level.with(state.free, now);
        Left { limit: state.value, remaining: level.units().max(0), reset: level.until_full() }
    }

    /// What the cloud should hear of this meter, if it was not used since `before`; a draw has to be begun then.
    pub fn due(&self, before: Timestamp) -> Option<Purpose> {
        let mut state = self.lock();
        if state.drawing {
            return None;
        }
        state.forget_lost();
        let holds = state.free.max(0) + state.in_use;
        let idle = state.used_at <= before;
        let in_use = state.in_use;
        let peak = std::mem::replace(&mut state.peak, in_use);
        let is_far_less = self.rule.metric == RateMetric::ConcurrentRequests && holds > peak + state.value / SHARE + 1;
        let purpose = if idle && state.free > 0 {
            Purpose::GiveBack
        } else if is_far_less {
            Purpose::KeepPlaces(peak)
        } else if state.free < 0 || (idle && state.told != holds) || (holds > 0 && state.told_at.elapsed() >= RENEWAL.to_std()) {
            Purpose::Tell
        } else {
            return None;
        };
        state.drawing = true;
        Some(purpose)
    }

    /// True if forgetting this meter changes nothing: a new one holds nothing either, and asks first.
    pub fn is_idle(&self) -> bool {
        let state = self.lock();
        state.free == 0 && state.in_use == 0 && state.told == 0 && !state.drawing && state.waiters.is_empty()
    }

    /// What is told and asked now. What is told as debt or given back is no longer here.
    pub(super) fn compose(&self, purpose: Purpose) -> Draw {
        let mut state = self.lock();
        state.forget_lost();
        state.waiters.retain(|waiter| !waiter.is_closed());
        let waiting = i64::try_from(state.waiters.len()).unwrap_or(i64::MAX);
        let debt = (-state.free).max(0);
        state.free = state.free.max(0);
        let back = if purpose == Purpose::GiveBack && waiting == 0 { std::mem::take(&mut state.free) } else { 0 };
        if let (Purpose::KeepPlaces(places), 0) = (purpose, waiting) {
            state.free = state.free.min((places - state.in_use).max(0));
        }
        let (least, wanted) = match (waiting, self.rule.metric) {
            (0, _) => (0, 0),
            (_, RateMetric::TokensPerMinute | RateMetric::TokensPerDay) => (1, 1),
            (waiting, RateMetric::RequestsPerMinute | RateMetric::ConcurrentRequests) => (1, waiting),
        };
        let growth = if least > 0 { state.burn.two_seconds().max(state.value / SHARE) } else { 0 };
        Draw {
            bucket: Arc::clone(&self.bucket),
            metric: self.rule.metric,
            value: state.value,
            keeps: state.free + state.in_use,
            back,
            debt,
            least,
            wanted: wanted.max(growth),
        }
    }

    /// Takes note of an answer to what was told at an instant. Answers whether more has to be drawn.
    pub(super) fn drawn(self: &Arc<Self>, (draw, drawn): (&Draw, Drawn), asked_at: Instant, now: Timestamp) -> (Replies, bool) {
        let mut state = self.lock();
        state.free = state.free.saturating_add(drawn.added);
        state.told = draw.keeps.saturating_add(drawn.added);
        state.told_at = asked_at;
        // Clocks differ: what is left is what it was when the answer came.
        state.level = Level::stored(self.rule.metric, drawn.level.value(), drawn.level.parts(), now);
        let mut replies = state.serve(self);
        if drawn.added == 0 && draw.least > 0 {
            let wait = drawn.level.until(1);
            let refused = state.waiters.drain(..).map(|waiter| (waiter, Err(self.refusal(draw.value, wait))));
            replies.extend(refused);
        }
        state.drawing = !state.waiters.is_empty();
        (replies, state.drawing)
    }

    /// The cloud did not answer. It may have done what it was told; debt is told again, so that none gets lost.
    pub(super) fn failed(&self, draw: &Draw, error: &Error) -> Replies {
        let mut state = self.lock();
        state.free = state.free.saturating_sub(draw.debt);
        state.drawing = false;
        state.waiters.drain(..).map(|waiter| (waiter, Err(error.clone()))).collect()
    }

    fn refusal(&self, value: i64, wait: DurationMs) -> Error {
        let RateRule { subject, metric, model, end_users, .. } = &self.rule;
        let who = if subject.starts_with("key_") { "this key" } else { subject };
        let what = metric.in_words();
        let model = model.as_deref().map(|model| format!(" for the model '{model}'")).unwrap_or_default();
        let users = match end_users {
            EndUsers::All => "",
            EndUsers::Each => " for each end user",
            EndUsers::One(_) => " for this end user",
        };
        let error = if *metric == RateMetric::ConcurrentRequests {
            let message = format!("{who} may have {value} {what}{model}{users}, and has that many");
            Error::new(ErrorCode::ConcurrencyExceeded, message).alternative("wait for a request to finish")
        } else {
            Error::new(ErrorCode::RateLimitExceeded, format!("{who} may use {value} {what}{model}{users}"))
                .alternative(format!("repeat in {} ms", wait.millis()))
        };
        let error = error.retry_after(wait);
        if self.rule.is_plain() { error } else { error.bottleneck(Arc::clone(&self.bucket)) }
    }
}

impl State {
    /// What the cloud may have given to others is not spent here.
    fn forget_lost(&mut self) {
        let life = HOLDING_LIFE.to_std().saturating_sub(LIFE_MARGIN.to_std());
        if self.free > 0 && self.told_at.elapsed() >= life {
            self.free = 0;
        }
    }

    fn take(&mut self, meter: &Arc<Meter>, now: Timestamp) -> Option<Option<Place>> {
        if self.free < 1 {
            return None;
        }
        Some(match meter.rule.metric {
            // They are spent when they are known.
            RateMetric::TokensPerMinute | RateMetric::TokensPerDay => None,
            RateMetric::RequestsPerMinute => {
                self.free -= 1;
                self.burn.add(now, 1);
                None
            }
            RateMetric::ConcurrentRequests => {
                self.free -= 1;
                self.in_use += 1;
                self.peak = self.peak.max(self.in_use);
                Some(Place(Arc::clone(meter)))
            }
        })
    }

    fn serve(&mut self, meter: &Arc<Meter>) -> Replies {
        let mut replies = Vec::new();
        while let Some(waiter) = self.waiters.pop_front() {
            if waiter.is_closed() {
                continue;
            }
            let Some(place) = self.take(meter, self.used_at) else {
                self.waiters.push_front(waiter);
                break;
            };
            replies.push((waiter, Ok(place)));
        }
        replies
    }
}
