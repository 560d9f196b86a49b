//! `GET /v1/models` and `GET /v1/models/{id}`: what this key may call, with the prices in force.

use std::sync::Arc;

use axum::response::Response;
use http::{HeaderMap, StatusCode};
use serde::Serialize;
use sublet_api::card::ModelNote;
use sublet_api::messages::{MessageModel, MessageModelList};
use sublet_api::offering::OfferingNote;
use sublet_api::openai::{Model, ModelList, ModelPricing, ModelTier, TokenPrice};
use sublet_core::admission::{Access, TokenPrices};
use sublet_core::tier::ServiceTier;
use sublet_core::{Currency, Rate, Result, Timestamp, TokenCount};

use crate::dialect::Envelope;
use crate::gateway::Gateway;
use crate::offer::{Offer, Served, all_models, find_model};
use crate::reply::Head;

pub(crate) async fn list(gateway: Arc<Gateway>, headers: HeaderMap) -> Response {
    if Envelope::of(&headers) == Envelope::Anthropic {
        return list_for_anthropic(&gateway, &headers).await;
    }
    respond(&gateway, &headers, |gateway, access| {
        let data: Vec<Model> =
            all_models(gateway, access).iter().map(|served| model(gateway, access, &Shown::new(served))).collect();
        Ok(ModelList {
            object: "list".to_owned(),
            first_id: data.first().map(|model| model.id.clone()),
            last_id: data.last().map(|model| model.id.clone()),
            data,
            has_more: false,
        })
    })
    .await
}

async fn list_for_anthropic(gateway: &Gateway, headers: &HeaderMap) -> Response {
    respond(gateway, headers, |gateway, access| {
        let data: Vec<MessageModel> = all_models(gateway, access).iter().map(|served| message_model(&Shown::new(served))).collect();
        Ok(MessageModelList {
            first_id: data.first().map(|model| model.id.clone()),
            last_id: data.last().map(|model| model.id.clone()),
            data,
            has_more: false,
        })
    })
    .await
}

/// What is told of a model, wherever it is served.
struct Shown<'a> {
    offer: &'a Offer,
    owned_by: &'a str,
    created_at: Timestamp,
    context_window: TokenCount,
}

impl<'a> Shown<'a> {
    fn new(offer: &'a Offer) -> Self {
        let (owned_by, created_at, context_window) = match &offer.served {
            Served::Here(info) => (&info.owned_by, info.created_at, info.context_window),
            Served::Elsewhere(model) => (&model.owned_by, model.created_at, model.context_window),
        };
        let by_card = offer.card.as_ref().and_then(|card| card.owned_by.as_ref());
        Self { offer, owned_by: by_card.unwrap_or(owned_by), created_at, context_window }
    }

    fn note(&self, gateway: &Gateway, access: &Access) -> ModelNote {
        let (name, card) = (self.offer.name(), self.offer.card.as_ref());
        let said = card.map_or_else(ModelNote::default, |card| ModelNote::of_card(name, card, &access.licences));
        let embeddings = match &self.offer.served {
            Served::Here(info) => info.embeddings.as_ref().map(Into::into),
            Served::Elsewhere(_) => None,
        };
        let now = gateway.clock.now();
        let measured = gateway.measured.of(name, now);
        let offering = self.offer.offering.as_ref().and_then(|offering| OfferingNote::of(offering, now));
        ModelNote { private: self.offer.is_private(), embeddings, measured, offering, ..said }
    }
}

fn message_model(info: &Shown<'_>) -> MessageModel {
    MessageModel {
        r#type: "model".to_owned(),
        id: info.offer.name().to_owned(),
        display_name: info.offer.name().to_owned(),
        created_at: info.created_at.to_string(),
    }
}

pub(crate) async fn get(gateway: Arc<Gateway>, headers: HeaderMap, id: String) -> Response {
    if Envelope::of(&headers) == Envelope::Anthropic {
        return respond(&gateway, &headers, |gateway, access| Ok(message_model(&Shown::new(&find_model(gateway, access, &id)?))))
            .await;
    }
    respond(&gateway, &headers, |gateway, access| Ok(model(gateway, access, &Shown::new(&find_model(gateway, access, &id)?)))).await
}

async fn respond<T: Serialize>(
    gateway: &Gateway,
    headers: &HeaderMap,
    make: impl FnOnce(&Gateway, &Access) -> Result<T>,
) -> Response {
    let head = Head::new(gateway.ids.mint(), Envelope::of(headers));
    let made = match gateway.access.authenticate(headers).await {
        Ok(access) => make(gateway, &access),
        Err(error) => Err(error),
    };
    match made {
        Ok(body) => head.json(StatusCode::OK, serde_json::to_vec(&body).expect("models have only JSON's own types")),
        Err(error) => head.error(&error),
    }
}

/// A model without a price in force is listed without one; calling it is refused.
fn model(gateway: &Gateway, access: &Access, info: &Shown<'_>) -> Model {
    let now = gateway.clock.now();
    let priced = |tier| gateway.admission.prices(access, (info.offer.name(), tier), now).ok().map(|prices| pricing(&prices));
    let tier = |service_tier: ServiceTier| {
        priced(service_tier).map(|pricing| ModelTier { service_tier, notice: service_tier.notice(), pricing })
    };
    Model {
        id: info.offer.name().to_owned(),
        object: "model".to_owned(),
        created: info.created_at.seconds(),
        owned_by: info.owned_by.to_owned(),
        context_window: info.context_window.get(),
        pricing: priced(ServiceTier::Default),
        service_tiers: ServiceTier::ALL.into_iter().filter_map(tier).collect(),
        shutdown_date: info.offer.card.as_ref().and_then(|card| card.shutdown_at).map(Into::into),
        sublet: info.note(gateway, access),
    }
}

fn pricing(prices: &TokenPrices) -> ModelPricing {
    let price = |rate: Rate, currency: Currency| TokenPrice {
        price: sublet_core::Money { amount: rate.nanos(), currency }.into(),
        per_tokens: rate.per(),
    };
    ModelPricing {
        version: prices.version.0.to_string(),
        request: Some(prices.request)
            .filter(|request| !request.is_zero())
            .map(|amount| sublet_core::Money { amount, currency: prices.currency }.into()),
        input: price(prices.input, prices.currency),
        cached_input: price(prices.cached_input, prices.currency),
        output: price(prices.output, prices.currency),
    }
}
