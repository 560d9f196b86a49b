//! A simulated fleet of several machines, kinds and sites through the whole loop: customers, the owner's teams, faults.

use std::sync::Arc;

use sublet_cloud::Actor;
use sublet_cloud::compute::{Compute, ComputeSettings};
use sublet_cloud::idempotency::Call;
use sublet_cloud::job::{NewJob, NewRun, Run};
use sublet_cloud::quote::NewQuote;
use sublet_core::device::DeviceHealth;
use sublet_core::id::JobId;
use sublet_core::job::JobState;
use sublet_core::lease::{EndReason, LeaseState};
use sublet_core::notice::NoticeClass;
use sublet_core::{DurationMs, ErrorCode, Nanos, Result, Rng, Scope};
use sublet_money::price_book::PriceEntry;
use sublet_money::sku::SkuName;
use sublet_store::{PageRequest, attempt, device, lease};
use sublet_testkit::fleet::{self, SimulatedRunner};
use sublet_testkit::prices::publish;
use sublet_testkit::tenant::{actor, created};
use sublet_testkit::{SeededRng, TestCloud, on_both_databases};
use tempfile::TempDir;

use crate::world::{assert_metering, assert_spans, command, wanted};

const QUIET: &str = r#"{"pools":[
    {"site":"site_north","kind":"h200","machines":2,"devices":4,"memory_gib":141},
    {"site":"site_south","kind":"a100","machines":1,"devices":2,"memory_gib":80}]}"#;
/// Three kinds on two sites; a machine fails about every five days, a device about every twelve.
const FAULTY: &str = r#"{"seed":3,"start_seconds":20,
    "faults":{"machine":{"hours_between":72,"repair_minutes":180},"device":{"hours_between":200,"repair_minutes":45}},
    "pools":[
    {"site":"site_north","kind":"h200","machines":2,"devices":4,"memory_gib":141},
    {"site":"site_south","kind":"h200","machines":1,"devices":4,"memory_gib":141},
    {"site":"site_south","kind":"a100","machines":2,"devices":2,"memory_gib":80},
    {"site":"site_north","kind":"l4","machines":1,"devices":4,"memory_gib":24}]}"#;
const KINDS: [&str; 3] = ["h200", "a100", "l4"];
const STEP: DurationMs = DurationMs::from_seconds(600);

/// A cloud over a simulated fleet.
struct Site<'a> {
    cloud: &'a TestCloud,
    directory: TempDir,
    description: &'static str,
    runner: Arc<SimulatedRunner>,
    compute: Compute,
    customer: Actor,
    team: Actor,
}

impl<'a> Site<'a> {
    async fn start(cloud: &'a TestCloud, description: &'static str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let runner = fleet::open(&cloud.clock, directory.path(), description);
        let compute = compute_on(cloud, &runner);
        compute.register_devices().await.expect("the machines are registered");
        let lists = cloud.cloud.prices().snapshot();
        let newest = lists.values().next().and_then(|list| list.versions().last()).expect("a version").clone();
        let devices = KINDS.iter().flat_map(|kind| NoticeClass::ALL.into_iter().map(move |notice| (*kind, notice)));
        let devices = devices.map(|(kind, notice)| {
            PriceEntry::per_unit(SkuName::device(notice, kind.parse().expect("a kind")), Nanos::new(3_600_000))
        });
        let rest = newest.entries().filter(|entry| !matches!(entry.sku, SkuName::Device { .. })).cloned();
        publish(&cloud.cloud, &cloud.clock, rest.chain(devices).collect()).await;
        let customer = actor(&cloud.cloud, &cloud.keys.project).await;
        let team = actor(&cloud.cloud, &cloud.keys.internal).await;
        Self { cloud, directory, description, runner, compute, customer, team }
    }

    /// The control plane is started anew; the machines went on.
    fn restarted(self) -> Self {
        let Self { cloud, directory, description, runner, compute, customer, team } = self;
        drop((compute, runner));
        let runner = fleet::open(&cloud.clock, directory.path(), description);
        let compute = compute_on(cloud, &runner);
        Self { cloud, directory, description, runner, compute, customer, team }
    }

    async fn pass(&self) {
        let report = self.compute.reconcile().await;
        assert_eq!(report.errors, Vec::new());
    }

