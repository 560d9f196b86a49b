//! The console: pages that people read, under `/console`.
//!
//! Server-rendered and whole without JavaScript; one script of our own makes forms and logs nicer.
//! A page calls the same use cases as the API does, with the actor behind the session.
//!
//! Invariants: [`PAGES`] is the only list of pages, and the router registers it; a page that is not
//! open to everybody refuses without a session and with a session of another plane; whatever changes
//! something is a POST whose origin was checked; templates escape everything; a secret is shown once,
//! in the answer of the POST that made it, and nowhere else; no page loads anything from elsewhere.
//!
//! Deliberately absent: SQL, decisions, state in the browser, inline scripts and styles.

mod asset;
mod audit;
mod chart;
mod contract;
mod customer;
mod device;
mod figure;
mod invoice;
mod job;
mod key;
mod ledger;
mod limit;
mod login;
mod margin;
mod model;
mod monthly_return;
mod offering;
mod operator;
mod organization;
mod pages;
mod playground;
mod pool;
mod price_index;
mod request;
mod revenue;
mod shell;
mod top_up_rule;
mod usage;
mod visit;
mod why;

use axum::routing::MethodRouter;

use crate::App;

pub use pages::{Door, PAGES, Page};
pub use visit::open;

/// What pages use. Cheap to clone.
#[derive(Clone)]
pub struct Console {
    pub app: App,
    /// The data plane's handler of chat completions, with its whole gate. `None` where no models are served.
    pub chat: Option<MethodRouter>,
}
