//! What the operator tells of models, and the licences that organizations accept.

use sublet_api::card as wire;
use sublet_api::object::{Deleted, LicenceTag, ModelCardTag};
use sublet_cloud::data::{Acceptance, ModelCardRow};
use sublet_core::Result;
use sublet_core::card::AcceptedLicence;

use crate::App;
use crate::answer::{Answer, json, text_of};
use crate::context::{Context, once};
use crate::wire::count;

fn to_wire(row: &ModelCardRow) -> Result<wire::ModelCard> {
    Ok(wire::ModelCard {
        object: ModelCardTag,
        id: row.model.clone(),
        card: (&row.card).into(),
        generation: count(row.generation)?,
        changed_at: row.changed_at.into(),
    })
}

fn licence_to_wire(acceptance: &Acceptance) -> wire::AcceptedLicence {
    wire::AcceptedLicence {
        object: LicenceTag,
        model: acceptance.accepted.model.clone(),
        licence: acceptance.accepted.licence.clone(),
        url: acceptance.url.clone(),
        accepted_by: acceptance.actor.clone(),
        accepted_at: acceptance.accepted_at.into(),
    }
}

pub async fn list(app: App, context: Context) -> Result<Answer> {
    let rows = app.cloud.list_model_cards(&context.actor).await?;
    json(&sublet_api::List::whole(rows.iter().map(to_wire).collect::<Result<Vec<_>>>()?))
}

pub async fn get(app: App, context: Context) -> Result<Answer> {
    json(&to_wire(&app.cloud.get_model_card(&context.actor, context.path_text("id")?).await?)?)
}

pub async fn set(app: App, context: Context) -> Result<Answer> {
    let body: wire::SetModelCard = context.body()?;
    let served_here: Vec<String> = app.engine.models().into_iter().map(|model| model.name).collect();
    let row = app.cloud.set_model_card(&context.actor, context.path_text("id")?, body.into(), &served_here).await?;
    json(&to_wire(&row)?)
}

pub async fn delete(app: App, context: Context) -> Result<Answer> {
    let model = context.path_text("id")?;
    app.cloud.delete_model_card(&context.actor, model).await?;
    json(&Deleted::new("model_card", model))
}

pub async fn list_licences(app: App, context: Context) -> Result<Answer> {
    let accepted = app.cloud.list_licences(&context.actor).await?;
    json(&sublet_api::List::whole(accepted.iter().map(licence_to_wire).collect()))
}

pub async fn accept_licence(app: App, context: Context) -> Result<Answer> {
    let body: wire::AcceptLicence = context.body()?;
    let accepted = AcceptedLicence { model: body.model, licence: body.licence };
    let outcome = app.cloud.accept_licence(&context.call()?, accepted, &|made| text_of(&licence_to_wire(made))).await?;
    once(outcome, licence_to_wire)
}
