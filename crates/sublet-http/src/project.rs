//! Projects.

use sublet_api::object::{Metadata, ProjectTag};
use sublet_api::project as wire;
use sublet_cloud::data::Project;
use sublet_core::Result;
use sublet_core::id::ProjectId;

use crate::App;
use crate::answer::{Answer, json, text_of};
use crate::context::{Context, once, page_answer, page_request};
use crate::wire::no_metadata;

fn to_wire(project: &Project) -> wire::Project {
    wire::Project {
        object: ProjectTag,
        id: project.id.clone(),
        name: project.name.clone(),
        status: if project.archived { wire::ProjectStatus::Archived } else { wire::ProjectStatus::Active },
        created_at: project.created_at.into(),
        archived_at: None,
        metadata: Metadata::default(),
    }
}

pub async fn create(app: App, context: Context) -> Result<Answer> {
    let body: wire::CreateProject = context.body()?;
    no_metadata(&body.metadata)?;
    let outcome = app.cloud.create_project(&context.call()?, &body.name, &|project| text_of(&to_wire(project))).await?;
    once(outcome, to_wire)
}

pub async fn list(app: App, context: Context) -> Result<Answer> {
    let query: wire::ProjectListQuery = context.query()?;
    let asked = query.page();
    let archived = query.include_archived == Some(true);
    let page = app.cloud.list_projects(&context.actor, archived, &page_request(&asked)?).await?;
    page_answer(&asked, page, |project| to_wire(&project), |wire| wire.id.to_string())
}

pub async fn get(app: App, context: Context) -> Result<Answer> {
    let id: ProjectId = context.path("id")?;
    json(&to_wire(&app.cloud.get_project(&context.actor, &id).await?))
}

pub async fn archive(app: App, context: Context) -> Result<Answer> {
    let id: ProjectId = context.path("id")?;
    json(&to_wire(&app.cloud.archive_project(&context.actor, &id).await?))
}
