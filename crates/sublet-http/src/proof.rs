//! What proves invoices and charges: bundles, receipts and the log.

use std::str::FromStr;
use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use http::header::{CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, Response};
use sublet_api::list::ListQuery;
use sublet_api::object::ReceiptTag;
use sublet_api::receipt as wire;
use sublet_cloud::Cloud;
use sublet_cloud::proof::{BundleCursor, ChargeProof, ChargeReceipt, LogTile};
use sublet_core::id::{InvoiceId, JobId, RequestId};
use sublet_core::{Error, ErrorCode, Result};

use crate::App;
use crate::answer::Answer;
use crate::context::{Context, page_answer, page_request};
use crate::wire::money;

/// Hashes or entries of a whole tile.
const TILE_WIDTH: u64 = 256;
/// How long a tile may be kept by who asked, in seconds: whole ones never change.
const TILE_CACHE: &str = "public, max-age=31536000, immutable";
/// Longest place in a path, in groups of three digits.
const PLACE_GROUPS_MAX: usize = 6;

/// A reading of a bundle under way.
struct Reading {
    cloud: Arc<Cloud>,
    /// Comes before the leaves.
    header: Option<String>,
    cursor: BundleCursor,
}

pub async fn bundle(app: App, context: Context) -> Result<Answer> {
    let id: InvoiceId = context.path("id")?;
    let (header, cursor) = app.cloud.open_bundle(&context.actor, &id).await?;
    let reading = Reading { cloud: Arc::new(app.cloud.clone()), header: Some(header), cursor };
    let mut response = Response::new(Body::from_stream(stream::try_unfold(reading, next_lines)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Ok(disposition) = HeaderValue::from_str(&format!("attachment; filename=\"{id}.bundle\"")) {
        headers.insert(CONTENT_DISPOSITION, disposition);
    }
    Ok(Answer::Raw(response))
}

async fn next_lines(mut reading: Reading) -> Result<Option<(Bytes, Reading)>> {
    if let Some(mut header) = reading.header.take() {
        header.push('\n');
        return Ok(Some((header.into(), reading)));
    }
    let lines = reading.cloud.next_bundle_lines(&mut reading.cursor).await?;
    Ok(lines.map(|lines| (lines.into(), reading)))
}

pub async fn receipts(app: App, context: Context) -> Result<Answer> {
    let Source(source) = context.path("id")?;
    let query: ListQuery = context.query()?;
    let asked = query.page();
    let page = app.cloud.receipts(&context.actor, &source, &page_request(&asked)?).await?;
    page_answer(&asked, page, to_wire, |wire| wire.charge.to_string())
}

fn to_wire(receipt: ChargeReceipt) -> wire::Receipt {
    let (status, sealed_after, text) = match receipt.proof {
        ChargeProof::Sealed(text) => (wire::ReceiptStatus::Sealed, None, Some(text)),
        ChargeProof::Pending { sealed_after } => (wire::ReceiptStatus::Pending, Some(sealed_after.into()), None),
        ChargeProof::Never => (wire::ReceiptStatus::Never, None, None),
    };
    wire::Receipt {
        object: ReceiptTag,
        charge: receipt.charge,
        amount: money(receipt.amount, receipt.currency),
        period: receipt.period.to_string(),
        status,
        sealed_after,
        receipt: text,
    }
}

pub async fn log_key(app: App, _: Context) -> Result<Answer> {
    Ok(Answer::Text(format!("{}\n", app.cloud.log().await?.key)))
}

pub async fn log_checkpoint(app: App, _: Context) -> Result<Answer> {
    Ok(Answer::Text(app.cloud.log().await?.checkpoint))
}

pub async fn log_tile(app: App, context: Context) -> Result<Answer> {
    let TileName(tile) = context.path("path")?;
    let bytes = app.cloud.log_tile(tile).await?;
    let bytes = bytes.ok_or_else(|| Error::new(ErrorCode::NotFound, "the log is not that long yet"))?;
    let mut response = Response::new(Body::from(bytes));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(TILE_CACHE));
    Ok(Answer::Raw(response))
}

/// What is charged: a request or a job.
struct Source(String);

impl FromStr for Source {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        if text.parse::<RequestId>().is_ok() || text.parse::<JobId>().is_ok() {
            return Ok(Self(text.to_owned()));
        }
        let shown: String = text.chars().take(80).collect();
        Err(Error::new(ErrorCode::InvalidId, format!("'{shown}' is no request and no job"))
            .alternative("name what was charged by the id in x-request-id, req_…, or by its job's, job_…"))
    }
}

