//! Keys of an organization's projects: listed, created, revoked.

use askama::Template;
use axum::body::Body;
use http::Response;
use serde::Deserialize;
use sublet_cloud::data::{Key, PageRequest, Project};
use sublet_cloud::idempotency::{Answer, Call};
use sublet_cloud::key::NewKey;
use sublet_cloud::{Actor, Cloud};
use sublet_core::admission::ModelAccess;
use sublet_core::id::{KeyId, ProjectId};
use sublet_core::rate::RateLimits;
use sublet_core::{Error, ErrorCode, Result};

use super::figure::When;
use super::shell::Shell;
use super::visit::Visit;
use super::{Console, shell};

/// Projects whose keys are shown, and keys of each.
const ROWS_MAX: i64 = 100;

pub struct KeyRow {
    pub id: String,
    pub name: String,
    pub project: String,
    pub hint: String,
    pub models: String,
    pub created: When,
    pub expires: Option<When>,
    pub revoked: Option<When>,
    pub is_project_key: bool,
}

fn row(key: Key, project: &str) -> KeyRow {
    KeyRow {
        models: match &key.models {
            ModelAccess::All => "all".to_owned(),
            ModelAccess::Only(models) => models.join(", "),
        },
        id: key.id.to_string(),
        name: key.name,
        project: project.to_owned(),
        hint: key.hint,
        created: When(key.created_at),
        expires: key.expires_at.map(When),
        revoked: key.revoked_at.map(When),
        is_project_key: key.project.is_some(),
    }
}

async fn projects(cloud: &Cloud, actor: &Actor) -> Result<Vec<Project>> {
    let page = PageRequest { limit: Some(ROWS_MAX), ..PageRequest::default() };
    Ok(cloud.list_projects(actor, true, &page).await?.items)
}

/// The organization's keys, those that work first.
pub async fn rows(cloud: &Cloud, actor: &Actor) -> Result<Vec<KeyRow>> {
    let page = PageRequest { limit: Some(ROWS_MAX), ..PageRequest::default() };
    let mut rows = Vec::new();
    for project in projects(cloud, actor).await? {
        let keys = cloud.list_keys(actor, &project.id, &page).await?;
        rows.extend(keys.items.into_iter().map(|key| row(key, &project.name)));
    }
    let admin = cloud.list_peer_keys(actor, &page).await?;
    rows.extend(admin.items.into_iter().map(|key| row(key, "the organization (admin)")));
    rows.sort_by_key(|row| row.revoked.is_some());
    Ok(rows)
}

#[derive(Template)]
#[template(path = "keys.html")]
struct KeysPage {
    shell: Shell,
    keys: Vec<KeyRow>,
    projects: Vec<Project>,
    /// The secret of the key that this very answer created.
    created: Option<Created>,
}

struct Created {
    name: String,
    secret: String,
}

async fn page(console: &Console, actor: &Actor, created: Option<Created>) -> Result<Response<Body>> {
    let cloud = &console.app.cloud;
    let mut projects = projects(cloud, actor).await?;
    projects.retain(|project| !project.archived);
    let shell = Shell::of(console, actor, "Keys", "/console/keys").await?;
    shell::html(&KeysPage { shell, keys: rows(cloud, actor).await?, projects, created })
}

pub async fn list(console: Console, visit: Visit) -> Result<Response<Body>> {
    page(&console, &visit.actor, None).await
}

#[derive(Deserialize)]
struct CreateForm {
    name: String,
    project: ProjectId,
    /// Names with commas between them; empty allows all.
    #[serde(default)]
    models: String,
}

pub async fn create(console: Console, visit: Visit) -> Result<Response<Body>> {
    let form: CreateForm = visit.guest.form()?;
    let models: Vec<String> = form.models.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect();
    let new = NewKey {
        name: form.name,
        models: if models.is_empty() { ModelAccess::All } else { ModelAccess::Only(models) },
        rates: RateLimits::default(),
        expires_at: None,
    };
    let call = Call::once(visit.actor.clone());
    match console.app.cloud.create_project_key(&call, &form.project, &new).await? {
        Answer::New(made) => {
            let created = Created { name: made.key.name.clone(), secret: made.secret.reveal().to_owned() };
            page(&console, &visit.actor, Some(created)).await
        }
        Answer::Replayed(_) => Err(Error::new(ErrorCode::Conflict, "this key was created before")),
    }
}

pub async fn revoke(console: Console, visit: Visit) -> Result<Response<Body>> {
    let id: KeyId = visit.guest.path("id")?;
    console.app.cloud.revoke_key(&visit.actor, &id).await?;
    Ok(shell::redirect("/console/keys"))
}
