//! Jobs: asked for, cancelled, looked at. The reconciler starts and ends them.

use std::collections::BTreeMap;

use sublet_core::id::{AttemptId, JobId, LeaseId};
use sublet_core::job::{JobSpec, JobState, OnEnd, StopReason};
use sublet_core::lease::LeaseState;
use sublet_core::runner::{AttemptLimits, Exit, LogChunk};
use sublet_core::{Bytes, DeviceMillis, Error, ErrorCode, Nanos, Result, Timestamp};
use sublet_store::attempt::{self, Attempt, AttemptInterval};
use sublet_store::charge::{self, Charge};
use sublet_store::job::{self, Job, JobFilter, OPEN_JOBS_PER_LEASE_MAX};
use sublet_store::lease::{self, Lease};
use sublet_store::quote::Quote;
use sublet_store::{Page, PageRequest, Tx, device};

use crate::audit::Deed;
use crate::compute::{Compute, done};
use crate::idempotency::{Answer, Call, Render};
use crate::lease::{LeaseStatement, hold_facts, state_in};
use crate::quote::{NewQuote, check_metadata};
use crate::restart::waits_until;
use crate::why::{Explanation, Fact};
use crate::{Action, Actor, Cloud};
use sublet_money::sku::SkuFamily;
use sublet_money::spend_limit::Work;

/// Most charges that one statement lists.
const CHARGES_MAX: i64 = 10_000;
/// Most bytes of a log in one answer.
pub const LOG_CHUNK_MAX_BYTES: usize = 1 << 20;

/// A job with its runs and what it cost.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JobStatement {
    pub job: Job,
    pub lease: Lease,
    /// Oldest first; the last is the present one.
    pub attempts: Vec<Attempt>,
    pub charges: Vec<Charge>,
    pub cost: Nanos,
    /// Devices multiplied by milliseconds that are charged so far.
    pub device_time: DeviceMillis,
    /// Which in turn it is of the jobs of its project that wait to go on, from 1, if it does.
    pub position: Option<i64>,
}

/// What somebody wants to run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewJob {
    pub spec: JobSpec,
    pub metadata: BTreeMap<String, String>,
}

/// A job, and the capacity to run it on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewRun {
    pub quote: NewQuote,
    pub job: NewJob,
}

/// What a combined call made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Run {
    pub quote: Quote,
    pub lease: LeaseStatement,
    pub job: JobStatement,
}

impl Compute {
    /// Queues a job on a lease.
    pub async fn create_job(
        &self,
        call: &Call,
        lease: &LeaseId,
        new: &NewJob,
        render: &Render<JobStatement>,
    ) -> Result<Answer<JobStatement>> {
        call.actor.require(Action::UseCompute)?;
        let answer = self
            .cloud
            .once(call, render, (self, &call.actor, lease, new), |(compute, actor, lease, new), tx| {
                Box::pin(async move {
                    let lease = lease::get(tx, &actor.scope, lease).await?;
                    let job = compute.job_in(tx, actor, &lease, new).await?;
                    statement_in(tx, job).await
                })
            })
            .await?;
        self.wake();
        Ok(answer)
    }

    /// Quotes, leases and queues in one transaction under one key: everything or nothing.
    pub async fn run(&self, call: &Call, new: &NewRun, render: &Render<Run>) -> Result<Answer<Run>> {
        call.actor.require(Action::UseCompute)?;
        let now = self.now();
        let outcome = self
            .cloud
            .once(call, render, (self, &call.actor, new), move |(compute, actor, new), tx| {
                Box::pin(async move {
                    let quote = compute.quote_in(tx, actor, (&new.quote, true), now).await?;
                    let lease = compute.accept_in(tx, actor, &quote, &new.quote.metadata).await?;
                    let job = compute.job_in(tx, actor, &lease, &new.job).await?;
                    let lease = lease::get(tx, &actor.scope, &lease.id).await?;
                    let lease = state_in(tx, lease).await?;
                    let quote = sublet_store::quote::get(tx, &actor.scope, &quote.id).await?;
                    Ok(Run { quote, lease, job: statement_in(tx, job).await? })
                })
            })
            .await;
        let answer = self.noting(&call.actor, &new.quote, outcome).await?;
        self.wake();
        Ok(answer)
    }

