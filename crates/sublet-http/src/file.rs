//! Files: uploaded as multipart forms, read as streams, never whole in memory.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use http::header::{CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, HeaderValue, Response};
use sublet_api::file as wire;
use sublet_api::object::{Deleted, FileTag};
use sublet_api::route::FILE_BODY_BYTES_MAX;
use sublet_cloud::data::File;
use sublet_cloud::file::{FILE_BYTES_MAX, Files, NewFile, Upload};
use sublet_cloud::file_egress::Download;
use sublet_cloud::file_room::Turn;
use sublet_core::file::FilePurpose;
use sublet_core::id::FileId;
use sublet_core::{DurationMs, Error, Result};

use crate::App;
use crate::answer::{Answer, json, text_of};
use crate::context::{Context, once, page_answer, page_request};
use crate::form::{self, Receiver, invalid};
use crate::wire::count;

/// How long a whole upload may take; contents without a row are swept later than that.
const UPLOAD_WAIT: Duration = Duration::from_secs(30 * 60);

fn to_wire(file: &File) -> Result<wire::File> {
    Ok(wire::File {
        object: FileTag,
        id: file.id.clone(),
        bytes: count(file.bytes.get())?,
        created_at: file.created_at.into(),
        expires_at: file.expires_at.map(Into::into),
        filename: file.filename.clone(),
        purpose: file.purpose.as_str().to_owned(),
        status: wire::FileStatus::Processed,
        sha256: file.content_hash.clone(),
    })
}

/// A file as it comes, in the turn that it has.
struct Store<'a>(&'a Files, Mutex<Option<Turn>>);

impl Receiver for Store<'_> {
    type Upload = Upload;
    async fn begin(&self) -> Result<Upload> {
        let turn = self.1.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.0.begin(turn.ok_or_else(|| Error::internal("one upload took two turns"))?).await
    }
    async fn append(upload: &mut Upload, piece: &[u8]) -> Result<()> {
        upload.append(piece).await
    }
}

/// How many bytes a file has at least, from the announced length of its form: the rest may be around it.
fn bytes_least(headers: &HeaderMap) -> u64 {
    let announced = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok()).unwrap_or(0_u64);
    let around = u64::try_from(FILE_BODY_BYTES_MAX).unwrap_or(u64::MAX).saturating_sub(FILE_BYTES_MAX);
    announced.saturating_sub(around)
}

pub async fn create(app: App, context: Context) -> Result<Answer> {
    let body = context.form.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or_default();
    // What does not fit is refused before it comes.
    let turn = app.batches.files().admit(&context.call_for("")?, bytes_least(&context.headers)).await?;
    let files = Store(app.batches.files(), Mutex::new(Some(turn)));
    let read = tokio::time::timeout(UPLOAD_WAIT, form::read(&files, &context.headers, body)).await;
    let mut form = read.map_err(|_| invalid("file", "the upload took too long"))??;
    let purpose = form.purpose.as_deref().ok_or_else(|| invalid("purpose", "'purpose' is missing"))?;
    let purpose: FilePurpose = purpose.parse()?;
    let expires_after = form.expires_after()?;
    let (upload, filename) = form.upload.take().ok_or_else(|| invalid("file", "'file' is missing"))?;
    let stored = upload.commit().await?;
    let new = NewFile { purpose, filename, expires_after };
    let life = expires_after.map_or(0, DurationMs::millis);
    let call = context.call_for(&format!("{purpose}\n{}\n{life}\n{}", new.filename, stored.content_hash));
    let outcome = match call {
        Ok(call) => app.batches.files().create(&call, stored, &new, &|file| text_of(&to_wire(file)?)).await?,
        Err(error) => {
            app.batches.files().discard(stored).await;
            return Err(error);
        }
    };
    once(outcome, |file| to_wire(file).ok())
}

pub async fn get(app: App, context: Context) -> Result<Answer> {
    let id: FileId = context.path("id")?;
    json(&to_wire(&app.batches.files().get(&context.actor, &id).await?)?)
}

pub async fn list(app: App, context: Context) -> Result<Answer> {
    let query: wire::FileListQuery = context.query()?;
    let purpose = query.purpose.as_deref().map(str::parse::<FilePurpose>).transpose()?;
    let asked = query.page();
    let page = app.batches.files().list(&context.actor, purpose, &page_request(&asked)?).await?;
    let items = page.items.iter().map(to_wire).collect::<Result<Vec<_>>>()?;
    page_answer(&asked, sublet_cloud::data::Page { items, has_more: page.has_more }, |wire| wire, |wire| wire.id.to_string())
}

pub async fn delete(app: App, context: Context) -> Result<Answer> {
    let id: FileId = context.path("id")?;
    app.batches.files().delete(&context.actor, &id).await?;
    json(&Deleted { object: FileTag::TEXT.to_owned(), id: id.to_string(), deleted: true })
}

pub async fn content(app: App, context: Context) -> Result<Answer> {
    let id: FileId = context.path("id")?;
    let download = app.batches.files().open(&context.actor, &id).await?;
    let (length, name) = (download.file().bytes.get(), download.file().id.to_string());
    let mut response = Response::new(Body::from_stream(stream::try_unfold(download, next_piece)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    if let Ok(disposition) = HeaderValue::from_str(&format!("attachment; filename=\"{name}\"")) {
        headers.insert(CONTENT_DISPOSITION, disposition);
    }
    Ok(Answer::Raw(response))
}

async fn next_piece(mut download: Download) -> Result<Option<(Bytes, Download)>> {
    let piece = download.next().await?;
    Ok(piece.map(|piece| (Bytes::from(piece), download)))
}
