//! Models that other servers answer for: which replica is asked, and what becomes of its answer.
//!
//! An exchange with a replica looks to the rest of the gateway like a generation of the engine in this
//! process, so that money, records, silence and stopping have one implementation.
//!
//! Invariants, each with a test: another replica is tried only before anything of an answer was passed on;
//! an exchange is charged once, however many replicas were tried; nothing is passed on that is not paid for;
//! whatever a server does, the wait and the memory for it are bounded.

mod breaker;
mod client;
mod count;
mod events;
mod exchange;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
pub(crate) mod kv;
pub(crate) mod members;
mod order;
pub(crate) mod permit;
mod pump;
pub(crate) mod purchase;
mod queue;
mod reading;
mod recount;
pub(crate) mod reply;
pub(crate) mod request;
mod search;
mod station;
mod tally;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::StreamExt;
use sublet_core::card::Cards;
use sublet_core::offering::Offerings;
use sublet_core::supply::{Catalogue, RemoteModel, RemoteModels, Replica, ReplicaState, SecretSource};
use sublet_core::tokenizer::Tokenizers;
use sublet_core::{Clock, DurationMs, Result, Timestamp, TokenCount};

use client::Client;
pub(crate) use exchange::start;
use order::Beginning;
pub(crate) use order::Order;
use station::Station;
use sublet_core::id::ReplicaId;
use tokio::sync::Semaphore;

use crate::config::SupplyConfig;
use crate::routing::{Block, Candidate, Router, Routing};
use queue::Queue;

/// Replicas looked at by themselves at once.
const PROBES_MAX: usize = 16;

pub(crate) struct Supply {
    catalogue: Arc<dyn Catalogue>,
    secrets: Arc<dyn SecretSource>,
    tokenizers: Arc<dyn Tokenizers>,
    recounts: Arc<Semaphore>,
    client: Client,
    clock: Arc<dyn Clock>,
    config: SupplyConfig,
    fleet: Mutex<Fleet>,
    /// Where beginnings of prompts were sent.
    router: Mutex<Router>,
    /// Whose turn it is among replicas that are alike.
    turn: AtomicUsize,
    /// Suppliers that were asked and neither delivered nor counted anything.
    unaccounted: AtomicU64,
}

/// The replicas that were asked for so far.
#[derive(Default)]
struct Fleet {
    /// What `stations` was made from.
    models: Arc<RemoteModels>,
    stations: HashMap<ReplicaId, Arc<Station>>,
    /// By model.
    queues: HashMap<String, Arc<Queue>>,
}

/// How a replica is doing, as this gateway sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReplicaStatus {
    pub replica: ReplicaId,
    pub in_flight: u32,
    /// Left alone after failures; until when at least.
    pub resting_until: Option<Timestamp>,
    /// Tokens that it says its cache has; `None` if it does not say.
    pub cached_tokens: Option<u64>,
}

impl Supply {
    pub fn new(
        (catalogue, secrets, tokenizers): (Arc<dyn Catalogue>, Arc<dyn SecretSource>, Arc<dyn Tokenizers>),
        clock: Arc<dyn Clock>,
        config: SupplyConfig,
    ) -> Result<Self> {
        let client = Client::new()?;
        Ok(Self {
            catalogue,
            secrets,
            tokenizers,
            recounts: Arc::new(Semaphore::new(recount::COUNTS_MAX)),
            client,
            clock,
            config,
            fleet: Mutex::default(),
            router: Mutex::new(Router::new(Routing::default())),
            turn: AtomicUsize::new(0),
            unaccounted: AtomicU64::new(0),
        })
    }

    pub fn models(&self) -> Arc<RemoteModels> {
        self.catalogue.remote_models()
    }

    pub fn cards(&self) -> Arc<Cards> {
        self.catalogue.cards()
    }

    pub fn offerings(&self) -> Arc<Offerings> {
        self.catalogue.offerings()
    }

    pub fn find(&self, name: &str) -> Option<Arc<RemoteModel>> {
        self.models().models.get(name).cloned()
    }

