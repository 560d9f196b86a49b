//! Files of projects: uploaded piece by piece, read piece by piece, never whole in memory.
//!
//! Invariants: a content is durable before its row is written, and its row is gone before the content is,
//! so whoever finds a row can read the file; contents without a row are swept; a file that a running batch
//! reads is not deleted.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use sublet_core::blob::{BlobStore, BlobWriter};
use sublet_core::file::FilePurpose;
use sublet_core::id::{FileId, OrganizationId, ProjectId};
use sublet_core::{Bytes, DurationMs, Error, ErrorCode, Result, Timestamp};
use sublet_store::file::{self, File, Kept};
use sublet_store::{Page, PageRequest, Tx, batch, idempotency, project};

use crate::audit::Deed;
use crate::file_egress::Desk;
use crate::file_room::{FileLimits, Room, Turn};
use crate::idempotency::{Answer, Call, Render};
use crate::{Action, Actor, Cloud};

/// Largest file that a client uploads, in bytes.
pub const FILE_BYTES_MAX: u64 = 200 * 1024 * 1024;
/// Longest name of a file, in bytes.
pub const FILENAME_BYTES_MAX: usize = 512;
/// Bytes that are handed to the disk at once.
const PIECE_BYTES: usize = 256 * 1024;
/// A content without a row is an orphan after this time, which no upload takes.
const ORPHAN_AGE: DurationMs = DurationMs::from_hours(1);
/// Expired files that one pass removes at most.
const EXPIRED_PER_PASS: i64 = 100;

/// The files of a cloud over one store of contents. Cheap to clone.
#[derive(Clone)]
pub struct Files {
    pub(crate) cloud: Cloud,
    pub(crate) blobs: Arc<dyn BlobStore>,
    room: Room,
    pub(crate) desk: Desk,
}

/// What a client says of its file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewFile {
    pub purpose: FilePurpose,
    pub filename: String,
    pub expires_after: Option<DurationMs>,
}

/// A content on its way to the disk. Dropping it forgets it.
pub struct Upload {
    id: FileId,
    writer: Option<Box<dyn BlobWriter>>,
    buffer: Vec<u8>,
    bytes: u64,
    hash: Sha256,
    /// `None` for what the cloud writes itself: a batch of many answers must be able to end.
    turn: Option<Turn>,
}

/// A content that is durable and has no row yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stored {
    pub id: FileId,
    pub bytes: Bytes,
    pub content_hash: String,
}

/// Whose a file is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Owner {
    pub organization: OrganizationId,
    pub project: ProjectId,
}

/// Runs what blocks on a thread that may.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(io::Error::other(error))).map_err(|error| match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Error::new(ErrorCode::StorageFull, "the disk of the files is full").context(error.to_string())
        }
        _ => Error::internal(format!("the store of files failed: {error}")),
    })
}

impl Upload {
    fn new(id: FileId, writer: Box<dyn BlobWriter>) -> Self {
        Self { id, writer: Some(writer), buffer: Vec::new(), bytes: 0, hash: Sha256::new(), turn: None }
    }

    /// Makes it a client's.
    fn bounded(self, turn: Turn) -> Self {
        Self { turn: Some(turn), ..self }
    }

    /// Takes more of the content.
    pub async fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.bytes += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if let Some(turn) = &mut self.turn {
            check_size(self.bytes)?;
            turn.grow(self.bytes)?;
        }
        self.hash.update(bytes);
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= PIECE_BYTES { self.flush().await } else { Ok(()) }
    }

    async fn flush(&mut self) -> Result<()> {
        let buffer = std::mem::take(&mut self.buffer);
        let mut writer = self.writer.take().ok_or_else(|| Error::internal("an upload went on after it had failed"))?;
        let writer = blocking(move || writer.append(&buffer).map(|()| writer)).await?;
        self.writer = Some(writer);
        Ok(())
    }

    /// Makes the content durable.
    pub async fn commit(mut self) -> Result<Stored> {
        self.flush().await?;
        let writer = self.writer.take().ok_or_else(|| Error::internal("an upload went on after it had failed"))?;
        blocking(move || writer.commit()).await?;
        let content_hash = self.hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Stored { id: self.id, bytes: Bytes::new(i64::try_from(self.bytes).unwrap_or(i64::MAX)), content_hash })
    }

    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }
}

