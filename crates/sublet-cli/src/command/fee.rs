//! `sublet fees`.

use clap::Subcommand;
use sublet_api::fee::{CreateFee, Fee, FeeListQuery};
use sublet_api::list::ListQuery;
use sublet_core::error::Result;
use sublet_core::id::{OrganizationId, ProjectId};

use super::{PageArgs, show_page};
use crate::Context;
use crate::render::{self, Cell, Table};

/// Fees that are charged once.
#[derive(Subcommand, Debug)]
pub enum FeeCommand {
    /// List them: of your organization, or of all (operator)
    List {
        /// Of one organization (operator)
        #[arg(long, conflicts_with = "all")]
        organization: Option<OrganizationId>,
        /// Of every organization (operator)
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        page: PageArgs,
    },
    /// Charge an account a fee of its price list: all of it from its credit, or nothing (operator)
    Charge {
        organization: OrganizationId,
        /// As the price list calls it
        fee: String,
        /// On whose line of the invoice it is
        #[arg(long)]
        project: ProjectId,
        /// How many
        #[arg(long)]
        quantity: Option<u64>,
        /// One line that the customer reads
        #[arg(long)]
        note: String,
    },
}

impl FeeCommand {
    pub(super) fn run(self, context: &mut Context<'_>) -> Result<()> {
        let client = context.client()?;
        match self {
            Self::List { organization, all, page } => {
                let (limit, after, before, order) = (page.limit, page.after.clone(), None, page.order());
                let list = if all || organization.is_some() {
                    client.all_fees(&FeeListQuery { organization, limit, after, before, order })?
                } else {
                    client.fees(&ListQuery { limit, after, before, order })?
                };
                show_page(context, &list, table)
            }
            Self::Charge { organization, fee, project, quantity, note } => {
                let body = CreateFee { organization, project, fee, quantity, note };
                let charged = client.charge_fee(&body, &context.fresh_key())?;
                context.show(&charged, details)
            }
        }
    }
}

fn table(fees: &[Fee]) -> Table {
    let rows = fees.iter().map(|fee| {
        [
            Cell::text(fee.id.as_str()),
            Cell::text(&fee.fee),
            Cell::number(fee.quantity),
            Cell::number(render::money(&fee.amount)),
            Cell::text(render::unix(fee.created_at)),
            Cell::text(&fee.note),
        ]
    });
    Table::new(["id", "fee", "quantity", "amount", "charged", "note"], "no fee was charged").rows(rows)
}

fn details(fee: &Fee) -> Table {
    Table::of_fields(vec![
        ("id", Cell::text(fee.id.as_str())),
        ("organization", Cell::text(fee.organization.as_str())),
        ("project", Cell::text(fee.project.as_str())),
        ("fee", Cell::text(&fee.fee)),
        ("quantity", Cell::number(fee.quantity)),
        ("amount", Cell::number(render::money(&fee.amount))),
        ("price version", Cell::text(&fee.price_version)),
        ("note", Cell::text(&fee.note)),
        ("charged", Cell::text(render::unix(fee.created_at))),
    ])
}
