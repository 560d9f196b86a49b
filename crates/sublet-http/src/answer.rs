//! Answers: JSON, text or a stream, and errors in the envelope with the headers clients act on.

use axum::body::Body;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use serde::Serialize;
use sublet_api::ErrorBody;
use sublet_api::messages::{MessageError, status_and_type};
use sublet_core::id::RequestId;
use sublet_core::{Error, Result};

/// What a handler gives back.
pub enum Answer {
    /// Serialized already, so that a stored answer and a new one are the same bytes.
    Json(String),
    /// JSON with a status that is not 200.
    JsonWithStatus(StatusCode, String),
    Text(String),
    Html(String),
    /// Sent while it is made.
    Stream(Body),
    /// A whole response, for pages that redirect or set cookies.
    Raw(Response<Body>),
}

/// Serializes a wire object.
pub fn json<T: Serialize>(value: &T) -> Result<Answer> {
    text_of(value).map(Answer::Json)
}

/// The JSON text of a wire object.
pub fn text_of<T: Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|error| Error::internal(format!("cannot encode an answer: {error}")))
}

impl Answer {
    pub(crate) fn into_response(self, request: &RequestId) -> Response<Body> {
        let (status, kind, body) = match self {
            Self::Json(text) => (StatusCode::OK, "application/json", Body::from(text)),
            Self::JsonWithStatus(status, text) => (status, "application/json", Body::from(text)),
            Self::Text(text) => (StatusCode::OK, "text/plain; charset=utf-8", Body::from(text)),
            Self::Html(text) => (StatusCode::OK, "text/html; charset=utf-8", Body::from(text)),
            Self::Stream(body) => (StatusCode::OK, "text/plain; charset=utf-8", body),
            Self::Raw(mut response) => {
                set(response.headers_mut(), "x-request-id", request.as_str());
                return response;
            }
        };
        let mut response = Response::new(body);
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        set(headers, "x-request-id", request.as_str());
        response
    }
}

/// The error envelope with its status and retry hints. Server errors are logged here, once.
pub fn error_response(error: &Error, request: &RequestId) -> Response<Body> {
    let code = error.code();
    if code.status() >= 500 {
        tracing::error!(%request, ?error, "request failed");
    } else {
        tracing::debug!(%request, ?error, "request refused");
    }
    let body = text_of(&ErrorBody::new(error, Some(request))).unwrap_or_default();
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::from_u16(code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    set(headers, "x-request-id", request.as_str());
    if let Some(after) = error.retry_after_hint() {
        headers.insert(RETRY_AFTER, HeaderValue::from(after.seconds_ceil()));
        set(headers, "retry-after-ms", &after.millis().max(0).to_string());
    }
    if code.is_final() {
        headers.insert("x-should-retry", HeaderValue::from_static("false"));
    }
    response
}

/// The same in Anthropic's shape.
pub fn anthropic_error_response(error: &Error, request: &RequestId) -> Response<Body> {
    let mut response = error_response(error, request);
    *response.body_mut() = Body::from(text_of(&MessageError::new(error, Some(request))).unwrap_or_default());
    let (status, _) = status_and_type(error.code());
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    set(response.headers_mut(), "request-id", request.as_str());
    response
}

fn set(headers: &mut http::HeaderMap, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}
