//! Where workloads run.
//!
//! The local sandbox ([`local::LocalRunner`]) runs each attempt in namespaces, control groups and filters of its own on
//! this machine. It starts the running binary again as the sandbox's first process; that binary must call
//! [`shim::main_if_requested`] before anything else. The simulated fleet ([`simulated::SimulatedRunner`]) has machines
//! that are described and run nothing.
//!
//! Invariants: an attempt's command runs only after the isolation achieved was compared with the isolation required.
//! No process of an attempt outlives the local sandbox. A start and an end are on disk before they are reported.
//!
//! Deliberately absent: money, leases, retries and scheduling (the cloud decides), images and networks.

mod channel;
mod directory;
mod journal;
pub mod local;
pub mod shim;
pub mod simulated;
mod sys;
