//! Jobs that go on: interrupted ones wait without a lease, and get another when their turn comes and capacity is there.
//!
//! While a job waits it holds nothing and costs nothing. The transaction that ends its wait makes what `run` would make: a
//! quote at the prices in force, a lease with its first hold, and the job on it; it takes the job as it was read, and only
//! after its last lease has ended, so nobody places it twice. What speaks against it is kept as what the job waits for.
//!
//! Deliberately absent: going on where its work directory is not. That lies with the runner of its last attempt.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::Ordering;

use sublet_capacity::{Request, Snapshot, try_place, try_place_with_reclaim};
use sublet_core::id::{AttemptId, JobId, ProjectId};
use sublet_core::job::{JobState, StopReason};
use sublet_core::key::KeyPlane;
use sublet_core::lease::{Holder, LeaseState};
use sublet_core::restart::{GoesOn, pause_before_retry};
use sublet_core::runner::Exit;
use sublet_core::{DurationMs, Error, ErrorCode, Nanos, Result, Scope, Timestamp};
use sublet_store::job::{self, Job, REQUEUED_JOBS_MAX};
use sublet_store::lease::{self, Lease};
use sublet_store::{Tx, attempt, device, key, quote};

use crate::Actor;
use crate::audit::Deed;
use crate::compute::{Compute, device_of, done};
use crate::compute_reconciler::ComputeReport;
use crate::placed_price::refusal_of;
use crate::quote::NewQuote;

/// Jobs that one pass tries to let go on.
const TRIES_PER_PASS: usize = 50;
/// After what only money or the owner can change, a waiting job is not tried again for so long.
const REFUSED_PAUSE: DurationMs = DurationMs::from_seconds(10);
/// Jobs of other runners that one look is for, and how long after its time another process gives one of them up.
const WAITING_PER_LOOK: i64 = 500;
const ABANDONED_AFTER: DurationMs = DurationMs::from_seconds(10 * 60);

/// A waiting job with the lease that it had last.
struct Waiting {
    job: Job,
    last: Lease,
    request: Request,
}

impl Compute {
    /// Decides whether a job whose attempt ended goes on; false if it stays ended.
    pub(crate) async fn goes_on_after(&self, tx: &mut Tx, job: &Job, exit: &Exit, at: Timestamp) -> Result<bool> {
        if job.spec.restart.is_never() || !job.state.may_go_on() {
            return Ok(false);
        }
        let lease = lease::get(tx, &Scope::Operator, &job.lease).await?;
        let ended = job.state.exit(exit)?;
        match job.spec.restart.after((ended, exit), taken(&lease), job.restarts) {
            Some(goes_on) => self.go_on(tx, (job, &lease), goes_on, at).await,
            None => Ok(false),
        }
    }

    /// The same of a job that its runner would not start.
    pub(crate) async fn goes_on_after_refusal(&self, tx: &mut Tx, job: &Job, at: Timestamp) -> Result<bool> {
        if !job.state.may_go_on() {
            return Ok(false);
        }
        let lease = lease::get(tx, &Scope::Operator, &job.lease).await?;
        match job.spec.restart.after_refusal(taken(&lease), job.restarts) {
            Some(goes_on) => self.go_on(tx, (job, &lease), goes_on, at).await,
            None => Ok(false),
        }
    }

    /// The same of a job that was to be tried again on a lease that the owner takes back.
    pub(crate) async fn moves_on(&self, tx: &mut Tx, job: &Job, reason: StopReason, now: Timestamp) -> Result<bool> {
        let policy = &job.spec.restart;
        let may = policy.on_interruption && job.restarts < policy.restarts_max && reason.is_owners();
        if job.state != JobState::Queued || job.attempt.is_none() || !may {
            return Ok(false);
        }
        let lease = lease::get(tx, &Scope::Operator, &job.lease).await?;
        self.go_on(tx, (job, &lease), GoesOn::Elsewhere(reason), now).await
    }

