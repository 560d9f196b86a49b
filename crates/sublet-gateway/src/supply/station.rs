//! One replica as this gateway sees it: where it is, how much it does for us, and whether it is well.

use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Uri};
use http_body_util::Full;
use sublet_core::supply::{Replica, ReplicaState, SecretSource};
use sublet_core::{DurationMs, Error, Result, Timestamp, TokenCount};

use super::breaker::Breaker;
use crate::routing::Candidate;

pub(crate) struct Station {
    pub replica: Arc<Replica>,
    /// `Bearer …`, read when the replica was met first.
    authorization: Option<HeaderValue>,
    in_flight: AtomicU32,
    /// Tokens of prompts that it probably still reads.
    reading: AtomicI64,
    /// Requests among those in flight that it has begun to answer.
    writing: AtomicU32,
    breaker: Mutex<Breaker>,
}

/// One request's place at a replica.
pub(crate) struct Seat {
    station: Arc<Station>,
    /// What it has to read for this request; 0 once it writes.
    reading: i64,
    writes: bool,
}

impl Seat {
    /// The prompt was read: the answer begins.
    pub fn begin_answer(&mut self) {
        self.station.reading.fetch_sub(std::mem::take(&mut self.reading), Ordering::AcqRel);
        if !std::mem::replace(&mut self.writes, true) {
            self.station.writing.fetch_add(1, Ordering::AcqRel);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.station.reading.fetch_sub(self.reading, Ordering::AcqRel);
        if self.writes {
            self.station.writing.fetch_sub(1, Ordering::AcqRel);
        }
        self.station.in_flight.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Station {
    pub fn new(replica: Arc<Replica>, secrets: &dyn SecretSource) -> Result<Self> {
        let authorization = match &replica.secret {
            None => None,
            Some(name) => Some(bearer(&secrets.read(name)?)?),
        };
        Ok(Self {
            replica,
            authorization,
            in_flight: AtomicU32::new(0),
            reading: AtomicI64::new(0),
            writing: AtomicU32::new(0),
            breaker: Mutex::default(),
        })
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a request that has so many tokens to be read, if there is one and the replica is well.
    pub fn enter(self: &Arc<Self>, reading: TokenCount, now: Timestamp) -> Option<Seat> {
        if self.replica.state == ReplicaState::Draining {
            return None;
        }
        let busy = self.in_flight.fetch_add(1, Ordering::AcqRel);
        self.reading.fetch_add(reading.get(), Ordering::AcqRel);
        let seat = Seat { station: Arc::clone(self), reading: reading.get(), writes: false };
        (busy < self.replica.in_flight_max && self.breaker().admit(now)).then_some(seat)
    }

    /// Requests of this gateway that it works on.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Acquire)
    }

    /// What the router weighs.
    pub fn candidate(&self) -> Candidate {
        Candidate {
            replica: self.replica.id.clone(),
            reading: TokenCount::new(self.reading.load(Ordering::Acquire)),
            writing: self.writing.load(Ordering::Acquire),
        }
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
        let mut breaker = self.breaker();
        if breaker.is_open() {
            tracing::info!(replica = %self.replica.id, "a replica answers again");
        }
        breaker.succeeded();
    }

    pub fn failed(&self, now: Timestamp, why: &str) {
        let mut breaker = self.breaker();
        breaker.failed(now);
        let resting = breaker.is_open();
        drop(breaker);
        tracing::warn!(replica = %self.replica.id, why, resting, "a replica failed");
    }

    pub fn post(&self, path: &str, body: Vec<u8>) -> Result<Request<Full<Bytes>>> {
        self.request(Method::POST, path, body)
    }

    /// Asks whether it is there: every OpenAI-compatible server lists its models.
    pub fn probe(&self) -> Result<Request<Full<Bytes>>> {
        self.request(Method::GET, "/models", Vec::new())
    }

    fn request(&self, method: Method, path: &str, body: Vec<u8>) -> Result<Request<Full<Bytes>>> {
        let base = self.replica.base_url.as_str();
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
