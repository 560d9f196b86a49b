//! A seeded simulation of the whole: the real use cases, driven one step after the other.
//!
//! One seed is one exact run: the clock is the test's, randomness comes from the seed, workloads do
//! what the seed says, crashes cut the work at an exact reading of the clock. Two processes share one
//! database; each has a gateway, a reconciler and a runner's view of the same machine. After every
//! step cheap invariants are checked, now and then and at the end all of them (`check`).
//!
//! Deliberately absent: concurrency (the race tests have it), HTTP, and the real gateway's threads;
//! a model of the gateway keeps its rules over the same ports.

mod account;
mod check;
mod fuse;
mod gateway;
mod life;
mod request;
mod time;
mod work;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;
use std::sync::Arc;

use sublet_cloud::compute::{Compute, ComputeSettings};
use sublet_cloud::data::JournalFormat;
use sublet_cloud::{Actor, Cloud};
use sublet_core::id::{KeyId, LeaseId, OrganizationId, ProjectId, QuoteId, RequestId};
use sublet_core::key::Secret;
use sublet_core::usage::UsageRecord;
use sublet_core::{Error, ErrorCode, IdMint, Nanos, Result, Timestamp};
use sublet_money::period::PeriodKey;
use sublet_store::budget::BudgetWindow;
use sublet_store::{Store, StoreConfig};

use crate::clock::{ManualClock, START, SeededRng};
use crate::runner::{FakeRunner, Manners, cpu_slots, sandbox};
use fuse::Fuse;
use gateway::ModelGateway;

/// CPU slots of the simulated machine.
const SLOTS: usize = 6;
/// Steps between two checks of everything.
const CHECK_EVERY: u64 = 150;
/// Steps that a failure shows.
const TRACE_STEPS: usize = 40;
/// A memory-backed directory, where there is one.
const MEMORY_DIRECTORY: &str = "/dev/shm";

/// Which run, and how long.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Plan {
    pub seed: u64,
    pub steps: u64,
}

/// What a run did.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Summary {
    pub steps: u64,
    /// How often each kind of step was taken and had an effect.
    pub effects: BTreeMap<&'static str, u64>,
    /// Refusals that the rules ask for, by their code.
    pub refusals: BTreeMap<&'static str, u64>,
    /// The hash of the exported books: the same seed gives the same.
    pub fingerprint: String,
}

impl Summary {
    pub fn add(&mut self, other: &Self) {
        self.steps += other.steps;
        for (effect, count) in &other.effects {
            *self.effects.entry(effect).or_default() += count;
        }
        for (refusal, count) in &other.refusals {
            *self.refusals.entry(refusal).or_default() += count;
        }
    }
}

/// One process of the cloud.
struct Process {
    cloud: Cloud,
    compute: Compute,
    gateway: ModelGateway,
    fuse: Arc<Fuse>,
}

/// A customer or a team.
struct Tenant {
    id: OrganizationId,
    zone: &'static str,
    admin: Actor,
    projects: Vec<ProjectId>,
    keys: Vec<KeyHolder>,
    /// What was paid in, each payment once.
    deposited: Nanos,
    periods: BTreeSet<PeriodKey>,
}

struct KeyHolder {
    id: KeyId,
    secret: Secret,
    actor: Actor,
    revoked: bool,
}

/// What must have become a charge, or must not.
#[derive(Default)]
struct Expected {
    /// Durable, hence acknowledged.
    acknowledged: BTreeMap<RequestId, UsageRecord>,
    /// Known to be settled.
    settled: BTreeSet<RequestId>,
    /// Never acknowledged; a crash or the disk took the record.
    lost: Vec<RequestId>,
    /// How far each window of a limit may be used: its amount, or what was used when it was lowered.
    ceilings: BTreeMap<(String, BudgetWindow, Timestamp), Nanos>,
    /// Leases that were told to make room, and until when they may run.
    reclaimed: BTreeMap<LeaseId, Timestamp>,
    /// Passes that saw a lease wait longer than the longest notice.
    overdue: BTreeMap<LeaseId, u32>,
}

struct Simulation {
    plan: Plan,
    rng: SeededRng,
    clock: Arc<ManualClock>,
    runner: Arc<FakeRunner>,
    store: StoreConfig,
    _directory: tempfile::TempDir,
    processes: Vec<Process>,
    tenants: Vec<Tenant>,
    quotes: Vec<(Actor, QuoteId)>,
    expected: Expected,
    trace: VecDeque<String>,
    summary: Summary,
    /// Numbers payments and the lives of processes.
    counter: u64,
    step: u64,
}

/// Shows the way back to a failure.
impl Drop for Simulation {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the last steps of seed {}:", self.plan.seed);
            for line in &self.trace {
                eprintln!("  {line}");
            }
            eprintln!(
                "step {} of seed {} failed; replay it: SUBLET_SEED={} SUBLET_STEPS={} \
                 cargo test -p sublet-cloud --test simulation -- --nocapture",
                self.step, self.plan.seed, self.plan.seed, self.plan.steps
            );
        }
    }
}

/// Runs a seed to its end and checks everything. `exports` gets the books as two accounting programs read them.
pub async fn simulate(plan: Plan, exports: Option<&Path>) -> Summary {
    let mut simulation = Simulation::start(plan).await;
    for step in 1..=plan.steps {
        simulation.step = step;
        simulation.take_step().await;
        simulation.check_step().await;
        if step % CHECK_EVERY == 0 {
            simulation.check_all().await;
        }
    }
    simulation.drain().await;
    simulation.check_all().await;
    simulation.check_drained().await;
    simulation.export(exports).await;
    let mut summary = std::mem::take(&mut simulation.summary);
    summary.steps = plan.steps;
    summary
}