    async fn go_on(&self, tx: &mut Tx, (job, lease): (&Job, &Lease), goes_on: GoesOn, at: Timestamp) -> Result<bool> {
        let (now, restarts) = (self.now(), job.restarts.saturating_add(1));
        // Until it runs again: what ends it before that is the end of an interrupted job.
        let interrupted_at = match goes_on {
            GoesOn::Elsewhere(_) => Some(now),
            GoesOn::Here => job.requeued_at,
        };
        let goes_on = match (goes_on, lease.state) {
            // A machine that only lost the attempt has a place for the next.
            (GoesOn::Here | GoesOn::Elsewhere(_), LeaseState::Active) => GoesOn::Here,
            (GoesOn::Elsewhere(reason), _) => GoesOn::Elsewhere(reason),
            (GoesOn::Here, _) => return Ok(false),
        };
        let waits = Job { state: job.state.go_on(goes_on)?, exit: None, restarts, requeued_at: interrupted_at, ..job.clone() };
        let (waits, detail) = match goes_on {
            GoesOn::Here => {
                let not_before = Some(at.plus(pause_before_retry(job.restarts)));
                (Job { not_before, ..waits }, format!("restart {restarts} on {}", lease.id))
            }
            GoesOn::Elsewhere(reason) => {
                if job::count_requeued(tx, &job.organization).await? >= REQUEUED_JOBS_MAX {
                    return Ok(false);
                }
                // What never ran is not charged, and is held anew when it goes on.
                self.cloud.release_hold(tx, job.id.as_str(), now).await?;
                let message = format!("{}; it waits for capacity to go on", reason.explanation());
                (Job { not_before: None, message, ..waits }, format!("restart {restarts}: {}", reason.as_str()))
            }
        };
        done(job::save(tx, &waits).await?, job.id.as_str())?;
        let deed = Deed { organization: Some(&job.organization), action: "job.requeue", target: job.id.as_str(), detail };
        self.cloud.record(tx, &Actor::system(), deed, now).await?;
        Ok(true)
    }

    /// Lets waiting jobs go on, and gives up those that waited too long; says how many changed.
    pub(crate) async fn resume_waiting(&self, report: &mut ComputeReport) -> usize {
        if self.draining.load(Ordering::Acquire) {
            return 0;
        }
        let now = self.now();
        let waiting = self.cloud.store.read(self, |compute, tx| Box::pin(compute.waiting_in(tx)));
        let waiting = report.note("reading jobs that wait to go on", waiting.await);
        let over = waiting.iter().filter(|one| is_over(&one.job, now)).map(|one| one.job.id.clone()).collect();
        // Even what waited long enough is tried once more: perhaps it was this process that was away.
        let resumed = self.resume_due(report, waiting).await;
        resumed + self.give_up_each(report, over).await
    }

    async fn resume_due(&self, report: &mut ComputeReport, waiting: Vec<Waiting>) -> usize {
        let now = self.now();
        let due = waiting.into_iter().filter(|one| one.last.state.is_final() && one.job.not_before.is_none_or(|at| at <= now));
        let due: Vec<(ProjectId, Waiting)> = due.map(|one| (one.job.project.clone(), one)).collect();
        if due.is_empty() {
            return 0;
        }
        let snapshot = self.cloud.store.read(self, |compute, tx| Box::pin(async move { Ok(Some(compute.snapshot(tx).await?)) }));
        let Some(snapshot) = report.note("looking at the fleet", snapshot.await) else { return 0 };
        self.resume_each(report, in_turn(due), &snapshot).await
    }