    pub(crate) async fn job_in(&self, tx: &mut Tx, actor: &Actor, lease: &Lease, new: &NewJob) -> Result<Job> {
        let (now, spec) = (self.now(), &new.spec);
        spec.validate()?;
        check_metadata(&new.metadata)?;
        self.cloud.check_suspension(tx, &lease.organization, Work::New).await?;
        if !matches!(lease.state, LeaseState::Pending | LeaseState::Active) {
            return Err(Error::new(ErrorCode::Conflict, format!("lease '{}' is {}", lease.id, lease.state.as_str()))
                .alternative("lease anew: 'sublet run' quotes, leases and runs in one step"));
        }
        self.limits(tx, lease, spec).await?;
        let open = job::list_open_of(tx, &lease.id).await?;
        if i64::try_from(open.len()).unwrap_or(i64::MAX) >= OPEN_JOBS_PER_LEASE_MAX {
            return Err(Error::new(ErrorCode::Conflict, format!("at most {OPEN_JOBS_PER_LEASE_MAX} jobs wait on one lease")));
        }
        let job = Job {
            id: self.cloud.ids.mint(),
            organization: lease.organization.clone(),
            project: lease.project.clone(),
            lease: lease.id.clone(),
            key: actor.key.clone(),
            spec: spec.clone(),
            state: JobState::Queued,
            message: String::new(),
            attempt: None,
            exit: None,
            generation: 1,
            created_at: now,
            started_at: None,
            ended_at: None,
            restarts: 0,
            requeued_at: None,
            not_before: None,
            start_lease: None,
            metadata: new.metadata.clone(),
        };
        job::insert(tx, &job).await?;
        self.hold_start(tx, lease, &job).await?;
        let used = Lease { unused_since: None, job_over: false, ..lease.clone() };
        done(lease::save(tx, &used).await?, lease.id.as_str())?;
        let program: String = spec.command.first().map(|word| word.chars().take(80).collect()).unwrap_or_default();
        let detail = format!("{program} on {}", lease.id);
        let deed = Deed { organization: Some(&job.organization), action: "job.create", target: job.id.as_str(), detail };
        self.cloud.record(tx, actor, deed, now).await?;
        job::get(tx, &actor.scope, &job.id).await
    }

    /// The limits an attempt gets: what the job asked for within the share of its devices.
    pub(crate) async fn limits(&self, tx: &mut Tx, lease: &Lease, spec: &JobSpec) -> Result<AttemptLimits> {
        let mut memory_share = 0_i64;
        for id in &lease.devices {
            memory_share = memory_share.saturating_add(device::get(tx, id).await?.memory.get());
        }
        let units = i64::from(lease.units);
        let disk_share = self.settings.disk_per_device.get().saturating_mul(units);
        let within = |name: &str, wanted: Option<Bytes>, share: i64| match wanted {
            Some(wanted) if wanted.get() > share => Err(Error::new(
                ErrorCode::InvalidRequest,
                format!("the job asks for {wanted} bytes of {name}, and its {units} devices come with {share}"),
            )
            .param(name)
            .alternative("ask for more units")),
            Some(wanted) => Ok(wanted),
            None => Ok(Bytes::new(share)),
        };
        Ok(AttemptLimits {
            memory: within("memory", spec.limits.memory, memory_share)?,
            disk: within("disk", spec.limits.disk, disk_share)?,
            log: self.settings.log_per_job,
            processes: self.settings.processes_per_device.saturating_mul(lease.units),
            open_files: self.settings.open_files,
            cpu_millis: self.settings.cpu_millis_per_device.saturating_mul(lease.units),
        })
    }

    pub async fn get_job(&self, actor: &Actor, id: &JobId) -> Result<JobStatement> {
        self.cloud.get_job(actor, id).await
    }

    pub async fn list_jobs(&self, actor: &Actor, filter: &JobFilter, page: &PageRequest) -> Result<Page<JobStatement>> {
        self.cloud
            .store
            .read((actor, filter, page), |(actor, filter, page), tx| {
                Box::pin(async move {
                    let jobs = job::list(tx, &actor.scope, filter, page).await?;
                    let mut items = Vec::with_capacity(jobs.items.len());
                    for job in jobs.items {
                        items.push(statement_in(tx, job).await?);
                    }
                    Ok(Page { items, has_more: jobs.has_more })
                })
            })
            .await
    }

