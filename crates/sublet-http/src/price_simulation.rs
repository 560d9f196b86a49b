//! What a past period would have been under other prices.

use sublet_api::object::PriceSimulationTag;
use sublet_api::price_simulation as wire;
use sublet_cloud::data::{PeriodKey, RepricedSku};
use sublet_cloud::price_simulation::{BelowFloor, CustomerComparison, PriceSimulation};
use sublet_core::{Currency, Result};

use crate::App;
use crate::answer::{Answer, json};
use crate::context::Context;
use crate::price_wire;
use crate::supply_cost::below_cost_to_wire;
use crate::wire::{SkuParts, count, money, sku_parts};

pub async fn simulate(app: App, context: Context) -> Result<Answer> {
    let body: wire::SimulatePrices = context.body()?;
    let period = body.period.as_deref().map(str::parse::<PeriodKey>).transpose().map_err(|error| error.param("period"))?;
    let now = app.cloud.clock().now();
    app.cloud.follow().await?;
    let draft = price_wire::draft(&app, body.currency, now, &body.prices)?;
    let simulation = app.cloud.simulate_prices(&context.actor, draft, period).await?;
    json(&to_wire(&simulation)?)
}

fn to_wire(simulation: &PriceSimulation) -> Result<wire::PriceSimulation> {
    let currency = simulation.currency;
    let (customers, most_changed) = &simulation.customers;
    Ok(wire::PriceSimulation {
        object: PriceSimulationTag,
        period: simulation.period.to_string(),
        charged: money(simulation.total.charged, currency),
        would_be: money(simulation.total.would_be, currency),
        not_sold: money(simulation.not_sold, currency),
        customers: *customers,
        most_changed: most_changed.iter().map(|customer| customer_to_wire(customer, currency)).collect(),
        prices: simulation.skus.iter().map(|sku| sku_to_wire(sku, currency)).collect::<Result<_>>()?,
        below_floor: simulation.below_floor.iter().map(floor_to_wire).collect(),
        below_cost: simulation.below_cost.iter().map(|below| below_cost_to_wire(below, currency)).collect::<Result<_>>()?,
    })
}

fn customer_to_wire(customer: &CustomerComparison, currency: Currency) -> wire::SimulatedCustomer {
    wire::SimulatedCustomer {
        organization: customer.organization.clone(),
        name: customer.name.clone(),
        charged: money(customer.comparison.charged, currency),
        would_be: money(customer.comparison.would_be, currency),
    }
}

fn sku_to_wire(repriced: &RepricedSku, currency: Currency) -> Result<wire::SimulatedPrice> {
    let SkuParts { subject, meter, notice, service_tier, site, isolation } = sku_parts(&repriced.sku);
    Ok(wire::SimulatedPrice {
        subject,
        meter,
        notice,
        service_tier,
        site,
        isolation,
        band: repriced.band.as_ref().map(ToString::to_string),
        quantity: count(repriced.quantity.get())?,
        charged: money(repriced.charged, currency),
        would_be: repriced.would_be.map(|would_be| money(would_be, currency)),
    })
}

fn floor_to_wire(below: &BelowFloor) -> wire::BelowFloor {
    wire::BelowFloor {
        model: below.model.clone(),
        replica: below.replica.clone(),
        service_tier: below.tier,
        reason: below.objection.to_string(),
    }
}