    /// Gives up what waited too long here, and what another process, whose runner has the work, should long have given up.
    async fn give_up_each(&self, report: &mut ComputeReport, mut over: Vec<JobId>) -> usize {
        let after = self.told.waiting_after();
        let elsewhere = self.cloud.store.read((self, &after), |(compute, after), tx| {
            Box::pin(job::list_requeued_elsewhere(tx, &Scope::Operator, (compute.runner.name(), after), WAITING_PER_LOOK))
        });
        let elsewhere = report.note("reading jobs that wait elsewhere", elsewhere.await);
        let is_more = i64::try_from(elsewhere.len()).is_ok_and(|count| count == WAITING_PER_LOOK);
        self.told.note_waiting(elsewhere.last().filter(|_| is_more).map(|job| job.id.to_string()));
        let abandoned_at = self.now().minus(ABANDONED_AFTER);
        over.extend(elsewhere.into_iter().filter(|job| is_over(job, abandoned_at)).map(|job| job.id));
        let mut given_up = 0;
        for id in &over {
            given_up += usize::from(report.note("giving up a job", self.give_up(id).await));
        }
        given_up
    }

    async fn resume_each(&self, report: &mut ComputeReport, due: Vec<Waiting>, snapshot: &Snapshot) -> usize {
        let (mut refused, mut resumed, mut tries): (Vec<(Request, Error)>, _, _) = (Vec::new(), 0, 0);
        for one in due {
            let known = refused.iter().find(|(other, _)| *other == one.request).map(|(_, refusal)| refusal.clone());
            let is_known = known.is_some();
            if let Some(refusal) = known.or_else(|| cannot_be_placed(snapshot, &one.request, self.now())) {
                report.note("noting what a job waits for", self.note_wait(&one.job, &refusal, None).await);
                if !is_known {
                    refused.push((one.request, refusal));
                }
                continue;
            }
            if tries == TRIES_PER_PASS {
                break;
            }
            tries += 1;
            let id = &one.job.id;
            let attempt = self.cloud.store.write((self, id), |(compute, id), tx| Box::pin(compute.resume_in(tx, id))).await;
            match attempt {
                Ok(is_resumed) => resumed += usize::from(is_resumed),
                Err(error) if is_fault(&error) => report.note("letting a job go on", Err(error)),
                Err(refusal) => {
                    let not_before = self.now().plus(REFUSED_PAUSE);
                    report.note("noting what a job waits for", self.note_wait(&one.job, &refusal, Some(not_before)).await);
                }
            }
        }
        resumed
    }

    async fn waiting_in(&self, tx: &mut Tx) -> Result<Vec<Waiting>> {
        let mut waiting = Vec::new();
        for job in job::list_requeued(tx, &Scope::Operator, self.runner.name()).await? {
            let last = lease::get(tx, &Scope::Operator, &job.lease).await?;
            let request = request_of(&last)?;
            waiting.push(Waiting { job, last, request });
        }
        Ok(waiting)
    }

    /// Everything or nothing: a quote, a lease with its hold, and the job on it. False if somebody else was sooner.
    async fn resume_in(&self, tx: &mut Tx, id: &JobId) -> Result<bool> {
        let now = self.now();
        let job = job::get(tx, &Scope::Operator, id).await?;
        let last = lease::get(tx, &Scope::Operator, &job.lease).await?;
        if !matches!(job.state, JobState::Requeued { .. }) || !last.state.is_final() {
            return Ok(false);
        }
        let actor = self.on_behalf_of(tx, &job, now).await?;
        let new = asked_again(tx, &last).await?;
        let quote = self.quote_in(tx, &actor, (&new, job.started_at.is_none()), now).await?;
        let lease = self.accept_in(tx, &actor, &quote, &new.metadata).await?;
        if device::get_node(tx, &lease.node).await?.runner != self.runner.name() {
            let message = format!("what is free is not on the machine that has the work directory, but on {}", lease.node);
            return Err(Error::new(ErrorCode::CapacityUnavailable, message));
        }
        let resumed = Job { state: job.state.resume()?, lease: lease.id.clone(), message: String::new(), not_before: None, ..job };
        done(job::save(tx, &resumed).await?, id.as_str())?;
        if resumed.started_at.is_none() {
            self.hold_start(tx, &lease, &resumed).await?;
        }
        let used = Lease { unused_since: None, job_over: false, ..lease };
        done(lease::save(tx, &used).await?, used.id.as_str())?;
        let detail = format!("goes on with {}", used.id);
        let deed = Deed { organization: Some(&resumed.organization), action: "job.resume", target: id.as_str(), detail };
        self.cloud.record(tx, &Actor::system(), deed, now).await?;
        Ok(true)
    }

