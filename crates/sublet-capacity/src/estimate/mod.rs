//! `sublet estimate`: an owner's history replayed, to see what could have been sold and what it would have cost.
//!
//! [`replay`] lets a [`SellingPolicy`] sell through the history of a pool and counts; [`bound`] is what
//! a seller would earn who knows the future. Integers only: seconds, units, parts per million.
//!
//! Deliberately absent: files, and text for people.

pub mod baseline;
pub mod bound;
pub mod csv;
pub mod demand;
pub mod follow;
pub mod layered;
pub mod leases;
pub mod replay;
pub mod score;
mod shadow;
pub mod terms;

#[cfg(test)]
mod tests;
