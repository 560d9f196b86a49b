//! Files: uploaded as multipart forms, read as streams, never whole in memory.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError};
use std::task::Poll;
use std::time::Duration;

use axum::BoxError;
use axum::body::Body;
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use http::header::{CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, HeaderValue, Response};
use multer::{Constraints, Field, Multipart, SizeLimit};
use sublet_api::file as wire;
use sublet_api::object::{Deleted, FileTag};
use sublet_api::route::FILE_BODY_BYTES_MAX;
use sublet_cloud::data::File;
use sublet_cloud::file::{Files, NewFile, Upload};
use sublet_core::file::FilePurpose;
use sublet_core::id::FileId;
use sublet_core::{DurationMs, Error, ErrorCode, Result};

use crate::App;
use crate::answer::{Answer, json, text_of};
use crate::context::{Context, once, page_answer, page_request};
use crate::wire::count;

/// How long a client may be silent in the middle of an upload.
const PIECE_WAIT: Duration = Duration::from_secs(30);
/// How long a whole upload may take; contents without a row are swept later than that.
const UPLOAD_WAIT: Duration = Duration::from_secs(30 * 60);
/// Longest field of a form that is not the file, in bytes.
const FIELD_BYTES_MAX: u64 = 1_024;
/// Bytes that may come before a form gets on by a step: the reader keeps them all while it looks for a boundary.
const STEP_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of a content that are read at once.
const PIECE_BYTES: usize = 256 * 1024;

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

fn invalid(param: &str, message: &str) -> Error {
    Error::new(ErrorCode::InvalidRequest, message).param(param)
}

/// What a form said so far.
#[derive(Default)]
struct Form {
    upload: Option<(Upload, String)>,
    purpose: Option<String>,
    anchor: Option<String>,
    seconds: Option<String>,
}

/// Counts the bytes that came since the form last got on.
#[derive(Clone, Default)]
struct Leash(Arc<AtomicUsize>);

