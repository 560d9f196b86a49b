//! Whose turn it is at the replicas of one model, and who gives way.
//!
//! A request that finds no place at a replica waits here, by tier and then by arrival. When a request of a
//! higher tier has to wait while `flex` is served by our own fleet, the `flex` that began last is asked to give
//! way: before its answer has begun it waits again, afterwards it ends as preempted.
//!
//! Invariants: at most the bound of its tier waits; nobody is tried before a waiting one of its own or a
//! higher tier; whoever leaves, in whatever way, lets the next one try.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sublet_core::id::ReplicaId;
use sublet_core::tier::ServiceTier;
use sublet_core::{Clock, DurationMs, Error, ErrorCode, Result, Timestamp};
use tokio::sync::Notify;

use super::station::Seat;

/// Hints before anything was measured, and the bounds of those after.
const RETRY_UNMEASURED: DurationMs = DurationMs::from_seconds(1);
const RETRY_MIN_MS: i64 = 50;
const RETRY_MAX_MS: i64 = 600_000;

/// The waiting requests of one model.
pub(crate) struct Queue {
    clock: Arc<dyn Clock>,
    /// Most requests that wait.
    waiting_max: usize,
    state: Mutex<State>,
}

type Rank = (Reverse<ServiceTier>, u64);

#[derive(Default)]
struct State {
    next: u64,
    waiting: BTreeMap<Rank, Arc<Notify>>,
    /// Requests of `flex` that are served and may be asked to give way, the last one began last.
    flex: BTreeMap<u64, Served>,
    /// When a place was last given up while others waited, and how long that takes, smoothed.
    freed_at: Option<Timestamp>,
    interval_micros: i64,
}

struct Served {
    replica: ReplicaId,
    gives_way: Arc<Notify>,
}

impl State {
    fn wake_first(&self) {
        if let Some(first) = self.waiting.values().next() {
            first.notify_one();
        }
    }

    fn time_of(&self, places: usize) -> DurationMs {
        if self.interval_micros == 0 {
            return RETRY_UNMEASURED;
        }
        let micros = self.interval_micros.saturating_mul(i64::try_from(places).unwrap_or(i64::MAX));
        DurationMs::from_millis((micros / 1_000).clamp(RETRY_MIN_MS, RETRY_MAX_MS))
    }

    fn note_freed(&mut self, now: Timestamp) {
        if self.waiting.is_empty() {
            self.freed_at = None;
            return;
        }
        if let Some(before) = self.freed_at.replace(now) {
            let each = (now.micros() - before.micros()).max(1);
            self.interval_micros = if self.interval_micros == 0 { each } else { (self.interval_micros * 4 + each) / 5 };
        }
    }
}