    /// Stops a job. One that ended or is stopping already stays as it is.
    pub async fn cancel_job(&self, actor: &Actor, id: &JobId) -> Result<JobStatement> {
        let now = self.now();
        let cancelled = self
            .cloud
            .store
            .write((self, actor, id), move |(compute, actor, id), tx| {
                Box::pin(async move {
                    let job = job::get(tx, &actor.scope, id).await?;
                    if compute.stop_job(tx, &job, StopReason::Cancelled, now).await? {
                        let deed = Deed {
                            organization: Some(&job.organization),
                            action: "job.cancel",
                            target: id.as_str(),
                            detail: String::new(),
                        };
                        compute.cloud.record(tx, actor, deed, now).await?;
                    }
                    let job = job::get(tx, &actor.scope, id).await?;
                    statement_in(tx, job).await
                })
            })
            .await?;
        self.wake();
        Ok(cancelled)
    }

    /// Part of the output of one of a job's attempts, the last one's if none is named: standard output and error as they came.
    pub async fn read_job_log(
        &self,
        actor: &Actor,
        id: &JobId,
        (number, offset): (Option<u32>, u64),
        max_bytes: usize,
    ) -> Result<LogChunk> {
        let (job, runner, named) = self
            .cloud
            .store
            .read((actor, id), move |(actor, id), tx| {
                Box::pin(async move {
                    let job = job::get(tx, &actor.scope, id).await?;
                    let lease = lease::get(tx, &actor.scope, &job.lease).await?;
                    let runner = device::get_node(tx, &lease.node).await?.runner;
                    let named = match number {
                        Some(number) => Some(attempt_of(tx, id, number).await?),
                        None => None,
                    };
                    Ok((job, runner, named))
                })
            })
            .await?;
        let (runner, attempt) = match named {
            Some(named) => (named.runner, Some(named.id)),
            None => (runner, job.attempt),
        };
        let nothing = LogChunk { bytes: Vec::new(), next_offset: offset, complete: job.state.is_final() };
        if runner != self.runner.name() {
            let message = format!("the log of {id} is kept by another process of this cloud, at the runner '{runner}'");
            return Err(Error::new(ErrorCode::Unreachable, message).alternative("ask at the address of that process"));
        }
        let Some(attempt) = attempt else { return Ok(nothing) };
        match self.runner.read_log(&attempt, offset, max_bytes.min(LOG_CHUNK_MAX_BYTES)) {
            // Not yet begun, or no longer kept.
            Err(error) if error.code() == ErrorCode::NotFound => Ok(nothing),
            other => other,
        }
    }

    /// Lets a job stop, or end at once if it never ran. False if there is nothing to stop.
    pub(crate) async fn stop_job(&self, tx: &mut Tx, job: &Job, reason: StopReason, now: Timestamp) -> Result<bool> {
        if self.moves_on(tx, job, reason, now).await? {
            return Ok(true);
        }
        let Ok(state) = job.state.stop(reason) else { return Ok(false) };
        let ended_at = state.is_final().then_some(now);
        let message = match (state.is_final(), job.started_at) {
            (false, _) => String::new(),
            (true, None) => format!("it never ran: {}", reason.explanation()),
            (true, Some(_)) => format!("it did not run again: {}", reason.explanation()),
        };
        let changed = Job { state, ended_at, message, ..job.clone() };
        if matches!(job.state, JobState::Requeued { .. }) {
            self.end_waiting(tx, &changed, now).await?;
            return Ok(true);
        }
        done(job::save(tx, &changed).await?, job.id.as_str())?;
        if state.is_final() {
            self.give_start_back(tx, (&changed, None), now).await?;
            self.job_ended(tx, &changed, now).await?;
        }
        Ok(true)
    }

    /// What the end of a job means for its lease.
    pub(crate) async fn job_ended(&self, tx: &mut Tx, job: &Job, now: Timestamp) -> Result<()> {
        job::delete_files(tx, &job.id).await?;
        // What never ran is not charged.
        self.cloud.release_hold(tx, job.id.as_str(), now).await?;
        let lease = lease::get(tx, &sublet_core::Scope::Operator, &job.lease).await?;
        let idle = job::list_open_of(tx, &job.lease).await?.is_empty();
        if lease.state.is_final() || !idle {
            return Ok(());
        }
        let job_over = match job.spec.on_end {
            OnEnd::EndLease => true,
            OnEnd::KeepLease => lease.job_over,
        };
        let changed = Lease { unused_since: Some(now), job_over, ..lease };
        done(lease::save(tx, &changed).await?, changed.id.as_str())
    }
}

