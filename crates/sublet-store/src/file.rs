//! Files: who owns which content. The content itself is kept elsewhere, under the file's id.
//!
//! Invariants: a row is written after its content is durable and deleted before it, so a row always has
//! its content; a content without a row is an orphan.

use sublet_core::file::FilePurpose;
use sublet_core::id::{FileId, OrganizationId, ProjectId};
use sublet_core::{Bytes, Error, ErrorCode, Result, Scope, Timestamp};

use crate::database::Tx;
use crate::page::{Page, PageRequest};
use crate::row::{Row, Value};
use crate::storage::EndedFile;
use crate::{params, storage};

/// A file of a project.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct File {
    pub id: FileId,
    pub organization: OrganizationId,
    pub project: ProjectId,
    /// Which store of contents has it.
    pub home: String,
    pub purpose: FilePurpose,
    pub filename: String,
    pub bytes: Bytes,
    /// SHA-256 of the content, as lower-case hex.
    pub content_hash: String,
    pub expires_at: Option<Timestamp>,
    pub created_at: Timestamp,
}

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT id, organization_id, project_id, home, purpose, filename, bytes, content_hash, expires_at, created_at FROM files ",
            $rest
        )
    };
}

fn from_row(row: &Row) -> Result<File> {
    let mut row = row.reader();
    Ok(File {
        id: row.parse()?,
        organization: row.parse()?,
        project: row.parse()?,
        home: row.string()?,
        purpose: row.parse()?,
        filename: row.string()?,
        bytes: Bytes::new(row.int()?),
        content_hash: row.string()?,
        expires_at: row.optional_time()?,
        created_at: row.time()?,
    })
}

pub async fn insert(tx: &mut Tx, file: &File) -> Result<()> {
    tx.execute(
        "INSERT INTO files (id, organization_id, project_id, home, purpose, filename, bytes, content_hash, expires_at, created_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        params![
            file.id.as_str(),
            file.organization.as_str(),
            file.project.as_str(),
            file.home.as_str(),
            file.purpose.as_str(),
            file.filename.as_str(),
            file.bytes.get(),
            file.content_hash.as_str(),
            file.expires_at,
            file.created_at
        ],
    )
    .await?;
    storage::begin(tx, (&file.organization, &file.project), file.created_at).await
}

/// The file, if the scope may see it and it has not expired.
pub async fn find(tx: &mut Tx, scope: &Scope, id: &FileId, now: Timestamp) -> Result<Option<File>> {
    let row = tx.fetch_optional(select!("WHERE id = $1"), params![id.as_str()]).await?;
    let file = row.as_ref().map(from_row).transpose()?;
    Ok(file.filter(|file| {
        crate::project::is_visible(scope, &file.organization, &file.project) && file.expires_at.is_none_or(|at| at > now)
    }))
}

pub async fn get(tx: &mut Tx, scope: &Scope, id: &FileId, now: Timestamp) -> Result<File> {
    find(tx, scope, id, now).await?.ok_or_else(|| Error::new(ErrorCode::NotFound, format!("there is no file '{id}'")))
}

/// Files that have not expired, of one purpose or of all.
pub async fn list(
    tx: &mut Tx,
    scope: &Scope,
    purpose: Option<FilePurpose>,
    now: Timestamp,
    page: &PageRequest,
) -> Result<Page<File>> {
    let (key, limit) = page.keyset();
    let sql = page.pick(
        select!(
            "WHERE ($1 = '' OR organization_id = $1) AND ($2 = '' OR project_id = $2) AND ($3 = '' OR purpose = $3)
             AND (expires_at IS NULL OR expires_at > $4) AND id > $5 ORDER BY id ASC LIMIT $6"
        ),
        select!(
            "WHERE ($1 = '' OR organization_id = $1) AND ($2 = '' OR project_id = $2) AND ($3 = '' OR purpose = $3)
             AND (expires_at IS NULL OR expires_at > $4) AND id < $5 ORDER BY id DESC LIMIT $6"
        ),
    );
    let organization = scope.organization().map_or("", OrganizationId::as_str);
    let project = scope.project().map_or("", ProjectId::as_str);
    let purpose = purpose.map_or("", FilePurpose::as_str);
    let rows = tx.fetch_all(sql, &[organization.into(), project.into(), purpose.into(), now.into(), key, limit]).await?;
    page.page(&rows, from_row)
}

