//! The scene in which the owner takes capacity back: an order that breaks a notice, the checkpoint, the hand-over, what is
//! given for it, and the work that goes on where it was saved.
//!
//! Everything runs, on this machine's slots; what is printed is read from the cloud afterwards.

use std::collections::BTreeMap;
use std::io::Read;
use std::time::Duration;

use sublet_api::client::Client;
use sublet_api::compensation::{Compensation, CompensationKind};
use sublet_api::invoice::ChargeListQuery;
use sublet_api::job::{CreateJob, Job, JobLogQuery, JobStatus, OnEnd};
use sublet_api::lease::{CreateLease, Lease, LeaseStatus};
use sublet_api::list::{ListQuery, PageLimit};
use sublet_api::object::Metadata;
use sublet_api::reclaim::{CreateReclaim, Reclaim, ReclaimStatus, ReclaimVictim};
use sublet_core::{Clock, DurationMs, ErrorCode, Nanos, Result};

use super::{Story, broken, mismatch, one_device};
use crate::real::SystemClock;

/// How soon the owner needs it: less than the notice that was sold.
const NEEDED_IN: DurationMs = DurationMs::from_seconds(20);
/// How long the work runs before.
const RUNS_FOR: Duration = Duration::from_millis(1_500);
/// Adds up the squares to fifty, a tenth of a second each, from where it was saved; told to go, it saves and goes.
const NUMBERS: u64 = 50;
const PROGRAM: &str = "n=${FROM_N:-0}; s=${FROM_SUM:-0}; while [ $n -lt 50 ]; do n=$((n+1)); s=$((s+n*n)); sleep 0.1; \
                       if [ -e \"$SUBLET_NOTICE_FILE\" ]; then echo \"checkpoint $n $s\"; exit 0; fi; done; echo \"sum $s on $SUBLET_DEVICES\"";
/// What the owner needs it for.
const OWNERS_PROGRAM: &str = "echo \"the owner's work on $SUBLET_DEVICES\"; sleep 3";
const LOG_BYTES_MAX: u64 = 64 * 1024;

/// Where work was saved.
struct Checkpoint {
    number: u64,
    sum: u64,
}

/// What was interrupted, and what was given for it.
pub(super) struct Interrupted {
    job: Job,
    compensation: Compensation,
}

