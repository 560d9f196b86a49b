//! A cloud over a simulated fleet on two sites, with its customers and the owner's team. Everything is done by use cases.

use std::collections::BTreeMap;
use std::sync::Arc;

use sublet_cloud::compute::{Compute, ComputeSettings};
use sublet_cloud::credit::NewCredit;
use sublet_cloud::data::{CreditKind, Pool};
use sublet_cloud::idempotency::Call;
use sublet_cloud::job::{NewJob, NewRun, Run};
use sublet_cloud::organization::NewOrganization;
use sublet_cloud::quote::NewQuote;
use sublet_cloud::{Actor, Cloud};
use sublet_core::id::{AttemptId, OrganizationId};
use sublet_core::job::{JobLimits, JobSpec, OnEnd};
use sublet_core::key::KeyPlane;
use sublet_core::notice::NoticeClass;
use sublet_core::organization::OrganizationClass;
use sublet_core::restart::RestartPolicy;
use sublet_core::runner::{AttemptEvent, Runner};
use sublet_core::{Currency, DurationMs, ErrorCode, Nanos, Result, Scope, Timestamp};
use sublet_money::credit_lot::CreditTerms;
use sublet_money::price_book::PriceEntry;
use sublet_money::sku::SkuName;
use sublet_store::device::Device;
use sublet_store::lease::Lease;
use sublet_store::{device, lease};
use sublet_testkit::fleet::{self, SimulatedRunner};
use sublet_testkit::prices::publish;
use sublet_testkit::tenant::{actor, created};
use sublet_testkit::{SeededRng, TestCloud};
use tempfile::TempDir;

pub const UNIT: i64 = 1_000_000_000;
/// The longest time from SIGTERM to the kill, and what is held for the time between decision and effect.
pub const GRACE: DurationMs = DurationMs::from_seconds(10);
pub const SLACK: DurationMs = DurationMs::from_seconds(5);
/// Longer than a tick: one that is shorter than it is between two looks would run out.
const HOLD_INTERVAL: DurationMs = DurationMs::from_seconds(3_600);
/// Kinds with their sites, devices and what an hour of one costs at `firm`, in nano-units. Not round, so that sums round.
pub const POOLS: [(&str, &str, u32, i64); 3] =
    [("h200", "site_north", 12, 2_500_000_007), ("a100", "site_south", 12, 1_300_000_001), ("l4", "site_south", 8, 400_000_003)];
/// Customers besides the one of the first start, each with its time zone.
const OTHERS: [(&str, &str); 3] = [("Kauri", "Pacific/Auckland"), ("Havel", "Europe/Prague"), ("Pine", "America/Los_Angeles")];
/// Passes after one change until nothing changes any more.
const PASSES_MAX: usize = 8;
/// Two looks that are not further apart than this leave no hole: time goes in steps of half an hour here.
const TICK_SEEN: DurationMs = DurationMs::from_seconds(3_600);
/// Events of the runner that are read at once.
const EVENTS_AT_ONCE: usize = 1_000;

/// A seeded choice.
pub struct Dice(pub SeededRng);

impl Dice {
    pub fn below(&self, bound: u64) -> u64 {
        self.0.below(bound)
    }
    pub fn number(&self, from: u32, until: u32) -> u32 {
        from + u32::try_from(self.below(u64::from(until - from))).expect("small")
    }
    pub fn one_in(&self, bound: u64) -> bool {
        self.below(bound) == 0
    }
    pub fn pick<'a, T>(&self, items: &'a [T]) -> Option<&'a T> {
        let length = u64::try_from(items.len()).expect("small");
        if length == 0 { None } else { items.get(usize::try_from(self.below(length)).expect("small")) }
    }
}

/// What a process is made of; a restart makes another one.
struct Plane {
    control: Cloud,
    runner: Arc<SimulatedRunner>,
    compute: Compute,
}

pub struct Site<'a> {
    pub cloud: &'a TestCloud,
    directory: TempDir,
    description: String,
    plane: Option<Plane>,
    lives: u64,
    seed: u64,
    pub customers: Vec<Actor>,
    pub team: Actor,
    /// Read of the runner's log so far, and how often each attempt began and ended in it.
    read_until: u64,
    pub begun: BTreeMap<AttemptId, (u32, u32)>,
}

