//! Files for other people's programs, as they are written.

use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use http::header::{CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, Response};
use sublet_api::export as wire;
use sublet_cloud::Cloud;
use sublet_cloud::data::{FocusVersion, Format, PeriodKey};
use sublet_cloud::export::{Dataset, Export, ExportRequest};
use sublet_core::{Error, ErrorCode, Result};

use crate::App;
use crate::answer::Answer;
use crate::context::Context;

/// A file under way.
struct Writing {
    cloud: Arc<Cloud>,
    export: Export,
}

fn request(query: wire::ExportQuery) -> Result<ExportRequest> {
    let dataset: Dataset = query.dataset.as_deref().map(str::parse).transpose()?.unwrap_or_default();
    let named = query.version.as_deref();
    let version = match dataset {
        Dataset::Focus => named.map(str::parse).transpose()?.unwrap_or_default(),
        Dataset::Supporting(dataset) => {
            dataset.check_version(named)?;
            dataset.version()
        }
        Dataset::Charges if named.is_some() => {
            return Err(Error::new(ErrorCode::InvalidRequest, "an export of charges has no version")
                .param("version")
                .alternative("leave version out, or ask for dataset focus"));
        }
        Dataset::Charges => FocusVersion::default(),
    };
    let period: Option<PeriodKey> =
        query.period.as_deref().map(str::parse).transpose().map_err(|error: Error| error.param("period"))?;
    Ok(ExportRequest {
        dataset,
        version,
        format: query.format.as_deref().map(str::parse).transpose()?.unwrap_or_default(),
        period,
        organization: query.organization,
    })
}

pub async fn file(app: App, context: Context) -> Result<Answer> {
    let request = request(context.query()?)?;
    let export = app.cloud.open_export(&context.actor, &request).await?;
    let kind = match request.format {
        Format::Csv => "text/csv; charset=utf-8",
        Format::Parquet => "application/vnd.apache.parquet",
    };
    let disposition = HeaderValue::from_str(&format!("attachment; filename=\"{}\"", export.name));
    let writing = Writing { cloud: Arc::new(app.cloud.clone()), export };
    let mut response = Response::new(Body::from_stream(stream::try_unfold(writing, next_piece)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Ok(disposition) = disposition {
        headers.insert(CONTENT_DISPOSITION, disposition);
    }
    Ok(Answer::Raw(response))
}

async fn next_piece(mut writing: Writing) -> Result<Option<(Bytes, Writing)>> {
    let piece = writing.cloud.next_export_piece(&mut writing.export).await;
    let piece = piece.inspect_err(|error| tracing::error!(%error, private = ?error, "an export broke off"))?;
    Ok(piece.map(|piece| (piece.into(), writing)))
}
