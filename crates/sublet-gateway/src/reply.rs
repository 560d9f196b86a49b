//! What every answer carries: the request id, the speed limits, and on errors the envelope and whether to repeat.

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use sublet_core::id::RequestId;
use sublet_core::tier::ServiceTier;
use sublet_core::{DurationMs, Error, ErrorCode, Money};

use crate::dialect::Envelope;
use crate::limits::RateReport;
use crate::offer::Warning;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// What Anthropic's clients read into their errors.
const ANTHROPIC_REQUEST_ID: HeaderName = HeaderName::from_static("request-id");
const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");
const TIER: HeaderName = HeaderName::from_static("x-sublet-tier");
const COST: HeaderName = HeaderName::from_static("x-sublet-cost");
const REMAINING: HeaderName = HeaderName::from_static("x-sublet-remaining-budget");
/// Clients that honour `Retry-After` ignore longer waits or give up on them, so they are told not to repeat.
const RETRY_WAIT_MAX: DurationMs = DurationMs::from_seconds(60);

/// What is known about a request for its headers.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    pub request: RequestId,
    pub rate: RateReport,
    pub envelope: Envelope,
    /// The tier that serves it, once that is known.
    pub tier: Option<ServiceTier>,
    /// Of the model's end.
    pub warning: Option<Arc<Warning>>,
}

impl Head {
    pub fn new(request: RequestId, envelope: Envelope) -> Self {
        Self { request, rate: RateReport::default(), envelope, tier: None, warning: None }
    }

    pub fn write(&self, headers: &mut HeaderMap) {
        if let Ok(value) = HeaderValue::from_str(self.request.as_str()) {
            if self.envelope == Envelope::Anthropic {
                headers.insert(ANTHROPIC_REQUEST_ID, value.clone());
            }
            headers.insert(REQUEST_ID, value);
        }
        self.rate.write(headers, self.envelope);
        if let Some(tier) = self.tier {
            headers.insert(TIER, HeaderValue::from_static(tier.as_str()));
        }
        if let Some(warning) = &self.warning {
            warning.write(headers);
        }
    }

    /// A JSON answer.
    pub fn json(&self, status: StatusCode, body: Vec<u8>) -> Response {
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        self.write(response.headers_mut());
        response
    }

    /// An error answer; logs it if it is ours.
    pub fn error(&self, error: &Error) -> Response {
        log(&self.request, error);
        let status = StatusCode::from_u16(self.envelope.status(error)).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = self.json(status, self.envelope.body(&self.request, error));
        write_retry(response.headers_mut(), error);
        response
    }
}

/// Errors on our side are logged once, here, with what the caller does not see.
pub(crate) fn log(request: &RequestId, error: &Error) {
    if error.code() == ErrorCode::Internal {
        tracing::error!(%request, ?error, "a request failed on our side");
    } else if error.code().status() >= 500 {
        tracing::warn!(%request, ?error, "a request was not served");
    }
}

fn write_retry(headers: &mut HeaderMap, error: &Error) {
    let wait = error.retry_after_hint();
    if let Some(wait) = wait {
        headers.insert(RETRY_AFTER, HeaderValue::from(wait.seconds_ceil()));
        headers.insert(RETRY_AFTER_MS, HeaderValue::from(wait.millis().max(0)));
    }
    if error.code().is_final() || wait.is_some_and(|wait| wait > RETRY_WAIT_MAX) {
        headers.insert(SHOULD_RETRY, HeaderValue::from_static("false"));
    }
    if error.code().status() == 401 {
        headers.insert(http::header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
}

/// Cost and budget of an answer that is not streamed.
pub(crate) fn write_cost(headers: &mut HeaderMap, cost: Money, remaining: Option<Money>) {
    for (name, money) in [(COST, Some(cost)), (REMAINING, remaining)] {
        if let Some(Ok(value)) = money.map(|money| HeaderValue::from_str(&money.to_string())) {
            headers.insert(name, value);
        }
    }
}