    async fn live(&self, steps: u32) {
        for _ in 0..steps {
            self.cloud.clock.advance(STEP);
            self.pass().await;
        }
    }

    async fn run(&self, who: &Actor, (kind, units, notice): (&str, u32, NoticeClass), seconds: u32) -> Result<Run> {
        let quote = NewQuote { kind: kind.parse().expect("a kind"), ..wanted(units, notice) };
        let call = Call::once(who.clone());
        let answer = self.compute.run(&call, &NewRun { quote, job: simulated(seconds) }, &|_| Ok(String::new())).await?;
        Ok(created(Ok(answer)))
    }

    async fn state(&self, job: &JobId) -> JobState {
        self.compute.get_job(&Actor::system(), job).await.expect("the job").job.state
    }

    async fn assert_invariants(&self) {
        self.cloud.assert_books_balance().await;
        let now = self.cloud.now();
        let reading = self.cloud.cloud.store().read(now, |now, tx| {
            Box::pin(async move {
                assert_spans(tx, *now).await?;
                assert_metering(tx).await
            })
        });
        reading.await.expect("the invariants can be read");
    }
}

fn compute_on(cloud: &TestCloud, runner: &Arc<SimulatedRunner>) -> Compute {
    // Steps of this test are longer than those of a cloud that runs by itself.
    let hold_interval = DurationMs::from_seconds(3_600);
    let settings = ComputeSettings { hold_interval, ..ComputeSettings::new("control").expect("settings") };
    Compute::new(cloud.cloud.clone(), runner.clone(), settings)
}

fn simulated(seconds: u32) -> NewJob {
    let mut new = command("simulate");
    new.spec.command = ["simulate", "--seconds", &seconds.to_string()].map(str::to_owned).to_vec();
    new
}

