//! Who calls: the key from the headers, and a bounded memory of what valid keys may do.
//!
//! A remembered key is checked again whenever any key changed (`access_epoch`), so a revocation acts on
//! the next request. Only valid keys are remembered, by the SHA-256 of the secret: guesses cost memory
//! to nobody, and secrets are not kept.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::HeaderMap;
use http::header::AUTHORIZATION;
use sha2::{Digest, Sha256};
use sublet_core::admission::{Access, Admission};
use sublet_core::key::{KeyPlane, Secret};
use sublet_core::{Clock, Error, ErrorCode, Result};

/// Maps of keys, so that requests of different keys seldom meet.
const SHARDS: usize = 16;

type Fingerprint = [u8; 32];

struct Entry {
    access: Arc<Access>,
    epoch: u64,
}

pub(crate) struct AccessCache {
    admission: Arc<dyn Admission>,
    clock: Arc<dyn Clock>,
    shards: Vec<Mutex<HashMap<Fingerprint, Entry>>>,
    entries_max: usize,
}

impl AccessCache {
    pub fn new(admission: Arc<dyn Admission>, clock: Arc<dyn Clock>, entries_max: usize) -> Self {
        Self { admission, clock, shards: (0..SHARDS).map(|_| Mutex::default()).collect(), entries_max }
    }

    /// What the caller may do.
    pub async fn authenticate(&self, headers: &HeaderMap) -> Result<Arc<Access>> {
        let secret = secret_of(headers)?;
        // Read before the look-up: a change in between makes the entry old, never wrongly new.
        let epoch = self.admission.access_epoch();
        let fingerprint: Fingerprint = Sha256::digest(secret.reveal().as_bytes()).into();
        if let Some(access) = self.remembered(&fingerprint, epoch) {
            return Ok(access);
        }
        let access = self.admission.authenticate(&secret).await?;
        self.remember(fingerprint, Entry { access: Arc::clone(&access), epoch });
        Ok(access)
    }

    fn shard(&self, fingerprint: &Fingerprint) -> MutexGuard<'_, HashMap<Fingerprint, Entry>> {
        self.shards[usize::from(fingerprint[0]) % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remembered(&self, fingerprint: &Fingerprint, epoch: u64) -> Option<Arc<Access>> {
        let mut shard = self.shard(fingerprint);
        let entry = shard.get(fingerprint)?;
        let expired = entry.access.expires_at.is_some_and(|end| self.clock.now() >= end);
        if entry.epoch != epoch || expired {
            shard.remove(fingerprint);
            return None;
        }
        Some(Arc::clone(&entry.access))
    }

    fn remember(&self, fingerprint: Fingerprint, entry: Entry) {
        let mut shard = self.shard(&fingerprint);
        if shard.len() >= self.entries_max.div_ceil(SHARDS) {
            let epoch = entry.epoch;
            shard.retain(|_, old| old.epoch == epoch);
        }
        if shard.len() >= self.entries_max.div_ceil(SHARDS)
            && let Some(any) = shard.keys().next().copied()
        {
            shard.remove(&any);
        }
        shard.insert(fingerprint, entry);
    }
}

/// `Authorization: Bearer …` or `x-api-key: …`; both together must agree.
fn secret_of(headers: &HeaderMap) -> Result<Secret> {
    let bearer = match headers.get(AUTHORIZATION) {
        Some(value) => Some(bearer_text(value.to_str().map_err(|_| missing())?).ok_or_else(missing)?),
        None => None,
    };
    let plain = match headers.get("x-api-key") {
        Some(value) => Some(value.to_str().map_err(|_| missing())?.trim()),
        None => None,
    };
    let text = match (bearer, plain) {
        (Some(a), Some(b)) if a != b => {
            return Err(Error::new(ErrorCode::InvalidApiKey, "Authorization and x-api-key name two different keys")
                .alternative("send one of the two headers"));
        }
        (Some(text), _) | (None, Some(text)) => text,
        (None, None) => return Err(missing()),
    };
    let secret: Secret = text.parse()?;
    if secret.plane() != KeyPlane::Project {
        return Err(Error::new(ErrorCode::WrongKeyPlane, format!("an {} key does not open models", secret.plane()))
            .alternative("use a project key; it starts with sk-sub-"));
    }
    Ok(secret)
}

fn bearer_text(value: &str) -> Option<&str> {
    let (scheme, text) = value.trim().split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(text.trim())
}

fn missing() -> Error {
    Error::new(ErrorCode::MissingApiKey, "no API key was sent")
        .alternative("send the header 'Authorization: Bearer sk-sub-…'")
        .alternative("send the header 'x-api-key: sk-sub-…'")
}
