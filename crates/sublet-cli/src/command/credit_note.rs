//! `sublet billing credit-notes`.

use clap::Subcommand;
use sublet_api::credit_note::{CreateCreditNote, CreditNote, CreditNoteListQuery};
use sublet_core::error::Result;
use sublet_core::id::InvoiceId;

use super::billing::Kind;
use super::{PageArgs, show_page};
use crate::Context;
use crate::render::{self, Cell, Table};
use crate::value::MoneyArgument;

/// Credit notes.
#[derive(Subcommand, Debug)]
pub enum CreditNoteCommand {
    /// Take part of an issued bill back; the customer has it as credit (operator)
    Create {
        invoice: InvoiceId,
        /// Such as 5 or "5 EUR"; all notes of a bill together are at most its total
        amount: MoneyArgument,
        /// One line that the customer reads
        #[arg(long)]
        reason: String,
        /// What the customer gets: paid credit may be paid out, and is for what was paid; promotional credit is a gift
        #[arg(long, value_enum)]
        kind: Kind,
    },
    /// List credit notes
    List {
        /// Of one bill
        #[arg(long)]
        invoice: Option<InvoiceId>,
        /// Of every organization (operator)
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        page: PageArgs,
    },
}

impl CreditNoteCommand {
    pub(super) fn run(self, context: &mut Context<'_>) -> Result<()> {
        let client = context.client()?;
        match self {
            Self::Create { invoice, amount, reason, kind } => {
                let currency = client.any_invoice(&invoice)?.total.currency;
                let body = CreateCreditNote { amount: amount.in_currency(currency)?, kind: kind.into(), reason };
                let note = client.create_credit_note(&invoice, &body, &context.fresh_key())?;
                context.show(&note, |note| table(std::slice::from_ref(note)))
            }
            Self::List { invoice, all, page } => {
                let order = page.order();
                let query = CreditNoteListQuery { invoice, limit: page.limit, after: page.after, before: None, order };
                let list = if all { client.all_credit_notes(&query)? } else { client.credit_notes(&query)? };
                show_page(context, &list, table)
            }
        }
    }
}

fn table(notes: &[CreditNote]) -> Table {
    let rows = notes.iter().map(|note| {
        [
            Cell::text(note.id.as_str()),
            Cell::text(&note.number),
            Cell::text(note.invoice.as_str()),
            Cell::text(note.kind.as_str()),
            Cell::number(render::money(&note.amount)),
            Cell::text(render::instant(note.issued_at.0)),
            Cell::text(&note.reason),
        ]
    });
    Table::new(["credit note", "number", "invoice", "kind", "amount", "issued", "reason"], "nothing was credited").rows(rows)
}
