//! `sublet usage`.

use clap::Args;
use sublet_api::price::Meter;
use sublet_api::time::{QueryInstant, Rfc3339};
use sublet_api::usage::{UsageQuery, UsageSummary};
use sublet_core::error::Result;

use crate::Context;
use crate::context::Style;
use crate::render::{self, Cell, Table};

/// Whose usage, and when.
#[derive(Args, Debug)]
pub struct UsageArgs {
    /// All projects of the organization (admin key)
    #[arg(long)]
    pub organization: bool,
    /// From this instant, such as 2026-03-01T00:00:00Z; the current period if left out
    #[arg(long)]
    pub from: Option<Rfc3339>,
    /// Until before this instant
    #[arg(long)]
    pub to: Option<Rfc3339>,
}

impl UsageArgs {
    pub(super) fn run(self, context: &mut Context<'_>) -> Result<()> {
        let instant = |at: Option<Rfc3339>| at.map(|at| QueryInstant(at.0));
        let query = UsageQuery { start_time: instant(self.from), end_time: instant(self.to) };
        let client = context.client()?;
        let usage = if self.organization { client.organization_usage(&query)? } else { client.usage(&query)? };
        context.show_text(&usage, text)
    }
}

fn text(usage: &UsageSummary, style: Style) -> String {
    let rows = usage.lines.iter().map(|line| {
        [
            Cell::text(line.project.as_str()),
            Cell::text(line.subject.name()),
            Cell::text(line.meter.as_str()),
            Cell::text(render::kind_of_time(line.notice, line.site.as_ref(), line.isolation)),
            Cell::number(quantity(line.meter, line.quantity)),
            Cell::number(line.charges),
            Cell::number(render::money(&line.cost)),
        ]
    });
    let table = Table::new(["project", "what", "meter", "notice", "quantity", "charges", "cost"], "nothing was used").rows(rows);
    let from = render::instant(usage.start_time.0);
    let to = render::instant(usage.end_time.0);
    let total = Table::of_fields(vec![
        ("total", Cell::text(render::money(&usage.total))),
        ("set aside", Cell::text(render::money(&usage.held))),
        ("period", Cell::text(format!("{from} to {to}"))),
    ]);
    format!("{}\n{}", table.render(style), total.render(style))
}

/// A quantity in the unit people know.
pub(super) fn quantity(meter: Meter, quantity: impl Into<i128>) -> String {
    let quantity = quantity.into();
    match meter {
        Meter::InputTokens
        | Meter::CachedInputTokens
        | Meter::OutputTokens
        | Meter::Requests
        | Meter::Starts
        | Meter::ProjectMonths
        | Meter::Fees
        | Meter::ByteHours
        | Meter::BytesSent => quantity.to_string(),
        Meter::DeviceMilliseconds => {
            let sign = if quantity < 0 { "-" } else { "" };
            let time = u64::try_from(quantity.unsigned_abs()).map_or_else(|_| quantity.to_string(), render::milliseconds);
            format!("{sign}{time}")
        }
    }
}
