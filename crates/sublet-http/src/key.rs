//! Keys of a project, of an organization and of the operator. The secret is in the answer of the creation only.

use sublet_api::key as wire;
use sublet_api::list::ListQuery;
use sublet_api::object::{AdminKeyTag, Deleted, KeyTag, Metadata};
use sublet_cloud::data::Key;
use sublet_cloud::idempotency::Answer as Once;
use sublet_cloud::key::{CreatedKey, NewKey};
use sublet_core::Result;
use sublet_core::admission::ModelAccess;
use sublet_core::id::{KeyId, ProjectId};

use crate::App;
use crate::answer::{Answer, json};
use crate::context::{Context, page_answer, page_request};
use crate::wire::{no_metadata, shown_before};

pub fn to_wire(key: &Key) -> wire::Key {
    wire::Key {
        object: KeyTag,
        id: key.id.clone(),
        name: key.name.clone(),
        plane: key.plane,
        redacted_value: key.hint.clone(),
        project: key.project.clone(),
        models: match &key.models {
            ModelAccess::All => None,
            ModelAccess::Only(names) => Some(names.clone()),
        },
        rate_limits: key.rates.into(),
        created_at: key.created_at.into(),
        expires_at: key.expires_at.map(Into::into),
        revoked_at: key.revoked_at.map(Into::into),
        last_used_at: None,
        metadata: Metadata::default(),
    }
}

pub fn created_to_wire(created: &CreatedKey) -> wire::CreatedKey {
    wire::CreatedKey { key: to_wire(&created.key), value: wire::SecretText::new(created.secret.reveal()) }
}

pub async fn create(app: App, context: Context) -> Result<Answer> {
    let body: wire::CreateKey = context.body()?;
    no_metadata(&body.metadata)?;
    let project: ProjectId = context.path("id")?;
    let new = NewKey {
        name: body.name,
        models: body.models.map_or(ModelAccess::All, ModelAccess::Only),
        rates: body.rate_limits.into(),
        expires_at: body.expires_at.map(|at| at.0),
    };
    match app.cloud.create_project_key(&context.call()?, &project, &new).await? {
        Once::New(created) => json(&created_to_wire(&created)),
        Once::Replayed(id) => Err(shown_before(&id)),
    }
}

pub async fn list(app: App, context: Context) -> Result<Answer> {
    let asked = context.query::<ListQuery>()?.page();
    let project: ProjectId = context.path("id")?;
    let page = app.cloud.list_keys(&context.actor, &project, &page_request(&asked)?).await?;
    page_answer(&asked, page, |key| to_wire(&key), |wire| wire.id.to_string())
}

pub async fn delete(app: App, context: Context) -> Result<Answer> {
    let (project, id): (ProjectId, KeyId) = (context.path("id")?, context.path("key")?);
    app.cloud.revoke_project_key(&context.actor, &project, &id).await?;
    json(&Deleted::new("organization.project.api_key", id.as_str()))
}

fn peer_to_wire(key: &Key) -> wire::AdminKey {
    let kind = if key.organization.is_some() { wire::KeyOwnerKind::Organization } else { wire::KeyOwnerKind::Operator };
    wire::AdminKey {
        object: AdminKeyTag,
        id: key.id.clone(),
        name: key.name.clone(),
        redacted_value: key.hint.clone(),
        owner: wire::KeyOwner { kind, id: key.organization.clone() },
        created_at: key.created_at.into(),
        expires_at: key.expires_at.map(Into::into),
        revoked_at: key.revoked_at.map(Into::into),
        last_used_at: None,
    }
}

pub async fn create_peer(app: App, context: Context) -> Result<Answer> {
    let body: wire::CreateAdminKey = context.body()?;
    match app.cloud.create_peer_key(&context.call()?, &body.name, body.expires_at.map(|at| at.0)).await? {
        Once::New(created) => {
            json(&wire::CreatedAdminKey { key: peer_to_wire(&created.key), value: wire::SecretText::new(created.secret.reveal()) })
        }
        Once::Replayed(id) => Err(shown_before(&id)),
    }
}

pub async fn list_peers(app: App, context: Context) -> Result<Answer> {
    let asked = context.query::<ListQuery>()?.page();
    let page = app.cloud.list_peer_keys(&context.actor, &page_request(&asked)?).await?;
    page_answer(&asked, page, |key| peer_to_wire(&key), |wire| wire.id.to_string())
}

pub async fn get_peer(app: App, context: Context) -> Result<Answer> {
    let id: KeyId = context.path("id")?;
    json(&peer_to_wire(&app.cloud.get_peer_key(&context.actor, &id).await?))
}

pub async fn delete_peer(app: App, context: Context) -> Result<Answer> {
    let id: KeyId = context.path("id")?;
    app.cloud.revoke_peer_key(&context.actor, &id).await?;
    json(&Deleted::new("organization.admin_api_key", id.as_str()))
}
