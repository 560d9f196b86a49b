//! What a lease was told of its end, and waiting for it.
//!
//! Who waits is woken when the lease changes. One look reads how far all leases are that somebody waits for, and wakes those
//! whose lease has moved: each pass of the reconciler looks once it has told what it tells, and of all who wait in a process
//! the first one looks each second, for what other processes tell. However many wait, that is one query.
//!
//! Waits are bounded in time and number, in all and of one organization, and hold no transaction.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sublet_core::id::{LeaseId, OrganizationId};
use sublet_core::lease::{EndReason, LeaseState};
use sublet_core::{DurationMs, Error, ErrorCode, Result, Timestamp};
use sublet_store::compensation::{self, LeaseNotice};
use sublet_store::lease::{self, Lease};
use tokio::sync::watch;

use crate::Actor;
use crate::compute::Compute;

/// The longest wait.
pub const WAIT_MAX: DurationMs = DurationMs::from_seconds(60);
/// Waits at once in one process.
const WAITS_MAX: usize = 1_000;
/// Of these, those of one organization.
pub const WAITS_OF_ONE_MAX: usize = 100;
/// How often it is looked for what other processes tell, while somebody waits.
const LOOK_PERIOD: DurationMs = DurationMs::from_seconds(1);

/// What a lease has been told so far.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NoticeStatement {
    pub lease: Lease,
    /// How often it was told an end; each is sooner than the one before.
    pub generation: u64,
    /// Why it ends or ended.
    pub reason: Option<EndReason>,
    pub told_at: Option<Timestamp>,
    /// By when nothing of it may run.
    pub deadline: Option<Timestamp>,
}

impl NoticeStatement {
    fn of(lease: Lease, notices: &[LeaseNotice]) -> Self {
        let last = notices.last();
        // Its holder may have hastened it.
        let deadline = lease.state.deadline().or(last.map(|notice| notice.deadline));
        Self {
            generation: u64::try_from(notices.len()).unwrap_or(u64::MAX),
            reason: lease.state.reason(),
            told_at: last.map(|notice| notice.told_at),
            deadline,
            lease,
        }
    }

    /// Whether there is something that a caller does not know who has seen so many notices.
    fn is_news(&self, after: u64) -> bool {
        self.generation > after || matches!(self.lease.state, LeaseState::Ended { .. })
    }
}

/// For how long somebody wants to wait, and what he knows.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct NoticeWait {
    /// At most [`WAIT_MAX`].
    pub wait: DurationMs,
    pub after: u64,
}

/// Who waits for notices in this process.
#[derive(Default)]
pub(crate) struct NoticeBoard {
    waiting: Mutex<Waiting>,
    /// Of all who wait, whose turn it is to look.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Waiting {
    count: usize,
    by_organization: BTreeMap<OrganizationId, usize>,
    /// How far each lease was at the last look, and how many wait for it.
    leases: BTreeMap<LeaseId, (watch::Sender<i64>, usize)>,
}

/// A wait that counts until it is dropped.
struct Seat {
    board: Arc<NoticeBoard>,
    of: (OrganizationId, LeaseId),
}

impl NoticeBoard {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sit(self: &Arc<Self>, lease: &Lease) -> Result<(Seat, watch::Receiver<i64>)> {
        let mut waiting = self.waiting();
        let of_one = waiting.by_organization.get(&lease.organization).copied().unwrap_or(0);
        if of_one >= WAITS_OF_ONE_MAX || waiting.count >= WAITS_MAX {
            let (code, message) = if of_one >= WAITS_OF_ONE_MAX {
                (ErrorCode::ConcurrencyExceeded, format!("{WAITS_OF_ONE_MAX} calls of the organization wait for notices already"))
            } else {
                (ErrorCode::QueueFull, format!("{WAITS_MAX} calls wait for notices already"))
            };
            return Err(Error::new(code, message).alternative("leave 'wait_s' out and ask again after some seconds"));
        }
        waiting.count += 1;
        *waiting.by_organization.entry(lease.organization.clone()).or_default() += 1;
        let (sender, seats) = waiting.leases.entry(lease.id.clone()).or_insert_with(|| (watch::Sender::new(lease.generation), 0));
        *seats += 1;
        let receiver = sender.subscribe();
        Ok((Seat { board: Arc::clone(self), of: (lease.organization.clone(), lease.id.clone()) }, receiver))
    }

