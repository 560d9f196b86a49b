//! An invoice as plain text of at most 80 columns, for terminals and mail.

use std::fmt::{self, Write};

use sublet_core::{Currency, Nanos};

use crate::commitment::CommitmentLine;
use crate::invoice::{Invoice, InvoiceContent, InvoiceLine, InvoiceState};
use crate::sku::{PricingUnit, QuantityChange};
use crate::tax::InvoiceTax;

/// Columns of a rendered invoice.
pub const WIDTH_COLUMNS: usize = 80;
const INDENT: &str = "    ";
/// What a document ends with.
const DRAFT: &str = "Drawn from the account's credit as it is used. The month is not closed.";
const DRAWN: &str = "Drawn from the account's credit as it was used; nothing is left to pay.";
const UNPAID: &str = "The account's credit did not cover all of this; the rest is to be paid.";
const VOID: &str = "All of this was credited; nothing is to be paid.";

/// Renders an invoice. The text is a function of the invoice alone.
pub fn render(invoice: &Invoice) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write_invoice(&mut text, invoice);
    text
}

/// Renders content that has no identifier yet.
pub fn render_draft(content: &InvoiceContent) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write_document(&mut text, ("INVOICE DRAFT", DRAFT), content);
    text
}

fn write_invoice(out: &mut String, invoice: &Invoice) -> fmt::Result {
    let name = invoice.number.map_or_else(|| invoice.id.to_string(), |number| number.to_string());
    let (title, end) = match invoice.state {
        InvoiceState::Draft => (format!("INVOICE DRAFT  {name}"), DRAFT),
        InvoiceState::Issued { issued_at } => (format!("INVOICE  {name}  issued {}", day(issued_at)), UNPAID),
        InvoiceState::Paid { issued_at, paid_at } => {
            (format!("INVOICE  {name}  issued {}, paid {}", day(issued_at), day(paid_at)), DRAWN)
        }
        InvoiceState::Void { issued_at, .. } => (format!("INVOICE  {name}  issued {}, VOID", day(issued_at)), VOID),
    };
    write_document(out, (&title, end), &invoice.content)?;
    match invoice.due_on() {
        Ok(Some(day)) => writeln!(out, "To be paid by {day} as far as credit does not cover it."),
        Ok(None) | Err(_) => Ok(()),
    }
}

fn day(instant: sublet_core::Timestamp) -> String {
    instant.to_string().chars().take_while(|c| *c != 'T').collect()
}

fn write_document(out: &mut String, (title, end): (&str, &str), content: &InvoiceContent) -> fmt::Result {
    let account = &content.account;
    let rule = "-".repeat(WIDTH_COLUMNS);
    writeln!(out, "{title}")?;
    writeln!(out, "{rule}")?;
    write_wrapped(out, "For      ", &printable(&account.name))?;
    write_wrapped(out, "Account  ", account.organization.as_str())?;
    write_wrapped(out, "Period   ", &format!("{} in {}", content.period.key, account.zone))?;
    let interval = content.period.interval;
    writeln!(out, "         from {} until before {}", seconds(interval.starts_at), seconds(interval.ends_at))?;
    write_parties(out, content)?;
    let mut project = None;
    for line in &content.lines {
        if project != Some(&line.project) {
            writeln!(out, "{rule}")?;
            write_wrapped(out, "Project  ", line.project.as_str())?;
            project = Some(&line.project);
        }
        write_line(out, line, account.currency)?;
    }
    writeln!(out, "{rule}")?;
    if content.lines.is_empty() {
        writeln!(out, "Nothing was used in this period.")?;
    }
    if let Some(line) = &content.commitment {
        write_commitment(out, line, account.currency)?;
    }
    if let Some(line) = &content.advance {
        write_wrapped(out, "Contract ", line.contract.as_str())?;
        for (what, amount) in
            [("Fee", line.fee), ("Commitment", line.commitment)].into_iter().filter(|(_, amount)| !amount.is_zero())
        {
            let label = format!("  {what} for {} to {}", line.first, line.last);
            write_amount(out, &label, &nine_decimals(amount), account.currency)?;
        }
        writeln!(out, "{}", "-".repeat(WIDTH_COLUMNS))?;
    }
    write_amount(out, "Sum of lines", &nine_decimals(content.subtotal), account.currency)?;
    if !content.carry_before.is_zero() {
        let carried = content.carry_before.checked_neg().unwrap_or(Nanos::ZERO);
        write_amount(out, "Rounding, carried from earlier invoices", &nine_decimals(carried), account.currency)?;
    }
    if !content.carry_after.is_zero() {
        write_amount(out, "Rounding, carried to the next invoice", &nine_decimals(content.carry_after), account.currency)?;
    }
    write_amount(out, "TOTAL", &minor_decimals(content.total, account.currency), account.currency)?;
    if let Some(tax) = &content.tax {
        write_taxes(out, tax, account.currency)?;
        let gross = content.gross().unwrap_or(content.total);
        write_amount(out, "TOTAL WITH TAX", &minor_decimals(gross, account.currency), account.currency)?;
    }
    writeln!(out, "{end}")
}

