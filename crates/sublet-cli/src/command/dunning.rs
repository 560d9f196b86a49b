//! `sublet dunning`.

use clap::{Args, Subcommand};
use sublet_api::dunning::{Dunning, DunningDays, DunningPolicy, OnSuspension, PauseInvoice, SetDunning, SetOnSuspension};
use sublet_core::error::Result;
use sublet_core::id::{InvoiceId, OrganizationId};

use crate::Context;
use crate::render::{self, Cell, Table};

/// What is overdue, and what follows from it.
#[derive(Subcommand, Debug)]
pub enum DunningCommand {
    /// Show where an account stands
    Show {
        /// A customer's (operator)
        #[arg(long)]
        organization: Option<OrganizationId>,
    },
    /// Say what running work does if the account is suspended
    OnSuspension {
        /// finish or stop
        choice: OnSuspension,
    },
    /// When customers are reminded and suspended (operator)
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Leave an invoice or an account alone, as in a dispute (operator)
    Pause {
        #[command(flatten)]
        what: WhatArgs,
        /// One line: why
        #[arg(long)]
        note: String,
    },
    /// Go on with an invoice or an account (operator)
    Resume {
        #[command(flatten)]
        what: WhatArgs,
    },
}

#[derive(Subcommand, Debug)]
pub enum PolicyCommand {
    /// Show the policy of all accounts without their own
    Show,
    /// Set it, or one account's own
    Set {
        /// Days after the due day on which reminders are sent, such as 3,10,20
        #[arg(long, value_delimiter = ',', value_name = "DAYS")]
        remind_after: Vec<u16>,
        /// Days after the due day on which an account is suspended; never if left out
        #[arg(long, value_name = "DAYS")]
        suspend_after: Option<u16>,
        /// Of one account only
        #[arg(long)]
        organization: Option<OrganizationId>,
    },
    /// Treat an account as all others
    Reset {
        #[arg(long)]
        organization: OrganizationId,
    },
}

#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub struct WhatArgs {
    #[arg(long)]
    pub invoice: Option<InvoiceId>,
    #[arg(long)]
    pub organization: Option<OrganizationId>,
}

impl DunningCommand {
    pub(super) fn run(self, context: &mut Context<'_>) -> Result<()> {
        let client = context.client()?;
        let dunning = match self {
            Self::Show { organization: Some(id) } => client.dunning_of(&id)?,
            Self::Show { organization: None } => client.dunning()?,
            Self::OnSuspension { choice } => client.set_on_suspension(&SetOnSuspension { on_suspension: choice })?,
            Self::Policy(command) => return command.run(context),
            Self::Pause { what, note } => pause(context, what, Some(note))?,
            Self::Resume { what } => pause(context, what, None)?,
        };
        context.show(&dunning, table)
    }
}

impl PolicyCommand {
    fn run(self, context: &mut Context<'_>) -> Result<()> {
        let client = context.client()?;
        match self {
            Self::Show => context.show(&client.dunning_policy()?, policy_table),
            Self::Set { remind_after, suspend_after, organization: None } => {
                let days = DunningDays { reminders: remind_after, suspend_after };
                context.show(&client.set_dunning_policy(&days)?, policy_table)
            }
            Self::Set { remind_after, suspend_after, organization: Some(id) } => {
                let policy = Some(DunningDays { reminders: remind_after, suspend_after });
                let paused = client.dunning_of(&id)?.paused;
                context.show(&client.set_dunning_of(&id, &SetDunning { policy, paused })?, table)
            }
            Self::Reset { organization } => {
                let paused = client.dunning_of(&organization)?.paused;
                context.show(&client.set_dunning_of(&organization, &SetDunning { policy: None, paused })?, table)
            }
        }
    }
}

fn pause(context: &mut Context<'_>, what: WhatArgs, paused: Option<String>) -> Result<Dunning> {
    let client = context.client()?;
    if let Some(invoice) = what.invoice {
        return client.pause_invoice(&invoice, &PauseInvoice { paused });
    }
    let id = what.organization.expect("one of the two is given: the group is required");
    let known = client.dunning_of(&id)?;
    let policy = Some(known.policy).filter(|_| known.own_policy);
    client.set_dunning_of(&id, &SetDunning { policy, paused })
}

fn days(policy: &DunningDays) -> [Cell; 2] {
    let reminders: Vec<String> = policy.reminders.iter().map(ToString::to_string).collect();
    let reminders = if reminders.is_empty() { "never".to_owned() } else { reminders.join(", ") };
    [Cell::text(reminders), Cell::text(policy.suspend_after.map_or_else(|| "never".to_owned(), |days| days.to_string()))]
}

fn policy_table(policy: &DunningPolicy) -> Table {
    Table::new(["reminders, days after due", "suspension"], "").rows([days(&policy.days)])
}

/// A line for the account, and one for each invoice that is not paid.
fn table(dunning: &Dunning) -> Table {
    let standing = match (&dunning.suspended_at, &dunning.paused) {
        (Some(since), _) => format!("suspended since {}", render::instant(since.0)),
        (None, Some(note)) => format!("paused: {note}"),
        (None, None) => "active".to_owned(),
    };
    let account = [
        Cell::text(dunning.organization.as_str()),
        Cell::text(""),
        Cell::number(render::money(&dunning.overdue)),
        Cell::text(""),
        Cell::text(format!("{standing}; what runs: {}", dunning.on_suspension.as_str())),
    ];
    let invoices = dunning.invoices.iter().map(|invoice| {
        [
            Cell::text(&invoice.number),
            Cell::text(&invoice.due_on),
            Cell::number(render::money(&invoice.due)),
            Cell::optional(invoice.reminded_on.as_ref()),
            Cell::text(invoice.paused.as_ref().map_or_else(String::new, |note| format!("paused: {note}"))),
        ]
    });
    let titles = ["account, invoice", "due on", "overdue, due", "reminded on", "standing"];
    Table::new(titles, "").rows(std::iter::once(account).chain(invoices))
}