impl Files {
    pub fn new(cloud: Cloud, blobs: Arc<dyn BlobStore>, limits: FileLimits) -> Self {
        Self { cloud, blobs, room: Room::new(limits), desk: Desk::default() }
    }

    /// Whether a client's content of at least so many bytes may come. A repeat of an upload that was taken before
    /// adds nothing: it may come although the project is full.
    pub async fn admit(&self, call: &Call, bytes_least: u64) -> Result<Turn> {
        call.actor.require(Action::UseModels)?;
        check_size(bytes_least)?;
        let (_, project) = call.actor.project()?;
        let kept = self
            .cloud
            .store
            .read((call, project), |(call, project), tx| {
                Box::pin(async move {
                    if let Some(key) = &call.idempotency
                        && idempotency::is_known(tx, key).await?
                    {
                        return Ok(None);
                    }
                    file::kept(tx, project).await.map(Some)
                })
            })
            .await?;
        let turn = self.room.enter(project, kept, bytes_least)?;
        if let Some(kept) = kept.filter(|_| self.cloud.sells_storage()) {
            let with = kept.and(Kept { files: 1, bytes: bytes_least });
            let of = (&self.cloud, &call.actor);
            self.cloud.store.write(of, move |(cloud, actor), tx| Box::pin(cloud.check_storage_covered(tx, actor, with))).await?;
        }
        Ok(turn)
    }

    /// Begins to take a client's content.
    pub async fn begin(&self, turn: Turn) -> Result<Upload> {
        Ok(self.begin_own().await?.bounded(turn))
    }

    /// Whether a batch may begin, which writes two files at its end that nobody refuses.
    pub(crate) async fn check_batch(&self, tx: &mut Tx, project: &ProjectId, open_batches: i64) -> Result<()> {
        let kept = file::kept(tx, project).await?;
        let batches = u64::try_from(open_batches).unwrap_or(0).saturating_add(1);
        // A full project has no byte left, and any answer has some.
        self.room.limits.check(kept, Kept { files: batches.saturating_mul(2), bytes: 1 })
    }

    /// Begins a content of the cloud's own, which whoever writes it bounds.
    pub(crate) async fn begin_own(&self) -> Result<Upload> {
        let id: FileId = self.cloud.ids.mint();
        let (blobs, name) = (Arc::clone(&self.blobs), id.clone());
        let writer = blocking(move || blobs.create(&name)).await?;
        Ok(Upload::new(id, writer))
    }

    /// Forgets a stored content.
    pub async fn discard(&self, stored: Stored) {
        self.forget(&stored.id).await;
    }

    /// Gives a stored content to the caller's project. A content that is not taken is removed; when nobody can
    /// know whether it was taken, the sweep finds out.
    pub async fn create(&self, call: &Call, stored: Stored, new: &NewFile, render: &Render<File>) -> Result<Answer<File>> {
        let id = stored.id.clone();
        let created = self.try_create(call, stored, new, render).await;
        let is_unused = match &created {
            Ok(Answer::New(_)) => false,
            Ok(Answer::Replayed(_)) => true,
            Err(error) => !may_be_written(error),
        };
        if is_unused {
            self.forget(&id).await;
        }
        created
    }

    async fn try_create(&self, call: &Call, stored: Stored, new: &NewFile, render: &Render<File>) -> Result<Answer<File>> {
        call.actor.require(Action::UseModels)?;
        check(new, &stored)?;
        let (organization, project) = call.actor.project()?;
        let owner = Owner { organization: organization.clone(), project: project.clone() };
        let file = self.file(&owner, stored, new);
        self.cloud
            .once(call, render, (self, call, file), |(files, call, file), tx| {
                Box::pin(async move {
                    if project::get(tx, &call.actor.scope, &file.project).await?.archived {
                        return Err(Error::new(ErrorCode::Conflict, format!("'{}' is archived", file.project))
                            .alternative("upload it to another project, with a key of that"));
                    }
                    let bytes = u64::try_from(file.bytes.get()).unwrap_or(u64::MAX);
                    let kept = file::kept(tx, &file.project).await?;
                    let more = Kept { files: 1, bytes };
                    files.room.limits.check(kept, more)?;
                    files.cloud.check_storage_covered(tx, &call.actor, kept.and(more)).await?;
                    file::insert(tx, file).await?;
                    files.note(tx, &call.actor, "file.create", file).await?;
                    Ok(file.clone())
                })
            })
            .await
    }

