//! `sublet clock`.

use clap::Subcommand;
use sublet_api::clock::{Clock, SetClock};
use sublet_api::time::Rfc3339;
use sublet_core::error::Result;

use crate::Context;
use crate::render::{self, Cell, Table};

/// The cloud's clock.
#[derive(Subcommand, Debug)]
pub enum ClockCommand {
    /// Show what time it is
    Show,
    /// Put a test clock forward to an instant, by 366 days at most, and close the months that are over then
    Set {
        /// Such as 2026-04-01T02:00:00Z
        now: Rfc3339,
    },
}

impl ClockCommand {
    pub(super) fn run(self, context: &mut Context<'_>) -> Result<()> {
        let client = context.client()?;
        let clock = match self {
            Self::Show => client.clock()?,
            Self::Set { now } => client.set_clock(&SetClock { now })?,
        };
        context.show(&clock, table)
    }
}

fn table(clock: &Clock) -> Table {
    Table::of_fields(vec![
        ("now", Cell::text(render::instant(clock.now.0))),
        ("kind", Cell::text(if clock.is_test_clock { "a test clock" } else { "the real time" })),
        ("ahead by", Cell::text(format!("{} s", clock.ahead_seconds))),
        ("months closed", Cell::number(clock.closed_months)),
        ("invoices issued", Cell::number(clock.issued_invoices)),
        ("accounts that failed", Cell::number(clock.failed_accounts)),
    ])
}
