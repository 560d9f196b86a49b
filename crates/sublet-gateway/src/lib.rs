//! The data plane: who may call, with whose money, how fast; streaming, metering, and the usage journal.
//!
//! A request is admitted with money that is held before any work, out of a slice that the cloud granted
//! to this gateway. While it generates, the hold is extended ahead of the tokens; when no more is
//! granted, the engine stops at the last paid token. At its end the request leaves one durable usage
//! record, which a task settles with the cloud, and whatever was held too much goes back.
//!
//! Invariants, each with a test: no token is generated that is not paid for; settled and held money
//! never exceed what was granted; a hold ends exactly once, whatever happens to its request; an answer
//! is complete only when its record is durable; what was acknowledged is settled exactly once.
//!
//! Deliberately absent: the cloud and the store (they are behind [`sublet_core::admission::Admission`]
//! and [`sublet_core::usage::UsageSink`]), routes (they are in `sublet-api`'s one table), listeners
//! (whoever opens them must set `TCP_NODELAY`, or every event of a stream waits for an acknowledgement),
//! and prompts or outputs anywhere but in the answer and, where a
//! request asks for it, behind [`sublet_core::response::ResponseStore`].

mod answer;
mod auth;
mod branch;
mod burn;
pub mod config;
mod dialect;
mod earlier;
mod ended;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod gateway;
mod generation;
mod idempotency;
pub mod journal;
mod keep;
mod keys;
mod limits;
mod line;
mod measured;
pub mod measuring;
pub mod metrics;
mod models;
mod offer;
mod prepare;
mod pricing;
mod purse;
mod reply;
pub mod routing;
mod serve;
mod start;
mod step;
mod supply;

pub use config::{GatewayConfig, JournalConfig, SupplyConfig};
pub use gateway::{Gateway, GatewayPorts, Phase, ShutdownReport};
pub use journal::{FileDirectory, JournalDirectory, JournalFile, OpenReport};
pub use line::Lines;
pub use metrics::MetricsSnapshot;
pub use supply::ReplicaStatus;

use std::sync::Arc;

use axum::body::Body;
use axum::extract::Path;
use axum::routing::{MethodRouter, get, post};
use http::{HeaderMap, Request};
use sublet_api::Operation;

use dialect::Endpoint;

/// The handlers of the data plane's operations, to be registered at every path of their routes.
pub fn handlers(gateway: &Arc<Gateway>) -> Vec<(Operation, MethodRouter)> {
    let bind = |endpoint: Endpoint| {
        let gateway = Arc::clone(gateway);
        post(move |request: Request<Body>| serve::serve(Arc::clone(&gateway), endpoint, request))
    };
    let count = |endpoint: Endpoint| {
        let gateway = Arc::clone(gateway);
        post(move |request: Request<Body>| serve::count(Arc::clone(&gateway), endpoint, request))
    };
    let (listing, getting, refusing) = (Arc::clone(gateway), Arc::clone(gateway), Arc::clone(gateway));
    vec![
        (Operation::CreateChatCompletion, bind(Endpoint::Chat)),
        (Operation::CreateCompletion, bind(Endpoint::Completion)),
        (Operation::CreateEmbedding, bind(Endpoint::Embedding)),
        (Operation::CreateModeration, post(move |headers: HeaderMap| serve::refuse_moderation(Arc::clone(&refusing), headers))),
        (Operation::CreateResponse, bind(Endpoint::Response)),
        (Operation::CountResponseTokens, count(Endpoint::Response)),
        (Operation::CreateMessage, bind(Endpoint::Message)),
        (Operation::CountMessageTokens, count(Endpoint::Message)),
        (Operation::ListModels, get(move |headers: HeaderMap| models::list(Arc::clone(&listing), headers))),
        (
            Operation::GetModel,
            get(move |Path(id): Path<String>, headers: HeaderMap| models::get(Arc::clone(&getting), headers, id)),
        ),
    ]
}
