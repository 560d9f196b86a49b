//! `sublet estimate`: an owner's history replayed, to see what could have been sold and what it would have cost.
//!
//! [`replay`] lets a [`SellingPolicy`] sell through the history of a pool and counts; [`bound`] is what
//! a seller would earn who knows the future. Integers only: seconds, units, parts per million.
//!
//! Demand is the owner's ([`csv`], [`sacct`], [`prometheus`]); who buys takes all there is, or is known too ([`finite`]).
//!
//! Deliberately absent: files, and text for people.

pub mod baseline;
pub mod bound;
pub mod csv;
pub mod demand;
pub mod finite;
pub mod follow;
mod job_bound;
pub mod jobs;
pub mod layered;
pub mod leases;
pub mod prometheus;
mod queue;
pub mod replay;
mod rules;
mod running;
pub mod sacct;
pub mod score;
mod shadow;
pub mod terms;

#[cfg(test)]
mod bad_input_tests;
#[cfg(test)]
mod finite_tests;
#[cfg(test)]
mod job_bound_tests;
#[cfg(test)]
mod layered_tests;
#[cfg(test)]
mod prometheus_tests;
#[cfg(test)]
mod sacct_tests;
#[cfg(test)]
mod tests;