impl Queue {
    pub fn new(clock: Arc<dyn Clock>, waiting_max: usize) -> Arc<Self> {
        Arc::new(Self { clock, waiting_max, state: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether somebody waits who comes before a new request of a tier.
    pub fn is_taken(&self, tier: ServiceTier) -> bool {
        self.lock().waiting.first_key_value().is_some_and(|((Reverse(first), _), _)| *first >= tier)
    }

    /// Waits from now on, if there is room; somebody of `flex` may have to give way.
    pub fn join(self: &Arc<Self>, tier: ServiceTier) -> Result<Ticket> {
        let mut state = self.lock();
        let places = tier.places(self.waiting_max);
        if state.waiting.len() >= places {
            let after = state.time_of(state.waiting.len() - places + 1);
            let message = format!("{} requests wait for this model, as many as may at the tier '{tier}'", state.waiting.len());
            return Err(Error::new(ErrorCode::QueueFull, message).retry_after(after));
        }
        let rank = (Reverse(tier), state.next);
        state.next += 1;
        let turn = Arc::new(Notify::new());
        state.waiting.insert(rank, Arc::clone(&turn));
        if tier > ServiceTier::Flex {
            // Asked once: it is served no more from here on.
            if let Some((_, last)) = state.flex.pop_last() {
                last.gives_way.notify_one();
            }
        }
        Ok(Ticket { queue: Arc::clone(self), rank, turn })
    }

    /// Everything of `flex` at a replica gives way: its capacity is taken back.
    pub fn clear(&self, replica: &ReplicaId) {
        let mut state = self.lock();
        state.flex.retain(|_, served| {
            let stays = served.replica != *replica;
            if !stays {
                served.gives_way.notify_one();
            }
            stays
        });
    }

    /// Keeps a seat for a request; `replica` names the one of our fleet at which it may be asked to give way.
    pub fn place(self: &Arc<Self>, seat: Seat, replica: Option<ReplicaId>) -> Place {
        let gives_way = Arc::new(Notify::new());
        let number = replica.map(|replica| {
            let mut state = self.lock();
            let number = state.next;
            state.next += 1;
            state.flex.insert(number, Served { replica, gives_way: Arc::clone(&gives_way) });
            number
        });
        Place { seat: Some(seat), queue: Arc::clone(self), number, gives_way }
    }

    /// What a request is told that has waited as long as it may.
    pub fn overdue(&self, waited: DurationMs, tier: ServiceTier) -> Error {
        let state = self.lock();
        let after = state.time_of(state.waiting.len());
        drop(state);
        let message = format!("no place at a server of this model was free for {} s at the tier '{tier}'", waited.seconds_ceil());
        Error::new(ErrorCode::QueueFull, message).retry_after(after)
    }

    /// What a request of `flex` is told whose answer had begun.
    pub fn preempted(&self) -> Error {
        let after = {
            let state = self.lock();
            state.time_of(state.waiting.len() + 1)
        };
        Error::new(ErrorCode::Preempted, "requests of a higher tier, or the owner, need the model's server")
            .retry_after(after)
            .alternative("service_tier 'default'")
    }
}

/// A place in the queue, until it is dropped.
pub(crate) struct Ticket {
    queue: Arc<Queue>,
    rank: Rank,
    turn: Arc<Notify>,
}

impl Ticket {
    /// Waits until it is worth trying.
    pub async fn turn(&self) {
        self.turn.notified().await;
    }

    /// Whether nobody is before it.
    pub fn is_first(&self) -> bool {
        self.queue.lock().waiting.first_key_value().is_some_and(|(rank, _)| *rank == self.rank)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut state = self.queue.lock();
        state.waiting.remove(&self.rank);
        state.wake_first();
    }
}

/// One request's place at a replica.
pub(crate) struct Place {
    /// Until it is dropped.
    seat: Option<Seat>,
    queue: Arc<Queue>,
    /// Under which it can be asked to give way.
    number: Option<u64>,
    gives_way: Arc<Notify>,
}

impl Place {
    /// The prompt was read: the answer begins.
    pub fn begin_answer(&mut self) {
        if let Some(seat) = &mut self.seat {
            seat.begin_answer();
        }
    }

    /// Resolves when it has to give way.
    pub fn asked_to_go(&self) -> impl Future<Output = ()> + use<> {
        let gives_way = Arc::clone(&self.gives_way);
        async move { gives_way.notified().await }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.seat = None;
        let now = self.queue.clock.now();
        let mut state = self.queue.lock();
        if let Some(number) = self.number {
            state.flex.remove(&number);
        }
        state.note_freed(now);
        state.wake_first();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::{Context, Poll, Waker};
    use sublet_core::error::Result;

    struct Still;
    impl Clock for Still {
        fn now(&self) -> Timestamp {
            Timestamp::EPOCH
        }
    }

    fn has_turn(ticket: &Ticket) -> bool {
        let mut turn = Box::pin(ticket.turn());
        turn.as_mut().poll(&mut Context::from_waker(Waker::noop())) == Poll::Ready(())
    }

    #[test]
    fn turns_go_by_tier_and_arrival_and_every_leaver_wakes_the_next() -> Result<()> {
        let queue = Queue::new(Arc::new(Still), 16);
        let flex = queue.join(ServiceTier::Flex)?;
        let first = queue.join(ServiceTier::Default)?;
        let second = queue.join(ServiceTier::Default)?;
        assert!(first.is_first() && queue.is_taken(ServiceTier::Default) && !queue.is_taken(ServiceTier::Priority));
        let priority = queue.join(ServiceTier::Priority)?;
        assert!(priority.is_first() && !first.is_first());
        drop(priority);
        assert!(has_turn(&first));
        drop(first);
        assert!(has_turn(&second) && !has_turn(&flex));
        drop(second);
        assert!(has_turn(&flex));
        drop(flex);
        assert!(!queue.is_taken(ServiceTier::Flex));
        Ok(())
    }

    #[test]
    fn each_tier_finds_its_share() {
        let queue = Queue::new(Arc::new(Still), 8);
        let mut kept = Vec::new();
        for (tier, places) in [(ServiceTier::Flex, 4), (ServiceTier::Default, 7), (ServiceTier::Priority, 8)] {
            while kept.len() < places {
                kept.push(queue.join(tier).expect("there is room"));
            }
            let refused = queue.join(tier).err().expect("its share is used");
            assert!(refused.code() == ErrorCode::QueueFull && refused.retry_after_hint().is_some());
        }
    }
}