/// Files of archived projects that have not expired, of one project or of all.
pub async fn list_archived(
    tx: &mut Tx,
    scope: &Scope,
    project: Option<&ProjectId>,
    now: Timestamp,
    page: &PageRequest,
) -> Result<Page<File>> {
    let (key, limit) = page.keyset();
    let sql = page.pick(
        select!(
            "WHERE ($1 = '' OR organization_id = $1) AND ($2 = '' OR project_id = $2)
             AND project_id IN (SELECT projects.id FROM projects WHERE projects.state = 'archived')
             AND (expires_at IS NULL OR expires_at > $3) AND id > $4 ORDER BY id ASC LIMIT $5"
        ),
        select!(
            "WHERE ($1 = '' OR organization_id = $1) AND ($2 = '' OR project_id = $2)
             AND project_id IN (SELECT projects.id FROM projects WHERE projects.state = 'archived')
             AND (expires_at IS NULL OR expires_at > $3) AND id < $4 ORDER BY id DESC LIMIT $5"
        ),
    );
    let organization = scope.organization().map_or("", OrganizationId::as_str);
    let project = scope.project().or(project).map_or("", ProjectId::as_str);
    let rows = tx.fetch_all(sql, &[organization.into(), project.into(), now.into(), key, limit]).await?;
    page.page(&rows, from_row)
}

/// Deletes a row. False if there was none.
pub async fn delete(tx: &mut Tx, file: &File, now: Timestamp) -> Result<bool> {
    if tx.execute("DELETE FROM files WHERE id = $1", params![file.id.as_str()]).await? == 0 {
        return Ok(false);
    }
    let ended_at = file.expires_at.map_or(now, |at| at.min(now));
    let File { id, project, bytes, created_at, .. } = file.clone();
    storage::end(tx, &EndedFile { id, project, bytes, created_at, ended_at }).await?;
    Ok(true)
}

/// Files of a project, and the bytes that they come to.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Kept {
    pub files: u64,
    pub bytes: u64,
}

impl Kept {
    #[must_use]
    pub const fn and(self, more: Self) -> Self {
        Self { files: self.files.saturating_add(more.files), bytes: self.bytes.saturating_add(more.bytes) }
    }
}

/// What a project keeps, expired files that are not swept yet among it.
pub async fn kept(tx: &mut Tx, project: &ProjectId) -> Result<Kept> {
    let row = tx
        .fetch_one(
            "SELECT COUNT(*), CAST(COALESCE(SUM(bytes), 0) AS BIGINT) FROM files WHERE project_id = $1",
            params![project.as_str()],
        )
        .await?;
    let mut row = row.reader();
    let count = |value: i64| u64::try_from(value).map_err(|_| Error::internal(format!("files come to {value}")));
    Ok(Kept { files: count(row.int()?)?, bytes: count(row.int()?)? })
}

/// Whether a project keeps a file that has not expired.
pub async fn keeps_any(tx: &mut Tx, project: &ProjectId, now: Timestamp) -> Result<bool> {
    let sql = "SELECT 1 FROM files WHERE project_id = $1 AND (expires_at IS NULL OR expires_at > $2) LIMIT 1";
    Ok(tx.fetch_optional(sql, params![project.as_str(), now]).await?.is_some())
}

/// Files of one home that expired and that no batch still reads, oldest first, over all tenants.
pub async fn take_expired(tx: &mut Tx, home: &str, now: Timestamp, files_max: i64) -> Result<Vec<FileId>> {
    let rows = tx
        .fetch_all(
            "DELETE FROM files WHERE id IN (SELECT id FROM files WHERE expires_at <= $1 AND home = $2 AND NOT EXISTS (SELECT 1 FROM batches
                 WHERE batches.input_file_id = files.id AND batches.status IN ('validating', 'in_progress', 'finalizing', 'cancelling'))
             ORDER BY expires_at LIMIT $3) RETURNING id, project_id, bytes, created_at, expires_at",
            params![now, home, files_max],
        )
        .await?;
    let mut taken = Vec::with_capacity(rows.len());
    for row in &rows {
        let mut row = row.reader();
        let (id, project, bytes) = (row.parse()?, row.parse()?, Bytes::new(row.int()?));
        let ended = EndedFile { id, project, bytes, created_at: row.time()?, ended_at: row.time()? };
        storage::end(tx, &ended).await?;
        taken.push(ended.id);
    }
    Ok(taken)
}

/// Those of these ids that have a row.
pub async fn known(tx: &mut Tx, ids: &[FileId]) -> Result<Vec<FileId>> {
    let values: Vec<Value<'_>> = ids.iter().map(|id| id.as_str().into()).collect();
    let rows = tx.fetch_listed("SELECT id FROM files WHERE id IN ", &values).await?;
    rows.iter().map(|row| row.reader().parse()).collect()
}
