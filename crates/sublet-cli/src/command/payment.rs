//! `sublet payments`.

use std::fs::File;
use std::io::Read as _;
use std::path::PathBuf;

use clap::Subcommand;
use sublet_api::payment::{
    AnswerIncomingPayment, BankStatement, ImportBankStatement, IncomingAction, IncomingPayment, IncomingPaymentListQuery,
    IncomingStatus,
};
use sublet_core::error::{Error, ErrorCode, Result};
use sublet_core::id::{IncomingPaymentId, OrganizationId};

use super::{PageArgs, show_page};
use crate::Context;
use crate::render::{self, Cell, Table};

/// Longest statement, in bytes.
const STATEMENT_MAX_BYTES: u64 = 200 * 1024;

/// Money that arrived.
#[derive(Subcommand, Debug)]
pub enum PaymentCommand {
    /// List what arrived (operator)
    List {
        /// matched, quarantined, credited or returned
        #[arg(long)]
        status: Option<IncomingStatus>,
        #[command(flatten)]
        page: PageArgs,
    },
    /// Take a bank statement in; each transaction counts once (operator)
    Import {
        /// CSV with the columns transaction_id, amount, currency and reference
        file: PathBuf,
    },
    /// Make a customer's credit of what is quarantined (operator)
    Credit {
        payment: IncomingPaymentId,
        #[arg(long)]
        organization: OrganizationId,
        /// One line: why
        #[arg(long)]
        note: String,
    },
    /// Say that what is quarantined was sent back, or is none of a customer's (operator)
    Return {
        payment: IncomingPaymentId,
        /// One line: why
        #[arg(long)]
        note: String,
    },
}

impl PaymentCommand {
    pub(super) fn run(self, context: &mut Context<'_>) -> Result<()> {
        let client = context.client()?;
        let (payment, body) = match self {
            Self::List { status, page } => {
                let order = page.order();
                let query = IncomingPaymentListQuery { status, limit: page.limit, after: page.after, before: None, order };
                return show_page(context, &client.incoming_payments(&query)?, table);
            }
            Self::Import { file } => {
                let unusable = |why: String| Error::new(ErrorCode::Usage, format!("{} cannot be used: {why}", file.display()));
                let opened = File::open(&file).map_err(|error| unusable(error.to_string()))?;
                let mut content = String::new();
                let read = opened.take(STATEMENT_MAX_BYTES + 1).read_to_string(&mut content);
                let bytes = read.map_err(|error| unusable(error.to_string()))?;
                if u64::try_from(bytes).unwrap_or(u64::MAX) > STATEMENT_MAX_BYTES {
                    return Err(unusable(format!("it has more than {STATEMENT_MAX_BYTES} bytes")).alternative("split the file"));
                }
                let statement = client.import_bank_statement(&ImportBankStatement { content }, &context.fresh_key())?;
                return context.show(&statement, rows);
            }
            Self::Credit { payment, organization, note } => {
                (payment, AnswerIncomingPayment { action: IncomingAction::Credit, organization: Some(organization), note })
            }
            Self::Return { payment, note } => {
                (payment, AnswerIncomingPayment { action: IncomingAction::Return, organization: None, note })
            }
        };
        let payment = client.answer_incoming_payment(&payment, &body)?;
        context.show(&payment, |payment| table(std::slice::from_ref(payment)))
    }
}

fn table(payments: &[IncomingPayment]) -> Table {
    let rows = payments.iter().map(|payment| {
        [
            Cell::text(payment.id.as_str()),
            Cell::text(payment.source.as_str()),
            Cell::text(&payment.transaction_id),
            Cell::number(payment.amount.as_ref().map_or_else(String::new, render::money)),
            Cell::text(payment.status.as_str()),
            Cell::optional(payment.problem.map(|problem| problem.as_str().to_owned()).as_ref()),
            Cell::optional(payment.organization.as_ref().map(ToString::to_string).as_ref()),
            Cell::text(&payment.reference),
        ]
    });
    let titles = ["payment", "by", "transaction", "amount", "status", "problem", "organization", "reference"];
    Table::new(titles, "nothing arrived").rows(rows)
}

fn rows(statement: &BankStatement) -> Table {
    let rows = statement.rows.iter().map(|row| {
        [
            Cell::text(&row.transaction_id),
            Cell::text(row.status.as_str()),
            Cell::optional(row.problem.map(|problem| problem.as_str().to_owned()).as_ref()),
            Cell::optional(row.top_up.as_ref().map(ToString::to_string).as_ref()),
        ]
    });
    Table::new(["transaction", "status", "problem", "top-up"], "the statement has no rows").rows(rows)
}
