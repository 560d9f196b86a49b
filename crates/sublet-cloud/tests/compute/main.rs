//! The life of leases and jobs on both databases, with workloads that do what the test says.
#![allow(clippy::expect_used, reason = "test code fails loudly")]

mod life;
mod recovery;
mod simulation;
mod world;
