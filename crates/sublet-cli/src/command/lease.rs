//! `sublet leases`.

use clap::Subcommand;
use sublet_api::client::Client;
use sublet_api::lease::{Lease, LeaseListQuery, LeaseNotice, LeaseNoticeQuery, LeaseStatus};
use sublet_api::reclaim::DeclareCheckpoint;
use sublet_api::time::Rfc3339;
use sublet_core::error::Result;
use sublet_core::id::LeaseId;

use super::{PageArgs, show_page};
use crate::Context;
use crate::render::{self, Cell, NOTHING, Table};
use crate::value::word;

/// The longest that one call waits.
const WAIT_AT_ONCE_SECONDS: u32 = 60;

/// Rights to use capacity.
#[derive(Subcommand, Debug)]
pub enum LeaseCommand {
    /// List leases
    List {
        /// active, ending or ended
        #[arg(long, value_parser = word::<LeaseStatus>)]
        status: Option<LeaseStatus>,
        /// Those of every tenant (operator)
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        page: PageArgs,
    },
    /// Show one lease
    Show { id: LeaseId },
    /// End a lease; its jobs are stopped
    Cancel { id: LeaseId },
    /// Say that what its workload did so far is saved
    Checkpoint {
        id: LeaseId,
        /// What ran before is saved; now if left out
        #[arg(long, value_name = "INSTANT")]
        at: Option<Rfc3339>,
    },
    /// Give a lease back that was told to end, before its deadline
    Yield { id: LeaseId },
    /// Show what a lease was told of its end
    Notice {
        id: LeaseId,
        /// Wait for it: so many seconds, or a week
        #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true, default_missing_value = "604800")]
        wait: Option<u32>,
        /// Only a later one than this is news
        #[arg(long, value_name = "GENERATION", default_value_t = 0)]
        after: u64,
    },
}

impl LeaseCommand {
    pub(super) fn run(self, context: &mut Context<'_>) -> Result<()> {
        let client = context.client()?;
        match self {
            Self::List { status, all, page } => {
                let order = page.order();
                let query = LeaseListQuery { status, limit: page.limit, after: page.after, before: None, order };
                let list = if all { client.all_leases(&query)? } else { client.leases(&query)? };
                show_page(context, &list, table)
            }
            Self::Show { id } => {
                let lease = client.lease(&id)?;
                context.show(&lease, |lease| Table::of_fields(fields(lease)))
            }
            Self::Cancel { id } => {
                let lease = client.cancel_lease(&id)?;
                context.show(&lease, |lease| Table::of_fields(fields(lease)))
            }
            Self::Checkpoint { id, at } => {
                let lease = client.declare_checkpoint(&id, &DeclareCheckpoint { at })?;
                context.show(&lease, |lease| Table::of_fields(fields(lease)))
            }
            Self::Yield { id } => {
                let lease = client.yield_lease(&id)?;
                context.show(&lease, |lease| Table::of_fields(fields(lease)))
            }
            Self::Notice { id, wait, after } => {
                let notice = wait_for_notice(&client, &id, (wait.unwrap_or(0), after))?;
                context.show(&notice, notice_fields)
            }
        }
    }
}

/// Asks again every minute for as long as there is nothing to tell.
fn wait_for_notice(client: &Client, id: &LeaseId, (mut left, after): (u32, u64)) -> Result<LeaseNotice> {
    loop {
        let wait = left.min(WAIT_AT_ONCE_SECONDS);
        let query = LeaseNoticeQuery { wait_s: Some(wait), after_generation: Some(after) };
        let notice = client.lease_notice(id, &query)?;
        left -= wait;
        if left == 0 || notice.generation > after || notice.status == LeaseStatus::Ended {
            return Ok(notice);
        }
    }
}

fn notice_fields(notice: &LeaseNotice) -> Table {
    Table::of_fields(vec![
        ("lease", Cell::text(notice.lease.as_str())),
        ("status", Cell::state(notice.status.as_str())),
        ("notices", Cell::text(notice.generation.to_string())),
        ("told", Cell::text(render::rfc3339(notice.told_at))),
        ("leave by", Cell::text(render::rfc3339(notice.deadline))),
        ("because", Cell::optional(notice.end_reason.as_ref())),
    ])
}

fn fields(lease: &Lease) -> Vec<(&'static str, Cell)> {
    let devices: Vec<&str> = lease.devices.iter().map(|device| device.as_str()).collect();
    let maximum = lease.maximum_cost.as_ref().map_or_else(|| NOTHING.to_owned(), render::money);
    let mut fields = vec![
        ("lease", Cell::text(lease.id.as_str())),
        ("status", Cell::state(lease.status.as_str())),
        ("capacity", Cell::text(format!("{} × {} at {}", lease.units, lease.sku.as_str(), lease.notice))),
        ("devices", Cell::text(devices.join(", "))),
        ("device-hour", Cell::text(render::money(&lease.price))),
        ("cost", Cell::text(render::money(&lease.cost))),
        ("set aside", Cell::text(render::money(&lease.held))),
        ("at most", Cell::text(maximum)),
        ("since", Cell::text(render::instant(lease.starts_at.0))),
        ("until", Cell::text(render::rfc3339(lease.ended_at.or(lease.ends_at)))),
        ("ended by", Cell::optional(lease.end_reason.as_ref())),
        ("quote", Cell::text(lease.quote.as_str())),
        ("price list", Cell::text(lease.price_version.0.as_ref())),
    ];
    fields.extend(lease.made_good.as_ref().map(|given| ("made good", Cell::text(render::money(given)))));
    fields.extend(lease.early_credit.as_ref().map(|given| ("for leaving early", Cell::text(render::money(given)))));
    fields
}

fn table(leases: &[Lease]) -> Table {
    let rows = leases.iter().map(|lease| {
        [
            Cell::text(lease.id.as_str()),
            Cell::state(lease.status.as_str()),
            Cell::number(lease.units),
            Cell::text(lease.sku.as_str()),
            Cell::text(lease.notice.as_str()),
            Cell::number(render::money(&lease.cost)),
            Cell::text(render::instant(lease.starts_at.0)),
            Cell::text(render::rfc3339(lease.ended_at.or(lease.ends_at))),
        ]
    });
    Table::new(["lease", "status", "units", "sku", "notice", "cost", "since", "until"], "no leases yet").rows(rows)
}
