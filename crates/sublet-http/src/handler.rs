//! Which handler serves which operation.

use sublet_api::Operation;
use sublet_core::{BoxFuture, Result};

use crate::answer::Answer;
use crate::context::Context;
use crate::{App, public, usage, why};

/// Extracts, calls one use case, maps.
pub type Handler = fn(App, Context) -> BoxFuture<'static, Result<Answer>>;

macro_rules! to {
    ($handler:path) => {
        Some(|app, context| Box::pin($handler(app, context)))
    };
}

/// The handler of an operation; `None` for those of the data plane.
pub fn find(operation: Operation) -> Option<Handler> {
    match operation {
        Operation::GetHealth | Operation::GetHealthAlias => to!(public::health),
        Operation::GetReadiness => to!(public::readiness),
        Operation::GetMetrics => to!(public::metrics),
        Operation::GetOpenApi => to!(public::open_api),
        Operation::GetLlmsText => to!(public::llms_text),
        Operation::GetErrorPage => to!(public::error_page),
        Operation::GetRequest => to!(usage::get_request),
        Operation::GetUsage | Operation::GetOrganizationUsage => to!(usage::summary),
        Operation::GetWhy | Operation::GetOrganizationWhy | Operation::OperatorGetWhy => to!(why::explain),
        _ => None,
    }
}