    /// Who asked for a job, if that may still spend.
    async fn on_behalf_of(&self, tx: &mut Tx, job: &Job, now: Timestamp) -> Result<Actor> {
        if let Some(id) = &job.key {
            let key = key::find(tx, &Scope::Operator, id).await?;
            if key.is_none_or(|key| key.revoked_at.is_some() || key.expires_at.is_some_and(|at| at <= now)) {
                return Err(Error::new(
                    ErrorCode::PolicyRefused,
                    format!("the key '{id}' that asked for it was revoked or has expired"),
                ));
            }
        }
        let scope = Scope::Project { organization: job.organization.clone(), project: job.project.clone() };
        Ok(Actor { plane: KeyPlane::Project, scope, key: job.key.clone(), address: String::new() })
    }

    /// Keeps why a job cannot go on now, if that has changed.
    async fn note_wait(&self, job: &Job, refusal: &Error, not_before: Option<Timestamp>) -> Result<()> {
        if job.message == refusal.message() && job.not_before == not_before {
            return Ok(());
        }
        self.cloud
            .store
            .write((&job.id, refusal), move |(id, refusal), tx| {
                Box::pin(async move {
                    let job = job::get(tx, &Scope::Operator, id).await?;
                    if !matches!(job.state, JobState::Requeued { .. }) {
                        return Ok(());
                    }
                    let noted = Job { message: refusal.message().to_owned(), not_before, ..job };
                    done(job::save(tx, &noted).await?, id.as_str())
                })
            })
            .await
    }

    async fn give_up(&self, id: &JobId) -> Result<bool> {
        let now = self.now();
        self.cloud
            .store
            .write((self, id), move |(compute, id), tx| {
                Box::pin(async move {
                    let job = job::get(tx, &Scope::Operator, id).await?;
                    if !matches!(job.state, JobState::Requeued { .. }) || !is_over(&job, now) {
                        return Ok(false);
                    }
                    let message = format!("it waited longer than its longest wait, at last because {}", job.message);
                    let over = Job { state: job.state.give_up()?, message, ended_at: Some(now), ..job };
                    compute.end_waiting(tx, &over, now).await?;
                    Ok(true)
                })
            })
            .await
    }

    /// A job ends that waited to go on. What its start cost goes back: the owner interrupted it.
    pub(crate) async fn end_waiting(&self, tx: &mut Tx, over: &Job, now: Timestamp) -> Result<()> {
        done(job::save(tx, over).await?, over.id.as_str())?;
        self.give_start_back(tx, (over, None), now).await?;
        self.job_ended(tx, over, now).await
    }

    /// The earlier attempts of a job here, the newest first.
    pub(crate) async fn earlier_attempts(&self, tx: &mut Tx, id: &JobId, number: i64) -> Result<Vec<AttemptId>> {
        let attempts = attempt::list_of(tx, id).await?.into_iter().rev();
        let earlier = attempts.filter(|attempt| attempt.number < number && attempt.runner == self.runner.name());
        Ok(earlier.map(|attempt| attempt.id).collect())
    }
}

/// Why the owner takes a lease back, if it does.
pub(crate) fn taken(lease: &Lease) -> Option<StopReason> {
    lease.state.reason().map(StopReason::LeaseEnds).filter(|reason| reason.is_owners())
}

