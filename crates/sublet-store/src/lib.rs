//! All SQL of Sublet, for SQLite and PostgreSQL.
//!
//! One SQL text serves both engines: BIGINT, TEXT and BYTEA columns, `$1` parameters,
//! `RETURNING`, `ON CONFLICT`. The places where the engines differ are the functions of
//! [`database`]; nothing else in the project knows which one runs.
//!
//! Invariants: every change happens in [`Store::write`], which may run its closure again after
//! a serialization failure, so the closure touches nothing outside the transaction; every
//! function on tenant data takes a `Scope`; money moves only through [`ledger`].
//!
//! Deliberately absent: decisions (they are pure code elsewhere) and authorization (`sublet-cloud`).
#![deny(clippy::float_arithmetic)]

pub mod attempt;
pub mod audit;
pub mod batch;
pub mod batch_line;
pub mod billing;
pub mod billing_profile;
pub mod budget;
pub mod change;
pub mod charge;
pub mod compensation;
pub mod compensation_rule;
pub mod contract;
pub mod contract_advance;
pub mod contract_drawdown;
pub mod contract_price;
pub mod credit;
pub mod credit_note;
pub mod database;
pub mod demand;
pub mod device;
pub mod document;
pub mod download;
pub mod dunning;
pub mod export;
pub mod export_schedule;
pub mod fee;
pub mod file;
pub mod hold;
pub mod idempotency;
pub mod incoming_payment;
pub mod invoice;
pub mod job;
pub mod key;
pub mod leakage;
pub mod lease;
pub mod ledger;
pub mod licence;
pub mod limit;
pub mod log;
pub mod margin;
pub mod metered;
pub mod migration;
pub mod model_card;
pub mod monthly_return;
pub mod offering;
pub mod organization;
pub mod outbox;
pub mod page;
pub mod payout;
pub mod price;
pub mod price_index;
pub mod project;
pub mod quote;
pub mod rate_limit;
pub mod reclaim;
pub mod refund;
pub mod remote_model;
pub mod replica;
pub mod rerate;
pub mod response;
pub mod row;
pub mod saved_card;
pub mod seal;
pub mod seller;
pub mod setting;
pub mod slice;
pub mod spend_alert;
mod sqlite;
pub mod storage;
pub mod supplier;
pub mod supply_cost;
pub mod tax_report;
pub mod top_up;
pub mod top_up_rule;
pub mod unfilled;
pub mod usage;
pub mod user;
pub mod webhook;

pub use database::{Store, StoreConfig, Tx};
pub use page::{Page, PageRequest};

/// What a conditional update did to a row with a generation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Updated {
    /// The row had the expected generation and was changed.
    Done,
    /// The row exists but has moved on.
    Stale,
    NotFound,
}
