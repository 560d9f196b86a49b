//! Limits on speed.

use sublet_api::list::ListQuery;
use sublet_api::object::{Deleted, RateLimitTag};
use sublet_api::rate_limit as wire;
use sublet_cloud::data::RateLimit;
use sublet_cloud::limit::LimitSubject;
use sublet_cloud::rate_limit::NewRateLimit;
use sublet_core::Result;
use sublet_core::id::RateLimitId;

use crate::App;
use crate::answer::{Answer, json, text_of};
use crate::context::{Context, once, page_answer, page_request};
use crate::limit::{end_user_fields, end_users};

fn to_wire(limit: &RateLimit) -> wire::RateLimit {
    let (each_end_user, end_user) = end_user_fields(&limit.end_users);
    wire::RateLimit {
        object: RateLimitTag,
        id: limit.id.clone(),
        subject: limit.subject.clone(),
        metric: limit.metric,
        value: limit.value,
        model: limit.model.clone(),
        each_end_user,
        end_user,
        remaining: limit.remaining,
        created_at: limit.created_at.into(),
    }
}

pub async fn create(app: App, context: Context) -> Result<Answer> {
    let body: wire::CreateRateLimit = context.body()?;
    let end_users = end_users(body.each_end_user, body.end_user)?;
    let subject = match body.subject {
        Some(text) => LimitSubject::parse(&text)?,
        None => LimitSubject::Organization(context.actor.organization()?.clone()),
    };
    let new = NewRateLimit { subject, metric: body.metric, value: body.value, model: body.model, end_users };
    let outcome = app.cloud.create_rate_limit(&context.call()?, new, &|made| text_of(&to_wire(made))).await?;
    once(outcome, to_wire)
}

pub async fn list(app: App, context: Context) -> Result<Answer> {
    let asked = context.query::<ListQuery>()?.page();
    let page = app.cloud.list_rate_limits(&context.actor, &page_request(&asked)?).await?;
    page_answer(&asked, page, |limit| to_wire(&limit), |wire| wire.id.to_string())
}

pub async fn get(app: App, context: Context) -> Result<Answer> {
    let id: RateLimitId = context.path("id")?;
    json(&to_wire(&app.cloud.get_rate_limit(&context.actor, &id).await?))
}

pub async fn update(app: App, context: Context) -> Result<Answer> {
    let id: RateLimitId = context.path("id")?;
    let value = context.body::<wire::SetRateLimit>()?.value;
    json(&to_wire(&app.cloud.update_rate_limit(&context.actor, &id, value).await?))
}

pub async fn delete(app: App, context: Context) -> Result<Answer> {
    let id: RateLimitId = context.path("id")?;
    app.cloud.remove_rate_limit(&context.actor, &id).await?;
    json(&Deleted::new("rate_limit", id.as_str()))
}
