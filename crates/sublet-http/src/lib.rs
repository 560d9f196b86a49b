//! The control plane over HTTP: one gate before every handler, one handler for every operation
//! of the route table, and the console.
//!
//! A handler extracts, calls one use case, and maps the answer to wire types. The gate checks the
//! key, its plane, and the size of the body before a handler sees anything, and turns errors into
//! the error envelope after it.
//!
//! Invariants: routes come from `sublet_api::ROUTES` and nowhere else (but the console's own pages
//! under `/console`); a route without a handler does not start; every answer carries `x-request-id`.
//!
//! Deliberately absent: SQL, decisions, listeners.

mod account;
pub mod answer;
mod archived_file;
mod audit;
mod batch;
mod calendar;
mod clock;
mod compensation;
pub mod console;
mod context;
mod contract;
mod credit;
mod credit_note;
mod demand;
mod device;
mod document;
mod dunning;
mod export;
mod export_schedule;
mod fee;
mod file;
mod form;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod gate;
mod handler;
mod invoice;
mod job;
mod key;
mod leakage;
mod lease;
mod ledger;
mod limit;
mod mail;
mod margin;
mod model;
mod model_card;
mod monthly_return;
mod offering;
mod organization;
mod payment;
mod payout;
mod price;
mod price_index;
mod price_simulation;
mod price_wire;
mod project;
mod proof;
mod public;
mod quote;
mod rate_limit;
mod reclaim;
mod remote_model;
mod rerate;
mod response;
mod revenue;
mod router;
mod saved_card;
mod sku;
mod supplier;
mod supply_cost;
mod tax;
mod tax_report;
mod top_up_rule;
mod usage;
mod user;
mod webhook;
mod why;
mod wire;

use std::sync::Arc;

use sublet_api::health::HealthCheck;
use sublet_api::remote_model::ReplicaSeen;
use sublet_cloud::Cloud;
use sublet_cloud::batch::Batches;
use sublet_cloud::compute::Compute;
use sublet_core::BoxFuture;
use sublet_core::engine::{ModelEngine, ModelInfo};
use sublet_core::id::ReplicaId;
use sublet_core::tokenizer::TokenizerName;

pub use router::{DataPlane, router};

/// What the process knows about itself; the binary implements it.
pub trait Process: Send + Sync {
    /// What has to work before work may be sent here.
    fn checks(&self) -> BoxFuture<'_, Vec<HealthCheck>>;
    /// Figures in Prometheus' text format.
    fn metrics(&self) -> BoxFuture<'_, String>;
    /// Takes a model's files from a path on this machine and serves them.
    fn import_model(&self, path: String, name: Option<String>) -> BoxFuture<'_, sublet_core::Result<ModelInfo>>;
    /// How this process sees a replica; `None` if it never asked it.
    fn replica_seen(&self, id: &ReplicaId) -> Option<ReplicaSeen>;
    /// Waits until what this process has served is charged, or says that it is not yet.
    fn settle(&self) -> BoxFuture<'_, sublet_core::Result<()>>;
    /// Whether this process can count with a tokenizer.
    fn check_tokenizer<'a>(&'a self, name: &'a TokenizerName) -> BoxFuture<'a, sublet_core::Result<()>>;
}

/// Everything handlers use. Cheap to clone.
#[derive(Clone)]
pub struct App {
    pub cloud: Cloud,
    pub compute: Compute,
    pub batches: Batches,
    pub engine: Arc<dyn ModelEngine>,
    pub process: Arc<dyn Process>,
}
