//! `Idempotency-Key` on inference: outputs are not kept, so a repeat of a request that was served is
//! refused with the earlier request's id, and is never charged.
//!
//! Bounded memory of this process: after a restart, or once newer keys have pushed a key out, a repeat
//! is served and charged as a new request. Clients that send no key are not affected.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::HeaderMap;
use sha2::{Digest, Sha256};
use sublet_api::route::IDEMPOTENCY_KEY_BYTES_MAX;
use sublet_core::id::{ProjectId, RequestId, ResponseId};
use sublet_core::{DurationMs, Error, ErrorCode, Result};

use crate::dialect::Endpoint;

type Fingerprint = [u8; 32];

struct Entry {
    body: Fingerprint,
    request: RequestId,
    served: bool,
}

#[derive(Default)]
struct Entries {
    known: HashMap<Fingerprint, Entry>,
    /// Oldest first; may name keys that are forgotten already.
    order: VecDeque<Fingerprint>,
}

pub(crate) struct Idempotency {
    entries: Arc<Mutex<Entries>>,
    entries_max: usize,
}

/// A key in use. Dropped without [`Claim::served`] it is free again, so that a failed request can be repeated.
pub(crate) struct Claim {
    entries: Arc<Mutex<Entries>>,
    name: Fingerprint,
    served: bool,
}

fn lock(entries: &Mutex<Entries>) -> MutexGuard<'_, Entries> {
    entries.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a repeat is compared with.
pub(crate) struct Attempt<'a> {
    pub project: &'a ProjectId,
    pub route: &'static str,
    pub body: &'a [u8],
    pub request: &'a RequestId,
}

impl Idempotency {
    pub fn new(entries_max: usize) -> Self {
        Self { entries: Arc::default(), entries_max }
    }

    /// `None` if the request has no key.
    pub fn claim(&self, headers: &HeaderMap, attempt: &Attempt<'_>) -> Result<Option<Claim>> {
        let Some(key) = headers.get("idempotency-key") else { return Ok(None) };
        if key.is_empty() || key.len() > IDEMPOTENCY_KEY_BYTES_MAX {
            return Err(Error::new(
                ErrorCode::InvalidRequest,
                format!("an Idempotency-Key has 1 to {IDEMPOTENCY_KEY_BYTES_MAX} bytes"),
            ));
        }
        let name = Sha256::new()
            .chain_update(attempt.project.as_str())
            .chain_update([0])
            .chain_update(attempt.route)
            .chain_update([0])
            .chain_update(key.as_bytes())
            .finalize()
            .into();
        let body: Fingerprint = Sha256::digest(attempt.body).into();
        let mut entries = lock(&self.entries);
        if let Some(entry) = entries.known.get(&name) {
            return Err(repeat(entry, &body, attempt.route));
        }
        self.make_room(&mut entries);
        entries.known.insert(name, Entry { body, request: attempt.request.clone(), served: false });
        entries.order.push_back(name);
        Ok(Some(Claim { entries: Arc::clone(&self.entries), name, served: false }))
    }

    fn make_room(&self, entries: &mut Entries) {
        while entries.order.len() >= self.entries_max.max(1) {
            if let Some(oldest) = entries.order.pop_front() {
                entries.known.remove(&oldest);
            }
        }
    }
}

fn repeat(entry: &Entry, body: &Fingerprint, route: &str) -> Error {
    let request = &entry.request;
    if entry.body != *body {
        return Error::new(ErrorCode::IdempotencyMismatch, format!("this Idempotency-Key was used with another body by {request}"));
    }
    if entry.served {
        if route == Endpoint::Response.route() {
            let message = format!("this Idempotency-Key was served by {request}; its output is kept only if it said 'store': true");
            return Error::new(ErrorCode::AlreadyServed, message)
                .alternative(format!("GET /v1/responses/{}", ResponseId::of(request)));
        }
        return Error::new(
            ErrorCode::AlreadyServed,
            format!("this Idempotency-Key was served by {request}; its output is not stored"),
        );
    }
    Error::new(ErrorCode::IdempotencyInProgress, format!("{request} with this Idempotency-Key is still running"))
        .retry_after(DurationMs::from_seconds(1))
}

impl Claim {
    /// The request has a durable record.
    pub fn served(mut self) {
        self.served = true;
        if let Some(entry) = lock(&self.entries).known.get_mut(&self.name) {
            entry.served = true;
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.served {
            lock(&self.entries).known.remove(&self.name);
        }
    }
}
