//! The life of the processes: the first start, crashes anywhere and what follows them, the end.

use sublet_cloud::contract::NewContract;
use sublet_cloud::idempotency::{Answer, Call};
use sublet_cloud::organization::NewOrganization;
use sublet_cloud::{Actor, Cloud};
use sublet_core::id::GatewayId;
use sublet_core::key::KeyPlane;
use sublet_core::organization::OrganizationClass;
use sublet_core::tier::ServiceTier;
use sublet_core::usage::{Outcome, UsageRecord, UsageSink};
use sublet_core::{Currency, DurationMs, Nanos, Scope};
use sublet_money::contract::{Commitment, ContractTerms};
use sublet_money::drawdown::Billed;
use sublet_money::price_book::PriceEntry;
use sublet_money::sku::{SkuFamily, SkuName};
use sublet_money::starter::{StarterDevice, starter_price_list};

use super::account::grant_id;
use super::fuse::{Fuse, UntilCrash};
use super::gateway::{Disk, ModelGateway, Prompt};
use super::{Plan, Process, Simulation, Tenant};
use crate::database::{MODEL, first_start};
use crate::tenant::created;

/// Readings of the clock after which a crash comes at the latest.
const FUSE_MAX: u64 = 40;
/// Passes and seconds until everything must have come to its end.
const DRAIN_PASSES: usize = 12;
/// What an organization may owe besides what it paid in.
const CREDIT_LIMIT: Nanos = Nanos::new(1_000_000_000);

/// Tenants besides those of the first start: class, currency, time zone.
const TENANTS: [(OrganizationClass, Currency, &str); 3] = [
    (OrganizationClass::External, Currency::USD, "America/New_York"),
    (OrganizationClass::External, Currency::EUR, "Australia/Lord_Howe"),
    (OrganizationClass::Internal, Currency::EUR, "UTC"),
];

/// Whose tenant has a contract, and what it commits itself to use of tokens each month, paid in advance.
const COMMITTED_ZONE: &str = "America/New_York";
const COMMITTED: Nanos = Nanos::new(40_000_000);

fn gateway_id(process: usize) -> GatewayId {
    format!("gw_{}", process + 1).parse().expect("an id")
}

impl Simulation {
    pub(super) async fn start(plan: Plan) -> Self {
        let mut simulation = Self::new(plan);
        let fuse = Fuse::new(simulation.clock.clone());
        let cloud = simulation.open_cloud(&fuse).await;
        let start = first_start();
        let planned = cloud.plan_first_start(&start).await.expect("a plan").expect("a new database");
        assert!(cloud.apply_first_start(&planned).await.expect("the first start"), "the database was not new");
        cloud.ensure_prices(&start).await.expect("the price list");
        simulation.publish_dollars(&cloud).await;
        // The first tenant's welcome credit was paid in by the first start.
        simulation.add_tenant((planned.keys().external_organization, "Europe/Berlin"), Nanos::new(25_000_000_000));
        for (class, currency, zone) in TENANTS {
            let new = NewOrganization {
                name: format!("tenant in {zone}"),
                class,
                currency,
                time_zone: zone.to_owned(),
                credit_limit: CREDIT_LIMIT,
            };
            let (organization, _) = created(cloud.create_organization(&Call::once(Actor::system()), &new).await);
            simulation.add_tenant((organization.id, zone), Nanos::ZERO);
        }
        simulation.agree(&cloud).await;
        cloud.store().close().await;
        for process in 0..2 {
            let started = simulation.start_until_alive(process, &[]).await;
            simulation.processes.push(started);
        }
        for tenant in 0..simulation.tenants.len() {
            for _ in 0..2 {
                let project = simulation.create_project(tenant).await;
                for process in 0..2 {
                    simulation.add_key(process, tenant, &project).await;
                }
            }
        }
        let now = simulation.now();
        simulation.note_periods(now, now);
        simulation
    }

