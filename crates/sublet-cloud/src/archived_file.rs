//! Files of archived projects: what a project kept that ended before files had to be deleted first.
//!
//! Its keys are gone, and what it keeps goes on to cost what keeping costs. An administrator of its organization and an
//! operator can say what there is and delete it; the meter ends at that instant, as with any deletion.
//!
//! Deliberately absent: contents. Nobody reads them by way of this, and files of a project with keys are its own.

use sublet_core::id::{FileId, ProjectId};
use sublet_core::{Error, ErrorCode, Result};
use sublet_store::file::{self, File};
use sublet_store::{Page, PageRequest, project};

use crate::file::Files;
use crate::{Action, Actor};

impl Files {
    /// What archived projects keep, of one or of all that the actor reaches.
    pub async fn list_archived(&self, actor: &Actor, of: Option<&ProjectId>, page: &PageRequest) -> Result<Page<File>> {
        actor.require(Action::ManageArchivedFiles)?;
        let now = self.cloud.now();
        self.cloud
            .store
            .read((actor, of, page), move |(actor, of, page), tx| Box::pin(file::list_archived(tx, &actor.scope, *of, now, page)))
            .await
    }

    /// Deletes a file of an archived project that no running batch reads.
    pub async fn delete_archived(&self, actor: &Actor, id: &FileId) -> Result<()> {
        actor.require(Action::ManageArchivedFiles)?;
        let now = self.cloud.now();
        let file = self
            .cloud
            .store
            .write((self, actor, id), move |(files, actor, id), tx| {
                Box::pin(async move {
                    let file = file::get(tx, &actor.scope, id, now).await?;
                    if !project::get(tx, &actor.scope, &file.project).await?.archived {
                        return Err(Error::new(ErrorCode::Conflict, format!("'{}' has keys of its own", file.project))
                            .alternative("delete it with a key of the project: DELETE /v1/files/{id}"));
                    }
                    files.delete_in(tx, actor, &file, now).await?;
                    Ok(file)
                })
            })
            .await?;
        self.forget_own(&file).await;
        Ok(())
    }
}
