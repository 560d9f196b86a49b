//! Multipart forms that upload a file, read piece by piece.
//!
//! Invariant: memory is bounded whatever comes, and how the bytes are cut changes nothing.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use axum::BoxError;
use axum::body::Body;
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use multer::{Constraints, Field, Multipart, SizeLimit};
use sublet_api::route::FILE_BODY_BYTES_MAX;
use sublet_core::{DurationMs, Error, ErrorCode, Result};

/// How long a client may be silent in the middle of an upload.
const PIECE_WAIT: Duration = Duration::from_secs(30);
/// Longest field of a form that is not the file, in bytes.
const FIELD_BYTES_MAX: u64 = 1_024;
/// Bytes that may come before a form gets on by a step: the reader keeps them all while it looks for a boundary.
const STEP_BYTES_MAX: usize = 1024 * 1024;

/// Takes the content of a form's file.
pub(crate) trait Receiver: Sync {
    type Upload: Send;
    fn begin(&self) -> impl Future<Output = Result<Self::Upload>> + Send;
    fn append(upload: &mut Self::Upload, piece: &[u8]) -> impl Future<Output = Result<()>> + Send;
}

pub(crate) fn invalid(param: &str, message: &str) -> Error {
    Error::new(ErrorCode::InvalidRequest, message).param(param)
}

/// What a form said so far.
pub(crate) struct Form<U> {
    /// The file and its name.
    pub upload: Option<(U, String)>,
    pub purpose: Option<String>,
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

impl<U: Send> Form<U> {
    async fn take<R: Receiver<Upload = U>>(&mut self, receiver: &R, field: Field<'_>, leash: &Leash) -> Result<()> {
        let name = field.name().unwrap_or_default().to_owned();
        let place = match name.as_str() {
            "file" if self.upload.is_some() => return Err(invalid("file", "one upload has one 'file'")),
            "file" => {
                let filename = field.file_name().unwrap_or("upload").to_owned();
                let mut upload = receiver.begin().await?;
                take_content::<R>(&mut upload, field, leash).await?;
                self.upload = Some((upload, filename));
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

    pub fn expires_after(&self) -> Result<Option<DurationMs>> {
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

async fn take_content<R: Receiver>(upload: &mut R::Upload, mut field: Field<'_>, leash: &Leash) -> Result<()> {
    loop {
        leash.step();
        let piece = tokio::time::timeout(PIECE_WAIT, field.chunk()).await;
        let piece = piece.map_err(|_| invalid("file", "the file stopped coming"))?.map_err(|error| broken(&error))?;
        match piece {
            Some(piece) => R::append(upload, &piece).await?,
            None => return Ok(()),
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

/// Reads a form to its end.
pub(crate) async fn read<R: Receiver>(receiver: &R, headers: &HeaderMap, body: Body) -> Result<Form<R::Upload>> {
    let whole = u64::try_from(FILE_BODY_BYTES_MAX).unwrap_or(0);
    let limits = SizeLimit::new().whole_stream(whole).per_field(FIELD_BYTES_MAX).for_field("file", whole);
    let constraints = Constraints::new().size_limit(limits);
    let leash = Leash::default();
    let mut parts = Multipart::with_constraints(leash.on(body), boundary(headers)?, constraints);
    let mut form = Form { upload: None, purpose: None, anchor: None, seconds: None };
    loop {
        leash.step();
        let field = tokio::time::timeout(PIECE_WAIT, parts.next_field()).await;
        let field = field.map_err(|_| invalid("file", "the form stopped coming"))?.map_err(|error| broken(&error))?;
        match field {
            Some(field) => form.take(receiver, field, &leash).await?,
            None => return Ok(form),
        }
    }
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