/// Who sells and who buys, each with what tells it from others.
fn write_parties(out: &mut String, content: &InvoiceContent) -> fmt::Result {
    let seller = content.seller.as_ref().map(|seller| ("Seller   ", &seller.party));
    let buyer = content.buyer.as_ref().map(|buyer| ("Buyer    ", &buyer.party));
    for (label, party) in seller.into_iter().chain(buyer) {
        write_wrapped(out, label, &printable(&party.legal_name))?;
        let address = &party.address;
        let code = address.postal_code.as_deref().unwrap_or_default();
        let place = format!("{code} {}", address.city);
        let lines = address.lines.iter().map(String::as_str).chain([place.trim()]);
        for line in lines {
            write_wrapped(out, "         ", &printable(line))?;
        }
        write_wrapped(out, "         ", &address.jurisdiction().to_string())?;
        if let Some(id) = &party.tax_id {
            write_wrapped(out, "         ", &format!("VAT number {id}"))?;
        }
    }
    let Some(buyer) = &content.buyer else { return Ok(()) };
    for (label, text) in [("Order    ", &buyer.purchase_order), ("Your ref ", &buyer.reference)] {
        if let Some(text) = text {
            write_wrapped(out, label, &printable(text))?;
        }
    }
    Ok(())
}

/// Each tax with its base, and why there is none.
fn write_taxes(out: &mut String, tax: &InvoiceTax, currency: Currency) -> fmt::Result {
    if !tax.gifts.is_zero() {
        let gifts = tax.gifts.checked_neg().unwrap_or(Nanos::ZERO);
        write_amount(out, "  Paid by gifts, before tax", &minor_decimals(gifts, currency), currency)?;
    }
    for line in &tax.lines {
        let of = &line.treatment;
        let base = minor_decimals(line.base, currency);
        let label = format!("  {} {} {} %, {}, of {base}", of.name, of.jurisdiction, of.rate_ppm, of.category);
        write_amount(out, &label, &minor_decimals(line.amount, currency), currency)?;
        if let Some(reason) = &of.reason {
            write_wrapped(out, INDENT, &printable(reason))?;
        }
    }
    Ok(())
}

/// An instant without its microseconds: period boundaries are whole seconds.
fn seconds(instant: sublet_core::Timestamp) -> String {
    instant.to_string().replace(".000000Z", "Z")
}

fn write_line(out: &mut String, line: &InvoiceLine, currency: Currency) -> fmt::Result {
    let band = line.band.as_ref().map(|band| format!(", {band}")).unwrap_or_default();
    write_wrapped(out, "  ", &format!("{}{band}", line.sku))?;
    let (amount, width) = (nine_decimals(line.charges.amount), WIDTH_COLUMNS);
    let noun = if line.charges.count == 1 { "charge" } else { "charges" };
    let counted = format!("{INDENT}{} in {} {noun}", quantity_text(line.quantity, line.unit), grouped(line.charges.count));
    writeln!(out, "{counted}")?;
    if let Some(late) = line.late {
        let before = quantity_text(late.quantity_before, line.unit);
        write_wrapped(out, INDENT, &format!("used in {}, known after it was closed; {before} were invoiced before", late.period))?;
    }
    let price = format!("{INDENT}at {}", line.price);
    let room = width.saturating_sub(price.chars().count() + 4);
    if amount.len() < room {
        writeln!(out, "{price}{amount:>room$} {currency}")
    } else {
        write_wrapped(out, INDENT, &format!("at {}", line.price))?;
        let room = width - 4;
        writeln!(out, "{amount:>room$} {currency}")
    }
}

