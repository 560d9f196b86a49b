//! `sublet payouts`.

use clap::Subcommand;
use sublet_api::list::ListQuery;
use sublet_api::payout::{Payout, ProcessorFunds};
use sublet_core::error::Result;

use super::{PageArgs, show_page};
use crate::Context;
use crate::render::{self, Cell, Table};

/// What Stripe paid out to the bank account (operator).
#[derive(Subcommand, Debug)]
pub enum PayoutCommand {
    /// List what was paid out, or is on its way
    List {
        #[command(flatten)]
        page: PageArgs,
    },
    /// What Stripe holds, by the books and by its own word
    Held,
}

impl PayoutCommand {
    pub(super) fn run(self, context: &mut Context<'_>) -> Result<()> {
        let client = context.client()?;
        match self {
            Self::List { page } => {
                let order = page.order();
                let query = ListQuery { limit: page.limit, after: page.after, before: None, order };
                show_page(context, &client.payouts(&query)?, table)
            }
            Self::Held => context.show(&client.processor_funds()?, funds),
        }
    }
}

fn table(payouts: &[Payout]) -> Table {
    let rows = payouts.iter().map(|payout| {
        [
            Cell::text(payout.id.as_str()),
            Cell::text(&payout.transaction_id),
            Cell::number(render::money(&payout.amount)),
            Cell::text(payout.status.as_str()),
            Cell::text(render::instant(payout.made_at.0)),
            Cell::optional(payout.reason.as_ref()),
        ]
    });
    Table::new(["payout", "transaction", "amount", "status", "made", "reason"], "nothing was paid out").rows(rows)
}

fn funds(funds: &ProcessorFunds) -> Table {
    let unknown = || "unknown".to_owned();
    let rows = funds.currencies.iter().map(|held| {
        [
            Cell::number(render::money(&held.collected)),
            Cell::number(render::money(&held.fees)),
            Cell::number(render::money(&held.paid_out)),
            Cell::number(render::money(&held.held)),
            Cell::number(held.reported.as_ref().map_or_else(unknown, render::money)),
            Cell::number(held.difference.as_ref().map_or_else(unknown, render::money)),
        ]
    });
    let titles = ["collected", "fees", "paid out", "held by the books", "by its own word", "difference"];
    Table::new(titles, "nothing was collected").rows(rows)
}
