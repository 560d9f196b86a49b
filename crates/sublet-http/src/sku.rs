//! What can be leased, and how much of it now.

use std::collections::BTreeMap;

use sublet_api::object::{AvailabilityTag, SkuTag};
use sublet_api::offering::OfferingNote;
use sublet_api::price::DeviceHourPrice;
use sublet_api::sku as wire;
use sublet_cloud::Actor;
use sublet_cloud::data::SkuName;
use sublet_cloud::device::SkuAvailability;
use sublet_core::device::DeviceKind;
use sublet_core::id::SkuId;
use sublet_core::{Error, ErrorCode, Result};

use crate::App;
use crate::answer::{Answer, json};
use crate::context::Context;
use crate::wire::money;

/// The id of a device kind's sku: the same for ever, made from its name.
fn id_of(kind: &DeviceKind) -> Result<SkuId> {
    let body: String = kind.as_str().chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
    format!("sku_{body}").parse()
}

/// How the API names what a lease is of.
pub fn name_of(sku: &SkuName) -> String {
    match sku {
        SkuName::Device { device, .. } | SkuName::Starts { device } => device.to_string(),
        SkuName::Tokens { model, .. } | SkuName::Requests { model, .. } => model.to_string(),
        SkuName::ProjectMonth | SkuName::Fee { .. } | SkuName::FileStorage | SkuName::FileEgress => sku.words(),
    }
}

/// The device kind behind a sku's name or id, whether it is still sold or not.
pub async fn device_kind(app: &App, actor: &Actor, name: &str) -> Result<DeviceKind> {
    let is_named = |kind: &DeviceKind| kind.as_str() == name || id_of(kind).is_ok_and(|id| id.as_str() == name);
    if let Some(kind) = app.compute.list_kinds(actor).await?.into_iter().find(is_named) {
        return Ok(kind);
    }
    let offers = app.compute.list_availability(actor).await?;
    let shown: String = name.chars().take(60).collect();
    let mut kinds: Vec<&str> = offers.iter().map(|offer| offer.kind.as_str()).collect();
    kinds.dedup();
    Err(Error::new(ErrorCode::NotFound, format!("nothing is leased as '{shown}'"))
        .param("sku")
        .alternative(format!("lease one of: {}", kinds.join(", "))))
}

pub async fn list(app: App, context: Context) -> Result<Answer> {
    let offers = app.compute.list_availability(&context.actor).await?;
    let mut kinds: BTreeMap<&str, Vec<&SkuAvailability>> = BTreeMap::new();
    for offer in &offers {
        kinds.entry(offer.kind.as_str()).or_default().push(offer);
    }
    let memories = app.compute.device_memories(&context.actor).await?;
    let mut data = Vec::with_capacity(kinds.len());
    for (name, offers) in kinds {
        let Some(first) = offers.first() else { continue };
        data.push(wire::Sku {
            object: SkuTag,
            id: id_of(&first.kind)?,
            name: name.to_owned(),
            description: format!("time on devices of the kind {name}"),
            device_kind: name.to_owned(),
            device_memory_bytes: memories.get(&first.kind).and_then(|memory| u64::try_from(memory.get()).ok()).unwrap_or(0),
            prices: offers
                .iter()
                .map(|offer| DeviceHourPrice {
                    notice: offer.notice,
                    site: offer.site.clone(),
                    price: money(offer.price_per_hour, offer.currency),
                    offering: offer.offering.as_ref().and_then(|offering| OfferingNote::of(offering, offer.as_of)),
                })
                .collect(),
            created_at: first.as_of.into(),
        });
    }
    json(&sublet_api::List::whole(data))
}

pub async fn availability(app: App, context: Context) -> Result<Answer> {
    let query: wire::AvailabilityQuery = context.query()?;
    let kind = match &query.sku {
        Some(name) => Some(device_kind(&app, &context.actor, name.as_str()).await?),
        None => None,
    };
    let offers = app.compute.list_availability(&context.actor).await?;
    let data = offers
        .iter()
        .filter(|offer| {
            kind.as_ref().is_none_or(|kind| *kind == offer.kind) && query.notice.is_none_or(|notice| notice == offer.notice)
        })
        .map(|offer| wire::Availability {
            object: AvailabilityTag,
            sku: wire::SkuName(offer.kind.to_string()),
            notice: offer.notice,
            site: offer.site.clone(),
            available_units: offer.available_units,
            total_units: offer.total_units,
            price: money(offer.price_per_hour, offer.currency),
            as_of: offer.as_of.into(),
        })
        .collect();
    json(&sublet_api::List::whole(data))
}