    fn watched(&self) -> Vec<LeaseId> {
        self.waiting().leases.keys().cloned().collect()
    }

    /// Wakes those whose lease has moved.
    fn note(&self, found: &[(LeaseId, i64)]) {
        let waiting = self.waiting();
        for (id, generation) in found {
            if let Some((sender, _)) = waiting.leases.get(id) {
                sender.send_if_modified(|known| std::mem::replace(known, *generation) != *generation);
            }
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let (organization, lease) = &self.of;
        let mut waiting = self.board.waiting();
        waiting.count = waiting.count.saturating_sub(1);
        if let Entry::Occupied(mut of_one) = waiting.by_organization.entry(organization.clone()) {
            *of_one.get_mut() = of_one.get().saturating_sub(1);
            if *of_one.get() == 0 {
                of_one.remove();
            }
        }
        if let Entry::Occupied(mut of_lease) = waiting.leases.entry(lease.clone()) {
            of_lease.get_mut().1 = of_lease.get().1.saturating_sub(1);
            if of_lease.get().1 == 0 {
                of_lease.remove();
            }
        }
    }
}

impl Compute {
    /// What a lease was told of its end; waits until there is something that the caller does not know, or the time is over.
    pub async fn lease_notice(&self, actor: &Actor, id: &LeaseId, asked: NoticeWait) -> Result<NoticeStatement> {
        if asked.wait > WAIT_MAX {
            let message = format!("a call waits at most {} seconds; ask again after that", WAIT_MAX.seconds_ceil());
            return Err(Error::new(ErrorCode::InvalidRequest, message).param("wait_s"));
        }
        let known = self.notice_now(actor, id).await?;
        if known.is_news(asked.after) || asked.wait <= DurationMs::ZERO {
            return Ok(known);
        }
        let (seat, mut moved) = self.notices.sit(&known.lease)?;
        let over = tokio::time::sleep(asked.wait.to_std());
        tokio::pin!(over);
        loop {
            // Read after sitting down: what is told from here on wakes.
            let now = self.notice_now(actor, id).await?;
            if now.is_news(asked.after) {
                drop(seat);
                return Ok(now);
            }
            let is_over = tokio::select! {
                changed = moved.changed() => changed.is_err(),
                () = &mut over => true,
                () = self.look_in_turn() => true,
            };
            if is_over {
                return self.notice_now(actor, id).await;
            }
        }
    }

    async fn notice_now(&self, actor: &Actor, id: &LeaseId) -> Result<NoticeStatement> {
        self.cloud
            .store
            .read((actor, id), |(actor, id), tx| {
                Box::pin(async move {
                    let lease = lease::get(tx, &actor.scope, id).await?;
                    let notices = compensation::list_notices(tx, &actor.scope, id).await?;
                    Ok(NoticeStatement::of(lease, &notices))
                })
            })
            .await
    }

    /// Looks each second once it is this caller's turn; never ends.
    async fn look_in_turn(&self) {
        let _turn = self.notices.turn.lock().await;
        loop {
            tokio::time::sleep(LOOK_PERIOD.to_std()).await;
            if let Err(error) = self.look_for_notices().await {
                tracing::warn!(%error, private = ?error, "it was not looked for notices; it is tried again");
            }
        }
    }

    /// Wakes who waits for a lease that has changed since the last look. Costs nothing while nobody waits.
    pub async fn look_for_notices(&self) -> Result<()> {
        let watched = self.notices.watched();
        if watched.is_empty() {
            return Ok(());
        }
        let found = self.cloud.store.read(&watched, |watched, tx| Box::pin(lease::generations_of(tx, watched))).await?;
        self.notices.note(&found);
        Ok(())
    }

    /// How many calls wait for notices in this process.
    pub fn waits_for_notices(&self) -> usize {
        self.notices.waiting().count
    }
}
