//! What supply costs: what is declared, and declaring.

use sublet_api::money::Amount;
use sublet_api::object::SupplyCostsTag;
use sublet_api::supply_cost as wire;
use sublet_cloud::Actor;
use sublet_cloud::data::{
    BelowCost, BillingCalendar, Depreciation, DeviceCost, EnergyPrice, HourlyCost, ModelCost, Power, PriceListVersion,
    StoredSupplyCost, SupplyCostDraft, month_from, month_starts_at,
};
use sublet_cloud::idempotency::Answer as Once;
use sublet_core::{Currency, Error, Result, Timestamp};

use crate::App;
use crate::answer::{Answer, json};
use crate::context::Context;
use crate::price_wire::{time_of_use_of, time_of_use_to_wire};
use crate::wire::{SkuParts, count, money, sku_parts};

fn to_wire(stored: &StoredSupplyCost) -> Result<wire::SupplyCosts> {
    let content = stored.cost.content();
    let energy = content.energy.as_ref().map(|energy| {
        let time_of_use = energy.time_of_use.as_ref().map(time_of_use_to_wire).transpose()?;
        Ok::<_, Error>(wire::EnergyPrice { per_kwh: Amount(energy.per_kwh), time_of_use })
    });
    Ok(wire::SupplyCosts {
        object: SupplyCostsTag,
        version: stored.cost.version().to_owned(),
        number: count(stored.number)?,
        currency: content.currency,
        effective_at: month_starts_at(content.month)?.into(),
        replaces: content.replaces.clone(),
        energy: energy.transpose()?,
        devices: content.devices.iter().map(device_to_wire).collect(),
        models: content.models.iter().map(model_to_wire).collect(),
        created_at: stored.created_at.into(),
    })
}

fn device_to_wire(cost: &DeviceCost) -> wire::DeviceCost {
    let power = cost.power.map(|power| wire::Power { busy_watts: power.busy_watts, idle_watts: power.idle_watts });
    let depreciation = cost.depreciation.map(|bought| wire::Depreciation {
        price: Amount(bought.price),
        residual: Amount(bought.residual),
        months: bought.months,
    });
    let hourly = |cost: Option<HourlyCost>| cost.map(|hour| Amount(hour.0));
    let (per_hour, transfer_price) = (hourly(cost.per_hour), hourly(cost.transfer_price));
    wire::DeviceCost { kind: cost.kind.to_string(), power, depreciation, per_hour, transfer_price }
}

fn model_to_wire(cost: &ModelCost) -> wire::ModelCost {
    let cached_input = Some(Amount(cost.cached_input));
    wire::ModelCost { model: cost.model.to_string(), input: Amount(cost.input), cached_input, output: Amount(cost.output) }
}

fn draft(body: wire::PublishSupplyCosts, now: Timestamp) -> Result<SupplyCostDraft> {
    let month = match body.effective_at {
        Some(at) => month_from(at.0)?,
        None => BillingCalendar::new("UTC")?.period_at(now)?.key,
    };
    let energy = body.energy.map(|energy| {
        let time_of_use = energy.time_of_use.as_ref().map(time_of_use_of).transpose();
        let time_of_use = time_of_use.map_err(|error| error.prefixed("energy").param("energy.time_of_use"))?;
        Ok::<_, Error>(EnergyPrice { per_kwh: energy.per_kwh.0, time_of_use })
    });
    Ok(SupplyCostDraft {
        currency: body.currency,
        month,
        replaces: None,
        energy: energy.transpose()?,
        devices: body.devices.into_iter().enumerate().map(device).collect::<Result<_>>()?,
        models: body.models.into_iter().enumerate().map(model).collect::<Result<_>>()?,
    })
}

fn device((index, cost): (usize, wire::DeviceCost)) -> Result<DeviceCost> {
    let power = cost.power.map(|power| Power { busy_watts: power.busy_watts, idle_watts: power.idle_watts });
    let depreciation =
        cost.depreciation.map(|bought| Depreciation { price: bought.price.0, residual: bought.residual.0, months: bought.months });
    let kind = cost.kind.parse().map_err(|error: Error| error.param(format!("devices[{index}].kind")))?;
    let hourly = |cost: Option<Amount>| cost.map(|hour| HourlyCost(hour.0));
    let (per_hour, transfer_price) = (hourly(cost.per_hour), hourly(cost.transfer_price));
    Ok(DeviceCost { kind, power, depreciation, per_hour, transfer_price })
}

fn model((index, cost): (usize, wire::ModelCost)) -> Result<ModelCost> {
    let model = cost.model.parse().map_err(|error: Error| error.param(format!("models[{index}].model")))?;
    let cached_input = cost.cached_input.unwrap_or(cost.input).0;
    Ok(ModelCost { model, input: cost.input.0, cached_input, output: cost.output.0 })
}

pub async fn list(app: App, context: Context) -> Result<Answer> {
    let versions = app.cloud.list_supply_costs(&context.actor).await?;
    json(&sublet_api::List::whole(versions.iter().map(to_wire).collect::<Result<_>>()?))
}

pub async fn get(app: App, context: Context) -> Result<Answer> {
    json(&to_wire(&app.cloud.get_supply_costs(&context.actor, context.path_text("version")?).await?)?)
}

pub async fn publish(app: App, context: Context) -> Result<Answer> {
    let draft = draft(context.body()?, app.cloud.clock().now())?;
    let stored = match app.cloud.publish_supply_costs(&context.call()?, draft).await? {
        Once::New(stored) => stored,
        Once::Replayed(version) => app.cloud.get_supply_costs(&context.actor, &version).await?,
    };
    json(&to_wire(&stored)?)
}

/// What a list sells below its cost.
pub async fn below_cost(app: &App, actor: &Actor, version: &PriceListVersion) -> Result<Vec<wire::PriceBelowCost>> {
    let found = app.cloud.prices_below_cost(actor, version, version.effective_at()).await?;
    found.iter().map(|below| below_cost_to_wire(below, version.currency())).collect()
}

pub fn below_cost_to_wire(below: &BelowCost, currency: Currency) -> Result<wire::PriceBelowCost> {
    let SkuParts { subject, meter, notice, service_tier, site, isolation } = sku_parts(&below.sku);
    Ok(wire::PriceBelowCost {
        subject,
        meter,
        notice,
        service_tier,
        site,
        isolation,
        band: below.band.as_ref().map(ToString::to_string),
        per: count(below.unit.base_units())?,
        price: money(below.price, currency),
        cost: money(below.cost, currency),
        short: money(below.short, currency),
    })
}
