//! Who answered a request, and what suppliers are owed for it so far.
//!
//! The account is kept while an answer is read, not at its end: a client that leaves takes the exchange with it, and
//! what the supplier did until then is owed all the same. One that was asked and neither delivered nor counted
//! anything is owed nothing; how often that happens is counted (`sublet_supplier_calls_unaccounted_total`).

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use sublet_core::id::ReplicaId;
use sublet_core::supplier::{CostVersion, Purchase};

/// A supplier's replica that a request may be sent to, at the cost in force.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Bid {
    pub replica: ReplicaId,
    pub cost: CostVersion,
}

/// What other servers did for one request.
#[derive(Default)]
pub(crate) struct Supplied {
    by: OnceLock<ReplicaId>,
    purchases: Mutex<Vec<Purchase>>,
}

impl Supplied {
    /// This one answers. Set once: an exchange has one answer.
    pub fn answers(&self, replica: &ReplicaId) {
        let _first = self.by.set(replica.clone());
    }

    pub fn by(&self) -> Option<ReplicaId> {
        self.by.get().cloned()
    }

    /// What is owed to a replica by now, in the place of what was owed to it before.
    pub fn owe(&self, purchase: Purchase) {
        let mut purchases = self.lock();
        match purchases.iter_mut().find(|known| known.replica == purchase.replica) {
            Some(known) => *known = purchase,
            None => purchases.push(purchase),
        }
    }

    /// Whether anything is owed to a replica.
    pub fn owes(&self, replica: &ReplicaId) -> bool {
        self.lock().iter().any(|purchase| purchase.replica == *replica)
    }

    pub fn purchases(&self) -> Vec<Purchase> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Purchase>> {
        self.purchases.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
