//! Lost gateways: what their slices hold goes to suspense, and from there to charges or back to customers.
//!
//! A gateway says every minute that it runs. One that is silent may be declared lost: its slices wait in suspense. Its
//! journal, should it come back, is charged from there and frees the rest; until then an operator may write the rest off
//! in the customers' favour. A record of a slice that was written off is quarantined, never lost.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use sublet_core::id::{GatewayId, OrganizationId};
use sublet_core::{Currency, DurationMs, Error, ErrorCode, Nanos, Result, Timestamp};
use sublet_money::posting::Fact;
use sublet_store::Tx;
use sublet_store::slice::{self, Slice};

use crate::audit::Deed;
use crate::incoming_payment::check_note;
use crate::{Action, Actor, Cloud};

/// How often a gateway says that it runs.
const SEEN_EVERY: DurationMs = DurationMs::from_seconds(60);
/// How long a gateway must have been silent before it may be declared lost.
pub const SILENCE: DurationMs = DurationMs::from_seconds(600);

/// The sessions of this process, and when they were last noted.
#[derive(Default, Debug)]
pub(crate) struct Sessions(Mutex<BTreeMap<GatewayId, (i64, Timestamp)>>);

impl Sessions {
    pub(crate) fn started(&self, gateway: &GatewayId, fence: i64, now: Timestamp) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(gateway.clone(), (fence, now));
    }

    /// Those to be noted now.
    fn due(&self, now: Timestamp) -> Vec<(GatewayId, i64)> {
        let mut sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let due = sessions.iter_mut().filter(|(_, (_, noted))| noted.plus(SEEN_EVERY) <= now);
        due.map(|(gateway, (fence, noted))| {
            *noted = now;
            (gateway.clone(), *fence)
        })
        .collect()
    }
}

/// What is done about a gateway that is gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GatewayAnswer {
    /// What its slices hold waits in suspense for its journal.
    Lost,
    /// What is in suspense goes back to the customers: nobody expects the journal any more.
    WriteOff,
}

impl GatewayAnswer {
    const fn action(self) -> &'static str {
        match self {
            Self::Lost => "gateway.lost",
            Self::WriteOff => "gateway.write_off",
        }
    }
}

/// What that moved; nothing if it was done before.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct GatewayLoss {
    pub slices: u64,
    pub moved: BTreeMap<Currency, Nanos>,
}

impl Cloud {
    /// Notes that the gateways of this process run.
    pub async fn note_gateways(&self) -> Result<()> {
        let now = self.now();
        for (gateway, fence) in self.sessions.due(now) {
            let session = (&gateway, fence);
            let is_known = self.store.write(session, move |session, tx| Box::pin(slice::gateway_seen(tx, *session, now))).await?;
            if !is_known {
                tracing::error!(%gateway, "this gateway was declared lost, or another took its place; nothing is granted to it until it is started again");
            }
        }
        Ok(())
    }

    /// Declares a silent gateway lost, or writes off what a lost one had. Again, it does what is left of it.
    pub async fn answer_gateway(
        &self,
        actor: &Actor,
        gateway: &GatewayId,
        (answer, note): (GatewayAnswer, &str),
    ) -> Result<GatewayLoss> {
        actor.require(Action::ManagePayments)?;
        check_note(note, "note")?;
        let mut loss = GatewayLoss::default();
        loop {
            let step = self
                .store
                .write((self, actor, gateway, note), move |(cloud, actor, gateway, note), tx| {
                    Box::pin(cloud.gateway_step(tx, actor, gateway, (answer, note)))
                })
                .await?;
            if step.slices == 0 {
                return Ok(loss);
            }
            loss.slices += step.slices;
            for (currency, amount) in step.moved {
                let sum = loss.moved.entry(currency).or_default();
                *sum = sum.checked_add(amount)?;
            }
        }
    }

    async fn gateway_step(
        &self,
        tx: &mut Tx,
        actor: &Actor,
        gateway: &GatewayId,
        (answer, note): (GatewayAnswer, &str),
    ) -> Result<GatewayLoss> {
        let now = self.now();
        let Some(seen) = slice::last_seen(tx, gateway).await? else {
            return Err(Error::new(ErrorCode::NotFound, format!("there is no gateway '{gateway}'"))
                .alternative("the report of leakage names gateways with their slices"));
        };
        let slices = match answer {
            GatewayAnswer::Lost => {
                let open = slice::open_of_gateway(tx, gateway).await?;
                let silent_at = seen.plus(SILENCE);
                if !open.is_empty() && now < silent_at {
                    return Err(Error::new(ErrorCode::Conflict, format!("{gateway} was heard of at {seen}, and may serve still"))
                        .alternative(format!(
                            "stop it, and declare it lost after {silent_at}; or start it: it settles its journal"
                        )));
                }
                open
            }
            GatewayAnswer::WriteOff => {
                let lost = slice::lost_of_gateway(tx, gateway).await?;
                if lost.is_empty() && !slice::open_of_gateway(tx, gateway).await?.is_empty() {
                    return Err(
                        Error::new(ErrorCode::Conflict, format!("{gateway} is not lost")).alternative("declare it lost first")
                    );
                }
                let silent_at = seen.plus(SILENCE);
                if !lost.is_empty() && now < silent_at {
                    let told = format!("{gateway} was heard of at {seen}, and may settle what it had");
                    return Err(Error::new(ErrorCode::Conflict, told).alternative(format!(
                        "see what it settles, and write off the rest after {silent_at} if it is silent then"
                    )));
                }
                lost
            }
        };
        if answer == GatewayAnswer::Lost && !slices.is_empty() {
            slice::fence_off(tx, gateway).await?;
        }
        let mut by_account: BTreeMap<(&OrganizationId, Currency), (u64, Nanos)> = BTreeMap::new();
        for slice in &slices {
            let amount = self.move_lost(tx, slice, answer).await?;
            let (count, sum) = by_account.entry((&slice.organization, slice.currency)).or_default();
            (*count, *sum) = (*count + 1, sum.checked_add(amount)?);
        }
        let mut loss = GatewayLoss::default();
        for ((organization, currency), (count, amount)) in by_account {
            let detail = format!("{count} slices with {amount} {currency}: {note}");
            let deed = Deed { organization: Some(organization), action: answer.action(), target: gateway.as_str(), detail };
            self.record(tx, actor, deed, now).await?;
            loss.slices += count;
            let sum = loss.moved.entry(currency).or_default();
            *sum = sum.checked_add(amount)?;
        }
        Ok(loss)
    }

    async fn move_lost(&self, tx: &mut Tx, slice: &Slice, answer: GatewayAnswer) -> Result<Nanos> {
        match answer {
            GatewayAnswer::Lost => {
                slice::lose(tx, slice).await?;
                let amount = slice.granted.total()?.checked_sub(slice.spent)?;
                self.post_slice(tx, slice, &Fact::SliceLost { amount }, self.now()).await?;
                Ok(amount)
            }
            GatewayAnswer::WriteOff => self.close_slice(tx, slice).await,
        }
    }
}
