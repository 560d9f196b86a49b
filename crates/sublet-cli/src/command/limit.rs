//! `sublet billing limits`.

use clap::{Args, Subcommand};
use sublet_api::client::{Client, KeyPath, LimitPath};
use sublet_api::limit::{LimitOwner, LimitQuery, LimitWindow, SetSpendLimit, SpendLimit};
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
        #[command(flatten)]
        requests: RequestArgs,
    },
    /// Remove a limit
    Remove {
        #[command(flatten)]
        owner: OwnerArgs,
        /// total, day or month
        #[arg(value_parser = word::<LimitWindow>)]
        window: LimitWindow,
        #[command(flatten)]
        requests: RequestArgs,
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

/// On which requests; on all if nothing is said.
#[derive(Args, Debug)]
pub struct RequestArgs {
    /// Those for this model
    #[arg(long)]
    pub model: Option<String>,
    /// Those of each end user, who has the limit for himself
    #[arg(long, conflicts_with = "end_user")]
    pub each_end_user: bool,
    /// Those of this end user
    #[arg(long)]
    pub end_user: Option<String>,
}

impl RequestArgs {
    fn query(self) -> LimitQuery {
        let Self { model, each_end_user, end_user } = self;
        LimitQuery { model, each_end_user: each_end_user.then_some(true), end_user }
    }
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
            Self::Set { owner, window, amount, requests } => {
                let money = amount.in_currency(client.own_organization()?.currency)?;
                let body = SetSpendLimit { amount: Amount(money.nanos()) };
                let limit = client.set_limit(&owner.path(&client)?, window, &requests.query(), &body)?;
                context.show(&limit, |limit| table(std::slice::from_ref(limit)))
            }
            Self::Remove { owner, window, requests } => {
                let removed = client.remove_limit(&owner.path(&client)?, window, &requests.query())?;
                context.show_text(&removed, |_, _| format!("removed the {} limit\n", window.as_str()))
            }
        }
    }
}

fn requests(limit: &SpendLimit) -> String {
    let users = match (&limit.end_user, limit.each_end_user) {
        (Some(name), _) => Some(format!("of {name}")),
        (None, true) => Some("of each end user".to_owned()),
        (None, false) => None,
    };
    let parts: Vec<String> = limit.model.iter().map(|model| format!("for {model}")).chain(users).collect();
    if parts.is_empty() { "all".to_owned() } else { parts.join(" ") }
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
            Cell::text(requests(limit)),
            Cell::text(limit.window.as_str()),
            Cell::number(render::money(&limit.amount)),
            Cell::number(render::money(&limit.spent)),
            Cell::number(render::money(&limit.held)),
            Cell::number(render::money(&limit.remaining)),
            Cell::text(render::rfc3339(limit.resets_at)),
        ]
    });
    Table::new(
        ["of", "requests", "window", "limit", "spent", "set aside", "left", "resets"],
        "no limits here; the credit alone bounds spending",
    )
    .rows(rows)
}
