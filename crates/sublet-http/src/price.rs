//! Price lists: what is published, and publishing.

use sublet_api::list::ListQuery;
use sublet_api::money::Amount;
use sublet_api::object::PriceListTag;
use sublet_api::price as wire;
use sublet_cloud::data::{
    DeviceKind, ModelName, PriceEntry, PriceList, PriceListDraft, PriceListVersion, PriceModel, SkuName, TokenKind,
};
use sublet_cloud::idempotency::Answer as Once;
use sublet_core::admission::PriceVersion;
use sublet_core::supply::{Audience, Catalogue};
use sublet_core::{Error, ErrorCode, Nanos, Result};

use crate::App;
use crate::answer::{Answer, json};
use crate::context::Context;
use crate::wire::{SkuParts, count, sku_parts};

fn to_wire(list: &PriceList, version: &PriceListVersion) -> Result<wire::PriceList> {
    let position = list.versions().iter().position(|known| known.version() == version.version()).unwrap_or(0);
    Ok(wire::PriceList {
        object: PriceListTag,
        id: list.id.clone(),
        name: list.name.clone(),
        version: version.version().clone(),
        number: u32::try_from(position + 1).unwrap_or(u32::MAX),
        currency: version.currency(),
        effective_at: version.effective_at().into(),
        created_at: version.effective_at().into(),
        prices: version.entries().map(price_to_wire).collect::<Result<_>>()?,
    })
}

fn price_to_wire(entry: &PriceEntry) -> Result<wire::Price> {
    let SkuParts { subject, meter, notice, service_tier } = sku_parts(&entry.sku);
    let amount = match &entry.model {
        PriceModel::PerUnit { price } => *price,
        // The API shows the price of the first unit; the canonical text has the tiers.
        PriceModel::Graduated { .. } | PriceModel::Volume { .. } | PriceModel::Package { .. } => {
            entry.model.prices().first().copied().unwrap_or(Nanos::ZERO)
        }
    };
    Ok(wire::Price { subject, meter, notice, service_tier, amount: Amount(amount), per: count(entry.unit.base_units())? })
}

/// The public list: in the currency of the first list published.
pub async fn public(app: App, context: Context) -> Result<Answer> {
    let query: wire::PriceListQuery = context.query()?;
    let at = query.at.map_or_else(|| app.cloud.clock().now(), |at| at.0);
    app.cloud.follow().await?;
    let lists = app.cloud.prices().snapshot();
    let list = lists.values().next().ok_or_else(|| Error::new(ErrorCode::NotFound, "no price list is published"))?;
    let mut shown = to_wire(list, list.at(at)?)?;
    // To everybody else a model for some does not exist.
    let models = app.cloud.remote_models();
    shown.prices.retain(|price| match &price.subject {
        wire::Subject::Model(name) => models.models.get(name).is_none_or(|model| model.audience == Audience::Everyone),
        wire::Subject::Sku(_) => true,
    });
    json(&shown)
}

pub async fn list(app: App, context: Context) -> Result<Answer> {
    context.query::<ListQuery>()?;
    app.cloud.follow().await?;
    let lists = app.cloud.prices().snapshot();
    let mut data = Vec::new();
    for list in lists.values() {
        for version in list.versions() {
            data.push(to_wire(list, version)?);
        }
    }
    json(&sublet_api::List::whole(data))
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
    let lists = app.cloud.prices().snapshot();
    let known = lists.values().find(|list| list.currency == body.currency);
    let draft = PriceListDraft {
        list: known.map_or_else(|| app.cloud.ids().mint(), |list| list.id.clone()),
        currency: body.currency,
        effective_at: body.effective_at.map_or(now, |at| at.0),
        entries: body.prices.iter().map(entry).collect::<Result<_>>()?,
    };
    let version = match app.cloud.publish_prices(&context.call()?, &body.name, draft, now).await? {
        Once::New(version) => version,
        Once::Replayed(hash) => app.cloud.prices().get(&PriceVersion(hash.into()))?,
    };
    let lists = app.cloud.prices().snapshot();
    let list = lists.get(version.list()).ok_or_else(|| Error::internal("a published list is not in the book"))?;
    json(&to_wire(list, &version)?)
}

fn entry(price: &wire::Price) -> Result<PriceEntry> {
    let kind = match price.meter {
        wire::Meter::InputTokens => Some(TokenKind::Input),
        wire::Meter::CachedInputTokens => Some(TokenKind::CachedInput),
        wire::Meter::OutputTokens => Some(TokenKind::Output),
        wire::Meter::DeviceMilliseconds => None,
    };
    let sku = match (&price.subject, kind, (price.notice, price.service_tier)) {
        (wire::Subject::Model(name), Some(kind), (None, tier)) => {
            SkuName::Tokens { tier: tier.unwrap_or_default(), kind, model: name.parse::<ModelName>()? }
        }
        (wire::Subject::Sku(name), None, (Some(notice), None)) => SkuName::Device { notice, device: name.parse::<DeviceKind>()? },
        _ => {
            return Err(Error::new(
                ErrorCode::InvalidPrice,
                "a model has token prices, perhaps with a service_tier, and no notice; a device kind has device time with notice",
            )
            .param("prices"));
        }
    };
    let per = i64::try_from(price.per).unwrap_or(0);
    let wanted = sku.pricing_unit().base_units();
    if per != wanted {
        return Err(Error::new(
            ErrorCode::InvalidPrice,
            format!("the price of {sku} is written per {wanted} units, not per {per}"),
        )
        .param("prices"));
    }
    Ok(PriceEntry::per_unit(sku, price.amount.0))
}
