//! HTTP to replicas: one pool of connections for all of them.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use sublet_core::{Error, Result};

/// How long a connection may take to open.
const CONNECT_WAIT: Duration = Duration::from_secs(5);
/// How long an unused connection is kept: less than the five seconds after which uvicorn, which vLLM is served by,
/// closes its own.
const IDLE_MAX: Duration = Duration::from_secs(4);
/// How often a connection in use is looked at.
const KEEPALIVE: Duration = Duration::from_secs(55);
/// Unused connections kept to one replica.
const IDLE_CONNECTIONS_MAX: usize = 1_024;

#[derive(Clone)]
pub(crate) struct Client(legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>);

impl Client {
    pub fn new() -> Result<Self> {
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        // Otherwise every small request waits for an acknowledgement.
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT_WAIT));
        connector.set_keepalive(Some(KEEPALIVE));
        let provider = rustls::crypto::ring::default_provider();
        let https = HttpsConnectorBuilder::new()
            .with_provider_and_webpki_roots(provider)
            .map_err(|error| Error::internal(format!("TLS to replicas cannot be set up: {error}")))?
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        let client = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_MAX)
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .build(https);
        Ok(Self(client))
    }

    pub async fn send(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, String> {
        self.0.request(request).await.map_err(|error| describe(&error))
    }
}

/// An error with its causes: the outermost says only that something failed.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
