//! One replica as this gateway sees it: where it is, how much it does for us, and whether it is well.

use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Uri};
use http_body_util::Full;
use sublet_core::supply::{EngineKind, Replica, ReplicaSource, ReplicaState, SecretSource};
use sublet_core::{DurationMs, Error, Result, Timestamp, TokenCount};

use super::breaker::Breaker;
use super::kv::Follower;
use super::order::Beginning;
use crate::routing::{Cached, Candidate};

pub(crate) struct Station {
    pub replica: Arc<Replica>,
    /// `Bearer …`, read when the replica was met first.
    authorization: Option<HeaderValue>,
    load: Arc<Load>,
    breaker: Mutex<Breaker>,
    /// Hears what its cache keeps.
    follower: Option<Arc<Follower>>,
}

/// What a replica has to do for this gateway. It outlives changes of the replica's definition.
struct Load {
    in_flight: AtomicU32,
    /// Tokens of prompts that it probably still reads.
    reading: AtomicI64,
    /// Requests among those in flight that it has begun to answer.
    writing: AtomicU32,
    /// How many it was seen to take at once: less after it said that it is full, more after each success.
    taken_max: AtomicU32,
}

impl Default for Load {
    fn default() -> Self {
        Self {
            in_flight: AtomicU32::new(0),
            reading: AtomicI64::new(0),
            writing: AtomicU32::new(0),
            taken_max: AtomicU32::new(u32::MAX),
        }
    }
}

/// One request's place at a replica.
pub(crate) struct Seat {
    load: Arc<Load>,
    /// What it has to read for this request; 0 once it writes.
    reading: i64,
    writes: bool,
}

