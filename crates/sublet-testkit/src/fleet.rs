//! A simulated fleet on a test's clock.

use std::path::Path;
use std::sync::Arc;

pub use sublet_runner::simulated::{Fleet, SimulatedRunner, SimulatedRunnerConfig};

use sublet_core::DurationMs;

use crate::clock::ManualClock;

/// The fleet of this description; the same directory again is the same fleet after a restart.
pub fn open(clock: &Arc<ManualClock>, directory: &Path, description: &str) -> Arc<SimulatedRunner> {
    let config = SimulatedRunnerConfig {
        name: "simulated".to_owned(),
        state_dir: directory.to_owned(),
        fleet: Fleet::parse(description).expect("a fleet"),
        heartbeat: DurationMs::from_seconds(1),
        clock: Arc::<ManualClock>::clone(clock),
    };
    Arc::new(SimulatedRunner::open(config).expect("the fleet opens"))
}
