//! A blocking client of the API: the route table drives it, errors come back as they left.
//!
//! A call names an [`Operation`]; the table says method, path and which of the caller's keys to
//! send. Deliberately absent: retries (a caller that repeats needs the same `Idempotency-Key`,
//! so it decides), proxies and environment variables.

mod dunning;
mod events;
mod export_schedule;
mod form;
mod mail;
mod methods;
mod operator_methods;
mod payments;
mod webhook;

use std::io::Read;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use sublet_core::DurationMs;
use sublet_core::error::{Error, ErrorCode, Result};
use sublet_core::key::KeyPlane;
use ureq::http;

use crate::error::{ErrorBody, code_for_status};
use crate::key::SecretText;
use crate::route::{Operation, Route};

pub use events::Chunks;
pub use form::FileUpload;
pub use methods::{KeyPath, LimitPath};

/// Longest time to reach the server.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest time from sending a request to the head of its answer.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(120);
/// Longest time for the body of an answer that is not streamed.
const BODY_TIMEOUT: Duration = Duration::from_secs(120);
/// Longer forms are sent only once the server has asked for them.
const ASKED_FIRST_BYTES: u64 = 1024 * 1024;
/// Largest answer that is read whole, in bytes.
const BODY_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// How much of an answer that is not ours is shown, in characters.
const SHOWN_CHARS_MAX: usize = 200;

/// The keys a caller holds, by plane.
#[derive(Clone, Default, Debug)]
pub struct Keys {
    pub project: Option<SecretText>,
    pub admin: Option<SecretText>,
    pub operator: Option<SecretText>,
}

impl Keys {
    fn of(&self, plane: KeyPlane) -> Option<&SecretText> {
        match plane {
            KeyPlane::Project => self.project.as_ref(),
            KeyPlane::Admin => self.admin.as_ref(),
            KeyPlane::Operator => self.operator.as_ref(),
        }
    }
}

/// The text of an `Idempotency-Key`: 1 to 255 visible ASCII characters.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IdempotencyKey(pub String);

/// Talks to one cloud.
#[derive(Clone, Debug)]
pub struct Client {
    agent: ureq::Agent,
    base: String,
    keys: Keys,
}

/// One call while it is put together.
#[derive(Debug)]
pub struct Call<'c> {
    client: &'c Client,
    route: &'static Route,
    path: String,
    query: String,
    body: Payload,
    idempotency_key: Option<IdempotencyKey>,
    failed: Option<Error>,
}

/// What a call sends.
#[derive(Debug)]
enum Payload {
    Nothing,
    Json(Vec<u8>),
    Form(form::Form),
}

impl Client {
    /// `url` is the cloud's address, with or without `/v1` at its end.
    pub fn new(url: &str, keys: Keys) -> Result<Self> {
        let trimmed = url.trim_end_matches('/');
        let base = trimmed.strip_suffix("/v1").unwrap_or(trimmed).to_owned();
        if !(base.starts_with("http://") || base.starts_with("https://")) {
            return Err(Error::new(ErrorCode::Usage, format!("'{url}' is not an address; write http://HOST:PORT or https://HOST")));
        }
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .user_agent(concat!("sublet/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_recv_response(Some(RESPONSE_TIMEOUT))
            .build();
        Ok(Self { agent: config.new_agent(), base, keys })
    }

    /// The cloud's address without `/v1`.
    pub fn holds_key(&self, plane: KeyPlane) -> bool {
        self.keys.of(plane).is_some()
    }
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Begins a call; `path` fills the route's parameters in order.
    pub fn call(&self, operation: Operation, path: &[&str]) -> Call<'_> {
        let route = operation.route();
        Call {
            client: self,
            route,
            path: fill(route.path, path),
            query: String::new(),
            body: Payload::Nothing,
            idempotency_key: None,
            failed: None,
        }
    }
}

impl Call<'_> {
    /// Adds the query.
    #[must_use]
    pub fn query<Q: Serialize>(mut self, query: &Q) -> Self {
        match serde_urlencoded::to_string(query) {
            Ok(text) => self.query = text,
            Err(error) => self.failed = Some(Error::internal(format!("a query did not serialize: {error}"))),
        }
        self
    }
    /// Adds the body.
    #[must_use]
    pub fn body<B: Serialize>(mut self, body: &B) -> Self {
        match serde_json::to_vec(body) {
            Ok(bytes) => self.body = Payload::Json(bytes),
            Err(error) => self.failed = Some(Error::internal(format!("a body did not serialize: {error}"))),
        }
        self
    }
    /// Sends a file as a form. A repeat under the same key is safe.
    #[must_use]
    pub fn file(mut self, file: FileUpload, key: &IdempotencyKey) -> Self {
        self.body = Payload::Form(form::Form::new(file, key));
        self.idempotency_key(key)
    }
    /// Makes a repeat of the call safe.
    #[must_use]
    pub fn idempotency_key(mut self, key: &IdempotencyKey) -> Self {
        self.idempotency_key = Some(key.clone());
        self
    }

    /// Makes the call and reads one object.
    pub fn json<T: DeserializeOwned>(self) -> Result<T> {
        let base = self.client.base.clone();
        let text = self.text()?;
        serde_json::from_str(&text).map_err(|error| {
            Error::new(ErrorCode::Internal, format!("the answer of {base} is not what this version of sublet expects"))
                .context(error.to_string())
        })
    }

    /// Makes the call and reads text.
    pub fn text(self) -> Result<String> {
        let client = self.client;
        let mut answer = self.send(Some(BODY_TIMEOUT))?;
        answer.body_mut().with_config().limit(BODY_BYTES_MAX).read_to_string().map_err(|error| client.unreachable(&error))
    }

