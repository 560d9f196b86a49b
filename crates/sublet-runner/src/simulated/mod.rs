//! A simulated fleet: machines that are described and do not exist, for evaluation, demonstrations and tests.
//!
//! Workloads take the time they say and use nothing. Everything else is as on real machines: what is placed is on disk
//! before it is answered for, machines and devices fail and come back, workloads are told, end late or in time, and go on
//! while the control plane is away.
//!
//! What happens is a function of the fleet's description, of what was asked, and of the clock ([`workload`], [`fault`]):
//! nothing is drawn by chance when it happens, so the same asks at the same instants give the same log.

mod demand;
mod fault;
mod fleet;
mod runner;
mod workload;

pub use demand::{DEMAND_STEP_S, Demand, OwnDemand, Rhythm};
pub use fault::{FaultRate, Faults, seed_of};
pub use fleet::{Fleet, Pool};
pub use runner::{SimulatedRunner, SimulatedRunnerConfig};

#[cfg(test)]
mod demand_tests;
#[cfg(test)]
mod tests;