impl Seat {
    /// The prompt was read: the answer begins.
    pub fn begin_answer(&mut self) {
        self.load.reading.fetch_sub(std::mem::take(&mut self.reading), Ordering::AcqRel);
        if !std::mem::replace(&mut self.writes, true) {
            self.load.writing.fetch_add(1, Ordering::AcqRel);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.load.reading.fetch_sub(self.reading, Ordering::AcqRel);
        if self.writes {
            self.load.writing.fetch_sub(1, Ordering::AcqRel);
        }
        self.load.in_flight.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Whether a request may be sent to a replica.
pub(crate) enum Entry {
    Open(Seat),
    /// It has as much to do as it takes.
    Full,
    /// It is left alone.
    Closed,
}

impl Station {
    pub fn new(replica: Arc<Replica>, secrets: &dyn SecretSource) -> Result<Self> {
        let authorization = match &replica.secret {
            None => None,
            Some(name) => Some(bearer(&secrets.read(name)?)?),
        };
        let follower = replica.kv_events.as_ref().and_then(|endpoint| Follower::start(replica.id.as_str(), endpoint));
        Ok(Self { replica, authorization, load: Arc::default(), breaker: Mutex::default(), follower: follower.map(Arc::new) })
    }

    /// The same replica after a change of its definition: what it does for us goes on.
    pub fn after(self, before: &Self) -> Self {
        let is_same = self.replica.kv_events == before.replica.kv_events;
        let follower = if is_same { before.follower.clone() } else { self.follower };
        Self { load: Arc::clone(&before.load), follower, ..self }
    }

    /// Whether what it does has to be paid.
    pub fn is_bought(&self) -> bool {
        self.replica.source == ReplicaSource::Supplier
    }

    /// Whether it takes nothing new.
    pub fn is_draining(&self) -> bool {
        self.replica.state == ReplicaState::Draining
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a request that has so many tokens to be read, if there is one and the replica is well.
    pub fn enter(&self, reading: TokenCount, now: Timestamp) -> Entry {
        if self.is_draining() {
            return Entry::Closed;
        }
        let busy = self.load.in_flight.fetch_add(1, Ordering::AcqRel);
        self.load.reading.fetch_add(reading.get(), Ordering::AcqRel);
        let seat = Seat { load: Arc::clone(&self.load), reading: reading.get(), writes: false };
        if busy >= self.places() {
            // A place at a replica that rests is none to wait for.
            return if self.is_resting() { Entry::Closed } else { Entry::Full };
        }
        if self.breaker().admit(now) { Entry::Open(seat) } else { Entry::Closed }
    }

    /// Requests that it takes at once.
    fn places(&self) -> u32 {
        self.replica.in_flight_max.min(self.load.taken_max.load(Ordering::Acquire))
    }

    /// It said that it is full, with one more than it can take in flight.
    pub fn refused(&self) {
        let taken = self.in_flight().saturating_sub(1).max(1);
        self.load.taken_max.fetch_min(taken, Ordering::AcqRel);
    }

    /// Requests of this gateway that it works on.
    pub fn in_flight(&self) -> u32 {
        self.load.in_flight.load(Ordering::Acquire)
    }

    /// What the router weighs.
    pub fn candidate(&self, prompt: Beginning<'_>) -> Candidate {
        Candidate {
            replica: self.replica.id.clone(),
            reading: TokenCount::new(self.load.reading.load(Ordering::Acquire)),
            writing: self.load.writing.load(Ordering::Acquire),
            cached: self.cached(prompt),
        }
    }

    /// How much it says that its cache has in all.
    pub fn cached_tokens(&self) -> Option<u64> {
        self.follower.as_ref()?.cached_tokens()
    }

    /// What it says that it has of a prompt.
    pub fn cached(&self, prompt: Beginning<'_>) -> Option<Cached> {
        self.follower.as_ref()?.cached(prompt.tokens?, self.replica.engine == EngineKind::Vllm)
    }

    pub fn is_resting(&self) -> bool {
        self.breaker().is_open()
    }

    /// How long until it may be asked again.
    pub fn rest(&self, now: Timestamp) -> Option<DurationMs> {
        self.breaker().wait(now)
    }

    /// Whether a look at it is due: it rests, and its rest is over.
    pub fn wants_probe(&self, now: Timestamp) -> bool {
        let mut breaker = self.breaker();
        breaker.is_open() && breaker.admit(now)
    }

    /// It answers to a look at it.
    pub fn seen(&self, now: Timestamp) {
        self.breaker().seen(now);
    }

    pub fn succeeded(&self) {
        let _ = self.load.taken_max.fetch_update(Ordering::AcqRel, Ordering::Acquire, |most| most.checked_add(1));
        let mut breaker = self.breaker();
        if breaker.is_open() {
            tracing::info!(replica = %self.replica.id, "a replica answers again");
        }
        breaker.succeeded();
    }

    pub fn failed(&self, now: Timestamp, why: &str) {
        if let Some(follower) = &self.follower {
            follower.doubt();
        }
        let mut breaker = self.breaker();
        breaker.failed(now);
        let resting = breaker.is_open();
        drop(breaker);
        tracing::warn!(replica = %self.replica.id, why, resting, "a replica failed");
    }

    pub fn post(&self, path: &str, body: Vec<u8>) -> Result<Request<Full<Bytes>>> {
        self.request(Method::POST, (self.replica.base_url.as_str(), path), body)
    }

    /// To a path of the engine's own, which lies beside those of OpenAI's API.
    pub fn post_beside(&self, path: &str, body: Vec<u8>) -> Result<Request<Full<Bytes>>> {
        let base = self.replica.base_url.as_str();
        self.request(Method::POST, (base.strip_suffix("/v1").unwrap_or(base), path), body)
    }

    /// Asks whether it is there: every OpenAI-compatible server lists its models.
    pub fn probe(&self) -> Result<Request<Full<Bytes>>> {
        self.request(Method::GET, (self.replica.base_url.as_str(), "/models"), Vec::new())
    }

    fn request(&self, method: Method, (base, path): (&str, &str), body: Vec<u8>) -> Result<Request<Full<Bytes>>> {
        let uri: Uri = format!("{base}{path}").parse().map_err(|error| Error::internal(format!("{base}{path}: {error}")))?;
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
        if let Some(authorization) = &self.authorization {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        Ok(request)
    }
}

fn bearer(secret: &str) -> Result<HeaderValue> {
    let mut value = HeaderValue::from_str(&format!("Bearer {secret}"))
        .map_err(|_| Error::internal("a replica's secret has characters that no header can carry"))?;
    value.set_sensitive(true);
    Ok(value)
}
