//! The router, made from the one table. This file alone registers routes.
#![allow(clippy::disallowed_methods, reason = "the one place where routes are registered")]

use std::collections::BTreeMap;

use axum::Router;
use axum::body::Body;
use axum::routing::{MethodFilter, MethodRouter, on};
use http::{Request, Response};
use sublet_api::{Method, Operation, ROUTES, Route};
use sublet_core::id::RequestId;
use sublet_core::{Error, ErrorCode, Result};

use crate::answer::{anthropic_error_response, error_response};
use crate::console::{self, Console, PAGES};
use crate::{App, gate, handler};

/// Handlers of the data plane, which checks keys and bodies itself.
pub type DataPlane = Vec<(Operation, MethodRouter)>;

/// Binds every route of the table. A route that nobody handles is an error.
pub fn router(app: &App, data_plane: DataPlane) -> Result<Router> {
    let mut data_plane: BTreeMap<Operation, MethodRouter> = data_plane.into_iter().collect();
    let mut router = Router::new();
    let chat = data_plane.get(&Operation::CreateChatCompletion).cloned();
    for route in ROUTES {
        let bound = match data_plane.remove(&route.operation) {
            Some(bound) => bound,
            None => control(app, route)?,
        };
        for path in paths(route) {
            router = router.route(&path, bound.clone());
        }
    }
    let console = Console { app: app.clone(), chat };
    for page in PAGES {
        let console = console.clone();
        router = router.route(page.path, on(filter(page.method), move |request| console::open(console.clone(), page, request)));
    }
    let (missing, wrong) = (app.clone(), app.clone());
    Ok(router
        .method_not_allowed_fallback(move |request| refuse(wrong.clone(), request, Wrong::Method))
        .fallback(move |request| refuse(missing.clone(), request, Wrong::Path)))
}

fn control(app: &App, route: &'static Route) -> Result<MethodRouter> {
    let handler = handler::find(route.operation)
        .ok_or_else(|| Error::internal(format!("the operation {} has no handler", route.operation.name())))?;
    let app = app.clone();
    Ok(on(filter(route.method), move |request: Request<Body>| gate::pass(app.clone(), route, handler, request)))
}

const fn filter(method: Method) -> MethodFilter {
    match method {
        Method::Get => MethodFilter::GET,
        Method::Post => MethodFilter::POST,
        Method::Put => MethodFilter::PUT,
        Method::Delete => MethodFilter::DELETE,
    }
}

/// Every path a route is served at: clients configure base URLs with and without `/v1`.
pub fn paths(route: &Route) -> Vec<String> {
    let mut paths = vec![route.path.to_owned()];
    if let (true, Some(rest)) = (route.aliased, route.path.strip_prefix("/v1")) {
        paths.push(rest.to_owned());
        paths.push(format!("/openai{}", route.path));
    }
    paths
}

/// Whether the caller reads errors in Anthropic's shape.
fn is_for_anthropic(request: &Request<Body>) -> bool {
    const BASES: [&str; 3] = ["/v1/messages", "/messages", "/openai/v1/messages"];
    let path = request.uri().path();
    let is_below = |base: &str| path.strip_prefix(base).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    request.headers().contains_key("anthropic-version") || BASES.iter().any(|base| is_below(base))
}

#[derive(Clone, Copy)]
enum Wrong {
    Path,
    Method,
}

async fn refuse(app: App, request: Request<Body>, wrong: Wrong) -> Response<Body> {
    let id: RequestId = app.cloud.ids().mint();
    let shown: String = request.uri().path().chars().take(200).collect();
    let method = request.method();
    let error = match wrong {
        Wrong::Path => Error::new(ErrorCode::UnknownUrl, format!("Invalid URL ({method} {shown})")),
        Wrong::Method => Error::new(ErrorCode::MethodNotAllowed, format!("{shown} does not take {method}")),
    };
    let error = error.alternative("/openapi.json lists every route");
    if is_for_anthropic(&request) { anthropic_error_response(&error, &id) } else { error_response(&error, &id) }
}