    /// Makes the call and hands over the body as it arrives.
    pub fn stream(self) -> Result<Box<dyn Read + Send>> {
        let answer = self.send(None)?;
        Ok(Box::new(answer.into_body().into_reader()))
    }

    fn send(self, body_timeout: Option<Duration>) -> Result<http::Response<ureq::Body>> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let client = self.client;
        let separator = if self.query.is_empty() { "" } else { "?" };
        let url = format!("{}{}{separator}{}", client.base, self.path, self.query);
        let mut request = http::Request::builder().method(self.route.method.as_str()).uri(url);
        if let Some(plane) = self.route.plane.key() {
            let key = client.keys.of(plane).ok_or_else(|| missing_key(plane))?;
            request = request.header("authorization", format!("Bearer {}", key.reveal()));
        }
        if let Some(key) = &self.idempotency_key {
            request = request.header("idempotency-key", key.0.as_str());
        }
        let answer = match self.body {
            Payload::Json(bytes) => client.run(request.header("content-type", "application/json").body(bytes), body_timeout),
            Payload::Form(form) => {
                let request = request.header("content-type", form.content_type).header("content-length", form.bytes);
                // A server that refuses what is announced says so before it is sent.
                let request = if form.bytes > ASKED_FIRST_BYTES { request.header("expect", "100-continue") } else { request };
                client.run(request.body(ureq::SendBody::from_owned_reader(form.reader)), body_timeout)
            }
            Payload::Nothing => client.run(request.body(()), body_timeout),
        }?;
        // "Not ready" is a refusal to load balancers and an answer to whoever asks.
        let unready = self.route.operation == Operation::GetReadiness && answer.status() == 503;
        if unready || answer.status().is_success() { Ok(answer) } else { Err(refusal(answer)) }
    }
}

impl Client {
    fn run<B: ureq::AsSendBody>(
        &self,
        request: http::Result<http::Request<B>>,
        body_timeout: Option<Duration>,
    ) -> Result<http::Response<ureq::Body>> {
        let request = request.map_err(|error| {
            Error::new(ErrorCode::Usage, format!("the request could not be written: {error}"))
                .alternative("check the address, the key and the id for characters that do not belong there")
        })?;
        let request = self.agent.configure_request(request).timeout_recv_body(body_timeout).build();
        self.agent.run(request).map_err(|error| self.unreachable(&error))
    }

    fn unreachable(&self, error: &dyn std::fmt::Display) -> Error {
        Error::new(ErrorCode::Unreachable, format!("{} did not answer: {error}", self.base))
            .alternative("start a cloud with 'sublet up', or name another one with --url")
    }
}

fn missing_key(plane: KeyPlane) -> Error {
    Error::new(ErrorCode::MissingApiKey, format!("this needs a key of the {plane} plane"))
        .alternative(format!("give a key that starts with {}", plane.prefix()))
        .alternative("run it where the data directory with credentials.json is, or name that with --data-dir")
}

/// Makes the error out of an answer that is one.
fn refusal(mut answer: http::Response<ureq::Body>) -> Error {
    let status = answer.status().as_u16();
    let retry_after = answer.headers().get("retry-after").and_then(|value| value.to_str().ok()).and_then(|text| text.parse().ok());
    let text = answer.body_mut().with_config().limit(BODY_BYTES_MAX).read_to_string().unwrap_or_default();
    let error = match serde_json::from_str::<ErrorBody>(&text) {
        Ok(body) => body.into_error(status),
        Err(_) => {
            let shown: String = text.chars().take(SHOWN_CHARS_MAX).collect();
            Error::new(code_for_status(status), format!("the server answered {status}: {shown}"))
        }
    };
    match retry_after {
        Some(seconds) => error.retry_after(DurationMs::from_seconds(seconds)),
        None => error,
    }
}

/// Fills `{name}` with values in order, percent-encoded; `{*name}` keeps its slashes.
fn fill(template: &str, values: &[&str]) -> String {
    let mut values = values.iter();
    let mut path = String::new();
    for part in template.split('/').skip(1) {
        path.push('/');
        match part.strip_prefix('{') {
            None => path.push_str(part),
            Some(name) => encode(values.next().copied().unwrap_or(""), name.starts_with('*'), &mut path),
        }
    }
    path
}

fn encode(value: &str, keep_slashes: bool, path: &mut String) {
    for byte in value.bytes() {
        let plain = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || (keep_slashes && byte == b'/');
        if plain {
            path.push(char::from(byte));
        } else {
            path.push_str(&format!("%{byte:02X}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_values_are_encoded_so_that_they_stay_inside_their_segment() {
        assert_eq!(fill("/v1/jobs/{id}/logs", &["job_1/../x?y"]), "/v1/jobs/job_1%2F..%2Fx%3Fy/logs");
        assert_eq!(fill("/v1/models/{*id}", &["a/b c"]), "/v1/models/a/b%20c");
    }

    #[test]
    fn an_address_may_end_in_v1() {
        let client = Client::new("http://127.0.0.1:1/v1/", Keys::default()).unwrap();
        assert_eq!(client.base(), "http://127.0.0.1:1");
        assert_eq!(Client::new("127.0.0.1:1", Keys::default()).unwrap_err().code(), ErrorCode::Usage);
    }

    #[test]
    fn a_call_without_the_plane_s_key_is_not_sent() {
        let client = Client::new("http://127.0.0.1:1", Keys::default()).unwrap();
        assert_eq!(client.call(Operation::ListJobs, &[]).text().unwrap_err().code(), ErrorCode::MissingApiKey);
    }
}
