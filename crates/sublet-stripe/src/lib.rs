//! Payments by Stripe: the port to its API, and its webhooks.
//!
//! A customer pays on a page of Stripe (a Checkout Session); cards never come here. Every POST has an `Idempotency-Key`
//! and the version of the API that this was written for; what a session or refund is for is in its metadata, so that
//! it is found again whatever was lost. Amounts are in Stripe's minor units, which are not ISO's for every currency.
//!
//! Invariants: an answer that did not come, or that says nothing of what was done, is unclear and never a refusal; the
//! API's key and the webhook's secret are read from their files when they are needed, and are in no message.
//!
//! Deliberately absent: subscriptions, Connect, saved payment methods other than cards.
#![deny(clippy::float_arithmetic)]

mod amount;
mod card;
mod client;
mod notice;
mod object;
mod payout;

use std::sync::Arc;
use std::time::Duration;

use sublet_core::payment::{Checkout, CheckoutAsk, Notice, PaymentFailure, PaymentPort, PaymentProgress, RefundAsk, SeenRefund};
use sublet_core::supply::{BaseUrl, SecretName, SecretSource};
use sublet_core::{BoxFuture, Currency, Error, Nanos, Result, Timestamp};

use client::{Call, Client};
use object::{RefundList, RefundObject, Session};

/// Pages of refunds of one payment that are read.
const REFUND_PAGES_MAX: usize = 20;

/// Where Stripe is, and as whom we ask.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StripeConfig {
    pub api_base: BaseUrl,
    /// The name of the secret that has the API's key.
    pub api_key: SecretName,
    /// The name of the secret that has the webhook's signing secret.
    pub webhook_secret: SecretName,
    /// Where a customer comes back to from Stripe's page.
    pub return_url: String,
    /// How long a call may take.
    pub timeout: Duration,
}

/// Stripe.
pub struct Stripe {
    config: StripeConfig,
    client: Client,
    secrets: Arc<dyn SecretSource>,
}

impl Stripe {
    pub fn new(config: StripeConfig, secrets: Arc<dyn SecretSource>) -> Result<Self> {
        Ok(Self { client: Client::new(config.api_base.as_str(), config.timeout)?, config, secrets })
    }

    async fn call<T: serde::de::DeserializeOwned>(&self, call: Call<'_>) -> Result<T, PaymentFailure> {
        let unreadable = |error: Error| PaymentFailure::Unclear { why: format!("{error:?}"), key_is_used: false };
        let key = self.secrets.read(&self.config.api_key).map_err(unreadable)?;
        self.client.call(&key, call).await
    }

    async fn open_session(&self, ask: &CheckoutAsk) -> Result<Checkout, PaymentFailure> {
        let amount = amount::to_stripe(ask.amount, ask.currency).map_err(|error| PaymentFailure::Refused(error.to_string()))?;
        let (amount, currency) = (amount.to_string(), ask.currency.as_str().to_ascii_lowercase());
        let expires_at = (ask.expires_at.millis() / 1_000).to_string();
        let form = [
            ("mode", "payment"),
            ("client_reference_id", ask.top_up.as_str()),
            ("metadata[top_up]", ask.top_up.as_str()),
            ("payment_intent_data[metadata][top_up]", ask.top_up.as_str()),
            // As for saved cards: the fee is known when the payment is.
            ("payment_intent_data[capture_method]", "automatic"),
            ("line_items[0][quantity]", "1"),
            ("line_items[0][price_data][currency]", &currency),
            ("line_items[0][price_data][unit_amount]", &amount),
            ("line_items[0][price_data][product_data][name]", &ask.description),
            ("expires_at", &expires_at),
            ("success_url", &self.config.return_url),
            ("cancel_url", &self.config.return_url),
        ];
        let session: Session = self.call(Call::post("/v1/checkout/sessions", &ask.key, &form)).await?;
        Ok(Checkout { name: session.id, url: session.url })
    }

    async fn look_at(&self, checkout: &str) -> Result<PaymentProgress, PaymentFailure> {
        let path = format!("/v1/checkout/sessions/{checkout}");
        let query = [("expand[]", "payment_intent.latest_charge.balance_transaction")];
        let session: Session = self.call(Call::get(&path, &query)).await?;
        session.progress()
    }

    async fn find(&self, ask: &RefundAsk) -> Result<Option<SeenRefund>, PaymentFailure> {
        let mut after: Option<String> = None;
        for _ in 0..REFUND_PAGES_MAX {
            let mut query = vec![("payment_intent", ask.payment.as_str()), ("limit", "100")];
            query.extend(after.as_deref().map(|after| ("starting_after", after)));
            let list: RefundList = self.call(Call::get("/v1/refunds", &query)).await?;
            let own = |refund: &&RefundObject| refund.metadata.get("refund").is_some_and(|id| id == ask.refund.as_str());
            if let Some(found) = list.data.iter().find(own) {
                return found.seen().map(Some);
            }
            match list.data.last() {
                Some(last) if list.has_more => after = Some(last.id.clone()),
                _ => return Ok(None),
            }
        }
        let why = format!("the payment {} has more refunds than are read", ask.payment);
        Err(PaymentFailure::Unclear { why, key_is_used: false })
    }

    async fn make_refund(&self, ask: &RefundAsk) -> Result<SeenRefund, PaymentFailure> {
        let amount = amount::to_stripe(ask.amount, ask.currency).map_err(|error| PaymentFailure::Refused(error.to_string()))?;
        let amount = amount.to_string();
        let form = [
            ("payment_intent", ask.payment.as_str()),
            ("amount", &amount),
            ("reason", "requested_by_customer"),
            ("metadata[refund]", ask.refund.as_str()),
        ];
        let refund: RefundObject = self.call(Call::post("/v1/refunds", &ask.key, &form)).await?;
        refund.seen()
    }
}

impl PaymentPort for Stripe {
    fn check(&self, amount: Nanos, currency: Currency) -> Result<()> {
        amount::to_stripe(amount, currency).map(|_| ())
    }
    fn open<'a>(&'a self, ask: &'a CheckoutAsk) -> BoxFuture<'a, Result<Checkout, PaymentFailure>> {
        Box::pin(self.open_session(ask))
    }
    fn look<'a>(&'a self, checkout: &'a str) -> BoxFuture<'a, Result<PaymentProgress, PaymentFailure>> {
        Box::pin(self.look_at(checkout))
    }
    fn close<'a>(&'a self, checkout: &'a str, key: &'a str) -> BoxFuture<'a, Result<(), PaymentFailure>> {
        Box::pin(async move {
            let path = format!("/v1/checkout/sessions/{checkout}/expire");
            self.call::<Session>(Call::post(&path, key, &[])).await.map(|_| ())
        })
    }
    fn refund<'a>(&'a self, ask: &'a RefundAsk) -> BoxFuture<'a, Result<SeenRefund, PaymentFailure>> {
        Box::pin(self.make_refund(ask))
    }
    fn find_refund<'a>(&'a self, ask: &'a RefundAsk) -> BoxFuture<'a, Result<Option<SeenRefund>, PaymentFailure>> {
        Box::pin(self.find(ask))
    }
    fn read_notice(&self, body: &[u8], signature: &str, now: Timestamp) -> Result<Notice> {
        let secret = self.secrets.read(&self.config.webhook_secret)?;
        notice::verify(body, signature, (&secret, now))?;
        notice::read(body)
    }
}