/// Until when a job waits to go on.
pub fn waits_until(job: &Job) -> Option<Timestamp> {
    job.requeued_at.filter(|_| matches!(job.state, JobState::Requeued { .. })).map(|since| since.plus(job.spec.restart.wait_max))
}

fn is_over(job: &Job, now: Timestamp) -> bool {
    waits_until(job).is_some_and(|until| until <= now)
}

/// What will not pass by itself and is nothing of the customer's.
fn is_fault(error: &Error) -> bool {
    matches!(error.code(), ErrorCode::Internal | ErrorCode::StoreUnavailable | ErrorCode::StorageFull | ErrorCode::LedgerMismatch)
}

/// Projects in turn; in each, what comes first. `due` has the project of each.
fn in_turn<T>(due: Vec<(ProjectId, T)>) -> Vec<T> {
    let (mut order, mut of): (Vec<ProjectId>, BTreeMap<ProjectId, VecDeque<T>>) = (Vec::new(), BTreeMap::new());
    for (project, one) in due {
        if !of.contains_key(&project) {
            order.push(project.clone());
        }
        of.entry(project).or_default().push_back(one);
    }
    let mut turns = Vec::new();
    while !of.is_empty() {
        turns.extend(order.iter().filter_map(|project| of.get_mut(project)?.pop_front()));
        of.retain(|_, waiting| !waiting.is_empty());
    }
    turns
}

fn request_of(last: &Lease) -> Result<Request> {
    Ok(Request {
        kind: device_of(&last.sku)?.clone(),
        units: last.units,
        notice: last.notice,
        holder: last.holder,
        site: Some(last.site.clone()),
        isolation: last.isolation,
    })
}

/// Why there is no room on the fleet as it was seen.
fn cannot_be_placed(snapshot: &Snapshot, request: &Request, now: Timestamp) -> Option<Error> {
    let reason = match request.holder {
        Holder::Internal => try_place_with_reclaim(snapshot, request, now).err(),
        Holder::External => try_place(snapshot, request).err(),
    };
    reason.map(refusal_of)
}

/// What a lease was asked for with, with what is left of its maximum cost.
async fn asked_again(tx: &mut Tx, last: &Lease) -> Result<NewQuote> {
    let terms = quote::get(tx, &Scope::Operator, &last.quote).await?.terms;
    let max_cost = last.max_cost.map(|max_cost| max_cost.checked_sub(last.cost)).transpose()?;
    if max_cost.is_some_and(|left| left <= Nanos::ZERO) {
        return Err(Error::new(ErrorCode::PriceAboveMaximum, "nothing is left of its maximum cost"));
    }
    let ran = last.ended_at.map_or(DurationMs::ZERO, |at| at.since(last.starts_at));
    let max_duration = terms.max_duration.map(|span| DurationMs::from_millis(span.millis().saturating_sub(ran.millis())));
    if max_duration.is_some_and(|left| left <= DurationMs::ZERO) {
        return Err(Error::new(ErrorCode::PolicyRefused, "nothing is left of its longest duration"));
    }
    Ok(NewQuote {
        kind: terms.kind,
        units: last.units,
        notice: last.notice,
        site: Some(last.site.clone()),
        isolation: Some(last.isolation),
        max_duration,
        max_cost,
        max_price: last.max_price,
        metadata: last.metadata.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn projects_have_their_turns_and_none_is_passed_twice() {
        let project = |name: &str| name.parse::<ProjectId>().unwrap();
        let due = [("proj_1", 1), ("proj_1", 2), ("proj_2", 3), ("proj_1", 4), ("proj_3", 5), ("proj_2", 6)];
        let turns = in_turn(due.into_iter().map(|(name, job)| (project(name), job)).collect());
        assert_eq!(turns, [1, 3, 5, 2, 6, 4]);
        assert_eq!(in_turn::<u8>(Vec::new()), Vec::<u8>::new());
    }
}
