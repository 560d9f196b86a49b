//! What is mailed of invoices and credit notes: that they are there, with their documents.

use std::collections::BTreeMap;

use sublet_core::id::InvoiceId;
use sublet_core::{Nanos, Result, Scope};
use sublet_store::Tx;
use sublet_store::credit_note::CreditNote;

use crate::Cloud;
use crate::invoice::{bill, find};
use crate::mail::{Mail, MailAttachment, Recipient};

impl Cloud {
    /// Queues the mail that says that an invoice was issued.
    pub(crate) async fn mail_invoice(&self, tx: &mut Tx, id: &InvoiceId) -> Result<()> {
        let stored = find(tx, &Scope::Operator, id).await?;
        let bill = bill(tx, stored, &mut BTreeMap::new()).await?;
        let Some(number) = bill.invoice.number else { return Ok(()) };
        let content = &bill.invoice.content;
        let (name, period, currency) = (&content.account.name, content.period.key, content.account.currency);
        let gross = bill.invoice.content.gross()?;
        let to_pay = match (bill.due > Nanos::ZERO, bill.invoice.due_on()?) {
            (true, Some(day)) => format!("Please pay {} {currency} by {day}.", bill.due),
            (true, None) => format!("{} {currency} of it are to be paid.", bill.due),
            (false, _) => "Nothing is to be paid: it was drawn from the account's credit.".to_owned(),
        };
        let text = format!("Invoice {number} of {name} for {period} is attached.\n\nTotal: {gross} {currency}\n{to_pay}\n");
        let mail = Mail {
            key: format!("invoice_issued:{id}"),
            to: Recipient::Organization(content.account.organization.clone()),
            kind: "invoice_issued",
            subject: format!("Invoice {number} for {period}"),
            text,
            attachment: Some(MailAttachment::Invoice(id.clone())),
        };
        self.queue_mail(tx, &mail).await
    }

    /// Queues the mail that says that part of an invoice was taken back.
    pub(crate) async fn mail_credit_note(&self, tx: &mut Tx, note: &CreditNote, invoice_number: &str) -> Result<()> {
        let (number, amount, currency) = (note.number, note.amount.checked_add(note.tax)?, note.currency);
        let text = format!(
            "Credit note {number} for invoice {invoice_number} is attached.\n\nCredited: {amount} {currency}\nReason: {}\n",
            note.reason
        );
        let mail = Mail {
            key: format!("credit_note_issued:{}", note.id),
            to: Recipient::Organization(note.organization.clone()),
            kind: "credit_note_issued",
            subject: format!("Credit note {number} for invoice {invoice_number}"),
            text,
            attachment: Some(MailAttachment::CreditNote(note.invoice.clone(), number.to_string())),
        };
        self.queue_mail(tx, &mail).await
    }
}
