//! One cloud with one fake runner, and what must hold of it at any time.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use sublet_cloud::compute::{Compute, ComputeSettings};
use sublet_cloud::idempotency::Call;
use sublet_cloud::job::{JobStatement, NewJob, NewRun, Run};
use sublet_cloud::lease::LeaseStatement;
use sublet_cloud::quote::NewQuote;
use sublet_cloud::{Actor, Cloud};
use sublet_core::id::{AttemptId, JobId, LeaseId};
use sublet_core::job::{JobLimits, JobSpec, OnEnd};
use sublet_core::notice::NoticeClass;
use sublet_core::restart::RestartPolicy;
use sublet_core::runner::{Exit, Isolation};
use sublet_core::{DurationMs, Nanos, Result, Scope, Timestamp};
use sublet_money::sku::SkuFamily;
use sublet_store::quote::Quote;
use sublet_store::{attempt, charge, device, job, lease};
use sublet_testkit::TestCloud;
use sublet_testkit::runner::{FakeRunner, Manners, cpu_slots, sandbox};
use sublet_testkit::tenant::{actor, created};

pub const UNIT: i64 = 1_000_000_000;
/// Per device-millisecond in nano-units, as a fraction: 0.06 EUR an hour at firm, less for shorter notice.
pub fn cost(notice: NoticeClass, device_millis: i64) -> Nanos {
    let percent: i64 = match notice {
        NoticeClass::N0 => 25,
        NoticeClass::N2m => 40,
        NoticeClass::N15m => 55,
        NoticeClass::N1h => 70,
        NoticeClass::N24h => 85,
        NoticeClass::Firm => 100,
    };
    let exact = i128::from(60_000_000 * percent / 100) * i128::from(device_millis);
    Nanos::new(i64::try_from(sublet_core::money::divide_half_even(exact, 3_600_000)).expect("fits"))
}

pub struct World<'a> {
    pub cloud: &'a TestCloud,
    pub runner: Arc<FakeRunner>,
    pub compute: Compute,
    /// A customer's project.
    pub customer: Actor,
    /// A project of the owner's own team.
    pub team: Actor,
}

impl<'a> World<'a> {
    pub async fn start(cloud: &'a TestCloud, slots: usize, manners: Manners) -> Self {
        Self::start_with(cloud, slots, manners, sandbox()).await
    }
    pub async fn start_with(cloud: &'a TestCloud, slots: usize, manners: Manners, isolation: Isolation) -> Self {
        let runner = FakeRunner::new(cloud.clock.clone(), cpu_slots(slots), isolation, manners);
        let compute = compute_on(&cloud.cloud, &runner);
        compute.register_devices().await.expect("the devices are registered");
        let customer = actor(&cloud.cloud, &cloud.keys.project).await;
        let team = actor(&cloud.cloud, &cloud.keys.internal).await;
        Self { cloud, runner, compute, customer, team }
    }

    pub fn now(&self) -> Timestamp {
        self.cloud.now()
    }
    /// The same database and runner after a restart of the process.
    pub fn restarted(&self) -> Compute {
        compute_on(&self.cloud.cloud, &self.runner)
    }
    pub async fn pass(&self) {
        let report = self.compute.reconcile().await;
        assert_eq!(report.errors, Vec::new());
    }
    /// Time goes by in steps, each with a proof of life and a pass.
    pub async fn live(&self, seconds: i64, step: i64) {
        let mut gone = 0;
        while gone < seconds {
            let by = step.min(seconds - gone);
            self.cloud.clock.advance(DurationMs::from_seconds(by));
            self.runner.beat();
            self.pass().await;
            gone += by;
        }
    }

