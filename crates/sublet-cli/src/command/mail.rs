//! `sublet mail`.

use clap::Subcommand;
use sublet_api::mail::{Mail, MailListQuery, MailStatus};
use sublet_core::error::Result;
use sublet_core::id::OutboxId;

use super::{PageArgs, show_page};
use crate::Context;
use crate::render::{self, Cell, Table};

/// Mail that the cloud sends.
#[derive(Subcommand, Debug)]
pub enum MailCommand {
    /// List mail, and what became of it (operator)
    List {
        /// queued, sent or failed
        #[arg(long)]
        status: Option<MailStatus>,
        #[command(flatten)]
        page: PageArgs,
    },
    /// Try one again at once (operator)
    Retry { mail: OutboxId },
}

impl MailCommand {
    pub(super) fn run(self, context: &mut Context<'_>) -> Result<()> {
        let client = context.client()?;
        match self {
            Self::List { status, page } => {
                let order = page.order();
                let query = MailListQuery { status, limit: page.limit, after: page.after, before: None, order };
                show_page(context, &client.mail(&query)?, table)
            }
            Self::Retry { mail } => context.show(&client.retry_mail(&mail)?, |mail| table(std::slice::from_ref(mail))),
        }
    }
}

fn table(mail: &[Mail]) -> Table {
    let rows = mail.iter().map(|mail| {
        [
            Cell::text(mail.id.as_str()),
            Cell::text(render::instant(mail.created_at.into())),
            Cell::text(&mail.subject),
            Cell::text(mail.status.as_str()),
            Cell::number(mail.attempts.to_string()),
            Cell::optional(mail.sent_to.as_ref().or(mail.problem.as_ref())),
        ]
    });
    let titles = ["mail", "queued", "subject", "status", "attempts", "to, or problem"];
    Table::new(titles, "there is no mail").rows(rows)
}
