//! `sublet capacity`.

use clap::Args;
use sublet_api::List;
use sublet_api::calendar::{CapacityCalendar, CapacityCalendarQuery};
use sublet_api::capacity::Capacity;
use sublet_core::error::Result;

use super::show_page;
use crate::Context;
use crate::render::{self, Cell, NOTHING, Table};

/// Now, or in the coming hours.
#[derive(Args, Debug)]
pub struct CapacityArgs {
    /// The coming hours instead, as far as leases and orders settle them: 1 to 336
    #[arg(long, value_name = "HOURS", value_parser = clap::value_parser!(u16).range(1..=336))]
    pub calendar: Option<u16>,
}

impl CapacityArgs {
    pub(super) fn run(self, context: &mut Context<'_>) -> Result<()> {
        if self.calendar.is_none() {
            return run(context);
        }
        let list = context.client()?.capacity_calendar(&CapacityCalendarQuery { hours: self.calendar })?;
        show_page(context, &list, calendar)
    }
}

fn calendar(pools: &[CapacityCalendar]) -> Table {
    let rows = pools.iter().flat_map(|pool| {
        pool.hours.iter().map(move |hour| {
            let sold: Vec<String> = hour.sold.iter().map(|sold| format!("{} {}", sold.notice, sold.units)).collect();
            [
                Cell::text(format!("{} at {}", pool.device_kind, pool.site)),
                Cell::text(render::instant(hour.at.0)),
                Cell::number(hour.owned),
                Cell::number(hour.unhealthy),
                Cell::number(hour.kept),
                Cell::number(hour.internal),
                Cell::number(hour.outside),
                Cell::text(if sold.is_empty() { NOTHING.to_owned() } else { sold.join(", ") }),
                Cell::number(hour.idle),
                Cell::number(hour.free),
                Cell::optional(hour.own_need_max),
            ]
        })
    });
    let headings = ["pool", "at", "owned", "unhealthy", "reserve", "internal", "outside", "sold", "idle", "free", "own need up to"];
    Table::new(headings, "there are no devices").rows(rows)
}

fn run(context: &mut Context<'_>) -> Result<()> {
    let list = context.client()?.capacity()?;
    if context.json {
        return context.print_json(&list);
    }
    let mut text = table(&list.data).render(context.style);
    if list.data.iter().any(|kind| !kind.pools.is_empty()) {
        text.push('\n');
        text.push_str(&pools(&list).render(context.style));
    }
    if list.data.iter().flat_map(|kind| &kind.pools).any(|pool| pool.decided_at.is_some()) {
        text.push('\n');
        text.push_str(&levels(&list).render(context.style));
    }
    context.print(&text)
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

fn pools(list: &List<Capacity>) -> Table {
    let all = list.data.iter().flat_map(|kind| kind.pools.iter().map(move |pool| (&kind.device_kind, pool)));
    let rows = all.map(|(kind, pool)| {
        let sold: Vec<String> =
            pool.classes.iter().filter(|class| class.sold > 0).map(|class| format!("{} {}", class.notice, class.sold)).collect();
        let curve = match (pool.age_seconds, pool.is_fresh) {
            (None, _) => NOTHING.to_owned(),
            (Some(age), true) => format!("{age} s old"),
            (Some(age), false) => format!("{age} s old, stale: sells nothing"),
        };
        [
            Cell::text(format!("{kind} at {}", pool.site)),
            Cell::number(pool.owned),
            Cell::number(pool.unhealthy),
            Cell::number(pool.reserve),
            Cell::number(pool.internal),
            Cell::number(pool.outside),
            Cell::text(if sold.is_empty() { NOTHING.to_owned() } else { sold.join(", ") }),
            Cell::number(pool.idle),
            Cell::text(curve),
        ]
    });
    let headings = ["pool", "owned", "unhealthy", "reserve", "internal", "outside", "sold", "idle", "curve"];
    Table::new(headings, "there are no devices").rows(rows)
}

fn levels(list: &List<Capacity>) -> Table {
    let all = list.data.iter().flat_map(|kind| kind.pools.iter().map(move |pool| (&kind.device_kind, pool)));
    let rows = all.flat_map(|(kind, pool)| {
        pool.classes.iter().map(move |class| {
            [
                Cell::text(format!("{kind} at {}", pool.site)),
                Cell::text(class.notice.as_str()),
                Cell::number(class.level.map_or_else(|| NOTHING.to_owned(), |level| level.to_string())),
                Cell::number(class.sold),
                Cell::text(class.reason.as_deref().unwrap_or(NOTHING)),
            ]
        })
    });
    Table::new(["pool", "notice", "level", "sold", "why"], "").rows(rows)
}
