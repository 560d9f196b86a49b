//! Documents for people and their programs: invoices and credit notes as PDF, and as UBL of EN 16931.
//!
//! Plain data in, bytes out: a document is a function of what it says. Every figure in it is one of the books', or a
//! rounding of one that adds up with the others ([`figures`]). What is set in the PDF and what is written in the XML
//! come from the same rows.
//!
//! Invariants: no I/O, no clock, no randomness, no async. Numbers are integers; floats are where a page is drawn, and
//! only there, and nothing is computed with them.
//!
//! Deliberately absent: choosing taxes, sending documents, signing them.
#![deny(clippy::float_arithmetic, clippy::as_conversions)]

pub mod credit;
pub mod figures;
pub mod layout;
pub mod page;
pub mod pdf;
pub mod sheet;
pub mod statement;
pub mod text;
pub mod typeface;
pub mod ubl;
mod ubl_party;
mod xml;

use sublet_core::error::Result;
use sublet_core::{Nanos, Timestamp};
use sublet_money::day::Day;
use sublet_money::invoice::{Invoice, InvoiceLine};
use sublet_money::period::{BillingCalendar, Interval};

use crate::credit::CreditNote;
use crate::figures::{Figures, Settlement};
use crate::pdf::Attachment;
use crate::statement::SealMark;

/// The first and the last day of an interval.
fn days(calendar: &BillingCalendar, interval: Interval) -> Result<(Day, Day)> {
    let last = Timestamp::from_micros(interval.ends_at.micros().saturating_sub(1));
    Ok((calendar.day_at(interval.starts_at)?, calendar.day_at(last)?))
}

/// All that is said of an invoice besides itself.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct About {
    pub settlement: Settlement,
    pub seal: Option<SealMark>,
    /// A PNG.
    pub logo: Option<Vec<u8>>,
    /// When it was made, if it is a draft.
    pub dated: Timestamp,
}

/// An invoice as PDF. One that can be written as UBL has it attached.
pub fn invoice_pdf(invoice: &Invoice, about: &About, price: impl Fn(&InvoiceLine) -> Option<Nanos>) -> Result<Vec<u8>> {
    let figures = Figures::of_invoice(invoice, about.settlement, price)?;
    let mut sheet = statement::invoice_sheet(invoice, &figures, about.seal.as_ref(), about.dated)?;
    let xml = ubl::check(invoice).is_ok().then(|| ubl::invoice(invoice, &figures)).transpose()?;
    let attachment = xml.map(|content| attachment(&sheet.name, content));
    say_attached(&mut sheet, attachment.as_ref());
    with_logo(&sheet, about.logo.as_deref(), attachment)
}

/// An issued invoice as UBL.
pub fn invoice_ubl(invoice: &Invoice, about: &About, price: impl Fn(&InvoiceLine) -> Option<Nanos>) -> Result<Vec<u8>> {
    ubl::check(invoice)?;
    ubl::invoice(invoice, &Figures::of_invoice(invoice, about.settlement, price)?)
}

/// A credit note as PDF.
pub fn credit_note_pdf(note: &CreditNote, invoice: &Invoice, logo: Option<&[u8]>) -> Result<Vec<u8>> {
    let figures = note.figures(invoice)?;
    let mut sheet = statement::credit_note_sheet(note, invoice, &figures)?;
    let xml = ubl::check(invoice).is_ok().then(|| ubl::credit_note(note, invoice, &figures)).transpose()?;
    let attachment = xml.map(|content| attachment(&sheet.name, content));
    say_attached(&mut sheet, attachment.as_ref());
    with_logo(&sheet, logo, attachment)
}

/// A credit note as UBL.
pub fn credit_note_ubl(note: &CreditNote, invoice: &Invoice) -> Result<Vec<u8>> {
    ubl::check(invoice)?;
    ubl::credit_note(note, invoice, &note.figures(invoice)?)
}

/// A logo that cannot be drawn is left out: an invoice is more than its logo.
fn with_logo(sheet: &sheet::Sheet, logo: Option<&[u8]>, attachment: Option<Attachment>) -> Result<Vec<u8>> {
    if let Some(logo) = logo
        && let Ok(document) = pdf::pdf(sheet, Some(logo), attachment.clone())
    {
        return Ok(document);
    }
    pdf::pdf(sheet, None, attachment)
}

fn attachment(name: &str, content: Vec<u8>) -> Attachment {
    Attachment { name: format!("{name}.xml"), description: "The same as UBL 2.1, by EN 16931".to_owned(), content }
}

fn say_attached(sheet: &mut sheet::Sheet, attachment: Option<&Attachment>) {
    if let Some(attachment) = attachment {
        sheet.notes.push(format!("For programs, the same is attached as UBL 2.1 by EN 16931: {}.", attachment.name));
    }
}