    pub(crate) fn file(&self, owner: &Owner, stored: Stored, new: &NewFile) -> File {
        let created_at = self.cloud.now();
        File {
            id: stored.id,
            organization: owner.organization.clone(),
            project: owner.project.clone(),
            home: self.blobs.home().to_owned(),
            purpose: new.purpose,
            filename: new.filename.clone(),
            bytes: stored.bytes,
            content_hash: stored.content_hash,
            expires_at: new.expires_after.map(|after| created_at.plus(after)),
            created_at,
        }
    }

    async fn note(&self, tx: &mut Tx, actor: &Actor, action: &str, file: &File) -> Result<()> {
        let detail = format!("{} bytes for {}", file.bytes, file.purpose);
        let deed = Deed { organization: Some(&file.organization), action, target: file.id.as_str(), detail };
        self.cloud.record(tx, actor, deed, self.cloud.now()).await
    }

    /// Removes a content that has no row. What cannot be removed now is swept later.
    pub(crate) async fn forget(&self, id: &FileId) {
        let (blobs, name) = (Arc::clone(&self.blobs), id.clone());
        if let Err(error) = blocking(move || blobs.remove(&name)).await {
            tracing::warn!(%id, ?error, "a content without a row could not be removed");
        }
    }

    pub async fn get(&self, actor: &Actor, id: &FileId) -> Result<File> {
        actor.require(Action::UseModels)?;
        let now = self.cloud.now();
        self.cloud.store.read((actor, id), move |(actor, id), tx| Box::pin(file::get(tx, &actor.scope, id, now))).await
    }

    pub async fn list(&self, actor: &Actor, purpose: Option<FilePurpose>, page: &PageRequest) -> Result<Page<File>> {
        actor.require(Action::UseModels)?;
        let now = self.cloud.now();
        self.cloud
            .store
            .read((actor, page), move |(actor, page), tx| Box::pin(file::list(tx, &actor.scope, purpose, now, page)))
            .await
    }

    /// Deletes a file that no running batch reads.
    pub async fn delete(&self, actor: &Actor, id: &FileId) -> Result<()> {
        actor.require(Action::UseModels)?;
        let now = self.cloud.now();
        let file = self
            .cloud
            .store
            .write((self, actor, id), move |(files, actor, id), tx| {
                Box::pin(async move {
                    let file = file::get(tx, &actor.scope, id, now).await?;
                    files.delete_in(tx, actor, &file, now).await?;
                    Ok(file)
                })
            })
            .await?;
        self.forget_own(&file).await;
        Ok(())
    }

    /// Deletes a row: its content goes after it, and its meter ends now.
    pub(crate) async fn delete_in(&self, tx: &mut Tx, actor: &Actor, file: &File, now: Timestamp) -> Result<()> {
        let id = &file.id;
        if batch::reads_file(tx, id).await? {
            return Err(Error::new(ErrorCode::Conflict, format!("a batch that has not ended reads '{id}'"))
                .alternative("cancel the batch, or wait for its end"));
        }
        file::delete(tx, file, now).await?;
        self.note(tx, actor, "file.delete", file).await
    }

    /// Removes the content of a deleted file, if it is here; elsewhere it is swept.
    pub(crate) async fn forget_own(&self, file: &File) {
        if file.home == self.blobs.home() {
            self.forget(&file.id).await;
        }
    }

    /// A piece of a file that the caller was given by [`Files::get`]; empty at its end.
    pub async fn read(&self, file: &File, offset: u64, bytes_max: usize) -> Result<Vec<u8>> {
        if file.home != self.blobs.home() {
            return Err(Error::new(ErrorCode::Unreachable, format!("the content of '{}' is at another process", file.id))
                .alternative("ask the process that it was uploaded to"));
        }
        self.read_blob(&file.id, offset, bytes_max).await
    }

    pub(crate) async fn read_blob(&self, id: &FileId, offset: u64, bytes_max: usize) -> Result<Vec<u8>> {
        let (blobs, name) = (Arc::clone(&self.blobs), id.clone());
        blocking(move || blobs.read(&name, offset, bytes_max)).await
    }

