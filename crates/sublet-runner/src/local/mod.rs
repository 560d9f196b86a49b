//! The local sandbox: attempts run on this machine, each in namespaces, control groups and filters of its own.

mod artifact;
mod attempt;
mod cgroup;
mod disk;
mod inventory;
mod launch;
mod runner;
mod shared;
mod specification;
mod watch;

pub use artifact::Artifact;
pub use inventory::ConfiguredDevice;
pub use runner::{LocalRunner, LocalRunnerConfig};
