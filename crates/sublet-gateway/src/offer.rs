//! Which models a key may call, under which names, and what is told of them.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};
use sublet_core::admission::Access;
use sublet_core::card::{Cards, ModelCard};
use sublet_core::engine::ModelInfo;
use sublet_core::offering::{Offered, Offering, Offerings, Product, Reach};
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

/// What is said of models and of their sale, at one time.
struct Said {
    cards: Arc<Cards>,
    offerings: Arc<Offerings>,
}

impl Said {
    fn now(gateway: &Gateway) -> Self {
        Self { cards: gateway.supply.cards(), offerings: gateway.supply.offerings() }
    }
}

/// A model that the key may call, with its card, and its offering if it is not simply for everybody.
pub(crate) struct Offer {
    pub served: Served,
    pub card: Option<Arc<ModelCard>>,
    pub offering: Option<Arc<Offering>>,
}

impl Offer {
    fn new(served: Served, said: &Said) -> Self {
        let card = said.cards.find(served.name()).map(Arc::clone);
        let offering = said.offerings.find_model(served.name()).map(Arc::clone);
        Self { served, card, offering }
    }

    fn offered_to(&self, access: &Access, now: Timestamp) -> Offered<'_> {
        self.offering.as_ref().map_or(Offered::Open, |offering| offering.offered_to(&access.entitlements, now))
    }

    pub fn name(&self) -> &str {
        self.served.name()
    }

    /// Whether the model exists for an organization.
    fn exists_for(&self, access: &Access, now: Timestamp) -> bool {
        let by_entry = match &self.served {
            Served::Here(_) => true,
            Served::Elsewhere(model) => model.audience.admits(&access.organization),
        };
        let by_card = self.card.as_ref().is_none_or(|card| card.admits(&access.organization));
        by_entry && by_card && self.offered_to(access, now) != Offered::Hidden
    }

    pub fn is_private(&self) -> bool {
        let by_entry = matches!(&self.served, Served::Elsewhere(model) if model.audience != Audience::Everyone);
        let by_card = self.card.as_ref().is_some_and(|card| card.audience != Audience::Everyone);
        by_entry || by_card || self.offering.as_ref().is_some_and(|offering| offering.reach != Reach::Everyone)
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
        let card = self.card.as_ref().filter(|card| card.is_deprecated(now));
        let end = self.offering.as_ref().and_then(|offering| offering.announced_end(now));
        if card.is_none() && end.is_none() {
            return None;
        }
        let by_card = card.and_then(|card| card.shutdown_at);
        let successor = end.and_then(|end| end.successor.as_ref()).map(|successor| successor.name().to_owned());
        Some(Arc::new(Warning {
            model: self.name().to_owned(),
            deprecated_at: card.and_then(|card| card.deprecated_at),
            shutdown_at: by_card.into_iter().chain(end.map(|end| end.at)).min(),
            replacement: successor.or_else(|| card.and_then(|card| card.replacement.clone())),
        }))
    }
}

/// That a model will not be served for ever.
#[derive(Debug)]
pub(crate) struct Warning {
    model: String,
    deprecated_at: Option<Timestamp>,
    shutdown_at: Option<Timestamp>,
    replacement: Option<String>,
}

impl Warning {
    pub fn write(&self, headers: &mut HeaderMap) {
        let mut text = format!("model={}", self.model);
        if let Some(at) = self.shutdown_at {
            text.push_str(&format!("; shutdown={}", day(at)));
            let date = std::time::UNIX_EPOCH + std::time::Duration::from_secs(u64::try_from(at.seconds()).unwrap_or(0));
            insert(headers, SUNSET, &httpdate::fmt_http_date(date));
        }
        if let Some(at) = self.deprecated_at {
            insert(headers, DEPRECATION, &format!("@{}", at.seconds()));
        }
        if let Some(replacement) = &self.replacement {
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
    let said = Said::now(gateway);
    let now = gateway.clock.now();
    let exists = |offer: &Offer| offer.exists_for(access, now);
    let found = served(gateway, &said, name).filter(exists);
    let found = found.or_else(|| served(gateway, &said, said.cards.model_of(name)?).filter(exists));
    let shown: String = name.chars().take(80).collect();
    let Some(offer) = found else {
        let error = Error::new(ErrorCode::ModelNotFound, format!("there is no model '{shown}'")).param("model");
        return Err(instead(gateway, access, error, None));
    };
    if offer.is_shut_down(now) {
        return Err(shut_down(gateway, access, &offer));
    }
    if !access.models.allows(offer.name()) && !access.models.allows(name) {
        let error = Error::new(ErrorCode::ModelNotAllowed, format!("this key may not use the model '{shown}'")).param("model");
        return Err(instead(gateway, access, error, None));
    }
    let refused = match offer.offered_to(access, now) {
        Offered::Open | Offered::Hidden => None,
        Offered::Closed(end) => Some((ErrorCode::ModelNotAllowed, "takes no new users, since it retires", end)),
        Offered::Ended(end) => Some((ErrorCode::ModelNotFound, "was retired", end)),
    };
    if let Some((code, what, end)) = refused {
        let error = Error::new(code, format!("the model '{}' {what} on {}", offer.name(), day(end.at))).param("model");
        let successor = end.successor.as_ref().map(Product::name);
        return Err(instead(gateway, access, error, successor));
    }
    Ok(offer)
}

fn served(gateway: &Gateway, said: &Said, name: &str) -> Option<Offer> {
    let elsewhere = gateway.supply.find(name).map(Served::Elsewhere);
    let served = elsewhere.or_else(|| gateway.engine.models().into_iter().find(|model| model.name == name).map(Served::Here))?;
    Some(Offer::new(served, said))
}

/// Names what would work: the successor if the key may call it, or else the first of all that it may.
fn instead(gateway: &Gateway, access: &Access, error: Error, successor: Option<&str>) -> Error {
    let allowed = all_models(gateway, access);
    match allowed.iter().find(|offer| Some(offer.name()) == successor) {
        Some(offer) => error.alternative(offer.name()),
        None => allowed.iter().take(ALTERNATIVES_MAX).fold(error, |error, offer| error.alternative(offer.name())),
    }
}

fn shut_down(gateway: &Gateway, access: &Access, offer: &Offer) -> Error {
    let at = offer.card.as_ref().and_then(|card| card.shutdown_at).map_or_else(String::new, |at| format!(" on {}", day(at)));
    let error = Error::new(ErrorCode::ModelNotFound, format!("the model '{}' was shut down{at}", offer.name())).param("model");
    match offer.card.as_ref().and_then(|card| card.replacement.as_deref()) {
        Some(replacement) => error.alternative(replacement),
        None => instead(gateway, access, error, None),
    }
}

/// The models that the key may call, by their names.
pub(crate) fn all_models(gateway: &Gateway, access: &Access) -> Vec<Offer> {
    let (said, now) = (Said::now(gateway), gateway.clock.now());
    let here = gateway.engine.models().into_iter().map(Served::Here);
    let elsewhere = gateway.supply.models();
    let elsewhere = elsewhere.models.values().cloned().map(Served::Elsewhere);
    let mut all: Vec<Offer> = here.chain(elsewhere).map(|served| Offer::new(served, &said)).collect();
    let is_open = |offer: &Offer| offer.offered_to(access, now) == Offered::Open && !offer.is_shut_down(now);
    all.retain(|offer| offer.exists_for(access, now) && access.models.allows(offer.name()) && is_open(offer));
    all.sort_by(|a, b| a.name().cmp(b.name()));
    all
}