/// The tile that a path names.
struct TileName(LogTile);

impl FromStr for TileName {
    type Err = Error;
    fn from_str(path: &str) -> Result<Self> {
        tile(path).map(Self).ok_or_else(|| {
            let shown: String = path.chars().take(60).collect();
            Error::new(ErrorCode::NotFound, format!("'{shown}' is no tile of the log"))
                .alternative("tiles are named as tlog-tiles names them: 0/x001/234, 0/000.p/5 or entries/000")
        })
    }
}

/// `<level>/<place>` or `entries/<place>`, with `.p/<width>` behind it for a tile that is not full.
fn tile(path: &str) -> Option<LogTile> {
    let (kind, rest) = path.split_once('/')?;
    let (place, width) = match rest.split_once(".p/") {
        None => (place(rest)?, TILE_WIDTH),
        Some((at, width)) => (place(at)?, number(width).filter(|width| (1..TILE_WIDTH).contains(width))?),
    };
    if kind == "entries" {
        return Some(LogTile::Entries { place, width });
    }
    let level = number(kind).and_then(|level| u32::try_from(level).ok()).filter(|level| *level < 64)?;
    Some(LogTile::Hashes { level, place, width })
}

/// Groups of three digits, all but the last with an `x` before them: `x001/234`.
fn place(text: &str) -> Option<u64> {
    let groups: Vec<&str> = text.split('/').collect();
    let (last, before) = groups.split_last()?;
    if groups.len() > PLACE_GROUPS_MAX || before.first() == Some(&"x000") {
        return None;
    }
    let three =
        |digits: &str| (digits.len() == 3 && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse::<u64>().ok())?;
    let mut place = 0;
    for group in before {
        place = place * 1_000 + three(group.strip_prefix('x')?)?;
    }
    Some(place * 1_000 + three(last)?)
}

/// Decimal without leading zeros or signs.
fn number(text: &str) -> Option<u64> {
    text.parse::<u64>().ok().filter(|number| number.to_string() == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_are_named_as_the_specification_names_them() {
        let hashes = |level, place, width| Some(LogTile::Hashes { level, place, width });
        let cases = [
            ("0/000", hashes(0, 0, 256)),
            ("1/x001/234", hashes(1, 1_234, 256)),
            ("0/x001/x234/067", hashes(0, 1_234_067, 256)),
            ("2/000.p/1", hashes(2, 0, 1)),
            ("0/x001/234.p/255", hashes(0, 1_234, 255)),
            ("entries/000.p/17", Some(LogTile::Entries { place: 0, width: 17 })),
            ("entries/x012/345", Some(LogTile::Entries { place: 12_345, width: 256 })),
        ];
        for (path, named) in cases {
            assert_eq!(tile(path), named, "{path}");
        }
        let wrong = [
            "",
            "0",
            "0/",
            "0/00",
            "0/0000",
            "00/000",
            "-1/000",
            "64/000",
            "0/x000/001",
            "0/001/234",
            "0/x001",
            "0/000.p/0",
            "0/000.p/256",
            "0/000.p/01",
            "entries",
            "entries/+00",
            "data/000",
            "0/x999/x999/x999/x999/x999/x999/999",
        ];
        for path in wrong {
            assert_eq!(tile(path), None, "{path}");
        }
    }
}
