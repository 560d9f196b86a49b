//! What the sheet of an invoice or a credit note says.
//!
//! An invoice without a seller's profile is a statement: it says what was used and what it costs, and that it is no tax
//! invoice.

use sublet_core::error::Result;
use sublet_core::{Nanos, Timestamp};
use sublet_money::invoice::{Invoice, InvoiceContent, InvoiceState};
use sublet_money::party::Seller;
use sublet_money::period::BillingCalendar;
use sublet_money::tax::TaxCategory;

use crate::credit::CreditNote;
use crate::figures::{Figures, Row};
use crate::sheet::{Fact, Section, Sheet, SheetRow, Sum, TaxRow};
use crate::text::{address, amount, contact, money, quantity, registrations};

/// What proves an invoice: see docs/operation/proof.md.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SealMark {
    /// How many charges it is over.
    pub leaves: u64,
    /// The root of the tree over them, in hexadecimal.
    pub root: String,
}

fn fact(label: &'static str, text: impl Into<String>) -> Fact {
    Fact { label, text: text.into() }
}

fn sum(label: impl Into<String>, amount: String) -> Sum {
    Sum { label: label.into(), exact: None, amount, is_total: false }
}

fn total(label: impl Into<String>, amount: String) -> Sum {
    Sum { is_total: true, ..sum(label, amount) }
}

/// The sheet of an invoice in any state. `dated` is when it was made if it is a draft.
pub fn invoice_sheet(invoice: &Invoice, figures: &Figures, seal: Option<&SealMark>, dated: Timestamp) -> Result<Sheet> {
    let content = &invoice.content;
    let calendar = BillingCalendar::new(&content.account.zone)?;
    let (issued_at, mark) = match invoice.state {
        InvoiceState::Draft => (None, Some("DRAFT")),
        InvoiceState::Void { issued_at, .. } => (Some(issued_at), Some("VOID")),
        InvoiceState::Issued { issued_at } | InvoiceState::Paid { issued_at, .. } => (Some(issued_at), None),
    };
    let name = invoice.number.map_or_else(|| invoice.id.to_string(), |number| number.to_string());
    let mut sheet = base(content, figures, &calendar)?;
    sheet.title = title(content.seller.is_some(), issued_at.is_none());
    sheet.mark = mark;
    let mut facts = Vec::new();
    if let Some(issued_at) = issued_at {
        facts.push(fact("Issue date", calendar.day_at(issued_at)?.to_string()));
        if let Some(terms) = &content.terms {
            facts.push(fact("Due date", terms.due_on(issued_at, &calendar)?.to_string()));
        }
    }
    sheet.facts.splice(0..0, facts);
    sheet.sections = sections(&figures.rows, figures);
    sheet.sums = sums(content, figures);
    sheet.totals = totals(invoice, figures);
    sheet.remarks.extend(remarks(content, figures)?);
    sheet.payment = payment(invoice, figures, &name);
    sheet.notes.extend(notes(invoice, figures, seal));
    sheet.name = name;
    sheet.dated = issued_at.unwrap_or(dated);
    Ok(sheet)
}

/// The sheet of a credit note.
pub fn credit_note_sheet(note: &CreditNote, invoice: &Invoice, figures: &Figures) -> Result<Sheet> {
    let content = &invoice.content;
    let calendar = BillingCalendar::new(&content.account.zone)?;
    let mut sheet = base(content, figures, &calendar)?;
    sheet.title = "Credit note".to_owned();
    sheet.name = note.number.to_string();
    let credited = invoice.number.map_or_else(|| invoice.id.to_string(), |number| number.to_string());
    let facts = [fact("Issue date", calendar.day_at(note.issued_at)?.to_string()), fact("For invoice", credited)];
    sheet.facts.splice(0..0, facts);
    sheet.sections = sections(&figures.rows, figures);
    sheet.totals = vec![total(format!("Credited, {}", figures.currency), amount(figures.with_tax, figures.currency))];
    if figures.gifts > Nanos::ZERO {
        let gifts = figures.gifts.checked_neg()?;
        sheet.sums = vec![sum("Promotional credit that paid for it", amount(gifts, figures.currency))];
    }
    sheet.remarks.push("The amount is credit of the account; so much less of the invoice is to be paid.".to_owned());
    sheet.dated = note.issued_at;
    Ok(sheet)
}

fn title(has_seller: bool, is_draft: bool) -> String {
    let title = match (has_seller, is_draft) {
        (true, false) => "Invoice",
        (true, true) => "Invoice draft",
        (false, false) => "Statement",
        (false, true) => "Statement draft",
    };
    title.to_owned()
}

