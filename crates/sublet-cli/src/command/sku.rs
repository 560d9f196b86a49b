//! `sublet skus`.

use sublet_api::sku::Sku;
use sublet_core::error::Result;

use super::offering::words;
use super::show_page;
use crate::Context;
use crate::render::{self, Cell, Table};

pub(super) fn run(context: &mut Context<'_>) -> Result<()> {
    let skus = context.client()?.skus()?;
    show_page(context, &skus, table)
}

fn table(skus: &[Sku]) -> Table {
    let rows = skus.iter().flat_map(|sku| {
        sku.prices.iter().map(|price| {
            [
                Cell::text(&sku.name),
                Cell::text(&sku.device_kind),
                Cell::number(render::bytes(sku.device_memory_bytes)),
                Cell::text(render::kind_of_time(Some(price.notice), price.site.as_ref(), None)),
                Cell::number(render::money(&price.price)),
                Cell::text(
                    price
                        .offering
                        .as_ref()
                        .map_or_else(|| sku.description.clone(), |offering| format!("{}; {}", sku.description, words(offering))),
                ),
            ]
        })
    });
    Table::new(["sku", "device", "memory", "notice", "device-hour", "description"], "nothing can be leased here").rows(rows)
}
