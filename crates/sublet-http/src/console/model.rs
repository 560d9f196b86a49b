//! Models that are served, with their prices in the account's currency.

use askama::Template;
use axum::body::Body;
use http::Response;
use sublet_cloud::Actor;
use sublet_cloud::data::{SkuName, TokenKind};
use sublet_core::key::KeyPlane;
use sublet_core::offering::{Offered, OfferingState};
use sublet_core::supply::Catalogue;
use sublet_core::tier::ServiceTier;
use sublet_core::{Currency, Result, Scope};

use super::figure::Count;
use super::shell::Shell;
use super::visit::Visit;
use super::{Console, shell};

pub struct ModelRow {
    pub name: String,
    pub context_window: Count,
    /// `0.15 EUR per 1M tokens`, or why there is none.
    pub input: String,
    pub cached_input: String,
    pub output: String,
    /// Of a request besides its tokens, if it has any.
    pub request: Option<String>,
    /// This key may use it.
    pub allowed: bool,
    /// The licence, where one is named.
    pub licence: String,
    /// The licence has to be accepted before the model is called.
    pub unaccepted: bool,
    /// The day after which it is not served, where one is announced.
    pub until: Option<String>,
    /// `preview`, `invited` or `retiring`, where it is not simply public.
    pub offering: Option<String>,
}

/// The currency of the actor's account.
pub async fn currency(console: &Console, actor: &Actor) -> Result<Currency> {
    let id = actor.organization()?;
    let own = Actor { scope: Scope::Organization(id.clone()), ..actor.clone() };
    Ok(console.app.cloud.get_organization(&own, id).await?.currency)
}

/// Every model that is served, in the order of names.
pub async fn rows(console: &Console, actor: &Actor) -> Result<Vec<ModelRow>> {
    let cloud = &console.app.cloud;
    let currency = currency(console, actor).await?;
    let prices = cloud.prices().in_force_for((actor.organization()?, currency), cloud.clock().now())?;
    let allowed = match actor.plane {
        KeyPlane::Project => Some(cloud.get_own_key(actor).await?.models),
        KeyPlane::Admin | KeyPlane::Operator => None,
    };
    let price = |model: &str, kind: TokenKind| {
        let sku = model.parse().map(|model| SkuName::Tokens { tier: ServiceTier::Default, kind, model });
        let entry = sku.ok().and_then(|sku| prices.find(&sku).map(|entry| entry.price_text(currency)));
        entry.unwrap_or_else(|| "no price, not served".to_owned())
    };
    let request_price = |model: &str| {
        let sku = SkuName::Requests { tier: ServiceTier::Default, model: model.parse().ok()? };
        prices.find(&sku).map(|entry| entry.price_text(currency))
    };
    let (cards, now) = (cloud.cards(), cloud.clock().now());
    let organization = actor.organization()?;
    let accepted = cloud.accepted_licences(actor).await?;
    let card = |name: &str| cards.find(name);
    let mut models = console.app.engine.models();
    let (offerings, entitlements) = (cloud.offerings(), cloud.entitlements_of(Some(organization)).await?);
    let offering = |name: &str| offerings.find_model(name);
    let is_sold = |name: &str| offering(name).is_none_or(|offering| offering.offered_to(&entitlements, now) == Offered::Open);
    let last_day = |name: &str| {
        let announced = offering(name).and_then(|offering| offering.announced_end(now)).map(|end| end.at);
        card(name).and_then(|card| card.shutdown_at).into_iter().chain(announced).min()
    };
    let is_served = |name: &str| card(name).is_none_or(|card| card.admits(organization) && !card.is_shut_down(now));
    models.retain(|model| is_served(&model.name) && is_sold(&model.name));
    models.sort_by(|a, b| a.name.cmp(&b.name));
    let row = |model: sublet_core::engine::ModelInfo| ModelRow {
        licence: card(&model.name).and_then(|card| card.licence.as_ref()).map_or_else(String::new, |licence| licence.name.clone()),
        unaccepted: card(&model.name).is_some_and(|card| card.unaccepted(&model.name, &accepted).is_some()),
        until: last_day(&model.name).map(|at| at.to_string().chars().take(10).collect()),
        offering: offering(&model.name)
            .map(|offering| offering.state_at(now))
            .filter(|state| *state != OfferingState::Public)
            .map(|state| state.to_string()),
        context_window: Count(model.context_window.get()),
        input: price(&model.name, TokenKind::Input),
        cached_input: price(&model.name, TokenKind::CachedInput),
        output: price(&model.name, TokenKind::Output),
        request: request_price(&model.name),
        allowed: allowed.as_ref().is_none_or(|models| models.allows(&model.name)),
        name: model.name,
    };
    Ok(models.into_iter().map(row).collect())
}

#[derive(Template)]
#[template(path = "models.html")]
struct ModelsPage {
    shell: Shell,
    models: Vec<ModelRow>,
    is_project: bool,
    /// How a program reaches the same models.
    base_url: String,
}

pub async fn list(console: Console, visit: Visit) -> Result<Response<Body>> {
    let shell = Shell::of(&console, &visit.actor, "Models", "/console/models").await?;
    let models = rows(&console, &visit.actor).await?;
    let is_project = visit.actor.plane == KeyPlane::Project;
    shell::html(&ModelsPage { shell, models, is_project, base_url: visit.guest.base_url() })
}
