//! `sublet up --demo`: an ordinary cloud over a simulated fleet, on a clock that runs fast, with an owner who has work of
//! its own and customers who come and go.
//!
//! What is drawn is pure ([`wish`], and the owner's demand in the runner's crate); what is done with it are calls of the
//! API, with keys, as anybody makes them. Only a new demonstration's history goes in before its reconciler looks, by the
//! use case that the route has.
//!
//! Invariants: a demonstration has nothing real, neither machines nor money; one thread lives in it, and what it is late
//! for it leaves out.

mod account;
mod customer;
mod owner;
mod wish;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Args;
use sublet_api::client::{Client, Keys};
use sublet_api::key::SecretText;
use sublet_cloud::compute::{Compute, ComputeSettings};
use sublet_cloud::demonstration::demonstration_of;
use sublet_core::{Clock, DurationMs, Result};
use sublet_runner::simulated::Fleet;
use sublet_store::Store;
use tokio::task::JoinHandle;

use crate::data_directory::{Credentials, DataDirectory};
use crate::fast_clock::{FastClock, Speed, SteadyClock};

use self::account::Accounts;
use self::customer::Customers;
use self::owner::Owner;

/// How long the thread rests between two turns.
const REST: Duration = Duration::from_millis(250);
/// How often it is tried to begin.
const BEGINNINGS_MAX: u32 = 240;
/// Three kinds on two sites; a machine fails every three days or so, a device every day.
const POOLS: &str = r#""start_seconds": 20,
  "faults": {"machine": {"hours_between": 1500, "repair_minutes": 120}, "device": {"hours_between": 2500, "repair_minutes": 45}},
  "pools": [
    {"site": "site_north", "kind": "h200", "machines": 6, "devices": 8, "memory_gib": 141},
    {"site": "site_north", "kind": "l4", "machines": 4, "devices": 4, "memory_gib": 24},
    {"site": "site_south", "kind": "a100", "machines": 6, "devices": 4, "memory_gib": 80},
    {"site": "site_south", "kind": "l4", "machines": 4, "devices": 4, "memory_gib": 24}
  ]"#;
const SEED: u64 = 1;
/// What is worth a look.
const LOOKS: [&str; 6] =
    ["capacity", "leases list --all", "reclaim list", "compensations list --all", "report margin", "ledger verify"];

/// A demonstration, if that is asked for.
#[derive(Args)]
pub struct DemonstrationArguments {
    /// Create a demonstration: simulated machines, demand, faults and customers, on a clock that runs fast; never for real
    /// customers
    #[arg(
        long,
        conflicts_with_all = [
            "fleet", "node_name", "site", "database", "test_clock", "stripe_key", "smtp", "webhooks_anywhere", "test_clock_skew_ms", "files",
            "exports",
        ]
    )]
    demo: bool,
    /// How many times faster than the world a demonstration's time runs: 144, a day in ten minutes, if not said
    #[arg(long, value_name = "N", requires = "demo")]
    speed: Option<Speed>,
    /// What a demonstration's demand, faults and customers are drawn from
    #[arg(long, value_name = "N", requires = "demo")]
    seed: Option<u64>,
}

impl DemonstrationArguments {
    pub fn options(&self) -> Option<DemonstrationOptions> {
        self.demo.then(|| DemonstrationOptions { speed: self.speed.unwrap_or(Speed::DEFAULT), seed: self.seed })
    }
}

/// What a demonstration was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DemonstrationOptions {
    pub speed: Speed,
    /// What it was before if `None`, and 1 at first.
    pub seed: Option<u64>,
}

impl DemonstrationOptions {
    /// The description of the fleet.
    pub fn fleet(self) -> String {
        format!("{{\n  \"seed\": {},\n  {POOLS}\n}}\n", self.seed.unwrap_or(SEED))
    }

    /// Makes room for what takes real time: a pass, a call. What is sold and promised stays as it is.
    pub fn settle_in(self, settings: &mut ComputeSettings) {
        let grown = |least: DurationMs, real_seconds: i64| least.max(self.speed.of(DurationMs::from_seconds(real_seconds)));
        settings.period = DurationMs::from_millis(100);
        settings.hold_interval = grown(settings.hold_interval, 25);
        settings.slack = grown(settings.slack, 1);
        settings.unused_max = grown(settings.unused_max, 10);
        settings.quote_life = grown(settings.quote_life, 10);
        settings.start_patience = grown(settings.start_patience, 5);
        settings.lost_patience = grown(settings.lost_patience, 5);
    }