    /// One tenant commits itself in advance, from the next month on.
    async fn agree(&mut self, cloud: &Cloud) {
        let tenant = self.tenants.iter().find(|tenant| tenant.zone == COMMITTED_ZONE).expect("the tenant that commits itself");
        let terms = ContractTerms {
            billed: Some(Billed::InAdvance),
            commitments: vec![Commitment { from_period: 1, amount: COMMITTED }],
            covers: [SkuFamily::ModelTokens, SkuFamily::ModelRequests].into(),
            exit: None,
            fee: None,
            months: 24,
            payment: None,
            period_months: 1,
            quantities: None,
            pricing: None,
            renewal: None,
            roll_over_periods: u32::try_from(self.plan.seed % 2).expect("small"),
            starts: "2026-04".parse().expect("the month after the start"),
            currency: Currency::USD,
        };
        let new = NewContract { organization: tenant.id.clone(), name: "in advance".to_owned(), terms, expires_at: None };
        let offered = created(cloud.offer_contract(&Call::once(Actor::system()), &new, &|_| Ok(String::new())).await);
        let hash = &offered.contract.offers.last().expect("an offer").version.hash;
        cloud.accept_contract(&tenant.admin, &offered.contract.id, hash).await.expect("a contract");
    }

    async fn publish_dollars(&mut self, cloud: &Cloud) {
        let models = [MODEL.parse().expect("a model")];
        let devices = [StarterDevice::at_list_price("cpu".parse().expect("a kind"))];
        let list = cloud.ids().mint();
        let now = self.now();
        let mut draft = starter_price_list(list, Currency::USD, now, &models, &devices).expect("a list");
        // Its requests have a flat price, too.
        draft.entries.extend(ServiceTier::ALL.map(|tier| {
            let requests = SkuName::Requests { tier, model: MODEL.parse().expect("a model") };
            PriceEntry::per_unit(requests, Nanos::new(1_234_567))
        }));
        cloud.publish_prices(&Call::once(Actor::system()), "dollars", draft, now).await.expect("the list is published");
    }

