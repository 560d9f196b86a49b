//! The reconciler of compute: it takes no input and converges what is to what should be.
//!
//! One pass reads the runner's events, grows holds, settles, applies the plan, starts what waits
//! and gives the runner its orders. Each step is a transaction of its own or a call that may be
//! repeated, so a pass may be cut anywhere and begun anew by anybody: attempts are written before
//! they are placed and placed under their own id; the cursor of the events moves in the
//! transaction of their effects. What fails is reported and tried again in the next pass.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

use sublet_core::id::{AttemptId, JobId};
use sublet_core::job::{AttemptState, JobState, StopReason};
use sublet_core::lease::{EndReason, LeaseState};
use sublet_core::runner::{AttemptEvent, AttemptSpec, Notice, SequencedEvent};
use sublet_core::{DurationMs, Error, ErrorCode, Result, Scope, Timestamp};
use sublet_money::spend_limit::Work;
use sublet_store::attempt::{self, Attempt, Kept};
use sublet_store::job::{self, Job};
use sublet_store::lease::{self, Lease};
use sublet_store::{Tx, Updated, device, idempotency};

use crate::Actor;
use crate::attempt::may_start;
use crate::audit::Deed;
use crate::compute::{Compute, done};
use crate::idempotency::IDEMPOTENCY_RETENTION;
use crate::lease::End;
use crate::told::{first_time, forget, keep_live};

/// Events that one transaction takes in.
const EVENTS_PER_BATCH: usize = 500;
/// Batches of one pass.
const BATCHES_MAX: usize = 200;
/// How often one pass plans again after its own changes: a lease can begin to end, stop, be released and make room.
const ROUNDS_MAX: usize = 8;
/// Ended attempts that one pass cleans up after.
const CLEAN_PER_PASS: i64 = 100;

/// What one pass did.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct ComputeReport {
    /// Machines that had changed.
    pub registered: usize,
    pub events: usize,
    pub started: usize,
    pub planned: usize,
    pub lost: usize,
    /// What failed and is tried again. Each was logged.
    pub errors: Vec<Error>,
}

impl ComputeReport {
    pub(crate) fn note<T: Default>(&mut self, what: &str, result: Result<T>) -> T {
        result.unwrap_or_else(|error| {
            tracing::warn!(%error, private = ?error, "compute: {what} failed and is tried again");
            self.errors.push(error);
            T::default()
        })
    }
}

