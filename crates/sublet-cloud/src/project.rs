//! Projects: where work and keys belong.

use sublet_core::id::ProjectId;
use sublet_core::{Error, ErrorCode, Result, Timestamp};
use sublet_store::change::{self, Subject};
use sublet_store::project::{self, Project};
use sublet_store::{Page, PageRequest, Tx, batch, file};

use crate::audit::Deed;
use crate::idempotency::{Answer, Call, Render};
use crate::organization::checked_name;
use crate::{Action, Actor, Cloud};

impl Cloud {
    pub async fn create_project(&self, call: &Call, name: &str, render: &Render<Project>) -> Result<Answer<Project>> {
        call.actor.require(Action::ManageProjects)?;
        let project = Project {
            id: self.ids.mint(),
            organization: call.actor.organization()?.clone(),
            name: checked_name(name)?,
            archived: false,
            generation: 1,
            created_at: self.now(),
        };
        self.once(call, render, (self, &call.actor, project), |(cloud, actor, project), tx| {
            Box::pin(async move {
                project::insert(tx, project).await?;
                let deed = Deed {
                    organization: Some(&project.organization),
                    action: "project.create",
                    target: project.id.as_str(),
                    detail: String::new(),
                };
                cloud.record(tx, actor, deed, project.created_at).await?;
                Ok(project.clone())
            })
        })
        .await
    }

    pub async fn get_project(&self, actor: &Actor, id: &ProjectId) -> Result<Project> {
        self.store.read((actor, id), |(actor, id), tx| Box::pin(project::get(tx, &actor.scope, id))).await
    }

    pub async fn list_projects(&self, actor: &Actor, archived: bool, page: &PageRequest) -> Result<Page<Project>> {
        actor.require(Action::ManageProjects)?;
        let organization = actor.organization()?;
        self.store
            .read((organization, page), move |(organization, page), tx| Box::pin(project::list(tx, organization, archived, page)))
            .await
    }

    /// Archives a project: nothing can be started in it any more, its keys stop working at once. Refused while it keeps files,
    /// which nobody could delete any more, or has batches, which will write some.
    pub async fn archive_project(&self, actor: &Actor, id: &ProjectId) -> Result<Project> {
        actor.require(Action::ManageProjects)?;
        let now = self.now();
        let archived = self
            .store
            .write((self, actor, id), move |(cloud, actor, id), tx| {
                Box::pin(async move {
                    check_left(tx, actor, id, now).await?;
                    let project = project::archive(tx, &actor.scope, id, now).await?;
                    change::announce(tx, Subject::Access).await?;
                    let deed = Deed {
                        organization: Some(&project.organization),
                        action: "project.archive",
                        target: id.as_str(),
                        detail: String::new(),
                    };
                    cloud.record(tx, actor, deed, now).await?;
                    Ok(project)
                })
            })
            .await?;
        self.access_changed();
        Ok(archived)
    }
}

async fn check_left(tx: &mut Tx, actor: &Actor, id: &ProjectId, now: Timestamp) -> Result<()> {
    project::get(tx, &actor.scope, id).await?;
    if batch::count_open(tx, id).await? > 0 {
        return Err(Error::new(ErrorCode::Conflict, format!("batches of '{id}' have not ended"))
            .alternative("cancel them with a key of the project, or wait for their end: POST /v1/batches/{id}/cancel"));
    }
    if file::keeps_any(tx, id, now).await? {
        return Err(Error::new(ErrorCode::Conflict, format!("'{id}' keeps files, which go on to cost what keeping them costs"))
            .alternative("delete them with a key of the project: GET /v1/files, DELETE /v1/files/{id}"));
    }
    Ok(())
}
