//! Steps of compute: runs, quotes, jobs, the ends of programs, the fleet, the reconciler's passes.

use std::collections::{BTreeMap, BTreeSet};

use sublet_cloud::Actor;
use sublet_cloud::compute_reconciler::ComputeReport;
use sublet_cloud::data::{JobFilter, PageRequest, ReserveRule};
use sublet_cloud::idempotency::{Answer, Call};
use sublet_cloud::job::{NewJob, NewRun};
use sublet_cloud::quote::NewQuote;
use sublet_core::job::{JobLimits, JobSpec, OnEnd};
use sublet_core::notice::NoticeClass;
use sublet_core::restart::RestartPolicy;
use sublet_core::runner::Exit;
use sublet_core::{DurationMs, Error, ErrorCode, Nanos};

use super::Simulation;
use crate::runner::cpu_slots;

/// The notice classes that are sold, so that what has to be given back is back within an hour.
const CLASSES: [NoticeClass; 5] = [NoticeClass::N0, NoticeClass::N0, NoticeClass::N2m, NoticeClass::N15m, NoticeClass::N1h];
/// Refusals that capacity, money or an unlucky moment cause.
const REFUSALS: [ErrorCode; 5] = [
    ErrorCode::CapacityUnavailable,
    ErrorCode::PriceAboveMaximum,
    ErrorCode::InsufficientQuota,
    ErrorCode::PolicyRefused,
    ErrorCode::Conflict,
];
/// Objects that a step chooses from.
const CHOICES: i64 = 60;

fn newest() -> PageRequest {
    PageRequest { limit: Some(CHOICES), ..PageRequest::default() }
}

impl Simulation {
    fn some_actor(&self) -> Actor {
        let (tenant, key) = self.some_key();
        self.tenants[tenant].keys[key].actor.clone()
    }

    fn some_quote(&self) -> NewQuote {
        let notice = *self.pick(&CLASSES).expect("a class");
        NewQuote {
            kind: "cpu".parse().expect("a kind"),
            units: u32::try_from(self.number(1, 4)).expect("a small count"),
            notice,
            site: None,
            isolation: None,
            max_duration: self.chance(3).then(|| DurationMs::from_seconds(self.number(3_600, 20_000))),
            max_cost: self.chance(3).then(|| Nanos::new(self.number(100_000, 200_000_000))),
            max_price: None,
            metadata: BTreeMap::new(),
        }
    }

    fn some_restart(&self) -> RestartPolicy {
        RestartPolicy {
            on_interruption: self.chance(2),
            exit_codes: if self.chance(4) { BTreeSet::from([1]) } else { BTreeSet::new() },
            restarts_max: u32::try_from(self.number(1, 5)).expect("a small count"),
            wait_max: DurationMs::from_seconds(self.number(60, 7_200)),
        }
    }

    fn some_job(&self) -> NewJob {
        let time = self.chance(4).then(|| DurationMs::from_seconds(self.number(5, 4_000)));
        let spec = JobSpec {
            command: vec!["program".to_owned()],
            environment: BTreeMap::new(),
            files: BTreeMap::new(),
            limits: JobLimits { time, ..JobLimits::default() },
            on_end: if self.chance(3) { OnEnd::KeepLease } else { OnEnd::EndLease },
            restart: self.some_restart(),
        };
        NewJob { spec, metadata: BTreeMap::new() }
    }

    /// A run under its own key: repeated, it is the same one.
    pub(super) fn some_run(&mut self) -> (Call, NewRun) {
        let name = format!("run-{}", self.next_number());
        let call = Call::under_key(self.some_actor(), "job.run", &name, &name).expect("a call");
        (call, NewRun { quote: self.some_quote(), job: self.some_job() })
    }

    pub(super) async fn run_job(&mut self) {
        let (call, new) = self.some_run();
        let (first, second) = (self.below(2), self.below(2));
        let render = |run: &sublet_cloud::job::Run| Ok(run.job.job.id.to_string());
        let result = self.processes[first].compute.run(&call, &new, &render).await;
        let Some(Answer::New(run)) = self.settle_for("a run", result, &REFUSALS) else { return };
        if self.chance(4) {
            let again = self.processes[second].compute.run(&call, &new, &render).await.expect("the answer that was given");
            assert_eq!(again, Answer::Replayed(run.job.job.id.to_string()));
        }
        self.did("a run is sold");
    }

    pub(super) async fn quote(&mut self) {
        let (actor, new, process) = (self.some_actor(), self.some_quote(), self.below(2));
        let call = Call::once(actor.clone());
        let result = self.processes[process].compute.create_quote(&call, &new, &|_| Ok(String::new())).await;
        if let Some(Answer::New(quote)) = self.settle_for("a quote", result, &REFUSALS) {
            self.quotes.push((actor, quote.id));
            self.did("a quote is made");
        }
    }

