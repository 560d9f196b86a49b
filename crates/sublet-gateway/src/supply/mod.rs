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
mod events;
mod exchange;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
pub(crate) mod reply;
pub(crate) mod request;
mod station;

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::StreamExt;
use sublet_core::supply::{Catalogue, RemoteModel, RemoteModels, Replica, SecretSource};
use sublet_core::{Clock, DurationMs, Result, Timestamp, TokenCount};

use client::Client;
pub(crate) use exchange::{Order, start};
use station::Station;
use sublet_core::id::ReplicaId;

use crate::config::SupplyConfig;
use crate::routing::{Block, Candidate, Router, Routing};

/// Replicas looked at by themselves at once.
const PROBES_MAX: usize = 16;

pub(crate) struct Supply {
    catalogue: Arc<dyn Catalogue>,
    secrets: Arc<dyn SecretSource>,
    client: Client,
    clock: Arc<dyn Clock>,
    config: SupplyConfig,
    fleet: Mutex<Fleet>,
    /// Where beginnings of prompts were sent.
    router: Mutex<Router>,
    /// Whose turn it is among replicas that are alike.
    turn: AtomicUsize,
}

/// The replicas that were asked for so far.
#[derive(Default)]
struct Fleet {
    /// What `stations` was made from.
    models: Arc<RemoteModels>,
    stations: HashMap<ReplicaId, Arc<Station>>,
}

/// How a replica is doing, as this gateway sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReplicaStatus {
    pub replica: ReplicaId,
    pub in_flight: u32,
    /// Left alone after failures; until when at least.
    pub resting_until: Option<Timestamp>,
}

impl Supply {
    pub fn new(
        catalogue: Arc<dyn Catalogue>,
        secrets: Arc<dyn SecretSource>,
        clock: Arc<dyn Clock>,
        config: SupplyConfig,
    ) -> Result<Self> {
        let client = Client::new()?;
        Ok(Self {
            catalogue,
            secrets,
            client,
            clock,
            config,
            fleet: Mutex::default(),
            router: Mutex::new(Router::new(Routing::default())),
            turn: AtomicUsize::new(0),
        })
    }

    pub fn models(&self) -> Arc<RemoteModels> {
        self.catalogue.remote_models()
    }

    pub fn find(&self, name: &str) -> Option<Arc<RemoteModel>> {
        self.models().models.get(name).cloned()
    }

    /// The replicas of a model in the order in which they should be asked: where the first token would come first.
    fn stations(&self, model: &RemoteModel, prompt: (&[Block], TokenCount)) -> Vec<Arc<Station>> {
        let mut stations: Vec<Arc<Station>> = {
            let mut fleet = self.fleet.lock().unwrap_or_else(PoisonError::into_inner);
            if fleet.renew(self.models()) {
                self.router().keep_only(|replica| fleet.stations.contains_key(replica));
            }
            model.replicas.iter().filter_map(|replica| fleet.station(replica, self.secrets.as_ref())).collect()
        };
        if stations.len() > 1 {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed) % stations.len();
            stations.rotate_left(turn);
            let candidates: Vec<Candidate> = stations.iter().map(|station| station.candidate()).collect();
            let order = self.router().rank(prompt.0, prompt.1, &candidates, self.clock.now());
            // Stable: among equals it is still the turn that decides.
            stations = order.into_iter().map(|place| Arc::clone(&stations[place])).collect();
            stations.sort_by_key(|station| station.is_resting());
        }
        stations
    }

    fn router(&self) -> MutexGuard<'_, Router> {
        self.router.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tokens of a prompt that a replica probably has to read.
    fn unread(&self, (blocks, prompt): (&[Block], TokenCount), replica: &ReplicaId) -> TokenCount {
        let uncached = self.router().uncached(blocks, prompt, replica, self.clock.now());
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

    /// Looks at the replicas whose rest is over, so that no request has to.
    pub async fn probe_resting(&self) {
        let now = self.clock.now();
        let due: Vec<Arc<Station>> = {
            let fleet = self.fleet.lock().unwrap_or_else(PoisonError::into_inner);
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
        let fleet = self.fleet.lock().unwrap_or_else(PoisonError::into_inner);
        let mut status: Vec<ReplicaStatus> = fleet
            .stations
            .values()
            .map(|station| ReplicaStatus {
                replica: station.replica.id.clone(),
                in_flight: station.in_flight(),
                resting_until: station.rest(now).map(|rest| now.plus(rest.max(DurationMs::ZERO))),
            })
            .collect();
        status.sort_by(|a, b| a.replica.cmp(&b.replica));
        status
    }
}

impl Fleet {
    /// Forgets what is no longer in the catalogue, or no longer as it was; `true` if the catalogue changed.
    fn renew(&mut self, models: Arc<RemoteModels>) -> bool {
        if Arc::ptr_eq(&self.models, &models) {
            return false;
        }
        let mut known: HashMap<&ReplicaId, &Arc<Replica>> = HashMap::new();
        for model in models.models.values() {
            known.extend(model.replicas.iter().map(|replica| (&replica.id, replica)));
        }
        self.stations.retain(|id, station| known.get(id).is_some_and(|replica| **replica == station.replica));
        self.models = models;
        true
    }

    /// A replica whose secret cannot be read is left out; the log says why.
    fn station(&mut self, replica: &Arc<Replica>, secrets: &dyn SecretSource) -> Option<Arc<Station>> {
        if let Some(known) = self.stations.get(&replica.id) {
            return Some(Arc::clone(known));
        }
        match Station::new(Arc::clone(replica), secrets) {
            Ok(station) => {
                let station = Arc::new(station);
                self.stations.insert(replica.id.clone(), Arc::clone(&station));
                Some(station)
            }
            Err(error) => {
                tracing::error!(replica = %replica.id, ?error, "a replica cannot be used");
                None
            }
        }
    }
}
