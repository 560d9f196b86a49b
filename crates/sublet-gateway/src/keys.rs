//! What the gateway remembers per key: the purse it spends from.
//!
//! Purses that are closed to new requests wait in a list until nothing is held of them, and are then
//! given back until the cloud says that their slice is closed.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use sublet_core::admission::{Access, SliceClosed, SpendClass};
use sublet_core::id::{KeyId, OrganizationId};
use sublet_core::{BoxFuture, DurationMs, Error, ErrorCode, Nanos, Result, Timestamp};

use crate::purse::{Bank, IdleSlices, Purse};

/// Maps of keys, so that requests of different keys seldom meet.
const SHARDS: usize = 16;

/// How often and how long a key in need waits for the usage of an idle slice to be settled.
const RELEASE_RETRIES: u32 = 5;
const RELEASE_PAUSE: DurationMs = DurationMs::from_millis(50);

/// Classes of requests of one key that have a purse here at once.
const CLASSES_MAX: usize = 4_096;

/// One key's state.
pub(crate) struct KeyState {
    key: KeyId,
    /// The purses that new requests use.
    purses: Mutex<Purses>,
    organization: OrganizationId,
}

struct Purses {
    /// For requests to which only limits on all requests apply.
    common: Arc<Purse>,
    classes: HashMap<SpendClass, Arc<Purse>>,
}

impl KeyState {
    fn purses(&self) -> MutexGuard<'_, Purses> {
        self.purses.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// All that new requests use.
    fn current(&self) -> Vec<Arc<Purse>> {
        let purses = self.purses();
        std::iter::once(&purses.common).chain(purses.classes.values()).cloned().collect()
    }
}

pub(crate) struct Keys {
    bank: Arc<Bank>,
    me: Weak<Self>,
    shards: Vec<Mutex<HashMap<KeyId, Arc<KeyState>>>>,
    keys_max: usize,
    /// The keys of each organization, so that one in need looks at its own only.
    members: Mutex<HashMap<OrganizationId, HashSet<KeyId>>>,
    /// Purses on their way back.
    returning: Mutex<Vec<Arc<Purse>>>,
}

