//! The steps of the plan: each is taken in a transaction of its own, if what it was made from still holds.

use sublet_capacity::{Action as PlanAction, ActionKind, OrderedEnd, plan};
use sublet_core::job::{JobState, StopReason};
use sublet_core::lease::EndReason;
use sublet_core::{Result, Scope, Timestamp};
use sublet_store::job::{self, Job};
use sublet_store::lease::{self, Lease};
use sublet_store::{Tx, attempt};

use crate::Actor;
use crate::compute::Compute;
use crate::compute_reconciler::{ComputeReport, time_limit_at};
use crate::lease::End;

impl Compute {
    /// Applies the plan; says how many steps it took.
    pub(crate) async fn follow_plan(&self, report: &mut ComputeReport) -> usize {
        let now = self.now();
        let snapshot = self.cloud.store.read(self, |compute, tx| Box::pin(async move { Ok(Some(compute.snapshot(tx).await?)) }));
        let Some(snapshot) = report.note("looking at the fleet", snapshot.await) else { return 0 };
        let mut taken = 0;
        for action in plan(&snapshot, now) {
            let ordered = snapshot.leases.get(&action.lease).and_then(|lease| lease.stake.ordered).filter(|end| end.tell_at <= now);
            let apply = self
                .cloud
                .store
                .write((self, &action), move |(compute, action), tx| Box::pin(compute.apply_action(tx, action, ordered)));
            taken += usize::from(report.note("a step of the plan", apply.await));
        }
        taken + report.note("stopping at a time limit", self.stop_at_time_limits(now).await)
    }

    /// One step, unless the lease, or what orders have settled on for it, has moved on since the plan was made.
    async fn apply_action(&self, tx: &mut Tx, action: &PlanAction, ordered: Option<OrderedEnd>) -> Result<bool> {
        let lease = lease::get(tx, &Scope::Operator, &action.lease).await?;
        if lease.generation != action.generation {
            return Ok(false);
        }
        match action.kind {
            ActionKind::Activate => self.activate(tx, &lease).await,
            ActionKind::BeginEnding { reason: EndReason::Reclaimed, deadline } => {
                self.take_back(tx, &lease, deadline, ordered).await
            }
            ActionKind::BeginEnding { reason, deadline } => {
                let end = End { reason, deadline, told_at: self.now() };
                self.begin_ending(tx, &Actor::system(), &lease, end).await
            }
            ActionKind::Stop => self.stop_jobs_of(tx, &lease).await,
            ActionKind::Release => self.release(tx, &lease).await.map(|()| true),
        }
    }

    async fn stop_jobs_of(&self, tx: &mut Tx, lease: &Lease) -> Result<bool> {
        let now = self.now();
        let reason = StopReason::LeaseEnds(lease.state.reason().unwrap_or(EndReason::Released));
        let mut stopped = false;
        for job in job::list_open_of(tx, &lease.id).await? {
            stopped |= self.stop_job(tx, &job, reason, now).await?;
        }
        Ok(stopped)
    }

    async fn stop_at_time_limits(&self, now: Timestamp) -> Result<usize> {
        let open = self.cloud.store.read((), |(), tx| Box::pin(job::list_open(tx))).await?;
        let mut stopped = 0;
        for job in open.iter().filter(|job| may_be_past_time_limit(job, now)) {
            let id = &job.id;
            let told = self.cloud.store.write((self, id), move |(compute, id), tx| {
                Box::pin(async move {
                    let job = job::get(tx, &Scope::Operator, id).await?;
                    let Some(attempt) = &job.attempt else { return Ok(false) };
                    let Some(attempt) = attempt::find(tx, attempt).await? else { return Ok(false) };
                    if time_limit_at(tx, &job, &attempt).await?.is_none_or(|limit| now < limit) {
                        return Ok(false);
                    }
                    compute.stop_job(tx, &job, StopReason::TimeLimit, now).await
                })
            });
            stopped += usize::from(told.await?);
        }
        Ok(stopped)
    }
}

/// May run longer than it asked for, and was not told to stop: its first attempt began so long ago.
fn may_be_past_time_limit(job: &Job, now: Timestamp) -> bool {
    let limit = job.started_at.zip(job.spec.limits.time).map(|(at, limit)| at.plus(limit));
    job.state == JobState::Running && limit.is_some_and(|limit| now >= limit)
}
