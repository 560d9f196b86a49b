//! What workloads of this process run on: this machine, or a simulated fleet.
//!
//! Which of the two a cloud has is decided at its first start and kept in its books. A fleet's description is kept in the
//! data directory.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use sublet_cloud::compute::Compute;
use sublet_cloud::machine::check_machines;
use sublet_core::id::GatewayId;
use sublet_core::runner::Runner;
use sublet_core::{Clock, DurationMs, Error, ErrorCode, Result};
use sublet_runner::local::{LocalRunner, LocalRunnerConfig};
use sublet_runner::simulated::{Fleet, SimulatedRunner, SimulatedRunnerConfig};
use sublet_store::Store;

use crate::data_directory::{self, DataDirectory};
use crate::demonstration::DemonstrationOptions;

/// How often a proof of life of every attempt is written.
const HEARTBEAT: DurationMs = DurationMs::from_seconds(1);
/// Where a simulated fleet's state is in the data directory, and its description in that.
const SIMULATED: &str = "simulated";
const DESCRIPTION: &str = "fleet.json";
/// Where this machine's is.
const LOCAL: &str = "runner";

/// What workloads run on.
pub enum Machines {
    Local(Arc<LocalRunner>),
    Simulated(Arc<SimulatedRunner>),
}

/// Where the description of a simulated fleet is.
#[derive(Clone, Copy)]
pub enum GivenFleet<'a> {
    File(&'a Path),
    Demonstration(DemonstrationOptions),
}

/// What opening them needs.
pub struct Opening<'a> {
    pub data: &'a DataDirectory,
    pub store: &'a Store,
    pub gateway: &'a GatewayId,
    /// A simulated fleet's description, if one is given at this start.
    pub fleet: Option<GivenFleet<'a>>,
    pub clock: Arc<dyn Clock>,
    /// Woken when something has happened, once it is there.
    pub woken: Arc<OnceLock<Compute>>,
}

impl Machines {
    pub async fn open(opening: Opening<'_>) -> Result<Self> {
        let described = Description::read(opening.data, opening.fleet)?;
        check_machines(opening.store, described.is_some()).await?;
        match described {
            Some(described) => {
                described.keep(opening.data)?;
                Ok(Self::Simulated(Arc::new(simulated(&opening, described.fleet)?)))
            }
            None => {
                let config = local(opening)?;
                let runner = tokio::task::spawn_blocking(move || LocalRunner::open(config))
                    .await
                    .map_err(|error| Error::internal(format!("opening the runner failed: {error}")))??;
                Ok(Self::Local(Arc::new(runner)))
            }
        }
    }

    pub fn runner(&self) -> Arc<dyn Runner> {
        match self {
            Self::Local(runner) => Arc::<LocalRunner>::clone(runner),
            Self::Simulated(runner) => Arc::<SimulatedRunner>::clone(runner),
        }
    }

    /// The kinds of devices that may be there, up or not, in order.
    pub fn kinds(&self) -> Vec<String> {
        match self {
            Self::Local(runner) => {
                let mut kinds: Vec<String> = runner.devices().into_iter().map(|device| device.kind).collect();
                kinds.sort();
                kinds.dedup();
                kinds
            }
            Self::Simulated(runner) => runner.fleet().kinds(),
        }
    }

    /// The fleet, if it is a simulated one.
    pub fn simulated(&self) -> Option<&Fleet> {
        match self {
            Self::Local(_) => None,
            Self::Simulated(runner) => Some(runner.fleet()),
        }
    }

    /// Stops what runs on this machine.
    pub async fn shutdown(self, grace: DurationMs) {
        let Self::Local(runner) = self else { return };
        if let Err(error) = tokio::task::spawn_blocking(move || runner.shutdown(grace)).await {
            tracing::error!(%error, "the runner did not close");
        }
    }
}

fn local(opening: Opening<'_>) -> Result<LocalRunnerConfig> {
    let shim = std::env::current_exe().map_err(|error| Error::internal(format!("this program cannot find itself: {error}")))?;
    let woken = opening.woken;
    Ok(LocalRunnerConfig {
        // One runner per data directory, like the gateway.
        name: format!("local:{}", opening.gateway),
        state_dir: opening.data.directory(LOCAL)?,
        shim,
        cpu_slots: None,
        extra_toolchain: Vec::new(),
        configured_devices: Vec::new(),
        heartbeat: HEARTBEAT,
        clock: opening.clock,
        on_event: Arc::new(move || {
            if let Some(compute) = woken.get() {
                compute.wake();
            }
        }),
    })
}

fn simulated(opening: &Opening<'_>, fleet: Fleet) -> Result<SimulatedRunner> {
    SimulatedRunner::open(SimulatedRunnerConfig {
        name: format!("simulated:{}", opening.gateway),
        state_dir: opening.data.directory(SIMULATED)?,
        fleet,
        heartbeat: match opening.fleet {
            Some(GivenFleet::Demonstration(options)) => options.heartbeat(),
            Some(GivenFleet::File(_)) | None => HEARTBEAT,
        },
        clock: Arc::clone(&opening.clock),
    })
}

/// The description of a simulated fleet.
struct Description {
    fleet: Fleet,
    /// Not kept yet.
    given: Option<String>,
}

impl Description {
    /// The one that is given, or else the one that is kept. `None` if this process's machine is real.
    fn read(data: &DataDirectory, given: Option<GivenFleet<'_>>) -> Result<Option<Self>> {
        let kept = || Self::read_kept(&data.join(SIMULATED).join(DESCRIPTION));
        match given {
            None => kept(),
            Some(GivenFleet::File(path)) => {
                let text = std::fs::read_to_string(path).map_err(|error| {
                    Error::new(ErrorCode::Usage, format!("the fleet's description {} cannot be read: {error}", path.display()))
                })?;
                Self::of(text).map(Some)
            }
            Some(GivenFleet::Demonstration(options)) => match kept()? {
                Some(kept) if options.seed.is_none_or(|seed| seed == kept.fleet.seed) => Ok(Some(kept)),
                Some(_) | None => Self::of(options.fleet()).map(Some),
            },
        }
    }

    fn of(text: String) -> Result<Self> {
        Ok(Self { fleet: Fleet::parse(&text)?, given: Some(text) })
    }

    fn read_kept(kept: &Path) -> Result<Option<Self>> {
        match std::fs::read_to_string(kept) {
            Ok(text) => Ok(Some(Self { fleet: Fleet::parse(&text)?, given: None })),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(data_directory::failure(kept, &error)),
        }
    }

    /// A given one is kept from now on.
    fn keep(&self, data: &DataDirectory) -> Result<()> {
        let Some(text) = &self.given else { return Ok(()) };
        let directory = data.directory(SIMULATED)?;
        let (kept, beside) = (directory.join(DESCRIPTION), directory.join(format!("{DESCRIPTION}.new")));
        let written = std::fs::write(&beside, text).and_then(|()| std::fs::rename(&beside, &kept));
        written.map_err(|error| data_directory::failure(&kept, &error))
    }
}