impl Story<'_> {
    pub(super) fn take_back(&mut self) -> Result<Interrupted> {
        self.head("The owner takes capacity back, sooner than the notice that was sold")?;
        let (lease, job) = self.rent(&self.client.clone(), "interrupted", (PROGRAM, BTreeMap::new()))?;
        let id = job.id.clone();
        self.wait_for("the work to begin", |client| Ok(client.job(&id).ok().filter(|job| job.status == JobStatus::Running)))?;
        self.say(&format!("   a customer's work runs on {}, sold with a notice of {}\n", lease.id, lease.notice))?;
        std::thread::sleep(RUNS_FOR);
        let (order, victim) = self.order(&lease)?;
        let job =
            self.wait_for("the work to end", |client| client.job(&id).map(|job| Some(job).filter(|job| job.status.is_final())))?;
        let checkpoint = self.checkpoint_of(&job)?;
        self.say_hand_over(&order, (&victim, &job), &checkpoint)?;
        let owners = self.begin_owners_work(&order)?;
        let compensation = self.compensation_of(&lease, &job)?;
        self.resume(&checkpoint)?;
        self.end_owners_work(&owners)?;
        Ok(Interrupted { job, compensation })
    }

    /// One slot and something that runs on it.
    fn rent(&self, client: &Client, call: &str, (program, environment): (&str, BTreeMap<String, String>)) -> Result<(Lease, Job)> {
        let asked = one_device(client)?;
        let quote = client.create_quote(&asked, &self.key(&format!("{call}-quote")))?;
        let taken = CreateLease { quote: quote.id, metadata: Metadata::default() };
        let lease = client.create_lease(&taken, &self.key(&format!("{call}-lease")))?;
        let body = CreateJob {
            lease: lease.id.clone(),
            command: ["sh", "-c", program].map(str::to_owned).to_vec(),
            environment,
            files: Vec::new(),
            memory_bytes: None,
            disk_bytes: None,
            on_end: OnEnd::EndLease,
            restart: None,
            metadata: Metadata::default(),
        };
        let job = client.create_job(&body, &self.key(&format!("{call}-job")))?;
        Ok((lease, job))
    }

    /// Orders as many devices as take this lease, after a look at what that does.
    fn order(&mut self, lease: &Lease) -> Result<(Reclaim, ReclaimVictim)> {
        let skus = self.client.skus()?;
        let kind = skus.data.first().map(|sku| sku.device_kind.clone()).ok_or_else(|| broken("nothing can be leased"))?;
        let of_kind = self.client.capacity()?.data.into_iter().find(|capacity| capacity.device_kind == kind);
        let of_kind = of_kind.ok_or_else(|| broken("there is no capacity"))?;
        let by = SystemClock.now().plus(NEEDED_IN);
        for units in of_kind.idle + 1..=of_kind.total {
            let order = CreateReclaim {
                kind: kind.clone(),
                units,
                by: by.into(),
                until: None,
                site: None,
                units_per_node: None,
                whole_nodes: false,
                break_promises: true,
            };
            let plan = self.client.preview_reclaim(&order)?.plan;
            let [victim] = plan.victims.as_slice() else { continue };
            if victim.lease != lease.id {
                continue;
            }
            let (sold, owed) = (victim.notice, &victim.owed);
            self.say(&format!(
                "   the owner needs {units} × {kind} by {by}: {} are free by then; it would end {} ({sold}), promise {}, owed {} {} if it runs until then\n",
                plan.free_anyway,
                victim.lease,
                if victim.breaks_promise { "broken" } else { "kept" },
                owed.nanos(),
                owed.currency,
            ))?;
            let placed = self.client.create_reclaim(&order, &self.key("order"))?;
            let victim = placed.plan.victims.first().cloned().ok_or_else(|| broken("the order names nobody"))?;
            return Ok((placed, victim));
        }
        Err(broken("no order would take the lease"))
    }

    fn checkpoint_of(&self, job: &Job) -> Result<Checkpoint> {
        let log = self.log_of(&self.client, job)?;
        let words: Vec<&str> =
            log.lines().filter_map(|line| line.strip_prefix("checkpoint ")).flat_map(str::split_whitespace).collect();
        match words.as_slice() {
            [number, sum] => match (number.parse(), sum.parse()) {
                (Ok(number), Ok(sum)) => Ok(Checkpoint { number, sum }),
                _ => Err(broken("the checkpoint cannot be read")),
            },
            _ => Err(broken(&format!("the work ended without a checkpoint: {log}"))),
        }
    }

    fn say_hand_over(&mut self, order: &Reclaim, (victim, job): (&ReclaimVictim, &Job), saved: &Checkpoint) -> Result<()> {
        let id = order.id.clone();
        let there = self.wait_for("the devices to be handed over", |client| {
            client.reclaim(&id).map(|order| Some(order).filter(|order| order.status == ReclaimStatus::Fulfilled))
        })?;
        let lease = self.wait_for("the lease to end", |client| {
            client.lease(&victim.lease).map(|lease| Some(lease).filter(|lease| lease.status == LeaseStatus::Ended))
        })?;
        let ended = lease.ended_at.ok_or_else(|| broken("the lease has no end"))?.0;
        let gone = job.ended_at.map_or(ended, |at| at.0);
        self.say(&format!("   told at           {}, to be gone by {}\n", victim.told_at.0, victim.ends_at.0))?;
        self.say(&format!("   saved and gone at {gone}, at {} of {NUMBERS} numbers\n", saved.number))?;
        self.say(&format!("   handed over at    {ended}, {} before the order's time\n", seconds(order.by.0.since(ended))))?;
        let all = there.there == there.units && ended <= order.by.0;
        if all { Ok(()) } else { Err(broken("the devices were not handed over in time")) }
    }

    /// The owner's team begins to work on what was taken back; what it does not need may be sold again.
    fn begin_owners_work(&mut self, order: &Reclaim) -> Result<Job> {
        let team = self.team.clone();
        let (_, job) = self.rent(&team, "owner", (OWNERS_PROGRAM, BTreeMap::new()))?;
        let begun =
            self.wait_for("the owner's work", |_| team.job(&job.id).map(|job| Some(job).filter(|job| job.started_at.is_some())))?;
        let began = begun.started_at.ok_or_else(|| broken("the owner's work did not begin"))?.0;
        self.say(&format!("   the owner's began {began}, {} before the order's time\n", seconds(order.by.0.since(began))))?;
        self.client.cancel_reclaim(&order.id)?;
        if began <= order.by.0 { Ok(begun) } else { Err(broken("the owner had to wait")) }
    }

    fn end_owners_work(&mut self, job: &Job) -> Result<()> {
        let team = self.team.clone();
        let done =
            self.wait_for("the owner's work", |_| team.job(&job.id).map(|job| Some(job).filter(|job| job.status.is_final())))?;
        for line in self.log_of(&team, &done)?.lines() {
            self.say(&format!("   | {line}\n"))?;
        }
        if done.status == JobStatus::Succeeded { Ok(()) } else { Err(broken("the owner's work failed")) }
    }

    fn compensation_of(&mut self, lease: &Lease, job: &Job) -> Result<Compensation> {
        let id = lease.id.to_string();
        let compensation = self.wait_for("the compensation", |client| {
            let given = client.compensations(&ListQuery::default())?.data;
            Ok(given.into_iter().find(|given| given.subject == id && given.kind == CompensationKind::Reclaim))
        })?;
        let (amount, cost) = (&compensation.amount, &job.cost);
        let given = |name: &str| compensation.evidence.get(name).and_then(serde_json::Value::as_i64);
        let kept = given("notice_given_ms").zip(given("notice_sold_ms"));
        let (kept, sold) = kept.ok_or_else(|| broken("the compensation has no evidence"))?;
        self.say(&format!(
            "   {} of {} of notice were given, so the last hour is free: {} {} back, of {} that it cost\n",
            seconds(DurationMs::from_millis(kept)),
            seconds(DurationMs::from_millis(sold)),
            amount.nanos(),
            amount.currency,
            cost.nanos()
        ))?;
        if amount.nanos() == cost.nanos() {
            Ok(compensation)
        } else {
            Err(mismatch(format!("{} cost {} and {} was given back", job.id, cost.nanos(), amount.nanos())))
        }
    }

    /// The customer goes on from its checkpoint, on another lease, as soon as there is room beside the owner's work.
    fn resume(&mut self, from: &Checkpoint) -> Result<()> {
        let environment = || {
            let saved = [("FROM_N", from.number), ("FROM_SUM", from.sum)];
            saved.map(|(name, value)| (name.to_owned(), value.to_string())).into()
        };
        let (lease, job) = self.wait_for("room for the rest of the work", |client| {
            match self.rent(client, "resumed", (PROGRAM, environment())) {
                Err(error) if error.code() == ErrorCode::CapacityUnavailable => Ok(None),
                rented => rented.map(Some),
            }
        })?;
        let id = job.id;
        let done = self
            .wait_for("the rest of the work", |client| client.job(&id).map(|job| Some(job).filter(|job| job.status.is_final())))?;
        let log = self.log_of(&self.client, &done)?;
        // The sum of the first squares, by Faulhaber's formula.
        let whole = NUMBERS * (NUMBERS + 1) * (2 * NUMBERS + 1) / 6;
        self.say(&format!("   it goes on from {} on {}\n   | {log}", from.number, lease.id))?;
        if log.starts_with(&format!("sum {whole} ")) {
            Ok(())
        } else {
            Err(broken(&format!("the sum is {whole}, and it found {log}")))
        }
    }

    fn log_of(&self, client: &Client, job: &Job) -> Result<String> {
        let mut log = String::new();
        let read = client
            .job_log(&job.id, &JobLogQuery { attempt: None, offset: None, follow: None })?
            .take(LOG_BYTES_MAX)
            .read_to_string(&mut log);
        read.map_err(|error| broken(&format!("the log broke off: {error}")))?;
        Ok(log)
    }

    /// Where the invoice has what was interrupted: the use stays on its line, and what was given back is credit.
    pub(super) fn show_in_invoice(&mut self, interrupted: &Interrupted) -> Result<()> {
        let Interrupted { job, compensation } = interrupted;
        let newest = ChargeListQuery { limit: Some(PageLimit::MAX), ..ChargeListQuery::default() };
        let charges = self.client.charges(&newest)?.data;
        let charged = Nanos::checked_sum(charges.iter().filter(|of| of.job.as_ref() == Some(&job.id)).map(|of| of.amount.nanos()))?;
        let (given, currency) = (compensation.amount.nanos(), compensation.amount.currency);
        self.say(&format!(
            "   {charged} {currency} of it is the interrupted job's; {given} {currency} were given back for it, as {}\n",
            compensation.credit_grant
        ))?;
        if charged == given { Ok(()) } else { Err(mismatch("what was interrupted is not what was given back".to_owned())) }
    }
}

/// A span in seconds, to the tenth that is begun.
fn seconds(span: DurationMs) -> String {
    format!("{}.{} s", span.millis().div_euclid(1_000), span.millis().rem_euclid(1_000) / 100)
}