impl Simulation {
    fn new(plan: Plan) -> Self {
        let memory = Path::new(MEMORY_DIRECTORY);
        let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let directory = made.expect("a temporary directory");
        let clock = Arc::new(ManualClock::new(START));
        Self {
            plan,
            rng: SeededRng::new(plan.seed),
            runner: FakeRunner::new(clock.clone(), cpu_slots(SLOTS), sandbox(), Manners::Prompt),
            clock,
            store: StoreConfig::Sqlite(directory.path().join("sublet.db")),
            _directory: directory,
            processes: Vec::new(),
            tenants: Vec::new(),
            quotes: Vec::new(),
            expected: Expected::default(),
            trace: VecDeque::new(),
            summary: Summary::default(),
            counter: 0,
            step: 0,
        }
    }

    fn now(&self) -> Timestamp {
        use sublet_core::Clock;
        self.clock.now()
    }

    /// A number below a bound.
    fn below(&self, bound: usize) -> usize {
        let bound = u64::try_from(bound).expect("a small bound");
        usize::try_from(self.rng.below(bound)).expect("it is below a small bound")
    }
    fn number(&self, from: i64, to: i64) -> i64 {
        let span = u64::try_from(to - from).expect("a span") + 1;
        from + i64::try_from(self.rng.below(span)).expect("it is below a small bound")
    }
    fn chance(&self, one_in: u64) -> bool {
        self.rng.below(one_in) == 0
    }
    fn pick<'a, T>(&self, items: &'a [T]) -> Option<&'a T> {
        if items.is_empty() { None } else { items.get(self.below(items.len())) }
    }
    fn next_number(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    fn note(&mut self, what: impl Into<String>) {
        if self.trace.len() == TRACE_STEPS {
            self.trace.pop_front();
        }
        let line = format!("{:>5} {} {}", self.step, self.now(), what.into());
        self.trace.push_back(line);
    }

    /// Something happened.
    fn did(&mut self, effect: &'static str) {
        *self.summary.effects.entry(effect).or_default() += 1;
        self.note(effect);
    }

    /// A result, or a refusal that the rules ask for; anything else is a failure.
    fn settle_for<T>(&mut self, what: &str, result: Result<T>, allowed: &[ErrorCode]) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) if allowed.contains(&error.code()) => {
                self.refused(what, &error);
                None
            }
            Err(error) => panic!("{what}: {error:?}"),
        }
    }

    fn refused(&mut self, what: &str, error: &Error) {
        *self.summary.refusals.entry(error.code().as_str()).or_default() += 1;
        self.note(format!("{what}: {error}"));
    }

    /// A mint whose ids and secrets come from the seed and nothing else.
    fn mint(&mut self, fuse: &Arc<Fuse>) -> IdMint {
        let number = self.next_number();
        IdMint::new(fuse.clone(), Arc::new(SeededRng::new(self.plan.seed.wrapping_mul(1_000_003).wrapping_add(number))))
    }

    async fn open_cloud(&mut self, fuse: &Arc<Fuse>) -> Cloud {
        let store = Store::open(&self.store).await.expect("the database opens");
        let mint = self.mint(fuse);
        Cloud::open(store, mint).await.expect("the cloud opens")
    }

    fn compute_on(&self, cloud: &Cloud) -> Compute {
        Compute::new(cloud.clone(), self.runner.clone(), ComputeSettings::new("machine-1").expect("settings"))
    }

    async fn take_step(&mut self) {
        match self.rng.below(1_000) {
            0..=99 => self.admit().await,
            100..=219 => self.generate().await,
            220..=329 => self.end_request().await,
            330..=419 => self.sync().await,
            420..=499 => self.settle().await,
            500..=529 => self.give_back().await,
            530..=539 => self.refuse_written(),
            540..=554 => self.offer_again().await,
            555..=562 => self.offer_forged().await,
            563..=592 => self.pay_in().await,
            593..=632 => self.set_limit().await,
            633..=642 => self.remove_limit().await,
            643..=650 => self.publish_prices().await,
            651..=656 => self.revoke_key().await,
            657..=664 => self.create_key().await,
            665..=670 => self.draft_invoice().await,
            671..=684 => self.close_months().await,
            685..=719 => self.run_job().await,
            720..=729 => self.quote().await,
            730..=739 => self.accept().await,
            740..=749 => self.add_job().await,
            750..=779 => self.end_program(),
            780..=787 => self.cancel_job().await,
            788..=795 => self.end_lease().await,
            796..=805 => self.change_fleet().await,
            806..=890 => self.reconcile().await,
            891..=979 => self.pass_time(),
            _ => self.crash().await,
        }
    }

    /// Writes the books for judges outside, and their hash for the comparison of runs.
    async fn export(&mut self, to: Option<&Path>) {
        let mut fingerprint = String::new();
        for (format, name) in [(JournalFormat::Beancount, "beancount"), (JournalFormat::Hledger, "hledger")] {
            let mut text = String::new();
            let mut export = self.processes[0].cloud.export_ledger(&Actor::system(), format).expect("an export");
            while let Some(piece) = export.next().await.expect("a piece of the books") {
                text.push_str(&piece);
            }
            if let Some(directory) = to {
                let path = directory.join(format!("simulated-month.{name}"));
                std::fs::write(path, &text).expect("the books are written");
            }
            fingerprint.push_str(&sublet_store::key::hash_text(&text));
        }
        self.summary.fingerprint = fingerprint;
    }
}
