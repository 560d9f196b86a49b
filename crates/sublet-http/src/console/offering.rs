//! To whom products are sold: the operator's offerings, and what led to each.

use askama::Template;
use axum::body::Body;
use http::Response;
use serde::Deserialize;
use sublet_cloud::data::OfferingRow;
use sublet_cloud::offering::OfferingRecord;
use sublet_core::Result;

use super::Console;
use super::figure::When;
use super::shell::{self, Shell};
use super::visit::Visit;

/// Most rows of a table.
const ROWS_MAX: usize = 100;

/// A product's state since a change.
struct Row {
    product: String,
    /// The page that has its history.
    address: String,
    state: String,
    reach: String,
    ends: Option<When>,
    successor: String,
    note: String,
    actor: String,
    changed: When,
}

/// One product with its history.
struct Record {
    product: String,
    history: Vec<Row>,
    /// Who is invited, by whom, and since when.
    invited: Vec<(String, String, When)>,
    users: i64,
}

#[derive(Template)]
#[template(path = "offerings.html")]
struct OfferingsPage {
    shell: Shell,
    offerings: Vec<Row>,
    has_more: bool,
    record: Option<Record>,
}

/// Which product is shown with its history.
#[derive(Default, Deserialize)]
struct Of {
    #[serde(default)]
    product: Option<String>,
}

pub async fn list(console: Console, visit: Visit) -> Result<Response<Body>> {
    let (cloud, actor) = (&console.app.cloud, &visit.actor);
    let record = match visit.guest.query::<Of>()?.product {
        Some(product) => Some(record(&product, &cloud.get_offering(actor, &product.parse()?).await?)),
        None => None,
    };
    let found = cloud.list_offerings(actor).await?;
    shell::html(&OfferingsPage {
        shell: Shell::of(&console, actor, "Offerings", "/console/offerings").await?,
        offerings: found.iter().take(ROWS_MAX).map(row).collect(),
        has_more: found.len() > ROWS_MAX,
        record,
    })
}

fn record(product: &str, of: &OfferingRecord) -> Record {
    let invited = of.invited.iter().take(ROWS_MAX);
    Record {
        product: product.to_owned(),
        history: of.history.iter().take(ROWS_MAX).map(row).collect(),
        invited: invited.map(|one| (one.organization.to_string(), one.invited_by.clone(), When(one.invited_at))).collect(),
        users: of.users,
    }
}

fn row(row: &OfferingRow) -> Row {
    let (offering, end) = (&row.offering, row.offering.end.as_ref());
    let product = offering.product.to_string();
    let encoded: String = form_urlencoded::byte_serialize(product.as_bytes()).collect();
    Row {
        address: format!("/console/offerings?product={encoded}"),
        product,
        state: offering.state.to_string(),
        reach: offering.reach.to_string(),
        ends: end.map(|end| When(end.at)),
        successor: end.and_then(|end| end.successor.as_ref()).map_or_else(String::new, ToString::to_string),
        note: row.note.clone(),
        actor: row.actor.clone(),
        changed: When(row.changed_at),
    }
}
