//! The gateway's parts, and its life: open, recover, serve, drain, stop.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use sublet_core::admission::Admission;
use sublet_core::engine::ModelEngine;
use sublet_core::id::OrganizationId;
use sublet_core::response::ResponseStore;
use sublet_core::supply::{Catalogue, SecretSource};
use sublet_core::tokenizer::Tokenizers;
use sublet_core::usage::UsageSink;
use sublet_core::{Clock, DurationMs, Error, ErrorCode, IdMint, Nanos, Result};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinHandle;

use crate::auth::AccessCache;
use crate::config::GatewayConfig;
use crate::idempotency::Idempotency;
use crate::journal::settler::Settler;
use crate::journal::{Journal, JournalDirectory, OpenReport};
use crate::keys::Keys;
use crate::limits::Limits;
use crate::measured::Measured;
use crate::metrics::{GrantTimes, Metrics, MetricsSnapshot};
use crate::purse::Bank;
use crate::supply::{ReplicaStatus, Supply};

/// Large bodies being read at once: with the bound on a body's size, a bound on their memory.
const LARGE_BODIES_MAX: usize = 32;
/// How long stopped streams have to write their end.
const STOP_GRACE: DurationMs = DurationMs::from_seconds(2);
/// How long a shutdown tries to settle the journal and to return slices.
const SETTLE_AT_END: DurationMs = DurationMs::from_seconds(5);
/// Pause between two looks while slices go back at the end.
const RETURN_PAUSE: DurationMs = DurationMs::from_millis(20);

/// What the gateway calls.
#[derive(Clone)]
pub struct GatewayPorts {
    pub admission: Arc<dyn Admission>,
    pub sink: Arc<dyn UsageSink>,
    pub engine: Arc<dyn ModelEngine>,
    pub catalogue: Arc<dyn Catalogue>,
    pub responses: Arc<dyn ResponseStore>,
    pub secrets: Arc<dyn SecretSource>,
    pub tokenizers: Arc<dyn Tokenizers>,
    pub ids: IdMint,
    pub journal: Arc<dyn JournalDirectory>,
}

/// Where the gateway is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// The journal of the last life is not settled yet.
    Starting,
    Serving,
    /// No new requests; those in flight go on.
    Draining,
    /// Requests in flight are ended.
    Stopping,
}

/// What a shutdown left.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct ShutdownReport {
    /// Requests that had not ended by themselves at the deadline.
    pub stopped: usize,
    /// Durable records that are settled at the next start.
    pub unsettled: u64,
    /// Slices that the cloud will take back by itself.
    pub slices_left: usize,
}

/// The data plane of one process.
pub struct Gateway {
    pub(crate) config: GatewayConfig,
    pub(crate) admission: Arc<dyn Admission>,
    pub(crate) engine: Arc<dyn ModelEngine>,
    pub(crate) supply: Arc<Supply>,
    pub(crate) responses: Arc<dyn ResponseStore>,
    pub(crate) ids: IdMint,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) access: AccessCache,
    pub(crate) keys: Arc<Keys>,
    pub(crate) limits: Limits,
    pub(crate) journal: Journal,
    pub(crate) idempotency: Idempotency,
    pub(crate) metrics: Metrics,
    pub(crate) measured: Measured,
    grants: Arc<GrantTimes>,
    /// Turns for bodies that are large, or do not say how large they are.
    pub(crate) large_bodies: Semaphore,
    in_flight: Arc<Entrance>,
    phase: watch::Sender<Phase>,
    /// Here until recovery hands it to its task.
    settler: tokio::sync::Mutex<Option<Settler>>,
    settled: watch::Receiver<u64>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

#[derive(Default)]
struct Entrance {
    inside: AtomicUsize,
    left: Notify,
}

/// One request in flight, until it is dropped.
pub(crate) struct Entered(Arc<Entrance>);

impl Drop for Entered {
    fn drop(&mut self) {
        if self.0.inside.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.left.notify_waiters();
        }
    }
}