/// What both kinds of document have.
fn base(content: &InvoiceContent, figures: &Figures, calendar: &BillingCalendar) -> Result<Sheet> {
    let account = &content.account;
    let seller = content.seller.as_deref();
    let buyer = content.buyer.as_deref();
    let recipient = buyer.map_or_else(
        || vec![account.name.clone()],
        |buyer| address(&buyer.party).into_iter().chain(registrations(&buyer.party)).collect(),
    );
    let (first, last) = crate::days(calendar, content.period.interval)?;
    let mut facts = vec![
        fact("Period", format!("{first} to {last}")),
        fact("Time zone", account.zone.clone()),
        fact("Account", account.organization.as_str()),
    ];
    let order = buyer.and_then(|buyer| buyer.purchase_order.clone()).map(|order| fact("Purchase order", order));
    let reference = buyer.and_then(|buyer| buyer.reference.clone()).map(|reference| fact("Your reference", reference));
    facts.extend(order.into_iter().chain(reference));
    if let Some(part) = &content.commitment {
        facts.push(fact("Contract", part.contract.as_str()));
    } else if let Some(line) = &content.advance {
        facts.push(fact("Contract", line.contract.as_str()));
    }
    Ok(Sheet {
        issuer: seller.map_or_else(Vec::new, issuer),
        recipient,
        facts,
        amount_heads: [format!("Exact, {}", figures.currency), format!("Amount, {}", figures.currency)],
        taxes: taxes(content, figures),
        remarks: reasons(content),
        footer: seller.and_then(|seller| seller.footer.clone()).into_iter().collect(),
        ..Sheet::default()
    })
}

fn issuer(seller: &Seller) -> Vec<String> {
    address(&seller.party).into_iter().chain(registrations(&seller.party)).chain(contact(seller)).collect()
}

fn sections(rows: &[Row], figures: &Figures) -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    for row in rows {
        let shown = SheetRow {
            what: row.what.clone(),
            details: row.details.clone(),
            quantity: quantity(row.measure),
            exact: amount(row.exact, figures.currency),
            amount: amount(row.amount, figures.currency),
        };
        match sections.last_mut().filter(|section| section.heading == row.heading) {
            Some(section) => section.rows.push(shown),
            None => sections.push(Section { heading: row.heading.clone(), rows: vec![shown] }),
        }
    }
    sections
}

/// From the lines to what taxes are on.
fn sums(content: &InvoiceContent, figures: &Figures) -> Vec<Sum> {
    let currency = figures.currency;
    let exact = |nanos| Some(amount(nanos, currency));
    let mut sums = vec![Sum { exact: exact(content.subtotal), ..sum("Sum of the lines", amount(figures.lines, currency)) }];
    if content.total != content.subtotal {
        let carried = Nanos::new(content.total.get().saturating_sub(content.subtotal.get()));
        let label = "Rounding, carried between invoices";
        sums.push(Sum { exact: exact(carried), ..sum(label, amount(figures.rounding, currency)) });
    }
    if figures.gifts > Nanos::ZERO {
        sums.push(sum("Total", amount(content.total, currency)));
        sums.push(sum("Promotional credit", amount(Nanos::new(-figures.gifts.get()), currency)));
    }
    let label = if content.tax.is_some() { "Total without tax" } else { "Total" };
    sums.push(total(format!("{label}, {currency}"), amount(figures.without_tax, currency)));
    sums
}

fn taxes(content: &InvoiceContent, figures: &Figures) -> Vec<TaxRow> {
    let lines = content.tax.as_ref().map_or([].as_slice(), |tax| tax.lines.as_slice());
    let row = |(line, tax): (&sublet_money::tax::TaxLine, &Nanos)| TaxRow {
        name: format!("{} {}", line.treatment.name, line.treatment.jurisdiction),
        rate: format!("{} %", line.treatment.rate_ppm),
        base: amount(figures.without_tax, figures.currency),
        amount: amount(*tax, figures.currency),
    };
    lines.iter().zip(&figures.taxes).map(row).collect()
}