    fn add_tenant(&mut self, (id, zone): (sublet_core::id::OrganizationId, &'static str), deposited: Nanos) {
        let admin = Actor { plane: KeyPlane::Admin, scope: Scope::Organization(id.clone()), key: None, address: String::new() };
        self.tenants.push(Tenant {
            id,
            zone,
            admin,
            projects: Vec::new(),
            keys: Vec::new(),
            deposited,
            periods: std::collections::BTreeSet::new(),
        });
    }

    /// A process on the database as it is, with what its journal kept. `None` if it dies on the way.
    async fn start_process(&mut self, number: usize, journal: &[UsageRecord]) -> Option<Process> {
        let fuse = Fuse::new(self.clock.clone());
        let cloud = self.open_cloud(&fuse).await;
        let compute = self.compute_on(&cloud);
        if self.chance(6) {
            fuse.light(1 + self.rng.below(FUSE_MAX));
        }
        let id = gateway_id(number);
        let recovered = UntilCrash::new(async {
            compute.register_devices().await.expect("devices are registered");
            ModelGateway::start(&cloud, &id, journal).await.expect("the gateway recovers")
        })
        .await;
        fuse.light(0);
        match recovered {
            Some(gateway) => Some(Process { cloud, compute, gateway, fuse }),
            None => {
                cloud.store().close().await;
                None
            }
        }
    }

    /// A process that dies while it starts is started again.
    async fn start_until_alive(&mut self, process: usize, journal: &[UsageRecord]) -> Process {
        loop {
            match self.start_process(process, journal).await {
                Some(alive) => return alive,
                None => self.did("a process crashes while it starts"),
            }
        }
    }

    /// A process does something, dies somewhere in it or right after, and another takes its place.
    pub(super) async fn crash(&mut self) {
        let process = self.below(2);
        self.processes[process].fuse.light(1 + self.rng.below(FUSE_MAX));
        let kind = self.rng.below(6);
        match kind {
            0 => self.crash_in_settlement(process).await,
            1 => self.crash_in_admission(process).await,
            2 => return self.crash_in_payment(process).await,
            3 => return self.crash_in_run(process).await,
            _ => {
                let compute = self.processes[process].compute.clone();
                UntilCrash::new(compute.reconcile()).await;
            }
        }
        self.replace(process).await;
    }

    async fn crash_in_settlement(&mut self, process: usize) {
        let gateway = &self.processes[process].gateway;
        let batch: Vec<UsageRecord> = gateway.disk.durable.iter().skip(gateway.settled).take(9).cloned().collect();
        let cloud = self.processes[process].cloud.clone();
        UntilCrash::new(cloud.settle(&batch)).await;
    }

    /// The grant may be committed and unknown to the gateway: the next session frees it.
    async fn crash_in_admission(&mut self, process: usize) {
        let (tenant, key) = self.some_key();
        let secret = self.tenants[tenant].keys[key].secret.clone();
        let prompt = Prompt { input: self.number(1, 4_000), cached: 0, first_stretch: self.number(1, 2_000) };
        UntilCrash::new(self.processes[process].gateway.admit(&secret, prompt)).await;
    }

    /// The payer does not know whether the payment was taken and repeats it under its key.
    async fn crash_in_payment(&mut self, process: usize) {
        let payment = self.some_payment();
        let cloud = self.processes[process].cloud.clone();
        UntilCrash::new(cloud.grant_credit(&payment.call, &payment.credit, &grant_id)).await;
        self.replace(process).await;
        let other = self.below(2);
        let again = self.processes[other].cloud.grant_credit(&payment.call, &payment.credit, &grant_id).await;
        again.expect("the payment is taken, once");
        let deposited = &mut self.tenants[payment.tenant].deposited;
        *deposited = deposited.checked_add(payment.credit.amount).expect("simulated amounts are small");
    }

    /// The buyer repeats a run under its key: it is sold once.
    async fn crash_in_run(&mut self, process: usize) {
        let (call, new) = self.some_run();
        let render = |run: &sublet_cloud::job::Run| Ok(run.job.job.id.to_string());
        let compute = self.processes[process].compute.clone();
        let first = UntilCrash::new(compute.run(&call, &new, &render)).await;
        self.replace(process).await;
        let other = self.below(2);
        let again = self.processes[other].compute.run(&call, &new, &render).await;
        if let Some(Ok(Answer::New(run))) = first {
            assert_eq!(again.ok(), Some(Answer::Replayed(run.job.job.id.to_string())), "a run that was sold is sold once");
        }
    }

    /// Everything in memory is gone. Of what was written and not synced, a beginning may have reached the disk.
    async fn replace(&mut self, process: usize) {
        let dead = self.processes.remove(process);
        let Disk { mut durable, written } = dead.gateway.disk;
        dead.fuse.light(0);
        dead.cloud.store().close().await;
        let survived = if written.is_empty() || self.chance(2) { 0 } else { self.below(written.len() + 1) };
        for (index, written) in written.into_iter().enumerate() {
            if index < survived {
                durable.push(written.record.clone());
                self.acknowledge(vec![written.record]);
            } else {
                self.expected.lost.push(written.record.request);
            }
        }
        self.did("a process crashes");
        let next = self.start_until_alive(process, &durable).await;
        self.expected.settled.extend(durable.into_iter().map(|record| record.request));
        self.processes.insert(process, next);
    }

    /// No new work; everything open comes to its end.
    pub(super) async fn drain(&mut self) {
        self.runner.refuse(None);
        for process in 0..2 {
            while !self.processes[process].gateway.requests.is_empty() {
                self.processes[process].gateway.finish(0, Outcome::Completed);
            }
            self.sync_of(process);
            loop {
                let gateway = &self.processes[process].gateway;
                if gateway.settled == gateway.disk.durable.len() {
                    break;
                }
                self.settle_some(process, 10).await;
            }
            self.processes[process].gateway.give_back(true).await.expect("slices go back");
            assert!(self.processes[process].gateway.purses.is_empty(), "a slice did not go back");
        }
        // Both: what one of them interrupts, the other would let go on.
        for process in 0..2 {
            self.processes[process].compute.drain(DurationMs::from_seconds(1)).await.expect("draining");
        }
        for pass in 0..DRAIN_PASSES {
            self.advance(DurationMs::from_seconds(2));
            self.reconcile_on(pass % 2).await;
        }
        self.note("drained");
    }
}
