//! What a handler is given: who calls, with what.

use std::sync::Mutex;

use axum::body::Body;
use bytes::Bytes;
use http::HeaderMap;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sublet_api::Operation;
use sublet_api::list;
use sublet_cloud::Actor;
use sublet_cloud::data::Order;
use sublet_cloud::data::{Page, PageRequest};
use sublet_cloud::idempotency::{Answer as Once, Call};
use sublet_core::id::RequestId;
use sublet_core::{Error, ErrorCode, Result};

use crate::answer::{Answer, text_of};

/// One call that passed the gate.
pub struct Context {
    pub request: RequestId,
    pub operation: Operation,
    /// The system's actor on public routes, which can reach nothing by it: their handlers do not look.
    pub actor: Actor,
    /// Path parameters in the order of the path.
    pub path: Vec<(String, String)>,
    pub query: String,
    pub headers: HeaderMap,
    /// Empty where the route takes a form.
    pub body: Bytes,
    /// The unread body of a route that takes a form, for its handler to take. Bodies alone cannot be shared.
    pub form: Mutex<Option<Body>>,
}

impl Context {
    /// The body as one of our request objects.
    pub fn body<T: DeserializeOwned>(&self) -> Result<T> {
        sublet_api::parse_body(&self.body)
    }
    pub fn query<T: DeserializeOwned>(&self) -> Result<T> {
        sublet_api::parse_query(&self.query)
    }
    /// A path parameter, parsed. An id that cannot exist is reported as not found.
    pub fn path<T>(&self, name: &str) -> Result<T>
    where
        T: std::str::FromStr<Err = Error>,
    {
        let text = self.path_text(name)?;
        text.parse().map_err(|error: Error| match error.code() {
            ErrorCode::InvalidId => Error::new(ErrorCode::NotFound, format!("there is no such object: {error}")),
            _ => error,
        })
    }
    pub fn path_text(&self, name: &str) -> Result<&str> {
        self.path
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
            .ok_or_else(|| Error::internal(format!("{} has no path parameter {name}", self.operation.name())))
    }
    /// The generation that the caller insists on, if it does.
    pub fn generation(&self) -> Result<Option<i64>> {
        let Some(value) = self.headers.get(http::header::IF_MATCH) else { return Ok(None) };
        let text = value.to_str().unwrap_or("").trim_matches('"');
        let invalid = |_| Error::new(ErrorCode::InvalidRequest, "If-Match carries the generation of what is changed");
        text.parse::<i64>().map(Some).map_err(invalid)
    }
    /// The call with its Idempotency-Key, if one was given.
    pub fn call(&self) -> Result<Call> {
        let path: Vec<&str> = self.path.iter().map(|(_, value)| value.as_str()).collect();
        self.call_for(&format!("{}\n{}\n{}", path.join("/"), self.query, String::from_utf8_lossy(&self.body)))
    }
    /// The same for a request whose body was read as a form; `request` says everything that a repeat must have too.
    pub fn call_for(&self, request: &str) -> Result<Call> {
        let Some(key) = self.headers.get("idempotency-key") else { return Ok(Call::once(self.actor.clone())) };
        let key = key.to_str().map_err(|_| Error::new(ErrorCode::InvalidRequest, "an Idempotency-Key is printable ASCII"))?;
        Call::under_key(self.actor.clone(), self.operation.name(), key, request)
    }
}

/// The answer of a call that may be a repeat: the stored text, or the new object's.
pub fn once<T, W: Serialize>(outcome: Once<T>, wire: impl Fn(&T) -> W) -> Result<Answer> {
    match outcome {
        Once::New(value) => text_of(&wire(&value)).map(Answer::Json),
        Once::Replayed(text) => Ok(Answer::Json(text)),
    }
}

/// A page as the store wants it. Paging backwards is reading the other order from `before`.
pub fn page_request(page: &list::PageRequest) -> Result<PageRequest> {
    let limit = Some(i64::from(page.limit.get()));
    let (order, reversed) = match page.order {
        list::Order::Asc => (Order::Ascending, Order::Descending),
        list::Order::Desc => (Order::Descending, Order::Ascending),
    };
    match (&page.after, &page.before) {
        (Some(_), Some(_)) => Err(Error::new(ErrorCode::InvalidRequest, "give after or before, not both").param("before")),
        (None, Some(before)) => Ok(PageRequest { limit, after: Some(before.0.clone()), order: reversed }),
        (after, None) => Ok(PageRequest { limit, after: after.as_ref().map(|cursor| cursor.0.clone()), order }),
    }
}

/// A page of wire objects, in the order that was asked for.
pub fn page_answer<T, W: Serialize>(
    asked: &list::PageRequest,
    page: Page<T>,
    wire: impl Fn(T) -> W,
    cursor: impl Fn(&W) -> String,
) -> Result<Answer> {
    let mut items: Vec<W> = page.items.into_iter().map(wire).collect();
    if asked.before.is_some() {
        items.reverse();
    }
    crate::answer::json(&list::List::page(items, page.has_more, cursor))
}