    /// How often a proof of life is written: each costs disk.
    pub const fn heartbeat(self) -> DurationMs {
        self.speed.of(DurationMs::from_seconds(5))
    }
}

/// The clock of a demonstration; `None` for any other cloud. Refused if it was the other one before.
pub async fn clock_of(store: &Store, clock: &dyn Clock, options: Option<DemonstrationOptions>) -> Result<Option<Arc<FastClock>>> {
    let now = clock.now();
    let Some(time) = demonstration_of(store, options.is_some(), now).await? else { return Ok(None) };
    let speed = options.map_or(Speed::DEFAULT, |options| options.speed);
    let clock = Arc::new(FastClock::new(Arc::new(SteadyClock::new(now)), speed, time));
    clock.prolong(store).await?;
    Ok(Some(clock))
}

/// Gives a new demonstration its history. Call it before the reconciler looks: what was is recorded before what is.
pub async fn remember(compute: &Compute, fleet: &Fleet, clock: &FastClock) -> Result<()> {
    owner::import_history(compute, fleet, clock).await
}

/// The thread that lives in it.
pub struct Demonstration {
    clock: Arc<FastClock>,
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

/// What it needs.
pub struct Stage<'a> {
    pub clock: Arc<FastClock>,
    pub fleet: &'a Fleet,
    pub credentials: &'a Credentials,
    pub data: &'a DataDirectory,
}

impl Demonstration {
    /// Begins once the cloud serves.
    pub fn start(stage: &Stage<'_>) -> Result<Self> {
        let client = |keys: Keys| Client::new(&stage.credentials.api_base, keys);
        let secret = |text: &str| Some(SecretText::new(text));
        let operator = client(Keys { operator: secret(&stage.credentials.operator_key), ..Keys::default() })?;
        let team = client(Keys { project: secret(&stage.credentials.internal_key), ..Keys::default() })?;
        let clock = Arc::clone(&stage.clock);
        let accounts = Accounts::open(stage.data.directory("simulated")?.join("accounts.json"));
        let now_s = clock.now().seconds();
        let life = Life {
            clock: Arc::clone(&clock),
            owner: Owner::new(operator.clone(), stage.fleet, &clock),
            customers: Customers::new((operator, team), stage.fleet.seed, now_s),
            accounts,
        };
        let is_over = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&is_over);
        let thread = tokio::task::spawn_blocking(move || life.live(&seen));
        Ok(Self { clock, is_over, thread })
    }

    /// What it is, and where to look.
    pub fn greeting(&self, data_dir: &Path) -> String {
        let (clock, day) = (&self.clock, self.clock.speed().day_seconds());
        let commands = LOOKS.map(|look| format!("    sublet {look} --data-dir {}\n", data_dir.display())).concat();
        format!(
            "  This is a demonstration: machines, the owner's demand, faults, customers and time are simulated.\n  \
             It is {} in it, and a day passes in {day} s. Look at the operator's pages in the console, and at\n{commands}  \
             Ctrl-C stops time, too; the same command goes on.\n\n",
            clock.now(),
        )
    }

    pub fn clock(&self) -> Arc<FastClock> {
        Arc::clone(&self.clock)
    }

    /// Stops it: the cloud has to serve until it has.
    pub async fn stop(self) {
        self.is_over.store(true, Ordering::Release);
        if let Err(error) = self.thread.await {
            tracing::error!(%error, "who lived in the demonstration failed");
        }
    }
}

struct Life {
    clock: Arc<FastClock>,
    owner: Owner,
    customers: Customers,
    accounts: Accounts,
}

impl Life {
    fn live(mut self, is_over: &AtomicBool) {
        let is_over = || is_over.load(Ordering::Acquire);
        for _ in 0..BEGINNINGS_MAX {
            match self.begin() {
                Ok(()) => break,
                Err(error) if is_over() => return tracing::debug!(?error, "it was stopped before it began"),
                Err(error) => tracing::info!(?error, "the demonstration's customers cannot begin yet"),
            }
            std::thread::sleep(REST);
        }
        while !is_over() {
            let now_s = self.clock.now().seconds();
            if let Some(launch) = self.owner.turn(now_s) {
                self.customers.launch(launch);
            }
            self.customers.turn(now_s, &self.accounts, &is_over);
            std::thread::sleep(REST);
        }
    }

    fn begin(&mut self) -> Result<()> {
        self.owner.begin()?;
        self.accounts.ensure(self.customers.operator(), self.clock.now())
    }
}