    /// The replicas of a model in the order in which they should be asked: where the first token would come first.
    fn stations(&self, model: &RemoteModel, prompt: Beginning<'_>) -> Vec<Arc<Station>> {
        let mut stations: Vec<Arc<Station>> = {
            let mut fleet = self.fleet();
            self.renew(&mut fleet);
            model.replicas.iter().filter_map(|replica| fleet.station(replica, self.secrets.as_ref())).collect()
        };
        if stations.len() > 1 {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed) % stations.len();
            stations.rotate_left(turn);
            let candidates: Vec<Candidate> = stations.iter().map(|station| station.candidate(prompt)).collect();
            let order = self.router().rank(prompt.blocks, prompt.size, &candidates, self.clock.now());
            // Stable: among equals it is still the turn that decides.
            stations = order.into_iter().map(|place| Arc::clone(&stations[place])).collect();
            // What is bought serves when the fleet has no place, and what rests last of all.
            stations.sort_by_key(|station| (station.is_resting(), station.is_bought()));
        }
        stations
    }

    /// Who waits for the replicas of a model.
    fn queue(&self, model: &str) -> Arc<Queue> {
        let mut fleet = self.fleet();
        if let Some(queue) = fleet.queues.get(model) {
            return Arc::clone(queue);
        }
        let queue = Queue::new(Arc::clone(&self.clock), self.config.queue_max);
        fleet.queues.insert(model.to_owned(), Arc::clone(&queue));
        queue
    }

    fn fleet(&self) -> MutexGuard<'_, Fleet> {
        self.fleet.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn renew(&self, fleet: &mut Fleet) {
        if fleet.renew(&self.models(), self.secrets.as_ref()) {
            self.router().keep_only(|replica| fleet.stations.contains_key(replica));
        }
    }

    fn router(&self) -> MutexGuard<'_, Router> {
        self.router.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tokens of a prompt that a replica probably has to read.
    fn unread(&self, prompt: Beginning<'_>, station: &Station) -> TokenCount {
        let replica = (&station.replica.id, station.cached(prompt));
        let uncached = self.router().uncached(prompt.blocks, prompt.size, replica, self.clock.now());
        TokenCount::new(i64::try_from(uncached).unwrap_or(i64::MAX))
    }

    /// A replica answers: it has the beginning of the prompt from now on.
    fn answers(&self, blocks: &[Block], station: &Station) {
        if !blocks.is_empty() {
            self.router().sent(blocks, &station.replica.id, self.clock.now());
        }
    }

    /// A replica failed: nobody knows what it still has.
    fn failed(&self, station: &Station, why: &str) {
        station.failed(self.clock.now(), why);
        self.router().forget(&station.replica.id);
    }

    /// A supplier was asked, and it is not known whether anything is owed for that.
    fn unaccounted(&self, station: &Station) {
        if station.is_bought() {
            self.unaccounted.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How often that was so.
    pub fn calls_unaccounted(&self) -> u64 {
        self.unaccounted.load(Ordering::Relaxed)
    }

    /// Looks at the replicas whose rest is over, so that no request has to.
    pub async fn probe_resting(&self) {
        let now = self.clock.now();
        let due: Vec<Arc<Station>> = {
            let mut fleet = self.fleet();
            self.renew(&mut fleet);
            fleet.stations.values().filter(|station| station.wants_probe(now)).cloned().collect()
        };
        futures_util::stream::iter(due).for_each_concurrent(PROBES_MAX, |station| self.probe(station)).await;
    }

    async fn probe(&self, station: Arc<Station>) {
        let look = async {
            let request = station.probe().map_err(|error| format!("{error:?}"))?;
            let answer = self.client.send(request).await?;
            // A server that lists no models is there all the same; one that refuses the key is not.
            let status = answer.status().as_u16();
            if status < 500 && !matches!(status, 401 | 403) { Ok(()) } else { Err(format!("status {status} to a look at it")) }
        };
        let seen = tokio::time::timeout(self.config.probe_wait.to_std(), look).await;
        match seen.unwrap_or_else(|_| Err("silence to a look at it".to_owned())) {
            Ok(()) => station.seen(self.clock.now()),
            Err(why) => self.failed(&station, &why),
        }
    }

    /// All replicas that were asked for so far.
    pub fn status(&self) -> Vec<ReplicaStatus> {
        let now = self.clock.now();
        let fleet = self.fleet();
        let mut status: Vec<ReplicaStatus> = fleet
            .stations
            .values()
            .map(|station| ReplicaStatus {
                replica: station.replica.id.clone(),
                in_flight: station.in_flight(),
                resting_until: station.rest(now).map(|rest| now.plus(rest.max(DurationMs::ZERO))),
                cached_tokens: station.cached_tokens(),
            })
            .collect();
        status.sort_by(|a, b| a.replica.cmp(&b.replica));
        status
    }
}

impl Fleet {
    /// Forgets what is no longer in the catalogue, and takes on what is no longer as it was; `true` if the catalogue
    /// changed. What of `flex` is at a replica that takes no more requests gives way.
    fn renew(&mut self, models: &Arc<RemoteModels>, secrets: &dyn SecretSource) -> bool {
        if Arc::ptr_eq(&self.models, models) {
            return false;
        }
        let mut before = std::mem::take(&mut self.stations);
        for model in models.models.values() {
            for replica in &model.replicas {
                let Some(known) = before.remove(&replica.id) else { continue };
                let station = if known.replica == *replica { Some(known) } else { changed(replica, &known, secrets) };
                self.stations.extend(station.map(|station| (replica.id.clone(), station)));
                if replica.state == ReplicaState::Draining
                    && let Some(queue) = self.queues.get(&model.name)
                {
                    queue.clear(&replica.id);
                }
            }
        }
        for gone in before.into_keys() {
            self.queues.values().for_each(|queue| queue.clear(&gone));
        }
        self.queues.retain(|name, _| models.models.contains_key(name));
        self.models = Arc::clone(models);
        true
    }

    /// A replica whose secret cannot be read is left out; the log says why.
    fn station(&mut self, replica: &Arc<Replica>, secrets: &dyn SecretSource) -> Option<Arc<Station>> {
        if let Some(known) = self.stations.get(&replica.id) {
            return Some(Arc::clone(known));
        }
        let station = Arc::new(read_secret(replica, secrets)?);
        self.stations.insert(replica.id.clone(), Arc::clone(&station));
        Some(station)
    }
}

fn changed(replica: &Arc<Replica>, before: &Station, secrets: &dyn SecretSource) -> Option<Arc<Station>> {
    read_secret(replica, secrets).map(|station| Arc::new(station.after(before)))
}

fn read_secret(replica: &Arc<Replica>, secrets: &dyn SecretSource) -> Option<Station> {
    let station = Station::new(Arc::clone(replica), secrets);
    station.inspect_err(|error| tracing::error!(replica = %replica.id, ?error, "a replica cannot be used")).ok()
}
