//! The local runner with real processes in real sandboxes.
//!
//! These tests need root (or what root can do in a container). Without it they fail: a sandbox that was not tried is not
//! known to hold.
#![cfg(test)]

mod attack;
mod crash;
mod lab;
mod life;
mod limit;
mod restart;
