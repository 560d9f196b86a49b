//! Calls of a store of objects: each signed, within a time and a size, and what a failure says.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use sublet_core::delivery::{Bucket, DeliveryFailure};
use sublet_core::supply::SecretSource;
use sublet_core::{Clock, Error, Result};

use crate::signature::{Signed, Signer, canonical_query};

/// How long a call may take, with all of a part.
const CALL_MAX: Duration = Duration::from_secs(120);
/// How long it may take until there is a connection.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// Largest answer, in bytes: a list of a thousand uploads.
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How long an unused connection is kept.
const IDLE_MAX: Duration = Duration::from_secs(30);

/// A client for calls over HTTPS, or without TLS where an address says so.
pub fn https<R>(mut connector: HttpConnector<R>) -> Result<legacy::Client<HttpsConnector<HttpConnector<R>>, Full<Bytes>>>
where
    HttpConnector<R>: tower::Service<http::Uri>,
    HttpsConnector<HttpConnector<R>>: legacy::connect::Connect + Clone,
{
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(CONNECT_MAX));
    let https = HttpsConnectorBuilder::new()
        .with_provider_and_webpki_roots(rustls::crypto::ring::default_provider())
        .map_err(|error| Error::internal(format!("TLS to where things are delivered cannot be set up: {error}")))?
        .https_or_http()
        .enable_http1()
        .wrap_connector(connector);
    Ok(legacy::Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).pool_idle_timeout(IDLE_MAX).build(https))
}

pub struct Client {
    http: legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    secrets: Arc<dyn SecretSource>,
    clock: Arc<dyn Clock>,
}

/// One call. The key is empty for what the whole bucket is asked.
pub struct Call<'a> {
    pub bucket: &'a Bucket,
    pub method: Method,
    pub key: &'a str,
    pub query: &'a [(&'a str, &'a str)],
    pub body: Bytes,
}

/// What came back of a call that was done.
pub struct Answer {
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Client {
    pub fn new(secrets: Arc<dyn SecretSource>, clock: Arc<dyn Clock>) -> Result<Self> {
        Ok(Self { http: https(HttpConnector::new())?, secrets, clock })
    }

    pub async fn call(&self, call: Call<'_>) -> Result<Answer, DeliveryFailure> {
        let about = format!("{} {}/{}/{}", call.method, call.bucket.endpoint.as_str(), call.bucket.bucket.as_str(), call.key);
        let failure = |why: String| DeliveryFailure(format!("{about}: {why}"));
        let request = self.signed(call).map_err(&failure)?;
        let answer = tokio::time::timeout(CALL_MAX, self.exchange(request)).await;
        answer.unwrap_or_else(|_| Err(format!("no answer within {} s", CALL_MAX.as_secs()))).map_err(failure)
    }

    fn signed(&self, call: Call<'_>) -> Result<Request<Full<Bytes>>, String> {
        let bucket = call.bucket;
        let name = bucket.secret.as_str();
        let secret = self
            .secrets
            .read(&bucket.secret)
            .map_err(|error| format!("the secret '{name}' cannot be read: {}", error.private_context().join("; ")))?;
        let endpoint = Endpoint::of(bucket.endpoint.as_str());
        let key = if call.key.is_empty() { String::new() } else { format!("/{}", call.key) };
        let path = format!("{}/{}{key}", endpoint.path, bucket.bucket.as_str());
        let signer = Signer {
            access_key_id: bucket.access_key_id.as_str(),
            secret: &secret,
            region: bucket.region.as_str(),
            now: self.clock.now(),
        };
        let (method, query) = (call.method.as_str(), call.query);
        let headers = signer.sign(&Signed { method, host: endpoint.host, path: &path, query, body: &call.body });
        let query = if call.query.is_empty() { String::new() } else { format!("?{}", canonical_query(call.query)) };
        Request::builder()
            .method(call.method)
            .uri(format!("{}://{}{path}{query}", endpoint.scheme, endpoint.host))
            .header("host", endpoint.host)
            .header("x-amz-content-sha256", headers.body_sha256)
            .header("x-amz-date", headers.date)
            .header("authorization", headers.authorization)
            .header("user-agent", concat!("sublet/", env!("CARGO_PKG_VERSION")))
            .body(Full::new(call.body))
            .map_err(|error| format!("the call cannot be made: {error}"))
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<Answer, String> {
        let answer = self.http.request(request).await.map_err(|error| described(&error))?;
        let (parts, body) = answer.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| format!("the answer did not come whole: {error}"))?.to_bytes();
        if parts.status.is_success() {
            return Ok(Answer { headers: parts.headers, body });
        }
        Err(format!("status {}{}", parts.status.as_u16(), told(&body)))
    }
}

/// The code and the words of an error, as far as an answer has them.
pub fn told(body: &[u8]) -> String {
    let (code, message) = (crate::s3::text_of(body, "Code"), crate::s3::text_of(body, "Message"));
    let words: Vec<String> = [code, message].into_iter().flatten().collect();
    if words.is_empty() { String::new() } else { format!(", {}", words.join(": ")) }
}

/// The parts of where a store is.
struct Endpoint<'a> {
    scheme: &'a str,
    host: &'a str,
    /// Without a slash at its end; mostly empty.
    path: &'a str,
}

impl<'a> Endpoint<'a> {
    fn of(url: &'a str) -> Self {
        let (scheme, rest) = url.split_once("://").unwrap_or(("https", url));
        let (host, path) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
        // The scheme's own port is not part of the name by which a store knows itself.
        let usual = if scheme == "https" { ":443" } else { ":80" };
        Self { scheme, host: host.strip_suffix(usual).unwrap_or(host), path }
    }
}

/// An error with its causes: the outermost says only that something failed.
pub fn described(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_named_without_the_usual_port_of_its_scheme() {
        for (url, expected) in [
            ("https://s3.eu-central-1.amazonaws.com", ("https", "s3.eu-central-1.amazonaws.com", "")),
            ("https://store.example:443/s3", ("https", "store.example", "/s3")),
            ("http://store.example:443", ("http", "store.example:443", "")),
            ("http://127.0.0.1:80", ("http", "127.0.0.1", "")),
            ("http://127.0.0.1:8080", ("http", "127.0.0.1:8080", "")),
        ] {
            let endpoint = Endpoint::of(url);
            assert_eq!((endpoint.scheme, endpoint.host, endpoint.path), expected);
        }
    }
}
