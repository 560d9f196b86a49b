//! Tickets: how the console calls the data plane for somebody who signed in.
//!
//! A session knows which key opened it, not the key's secret. So that a generation from the console
//! passes the very gate that every other one passes, the console gets a ticket: a secret that opens
//! models as that key does, once, within seconds, and in this process only. It is handed to the data
//! plane's handler in memory and never leaves the process.
//!
//! Deliberately absent: storage. A ticket dies with the process, and with its key.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use sublet_core::id::KeyId;
use sublet_core::key::{KeyPlane, Secret};
use sublet_core::{DurationMs, Error, ErrorCode, Result, Scope, Timestamp};
use sublet_store::key;

use crate::{Action, Actor, Cloud};

/// How long a ticket waits for its use.
const TICKET_LIFE: DurationMs = DurationMs::from_seconds(10);
/// Tickets that wait at once.
const TICKETS_MAX: usize = 1_024;

#[derive(Clone, PartialEq, Eq, Debug)]
struct Ticket {
    key: KeyId,
    expires_at: Timestamp,
}

/// Tickets that were not used yet, by the hash of their secret.
#[derive(Default)]
pub(crate) struct Tickets(Mutex<HashMap<String, Ticket>>);

impl Tickets {
    fn waiting(&self) -> MutexGuard<'_, HashMap<String, Ticket>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cloud {
    /// A secret that stands for the actor's own project key in one call to the data plane.
    pub fn open_ticket(&self, actor: &Actor) -> Result<Secret> {
        actor.require(Action::UseModels)?;
        let key = actor.key.clone().ok_or_else(|| Error::internal("a ticket stands for a key"))?;
        let now = self.now();
        let secret = Secret::generate(KeyPlane::Project, self.ids.rng().as_ref());
        let mut waiting = self.tickets.waiting();
        waiting.retain(|_, ticket| ticket.expires_at > now);
        if waiting.len() >= TICKETS_MAX {
            return Err(Error::new(ErrorCode::QueueFull, "too many people use the console at this moment").retry_after(TICKET_LIFE));
        }
        waiting.insert(key::secret_hash(&secret), Ticket { key, expires_at: now.plus(TICKET_LIFE) });
        Ok(secret)
    }

    /// The live key that a ticket stands for; the ticket is used up. `None` for every other secret.
    pub(crate) async fn redeem_ticket(&self, secret: &Secret) -> Result<Option<key::Key>> {
        let Some(ticket) = self.tickets.waiting().remove(&key::secret_hash(secret)) else { return Ok(None) };
        let now = self.now();
        if ticket.expires_at <= now {
            return Err(Error::new(ErrorCode::InvalidApiKey, "the console's ticket has expired").alternative("send it again"));
        }
        let found = self.store.read(&ticket.key, |id, tx| Box::pin(key::find(tx, &Scope::Operator, id))).await?;
        let live = found.filter(|key| key.revoked_at.is_none() && key.expires_at.is_none_or(|at| at > now));
        let key = live.ok_or_else(|| Error::new(ErrorCode::InvalidApiKey, "the key of this session was revoked"))?;
        // What the gateway remembers of a ticket ends with it.
        Ok(Some(key::Key { expires_at: Some(ticket.expires_at), ..key }))
    }
}
