//! Posts events to customers' webhooks, signed as Standard Webhooks has it.
//!
//! The headers `webhook-id`, `webhook-timestamp` and `webhook-signature`: the last is `v1,` and, in Base64, HMAC-SHA256
//! over id, second and body with points between. The second is that of this attempt, so a copy is worth nothing later.
//!
//! Invariants: nothing is posted to an address that is not public unless the operator allows it, whatever a name stands
//! for at that moment; redirects are not followed; of an answer only the status is read.
//!
//! <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use ring::hmac;
use sublet_core::webhook::{SECRET_PREFIX, WebhookCall, WebhookFailure, WebhookPort, is_public};
use sublet_core::{BoxFuture, Clock, Result};
use tower::Service;

use crate::client::{described, https};

/// How long one attempt may take.
const CALL_MAX: Duration = Duration::from_secs(15);

type Connector = HttpsConnector<HttpConnector<Guarded>>;

/// Posts events.
pub struct Webhooks {
    http: legacy::Client<Connector, Full<Bytes>>,
    clock: Arc<dyn Clock>,
    goes_anywhere: bool,
}

impl Webhooks {
    /// `clock` has the real time, which whoever gets an event compares with theirs.
    pub fn new(clock: Arc<dyn Clock>, goes_anywhere: bool) -> Result<Self> {
        let resolver = Guarded { names: GaiResolver::new(), goes_anywhere };
        Ok(Self { http: https(HttpConnector::new_with_resolver(resolver))?, clock, goes_anywhere })
    }

    async fn try_post(&self, call: &WebhookCall) -> Result<u16, WebhookFailure> {
        let unclear = |why: String| WebhookFailure::Unclear(format!("{}: {why}", call.url.host()));
        // A name is looked up and checked by the connector; an address is not.
        if !self.goes_anywhere && (call.url.is_plain() || call.url.address().is_some_and(|address| !is_public(address))) {
            return Err(unclear("it is not on the public internet, or goes without TLS".to_owned()));
        }
        let request = self.request(call).map_err(unclear)?;
        let answer = tokio::time::timeout(CALL_MAX, self.http.request(request)).await;
        let answer = answer.map_err(|_| unclear(format!("no answer within {} s", CALL_MAX.as_secs())))?;
        let status = answer.map_err(|error| unclear(described(&error)))?.status();
        match status.as_u16() {
            410 => Err(WebhookFailure::Gone),
            code if status.is_success() => Ok(code),
            code => Err(unclear(format!("status {code}"))),
        }
    }

    fn request(&self, call: &WebhookCall) -> Result<Request<Full<Bytes>>, String> {
        let second = self.clock.now().millis().div_euclid(1_000);
        let signature = signature((call.id.as_str(), second, &call.body), call.secret.reveal()).ok_or("its secret is not one")?;
        Request::builder()
            .method(Method::POST)
            .uri(call.url.as_str())
            .header("content-type", "application/json")
            .header("webhook-id", call.id.as_str())
            .header("webhook-timestamp", second)
            .header("webhook-signature", signature)
            .header("user-agent", concat!("sublet/", env!("CARGO_PKG_VERSION")))
            .body(Full::new(Bytes::from(call.body.clone())))
            .map_err(|error| format!("the call cannot be made: {error}"))
    }
}

impl WebhookPort for Webhooks {
    fn post<'a>(&'a self, call: &'a WebhookCall) -> BoxFuture<'a, Result<u16, WebhookFailure>> {
        Box::pin(self.try_post(call))
    }
    fn goes_anywhere(&self) -> bool {
        self.goes_anywhere
    }
}

/// Of an id, a second and a body; `None` if the secret is not one.
fn signature((id, second, body): (&str, i64, &str), secret: &str) -> Option<String> {
    let secret = STANDARD.decode(secret.strip_prefix(SECRET_PREFIX)?).ok()?;
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &secret), format!("{id}.{second}.{body}").as_bytes());
    Some(format!("v1,{}", STANDARD.encode(tag.as_ref())))
}

/// Looks names up, and hides every address that is not public.
#[derive(Clone)]
struct Guarded {
    names: GaiResolver,
    goes_anywhere: bool,
}

type Found = std::vec::IntoIter<SocketAddr>;

impl Service<Name> for Guarded {
    type Response = Found;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Found>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.names.poll_ready(context)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let (found, goes_anywhere) = (self.names.call(name), self.goes_anywhere);
        Box::pin(async move {
            let found = found.await;
            if goes_anywhere {
                return found.map(|found| found.collect::<Vec<_>>().into_iter());
            }
            // Whether a name is known that stands for something inside is told to nobody.
            let public: Vec<SocketAddr> = found.into_iter().flatten().filter(|address| is_public(address.ip())).collect();
            if public.is_empty() {
                return Err(io::Error::other("its name stands for no address on the public internet"));
            }
            Ok(public.into_iter())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[test]
    fn the_signature_is_that_of_other_implementations() {
        let event = ("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, r#"{"test": 2432232314}"#);
        let signed = signature(event, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        assert_eq!(signed.as_deref(), Some("v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="));
        for secret in ["MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_*", ""] {
            assert_eq!(signature(event, secret), None);
        }
    }

    #[tokio::test]
    async fn names_that_stand_for_addresses_inside_are_not_found() {
        let looked_up = async |goes_anywhere, name: &str| {
            let mut guarded = Guarded { names: GaiResolver::new(), goes_anywhere };
            guarded.call(name.parse().unwrap()).await.map(Iterator::count)
        };
        // Decimal and short forms are names to a parser and addresses to a resolver.
        for name in ["localhost", "2130706433", "127.1"] {
            assert!(looked_up(false, name).await.is_err(), "{name}");
        }
        let [inside, unknown] = [looked_up(false, "localhost").await, looked_up(false, "nowhere.invalid").await];
        assert_eq!(inside.unwrap_err().to_string(), unknown.unwrap_err().to_string());
        assert!(looked_up(true, "localhost").await.unwrap() > 0);
    }
}
