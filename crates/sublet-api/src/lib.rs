//! The API on the wire: one route table, the types that travel, the OpenAPI document made from
//! both, and (feature `client`) a blocking client.
//!
//! Invariants: domain types are not sent to clients, the types here are; money is a decimal
//! string with a currency; unknown fields of our own request objects are refused by name; secrets
//! travel once and `Debug` never shows them.
//!
//! Deliberately absent: handlers (`sublet-http`, `sublet-gateway`), conversion from the store's
//! rows (the crates that own those), and authorization.

pub mod account;
pub mod audit;
pub mod batch;
pub mod body;
pub mod calendar;
pub mod capacity;
pub mod card;
#[cfg(feature = "client")]
pub mod client;
pub mod clock;
pub mod compensation;
pub mod contract;
pub mod credit;
pub mod credit_note;
pub mod demand;
pub mod device;
pub mod document;
pub mod dunning;
pub mod error;
pub mod export;
pub mod export_schedule;
pub mod fee;
mod fields;
pub mod file;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod health;
pub mod invoice;
pub mod job;
pub mod key;
pub mod leakage;
pub mod lease;
pub mod ledger;
pub mod limit;
pub mod list;
pub mod mail;
pub mod margin;
pub mod messages;
pub mod model;
pub mod money;
pub mod monthly_return;
pub mod object;
pub mod offering;
pub mod openai;
pub mod openapi;
pub mod organization;
pub mod payment;
pub mod payout;
pub mod price;
pub mod price_index;
pub mod price_simulation;
pub mod project;
pub mod quote;
pub mod rate_limit;
pub mod receipt;
pub mod reclaim;
pub mod reference;
pub mod remote_model;
pub mod rerate;
pub mod responses;
pub mod revenue;
pub mod route;
pub mod saved_card;
pub mod schema;
pub mod sku;
pub mod supplier;
pub mod supply_cost;
pub mod tax;
pub mod tax_report;
pub mod time;
pub mod top_up_rule;
pub mod usage;
pub mod user;
pub mod webhook;
pub mod why;

pub use body::{parse_body, parse_query};
pub use error::{ErrorBody, ErrorDetail};
pub use list::List;
pub use money::Money;
pub use route::{Method, Operation, Plane, ROUTES, Route};