impl Compute {
    /// Runs passes until `stop` says so: when woken, and every period.
    pub async fn run_reconciler(&self, mut stop: tokio::sync::watch::Receiver<bool>) {
        while !*stop.borrow() {
            self.reconcile().await;
            tokio::select! {
                () = self.woken() => {}
                () = tokio::time::sleep(self.settings.period.to_std()) => {}
                changed = stop.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// One pass.
    pub async fn reconcile(&self) -> ComputeReport {
        let mut report = ComputeReport::default();
        self.observe(&mut report).await;
        // After what happened is read: a device whose work has just ended with it is not for sale.
        report.registered = report.note("registering machines", self.follow_machines().await);
        self.pay(&mut report).await;
        let behind = self.follow_demand(&mut report).await;
        for _ in 0..ROUNDS_MAX {
            // Orders first: nobody is told for one that is over.
            let planned = self.follow_reclaims(&mut report).await + self.follow_plan(&mut report).await;
            let started = self.resume_waiting(&mut report).await + self.start_queued(&mut report).await;
            report.planned += planned;
            report.started += started;
            if planned + started == 0 {
                break;
            }
        }
        report.note("waking who waits for notices", self.look_for_notices().await);
        self.instruct(&mut report).await;
        self.catch_up(behind, &mut report).await;
        self.clean_up(&mut report).await;
        report
    }

    /// Ends everything at this process's runner, with notice, because it stops. Call [`Self::reconcile`] until nothing
    /// is live.
    pub async fn drain(&self, notice: DurationMs) -> Result<()> {
        self.draining.store(true, Ordering::Release);
        let now = self.now();
        let end = End { reason: EndReason::ShutDown, deadline: now.plus(notice), told_at: now };
        self.cloud
            .store
            .write(self, move |compute, tx| {
                Box::pin(async move {
                    for lease in lease::list_open(tx).await? {
                        if !compute.runs(tx, &lease).await? {
                            continue;
                        }
                        compute.begin_ending(tx, &Actor::system(), &lease, end).await?;
                    }
                    Ok(())
                })
            })
            .await
    }

    /// How many attempts exist at this process's runner.
    pub async fn live_attempts(&self) -> Result<usize> {
        self.cloud.store.read(self, |compute, tx| Box::pin(async move { Ok(compute.live_work(tx).await?.len()) })).await
    }

    // What happened.

    /// Takes in the runner's events; then closes what ran and is unknown to the runner.
    async fn observe(&self, report: &mut ComputeReport) {
        let runner = self.runner.name();
        let running = self.cloud.store.read(runner, |runner, tx| Box::pin(running_at(tx, runner))).await;
        let running = report.note("reading what runs", running);
        let at_runner: BTreeSet<AttemptId> = self.runner.snapshot().into_iter().map(|live| live.attempt).collect();
        let read_all = match self.take_events(report).await {
            Ok(read_all) => read_all,
            Err(error) => return report.note("reading events", Err(error)),
        };
        if !read_all {
            return;
        }
        let missing: Vec<&AttemptId> = running.iter().filter(|id| !at_runner.contains(id)).collect();
        for id in &self.told.missing_for(&missing, self.settings.lost_patience, self.now()) {
            let closed = self.cloud.store.write((self, id), |(compute, id), tx| {
                Box::pin(async move {
                    let still = attempt::find(tx, id).await?.is_some_and(|attempt| attempt.state == AttemptState::Running);
                    compute.close_lost(tx, id).await?;
                    Ok(usize::from(still))
                })
            });
            report.lost += report.note("closing a lost attempt", closed.await);
        }
    }

    /// True if the log was read to its end.
    async fn take_events(&self, report: &mut ComputeReport) -> Result<bool> {
        let runner = self.runner.name();
        for _ in 0..BATCHES_MAX {
            let cursor = self.cloud.store.read(runner, |runner, tx| Box::pin(attempt::find_cursor(tx, runner))).await?;
            let events = self.runner.events_after(cursor, EVENTS_PER_BATCH)?;
            if events.is_empty() {
                return Ok(true);
            }
            report.events += events.len();
            if let Err(error) = self.take_batch(cursor, &events).await {
                if is_passing(&error) {
                    return Err(error);
                }
                self.take_singly(cursor, &events, report).await?;
            }
        }
        Ok(false)
    }

    /// All effects of a batch and the cursor, in one transaction.
    async fn take_batch(&self, cursor: u64, events: &[SequencedEvent]) -> Result<()> {
        let Some(last) = events.last().map(|event| event.sequence) else { return Ok(()) };
        let events = without_superseded(events);
        self.cloud
            .store
            .write((self, &events), move |(compute, events), tx| {
                Box::pin(async move {
                    // Somebody else who took these events in moved the cursor; then there is nothing to do.
                    match attempt::move_cursor(tx, compute.runner.name(), cursor, last).await? {
                        Updated::Done => {}
                        Updated::Stale | Updated::NotFound => return Ok(()),
                    }
                    for event in events.iter() {
                        compute.apply_event(tx, event).await?;
                    }
                    Ok(())
                })
            })
            .await
    }

    /// One event that cannot be taken in must not hold up all that follow: it is put on record and passed over.
    async fn take_singly(&self, mut cursor: u64, events: &[SequencedEvent], report: &mut ComputeReport) -> Result<()> {
        for event in events {
            if let Err(error) = self.take_batch(cursor, std::slice::from_ref(event)).await {
                if is_passing(&error) {
                    return Err(error);
                }
                self.pass_over(cursor, event, &error).await?;
                report.note("taking in an event", Err::<(), _>(error));
            }
            cursor = event.sequence;
        }
        Ok(())
    }

    async fn pass_over(&self, cursor: u64, event: &SequencedEvent, error: &Error) -> Result<()> {
        let now = self.now();
        self.cloud
            .store
            .write((self, event, error), move |(compute, event, error), tx| {
                Box::pin(async move {
                    attempt::move_cursor(tx, compute.runner.name(), cursor, event.sequence).await?;
                    let detail = format!("event {} passed over: {error:?}", event.sequence);
                    let deed = Deed { organization: None, action: "attempt.event", target: event.attempt.as_str(), detail };
                    compute.cloud.record(tx, &Actor::system(), deed, now).await
                })
            })
            .await
    }

    // What has to be done.

    /// Gives the oldest waiting job of each free lease an attempt; says how many.
    async fn start_queued(&self, report: &mut ComputeReport) -> usize {
        let open = self.cloud.store.read((), |(), tx| Box::pin(job::list_open(tx))).await;
        let mut seen = BTreeSet::new();
        let mut started = 0;
        if self.draining.load(Ordering::Acquire) {
            return started;
        }
        let now = self.now();
        for job in report.note("reading jobs", open) {
            // Jobs come oldest first: only the first of a lease may start.
            let is_first = seen.insert(job.lease.clone());
            if !is_first || job.state != JobState::Queued || job.not_before.is_some_and(|at| at > now) {
                continue;
            }
            let id = &job.id;
            let begun = self.cloud.store.write((self, id), |(compute, id), tx| Box::pin(compute.start_in(tx, id))).await;
            started += usize::from(report.note("starting a job", begun));
        }
        started
    }

    async fn start_in(&self, tx: &mut Tx, id: &JobId) -> Result<bool> {
        let job = job::get(tx, &Scope::Operator, id).await?;
        let lease = lease::get(tx, &Scope::Operator, &job.lease).await?;
        let busy = attempt::find_live_of(tx, &lease.id).await?.is_some();
        if job.state != JobState::Queued || !may_start(&lease) || busy || !self.runs(tx, &lease).await? {
            return Ok(false);
        }
        if self.end_too_dear(tx, &lease).await? {
            return Ok(false);
        }
        // It waits: its lease is about to end, or its account pays before that.
        if self.cloud.is_kept_back(tx, &job.organization, Work::Admitted).await? {
            return Ok(false);
        }
        let number = i64::try_from(attempt::list_of(tx, id).await?.len()).unwrap_or(i64::MAX).saturating_add(1);
        let placed = Attempt {
            id: self.cloud.ids.mint(),
            job: job.id.clone(),
            lease: lease.id.clone(),
            organization: job.organization.clone(),
            project: job.project.clone(),
            number,
            runner: self.runner.name().to_owned(),
            devices: lease.devices.clone(),
            state: AttemptState::Placed,
            placed_at: self.now(),
            started_at: None,
            alive_at: None,
            ended_at: None,
            settled_until: None,
            notified_for: None,
            exit: None,
            isolation: None,
            contained: Vec::new(),
            cpu_time: DurationMs::ZERO,
            peak_memory: sublet_core::Bytes::ZERO,
            generation: 1,
        };
        attempt::insert(tx, &placed).await?;
        let starting = Job { state: job.state.start()?, attempt: Some(placed.id.clone()), ..job };
        done(job::save(tx, &starting).await?, id.as_str())?;
        Ok(true)
    }

    /// Are the devices of a lease this process's to instruct? Others belong to the runners of other processes.
    async fn runs(&self, tx: &mut Tx, lease: &Lease) -> Result<bool> {
        Ok(device::get_node(tx, &lease.node).await?.runner == self.runner.name())
    }

    // Orders to the runner.

    async fn instruct(&self, report: &mut ComputeReport) {
        let live = self.cloud.store.read(self, |compute, tx| Box::pin(compute.live_work(tx))).await;
        let live = report.note("reading what is live", live);
        let ids: BTreeSet<&AttemptId> = live.iter().map(|(attempt, ..)| &attempt.id).collect();
        keep_live(&self.told.placed, &ids);
        keep_live(&self.told.stopped, &ids);
        for (attempt, job, lease) in &live {
            if attempt.state == AttemptState::Placed && first_time(&self.told.placed, &attempt.id) {
                let placed = self.place_attempt(attempt, job, lease).await;
                let is_placed = placed.is_ok();
                report.note("placing an attempt", placed);
                if !is_placed {
                    // What the runner does not know yet cannot be stopped.
                    continue;
                }
            }
            let told = self.warn(attempt, job, lease).await;
            report.note("giving notice", told);
            if matches!(job.state, JobState::Stopping { .. }) && first_time(&self.told.stopped, &attempt.id) {
                let stopped = self.runner.stop(&attempt.id, self.settings.grace);
                if stopped.is_err() {
                    forget(&self.told.stopped, &attempt.id);
                }
                report.note("stopping an attempt", stopped);
            }
        }
    }

    async fn live_work(&self, tx: &mut Tx) -> Result<Vec<(Attempt, Job, Lease)>> {
        let mut work = Vec::new();
        for attempt in attempt::list_live(tx).await? {
            if attempt.runner != self.runner.name() {
                continue;
            }
            let job = job::get(tx, &Scope::Operator, &attempt.job).await?;
            let lease = lease::get(tx, &Scope::Operator, &attempt.lease).await?;
            work.push((attempt, job, lease));
        }
        Ok(work)
    }

    async fn place_attempt(&self, attempt: &Attempt, job: &Job, lease: &Lease) -> Result<()> {
        let context = (self, attempt, job, lease);
        let spec = self
            .cloud
            .store
            .read(context, |(compute, attempt, job, lease), tx| Box::pin(compute.spec_of(tx, attempt, job, lease)))
            .await;
        let refusal = match spec.and_then(|spec| self.runner.place(&spec)) {
            Ok(()) => return Ok(()),
            Err(refusal) => refusal,
        };
        forget(&self.told.placed, &attempt.id);
        let patient_until = attempt.placed_at.plus(self.settings.start_patience);
        if may_pass(&refusal) && self.now() < patient_until {
            return Err(refusal);
        }
        let context = (self, &attempt.id, &refusal);
        self.cloud.store.write(context, |(compute, id, refusal), tx| Box::pin(compute.refuse_attempt(tx, id, refusal))).await
    }

    async fn spec_of(&self, tx: &mut Tx, attempt: &Attempt, job: &Job, lease: &Lease) -> Result<AttemptSpec> {
        let mut device_names = Vec::with_capacity(attempt.devices.len());
        for id in &attempt.devices {
            device_names.push(device::get(tx, id).await?.name);
        }
        Ok(AttemptSpec {
            attempt: attempt.id.clone(),
            job: job.id.clone(),
            lease: lease.id.clone(),
            organization: job.organization.clone(),
            command: job.spec.command.clone(),
            environment: environment_of(attempt, job),
            files: job::list_files(tx, &job.id).await?,
            devices: attempt.devices.clone(),
            device_names,
            limits: self.limits(tx, lease, &job.spec).await?,
            isolation_required: lease.isolation,
            continues: self.continues(tx, attempt, job).await?,
        })
    }

    /// Attempts of a job that may be restarted go on with its work directory.
    async fn continues(&self, tx: &mut Tx, attempt: &Attempt, job: &Job) -> Result<Vec<AttemptId>> {
        if job.spec.restart.is_never() {
            return Ok(Vec::new());
        }
        self.earlier_attempts(tx, &job.id, attempt.number).await
    }

    /// Tells a workload once about each deadline that is set for it.
    async fn warn(&self, attempt: &Attempt, job: &Job, lease: &Lease) -> Result<()> {
        let now = self.now();
        let limit = self.cloud.store.read((job, attempt), |(job, attempt), tx| Box::pin(time_limit_at(tx, job, attempt))).await?;
        let limit = limit.filter(|limit| now.plus(self.settings.time_limit_notice) >= *limit);
        let of_limit = limit.map(|deadline| (deadline, StopReason::TimeLimit));
        let of_lease = match lease.state {
            LeaseState::Ending { reason, deadline } => Some((deadline, StopReason::LeaseEnds(reason))),
            LeaseState::Pending | LeaseState::Active | LeaseState::Ended { .. } => None,
        };
        let soonest = [of_limit, of_lease].into_iter().flatten().min_by_key(|(deadline, _)| *deadline);
        let Some((deadline, reason)) = soonest else { return Ok(()) };
        if attempt.state != AttemptState::Running || attempt.notified_for == Some(deadline) {
            return Ok(());
        }
        let notice = Notice { reason: reason.explanation().to_owned(), deadline };
        match self.runner.notify(&attempt.id, &notice) {
            // It ended meanwhile.
            Err(error) if error.code() == ErrorCode::NotFound => return Ok(()),
            told => told?,
        }
        self.cloud
            .store
            .write(&attempt.id, move |id, tx| {
                Box::pin(async move {
                    let Some(attempt) = attempt::find(tx, id).await? else { return Ok(()) };
                    let told = Attempt { notified_for: Some(deadline), ..attempt };
                    done(attempt::save(tx, &told).await?, id.as_str())
                })
            })
            .await
    }

    /// Deletes work directories of what ended, and logs that were kept long enough.
    async fn clean_up(&self, report: &mut ComputeReport) {
        let now = self.now();
        let forgotten = now.minus(self.settings.log_retention);
        for (kept, before, then) in [(Kept::All, now, Kept::Log), (Kept::Log, forgotten, Kept::Nothing)] {
            let runner = self.runner.name();
            let ended = self
                .cloud
                .store
                .read(runner, move |runner, tx| Box::pin(attempt::list_ended(tx, runner, kept, before, CLEAN_PER_PASS)));
            for id in report.note("reading what ended", ended.await) {
                let cleaned = match then {
                    Kept::Log => self.runner.clean(&id),
                    Kept::Nothing => self.runner.forget(&id),
                    Kept::All => Ok(()),
                };
                let noted = match cleaned {
                    Ok(()) => self.cloud.store.write(&id, move |id, tx| Box::pin(attempt::set_kept(tx, id, then))).await,
                    Err(error) => Err(error),
                };
                report.note("cleaning up", noted);
            }
        }
        if self.told.is_sweep_due(now) {
            let old = now.minus(IDEMPOTENCY_RETENTION);
            let swept = self.cloud.store.write((), move |(), tx| Box::pin(idempotency::delete_before(tx, old))).await;
            if report.note("forgetting old answers", swept) {
                self.told.note_sweep(now);
            }
        }
    }
}

async fn running_at(tx: &mut Tx, runner: &str) -> Result<Vec<AttemptId>> {
    let live = attempt::list_live(tx).await?.into_iter();
    Ok(live
        .filter(|attempt| attempt.state == AttemptState::Running && attempt.runner == runner)
        .map(|attempt| attempt.id)
        .collect())
}

/// When a running attempt reaches its job's own time limit, which is one for all attempts together.
pub(crate) async fn time_limit_at(tx: &mut Tx, job: &Job, attempt: &Attempt) -> Result<Option<Timestamp>> {
    let Some((started_at, limit)) = attempt.started_at.zip(job.spec.limits.time) else { return Ok(None) };
    let mut left = limit.millis();
    if job.restarts > 0 {
        for earlier in attempt::list_of(tx, &job.id).await? {
            if let Some((from, until)) = earlier.started_at.zip(earlier.ended_at).filter(|_| earlier.number < attempt.number) {
                left = left.saturating_sub(until.since(from).millis());
            }
        }
    }
    Ok(Some(started_at.plus(DurationMs::from_millis(left.max(0)))))
}

/// What the customer set, and what an attempt has to know of those before it. Names that begin with `SUBLET_` are the cloud's.
fn environment_of(attempt: &Attempt, job: &Job) -> BTreeMap<String, String> {
    let restarts = attempt.number.saturating_sub(1).max(0);
    let mut environment = job.spec.environment.clone();
    environment.insert("SUBLET_RESTART_COUNT".to_owned(), restarts.to_string());
    environment
}

/// Of an attempt's proofs of life in one batch only the last one matters.
fn without_superseded(events: &[SequencedEvent]) -> Vec<SequencedEvent> {
    let mut last: BTreeMap<&AttemptId, u64> = BTreeMap::new();
    for event in events {
        if matches!(event.event, AttemptEvent::Alive { .. }) {
            last.insert(&event.attempt, event.sequence);
        }
    }
    let matters = |event: &&SequencedEvent| match event.event {
        AttemptEvent::Alive { .. } => last.get(&event.attempt) == Some(&event.sequence),
        AttemptEvent::Started { .. } | AttemptEvent::Contained { .. } | AttemptEvent::Exited { .. } => true,
    };
    events.iter().filter(matters).cloned().collect()
}

/// Failures of the store that have nothing to do with what was written.
fn is_passing(error: &Error) -> bool {
    matches!(error.code(), ErrorCode::StoreUnavailable | ErrorCode::StorageFull)
}

/// Refusals of the runner that may be gone in a moment.
fn may_pass(error: &Error) -> bool {
    matches!(
        error.code(),
        ErrorCode::Internal
            | ErrorCode::StorageFull
            | ErrorCode::StoreUnavailable
            | ErrorCode::CapacityUnavailable
            | ErrorCode::ShuttingDown
    )
}
