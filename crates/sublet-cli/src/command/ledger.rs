//! `sublet ledger`.

use std::io::Read;

use clap::Subcommand;
use sublet_api::ledger::{
    AnswerGateway, ExportFormat, GatewayAction, GatewayLoss, LedgerAccount, LedgerAccountListQuery, LedgerExportQuery,
    LedgerVerification,
};
use sublet_core::error::{Error, ErrorCode, Result};
use sublet_core::id::{GatewayId, OrganizationId};

use super::{PageArgs, show_page};
use crate::Context;
use crate::render::{self, Cell, Table};
use crate::value::word;

/// Bytes of an export that are read at once.
const EXPORT_READ_BYTES: usize = 64 * 1024;

/// The books.
#[derive(Subcommand, Debug)]
pub enum LedgerCommand {
    /// Add everything up again; fails if the books do not balance
    Verify,
    /// Print the whole journal for another accounting program
    Export {
        /// beancount or hledger
        #[arg(long, default_value = "beancount", value_parser = word::<ExportFormat>)]
        format: ExportFormat,
    },
    /// List accounts
    Accounts {
        #[arg(long)]
        organization: Option<OrganizationId>,
        #[command(flatten)]
        page: PageArgs,
    },
    /// Declare a silent gateway lost: what it holds waits in suspense for its journal
    LostGateway {
        gateway: GatewayId,
        /// One line: why
        #[arg(long)]
        note: String,
    },
    /// Give what of a lost gateway is in suspense back to the customers
    WriteOff {
        gateway: GatewayId,
        /// One line: why
        #[arg(long)]
        note: String,
    },
}

impl LedgerCommand {
    pub(super) fn run(self, context: &mut Context<'_>) -> Result<()> {
        let client = context.client()?;
        match self {
            Self::Verify => {
                let verification = client.verify_ledger()?;
                context.show(&verification, |verification| Table::of_fields(fields(verification)))?;
                outcome(&verification)
            }
            Self::Export { format } => {
                let mut export = client.export_ledger(&LedgerExportQuery { format })?;
                copy(&mut export, context)
            }
            Self::Accounts { organization, page } => {
                let order = page.order();
                let query = LedgerAccountListQuery { organization, limit: page.limit, after: page.after, before: None, order };
                let list = client.ledger_accounts(&query)?;
                show_page(context, &list, table)
            }
            Self::LostGateway { gateway, note } => {
                let loss = client.answer_gateway(&gateway, &AnswerGateway { action: GatewayAction::Lost, note })?;
                context.show(&loss, |loss| Table::of_fields(loss_fields(loss)))
            }
            Self::WriteOff { gateway, note } => {
                let loss = client.answer_gateway(&gateway, &AnswerGateway { action: GatewayAction::WriteOff, note })?;
                context.show(&loss, |loss| Table::of_fields(loss_fields(loss)))
            }
        }
    }
}

fn loss_fields(loss: &GatewayLoss) -> Vec<(&'static str, Cell)> {
    let mut fields = vec![("gateway", Cell::text(loss.gateway.to_string())), ("slices", Cell::text(loss.slices.to_string()))];
    fields.extend(loss.moved.iter().map(|money| ("moved", Cell::text(render::money(money)))));
    fields
}

fn outcome(verification: &LedgerVerification) -> Result<()> {
    if verification.balanced {
        return Ok(());
    }
    let count = verification.findings.len();
    Err(Error::new(ErrorCode::LedgerMismatch, format!("the books do not balance: {count} findings")))
}

fn copy(export: &mut dyn Read, context: &mut Context<'_>) -> Result<()> {
    let mut buffer = vec![0; EXPORT_READ_BYTES];
    loop {
        let count = export.read(&mut buffer).map_err(|error| {
            Error::new(ErrorCode::Unreachable, format!("the export broke off, what was printed is not whole: {error}"))
        })?;
        let Some(bytes @ [_, ..]) = buffer.get(..count) else { return Ok(()) };
        context.write_data(bytes)?;
    }
}

fn fields(verification: &LedgerVerification) -> Vec<(&'static str, Cell)> {
    let word = if verification.balanced { "ok" } else { "failed" };
    let mut fields = vec![
        ("books", Cell::state(word)),
        ("as of", Cell::text(render::instant(verification.as_of.0))),
        ("accounts", Cell::text(verification.accounts.to_string())),
        ("transfers", Cell::text(verification.transfers.to_string())),
        ("charges", Cell::text(verification.charges.to_string())),
    ];
    for totals in &verification.currencies {
        let text = format!("debits {} = credits {} {}", totals.debits.0, totals.credits.0, totals.currency);
        let unequal = text.replace(" = ", " ≠ ");
        fields.push(("total", Cell::text(if totals.debits == totals.credits { text } else { unequal })));
    }
    fields.extend(verification.findings.iter().map(|finding| ("finding", Cell::text(finding))));
    fields
}

fn table(accounts: &[LedgerAccount]) -> Table {
    let rows = accounts.iter().map(|account| {
        [
            Cell::text(&account.name),
            Cell::text(account.currency.as_str()),
            Cell::number(account.debits_posted.0),
            Cell::number(account.credits_posted.0),
        ]
    });
    Table::new(["account", "in", "debits", "credits"], "the books are empty").rows(rows)
}
