//! Price lists: what is published, and publishing.

use sublet_api::list::ListQuery;
use sublet_api::object::PriceListTag;
use sublet_api::price as wire;
use sublet_cloud::data::{Order, PriceList, PriceListVersion};
use sublet_cloud::idempotency::Answer as Once;
use sublet_core::admission::PriceVersion;
use sublet_core::id::OrganizationId;
use sublet_core::offering::Product;
use sublet_core::supply::{Audience, Catalogue};
use sublet_core::{Error, ErrorCode, Result};

use crate::App;
use crate::answer::{Answer, json};
use crate::context::{Context, page_request};
use crate::{price_wire, supply_cost};

fn to_wire(list: &PriceList, version: &PriceListVersion) -> Result<wire::PriceList> {
    // Prices by contract have the number of the public version that they were made from.
    let numbered = version.source().map_or(version.version(), |source| &source.list);
    let position = list.versions().iter().position(|known| known.version() == numbered).unwrap_or(0);
    Ok(wire::PriceList {
        object: PriceListTag,
        id: version.list().clone(),
        name: list.name.clone(),
        version: version.version().clone(),
        number: u32::try_from(position + 1).unwrap_or(u32::MAX),
        currency: version.currency(),
        effective_at: version.effective_at().into(),
        created_at: version.effective_at().into(),
        prices: version.entries().map(price_wire::to_wire).collect::<Result<_>>()?,
        contract: version.source().map(|source| wire::ContractPrices {
            terms_hash: source.terms.clone(),
            public_version: source.list.clone(),
            protected_version: source.protected.clone(),
        }),
        below_cost: Vec::new(),
    })
}

/// The public list: in the currency of the first list published.
pub async fn public(app: App, context: Context) -> Result<Answer> {
    let query: wire::PriceListQuery = context.query()?;
    let at = query.at.map_or_else(|| app.cloud.clock().now(), |at| at.0);
    app.cloud.follow().await?;
    let lists = app.cloud.prices().snapshot();
    let list = lists.values().next().ok_or_else(|| Error::new(ErrorCode::NotFound, "no price list is published"))?;
    json(&visible(&app, to_wire(list, list.at(at)?)?, None).await?)
}

/// What the account pays: by its contract, or the public prices.
pub async fn of_account(app: App, context: Context) -> Result<Answer> {
    let query: wire::PriceListQuery = context.query()?;
    let now = app.cloud.clock().now();
    let at = query.at.map_or(now, |at| at.0);
    if at < now {
        let error = Error::new(ErrorCode::InvalidRequest, "an account's prices are shown from now on").param("at");
        return Err(error.alternative("what was paid before is on charges and invoices, with the version of its price"));
    }
    let prices = app.cloud.account_prices(&context.actor, at).await?;
    json(&visible(&app, to_wire(&prices.list, &prices.version)?, Some(context.actor.organization()?)).await?)
}

/// To everybody else what is sold to some does not exist.
async fn visible(app: &App, mut list: wire::PriceList, organization: Option<&OrganizationId>) -> Result<wire::PriceList> {
    let (models, cards) = (app.cloud.remote_models(), app.cloud.cards());
    let entitlements = app.cloud.entitlements_of(organization).await?;
    let is_seen = |audience: &Audience| *audience == Audience::Everyone || organization.is_some_and(|id| audience.admits(id));
    list.prices.retain(|price| match &price.subject {
        wire::Subject::Model(name) => {
            models.models.get(name).is_none_or(|model| is_seen(&model.audience))
                && cards.find(name).is_none_or(|card| is_seen(&card.audience))
                && app.cloud.shows(&entitlements, &Product::Model(name.as_str().into()))
        }
        wire::Subject::Sku(name) => {
            name.parse().is_ok_and(|kind| app.cloud.shows(&entitlements, &Product::Device { kind, notice: price.notice }))
        }
    });
    Ok(list)
}

/// Versions of all lists by the instant from which they hold.
pub async fn list(app: App, context: Context) -> Result<Answer> {
    let asked = context.query::<ListQuery>()?.page();
    let page = page_request(&asked)?;
    app.cloud.follow().await?;
    let lists = app.cloud.prices().snapshot();
    let of_list = |list| PriceList::versions(list).iter().map(move |version| (list, version));
    let mut versions: Vec<_> = lists.values().flat_map(of_list).collect();
    versions.sort_by_key(|(list, version)| (version.effective_at(), &list.id));
    if page.order == Order::Descending {
        versions.reverse();
    }
    let first = match &page.after {
        None => 0,
        Some(cursor) => {
            let found = versions.iter().position(|(_, version)| *version.version().0 == **cursor);
            let found =
                found.ok_or_else(|| Error::new(ErrorCode::InvalidRequest, "no version of a price list is named like this cursor"));
            found.map_err(|error| error.param("after"))? + 1
        }
    };
    let rest = versions.get(first..).unwrap_or_default();
    let limit = usize::try_from(page.limit()).unwrap_or(1);
    let shown = rest.iter().take(limit).map(|(list, version)| to_wire(list, version));
    let mut data = shown.collect::<Result<Vec<_>>>()?;
    if asked.before.is_some() {
        data.reverse();
    }
    json(&sublet_api::List::page(data, rest.len() > limit, |list| list.version.0.to_string()))
}

pub async fn get(app: App, context: Context) -> Result<Answer> {
    let version = PriceVersion(context.path_text("version")?.into());
    app.cloud.follow().await?;
    let lists = app.cloud.prices().snapshot();
    for list in lists.values() {
        if let Some(found) = list.versions().iter().find(|known| *known.version() == version) {
            return json(&to_wire(list, found)?);
        }
    }
    Err(Error::new(ErrorCode::NotFound, "there is no price-list version with this hash"))
}

/// Publishes a version of the list in its currency. Prices that are left out are no longer sold.
pub async fn publish(app: App, context: Context) -> Result<Answer> {
    let body: wire::PublishPriceList = context.body()?;
    let now = app.cloud.clock().now();
    app.cloud.follow().await?;
    let draft = price_wire::draft(&app, body.currency, body.effective_at.map_or(now, |at| at.0), &body.prices)?;
    let version = match app.cloud.publish_prices(&context.call()?, &body.name, draft, now).await? {
        Once::New(version) => version,
        Once::Replayed(hash) => app.cloud.prices().get(&PriceVersion(hash.into()))?,
    };
    let lists = app.cloud.prices().snapshot();
    let list = lists.get(version.list()).ok_or_else(|| Error::internal("a published list is not in the book"))?;
    // It is published: what cannot be said of it now does not undo that.
    let below_cost = supply_cost::below_cost(&app, &context.actor, &version).await.unwrap_or_else(|error| {
        tracing::error!(%error, private = ?error, "published prices were not compared with costs");
        Default::default()
    });
    json(&wire::PriceList { below_cost, ..to_wire(list, &version)? })
}
