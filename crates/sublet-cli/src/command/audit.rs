//! `sublet audit`.

use clap::Subcommand;
use sublet_api::audit::{AuditEntry, AuditListQuery};
use sublet_core::error::Result;

use super::{PageArgs, show_page};
use crate::Context;
use crate::render::{self, Cell, Table};

/// The audit log.
#[derive(Subcommand, Debug)]
pub enum AuditCommand {
    /// List entries
    List {
        /// Only this action, such as api_key.created
        #[arg(long)]
        action: Option<String>,
        /// Only about this id
        #[arg(long)]
        target: Option<String>,
        /// Those of every tenant (operator)
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        page: PageArgs,
    },
}

impl AuditCommand {
    pub(super) fn run(self, context: &mut Context<'_>) -> Result<()> {
        let client = context.client()?;
        let Self::List { action, target, all, page } = self;
        let order = page.order();
        let query = AuditListQuery { action, target, limit: page.limit, after: page.after, order, ..AuditListQuery::default() };
        let list = if all { client.whole_audit_log(&query)? } else { client.audit_log(&query)? };
        show_page(context, &list, table)
    }
}

fn table(entries: &[AuditEntry]) -> Table {
    let rows = entries.iter().map(|entry| {
        [
            Cell::text(render::unix(entry.effective_at)),
            Cell::text(&entry.actor.id),
            Cell::optional(entry.address.as_ref()),
            Cell::text(&entry.action),
            Cell::optional(entry.target.as_ref()),
            Cell::state(&entry.result),
        ]
    });
    Table::new(["when", "who", "from", "what", "to", "result"], "nothing happened yet").rows(rows)
}