impl Gateway {
    /// Opens the journal. Nothing is served before [`Gateway::recover`].
    pub fn open(config: GatewayConfig, ports: GatewayPorts) -> Result<(Arc<Self>, OpenReport)> {
        let clock = Arc::clone(ports.ids.clock());
        let (journal, report) = Journal::open(ports.journal, config.journal, Arc::clone(&clock))?;
        let settler = Settler::new(Arc::clone(journal.segments()), ports.sink, config.journal);
        let grants = Arc::<GrantTimes>::default();
        let bank = Bank {
            admission: Arc::clone(&ports.admission),
            clock: Arc::clone(&clock),
            ids: ports.ids.clone(),
            grants: Arc::clone(&grants),
            gateway: config.gateway.clone(),
            fence: config.fence,
            tight_for: config.tight_for,
        };
        let session = (config.gateway.clone(), config.fence);
        let limits = Limits::new(Arc::clone(&ports.admission), Arc::clone(&clock), session, config.meters_max);
        let gateway = Self {
            access: AccessCache::new(Arc::clone(&ports.admission), Arc::clone(&clock), config.access_cache_entries_max),
            keys: Keys::new(Arc::new(bank), config.keys_max),
            limits,
            idempotency: Idempotency::new(config.idempotency_entries_max),
            admission: ports.admission,
            engine: ports.engine,
            supply: Arc::new(Supply::new((ports.catalogue, ports.secrets, ports.tokenizers), Arc::clone(&clock), config.supply)?),
            responses: ports.responses,
            ids: ports.ids,
            clock,
            journal,
            metrics: Metrics::default(),
            measured: Measured::default(),
            grants,
            large_bodies: Semaphore::new(LARGE_BODIES_MAX),
            in_flight: Arc::default(),
            phase: watch::channel(Phase::Starting).0,
            settled: settler.watch_settled(),
            settler: tokio::sync::Mutex::new(Some(settler)),
            tasks: Mutex::default(),
            config,
        };
        Ok((Arc::new(gateway), report))
    }

