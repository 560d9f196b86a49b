//! What a customer can check without trusting the seller: that an invoice is the sum of its charges, each charge the
//! price of its use, and all of it what was sealed when the month was closed.
//!
//! The charges of an invoice are the leaves of a Merkle tree ([`leaf`], [`merkle`]). Its root, the number of leaves and
//! their sum are in the invoice's [`seal`]; seals are the entries of the deployment's log, whose checkpoints are signed
//! ([`note`]). A [`bundle`] is all of it in one file, checked offline; a [`receipt`] is the same for one charge.
//!
//! Pure: no I/O, no clock, no randomness. Secrets come from the caller.
//!
//! Deliberately absent: where trees and seals are kept, and when months are closed.
#![deny(clippy::float_arithmetic, clippy::as_conversions)]

pub mod bundle;
mod chain;
pub mod cose;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod leaf;
pub mod merkle;
pub mod note;
pub mod receipt;
pub mod seal;
