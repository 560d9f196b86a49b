//! The fuzz targets of this crate: functions of bytes that panic when something is wrong.
//!
//! There only for tests and fuzzers (`docs/fuzzing.md`).

use std::convert::Infallible;
use std::sync::OnceLock;

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue};
use sublet_core::{DurationMs, Error, Result};
use tokio::runtime::Runtime;

use crate::form::{self, Receiver};

/// As much of a body as is read: more of it says nothing new.
const BODY_BYTES_MAX: usize = 4_096;

/// Contents in memory.
struct Memory;

impl Receiver for Memory {
    type Upload = Vec<u8>;
    async fn begin(&self) -> Result<Vec<u8>> {
        Ok(Vec::new())
    }
    async fn append(upload: &mut Vec<u8>, piece: &[u8]) -> Result<()> {
        upload.extend_from_slice(piece);
        Ok(())
    }
}

/// What came of a form.
type Read = Option<(Option<(Vec<u8>, String)>, Option<String>, Option<Option<DurationMs>>)>;

/// A form and its `Content-Type`, which is the first line: the same however its bytes come. The first byte
/// says in which pieces.
pub fn upload_form(data: &[u8]) {
    let Some((step, rest)) = data.split_first() else { return };
    let line = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
    let Ok(kind) = HeaderValue::from_bytes(&rest[..line]) else { return };
    let body = rest.get(line + 1..).unwrap_or_default();
    let body = &body[..body.len().min(BODY_BYTES_MAX)];
    let whole = read(&kind, body, usize::MAX);
    assert_eq!(read(&kind, body, usize::from(*step).max(1)), whole, "in pieces of {step}");
    if let Some((Some((content, _)), _, _)) = whole {
        assert!(body.windows(content.len().max(1)).any(|part| part == content) || content.is_empty(), "a file is as it came");
    }
}

fn read(kind: &HeaderValue, body: &[u8], step: usize) -> Read {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    let build = || tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let pieces: Vec<Result<Bytes, Infallible>> =
        body.chunks(step.min(body.len().max(1))).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, kind.clone())]);
    let form = RUNTIME.get_or_init(build).block_on(form::read(&Memory, &headers, Body::from_stream(stream::iter(pieces))));
    let form = form.map_err(|error| check_refusal(&error)).ok()?;
    let expires_after = form.expires_after().map_err(|error| check_refusal(&error)).ok();
    Some((form.upload, form.purpose, expires_after))
}

fn check_refusal(error: &Error) {
    assert!((400..500).contains(&error.code().status()) && error.message().len() < 4_096, "{error:?}");
}

#[cfg(test)]
mod tests {
    sublet_fuzz::tests!(Quick: upload_form);
}
