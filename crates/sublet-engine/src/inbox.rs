//! What callers hand to a model's thread, and the figures it shows them.
//!
//! Invariants: the number of sequences that wait never exceeds the bound it is checked against
//! under the lock; a wake-up is never lost.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use sublet_core::engine::EngineLoad;
use sublet_core::tier::ServiceTier;
use sublet_core::{DurationMs, Error, ErrorCode, Result};

use crate::config::EngineConfig;
use crate::sequence::Sequence;

/// A retry hint before any generation has ended.
const RETRY_UNMEASURED: DurationMs = DurationMs::from_millis(1_000);
const RETRY_MIN_MS: i64 = 10;
const RETRY_MAX_MS: i64 = 600_000;

/// Shared between one model's thread and its callers.
#[derive(Default)]
pub struct Inbox {
    state: Mutex<State>,
    signal: Condvar,
    gauges: Gauges,
}

#[derive(Default)]
struct State {
    arrivals: Vec<Sequence>,
    woken: bool,
    stopping: bool,
    /// The thread is gone, by its own fault.
    dead: bool,
}

#[derive(Default)]
struct Gauges {
    /// Sequences accepted and not yet over, by tier.
    alive: [AtomicU64; ServiceTier::ALL.len()],
    running: AtomicU64,
    parked: AtomicU64,
    steps: AtomicU64,
    produced: AtomicU64,
    /// Microseconds between two ends while busy; zero before the first.
    end_interval_micros: AtomicU64,
}

impl Gauges {
    /// Sequences of a tier and of those above it that are not over.
    fn alive(&self, least: ServiceTier) -> u64 {
        self.alive[least.index()..].iter().map(|alive| alive.load(Ordering::Acquire)).sum()
    }
}

/// Refuses what there is no room for now.
pub fn crowded(message: String, after: DurationMs) -> Error {
    let after = DurationMs::from_millis(after.millis().clamp(RETRY_MIN_MS, RETRY_MAX_MS));
    Error::new(ErrorCode::QueueFull, message).retry_after(after).alternative("repeat after the time in Retry-After")
}

/// What the thread found in the inbox.
pub struct Collected {
    pub arrivals: Vec<Sequence>,
    /// Something changed for sequences that are not running.
    pub woken: bool,
    pub stopping: bool,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues what `make` builds, or refuses: because too many wait, or because it would wait too long.
    pub fn accept(&self, config: &EngineConfig, tier: ServiceTier, make: impl FnOnce() -> Sequence) -> Result<()> {
        let mut state = self.lock();
        if state.stopping || state.dead {
            drop(state);
            return Err(self.end_error());
        }
        let (alive, running) = (self.gauges.alive(ServiceTier::Flex), self.gauges.running.load(Ordering::Acquire));
        let waiting = alive.saturating_sub(running);
        let places = tier.places(config.queue_max) as u64;
        if waiting >= places {
            let message = format!("{waiting} generations wait for this model, as many as its queue holds for the tier '{tier}'");
            return Err(crowded(message, self.time_of_ends(waiting - places + 1)));
        }
        // Those before it that have no slot yet. Lower tiers give way.
        let ahead = self.gauges.alive(tier).saturating_sub(running + self.gauges.parked.load(Ordering::Acquire));
        let wait = self.measured_time_of_ends(ahead).unwrap_or(DurationMs::ZERO);
        if wait > config.wait_max(tier) {
            let message = format!("it would wait about {} s for this model", wait.seconds_ceil());
            return Err(crowded(message, DurationMs::from_millis(wait.millis() - config.wait_max(tier).millis())));
        }
        self.gauges.alive[tier.index()].fetch_add(1, Ordering::AcqRel);
        state.arrivals.push(make());
        state.woken = true;
        drop(state);
        self.signal.notify_one();
        Ok(())
    }

    /// How long so many generations take to end, by the measured time between two ends.
    pub fn time_of_ends(&self, ends: u64) -> DurationMs {
        self.measured_time_of_ends(ends).unwrap_or(RETRY_UNMEASURED)
    }

    /// `None` before anything was measured.
    fn measured_time_of_ends(&self, ends: u64) -> Option<DurationMs> {
        let micros = self.gauges.end_interval_micros.load(Ordering::Relaxed);
        let millis = micros.saturating_mul(ends).div_ceil(1_000);
        (micros > 0).then(|| DurationMs::from_millis(i64::try_from(millis).unwrap_or(i64::MAX)))
    }

    /// Lets the thread look at its sequences again.
    pub fn wake(&self) {
        self.lock().woken = true;
        self.signal.notify_one();
    }

    /// Asks the thread to end.
    pub fn stop(&self) {
        self.lock().stopping = true;
        self.signal.notify_one();
    }

    /// Records that the thread has ended by its own fault.
    pub fn mark_dead(&self) {
        let mut state = self.lock();
        state.dead = true;
        state.arrivals.clear();
    }

    /// Why streams end without a terminal event of their own.
    pub fn end_error(&self) -> Error {
        if self.lock().stopping {
            return Error::new(ErrorCode::ShuttingDown, "the model was stopped before the answer was complete");
        }
        Error::internal("the model's thread ended unexpectedly")
    }

    /// Takes what has arrived; waits for a signal first when there is nothing to compute.
    pub fn collect(&self, work: Work) -> Collected {
        let mut state = self.lock();
        while work == Work::None && !state.woken && !state.stopping {
            state = self.signal.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let woken = std::mem::take(&mut state.woken);
        Collected { arrivals: std::mem::take(&mut state.arrivals), woken, stopping: state.stopping }
    }

    pub fn report_over(&self, tier: ServiceTier) {
        self.gauges.alive[tier.index()].fetch_sub(1, Ordering::AcqRel);
    }

    pub fn report_places(&self, running: usize, parked: usize) {
        self.gauges.running.store(running as u64, Ordering::Release);
        self.gauges.parked.store(parked as u64, Ordering::Release);
    }

    pub fn report_step(&self, produced: u64) {
        self.gauges.produced.fetch_add(produced, Ordering::AcqRel);
        self.gauges.steps.fetch_add(1, Ordering::AcqRel);
    }

    pub fn report_end_interval(&self, micros: u64) {
        self.gauges.end_interval_micros.store(micros.max(1), Ordering::Relaxed);
    }

    pub fn load(&self) -> EngineLoad {
        let get = |gauge: &AtomicU64| gauge.load(Ordering::Acquire);
        let (running, parked) = (get(&self.gauges.running), get(&self.gauges.parked));
        let alive = self.gauges.alive(ServiceTier::Flex);
        EngineLoad {
            running,
            parked,
            queued: alive.saturating_sub(running).saturating_sub(parked),
            steps: get(&self.gauges.steps),
            produced: get(&self.gauges.produced),
        }
    }
}

/// Whether the thread has anything to compute.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Work {
    Some,
    None,
}
