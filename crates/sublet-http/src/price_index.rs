//! Price indexes: what they are at, and publishing their points.

use sublet_api::list::ListQuery;
use sublet_api::object::{PriceIndexTag, PricePointTag};
use sublet_api::price_index as wire;
use sublet_cloud::data::{IndexName, StoredPoint};
use sublet_cloud::idempotency::Answer as Once;
use sublet_cloud::price_index::{IndexView, NewIndex, NewPoint};
use sublet_core::{DurationMs, Error, Result};

use crate::App;
use crate::answer::{Answer, json};
use crate::context::{Context, once, page_request};
use crate::wire::count;

fn to_wire(view: &IndexView) -> Result<wire::PriceIndex> {
    let index = &view.index;
    Ok(wire::PriceIndex {
        object: PriceIndexTag,
        name: index.name.to_string(),
        note: index.note.clone(),
        level: view.level.to_string(),
        lead_seconds: count(index.lead.seconds_ceil())?,
        known_until: view.known_until.into(),
        last: point_to_wire(&index.last)?,
        created_at: index.created_at.into(),
    })
}

fn point_to_wire(stored: &StoredPoint) -> Result<wire::PricePoint> {
    Ok(wire::PricePoint {
        object: PricePointTag,
        number: count(stored.number)?,
        level: stored.point.level.to_string(),
        from: stored.point.from_micros.into(),
        published_at: stored.point.published_at_micros.into(),
        hash: stored.hash.clone(),
    })
}

pub async fn list(app: App, _: Context) -> Result<Answer> {
    let views = app.cloud.list_price_indexes().await?;
    json(&sublet_api::List::whole(views.iter().map(to_wire).collect::<Result<_>>()?))
}

pub async fn get(app: App, context: Context) -> Result<Answer> {
    json(&to_wire(&app.cloud.get_price_index(&context.path("name")?).await?)?)
}

pub async fn create(app: App, context: Context) -> Result<Answer> {
    let body: wire::CreatePriceIndex = context.body()?;
    let named = |param: &'static str| move |error: Error| error.param(param);
    // A lead beyond the range is beyond the longest too, and refused as such.
    let seconds = i64::try_from(body.lead_seconds).unwrap_or(i64::MAX).min(i64::MAX / 1_000);
    let new = NewIndex {
        name: body.name.parse::<IndexName>().map_err(named("name"))?,
        lead: DurationMs::from_seconds(seconds),
        level: body.level.parse().map_err(named("level"))?,
        note: body.note,
    };
    let view = match app.cloud.create_price_index(&context.call()?, &new).await? {
        Once::New(view) => view,
        Once::Replayed(_) => app.cloud.get_price_index(&new.name).await?,
    };
    json(&to_wire(&view)?)
}

pub async fn list_points(app: App, context: Context) -> Result<Answer> {
    let asked = context.query::<ListQuery>()?.page();
    let page = app.cloud.list_price_points(&context.path("name")?, &page_request(&asked)?).await?;
    let mut points = page.items.iter().map(point_to_wire).collect::<Result<Vec<_>>>()?;
    if asked.before.is_some() {
        points.reverse();
    }
    json(&sublet_api::List::page(points, page.has_more, |point| point.number.to_string()))
}

pub async fn publish_point(app: App, context: Context) -> Result<Answer> {
    let body: wire::PublishPricePoint = context.body()?;
    let level = body.level.parse().map_err(|error: Error| error.param("level"))?;
    let new = NewPoint { index: context.path("name")?, from: body.from.map(|from| from.0), level };
    let render = |stored: &StoredPoint| crate::answer::text_of(&point_to_wire(stored)?);
    let outcome = app.cloud.publish_price_point(&context.call()?, &new, &render).await?;
    once(outcome, |stored| point_to_wire(stored).ok())
}