impl Keys {
    pub fn new(bank: Arc<Bank>, keys_max: usize) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            bank,
            me: Weak::clone(me),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            keys_max,
            members: Mutex::default(),
            returning: Mutex::default(),
        })
    }

    fn shard(&self, key: &KeyId) -> MutexGuard<'_, HashMap<KeyId, Arc<KeyState>>> {
        // The last characters of an id are random.
        let last = key.as_str().bytes().last().map_or(0, usize::from);
        self.shards[last % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn new_purse(&self, key: &KeyId, organization: &OrganizationId, class: &SpendClass) -> Arc<Purse> {
        let me = Weak::clone(&self.me);
        Purse::new(Arc::clone(&self.bank), me, (key.clone(), organization.clone()), class.clone())
    }

    /// The purse that new requests of a class use.
    pub fn purse(&self, state: &KeyState, class: &SpendClass) -> Result<Arc<Purse>> {
        let mut purses = state.purses();
        if *class == SpendClass::default() {
            return Ok(Arc::clone(&purses.common));
        }
        if let Some(purse) = purses.classes.get(class) {
            return Ok(Arc::clone(purse));
        }
        if purses.classes.len() >= CLASSES_MAX {
            return Err(Error::new(ErrorCode::QueueFull, "too many end users or models of this key are in use at this gateway")
                .retry_after(DurationMs::from_seconds(5)));
        }
        let purse = self.new_purse(&state.key, &state.organization, class);
        purses.classes.insert(class.clone(), Arc::clone(&purse));
        Ok(purse)
    }

    /// The state of a key, made on its first use.
    pub fn get(&self, access: &Access) -> Result<Arc<KeyState>> {
        let mut shard = self.shard(&access.key);
        if let Some(state) = shard.get(&access.key) {
            return Ok(Arc::clone(state));
        }
        if shard.len() >= self.keys_max.div_ceil(SHARDS) {
            return Err(Error::new(ErrorCode::QueueFull, "too many keys are in use at this gateway")
                .retry_after(DurationMs::from_seconds(5)));
        }
        let state = Arc::new(KeyState {
            key: access.key.clone(),
            purses: Mutex::new(Purses {
                common: self.new_purse(&access.key, &access.organization, &SpendClass::default()),
                classes: HashMap::new(),
            }),
            organization: access.organization.clone(),
        });
        shard.insert(access.key.clone(), Arc::clone(&state));
        drop(shard);
        self.members().entry(access.organization.clone()).or_default().insert(access.key.clone());
        Ok(state)
    }

    /// Replaces a purse that takes no new requests, unless somebody did already. That of a class is made again when it is
    /// needed.
    pub fn rotate(&self, state: &KeyState, retired: &Arc<Purse>) {
        let mut purses = state.purses();
        let class = retired.class();
        let is_current = |known: Option<&Arc<Purse>>| known.is_some_and(|known| Arc::ptr_eq(known, retired));
        if is_current(Some(&purses.common)) {
            purses.common = self.new_purse(&state.key, &state.organization, class);
        } else if is_current(purses.classes.get(class)) {
            purses.classes.remove(class);
        } else {
            return;
        }
        self.returning().push(Arc::clone(retired));
    }

    fn returning(&self) -> MutexGuard<'_, Vec<Arc<Purse>>> {
        self.returning.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn members(&self) -> MutexGuard<'_, HashMap<OrganizationId, HashSet<KeyId>>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn all(&self) -> Vec<(KeyId, Arc<KeyState>)> {
        let mut all = Vec::new();
        for shard in &self.shards {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            all.extend(shard.iter().map(|(key, state)| (key.clone(), Arc::clone(state))));
        }
        all
    }

    fn all_of(&self, organization: &OrganizationId) -> Vec<(KeyId, Arc<KeyState>)> {
        let keys: Vec<KeyId> = self.members().get(organization).into_iter().flatten().cloned().collect();
        let state = |key: KeyId| self.shard(&key).get(&key).cloned().map(|state| (key.clone(), state));
        keys.into_iter().filter_map(state).collect()
    }

    /// Closes the purses nobody used since `before`, of one organization or of all, and begins to return them.
    pub fn retire_unused(&self, organization: Option<&OrganizationId>, before: Timestamp) {
        let states = organization.map_or_else(|| self.all(), |organization| self.all_of(organization));
        for (_, state) in states {
            for purse in state.current() {
                if purse.has_slice() && purse.retire_if_unused_since(before) {
                    self.rotate(&state, &purse);
                }
            }
        }
    }

    /// Forgets keys whose state says nothing.
    pub fn forget_idle(&self) {
        let mut forgotten = Vec::new();
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            shard.retain(|key, state| {
                let shared = Arc::strong_count(state) > 1;
                state.purses().classes.retain(|_, purse| Arc::strong_count(purse) > 1 || purse.has_slice() || purse.is_used());
                let needed = shared || state.current().iter().any(|purse| purse.has_slice() || purse.is_used());
                if !needed {
                    forgotten.push((state.organization.clone(), key.clone()));
                }
                needed
            });
        }
        let mut members = self.members();
        for (organization, key) in forgotten {
            // A key that came back meanwhile is entered again by its next request.
            let emptied = members.get_mut(&organization).is_some_and(|keys| keys.remove(&key) && keys.is_empty());
            if emptied {
                members.remove(&organization);
            }
        }
    }

    /// Offers the closed purses of one organization, or all, once; answers what became available.
    /// An unreachable cloud is no error here: the purses stay in the list.
    pub async fn give_back(&self, organization: Option<&OrganizationId>) -> Nanos {
        let mine = |purse: &&Arc<Purse>| organization.is_none_or(|organization| organization == purse.organization());
        let offered: Vec<_> = self.returning().iter().filter(mine).cloned().collect();
        let mut released = Nanos::ZERO;
        for purse in offered {
            if let Some(amount) = self.give_back_one(&purse).await {
                self.returning().retain(|other| !Arc::ptr_eq(other, &purse));
                released = released.checked_add(amount).unwrap_or(released);
            }
        }
        released
    }

    /// `None`: not yet.
    async fn give_back_one(&self, purse: &Arc<Purse>) -> Option<Nanos> {
        let offer = purse.begin_return().ok()?;
        let Some(give) = offer.slice.clone() else { return Some(Nanos::ZERO) };
        let released = match self.bank.admission.return_slice(give.clone()).await {
            Ok(SliceClosed::Released(amount)) => amount,
            Ok(SliceClosed::Waiting) => return None,
            Err(error) if matches!(error.code(), ErrorCode::NotFound | ErrorCode::Conflict) => {
                tracing::warn!(slice = %give.slice, ?error, "the cloud does not take this slice back; it is dropped here");
                Nanos::ZERO
            }
            Err(error) => {
                tracing::warn!(slice = %give.slice, ?error, "a slice could not be returned yet");
                return None;
            }
        };
        offer.closed();
        Some(released)
    }

    /// Purses that hold a slice, on their way back or not: one that is being refilled cannot be retired yet.
    pub fn with_slices(&self) -> usize {
        let current = self.all().into_iter().flat_map(|(_, state)| state.current()).filter(|purse| purse.has_slice()).count();
        self.outstanding() + current
    }

    /// Purses that are not back yet.
    pub fn outstanding(&self) -> usize {
        self.returning().len()
    }

    /// Money held by requests in flight, over all keys.
    pub fn held(&self) -> Nanos {
        let current = self.all().into_iter().flat_map(|(_, state)| state.current()).map(|purse| purse.held());
        let returning: Vec<_> = self.returning().iter().map(|purse| purse.held()).collect();
        Nanos::checked_sum(current.chain(returning)).unwrap_or(Nanos::MAX)
    }
}

impl IdleSlices for Keys {
    fn has_any(&self, organization: &OrganizationId) -> bool {
        let is_idle = |purse: &Arc<Purse>| purse.has_slice() && !purse.is_used();
        self.returning().iter().any(|purse| purse.organization() == organization)
            || self.all_of(organization).iter().any(|(_, state)| state.current().iter().any(is_idle))
    }
    fn release(&self, organization: OrganizationId) -> BoxFuture<'_, Nanos> {
        Box::pin(async move {
            self.retire_unused(Some(&organization), self.bank.clock.now());
            let mut released = self.give_back(Some(&organization)).await;
            for _ in 0..RELEASE_RETRIES {
                let waiting = self.returning().iter().any(|purse| *purse.organization() == organization && !purse.is_used());
                if !waiting {
                    break;
                }
                tokio::time::sleep(RELEASE_PAUSE.to_std()).await;
                released = released.checked_add(self.give_back(Some(&organization)).await).unwrap_or(released);
            }
            released
        })
    }
}