/// A contract's part: how far its commitment is used, and what its end brings.
fn write_commitment(out: &mut String, line: &CommitmentLine, currency: Currency) -> fmt::Result {
    write_wrapped(out, "Contract ", line.contract.as_str())?;
    write_wrapped(out, "         ", &format!("commitment period {}, {} to {}", line.number, line.first, line.last))?;
    let counted = line.total_counted().unwrap_or(line.counted);
    for (label, amount) in [("  Committed", line.committed), ("  Counted so far", counted)] {
        write_amount(out, label, &nine_decimals(amount), currency)?;
    }
    if let Some(thing) = &line.quantity {
        let unit = thing.sku.pricing_unit();
        let so_far = thing.total_counted().unwrap_or(thing.counted);
        let text = |quantity| quantity_text(quantity, unit);
        write_wrapped(out, "  of ", &format!("{}: {} of {}", thing.sku, text(so_far), text(thing.committed)))?;
    }
    let used = line.roll_over_used.checked_neg().unwrap_or(Nanos::ZERO);
    let drawn = line.drawn().checked_neg().unwrap_or(Nanos::ZERO);
    let added = [
        ("  Drawn from what was billed in advance", drawn),
        ("  Missing at its end", line.shortfall),
        ("  Used up of what was missing before", used),
        ("  Use beyond it", line.overage()),
        ("  Leaving", line.exit_fee),
    ];
    for (label, amount) in added.into_iter().filter(|(_, amount)| !amount.is_zero()) {
        write_amount(out, label, &nine_decimals(amount), currency)?;
    }
    writeln!(out, "{}", "-".repeat(WIDTH_COLUMNS))
}

fn write_amount(out: &mut String, label: &str, amount: &str, currency: Currency) -> fmt::Result {
    let room = WIDTH_COLUMNS.saturating_sub(label.chars().count() + 4);
    writeln!(out, "{label}{amount:>room$} {currency}")
}

/// Cuts text that is longer than a row; nothing is left out.
fn write_wrapped(out: &mut String, prefix: &str, text: &str) -> fmt::Result {
    let room = WIDTH_COLUMNS - prefix.len();
    let letters: Vec<char> = text.chars().collect();
    for (index, row) in letters.chunks(room).enumerate() {
        let margin = if index == 0 { prefix.to_owned() } else { " ".repeat(prefix.len()) };
        writeln!(out, "{margin}{}", row.iter().collect::<String>())?;
    }
    Ok(())
}

/// Control characters in a name must not reach a terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// `1,234,567 tokens`, `12 requests`, or device time as `36:00:00.000 device-hours`: both are exact.
fn quantity_text(quantity: impl Into<QuantityChange>, unit: PricingUnit) -> String {
    let quantity = quantity.into();
    let (sign, count) = (if quantity.is_negative() { "-" } else { "" }, quantity.get().unsigned_abs());
    match unit {
        PricingUnit::MillionTokens => format!("{sign}{} tokens", grouped(count)),
        PricingUnit::Request => format!("{sign}{} requests", grouped(count)),
        PricingUnit::Start => format!("{sign}{} starts", grouped(count)),
        PricingUnit::Fee => format!("{sign}{}", grouped(count)),
        PricingUnit::ProjectMonth => format!("{sign}{} project-months", grouped(count)),
        PricingUnit::GibibyteMonth => format!("{sign}{} byte-hours", grouped(count)),
        PricingUnit::Gibibyte => format!("{sign}{} bytes", grouped(count)),
        PricingUnit::DeviceHour => {
            let (seconds, millis) = (count / 1_000, count % 1_000);
            format!("{sign}{}:{:02}:{:02}.{millis:03} device-hours", grouped(seconds / 3_600), seconds / 60 % 60, seconds % 60)
        }
    }
}

fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3 + 1);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// All nine decimals, so that columns line up.
pub(crate) fn nine_decimals(amount: Nanos) -> String {
    decimals(amount, 9)
}

fn minor_decimals(amount: Nanos, currency: Currency) -> String {
    let mut digits = 0;
    let mut unit = currency.minor_unit().get();
    while unit < sublet_core::money::NANOS_PER_UNIT {
        unit *= 10;
        digits += 1;
    }
    decimals(amount, digits)
}

/// `digits` decimals; further ones are zero in every amount that is shown so.
fn decimals(amount: Nanos, digits: usize) -> String {
    let magnitude = amount.get().unsigned_abs();
    let sign = if amount.is_negative() { "-" } else { "" };
    let (units, fraction) = (magnitude / 1_000_000_000, format!("{:09}", magnitude % 1_000_000_000));
    match fraction.get(..digits) {
        Some(shown) if digits > 0 => format!("{sign}{units}.{shown}"),
        _ => format!("{sign}{units}"),
    }
}
