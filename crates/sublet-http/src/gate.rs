//! The gate every call passes: key, plane, size of the body; errors become envelopes behind it.

use std::sync::Mutex;

use axum::body::Body;
use axum::extract::{FromRequestParts, RawPathParams};
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use sublet_api::{Method, Route};
use sublet_cloud::Actor;
use sublet_core::id::RequestId;
use sublet_core::key::Secret;
use sublet_core::{Error, ErrorCode, Result};

use crate::App;
use crate::answer::error_response;
use crate::context::Context;
use crate::handler::Handler;

/// Where a connection comes from; the listener puts it into every request.
#[derive(Clone, Copy, Debug)]
pub struct PeerAddress(pub std::net::SocketAddr);

/// Checks a call, hands it to its handler and maps what comes back.
pub async fn pass(app: App, route: &'static Route, handler: Handler, request: Request<Body>) -> Response<Body> {
    let id: RequestId = app.cloud.ids().mint();
    let outcome = match admit(&app, route, id.clone(), request).await {
        Ok(context) => handler(app, context).await,
        Err(error) => Err(error),
    };
    match outcome {
        Ok(answer) => answer.into_response(&id),
        Err(error) => error_response(&error, &id),
    }
}

async fn admit(app: &App, route: &'static Route, id: RequestId, request: Request<Body>) -> Result<Context> {
    let (mut parts, body) = request.into_parts();
    let actor = match route.plane.key() {
        None => Actor::system(),
        Some(plane) => {
            let actor = authenticate(app, &parts.headers, &address(&parts)).await?;
            if actor.plane != plane {
                return Err(Error::new(
                    ErrorCode::WrongKeyPlane,
                    format!("this route takes keys of the {plane} plane, the one given is of the {} plane", actor.plane),
                )
                .alternative(format!("use a key that starts with {}", plane.prefix())));
            }
            actor
        }
    };
    let params = RawPathParams::from_request_parts(&mut parts, &())
        .await
        .map_err(|error| Error::new(ErrorCode::InvalidRequest, format!("the path cannot be read: {error}")))?;
    let path = params.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let (body, form) = match route.takes_form {
        true => (Bytes::new(), Some(body)),
        false => (read_body(body, route.body_bytes_max).await?, None),
    };
    let query = parts.uri.query().unwrap_or("").to_owned();
    if route.method != Method::Get && route.query.is_none() && !query.is_empty() {
        let name = query.split(['=', '&']).next().unwrap_or_default();
        let message = format!("{} {} takes no query, '{name}' was given", route.method, route.path);
        return Err(Error::new(ErrorCode::InvalidRequest, message)
            .param(name)
            .alternative("put what the call needs into its body"));
    }
    Ok(Context {
        request: id,
        operation: route.operation,
        actor,
        path,
        query,
        headers: parts.headers,
        body,
        form: Mutex::new(form),
    })
}

/// The address of the peer, as audit entries show it.
pub fn address(parts: &http::request::Parts) -> String {
    parts.extensions.get::<PeerAddress>().map_or_else(String::new, |peer| peer.0.ip().to_string())
}

/// The actor behind the key in the headers.
async fn authenticate(app: &App, headers: &HeaderMap, address: &str) -> Result<Actor> {
    app.cloud.authenticate_key(&key_of(headers)?, address).await
}

/// `Authorization: Bearer` or `x-api-key`.
fn key_of(headers: &HeaderMap) -> Result<Secret> {
    let bearer = headers.get(http::header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let text = match bearer.and_then(|value| value.split_once(' ')) {
        Some((scheme, key)) if scheme.eq_ignore_ascii_case("bearer") => Some(key.trim()),
        _ => headers.get("x-api-key").and_then(|value| value.to_str().ok()),
    };
    text.filter(|text| !text.is_empty())
        .ok_or_else(|| {
            Error::new(ErrorCode::MissingApiKey, "no key was given")
                .alternative("send 'Authorization: Bearer sk-…' or 'x-api-key: sk-…'")
        })?
        .parse()
}

/// Reads at most `max` bytes. A route that takes no body reads none.
async fn read_body(body: Body, max: usize) -> Result<Bytes> {
    if max == 0 {
        return Ok(Bytes::new());
    }
    match Limited::new(body, max).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            Err(Error::new(ErrorCode::BodyTooLarge, format!("the body is larger than the {max} bytes this route takes")))
        }
        Err(error) => Err(Error::new(ErrorCode::InvalidRequest, "the body did not arrive whole").context(error.to_string())),
    }
}
