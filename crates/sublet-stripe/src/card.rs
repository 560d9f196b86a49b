//! Saved cards: a Checkout Session that only sets a card up, and PaymentIntents that charge it while nobody is there.
//!
//! A PaymentIntent is made first and confirmed afterwards. Making one moves nothing, and one succeeds at most once; so
//! neither a lost answer nor another key can charge a card twice for one top-up.

use serde::Deserialize;
use sublet_core::payment::{
    CardFace, CardPageAsk, CardPort, CardProgress, ChargeAsk, Checkout, KeptCard, PaymentFailure, PaymentProgress,
};
use sublet_core::{BoxFuture, Result};

use crate::Stripe;
use crate::amount;
use crate::client::Call;
use crate::object::{PaymentIntent, unknown};

/// Longest brand that is kept, in characters.
const BRAND_CHARS_MAX: usize = 40;

/// A Checkout Session in setup mode; its card is there where it was asked for.
#[derive(Deserialize)]
struct SetupSession {
    id: String,
    url: Option<String>,
    status: Option<String>,
    customer: Option<String>,
    setup_intent: Option<SetupIntent>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum SetupIntent {
    Whole { status: String, payment_method: Option<CardMethod> },
    Name(serde::de::IgnoredAny),
}

#[derive(Deserialize)]
struct CardMethod {
    id: String,
    card: Option<Card>,
}

#[derive(Deserialize)]
struct Card {
    brand: String,
    last4: String,
    exp_month: u8,
    exp_year: u16,
}

/// An answer of which only the success matters.
#[derive(Deserialize)]
struct Done {}

/// An answer of which only the name matters.
#[derive(Deserialize)]
struct Named {
    id: String,
}

impl SetupSession {
    fn progress(self) -> Result<CardProgress, PaymentFailure> {
        match (self.status.as_deref(), self.setup_intent) {
            (Some("open"), _) => Ok(CardProgress::Open),
            (Some("expired"), _) => Ok(CardProgress::Closed),
            (Some("complete"), Some(SetupIntent::Whole { status, payment_method: Some(method) })) if status == "succeeded" => {
                let (Some(customer), Some(card)) = (self.customer, method.card) else {
                    return Err(unknown("a session saved something that is no card of a customer".to_owned()));
                };
                let plain = |text: String, most: usize| text.chars().filter(|letter| !letter.is_control()).take(most).collect();
                let face = CardFace {
                    brand: plain(card.brand, BRAND_CHARS_MAX),
                    last4: plain(card.last4, 4),
                    expires_month: card.exp_month,
                    expires_year: card.exp_year,
                };
                Ok(CardProgress::Saved(KeptCard { customer, name: method.id, face }))
            }
            (status, _) => Err(unknown(format!("a session for a card is {status:?}"))),
        }
    }
}

impl Stripe {
    async fn open_card_page(&self, ask: &CardPageAsk) -> Result<Checkout, PaymentFailure> {
        let expires_at = (ask.expires_at.millis() / 1_000).to_string();
        let form = [
            ("mode", "setup"),
            ("payment_method_types[0]", "card"),
            ("customer_creation", "always"),
            ("client_reference_id", ask.card.as_str()),
            ("metadata[card]", ask.card.as_str()),
            ("setup_intent_data[metadata][card]", ask.card.as_str()),
            ("expires_at", &expires_at),
            ("success_url", &self.config.return_url),
            ("cancel_url", &self.config.return_url),
        ];
        let session: SetupSession = self.call(Call::post("/v1/checkout/sessions", &ask.key, &form)).await?;
        Ok(Checkout { name: session.id, url: session.url })
    }

    async fn prepare_charge(&self, ask: &ChargeAsk) -> Result<String, PaymentFailure> {
        let units = amount::to_stripe(ask.amount, ask.currency).map_err(|error| PaymentFailure::Refused(error.to_string()))?;
        let (units, currency) = (units.to_string(), ask.currency.as_str().to_ascii_lowercase());
        let form = [
            ("amount", units.as_str()),
            ("currency", &currency),
            ("customer", &ask.customer),
            ("payment_method", &ask.card),
            ("payment_method_types[0]", "card"),
            // Otherwise the charge is captured later, and its fee is not known when it is asked for.
            ("capture_method", "automatic"),
            ("description", &ask.description),
            ("metadata[top_up]", ask.top_up.as_str()),
        ];
        let intent: Named = self.call(Call::post("/v1/payment_intents", &ask.key, &form)).await?;
        Ok(intent.id)
    }
}

impl CardPort for Stripe {
    fn open_page<'a>(&'a self, ask: &'a CardPageAsk) -> BoxFuture<'a, Result<Checkout, PaymentFailure>> {
        Box::pin(self.open_card_page(ask))
    }
    fn look_at_page<'a>(&'a self, page: &'a str) -> BoxFuture<'a, Result<CardProgress, PaymentFailure>> {
        Box::pin(async move {
            let path = format!("/v1/checkout/sessions/{page}");
            let session: SetupSession = self.call(Call::get(&path, &[("expand[]", "setup_intent.payment_method")])).await?;
            session.progress()
        })
    }
    fn forget<'a>(&'a self, card: &'a str, key: &'a str) -> BoxFuture<'a, Result<(), PaymentFailure>> {
        Box::pin(async move {
            let path = format!("/v1/payment_methods/{card}/detach");
            self.call::<Done>(Call::post(&path, key, &[])).await.map(|_| ())
        })
    }
    fn prepare<'a>(&'a self, ask: &'a ChargeAsk) -> BoxFuture<'a, Result<String, PaymentFailure>> {
        Box::pin(self.prepare_charge(ask))
    }
    fn charge<'a>(&'a self, charge: &'a str, key: &'a str) -> BoxFuture<'a, Result<(), PaymentFailure>> {
        Box::pin(async move {
            let path = format!("/v1/payment_intents/{charge}/confirm");
            self.call::<Done>(Call::post(&path, key, &[("off_session", "true")])).await.map(|_| ())
        })
    }
    fn look_at_charge<'a>(&'a self, charge: &'a str) -> BoxFuture<'a, Result<PaymentProgress, PaymentFailure>> {
        Box::pin(async move {
            let path = format!("/v1/payment_intents/{charge}");
            let query = [("expand[]", "latest_charge.balance_transaction")];
            self.call::<PaymentIntent>(Call::get(&path, &query)).await?.progress()
        })
    }
    fn call_off<'a>(&'a self, charge: &'a str, key: &'a str) -> BoxFuture<'a, Result<(), PaymentFailure>> {
        Box::pin(async move {
            let path = format!("/v1/payment_intents/{charge}/cancel");
            self.call::<Done>(Call::post(&path, key, &[])).await.map(|_| ())
        })
    }
}