/// Devices and the leases that have not ended.
pub struct Look {
    pub devices: Vec<Device>,
    pub leases: Vec<Lease>,
}

fn memory_directory() -> TempDir {
    let memory = std::path::Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.expect("a directory")
}

/// A machine fails about every two weeks, a device every two months.
fn description(seed: u64) -> String {
    let pools: Vec<String> = POOLS
        .iter()
        .map(|(kind, site, devices, _)| {
            format!(r#"{{"site":"{site}","kind":"{kind}","machines":{},"devices":4,"memory_gib":80}}"#, devices / 4)
        })
        .collect();
    format!(
        r#"{{"seed":{seed},"start_seconds":20,"faults":{{"machine":{{"hours_between":350,"repair_minutes":180}},
        "device":{{"hours_between":1500,"repair_minutes":45}}}},"pools":[{}]}}"#,
        pools.join(",")
    )
}

pub fn pool(index: usize) -> Pool {
    let (kind, site, ..) = POOLS[index];
    Pool { kind: kind.parse().expect("a kind"), site: site.parse().expect("a site") }
}

pub fn wanted(index: usize, units: u32, notice: NoticeClass) -> NewQuote {
    let Pool { kind, site } = pool(index);
    NewQuote {
        kind,
        units,
        notice,
        site: Some(site),
        isolation: None,
        max_duration: None,
        max_cost: None,
        max_price: None,
        metadata: BTreeMap::new(),
    }
}

pub fn work(arguments: &str, on_end: OnEnd) -> NewJob {
    let command = std::iter::once("simulate").chain(arguments.split(' ')).map(str::to_owned).collect();
    let (environment, files, limits) = (BTreeMap::new(), BTreeMap::new(), JobLimits::default());
    NewJob {
        spec: JobSpec { command, environment, files, limits, on_end, restart: RestartPolicy::default() },
        metadata: BTreeMap::new(),
    }
}

impl<'a> Site<'a> {
    pub async fn start(cloud: &'a TestCloud, seed: u64) -> Self {
        publish_prices(cloud).await;
        let mut customers = vec![actor(&cloud.cloud, &cloud.keys.project).await];
        for (name, zone) in OTHERS {
            customers.push(customer(&cloud.cloud, name, zone).await);
        }
        let team = actor(&cloud.cloud, &cloud.keys.internal).await;
        let mut site = Self {
            cloud,
            directory: memory_directory(),
            description: description(seed),
            plane: None,
            lives: 0,
            seed,
            customers,
            team,
            read_until: 0,
            begun: BTreeMap::new(),
        };
        site.begin().await;
        site
    }

    async fn begin(&mut self) {
        self.lives += 1;
        let control = self.cloud.another(self.seed.wrapping_mul(1_009).wrapping_add(self.lives)).await;
        let runner = fleet::open(&self.cloud.clock, self.directory.path(), &self.description);
        let settings = ComputeSettings {
            hold_interval: HOLD_INTERVAL,
            unobserved_max: TICK_SEEN,
            ..ComputeSettings::new("control").expect("settings")
        };
        let compute = Compute::new(control.clone(), runner.clone(), settings);
        compute.register_devices().await.expect("the machines are registered");
        self.plane = Some(Plane { control, runner, compute });
    }

    /// The control plane is gone for a while; the machines go on.
    pub async fn restart(&mut self, gone: DurationMs) {
        self.follow_runner();
        if let Some(Plane { control, runner, compute }) = self.plane.take() {
            drop((compute, runner));
            control.store().close().await;
        }
        self.cloud.clock.advance(gone);
        self.begin().await;
    }

    fn plane(&self) -> &Plane {
        self.plane.as_ref().expect("it runs")
    }
    pub fn compute(&self) -> &Compute {
        &self.plane().compute
    }
    pub fn control(&self) -> &Cloud {
        &self.plane().control
    }
    pub fn now(&self) -> Timestamp {
        self.cloud.now()
    }