    /// Removes what has expired, and contents that never got a row.
    pub async fn sweep(&self) -> Result<u64> {
        let (now, home) = (self.cloud.now(), self.blobs.home().to_owned());
        let expired =
            self.cloud.store.write(home, move |home, tx| Box::pin(file::take_expired(tx, home, now, EXPIRED_PER_PASS))).await?;
        self.forget_all(&expired).await;
        let blobs = Arc::clone(&self.blobs);
        blocking(move || blobs.sweep_unfinished(ORPHAN_AGE)).await?;
        self.close_lost_downloads().await?;
        let blobs = Arc::clone(&self.blobs);
        let old: Vec<FileId> =
            blocking(move || blobs.list()).await?.into_iter().filter(|(_, age)| *age > ORPHAN_AGE).map(|(id, _)| id).collect();
        let known = self.cloud.store.read(&old, |old, tx| Box::pin(file::known(tx, old))).await?;
        let known: BTreeSet<FileId> = known.into_iter().collect();
        let orphans: Vec<FileId> = old.into_iter().filter(|id| !known.contains(id)).collect();
        self.forget_all(&orphans).await;
        Ok(u64::try_from(expired.len() + orphans.len()).unwrap_or(u64::MAX))
    }

    async fn forget_all(&self, ids: &[FileId]) {
        for id in ids {
            self.forget(id).await;
        }
    }
}

/// Whether a write that failed so may stand all the same: the reply to its commit may be what was lost.
pub(crate) fn may_be_written(error: &Error) -> bool {
    matches!(error.code(), ErrorCode::StoreUnavailable | ErrorCode::Internal)
}

fn check_size(bytes: u64) -> Result<()> {
    if bytes <= FILE_BYTES_MAX {
        return Ok(());
    }
    Err(Error::new(ErrorCode::BodyTooLarge, format!("a file has at most {FILE_BYTES_MAX} bytes"))
        .param("file")
        .alternative("cut it into several files"))
}

fn check(new: &NewFile, stored: &Stored) -> Result<()> {
    if !new.purpose.is_uploaded() {
        return Err(Error::new(ErrorCode::InvalidRequest, "files of this purpose are made by batches").param("purpose"));
    }
    if new.filename.is_empty() || new.filename.len() > FILENAME_BYTES_MAX {
        return Err(
            Error::new(ErrorCode::InvalidRequest, format!("a file's name has 1 to {FILENAME_BYTES_MAX} bytes")).param("file")
        );
    }
    if stored.bytes == Bytes::ZERO {
        return Err(Error::new(ErrorCode::InvalidRequest, "the file is empty").param("file"));
    }
    check_expiry(new.expires_after)
}

/// Shortest and longest life of a file that expires: OpenAI's bounds.
const LIFE_MIN: DurationMs = DurationMs::from_hours(1);
const LIFE_MAX: DurationMs = DurationMs::from_hours(30 * 24);

pub(crate) fn check_expiry(after: Option<DurationMs>) -> Result<()> {
    if after.is_none_or(|after| (LIFE_MIN..=LIFE_MAX).contains(&after)) {
        return Ok(());
    }
    let (least, most) = (LIFE_MIN.seconds_ceil(), LIFE_MAX.seconds_ceil());
    Err(Error::new(ErrorCode::InvalidRequest, format!("'expires_after.seconds' is between {least} and {most}"))
        .param("expires_after"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use sublet_core::id::Identifier;

    /// A disk that takes everything.
    struct Endless;

    impl BlobWriter for Endless {
        fn append(&mut self, _: &[u8]) -> io::Result<()> {
            Ok(())
        }
        fn commit(self: Box<Self>) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn only_what_a_client_uploads_is_bounded() {
        let almost =
            || Upload { bytes: FILE_BYTES_MAX - 1, ..Upload::new(FileId::encode(Timestamp::EPOCH, [0; 10]), Box::new(Endless)) };
        let project: ProjectId = "proj_1".parse().unwrap();
        let turn = Room::new(FileLimits::default()).enter(&project, None, 0).unwrap();
        let (mut own, mut client) = (almost(), almost().bounded(turn));
        for upload in [&mut own, &mut client] {
            upload.append(b"1").await.unwrap();
        }
        assert_eq!(client.append(b"2").await.unwrap_err().code(), ErrorCode::BodyTooLarge);
        own.append(b"2").await.unwrap();
        assert_eq!(own.commit().await.unwrap().bytes.get(), i64::try_from(FILE_BYTES_MAX).unwrap() + 1);
    }
}
