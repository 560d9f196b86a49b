//! `sublet availability`.

use clap::Args;
use sublet_api::sku::{Availability, AvailabilityQuery, SkuName};
use sublet_core::error::Result;
use sublet_core::notice::NoticeClass;

use super::show_page;
use crate::Context;
use crate::render::{self, Cell, Table};

/// Which availability.
#[derive(Args, Debug)]
pub struct AvailabilityArgs {
    /// Only this SKU, by name or id
    #[arg(long)]
    pub sku: Option<String>,
    /// Only this notice class: n0, n2m, n15m, n1h, n24h, firm
    #[arg(long)]
    pub notice: Option<NoticeClass>,
}

impl AvailabilityArgs {
    pub(super) fn run(self, context: &mut Context<'_>) -> Result<()> {
        let query = AvailabilityQuery { sku: self.sku.map(SkuName), notice: self.notice, ..AvailabilityQuery::default() };
        let list = context.client()?.availability(&query)?;
        show_page(context, &list, table)
    }
}

fn table(rows: &[Availability]) -> Table {
    let rows = rows.iter().map(|row| {
        [
            Cell::text(row.sku.as_str()),
            Cell::text(render::kind_of_time(Some(row.notice), row.site.as_ref(), None)),
            Cell::number(row.available_units),
            Cell::number(row.total_units),
            Cell::number(render::money(&row.price)),
        ]
    });
    Table::new(["sku", "notice", "free", "of", "device-hour"], "nothing can be leased now").rows(rows)
}