async fn attempt_of(tx: &mut Tx, id: &JobId, number: u32) -> Result<Attempt> {
    let attempts = attempt::list_of(tx, id).await?;
    let count = attempts.len();
    attempts.into_iter().find(|attempt| attempt.number == i64::from(number)).ok_or_else(|| {
        Error::new(ErrorCode::NotFound, format!("job '{id}' has no attempt {number}"))
            .alternative(format!("attempts are numbered from 1, and it has had {count}"))
    })
}

pub(crate) async fn statement_in(tx: &mut Tx, job: Job) -> Result<JobStatement> {
    let lease = lease::get(tx, &sublet_core::Scope::Operator, &job.lease).await?;
    let attempts = attempt::list_of(tx, &job.id).await?;
    let charges = charge::list_of(tx, job.id.as_str(), CHARGES_MAX).await?;
    let cost = charge::total_of(tx, job.id.as_str()).await?;
    let device_time = charges
        .iter()
        .filter(|charge| charge.sku.family() == SkuFamily::DeviceTime)
        .fold(DeviceMillis::ZERO, |sum, charge| sum.saturating_add(DeviceMillis::new(charge.quantity.get())));
    let position = match job.state {
        JobState::Requeued { .. } => Some(job::position_of(tx, &job).await?),
        JobState::Queued
        | JobState::Starting
        | JobState::Running
        | JobState::Stopping { .. }
        | JobState::Succeeded
        | JobState::Failed
        | JobState::Cancelled
        | JobState::Interrupted { .. }
        | JobState::Refused => None,
    };
    Ok(JobStatement { job, lease, attempts, charges, cost, device_time, position })
}

impl Cloud {
    /// A job with its runs and what it cost.
    pub async fn get_job(&self, actor: &Actor, id: &JobId) -> Result<JobStatement> {
        self.store
            .read((actor, id), |(actor, id), tx| {
                Box::pin(async move {
                    let job = job::get(tx, &actor.scope, id).await?;
                    statement_in(tx, job).await
                })
            })
            .await
    }

    pub(crate) async fn why_job(&self, actor: &Actor, id: &JobId) -> Result<Explanation> {
        let statement = self.get_job(actor, id).await?;
        let (intervals, holds, starts) = self
            .store
            .read(&statement, |statement, tx| {
                Box::pin(async move {
                    let mut intervals = Vec::new();
                    for attempt in &statement.attempts {
                        intervals.extend(attempt::list_intervals(tx, &attempt.id).await?);
                    }
                    let holds = hold_facts(tx, statement.lease.id.as_str()).await?;
                    Ok((intervals, holds, hold_facts(tx, statement.job.id.as_str()).await?))
                })
            })
            .await?;
        let job = &statement.job;
        let mut facts = vec![Fact::new("exit", exit_text(job.exit.as_ref()))];
        facts.extend(wait_facts(job));
        facts.extend(statement.position.map(|position| Fact::new("its turn among those of its project", position)));
        facts.extend(job.state.reason().map(|reason| Fact::new("stopped because", reason.explanation())));
        if !job.message.is_empty() {
            facts.push(Fact::new("message", &job.message));
        }
        for attempt in &statement.attempts {
            let own: Vec<&AttemptInterval> = intervals.iter().filter(|interval| interval.attempt == attempt.id).collect();
            facts.push(attempt_fact(attempt, &own));
        }
        facts.push(Fact::new("holds", "").made_of(holds));
        if !starts.is_empty() {
            facts.push(Fact::new("held for its start", "").made_of(starts));
        }
        for charge in &statement.charges {
            facts.push(self.charge_fact(charge).await?);
        }
        let mut related = vec![statement.lease.id.to_string()];
        related.extend(statement.charges.iter().map(|charge| charge.id.to_string()));
        Ok(Explanation {
            id: id.to_string(),
            summary: format!(
                "{id} {}, cost {} {} for {} device-milliseconds",
                job.state, statement.cost, statement.lease.currency, statement.device_time
            ),
            rule: "device time is metered from the moment the program can use its devices to its end, in whole milliseconds \
                   for each device, and charged against a hold taken before; a start with a price is charged once, when the program \
                   begins to run; a job that waits to go on holds nothing and costs nothing"
                .to_owned(),
            facts,
            related,
        })
    }
}

