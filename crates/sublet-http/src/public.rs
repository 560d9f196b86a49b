//! What everybody may ask: health, metrics, the API's description.

use http::StatusCode;
use sublet_api::ROUTES;
use sublet_api::health::{Health, HealthStatus};
use sublet_api::object::HealthTag;
use sublet_core::{ErrorCode, Result};

use crate::App;
use crate::answer::{Answer, json, text_of};
use crate::context::Context;

pub async fn health(_: App, _: Context) -> Result<Answer> {
    json(&Health { object: HealthTag, status: HealthStatus::Ok, version: env!("CARGO_PKG_VERSION").to_owned(), checks: Vec::new() })
}

pub async fn readiness(app: App, _: Context) -> Result<Answer> {
    let checks = app.process.checks().await;
    let ready = checks.iter().all(|check| check.ok);
    let (code, status) =
        if ready { (StatusCode::OK, HealthStatus::Ok) } else { (StatusCode::SERVICE_UNAVAILABLE, HealthStatus::Unready) };
    let health = Health { object: HealthTag, status, version: env!("CARGO_PKG_VERSION").to_owned(), checks };
    Ok(Answer::JsonWithStatus(code, text_of(&health)?))
}

pub async fn metrics(app: App, _: Context) -> Result<Answer> {
    Ok(Answer::Text(app.process.metrics().await))
}

pub async fn open_api(_: App, _: Context) -> Result<Answer> {
    json(&sublet_api::openapi::document())
}

pub async fn llms_text(_: App, _: Context) -> Result<Answer> {
    let mut text = String::from(
        "# Sublet\n\n> Model access and raw compute by the API. OpenAI-compatible: set base_url to this server's /v1 and use a key that \
         starts with sk-sub-.\n\n## Routes\n\n",
    );
    for route in ROUTES {
        text.push_str(&format!("- {} {}: {}\n", route.method, route.path, route.summary));
    }
    text.push_str("\nThe whole description with all types: /openapi.json\n");
    Ok(Answer::Text(text))
}

pub async fn error_page(_: App, context: Context) -> Result<Answer> {
    let code: ErrorCode = context.path("code")?;
    Ok(Answer::Text(format!("{code}\n\nHTTP status {}, exit status {}.\n\n{}\n", code.status(), code.exit_status(), code.advice())))
}