impl Leash {
    /// The form got on.
    fn step(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    /// A body that ends with an error when too much of it comes without a step.
    fn on(&self, body: Body) -> impl Stream<Item = Result<Bytes, BoxError>> + use<> {
        let came = Arc::clone(&self.0);
        let (mut pieces, mut pause) = (body.into_data_stream(), false);
        stream::poll_fn(move |context| {
            // The reader takes all that is there before it looks at any: after each piece it has to look.
            if std::mem::take(&mut pause) {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            let piece = std::task::ready!(pieces.poll_next_unpin(context));
            pause = true;
            Poll::Ready(piece.map(|piece| {
                let piece = piece?;
                let waiting = came.fetch_add(piece.len(), Ordering::Relaxed) + piece.len();
                if waiting > STEP_BYTES_MAX {
                    return Err("a part has no end, or a head that is too long".into());
                }
                Ok(piece)
            }))
        })
    }
}

impl Form {
    async fn take(&mut self, (app, context): (&App, &Context), field: Field<'_>, leash: &Leash) -> Result<()> {
        let name = field.name().unwrap_or_default().to_owned();
        let place = match name.as_str() {
            "file" if self.upload.is_some() => return Err(invalid("file", "one upload has one 'file'")),
            "file" => {
                let filename = field.file_name().unwrap_or("upload").to_owned();
                let upload = app.batches.files().begin(&context.actor).await?;
                self.upload = Some((take_content(upload, field, leash).await?, filename));
                return Ok(());
            }
            "purpose" => &mut self.purpose,
            "expires_after[anchor]" => &mut self.anchor,
            "expires_after[seconds]" => &mut self.seconds,
            _ => {
                let shown: String = name.chars().take(80).collect();
                let message = format!("the form has no field '{shown}'");
                return Err(Error::new(ErrorCode::UnsupportedField, message).param(shown));
            }
        };
        let text = tokio::time::timeout(PIECE_WAIT, field.text()).await;
        let text = text.map_err(|_| invalid(&name, "the form stopped coming"))?;
        *place = Some(text.map_err(|error| broken(&error))?);
        Ok(())
    }

    fn expires_after(&self) -> Result<Option<DurationMs>> {
        match (self.anchor.as_deref(), self.seconds.as_deref()) {
            (None, None) => Ok(None),
            (Some("created_at"), Some(seconds)) => {
                let seconds: u32 = seconds.parse().map_err(|_| invalid("expires_after", "'expires_after[seconds]' is a number"))?;
                Ok(Some(DurationMs::from_seconds(i64::from(seconds))))
            }
            _ => Err(invalid("expires_after", "'expires_after' has the anchor 'created_at' and seconds")),
        }
    }
}

async fn take_content(mut upload: Upload, mut field: Field<'_>, leash: &Leash) -> Result<Upload> {
    loop {
        leash.step();
        let piece = tokio::time::timeout(PIECE_WAIT, field.chunk()).await;
        let piece = piece.map_err(|_| invalid("file", "the file stopped coming"))?.map_err(|error| broken(&error))?;
        match piece {
            Some(piece) => upload.append(&piece).await?,
            None => return Ok(upload),
        }
    }
}

/// A form that cannot be read on.
fn broken(error: &multer::Error) -> Error {
    match error {
        multer::Error::FieldSizeExceeded { .. } | multer::Error::StreamSizeExceeded { .. } => Error::new(
            ErrorCode::BodyTooLarge,
            format!("a form has at most {FILE_BODY_BYTES_MAX} bytes, and its other fields {FIELD_BYTES_MAX}"),
        ),
        _ => Error::new(ErrorCode::InvalidRequest, format!("the form cannot be read: {error}")),
    }
}

fn boundary(headers: &HeaderMap) -> Result<String> {
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    multer::parse_boundary(kind).map_err(|_| {
        Error::new(ErrorCode::UnsupportedMediaType, "this route takes multipart/form-data")
            .alternative("curl -F purpose=batch -F file=@requests.jsonl")
    })
}

async fn read_form(app: &App, context: &Context, body: Body) -> Result<Form> {
    let whole = u64::try_from(FILE_BODY_BYTES_MAX).unwrap_or(0);
    let limits = SizeLimit::new().whole_stream(whole).per_field(FIELD_BYTES_MAX).for_field("file", whole);
    let constraints = Constraints::new().size_limit(limits);
    let leash = Leash::default();
    let mut parts = Multipart::with_constraints(leash.on(body), boundary(&context.headers)?, constraints);
    let mut form = Form::default();
    loop {
        leash.step();
        let field = tokio::time::timeout(PIECE_WAIT, parts.next_field()).await;
        let field = field.map_err(|_| invalid("file", "the form stopped coming"))?.map_err(|error| broken(&error))?;
        match field {
            Some(field) => form.take((app, context), field, &leash).await?,
            None => return Ok(form),
        }
    }
}

pub async fn create(app: App, context: Context) -> Result<Answer> {
    let body = context.form.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or_default();
    let read = tokio::time::timeout(UPLOAD_WAIT, read_form(&app, &context, body)).await;
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

/// A reading of a content under way.
struct Reading {
    files: Files,
    file: File,
    offset: u64,
}

pub async fn content(app: App, context: Context) -> Result<Answer> {
    let id: FileId = context.path("id")?;
    let files = app.batches.files().clone();
    let file = files.get(&context.actor, &id).await?;
    // Where the content is elsewhere, the refusal comes before the first byte.
    files.read(&file, 0, 1).await?;
    let (length, name) = (file.bytes.get(), file.id.to_string());
    let reading = Reading { files, file, offset: 0 };
    let mut response = Response::new(Body::from_stream(stream::try_unfold(reading, next_piece)));
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

async fn next_piece(mut reading: Reading) -> Result<Option<(Bytes, Reading)>> {
    let piece = reading.files.read(&reading.file, reading.offset, PIECE_BYTES).await?;
    if piece.is_empty() {
        return Ok(None);
    }
    reading.offset += u64::try_from(piece.len()).unwrap_or(u64::MAX);
    Ok(Some((Bytes::from(piece), reading)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "--b\r\ncontent-disposition: form-data; name=\"file\"; filename=\"x\"\r\n\r\n";

    /// A body of pieces, and how many of them were asked for.
    fn body(pieces: usize, first: &'static str) -> (Body, Arc<AtomicUsize>) {
        let asked = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&asked);
        let pieces = std::iter::once(Bytes::from(first)).chain((0..pieces).map(|_| Bytes::from(vec![b'x'; 64 * 1024])));
        let stream = stream::iter(pieces.map(Ok::<Bytes, std::io::Error>)).inspect(move |_| {
            counter.fetch_add(1, Ordering::Relaxed);
        });
        (Body::from_stream(stream), asked)
    }

    #[tokio::test]
    async fn a_form_without_a_boundary_is_not_kept_in_memory() {
        for first in ["", "--b\r\nx-endless: "] {
            let (body, asked) = body(10_000, first);
            let mut parts = Multipart::new(Leash::default().on(body), "b");
            assert!(parts.next_field().await.is_err());
            assert!(asked.load(Ordering::Relaxed) <= STEP_BYTES_MAX / (64 * 1024) + 2, "{asked:?}");
        }
    }

    #[tokio::test]
    async fn a_long_file_comes_piece_by_piece() {
        let leash = Leash::default();
        let (body, _) = body(200, HEAD);
        let mut parts = Multipart::new(leash.on(body), "b");
        let mut field = parts.next_field().await.unwrap().unwrap();
        let mut bytes = 0;
        // The body just ends; what came before is there.
        while let Ok(Some(piece)) = field.chunk().await {
            leash.step();
            bytes += piece.len();
        }
        assert!(bytes > 12 * STEP_BYTES_MAX, "{bytes}");
    }
}
