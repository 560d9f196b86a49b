//! Where workloads run.
//!
//! Today one runner: the local sandbox ([`local::LocalRunner`]), which runs each attempt in namespaces, control groups
//! and filters of its own on this machine. It starts the running binary again as the sandbox's first process; that binary
//! must call [`shim::main_if_requested`] before anything else.
//!
//! Invariants: an attempt's command runs only after the isolation achieved was compared with the isolation required.
//! No process of an attempt outlives its runner. A start and an end are on disk before they are reported.
//!
//! Deliberately absent: money, leases, retries and scheduling (the cloud decides), images and networks.

mod channel;
pub mod local;
pub mod shim;
mod sys;
