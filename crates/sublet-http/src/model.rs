//! The models this cloud serves: for the operator.

use sublet_api::model as wire;
use sublet_api::object::ServedModelTag;
use sublet_cloud::Action;
use sublet_cloud::data::ModelName;
use sublet_core::engine::ModelInfo;
use sublet_core::tier::ServiceTier;
use sublet_core::{Currency, Result};

use crate::App;
use crate::answer::{Answer, json};
use crate::context::Context;
use crate::wire::count;

/// Whether a model has a price in force, in any currency.
pub fn is_priced(app: &App, model: &str) -> bool {
    let now = app.cloud.clock().now();
    let mut currencies: Vec<Currency> = app.cloud.prices().snapshot().values().map(|list| list.currency).collect();
    currencies.dedup();
    let Ok(model) = model.parse::<ModelName>() else { return false };
    let is_in = |currency: Currency| app.cloud.prices().in_force(currency, now)?.token_prices(&model, ServiceTier::Default, now);
    currencies.into_iter().any(|currency| is_in(currency).is_ok())
}

fn to_wire(app: &App, model: &ModelInfo) -> Result<wire::ServedModel> {
    Ok(wire::ServedModel {
        object: ServedModelTag,
        id: model.name.clone(),
        owned_by: model.owned_by.clone(),
        context_window: count(model.context_window.get())?,
        vocabulary: count(model.vocabulary.get())?,
        has_chat_template: model.has_chat_template,
        priced: is_priced(app, &model.name),
        created_at: model.created_at.into(),
    })
}

pub async fn list(app: App, context: Context) -> Result<Answer> {
    context.actor.require(Action::ManageFleet)?;
    let models = app.engine.models();
    let data = models.iter().map(|model| to_wire(&app, model)).collect::<Result<Vec<_>>>()?;
    json(&sublet_api::List::whole(data))
}

/// Copies a model's files into the data directory and serves them.
pub async fn import(app: App, context: Context) -> Result<Answer> {
    context.actor.require(Action::ManageFleet)?;
    let body: wire::ImportModel = context.body()?;
    let imported = app.process.import_model(body.path, body.name).await?;
    app.cloud.record_import(&context.actor, &imported.name).await?;
    json(&to_wire(&app, &imported)?)
}
