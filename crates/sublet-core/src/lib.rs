//! The vocabulary every other crate speaks: identifiers, money, quantities, instants,
//! scopes, error codes, and the few ports between crates.
//!
//! Invariants: no I/O, no clock, no randomness, no floats. Time and randomness enter
//! through the [`Clock`] and [`Rng`] ports, which only the binary implements for real.
//!
//! Deliberately absent: wire types (they live in `sublet-api`), SQL (`sublet-store`),
//! rating and invoices (`sublet-money`).
#![deny(clippy::float_arithmetic)]

pub mod admission;
pub mod batch;
pub mod blob;
pub mod card;
pub mod clock;
pub mod delivery;
pub mod device;
pub mod engine;
pub mod error;
pub mod file;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod id;
pub mod job;
pub mod key;
pub mod kv_events;
pub mod lease;
pub mod mail;
pub mod money;
mod named_state;
pub mod notice;
pub mod offering;
pub mod organization;
pub mod payment;
pub mod quantity;
pub mod quote;
pub mod rate;
pub mod reclaim;
pub mod response;
pub mod restart;
pub mod runner;
pub mod scope;
pub mod supplier;
pub mod supply;
pub mod tier;
pub mod time;
pub mod tokenizer;
pub mod usage;
pub mod webhook;

pub use clock::{Clock, IdMint, Rng};
pub use error::{Error, ErrorCode, Result};
pub use money::{Currency, Money, Nanos, Rate};
pub use quantity::{Bytes, DeviceMillis, TokenCount};
pub use scope::Scope;
pub use time::{DurationMs, Timestamp};

use std::future::Future;
use std::pin::Pin;

/// A boxed future, so that ports stay usable as trait objects.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
