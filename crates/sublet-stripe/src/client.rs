//! Calls of the API: forms out, JSON in, each within a time and a size, and what a failure means.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use sublet_core::payment::PaymentFailure;
use sublet_core::{Error, Result};

/// The version of the API that this was written for.
const API_VERSION: &str = "2026-06-24.dahlia";
/// Largest answer, in bytes.
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How long an unused connection is kept.
const IDLE_MAX: Duration = Duration::from_secs(30);

pub struct Client {
    http: legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    base: String,
    timeout: Duration,
}

/// One call. A POST has a key.
pub struct Call<'a> {
    path: &'a str,
    key: Option<&'a str>,
    fields: &'a [(&'a str, &'a str)],
}

impl<'a> Call<'a> {
    pub const fn get(path: &'a str, fields: &'a [(&'a str, &'a str)]) -> Self {
        Self { path, key: None, fields }
    }
    pub const fn post(path: &'a str, key: &'a str, fields: &'a [(&'a str, &'a str)]) -> Self {
        Self { path, key: Some(key), fields }
    }
}

#[derive(Deserialize)]
struct Failure {
    error: FailureBody,
}

#[derive(Deserialize)]
struct FailureBody {
    #[serde(rename = "type")]
    kind: String,
    code: Option<String>,
    message: Option<String>,
}

impl Client {
    pub fn new(base: &str, timeout: Duration) -> Result<Self> {
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(timeout));
        let https = HttpsConnectorBuilder::new()
            .with_provider_and_webpki_roots(rustls::crypto::ring::default_provider())
            .map_err(|error| Error::internal(format!("TLS to Stripe cannot be set up: {error}")))?
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        let http =
            legacy::Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).pool_idle_timeout(IDLE_MAX).build(https);
        Ok(Self { http, base: base.to_owned(), timeout })
    }

    pub async fn call<T: DeserializeOwned>(&self, api_key: &str, call: Call<'_>) -> Result<T, PaymentFailure> {
        let request = self.request(api_key, &call).map_err(|error| unclear(format!("the call cannot be made: {error}")))?;
        let answer = tokio::time::timeout(self.timeout, self.exchange(request)).await;
        let answer = answer.unwrap_or_else(|_| Err(unclear(format!("no answer within {} s", self.timeout.as_secs()))));
        let (status, body) = answer.map_err(|failure| at(&call, failure))?;
        if !status.is_success() {
            return Err(at(&call, refusal(status, &body)));
        }
        serde_json::from_slice(&body).map_err(|error| at(&call, unclear(format!("the answer cannot be read: {error}"))))
    }

    fn request(&self, api_key: &str, call: &Call<'_>) -> Result<Request<Full<Bytes>>, http::Error> {
        let form = form_urlencoded::Serializer::new(String::new()).extend_pairs(call.fields).finish();
        let mut request = Request::builder()
            .header("authorization", format!("Bearer {api_key}"))
            .header("stripe-version", API_VERSION)
            .header("user-agent", concat!("sublet/", env!("CARGO_PKG_VERSION")));
        let body = match call.key {
            Some(key) => {
                request = request
                    .method(Method::POST)
                    .uri(format!("{}{}", self.base, call.path))
                    .header("idempotency-key", key)
                    .header("content-type", "application/x-www-form-urlencoded");
                form
            }
            None => {
                let query = if form.is_empty() { String::new() } else { format!("?{form}") };
                request = request.method(Method::GET).uri(format!("{}{}{query}", self.base, call.path));
                String::new()
            }
        };
        request.body(Full::new(Bytes::from(body)))
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes), PaymentFailure> {
        let answer = self.http.request(request).await.map_err(|error| unclear(described(&error)))?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| unclear(format!("the answer did not come whole: {error}")))?;
        Ok((status, body.to_bytes()))
    }
}

/// What an answer that is no success means. Stripe keeps what it answered under a key once it began, failures of its own
/// too; refusals before that, and keys that are in use, are not kept.
fn refusal(status: StatusCode, body: &[u8]) -> PaymentFailure {
    let told = serde_json::from_slice::<Failure>(body).ok().map(|failure| failure.error);
    let kind = told.as_ref().map_or("", |error| error.kind.as_str()).to_owned();
    let code = told.as_ref().and_then(|error| error.code.clone()).unwrap_or_default();
    let why = format!("status {status}, {kind} {code}");
    match (status.as_u16(), kind.as_str()) {
        // The same key with other words: what differs was configured meanwhile.
        (_, "idempotency_error") => PaymentFailure::Unclear { why, key_is_used: true },
        // Our own key is wrong, or too many calls: nothing that the customer could do anything about.
        (401 | 403 | 408 | 409 | 425 | 429, _) => PaymentFailure::Unclear { why, key_is_used: false },
        (400..=499, _) => {
            let message = told.and_then(|error| error.message).unwrap_or(why);
            PaymentFailure::Refused(message.chars().filter(|letter| !letter.is_control()).take(200).collect())
        }
        _ => PaymentFailure::Unclear { why, key_is_used: true },
    }
}

fn unclear(why: String) -> PaymentFailure {
    PaymentFailure::Unclear { why, key_is_used: false }
}

/// Says of which call it is.
fn at(call: &Call<'_>, failure: PaymentFailure) -> PaymentFailure {
    match failure {
        PaymentFailure::Unclear { why, key_is_used } => {
            PaymentFailure::Unclear { why: format!("{}: {why}", call.path), key_is_used: key_is_used && call.key.is_some() }
        }
        refused @ PaymentFailure::Refused(_) => refused,
    }
}

/// An error with its causes: the outermost says only that something failed.
fn described(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