    /// What runs ends by itself, and what waits for that is done.
    pub async fn end_all(&self) {
        for id in self.runner.live() {
            self.runner.exit(&id, Exit::Code { code: 0 });
        }
        self.pass().await;
        self.pass().await;
    }
    pub async fn quote(&self, new: &NewQuote) -> Result<Quote> {
        match self.compute.create_quote(&Call::once(self.customer.clone()), new, &|_| Ok(String::new())).await? {
            sublet_cloud::idempotency::Answer::New(quote) => Ok(quote),
            sublet_cloud::idempotency::Answer::Replayed(text) => panic!("a repeat: {text}"),
        }
    }
    pub async fn accept(&self, quote: &Quote) -> Result<LeaseStatement> {
        let call = Call::once(self.customer.clone());
        let answer = self.compute.accept_quote(&call, &quote.id, &BTreeMap::new(), &|_| Ok(String::new())).await?;
        Ok(created(Ok(answer)))
    }
    pub async fn run_as(&self, actor: &Actor, quote: NewQuote, job: NewJob) -> Result<Run> {
        let call = Call::once(actor.clone());
        let answer = self.compute.run(&call, &NewRun { quote, job }, &|_| Ok(String::new())).await?;
        Ok(created(Ok(answer)))
    }
    pub async fn run(&self, quote: NewQuote, job: NewJob) -> Result<Run> {
        self.run_as(&self.customer, quote, job).await
    }
    pub async fn add_job(&self, lease: &LeaseId, new: &NewJob) -> Result<JobStatement> {
        let call = Call::once(self.customer.clone());
        let answer = self.compute.create_job(&call, lease, new, &|_| Ok(String::new())).await?;
        Ok(created(Ok(answer)))
    }
    pub async fn job(&self, id: &JobId) -> JobStatement {
        self.compute.get_job(&Actor::system(), id).await.expect("the job")
    }
    pub async fn lease(&self, id: &LeaseId) -> LeaseStatement {
        self.compute.get_lease(&Actor::system(), id).await.expect("the lease")
    }
    /// The attempt of a job that has one.
    pub async fn attempt(&self, id: &JobId) -> AttemptId {
        self.job(id).await.job.attempt.expect("an attempt")
    }

    /// Everything that must hold whatever happened: nothing is sold twice, the classes of device time
    /// add up to the capacity, charges are the rated intervals, nothing is held for what has ended.
    pub async fn assert_invariants(&self) {
        self.runner.assert_no_device_is_shared();
        self.cloud.assert_books_balance().await;
        let now = self.now();
        self.cloud
            .cloud
            .store()
            .read(now, |now, tx| {
                Box::pin(async move {
                    assert_spans(tx, *now).await?;
                    assert_metering(tx).await
                })
            })
            .await
            .expect("the invariants can be read");
    }
    /// What must hold once nothing runs any more.
    pub async fn assert_all_over(&self) {
        self.assert_invariants().await;
        assert_eq!(self.runner.live(), Vec::new());
        let capacity = self.compute.capacity(&Actor::system()).await.expect("capacity");
        for kind in capacity {
            assert_eq!(kind.figures.idle, kind.figures.healthy, "all healthy devices are free");
        }
        self.cloud
            .cloud
            .store()
            .read((), |(), tx| {
                Box::pin(async move {
                    assert_eq!(lease::list_open(tx).await?, Vec::new());
                    assert_eq!(job::list_open(tx).await?, Vec::new());
                    assert_eq!(attempt::list_live(tx).await?, Vec::new());
                    let page = sublet_store::PageRequest { limit: Some(100), ..Default::default() };
                    for organization in sublet_store::organization::list(tx, None, &page).await?.items {
                        assert_eq!(sublet_store::hold::open_total(tx, &organization.id).await?, Nanos::ZERO);
                    }
                    Ok(())
                })
            })
            .await
            .expect("what is open can be read");
    }
}

pub fn compute_on(cloud: &Cloud, runner: &Arc<FakeRunner>) -> Compute {
    Compute::new(cloud.clone(), runner.clone(), ComputeSettings::new("machine-1").expect("settings"))
}

pub fn wanted(units: u32, notice: NoticeClass) -> NewQuote {
    NewQuote {
        kind: "cpu".parse().expect("a kind"),
        units,
        notice,
        site: None,
        isolation: None,
        max_duration: None,
        max_cost: None,
        max_price: None,
        metadata: BTreeMap::new(),
    }
}

