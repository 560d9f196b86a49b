//! `sublet capacity`.

use sublet_api::capacity::Capacity;
use sublet_core::error::Result;

use super::show_page;
use crate::Context;
use crate::render::{Cell, Table};

pub(super) fn run(context: &mut Context<'_>) -> Result<()> {
    let list = context.client()?.capacity()?;
    show_page(context, &list, table)
}

fn table(rows: &[Capacity]) -> Table {
    let rows = rows.iter().map(|row| {
        [
            Cell::text(&row.device_kind),
            Cell::number(row.total),
            Cell::number(row.idle),
            Cell::number(row.sold),
            Cell::number(row.internal),
            Cell::number(row.cordoned),
            Cell::number(row.lost),
        ]
    });
    Table::new(["device", "total", "idle", "sold", "internal", "cordoned", "lost"], "there are no devices").rows(rows)
}
