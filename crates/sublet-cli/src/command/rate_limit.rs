//! `sublet rate-limits`.

use clap::{Args, Subcommand};
use sublet_api::list::ListQuery;
use sublet_api::rate_limit::{CreateRateLimit, RateLimit, SetRateLimit};
use sublet_core::error::Result;
use sublet_core::id::RateLimitId;
use sublet_core::rate::RateMetric;

use super::limit::{OwnerArgs, RequestArgs};
use super::{PageArgs, show_page};
use crate::Context;
use crate::render::{Cell, Table};
use crate::value::word;

/// Limits on speed (admin); all that apply do apply.
#[derive(Subcommand, Debug)]
pub enum RateLimitCommand {
    /// List limits and what is left of them
    List {
        #[command(flatten)]
        page: PageArgs,
    },
    /// Set a limit
    Add(AddArgs),
    /// Change the value of a limit
    Change { id: RateLimitId, value: i64 },
    /// Remove a limit
    Remove { id: RateLimitId },
}

/// What is limited; the organization if nothing is said.
#[derive(Args, Debug)]
pub struct AddArgs {
    /// requests_per_minute, tokens_per_minute, tokens_per_day or concurrent_requests
    #[arg(value_parser = word::<RateMetric>)]
    pub metric: RateMetric,
    pub value: i64,
    #[command(flatten)]
    pub owner: OwnerArgs,
    #[command(flatten)]
    pub requests: RequestArgs,
}

impl RateLimitCommand {
    pub(super) fn run(self, context: &mut Context<'_>) -> Result<()> {
        let client = context.client()?;
        match self {
            Self::List { page } => {
                let order = page.order();
                let list = client.rate_limits(&ListQuery { limit: page.limit, after: page.after, before: None, order })?;
                show_page(context, &list, table)
            }
            Self::Add(args) => {
                let AddArgs { metric, value, owner, requests } = args;
                let RequestArgs { model, each_end_user, end_user } = requests;
                // A key is named by itself: its project adds nothing.
                let subject = owner.of_key.map(|id| id.to_string()).or(owner.project.map(|id| id.to_string()));
                let body = CreateRateLimit { subject, metric, value, model, each_end_user, end_user };
                let limit = client.create_rate_limit(&body, &context.fresh_key())?;
                context.show(&limit, |limit| table(std::slice::from_ref(limit)))
            }
            Self::Change { id, value } => {
                let limit = client.set_rate_limit(&id, &SetRateLimit { value })?;
                context.show(&limit, |limit| table(std::slice::from_ref(limit)))
            }
            Self::Remove { id } => {
                let removed = client.remove_rate_limit(&id)?;
                context.show_text(&removed, |_, _| format!("removed {id}\n"))
            }
        }
    }
}

fn table(limits: &[RateLimit]) -> Table {
    let rows = limits.iter().map(|limit| {
        let end_users = match (&limit.end_user, limit.each_end_user) {
            (Some(name), _) => name.as_str(),
            (None, true) => "each",
            (None, false) => "all",
        };
        [
            Cell::text(limit.id.as_str()),
            Cell::text(&limit.subject),
            Cell::text(limit.metric.as_str()),
            Cell::number(limit.value),
            Cell::text(limit.model.as_deref().unwrap_or("all")),
            Cell::text(end_users),
            Cell::optional(limit.remaining.map(|remaining| remaining.to_string())),
        ]
    });
    Table::new(["id", "of", "counts", "limit", "model", "end users", "left"], "no limits here; keys may have their own").rows(rows)
}