on_both_databases! {
    async fn machines_of_a_fleet_are_nodes_with_their_sites_and_work_on_them_is_metered(cloud: &TestCloud) {
        let site = Site::start(cloud, QUIET).await;
        let page = PageRequest { limit: Some(100), ..Default::default() };
        let nodes = site.compute.list_nodes(&Actor::system(), &page).await.expect("nodes").items;
        let mut named: Vec<(String, String, i64)> =
            nodes.into_iter().map(|(node, devices)| (node.name, node.site.to_string(), devices)).collect();
        named.sort();
        let expected = [("north-h200-001", "site_north", 4), ("north-h200-002", "site_north", 4), ("south-a100-001", "site_south", 2)];
        assert_eq!(named, expected.map(|(name, site, devices)| (name.to_owned(), site.to_owned(), devices)));
        let run = site.run(&site.customer, ("h200", 4, NoticeClass::N2m), 900).await.expect("a run");
        assert_eq!(run.lease.lease.site.as_str(), "site_north");
        let refused = site.run(&site.customer, ("h200", 5, NoticeClass::N2m), 900).await.expect_err("no machine has five");
        assert_eq!(refused.code(), ErrorCode::CapacityUnavailable);
        site.live(3).await;
        let done = site.compute.get_job(&Actor::system(), &run.job.job.id).await.expect("the job");
        assert_eq!((done.job.state, done.device_time.get()), (JobState::Succeeded, 4 * 900_000), "to the millisecond, however rarely it looks");
        site.assert_invariants().await;
    }

    async fn a_device_that_fails_is_lost_with_what_ran_on_it_and_comes_back(cloud: &TestCloud) {
        let site = Site::start(cloud, FAULTY).await;
        let run = site.run(&site.customer, ("l4", 4, NoticeClass::N1h), 30 * 24 * 3_600).await.expect("a run");
        site.pass().await;
        let mut steps = 0;
        while !site.state(&run.job.job.id).await.is_final() {
            site.live(1).await;
            steps += 1;
            assert!(steps < 60 * 144, "no device of it has failed in sixty days");
        }
        let statement = site.compute.get_lease(&Actor::system(), &run.lease.lease.id).await.expect("the lease");
        let reason = match statement.lease.state {
            LeaseState::Ended { reason } | LeaseState::Ending { reason, .. } => reason,
            LeaseState::Pending | LeaseState::Active => panic!("{:?}", statement.lease.state),
        };
        assert!(matches!(reason, EndReason::DeviceLost | EndReason::JobEnded), "{reason:?}");
        site.live(60).await;
        let devices = cloud.cloud.store().read((), |(), tx| Box::pin(device::list_all(tx))).await.expect("devices");
        let healthy = devices.iter().filter(|device| device.health == DeviceHealth::Healthy).count();
        let reported: usize = sublet_core::runner::Runner::machines(&*site.runner).iter().map(|machine| machine.devices.len()).sum();
        assert_eq!(healthy, reported, "what is mended is for sale again");
        site.assert_invariants().await;
    }

    async fn a_control_plane_that_is_started_anew_finds_what_went_on(cloud: &TestCloud) {
        let site = Site::start(cloud, QUIET).await;
        let run = site.run(&site.customer, ("a100", 2, NoticeClass::N15m), 7_200).await.expect("a run");
        site.live(3).await;
        let site = site.restarted();
        site.pass().await;
        assert_eq!(site.state(&run.job.job.id).await, JobState::Running);
        let site = site.restarted();
        site.live(12).await;
        let done = site.compute.get_job(&Actor::system(), &run.job.job.id).await.expect("the job");
        assert_eq!((done.job.state, done.device_time.get()), (JobState::Succeeded, 2 * 7_200_000));
        site.assert_invariants().await;
    }

    async fn days_of_customers_teams_and_faults_add_up(cloud: &TestCloud) {
        let site = Site::start(cloud, FAULTY).await;
        let mut drawn = Drawn(SeededRng::new(11));
        let (mut asked, mut sold) = (0, 0);
        for _ in 0..6 * 144 {
            site.live(1).await;
            for _ in 0..drawn.below(3) {
                asked += 1;
                let who = if drawn.below(4) == 0 { &site.team } else { &site.customer };
                let kind = KINDS[drawn.below(3)];
                let units = 1 + u32::try_from(drawn.below(4)).expect("small");
                // Firm leases live a week: a few of them would fill the fleet.
                let notice = NoticeClass::ALL[drawn.below(4)];
                let seconds = 600 + u32::try_from(drawn.below(40_000)).expect("small");
                match site.run(who, (kind, units, notice), seconds).await {
                    Ok(_) => sold += 1,
                    Err(error) => assert_eq!(error.code(), ErrorCode::CapacityUnavailable, "{error:?}"),
                }
            }
        }
        // Everything ends, or is waiting for a week at most.
        site.live(300).await;
        let open = cloud.cloud.store().read((), |(), tx| Box::pin(attempt::list_live(tx))).await.expect("attempts");
        assert_eq!(open, Vec::new());
        let open = cloud.cloud.store().read((), |(), tx| Box::pin(lease::list_open(tx))).await.expect("leases");
        assert_eq!(open, Vec::new());
        let (reclaimed, lost) = (ended_by(cloud, EndReason::Reclaimed).await, ended_by(cloud, EndReason::DeviceLost).await);
        let figures = format!("{asked} asked, {sold} sold, {reclaimed} taken back, {lost} lost");
        assert!(asked > 700 && sold > 150 && reclaimed > 5 && lost > 2, "{figures}");
        site.assert_invariants().await;
    }
}

/// How many leases have ended for this reason.
async fn ended_by(cloud: &TestCloud, reason: EndReason) -> usize {
    let count = cloud.cloud.store().read((), |(), tx| {
        Box::pin(async move {
            let (mut count, mut after) = (0, None);
            loop {
                let page = PageRequest { limit: Some(100), after: after.take(), ..Default::default() };
                let leases = lease::list(tx, &Scope::Operator, Some("ended"), &page).await?.items;
                let Some(last) = leases.last() else { return Ok(count) };
                after = Some(last.id.to_string());
                count += leases.iter().filter(|lease| lease.state == LeaseState::Ended { reason }).count();
            }
        })
    });
    count.await.expect("leases")
}

/// A seeded choice.
struct Drawn(SeededRng);

impl Drawn {
    fn below(&mut self, limit: usize) -> usize {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        usize::try_from(u64::from_le_bytes(bytes) % u64::try_from(limit).expect("small")).expect("small")
    }
}
