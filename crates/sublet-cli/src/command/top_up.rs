//! `sublet top-ups`.

use clap::Subcommand;
use sublet_api::payment::{CreateTopUp, PaymentMethod, TopUp, TopUpListQuery, TopUpStatus};
use sublet_core::error::Result;
use sublet_core::id::{OrganizationId, TopUpId};

use super::top_up_rule::TopUpRuleCommand;
use super::{PageArgs, show_page};
use crate::Context;
use crate::render::{self, Cell, Table};
use crate::value::MoneyArgument;

/// Top-ups.
#[derive(Subcommand, Debug)]
pub enum TopUpCommand {
    /// List what was paid in, or is meant to be
    List {
        /// pending, succeeded, failed, cancelled or expired
        #[arg(long)]
        status: Option<TopUpStatus>,
        /// Of every organization (operator)
        #[arg(long)]
        all: bool,
        /// Of one organization (operator)
        #[arg(long, conflicts_with = "all")]
        organization: Option<OrganizationId>,
        #[command(flatten)]
        page: PageArgs,
    },
    /// Show one: where to pay, and how far it is
    Show { top_up: TopUpId },
    /// Make a place to pay
    Create {
        /// Such as 50 or "50 EUR"
        amount: MoneyArgument,
        /// bank, which gives a reference for a transfer, stripe, which gives a page, or card, which charges the saved card
        #[arg(long, default_value = "bank")]
        method: PaymentMethod,
    },
    /// Call one off; what was paid before is credit
    Cancel { top_up: TopUpId },
    /// What is charged to the saved card by itself
    #[command(subcommand)]
    Rule(TopUpRuleCommand),
}

impl TopUpCommand {
    pub(super) fn run(self, context: &mut Context<'_>) -> Result<()> {
        let client = context.client()?;
        match self {
            Self::List { status, all, organization, page } => {
                let order = page.order();
                let is_operator = all || organization.is_some();
                let query = TopUpListQuery { organization, status, limit: page.limit, after: page.after, before: None, order };
                let list = if is_operator { client.all_top_ups(&query)? } else { client.top_ups(&query)? };
                show_page(context, &list, table)
            }
            Self::Show { top_up } => context.show(&client.top_up(&top_up)?, details),
            Self::Create { amount, method } => {
                let currency = client.credits()?.available.currency;
                let body = CreateTopUp { amount: amount.in_currency(currency)?, method };
                context.show(&client.create_top_up(&body, &context.fresh_key())?, details)
            }
            Self::Rule(command) => command.run(context),
            Self::Cancel { top_up } => context.show(&client.cancel_top_up(&top_up)?, details),
        }
    }
}

fn table(top_ups: &[TopUp]) -> Table {
    let rows = top_ups.iter().map(|top_up| {
        [
            Cell::text(top_up.id.as_str()),
            Cell::text(top_up.method.as_str()),
            Cell::number(render::money(&top_up.amount)),
            Cell::text(top_up.status.as_str()),
            Cell::optional(top_up.reference.as_ref()),
            Cell::text(render::instant(top_up.expires_at.0)),
        ]
    });
    Table::new(["top-up", "by", "amount", "status", "reference", "expires"], "nothing was paid in").rows(rows)
}

fn details(top_up: &TopUp) -> Table {
    let place = top_up.checkout_url.as_ref().or(top_up.reference.as_ref());
    let row = [
        Cell::text(top_up.id.as_str()),
        Cell::text(top_up.method.as_str()),
        Cell::number(render::money(&top_up.amount)),
        Cell::text(top_up.status.as_str()),
        Cell::optional(place),
        Cell::optional(top_up.reason.as_ref()),
    ];
    Table::new(["top-up", "by", "amount", "status", "pay with", "reason"], "").rows([row])
}