    pub(super) async fn accept(&mut self) {
        if self.quotes.is_empty() {
            return self.quote().await;
        }
        let (actor, quote) = self.quotes.swap_remove(self.below(self.quotes.len()));
        let process = self.below(2);
        let call = Call::once(actor);
        let result = self.processes[process].compute.accept_quote(&call, &quote, &BTreeMap::new(), &|_| Ok(String::new())).await;
        let mut allowed = REFUSALS.to_vec();
        // A list that this process has not heard of yet.
        allowed.extend([ErrorCode::QuoteExpired, ErrorCode::UnknownPrice]);
        if self.settle_for("taking a quote", result, &allowed).is_some() {
            self.did("a quote is taken");
        }
    }

    pub(super) async fn add_job(&mut self) {
        let process = self.below(2);
        let compute = self.processes[process].compute.clone();
        let actor = self.some_actor();
        let leases = compute.list_leases(&actor, Some(["active"; 2]), &newest()).await.expect("leases");
        let Some(id) = self.pick(&leases.items).map(|statement| statement.lease.id.clone()) else { return };
        let new = self.some_job();
        let result = compute.create_job(&Call::once(actor), &id, &new, &|_| Ok(String::new())).await;
        if self.settle_for("another job", result, &REFUSALS).is_some() {
            self.did("a job is added to a lease");
        }
    }

    pub(super) fn end_program(&mut self) {
        let live = self.runner.live();
        let Some(id) = self.pick(&live) else { return };
        let exit = match self.rng.below(5) {
            0 => Exit::Signal { signal: 11 },
            1 => Exit::OutOfMemory,
            2 => Exit::Code { code: 1 },
            _ => Exit::Code { code: 0 },
        };
        if self.chance(5) {
            self.runner.contain(id, "processes refused");
        }
        self.runner.exit(id, exit);
        self.did("a program ends");
    }

    pub(super) async fn cancel_job(&mut self) {
        let process = self.below(2);
        let compute = self.processes[process].compute.clone();
        let filter = JobFilter::default();
        let jobs = compute.list_jobs(&Actor::system(), &filter, &newest()).await.expect("jobs");
        let Some(id) = self.pick(&jobs.items).map(|statement| statement.job.id.clone()) else { return };
        compute.cancel_job(&Actor::system(), &id).await.expect("a job is cancelled or over");
        self.did("a job is cancelled");
    }

    pub(super) async fn end_lease(&mut self) {
        let process = self.below(2);
        let compute = self.processes[process].compute.clone();
        let leases = compute.list_leases(&Actor::system(), None, &newest()).await.expect("leases");
        let Some(id) = self.pick(&leases.items).map(|statement| statement.lease.id.clone()) else { return };
        compute.end_lease(&Actor::system(), &id, None).await.expect("a lease ends or has ended");
        self.did("a lease is ended");
    }

    /// The machine and its devices: crashes, losses, refusals, cordons, the owner's reserve.
    pub(super) async fn change_fleet(&mut self) {
        let process = self.below(2);
        let compute = self.processes[process].compute.clone();
        match self.rng.below(8) {
            0 => {
                self.runner.crash();
                self.did("the machine crashes");
            }
            1 => {
                self.runner.lose_memory();
                self.did("the runner forgets");
            }
            2 => {
                let reported = cpu_slots(super::SLOTS - self.below(3));
                self.runner.set_devices(reported);
                compute.register_devices().await.expect("devices are registered");
                self.did("devices come and go");
            }
            3 => {
                let refusal = Error::new(ErrorCode::StorageFull, "the disk is full");
                self.runner.refuse(self.chance(2).then_some(refusal));
                self.did("the runner refuses or works again");
            }
            4 => {
                let rule = ReserveRule {
                    minimum_units: u32::try_from(self.number(0, 2)).expect("a small count"),
                    fraction_thousandths: 0,
                };
                compute.set_reserve(&Actor::system(), rule).await.expect("a reserve");
                self.did("the reserve changes");
            }
            _ => self.cordon(&compute).await,
        }
    }

    async fn cordon(&mut self, compute: &sublet_cloud::compute::Compute) {
        let devices = compute.list_devices(&Actor::system(), None, &newest()).await.expect("devices");
        let (device, _) = self.pick(&devices.items).expect("a device");
        let id = device.id.clone();
        let changed = match self.chance(3) {
            true => compute.cordon_device(&Actor::system(), &id).await,
            false => compute.uncordon_device(&Actor::system(), &id).await,
        };
        // A lost device stays lost until its runner reports it.
        if self.settle_for("a cordon", changed, &[ErrorCode::Conflict]).is_some() {
            self.did("a device is cordoned or back");
        }
    }

    pub(super) async fn reconcile(&mut self) {
        let process = self.below(2);
        self.reconcile_on(process).await;
    }

    pub(super) async fn reconcile_on(&mut self, process: usize) {
        let report = self.processes[process].compute.reconcile().await;
        self.check_report(&report);
        self.check_guarantees().await;
        self.did("a pass of the reconciler");
    }

    /// What a pass could not do is what the seed forbade it.
    fn check_report(&mut self, report: &ComputeReport) {
        for error in &report.errors {
            let expected = [ErrorCode::StorageFull];
            assert!(expected.contains(&error.code()), "a pass failed: {error:?}");
            self.refused("a pass", error);
        }
    }
}
