//! Files of archived projects.

use sublet_api::file as wire;
use sublet_api::object::{ArchivedFileTag, Deleted, FileTag};
use sublet_cloud::data::{File, Page};
use sublet_core::Result;
use sublet_core::id::FileId;
use sublet_core::key::KeyPlane;

use crate::App;
use crate::answer::{Answer, json};
use crate::context::{Context, page_answer, page_request};
use crate::wire::count;

fn to_wire(file: &File, plane: KeyPlane) -> Result<wire::ArchivedFile> {
    Ok(wire::ArchivedFile {
        object: ArchivedFileTag,
        id: file.id.clone(),
        organization: file.organization.clone(),
        project: file.project.clone(),
        bytes: count(file.bytes.get())?,
        purpose: file.purpose.as_str().to_owned(),
        // What somebody called it is the organization's.
        filename: (plane == KeyPlane::Admin).then(|| file.filename.clone()),
        created_at: file.created_at.into(),
        expires_at: file.expires_at.map(Into::into),
    })
}

pub async fn list(app: App, context: Context) -> Result<Answer> {
    let query: wire::ArchivedFileListQuery = context.query()?;
    let asked = query.page();
    let page = app.batches.files().list_archived(&context.actor, query.project.as_ref(), &page_request(&asked)?).await?;
    let items = page.items.iter().map(|file| to_wire(file, context.actor.plane)).collect::<Result<Vec<_>>>()?;
    page_answer(&asked, Page { items, has_more: page.has_more }, |wire| wire, |wire| wire.id.to_string())
}

pub async fn delete(app: App, context: Context) -> Result<Answer> {
    let id: FileId = context.path("id")?;
    app.batches.files().delete_archived(&context.actor, &id).await?;
    json(&Deleted { object: FileTag::TEXT.to_owned(), id: id.to_string(), deleted: true })
}