    /// Settles what the last life left, then serves. May be repeated after an error.
    pub async fn recover(self: &Arc<Self>) -> Result<u64> {
        let mut slot = self.settler.lock().await;
        let Some(settler) = slot.as_mut() else { return Ok(0) };
        let settled = settler.settle_all().await?;
        let Some(settler) = slot.take() else { return Ok(settled) };
        let (gateway, interval) = (Arc::downgrade(self), self.config.sweep_interval);
        let tasks = [
            tokio::spawn(settler.run()),
            tokio::spawn(sweep(gateway.clone(), interval)),
            tokio::spawn(tell_limits(gateway.clone(), interval)),
            tokio::spawn(probe(gateway, interval)),
        ];
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).extend(tasks);
        self.phase.send_replace(Phase::Serving);
        Ok(settled)
    }

    /// Why no work may be sent here, if so.
    pub fn ready(&self) -> Result<()> {
        match *self.phase.borrow() {
            Phase::Starting => {
                return Err(Error::new(ErrorCode::StoreUnavailable, "this gateway is settling what its last life left")
                    .retry_after(DurationMs::from_seconds(1)));
            }
            Phase::Serving => {}
            Phase::Draining | Phase::Stopping => {
                return Err(Error::new(ErrorCode::ShuttingDown, "this gateway takes no new requests")
                    .retry_after(DurationMs::from_seconds(2)));
            }
        }
        self.journal.ready()
    }

    /// Counts a request in, if there is room and the gateway is ready.
    pub(crate) fn enter(&self) -> Result<Entered> {
        // Counted first, so that a drain that begins now sees it.
        let inside = self.in_flight.inside.fetch_add(1, Ordering::AcqRel);
        let entered = Entered(Arc::clone(&self.in_flight));
        self.ready()?;
        if inside >= self.config.requests_in_flight_max {
            return Err(Error::new(ErrorCode::QueueFull, "this gateway has as many requests in flight as it may")
                .retry_after(DurationMs::from_seconds(1)));
        }
        Ok(entered)
    }

    pub(crate) fn watch_phase(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    /// Gives back the slices that nobody holds anything of; answers what became available.
    pub async fn release_idle_slices_of(&self, organization: &OrganizationId) -> Nanos {
        self.keys.retire_unused(Some(organization), self.clock.now());
        self.keys.give_back(Some(organization)).await
    }

    /// Waits until everything served before this call is settled, at most `within`.
    pub async fn flush(&self, within: DurationMs) -> Result<()> {
        let goal = self.journal.barrier().await;
        let mut settled = self.settled.clone();
        let reached = tokio::time::timeout(within.to_std(), settled.wait_for(|settled| *settled >= goal)).await;
        match reached {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Error::new(ErrorCode::StoreUnavailable, "usage records are durable but not settled yet")
                .retry_after(DurationMs::from_seconds(1))),
        }
    }

    /// The sequence of the last settled record.
    pub fn settled_up_to(&self) -> u64 {
        *self.settled.borrow()
    }

    /// Takes no new requests, lets those in flight end until `deadline`, ends the rest, settles, and returns slices.
    pub async fn shutdown(&self, deadline: DurationMs) -> ShutdownReport {
        self.phase.send_replace(Phase::Draining);
        self.wait_until_empty(deadline).await;
        let stopped = self.in_flight.inside.load(Ordering::Acquire);
        self.phase.send_replace(Phase::Stopping);
        self.wait_until_empty(STOP_GRACE).await;
        if let Err(error) = self.flush(SETTLE_AT_END).await {
            tracing::warn!(?error, "the journal is settled at the next start");
        }
        self.return_all(SETTLE_AT_END).await;
        for task in self.tasks.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            task.abort();
        }
        let unsettled = self.journal.segments().durable().saturating_sub(self.settled_up_to());
        ShutdownReport { stopped, unsettled, slices_left: self.keys.with_slices() }
    }

    async fn wait_until_empty(&self, within: DurationMs) {
        let empty = async {
            loop {
                let left = self.in_flight.left.notified();
                if self.in_flight.inside.load(Ordering::Acquire) == 0 {
                    return;
                }
                left.await;
            }
        };
        // Past the deadline the caller goes on with what is left.
        let _in_time = tokio::time::timeout(within.to_std(), empty).await;
    }

    async fn return_all(&self, within: DurationMs) {
        let all = async {
            loop {
                self.keys.retire_unused(None, self.clock.now());
                self.keys.give_back(None).await;
                self.limits.give_back(self.clock.now()).await;
                if self.keys.with_slices() == 0 {
                    return;
                }
                tokio::time::sleep(RETURN_PAUSE.to_std()).await;
            }
        };
        // What is left is fenced off by the next session.
        let _in_time = tokio::time::timeout(within.to_std(), all).await;
    }

    /// The replicas of remote models, as this gateway sees them.
    pub fn replicas(&self) -> Vec<ReplicaStatus> {
        self.supply.status()
    }

    pub fn metrics(&self) -> MetricsSnapshot {
        let journal = self.journal.figures();
        let durable = self.journal.segments().durable();
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        MetricsSnapshot {
            in_flight: count(self.in_flight.inside.load(Ordering::Acquire)),
            held: self.keys.held(),
            journal_records: journal.records,
            journal_syncs: journal.syncs,
            journal_sync_micros: journal.sync_micros,
            journal_waiting: count(journal.waiting),
            journal_unsettled: durable.saturating_sub(self.settled_up_to()),
            journal_bytes: self.journal.segments().unsettled_bytes(),
            slices_returning: count(self.keys.outstanding()),
            grants: self.grants.read(),
            calls_unaccounted: self.supply.calls_unaccounted(),
            ..self.metrics.snapshot()
        }
    }
}

/// Returns idle slices and forgets idle keys, until the gateway is gone or the task is aborted.
async fn sweep(gateway: std::sync::Weak<Gateway>, interval: DurationMs) {
    loop {
        tokio::time::sleep(interval.to_std()).await;
        let Some(gateway) = gateway.upgrade() else { return };
        let now = gateway.clock.now();
        gateway.keys.retire_unused(None, now.minus(gateway.config.slice_idle));
        gateway.keys.give_back(None).await;
        gateway.keys.forget_idle();
    }
}

/// Tells what is held of limits and what is owed to them, whatever else takes its time.
async fn tell_limits(gateway: std::sync::Weak<Gateway>, interval: DurationMs) {
    loop {
        tokio::time::sleep(interval.to_std()).await;
        let Some(gateway) = gateway.upgrade() else { return };
        gateway.limits.sweep(gateway.clock.now().minus(gateway.config.limit_idle));
    }
}

/// Looks at replicas that failed, until the gateway is gone or the task is aborted.
async fn probe(gateway: std::sync::Weak<Gateway>, interval: DurationMs) {
    loop {
        tokio::time::sleep(interval.to_std()).await;
        let Some(supply) = gateway.upgrade().map(|gateway| Arc::clone(&gateway.supply)) else { return };
        supply.probe_resting().await;
    }
}
