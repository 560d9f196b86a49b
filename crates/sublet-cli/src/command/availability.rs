//! `sublet availability`.

use clap::Args;
use sublet_api::calendar::{AvailabilityCalendar, AvailabilityCalendarQuery};
use sublet_api::sku::{Availability, AvailabilityQuery, SkuName};
use sublet_core::DurationMs;
use sublet_core::error::Result;
use sublet_core::id::SiteId;
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
    /// The coming hours instead, in steps of a share of what there is: 1 to 336
    #[arg(long, value_name = "HOURS", value_parser = clap::value_parser!(u16).range(1..=336))]
    pub calendar: Option<u16>,
    /// Of a calendar, only at this site
    #[arg(long, requires = "calendar")]
    pub site: Option<SiteId>,
}

impl AvailabilityArgs {
    pub(super) fn run(self, context: &mut Context<'_>) -> Result<()> {
        if self.calendar.is_some() {
            let query = AvailabilityCalendarQuery {
                sku: self.sku.map(SkuName),
                notice: self.notice,
                site: self.site,
                hours: self.calendar,
            };
            let list = context.client()?.availability_calendar(&query)?;
            return show_page(context, &list, calendar);
        }
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

/// Hours with the same level in one row.
fn calendar(rows: &[AvailabilityCalendar]) -> Table {
    let rows = rows.iter().flat_map(|row| {
        let runs = row.levels.chunk_by(|one, other| one == other).scan(0_i64, |before, run| {
            let (from, hours) = (*before, i64::try_from(run.len()).unwrap_or(i64::MAX));
            *before = from.saturating_add(hours);
            Some((from, *before, run.first()))
        });
        runs.map(move |(from, until, level)| {
            let at = |hours: i64| render::instant(row.starts_at.0.plus(DurationMs::from_hours(hours)));
            [
                Cell::text(row.sku.as_str()),
                Cell::text(render::kind_of_time(Some(row.notice), Some(&row.site), None)),
                Cell::text(at(from)),
                Cell::text(at(until)),
                Cell::text(level.map_or("", String::as_str)),
            ]
        })
    });
    Table::new(["sku", "notice", "from", "until", "could be leased"], "nothing is leased").rows(rows)
}
