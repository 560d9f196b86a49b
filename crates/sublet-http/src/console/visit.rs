//! One visit: who is at the door, and what they brought.

use axum::body::Body;
use axum::extract::{FromRequestParts, RawPathParams};
use bytes::Bytes;
use http::header::{COOKIE, HOST, ORIGIN};
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use sublet_api::Method;
use sublet_cloud::Actor;
use sublet_core::id::RequestId;
use sublet_core::{Error, ErrorCode, Result};

use super::pages::{Door, Page};
use super::{Console, shell};
use crate::gate;

/// The session's cookie.
pub const SESSION_COOKIE: &str = "sublet_session";
/// Largest form, in bytes: a playground's conversation fits.
const FORM_BYTES_MAX: usize = 512 * 1024;

/// A request to the console before anybody is known.
pub struct Guest {
    pub request: RequestId,
    /// Where the connection comes from, for the audit log.
    pub address: String,
    pub url: String,
    pub headers: HeaderMap,
    path: Vec<(String, String)>,
    query: String,
    body: Bytes,
}

/// A request with a session.
pub struct Visit {
    pub actor: Actor,
    pub guest: Guest,
}

impl Guest {
    /// The query as a form.
    pub fn query<T: DeserializeOwned>(&self) -> Result<T> {
        sublet_api::parse_query(&self.query)
    }
    /// The body as a form.
    pub fn form<T: DeserializeOwned>(&self) -> Result<T> {
        let text = std::str::from_utf8(&self.body)
            .map_err(|_| Error::new(ErrorCode::InvalidRequest, "a form is sent as application/x-www-form-urlencoded"))?;
        sublet_api::parse_query(text)
    }
    /// A part of the path, parsed. What cannot exist is reported as not found.
    pub fn path<T: std::str::FromStr<Err = Error>>(&self, name: &str) -> Result<T> {
        self.path_text(name)?.parse().map_err(|error: Error| match error.code() {
            ErrorCode::InvalidId => Error::new(ErrorCode::NotFound, "there is no such thing, or it is not yours to see"),
            _ => error,
        })
    }
    pub fn path_text(&self, name: &str) -> Result<&str> {
        let found = self.path.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str()).ok_or_else(|| Error::internal(format!("the page's path has no {name}")))
    }
    /// The session's secret, if the browser sent one.
    pub fn session(&self) -> Option<&str> {
        let cookies = self.headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
        cookies
            .flat_map(|line| line.split(';'))
            .filter_map(|pair| pair.trim().split_once('='))
            .find(|(name, _)| *name == SESSION_COOKIE)
            .map(|(_, value)| value)
    }
    /// Where programs reach the API that this page was reached at.
    pub fn base_url(&self) -> String {
        let text = |name: &str| self.headers.get(name).and_then(|value| value.to_str().ok());
        let scheme = if text("x-forwarded-proto") == Some("https") { "https" } else { "http" };
        format!("{scheme}://{}/v1", text("host").unwrap_or("localhost"))
    }
    /// The page wants to read events instead of a page.
    pub fn wants_events(&self) -> bool {
        self.headers.get(http::header::ACCEPT).is_some_and(|value| value.as_bytes() == b"text/event-stream")
    }
}

/// Lets a request in, or sends it to the login page.
pub async fn open(console: Console, page: &'static Page, request: Request<Body>) -> Response<Body> {
    let id: RequestId = console.app.cloud.ids().mint();
    match enter(&console, page, id.clone(), request).await {
        Ok(response) => response,
        Err((actor, error)) => shell::error_page(&console, actor.as_ref(), &error, &id).await,
    }
}

type Refusal = (Option<Actor>, Error);

async fn enter(console: &Console, page: &Page, id: RequestId, request: Request<Body>) -> Result<Response<Body>, Refusal> {
    let guest = read(page, id, request).await.map_err(|error| (None, error))?;
    match page.door {
        Door::Open(handler) => handler(console.clone(), guest).await.map_err(|error| (None, error)),
        Door::Planes(planes, handler) => {
            let actor = match resume(console, &guest).await {
                Ok(actor) => actor,
                // A page leads to the login and back; a form is refused.
                Err(error) if error.code() == ErrorCode::InvalidApiKey && page.method == Method::Get => {
                    return Ok(shell::redirect(&super::login::address_for(&guest.url)));
                }
                Err(error) => return Err((None, error)),
            };
            if !planes.contains(&actor.plane) {
                return Err((Some(actor.clone()), wrong_plane(planes, &actor)));
            }
            handler(console.clone(), Visit { actor: actor.clone(), guest }).await.map_err(|error| (Some(actor), error))
        }
    }
}

async fn read(page: &Page, id: RequestId, request: Request<Body>) -> Result<Guest> {
    let (mut parts, body) = request.into_parts();
    if page.method != Method::Get {
        check_origin(&parts.headers)?;
    }
    let params = RawPathParams::from_request_parts(&mut parts, &())
        .await
        .map_err(|error| Error::new(ErrorCode::InvalidRequest, format!("the path cannot be read: {error}")))?;
    let path = params.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let body = match Limited::new(body, FORM_BYTES_MAX).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => {
            return Err(Error::new(ErrorCode::BodyTooLarge, format!("a form has at most {FORM_BYTES_MAX} bytes")));
        }
        Err(error) => return Err(Error::new(ErrorCode::InvalidRequest, "the form ended early").context(error.to_string())),
    };
    Ok(Guest {
        request: id,
        address: gate::address(&parts),
        url: parts.uri.path_and_query().map_or_else(|| "/console".to_owned(), ToString::to_string),
        query: parts.uri.query().unwrap_or("").to_owned(),
        headers: parts.headers,
        path,
        body,
    })
}

/// A form counts only if one of our own pages sent it: the browser says where it came from.
fn check_origin(headers: &HeaderMap) -> Result<()> {
    let text = |name: &http::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let own = match text(&ORIGIN) {
        Some(origin) => origin.split_once("://").is_some_and(|(_, authority)| text(&HOST) == Some(authority)),
        None => headers.get("sec-fetch-site").is_some_and(|site| site.as_bytes() == b"same-origin"),
    };
    if own {
        return Ok(());
    }
    Err(Error::new(ErrorCode::PermissionDenied, "this form was not sent by a page of this console")
        .alternative("open the page again and send the form from there"))
}

async fn resume(console: &Console, guest: &Guest) -> Result<Actor> {
    let token = guest.session().ok_or_else(|| Error::new(ErrorCode::InvalidApiKey, "nobody is signed in"))?;
    console.app.cloud.resume_session(token, &guest.address).await
}

fn wrong_plane(planes: &[sublet_core::key::KeyPlane], actor: &Actor) -> Error {
    let wanted: Vec<&str> = planes.iter().map(|plane| plane.as_str()).collect();
    let wanted = wanted.join(" or ");
    Error::new(
        ErrorCode::WrongKeyPlane,
        format!("this page is for {wanted} keys, and you signed in with one of the {} plane", actor.plane),
    )
    .alternative(format!("sign out, and sign in with a key of the {wanted} plane"))
}
