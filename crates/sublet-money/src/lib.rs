//! Money, decided in pure code: meters → rating → postings → invoices.
//!
//! Plain data in, plain data out. The store persists what is computed here; nothing here knows
//! how. Amounts are 64-bit nano-units of one currency; exact rationals exist only inside rating,
//! and every division names its rounding.
//!
//! Invariants: no I/O, no clock, no randomness, no async, no logging, no floats. The charges of a
//! line add up to the line exactly, for any price model. Debits equal credits by construction:
//! an entry consists of transfers.
//!
//! Deliberately absent: identifiers and instants made here (callers bring them), any text for the wire.
#![deny(clippy::float_arithmetic, clippy::as_conversions)]

pub mod account;
pub mod advance;
pub mod backlog;
pub mod balance;
pub mod canonical;
pub mod commitment;
pub mod committed_quantity;
pub mod compensation;
pub mod contract;
pub mod contract_price;
pub mod cost;
pub mod credit_lot;
pub mod day;
pub mod document;
pub mod drawdown;
pub mod dunning;
pub mod encoder;
pub mod explanation;
pub mod export;
pub mod export_schedule;
pub mod floor;
pub mod focus;
pub mod focus_columns;
pub mod focus_contract;
pub mod focus_contract_columns;
pub mod focus_dataset;
pub mod focus_invoice;
pub mod focus_invoice_columns;
pub mod focus_period;
pub mod forecast;
pub mod invoice;
pub mod invoice_text;
pub mod margin;
pub mod parquet;
pub mod party;
pub mod payback;
pub mod period;
pub mod place;
pub mod placement;
pub mod posting;
pub mod price_book;
pub mod price_comparison;
pub mod price_entry;
pub mod price_index;
pub mod price_model;
pub mod pricing_unit;
pub mod rating;
pub mod receivable;
pub mod recognition;
pub mod reference;
pub mod repricing;
pub mod rerate;
pub mod sku;
pub mod spend_limit;
pub mod starter;
pub mod statement;
pub mod storage;
pub mod stretch;
pub mod supply_cost;
pub mod table;
pub mod tax;
pub mod tax_id;
pub mod tax_report;
pub mod tax_treatment;
mod thrift;
pub mod time_of_use;
pub mod top_up_rule;
pub mod unfilled;
pub mod zone;