/// What a job waits for that is to go on.
fn wait_facts(job: &Job) -> Vec<Fact> {
    let mut facts = Vec::new();
    if !job.spec.restart.is_never() {
        facts.push(Fact::new("restarts", format!("{} of at most {}", job.restarts, job.spec.restart.restarts_max)));
    }
    let waits_since = job.requeued_at.filter(|_| matches!(job.state, JobState::Requeued { .. }));
    facts.extend(waits_since.map(|since| Fact::new("waits to go on since", since)));
    facts.extend(waits_until(job).map(|until| Fact::new("given up at", until)));
    facts.extend(job.not_before.map(|at| Fact::new("tried again at", at)));
    facts
}

fn exit_text(exit: Option<&Exit>) -> String {
    match exit {
        None => "none yet".to_owned(),
        Some(Exit::Code { code }) => format!("code {code}"),
        Some(Exit::Signal { signal }) => format!("signal {signal} that the cloud did not send"),
        Some(Exit::OutOfMemory) => "it exceeded its memory limit".to_owned(),
        Some(Exit::Stopped { forced: false }) => "stopped within its grace".to_owned(),
        Some(Exit::Stopped { forced: true }) => "killed after its grace".to_owned(),
        Some(Exit::NotStarted { reason }) => format!("it did not start: {reason}"),
        Some(Exit::Lost) => "its machine died; the end is the last proof of life".to_owned(),
    }
}

fn attempt_fact(attempt: &Attempt, intervals: &[&AttemptInterval]) -> Fact {
    let time = |at: Option<Timestamp>| at.map_or("-".to_owned(), |at| at.to_string());
    let mut parts = vec![
        Fact::new("runner", &attempt.runner),
        Fact::new("started at", time(attempt.started_at)),
        Fact::new("last proof of life", time(attempt.alive_at)),
        Fact::new("ended at", time(attempt.ended_at)),
        Fact::new("CPU time, ms", attempt.cpu_time.millis()),
        Fact::new("peak memory, bytes", attempt.peak_memory),
    ];
    if let Some(isolation) = &attempt.isolation {
        parts.push(Fact::new("isolation achieved", isolation.level().as_str()).made_of(isolation_facts(isolation)));
    }
    for contained in &attempt.contained {
        parts.push(Fact::new("contained", format!("{} at {}", contained.what, contained.at)));
    }
    for interval in intervals {
        let billed = if interval.is_billed() { "charged" } else { "beyond the hold, not charged" };
        parts.push(Fact::new(
            format!("interval of {}", interval.device),
            format!(
                "{} to {}: {} ms, {}, {billed}",
                interval.started_at,
                interval.ended_at,
                interval.millis(),
                interval.close_reason.as_str()
            ),
        ));
    }
    Fact::new(format!("attempt {}", attempt.number), attempt_name(&attempt.id, attempt)).made_of(parts)
}

fn attempt_name(id: &AttemptId, attempt: &Attempt) -> String {
    format!("{id} {}", attempt.state.as_str())
}

fn isolation_facts(isolation: &sublet_core::runner::Isolation) -> Vec<Fact> {
    [
        ("user namespace", isolation.user_namespace),
        ("process namespace", isolation.pid_namespace),
        ("mount namespace", isolation.mount_namespace),
        ("network namespace", isolation.network_namespace),
        ("IPC namespace", isolation.ipc_namespace),
        ("seccomp", isolation.seccomp),
        ("no new privileges", isolation.no_new_privileges),
        ("memory control group", isolation.cgroup_memory),
        ("process control group", isolation.cgroup_pids),
        ("control group kill", isolation.cgroup_kill),
        ("disk quota", isolation.disk_quota),
    ]
    .into_iter()
    .map(|(name, in_force)| Fact::new(name, if in_force { "yes" } else { "no" }))
    .chain([Fact::new("Landlock ABI", isolation.landlock_abi)])
    .collect()
}
