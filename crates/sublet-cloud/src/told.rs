//! What a process remembers of its runner between passes. Nothing of it has to outlive the process.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use sublet_core::id::AttemptId;
use sublet_core::{DurationMs, Timestamp};

use crate::machine::Offered;

/// How often the answers of old calls are forgotten.
const SWEEP_PERIOD: DurationMs = DurationMs::from_seconds(3_600);

/// What this process told its runner already. Forgetting it is harmless: orders are told again.
#[derive(Default)]
pub struct Told {
    pub placed: Mutex<BTreeSet<AttemptId>>,
    pub stopped: Mutex<BTreeSet<AttemptId>>,
    /// Attempts that run and that the runner does not know, with when that was first seen.
    missing: Mutex<BTreeMap<AttemptId, Timestamp>>,
    /// When old answers were last forgotten.
    swept: Mutex<Option<Timestamp>>,
    /// The last job that was looked at of those that wait at other runners.
    waiting_after: Mutex<String>,
    /// The runner's machines as they were last registered.
    offered: Mutex<Option<Offered>>,
}

impl Told {
    /// After which waiting job the next look at those of other runners begins; nothing if it begins anew.
    pub fn waiting_after(&self) -> String {
        self.waiting_after.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn note_waiting(&self, last: Option<String>) {
        *self.waiting_after.lock().unwrap_or_else(PoisonError::into_inner) = last.unwrap_or_default();
    }

    /// Whether old answers are to be forgotten.
    pub fn is_sweep_due(&self, now: Timestamp) -> bool {
        let swept = self.swept.lock().unwrap_or_else(PoisonError::into_inner);
        swept.is_none_or(|last| now >= last.plus(SWEEP_PERIOD))
    }

    /// All old answers are forgotten; the next time is [`SWEEP_PERIOD`] later.
    pub fn note_sweep(&self, now: Timestamp) {
        *self.swept.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
    }

    pub fn offered(&self) -> Option<Offered> {
        self.offered.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn set_offered(&self, machines: Option<Offered>) {
        *self.offered.lock().unwrap_or_else(PoisonError::into_inner) = machines;
    }

    /// Of the attempts that are missing now, those that have been for so long.
    pub fn missing_for(&self, missing: &[&AttemptId], patience: DurationMs, now: Timestamp) -> Vec<AttemptId> {
        let mut since = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
        since.retain(|id, _| missing.contains(&id));
        for id in missing {
            since.entry((*id).clone()).or_insert(now);
        }
        since.iter().filter(|(_, first)| now >= first.plus(patience)).map(|(id, _)| id.clone()).collect()
    }
}

pub fn first_time(set: &Mutex<BTreeSet<AttemptId>>, id: &AttemptId) -> bool {
    set.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone())
}

pub fn forget(set: &Mutex<BTreeSet<AttemptId>>, id: &AttemptId) {
    set.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
}

pub fn keep_live(set: &Mutex<BTreeSet<AttemptId>>, live: &BTreeSet<&AttemptId>) {
    set.lock().unwrap_or_else(PoisonError::into_inner).retain(|id| live.contains(id));
}
