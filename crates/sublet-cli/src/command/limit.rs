//! `sublet billing limits`.

use clap::{Args, Subcommand};
use sublet_api::client::{Client, KeyPath, LimitPath};
use sublet_api::limit::{LimitOwner, LimitWindow, SetSpendLimit, SpendLimit};
use sublet_api::money::Amount;
use sublet_core::error::Result;
use sublet_core::id::{KeyId, ProjectId};

use super::key::project_or_own;
use super::show_page;
use crate::Context;
use crate::render::{self, Cell, Table};
use crate::value::{MoneyArgument, word};

/// Spend limits; all that apply do apply.
#[derive(Subcommand, Debug)]
pub enum LimitCommand {
    /// List limits and what is left of them
    List {
        #[command(flatten)]
        owner: OwnerArgs,
    },
    /// Set a limit
    Set {
        #[command(flatten)]
        owner: OwnerArgs,
        /// total, day or month
        #[arg(value_parser = word::<LimitWindow>)]
        window: LimitWindow,
        /// Such as 20 or "20 EUR"
        amount: MoneyArgument,
    },
    /// Remove a limit
    Remove {
        #[command(flatten)]
        owner: OwnerArgs,
        /// total, day or month
        #[arg(value_parser = word::<LimitWindow>)]
        window: LimitWindow,
    },
}

/// Whose limit; the organization's if nothing is said.
#[derive(Args, Debug)]
pub struct OwnerArgs {
    /// A project's limit
    #[arg(long)]
    pub project: Option<ProjectId>,
    /// A key's limit
    #[arg(long)]
    pub of_key: Option<KeyId>,
}

impl OwnerArgs {
    fn path(self, client: &Client) -> Result<LimitPath> {
        Ok(match (self.project, self.of_key) {
            (project, Some(key)) => LimitPath::Key(KeyPath { project: project_or_own(project, client)?, key }),
            (Some(project), None) => LimitPath::Project(project),
            (None, None) => LimitPath::Organization,
        })
    }
}

impl LimitCommand {
    pub(super) fn run(self, context: &mut Context<'_>) -> Result<()> {
        let client = context.client()?;
        match self {
            Self::List { owner } => {
                let list = client.limits(&owner.path(&client)?)?;
                show_page(context, &list, table)
            }
            Self::Set { owner, window, amount } => {
                let money = amount.in_currency(client.own_organization()?.currency)?;
                let body = SetSpendLimit { amount: Amount(money.nanos()) };
                let limit = client.set_limit(&owner.path(&client)?, window, &body)?;
                context.show(&limit, |limit| table(std::slice::from_ref(limit)))
            }
            Self::Remove { owner, window } => {
                let removed = client.remove_limit(&owner.path(&client)?, window)?;
                context.show_text(&removed, |_, _| format!("removed the {} limit\n", window.as_str()))
            }
        }
    }
}

fn table(limits: &[SpendLimit]) -> Table {
    let rows = limits.iter().map(|limit| {
        let owner = match &limit.owner {
            LimitOwner::Organization(id) => id.to_string(),
            LimitOwner::Project(id) => id.to_string(),
            LimitOwner::Key(id) => id.to_string(),
        };
        [
            Cell::text(owner),
            Cell::text(limit.window.as_str()),
            Cell::number(render::money(&limit.amount)),
            Cell::number(render::money(&limit.spent)),
            Cell::number(render::money(&limit.held)),
            Cell::number(render::money(&limit.remaining)),
            Cell::text(render::rfc3339(limit.resets_at)),
        ]
    });
    Table::new(
        ["of", "window", "limit", "spent", "set aside", "left", "resets"],
        "no limits here; the credit alone bounds spending",
    )
    .rows(rows)
}