    /// Passes until nothing changes any more.
    pub async fn pass(&self) {
        for _ in 0..PASSES_MAX {
            let report = self.compute().reconcile().await;
            for error in &report.errors {
                // A device that fails between the placement and the start.
                assert_eq!(error.code(), ErrorCode::CapacityUnavailable, "at {}: {error:?}", self.now());
            }
            if report.planned + report.started + report.lost + report.registered == 0 {
                return;
            }
        }
    }

    pub async fn run(&self, who: &Actor, quote: NewQuote, job: NewJob) -> Result<Run> {
        let answer = self.compute().run(&Call::once(who.clone()), &NewRun { quote, job }, &|_| Ok(String::new())).await?;
        Ok(created(Ok(answer)))
    }

    pub async fn look(&self) -> Look {
        let read = self.control().store().read((), |(), tx| {
            Box::pin(async move { Ok(Look { devices: device::list_all(tx).await?, leases: lease::list_open(tx).await? }) })
        });
        read.await.expect("the fleet can be read")
    }

    pub async fn pay_in(&self, organization: &OrganizationId, amount: Nanos) {
        let new = NewCredit {
            organization: organization.clone(),
            kind: CreditKind::Paid,
            amount,
            currency: None,
            reference: "paid in".to_owned(),
            terms: CreditTerms::default(),
        };
        created(self.control().grant_credit(&Call::once(Actor::system()), &new, &|_| Ok(String::new())).await);
    }

    /// Counts what the runner's own log says of beginnings and ends.
    pub fn follow_runner(&mut self) {
        loop {
            let events = self.plane().runner.events_after(self.read_until, EVENTS_AT_ONCE).expect("the log");
            let Some(last) = events.last() else { return };
            self.read_until = last.sequence;
            for event in events {
                let (begun, ended) = self.begun.entry(event.attempt).or_default();
                match event.event {
                    AttemptEvent::Started { .. } => *begun += 1,
                    AttemptEvent::Exited { .. } => *ended += 1,
                    AttemptEvent::Alive { .. } | AttemptEvent::Contained { .. } => {}
                }
            }
        }
    }

    pub fn at_runner(&self) -> Vec<AttemptId> {
        self.plane().runner.snapshot().into_iter().map(|live| live.attempt).collect()
    }
}

async fn publish_prices(cloud: &TestCloud) {
    let lists = cloud.cloud.prices().snapshot();
    let newest = lists.values().next().and_then(|list| list.versions().last()).expect("a version").clone();
    let devices =
        POOLS.iter().flat_map(|(kind, .., price)| NoticeClass::ALL.into_iter().map(move |notice| (*kind, notice, *price)));
    let devices = devices.map(|(kind, notice, price)| {
        let percent = [25, 40, 55, 70, 85, 100][NoticeClass::ALL.iter().position(|one| *one == notice).expect("a class")];
        PriceEntry::per_unit(SkuName::device(notice, kind.parse().expect("a kind")), Nanos::new(price / 100 * percent + 1))
    });
    let rest = newest.entries().filter(|entry| !matches!(entry.sku, SkuName::Device { .. })).cloned();
    publish(&cloud.cloud, &cloud.clock, rest.chain(devices).collect()).await;
}

async fn customer(cloud: &Cloud, name: &str, zone: &str) -> Actor {
    let new = NewOrganization {
        name: name.to_owned(),
        class: OrganizationClass::External,
        currency: Currency::EUR,
        time_zone: zone.to_owned(),
        credit_limit: Nanos::ZERO,
    };
    let (organization, _) = created(cloud.create_organization(&Call::once(Actor::system()), &new).await);
    let scope = Scope::Organization(organization.id.clone());
    let admin = Actor { plane: KeyPlane::Admin, scope, key: None, address: String::new() };
    let project = created(cloud.create_project(&Call::once(admin), "work", &|_| Ok(String::new())).await);
    let scope = Scope::Project { organization: organization.id, project: project.id };
    Actor { plane: KeyPlane::Project, scope, key: None, address: String::new() }
}
