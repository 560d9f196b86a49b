//! What the holder of a lease says while it ends: that work is saved, and that it needs the devices no longer.

use sublet_core::id::LeaseId;
use sublet_core::lease::LeaseState;
use sublet_core::{Error, ErrorCode, Result, Timestamp};
use sublet_store::{lease, reclaim};

use crate::audit::Deed;
use crate::compute::Compute;
use crate::lease::{End, LeaseStatement, state_in};
use crate::{Action, Actor};

impl Compute {
    /// Takes note that what a lease's workload did before an instant is saved; now if none is given. What was said before
    /// and is later stays.
    pub async fn declare_checkpoint(&self, actor: &Actor, id: &LeaseId, at: Option<Timestamp>) -> Result<LeaseStatement> {
        actor.require(Action::UseCompute)?;
        let now = self.now();
        let at = at.unwrap_or(now);
        self.cloud
            .store
            .write((self, actor, id), move |(compute, actor, id), tx| {
                Box::pin(async move {
                    let found = lease::get(tx, &actor.scope, id).await?;
                    if !matches!(found.state, LeaseState::Active | LeaseState::Ending { .. }) {
                        let message = format!("lease '{id}' is {}: nothing runs on it", found.state.as_str());
                        return Err(Error::new(ErrorCode::Conflict, message));
                    }
                    if at > now || at < found.starts_at {
                        let message = format!("a checkpoint is between the lease's start, {}, and now, {now}", found.starts_at);
                        return Err(Error::new(ErrorCode::InvalidRequest, message).param("at").alternative("leave it out for now"));
                    }
                    if reclaim::set_checkpoint(tx, id, at).await? {
                        let detail = format!("what ran before {at} is saved");
                        let deed = Deed {
                            organization: Some(&found.organization),
                            action: "lease.checkpoint",
                            target: id.as_str(),
                            detail,
                        };
                        compute.cloud.record(tx, actor, deed, now).await?;
                    }
                    state_in(tx, found).await
                })
            })
            .await
    }

    /// Gives a lease back that was told to end, before its deadline. It is owed what it would have been owed then.
    pub async fn yield_lease(&self, actor: &Actor, id: &LeaseId) -> Result<LeaseStatement> {
        actor.require(Action::UseCompute)?;
        let now = self.now();
        let ended = self
            .cloud
            .store
            .write((self, actor, id), move |(compute, actor, id), tx| {
                Box::pin(async move {
                    let found = lease::get(tx, &actor.scope, id).await?;
                    match found.state {
                        // It ends for the reason that it was told, and is no new notice.
                        LeaseState::Ending { reason, .. } => {
                            compute.end_by(tx, actor, &found, End { reason, deadline: now, told_at: now }).await?;
                        }
                        LeaseState::Ended { .. } => {}
                        LeaseState::Pending | LeaseState::Active => {
                            let message = format!("lease '{id}' was not asked for: it was told no end");
                            let error = Error::new(ErrorCode::Conflict, message);
                            return Err(error.alternative(format!("end it all the same: sublet leases cancel {id}")));
                        }
                    }
                    let lease = lease::get(tx, &actor.scope, id).await?;
                    state_in(tx, lease).await
                })
            })
            .await?;
        self.wake();
        Ok(ended)
    }
}
