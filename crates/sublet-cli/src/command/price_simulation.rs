//! `sublet prices simulate`: what a past period would have been.

use std::path::Path;

use sublet_api::client::Client;
use sublet_api::money::Money;
use sublet_api::price_simulation::{PriceSimulation, SimulatePrices};
use sublet_core::error::Result;

use super::price::read;
use super::supply_cost;
use super::usage::quantity;
use crate::context::Style;
use crate::render::{self, Cell, NOTHING, Table};

pub fn simulate(client: &Client, file: &Path, period: Option<String>) -> Result<PriceSimulation> {
    let list = read(file)?;
    client.simulate_prices(&SimulatePrices { currency: list.currency, prices: list.prices, period })
}

/// The sums, then what changes for things and for customers.
pub fn text(simulation: &PriceSimulation, style: Style) -> String {
    let head = Table::of_fields(vec![
        ("period", Cell::text(&simulation.period)),
        ("customers", Cell::number(simulation.customers)),
        ("charged", Cell::number(render::money(&simulation.charged))),
        ("would be", Cell::number(render::money(&simulation.would_be))),
        ("change", Cell::number(change(&simulation.charged, Some(&simulation.would_be)))),
        ("charged for what is not sold", Cell::number(render::money(&simulation.not_sold))),
    ]);
    let prices = simulation.prices.iter().map(|price| {
        [
            Cell::text(price.subject.name()),
            Cell::text(price.meter.as_str()),
            Cell::text(price.service_tier.map_or(NOTHING, |tier| tier.as_str())),
            Cell::text(render::kind_of_time(price.notice, price.site.as_ref(), price.isolation)),
            Cell::text(price.band.as_deref().unwrap_or(NOTHING)),
            Cell::number(quantity(price.meter, price.quantity)),
            Cell::number(render::money(&price.charged)),
            Cell::number(price.would_be.as_ref().map_or_else(|| "not sold".to_owned(), render::money)),
            Cell::number(change(&price.charged, price.would_be.as_ref())),
        ]
    });
    let prices =
        Table::new(["what", "meter", "tier", "notice", "band", "quantity", "charged", "would be", "change"], "nothing was used")
            .rows(prices);
    let customers = simulation.most_changed.iter().map(|customer| {
        [
            Cell::text(customer.organization.as_str()),
            Cell::text(&customer.name),
            Cell::number(render::money(&customer.charged)),
            Cell::number(render::money(&customer.would_be)),
            Cell::number(change(&customer.charged, Some(&customer.would_be))),
        ]
    });
    let customers = Table::new(["organization", "name", "charged", "would be", "change"], "nobody used anything").rows(customers);
    let floors = simulation.below_floor.iter().map(|below| {
        let (tier, reason) = (below.service_tier.as_str(), below.reason.as_str());
        [Cell::text(&below.model), Cell::text(below.replica.as_str()), Cell::text(tier), Cell::text(reason)]
    });
    let floors =
        Table::new(["model", "replica", "tier", "not used because"], "every supplier's server keeps its margin").rows(floors);
    let below = supply_cost::below_cost(&simulation.below_cost);
    [head, prices, customers, floors, below].map(|table| table.render(style)).join("\n")
}

/// By how much a sum grows, in tenths of a percent, rounded towards zero.
pub(super) fn growth(before: i64, after: i64) -> Option<String> {
    if before == 0 {
        return None;
    }
    let thousandths = (i128::from(after) - i128::from(before)) * 1_000 / i128::from(before);
    let sign = if thousandths < 0 { '-' } else { '+' };
    Some(format!("{sign}{}.{} %", thousandths.abs() / 10, thousandths.abs() % 10))
}

fn change(before: &Money, after: Option<&Money>) -> String {
    after.and_then(|after| growth(before.nanos().get(), after.nanos().get())).unwrap_or_else(|| NOTHING.to_owned())
}
