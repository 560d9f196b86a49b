//! Which models a key may call, under which names, and what is told of them.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};
use sublet_core::admission::Access;
use sublet_core::card::{Cards, ModelCard};
use sublet_core::engine::ModelInfo;
use sublet_core::supply::{Audience, RemoteModel};
use sublet_core::{Error, ErrorCode, Result, Timestamp};

use crate::gateway::Gateway;

/// Names listed as alternatives to an unknown model.
const ALTERNATIVES_MAX: usize = 20;
const NOTICE: HeaderName = HeaderName::from_static("x-sublet-deprecation");
/// RFC 9745.
const DEPRECATION: HeaderName = HeaderName::from_static("deprecation");
/// RFC 8594.
const SUNSET: HeaderName = HeaderName::from_static("sunset");

/// Who serves a model.
pub(crate) enum Served {
    Here(ModelInfo),
    Elsewhere(Arc<RemoteModel>),
}

impl Served {
    pub fn name(&self) -> &str {
        match self {
            Self::Here(model) => &model.name,
            Self::Elsewhere(model) => &model.name,
        }
    }
}

/// A model that the key may call, with its card.
pub(crate) struct Offer {
    pub served: Served,
    pub card: Option<Arc<ModelCard>>,
}

impl Offer {
    fn new(served: Served, cards: &Cards) -> Self {
        let card = cards.find(served.name()).map(Arc::clone);
        Self { served, card }
    }

    pub fn name(&self) -> &str {
        self.served.name()
    }

    /// Whether the model exists for an organization.
    fn exists_for(&self, access: &Access) -> bool {
        let by_entry = match &self.served {
            Served::Here(_) => true,
            Served::Elsewhere(model) => model.audience.admits(&access.organization),
        };
        by_entry && self.card.as_ref().is_none_or(|card| card.admits(&access.organization))
    }

    pub fn is_private(&self) -> bool {
        let by_entry = matches!(&self.served, Served::Elsewhere(model) if model.audience != Audience::Everyone);
        by_entry || self.card.as_ref().is_some_and(|card| card.audience != Audience::Everyone)
    }

    fn is_shut_down(&self, now: Timestamp) -> bool {
        self.card.as_ref().is_some_and(|card| card.is_shut_down(now))
    }

    /// Refuses a model whose licence the organization has not accepted.
    pub fn check_licence(&self, access: &Access) -> Result<()> {
        let name = self.name();
        let Some(licence) = self.card.as_ref().and_then(|card| card.unaccepted(name, &access.licences)) else { return Ok(()) };
        let read = licence.url.as_deref().map_or_else(String::new, |url| format!(" ({url})"));
        let message = format!("the licence '{}'{read} of the model '{name}' was not accepted by this organization", licence.name);
        let body = serde_json::json!({ "model": name, "licence": licence.name });
        Err(Error::new(ErrorCode::LicenceNotAccepted, message)
            .param("model")
            .alternative(format!("sublet models accept {name} --licence '{}', with an admin key", licence.name))
            .alternative(format!("POST /v1/organization/licences {body}, with an admin key")))
    }

    /// What answers of a model warn of whose end is announced.
    pub fn warning(&self, now: Timestamp) -> Option<Arc<Warning>> {
        let card = self.card.as_ref().filter(|card| card.is_deprecated(now))?;
        Some(Arc::new(Warning { model: self.name().to_owned(), card: Arc::clone(card) }))
    }
}

/// That a model will not be served for ever.
#[derive(Debug)]
pub(crate) struct Warning {
    model: String,
    card: Arc<ModelCard>,
}

impl Warning {
    pub fn write(&self, headers: &mut HeaderMap) {
        let mut text = format!("model={}", self.model);
        if let Some(at) = self.card.shutdown_at {
            text.push_str(&format!("; shutdown={}", day(at)));
            let date = std::time::UNIX_EPOCH + std::time::Duration::from_secs(u64::try_from(at.seconds()).unwrap_or(0));
            insert(headers, SUNSET, &httpdate::fmt_http_date(date));
        }
        if let Some(at) = self.card.deprecated_at {
            insert(headers, DEPRECATION, &format!("@{}", at.seconds()));
        }
        if let Some(replacement) = &self.card.replacement {
            text.push_str(&format!("; replacement={replacement}"));
        }
        insert(headers, NOTICE, &text);
    }
}

fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// The day of an instant in UTC: `2026-03-01`.
fn day(at: Timestamp) -> String {
    at.to_string().chars().take_while(|character| *character != 'T').collect()
}

/// A model by its name or an alias of it, if the key may call it. A model's own name comes first.
pub(crate) fn find_model(gateway: &Gateway, access: &Access, name: &str) -> Result<Offer> {
    let cards = gateway.supply.cards();
    let now = gateway.clock.now();
    let exists = |offer: &Offer| offer.exists_for(access);
    let found = served(gateway, &cards, name).filter(exists);
    let found = found.or_else(|| served(gateway, &cards, cards.model_of(name)?).filter(exists));
    let (code, message) = match &found {
        Some(offer) if offer.is_shut_down(now) => return Err(shut_down(gateway, access, offer)),
        Some(offer) if access.models.allows(offer.name()) || access.models.allows(name) => return found.ok_or_else(impossible),
        Some(_) => (ErrorCode::ModelNotAllowed, "this key may not use the model"),
        None => (ErrorCode::ModelNotFound, "there is no model"),
    };
    let shown: String = name.chars().take(80).collect();
    let error = Error::new(code, format!("{message} '{shown}'")).param("model");
    let allowed = all_models(gateway, access);
    Err(allowed.iter().take(ALTERNATIVES_MAX).fold(error, |error, offer| error.alternative(offer.name())))
}

fn impossible() -> Error {
    Error::internal("a model that was found is gone")
}

fn served(gateway: &Gateway, cards: &Cards, name: &str) -> Option<Offer> {
    let elsewhere = gateway.supply.find(name).map(Served::Elsewhere);
    let served = elsewhere.or_else(|| gateway.engine.models().into_iter().find(|model| model.name == name).map(Served::Here))?;
    Some(Offer::new(served, cards))
}

fn shut_down(gateway: &Gateway, access: &Access, offer: &Offer) -> Error {
    let at = offer.card.as_ref().and_then(|card| card.shutdown_at).map_or_else(String::new, |at| format!(" on {}", day(at)));
    let error = Error::new(ErrorCode::ModelNotFound, format!("the model '{}' was shut down{at}", offer.name())).param("model");
    match offer.card.as_ref().and_then(|card| card.replacement.as_deref()) {
        Some(replacement) => error.alternative(replacement),
        None => {
            all_models(gateway, access).iter().take(ALTERNATIVES_MAX).fold(error, |error, offer| error.alternative(offer.name()))
        }
    }
}

/// The models that the key may call, by their names.
pub(crate) fn all_models(gateway: &Gateway, access: &Access) -> Vec<Offer> {
    let (cards, now) = (gateway.supply.cards(), gateway.clock.now());
    let here = gateway.engine.models().into_iter().map(Served::Here);
    let elsewhere = gateway.supply.models();
    let elsewhere = elsewhere.models.values().cloned().map(Served::Elsewhere);
    let mut all: Vec<Offer> = here.chain(elsewhere).map(|served| Offer::new(served, &cards)).collect();
    all.retain(|offer| offer.exists_for(access) && access.models.allows(offer.name()) && !offer.is_shut_down(now));
    all.sort_by(|a, b| a.name().cmp(b.name()));
    all
}