pub fn command(program: &str) -> NewJob {
    let spec = JobSpec {
        command: vec![program.to_owned()],
        environment: BTreeMap::new(),
        files: BTreeMap::from([("input.txt".to_owned(), b"42".to_vec())]),
        limits: JobLimits::default(),
        on_end: OnEnd::EndLease,
        restart: RestartPolicy::default(),
    };
    NewJob { spec, metadata: BTreeMap::new() }
}

pub fn kept(program: &str) -> NewJob {
    let mut new = command(program);
    new.spec.on_end = OnEnd::KeepLease;
    new
}

/// Contiguous spans from the registration to now: each device is in exactly one class at every instant.
pub async fn assert_spans(tx: &mut sublet_store::Tx, now: Timestamp) -> Result<()> {
    let devices = device::list_all(tx).await?;
    let mut capacity = 0;
    for device in &devices {
        let spans = device::list_spans(tx, &device.id, 0).await?;
        assert_eq!(spans.first().map(|span| span.started_at), Some(device.created_at));
        for pair in spans.windows(2) {
            assert_eq!(pair[0].ended_at, Some(pair[1].started_at), "{pair:?}");
            assert!(pair[0].started_at <= pair[1].started_at);
        }
        assert_eq!(spans.last().map(|span| span.ended_at), Some(None));
        capacity += now.since(device.created_at).millis();
    }
    let by_class = device::time_by_class(tx, Timestamp::EPOCH, now).await?;
    let sum: i64 = by_class.iter().map(|(_, millis)| millis).sum();
    let rounding = i64::try_from(by_class.len()).expect("fits");
    assert!((capacity - rounding..=capacity).contains(&sum), "{by_class:?} of {capacity}");
    Ok(())
}

/// Intervals of a device never overlap, and every job is charged for exactly its billed intervals.
pub async fn assert_metering(tx: &mut sublet_store::Tx) -> Result<()> {
    for device in device::list_all(tx).await? {
        let intervals = attempt::list_intervals_of_device(tx, &device.id).await?;
        for pair in intervals.windows(2) {
            assert!(pair[0].ended_at <= pair[1].started_at, "{pair:?}");
        }
    }
    let page = sublet_store::PageRequest { limit: Some(100), ..Default::default() };
    let jobs = job::list(tx, &Scope::Operator, &job::JobFilter::default(), &page).await?;
    for job in jobs.items {
        let (mut billed, mut ran) = (0, false);
        for attempt in attempt::list_of(tx, &job.id).await? {
            for interval in attempt::list_intervals(tx, &attempt.id).await? {
                ran = true;
                billed += if interval.is_billed() { interval.millis() } else { 0 };
            }
            if let (Some(started_at), Some(settled_until)) = (attempt.started_at, attempt.settled_until) {
                assert!(ran && settled_until >= started_at);
            }
        }
        let charges = charge::list_of(tx, job.id.as_str(), 10_000).await?;
        let of = |family| charges.iter().filter(move |charge| charge.sku.family() == family);
        let charged: i64 = of(SkuFamily::DeviceTime).map(|charge| charge.quantity.get()).sum();
        let starts: i64 = of(SkuFamily::JobStarts).map(|charge| charge.quantity.get()).sum();
        assert!(starts <= i64::from(job.started_at.is_some()), "{} is charged a start that there was not", job.id);
        assert_eq!(charged, billed, "{} is charged for what it used", job.id);
        let lease = lease::get(tx, &Scope::Operator, &job.lease).await?;
        assert!(lease.max_cost.is_none_or(|max_cost| lease.cost <= max_cost), "{} costs more than its maximum", lease.id);
    }
    Ok(())
}

/// Polls a future a number of times and then drops it, as a crash would.
pub struct CutShort<F> {
    future: Pin<Box<F>>,
    polls_left: u64,
}

impl<F: Future> CutShort<F> {
    pub fn new(future: F, polls: u64) -> Self {
        Self { future: Box::pin(future), polls_left: polls }
    }
}

impl<F: Future> Future for CutShort<F> {
    type Output = Option<F::Output>;
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if self.polls_left == 0 {
            return Poll::Ready(None);
        }
        self.polls_left -= 1;
        match self.future.as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if self.polls_left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    }
}
