//! Indexes that market prices follow: their levels, and the points that were published.

use askama::Template;
use axum::body::Body;
use http::Response;
use sublet_cloud::data::{PageRequest, StoredPoint};
use sublet_cloud::price_index::IndexView;
use sublet_core::Result;
use sublet_core::key::KeyPlane;

use super::Console;
use super::figure::{When, duration_text};
use super::shell::{self, Shell};
use super::visit::Visit;

/// Most indexes on the page.
const INDEXES_MAX: usize = 20;
/// Most points of each: the newest.
const POINTS_MAX: i64 = 50;

struct Index {
    name: String,
    note: String,
    level: String,
    /// How long before it holds a point is published at least.
    lead: String,
    known_until: When,
    points: Vec<Point>,
    has_more: bool,
}

struct Point {
    number: i64,
    level: String,
    from: When,
    published: When,
    hash: String,
    /// It does not hold yet.
    is_to_come: bool,
}

#[derive(Template)]
#[template(path = "indexes.html")]
struct IndexesPage {
    shell: Shell,
    indexes: Vec<Index>,
    has_more: bool,
    is_operator: bool,
}

pub async fn list(console: Console, visit: Visit) -> Result<Response<Body>> {
    let cloud = &console.app.cloud;
    let found = cloud.list_price_indexes().await?;
    let mut indexes = Vec::with_capacity(found.len());
    for view in found.iter().take(INDEXES_MAX) {
        indexes.push(index(&console, view).await?);
    }
    shell::html(&IndexesPage {
        shell: Shell::of(&console, &visit.actor, "Price indexes", "/console/indexes").await?,
        indexes,
        has_more: found.len() > INDEXES_MAX,
        is_operator: visit.actor.plane == KeyPlane::Operator,
    })
}

async fn index(console: &Console, view: &IndexView) -> Result<Index> {
    let page = PageRequest { limit: Some(POINTS_MAX), ..PageRequest::default() };
    let points = console.app.cloud.list_price_points(&view.index.name, &page).await?;
    let now = console.app.cloud.clock().now();
    let point = |stored: &StoredPoint| Point {
        number: stored.number,
        level: stored.point.level.to_string(),
        from: When(stored.point.from_micros),
        published: When(stored.point.published_at_micros),
        hash: stored.hash.chars().take(16).collect(),
        is_to_come: stored.point.from_micros > now,
    };
    Ok(Index {
        name: view.index.name.to_string(),
        note: view.index.note.clone(),
        level: view.level.to_string(),
        lead: duration_text(view.index.lead),
        known_until: When(view.known_until),
        points: points.items.iter().map(point).collect(),
        has_more: points.has_more,
    })
}
