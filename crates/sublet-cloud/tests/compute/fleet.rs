//! A simulated fleet of several machines, kinds and sites through the whole loop: customers, the owner's teams, faults.

use std::sync::Arc;

use sublet_cloud::Actor;
use sublet_cloud::compute::{Compute, ComputeSettings};
use sublet_cloud::idempotency::Call;
use sublet_cloud::job::{NewJob, NewRun, Run};
use sublet_cloud::machine::check_machines;
use sublet_cloud::quote::NewQuote;
use sublet_core::device::DeviceHealth;
use sublet_core::id::JobId;
use sublet_core::job::JobState;
use sublet_core::lease::{EndReason, LeaseState};
use sublet_core::notice::NoticeClass;
use sublet_core::{DurationMs, ErrorCode, Nanos, Result, Rng, Scope};
use sublet_money::price_book::PriceEntry;
use sublet_money::sku::SkuName;
use sublet_store::device::Device;
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

    async fn devices(&self, kind: &str) -> Vec<Device> {
        let all = self.cloud.cloud.store().read((), |(), tx| Box::pin(device::list_all(tx))).await.expect("devices");
        all.into_iter().filter(|device| device.kind.as_str() == kind).collect()
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
        let kept_out = site.devices("l4").await[0].clone();
        let run = site.run(&site.customer, ("l4", 4, NoticeClass::N1h), 365 * 24 * 3_600).await.expect("a run");
        site.compute.cordon_device(&Actor::system(), &kept_out.id).await.expect("it is cordoned");
        site.pass().await;
        let mut steps = 0;
        while !site.state(&run.job.job.id).await.is_final() {
            site.live(1).await;
            steps += 1;
            assert!(steps < 60 * 144, "no device of it has failed in sixty days");
        }
        let down: Vec<_> = site.devices("l4").await.into_iter().filter(|device| device.health == DeviceHealth::Lost).collect();
        assert!(!down.is_empty(), "what failed is lost in the pass in which its work ended");
        let done = site.compute.get_job(&Actor::system(), &run.job.job.id).await.expect("the job");
        let JobState::Interrupted { .. } = done.job.state else { panic!("{:?}", done.job.state) };
        let until = done.job.ended_at.expect("it has ended");
        assert!(until > cloud.now().minus(STEP) && until <= cloud.now(), "at the instant of the fault");
        let ran = until.since(done.job.started_at.expect("it began")).millis();
        assert_eq!(done.device_time.get(), 4 * ran, "and charged until then");
        site.live(30).await;
        let health: Vec<_> = site.devices("l4").await.into_iter().map(|device| (device.id, device.health)).collect();
        for (id, health) in health {
            let expected = if id == kept_out.id { DeviceHealth::Cordoned } else { DeviceHealth::Healthy };
            assert_eq!(health, expected, "mended, and for sale again unless the operator keeps it out of sale");
        }
        site.assert_invariants().await;
    }

    async fn machines_that_are_not_described_any_more_have_lost_their_devices(cloud: &TestCloud) {
        let mut site = Site::start(cloud, QUIET).await;
        let run = site.run(&site.customer, ("a100", 2, NoticeClass::N2m), 7_200).await.expect("a run");
        site.live(2).await;
        let before = cloud.now();
        site.description = r#"{"pools":[{"site":"site_north","kind":"h200","machines":3,"devices":4,"memory_gib":141}]}"#;
        let site = site.restarted();
        site.compute.register_devices().await.expect("the machines are registered");
        cloud.clock.advance(DurationMs::from_seconds(60));
        site.pass().await;
        site.pass().await;
        let done = site.compute.get_job(&Actor::system(), &run.job.job.id).await.expect("the job");
        assert!(matches!(done.job.state, JobState::Interrupted { .. }), "{:?}", done.job.state);
        assert_eq!(done.job.ended_at, Some(before), "its last proof of life");
        assert!(site.devices("a100").await.iter().all(|device| device.health == DeviceHealth::Lost));
        assert_eq!(site.devices("h200").await.len(), 12);
        site.assert_invariants().await;
    }

    async fn machines_are_simulated_from_the_first_start_on_or_never(cloud: &TestCloud) {
        let store = cloud.cloud.store();
        let refused = check_machines(store, true).await.expect_err("it has customers");
        assert!(refused.alternatives()[0].contains("a database of its own"), "{refused:?}");
        check_machines(store, false).await.expect("real ones");
        check_machines(store, false).await.expect("real ones again");
        assert_eq!(check_machines(store, true).await.expect_err("never").code(), ErrorCode::Conflict);
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
                let leases = lease::list(tx, &Scope::Operator, Some(["ended"; 2]), &page).await?.items;
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