/// Why taxes are not charged.
fn reasons(content: &InvoiceContent) -> Vec<String> {
    let lines = content.tax.as_ref().map_or([].as_slice(), |tax| tax.lines.as_slice());
    let reason = |line: &sublet_money::tax::TaxLine| {
        let treatment = &line.treatment;
        let reason = treatment.reason.as_ref()?;
        let code = treatment.reason_code.as_ref().map_or_else(String::new, |code| format!(" ({code})"));
        let owed = if treatment.category == TaxCategory::ReverseCharge { ": the recipient owes the tax" } else { "" };
        Some(format!("{reason}{owed}{code}."))
    };
    lines.iter().filter_map(reason).collect()
}

fn totals(invoice: &Invoice, figures: &Figures) -> Vec<Sum> {
    let currency = figures.currency;
    let mut totals = Vec::new();
    if invoice.content.tax.is_some() {
        totals.push(total(format!("Total with tax, {currency}"), amount(figures.with_tax, currency)));
    }
    if invoice.state == InvoiceState::Draft {
        return totals;
    }
    if !figures.prepaid.is_zero() {
        totals.push(sum("Already paid from credit", amount(Nanos::new(-figures.prepaid.get()), currency)));
    }
    totals.push(total(format!("Amount due, {currency}"), amount(figures.payable, currency)));
    if !figures.taken_back.is_zero() {
        let left = Nanos::new(figures.payable.get().saturating_sub(figures.taken_back.get()));
        totals.push(sum("Credited since, by credit notes", amount(Nanos::new(-figures.taken_back.get()), currency)));
        totals.push(total(format!("Still to be paid, {currency}"), amount(left, currency)));
    }
    totals
}

fn remarks(content: &InvoiceContent, figures: &Figures) -> Result<Vec<String>> {
    let mut remarks = Vec::new();
    if let Some(part) = &content.commitment {
        let (committed, counted) = (money(part.committed, figures.currency), money(part.total_counted()?, figures.currency));
        remarks.push(format!(
            "Contract {}: of the {committed} committed from {} to {}, {counted} are counted so far.",
            part.contract, part.first, part.last
        ));
    }
    if figures.is_summary {
        let lines = content.lines.len();
        remarks.push(format!("This document sums up {lines} lines; the export of charges has each of them."));
    }
    if content.seller.is_none() {
        remarks.push("This is a statement of account and no tax invoice.".to_owned());
    }
    Ok(remarks)
}

fn payment(invoice: &Invoice, figures: &Figures, name: &str) -> Vec<Fact> {
    let content = &invoice.content;
    let is_open = matches!(invoice.state, InvoiceState::Issued { .. }) && figures.payable > Nanos::ZERO;
    let Some(seller) = content.seller.as_deref().filter(|_| is_open) else { return Vec::new() };
    let mut facts = Vec::new();
    if let Some(bank) = &seller.bank {
        let holder = bank.holder.clone().unwrap_or_else(|| seller.party.legal_name.clone());
        facts.extend([fact("Account holder", holder), fact("IBAN", in_fours(&bank.iban))]);
        facts.extend(bank.bic.clone().map(|bic| fact("BIC", bic)));
        facts.push(fact("Payment reference", name));
    }
    facts.extend(content.terms.as_ref().and_then(|terms| terms.note.clone()).map(|note| fact("Terms", note)));
    facts
}

/// As bank forms have it: `DE89 3704 0044 0532 0130 00`.
fn in_fours(iban: &str) -> String {
    let letters: Vec<char> = iban.chars().collect();
    letters.chunks(4).map(|four| four.iter().collect::<String>()).collect::<Vec<_>>().join(" ")
}

fn notes(invoice: &Invoice, figures: &Figures, seal: Option<&SealMark>) -> Vec<String> {
    let mut notes = vec![
        match invoice.state {
            InvoiceState::Draft => "Drawn from the account's credit as it is used. The month is not closed: this can still change.",
            InvoiceState::Issued { .. } => "Drawn from the account's credit as it was used; the credit did not cover all of it.",
            InvoiceState::Paid { .. } => "Drawn from the account's credit as it was used; nothing is left to pay.",
            InvoiceState::Void { .. } => "All of this was credited; nothing is to be paid.",
        }
        .to_owned(),
    ];
    if !figures.rows.is_empty() {
        notes.push(
            "Amounts are exact to nine decimals. They are rounded so that they add up to the rounded sum; no line is off by \
             one of the smallest units of the currency."
                .to_owned(),
        );
    }
    if let Some(seal) = seal {
        notes.push(format!(
            "Sealed over {} charges with the root {}. Anybody can check it: sublet billing invoices bundle {}, then sublet \
             verify-invoice.",
            seal.leaves, seal.root, invoice.id
        ));
    }
    notes
}
