//! Projects of an organization.

use sublet_core::id::{OrganizationId, ProjectId};
use sublet_core::{Error, ErrorCode, Result, Scope, Timestamp};

use crate::database::Tx;
use crate::page::{Page, PageRequest};
use crate::row::Row;
use crate::{list_sql, params};

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Project {
    pub id: ProjectId,
    pub organization: OrganizationId,
    pub name: String,
    pub archived: bool,
    pub generation: i64,
    pub created_at: Timestamp,
}

fn from_row(row: &Row) -> Result<Project> {
    let mut row = row.reader();
    Ok(Project {
        id: row.parse()?,
        organization: row.parse()?,
        name: row.string()?,
        archived: row.text()? == "archived",
        generation: row.int()?,
        created_at: row.time()?,
    })
}

pub async fn insert(tx: &mut Tx, project: &Project) -> Result<()> {
    tx.execute(
        "INSERT INTO projects (id, organization_id, name, state, generation, created_at, metadata) VALUES ($1, $2, $3, 'active', $4, $5, '{}')",
        params![project.id.as_str(), project.organization.as_str(), project.name.as_str(), project.generation, project.created_at],
    )
    .await?;
    Ok(())
}

pub async fn find(tx: &mut Tx, scope: &Scope, id: &ProjectId) -> Result<Option<Project>> {
    let row = tx
        .fetch_optional(
            "SELECT id, organization_id, name, state, generation, created_at FROM projects WHERE id = $1",
            params![id.as_str()],
        )
        .await?;
    let project = row.as_ref().map(from_row).transpose()?;
    Ok(project.filter(|project| is_visible(scope, &project.organization, &project.id)))
}

/// Whether a scope may see something of this project.
pub fn is_visible(scope: &Scope, organization: &OrganizationId, project: &ProjectId) -> bool {
    scope.organization().is_none_or(|own| own == organization) && scope.project().is_none_or(|own| own == project)
}

pub async fn get(tx: &mut Tx, scope: &Scope, id: &ProjectId) -> Result<Project> {
    find(tx, scope, id).await?.ok_or_else(|| Error::new(ErrorCode::NotFound, format!("there is no project '{id}'")))
}

/// The projects of an organization; the archived ones only if `archived` says so.
pub async fn list(tx: &mut Tx, organization: &OrganizationId, archived: bool, page: &PageRequest) -> Result<Page<Project>> {
    let (key, limit) = page.keyset();
    let sql = list_sql!(
        page,
        "SELECT id, organization_id, name, state, generation, created_at FROM projects WHERE organization_id = $1 AND (state = 'active' OR $2 = 1)",
        "id",
        "3",
        "4"
    );
    let rows = tx.fetch_all(sql, &[organization.as_str().into(), i64::from(archived).into(), key, limit]).await?;
    page.page(&rows, from_row)
}

/// Archives a project; its keys stop working with it.
pub async fn archive(tx: &mut Tx, scope: &Scope, id: &ProjectId, now: Timestamp) -> Result<Project> {
    let project = get(tx, scope, id).await?;
    tx.execute(
        "UPDATE projects SET state = 'archived', generation = generation + 1 WHERE id = $1 AND state = 'active'",
        params![id.as_str()],
    )
    .await?;
    tx.execute("UPDATE api_keys SET revoked_at = $2 WHERE project_id = $1 AND revoked_at IS NULL", params![id.as_str(), now])
        .await?;
    Ok(Project { archived: true, ..project })
}
