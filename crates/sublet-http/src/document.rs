//! Invoices and credit notes as files for finance departments.

use axum::body::Body;
use http::header::{CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, Response};
use sublet_api::document as wire;
use sublet_cloud::document::{DocumentFile, DocumentFormat};
use sublet_cloud::{Actor, Cloud};
use sublet_core::Result;
use sublet_core::id::InvoiceId;

use crate::App;
use crate::answer::Answer;
use crate::context::Context;

/// A document with its name.
pub fn response(file: DocumentFile) -> Response<Body> {
    let kind = match file.format {
        DocumentFormat::Pdf => "application/pdf",
        DocumentFormat::Ubl => "application/xml",
    };
    let disposition = HeaderValue::from_str(&format!("attachment; filename=\"{}\"", file.name));
    let mut response = Response::new(Body::from(file.content));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Ok(disposition) = disposition {
        headers.insert(CONTENT_DISPOSITION, disposition);
    }
    response
}

/// What a query asks for.
pub async fn asked(cloud: &Cloud, actor: &Actor, id: &InvoiceId, query: &wire::DocumentQuery) -> Result<DocumentFile> {
    let format: DocumentFormat = query.format.as_deref().map(str::parse).transpose()?.unwrap_or_default();
    match &query.credit_note {
        Some(note) => cloud.credit_note_document(actor, (id, note), format).await,
        None => cloud.invoice_document(actor, id, format).await,
    }
}

pub async fn get(app: App, context: Context) -> Result<Answer> {
    let id: InvoiceId = context.path("id")?;
    let query: wire::DocumentQuery = context.query()?;
    Ok(Answer::Raw(response(asked(&app.cloud, &context.actor, &id, &query).await?)))
}
