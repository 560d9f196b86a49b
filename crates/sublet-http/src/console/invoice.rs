//! The invoice of the running period as it stands, and those before it.

use askama::Template;
use axum::body::Body;
use http::Response;
use http::header::CACHE_CONTROL;
use sublet_api::document::DocumentQuery;
use sublet_cloud::data::{CommitmentLine, InvoiceContent, InvoiceFilter, InvoiceLine, PageRequest, Party};
use sublet_cloud::dunning::Dunning;
use sublet_cloud::invoice::Bill;
use sublet_core::id::InvoiceId;
use sublet_core::{Currency, Result};

use super::figure::{Amount, Count, Span, When, quantity_text, sku_text};
use super::shell::Shell;
use super::visit::Visit;
use super::{Console, shell};
use crate::document::{asked, response};

const EARLIER_MAX: i64 = 24;

struct LineRow {
    project: String,
    sku: String,
    quantity: String,
    price: String,
    charges: Count,
    amount: Amount,
}

fn what(line: &InvoiceLine) -> String {
    let mut text = sku_text(&line.sku);
    if let Some(band) = &line.band {
        text.push_str(&format!(", {band}"));
    }
    if let Some(late) = line.late {
        text.push_str(&format!(", used in {} and known later", late.period));
    }
    text
}

fn line(line: &InvoiceLine, currency: Currency) -> LineRow {
    LineRow {
        project: line.project.to_string(),
        sku: what(line),
        quantity: quantity_text(&line.sku, line.quantity.get()),
        price: line.price.clone(),
        charges: Count(i64::try_from(line.charges.count).unwrap_or(i64::MAX)),
        amount: Amount::new(line.charges.amount, currency),
    }
}

struct InvoiceRow {
    id: String,
    /// Its number, or its id while it is a draft.
    name: String,
    period: String,
    state: &'static str,
    total: Amount,
    credited: Amount,
    due: Amount,
    /// It can be written for programs.
    has_ubl: bool,
}

fn row(bill: &Bill) -> Result<InvoiceRow> {
    let invoice = &bill.invoice;
    let amount = |nanos| Amount::new(nanos, invoice.content.account.currency);
    Ok(InvoiceRow {
        id: invoice.id.to_string(),
        name: invoice.number.map_or_else(|| invoice.id.to_string(), |number| number.to_string()),
        period: invoice.content.period.key.to_string(),
        state: invoice.state.as_str(),
        total: amount(invoice.content.gross()?),
        credited: amount(bill.credited.checked_add(bill.credited_tax)?),
        due: amount(bill.due),
        has_ubl: sublet_cloud::document::has_ubl(invoice),
    })
}

/// One figure of the contract's part, or of the taxes.
struct ContractRow {
    label: String,
    amount: Amount,
}

fn contract(part: &CommitmentLine, currency: Currency) -> Result<Vec<ContractRow>> {
    let row = |label: String, amount| ContractRow { label, amount: Amount::new(amount, currency) };
    let mut rows = vec![
        row(format!("Committed from {} to {}", part.first, part.last), part.committed),
        row("Counted towards that so far".to_owned(), part.total_counted()?),
    ];
    let added = [
        ("Paid in advance", part.drawn().checked_neg()?),
        ("Missing, by the contract", part.shortfall),
        ("Used up of what was missing earlier", part.roll_over_used.checked_neg()?),
        ("Use beyond the commitment, by the contract", part.overage()),
        ("Leaving the contract", part.exit_fee),
    ];
    rows.extend(added.into_iter().filter(|(_, amount)| !amount.is_zero()).map(|(label, amount)| row(label.to_owned(), amount)));
    Ok(rows)
}

/// Gifts, taxes, and what the total comes to with them; nothing where there are no taxes.
fn taxes(content: &InvoiceContent) -> Result<Vec<ContractRow>> {
    let Some(tax) = &content.tax else { return Ok(Vec::new()) };
    let row = |label: String, amount| ContractRow { label, amount: Amount::new(amount, content.account.currency) };
    let mut rows = Vec::new();
    if !tax.gifts.is_zero() {
        rows.push(row("Paid by gifts, before tax".to_owned(), tax.gifts.checked_neg()?));
    }
    for line in &tax.lines {
        let of = &line.treatment;
        let reason = of.reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
        let base = format!("{} {}", line.base, content.account.currency);
        rows.push(row(format!("{} {}, {} % of {base}{reason}", of.name, of.jurisdiction, of.rate_ppm), line.amount));
    }
    rows.push(row("Total with tax".to_owned(), content.gross()?));
    Ok(rows)
}

/// Who sells and who buys, one line each.
fn parties(content: &InvoiceContent) -> Vec<String> {
    let line = |label: &str, party: &Party| {
        let number = party.tax_id.as_ref().map_or_else(String::new, |id| format!(", VAT number {id}"));
        format!("{label}: {}, {}, {}{number}", party.legal_name, party.address.city, party.address.jurisdiction())
    };
    let seller = content.seller.as_ref().map(|seller| line("Seller", &seller.party));
    let buyer = content.buyer.as_ref().map(|buyer| line("Buyer", &buyer.party));
    let terms = content.terms.as_ref().map(|terms| format!("To be paid within {} days of its issue", terms.net_days));
    seller.into_iter().chain(buyer).chain(terms).collect()
}

/// What is overdue of an account, and what follows from it; nothing if nothing is.
pub fn standing(dunning: &Dunning) -> Vec<String> {
    let amount = |nanos| Amount::new(nanos, dunning.currency);
    let mut lines = Vec::new();
    if let Some(since) = dunning.account.suspended_at {
        let running = dunning.account.on_suspension.as_str();
        lines.push(format!(
            "Suspended since {}: nothing new begins until what is overdue is paid. What runs: {running}.",
            When(since)
        ));
    }
    if let Some(note) = &dunning.account.paused {
        lines.push(format!("Not reminded and not suspended: {note}"));
    }
    for debt in dunning.overdue() {
        let reminded = debt.reminded.map_or_else(String::new, |reminded| format!("; reminded on {}", reminded.on));
        let paused = debt.paused.as_ref().map_or_else(String::new, |note| format!("; left alone: {note}"));
        lines.push(format!("{} was to be paid by {}: {} are due{reminded}{paused}", debt.number, debt.due_on, amount(debt.due)));
    }
    lines
}

#[derive(Template)]
#[template(path = "invoices.html")]
struct InvoicesPage {
    shell: Shell,
    id: String,
    name: String,
    period: Span,
    zone: String,
    lines: Vec<LineRow>,
    contract: Vec<ContractRow>,
    parties: Vec<String>,
    standing: Vec<String>,
    taxes: Vec<ContractRow>,
    sum_label: &'static str,
    subtotal: Amount,
    carried: Option<Amount>,
    total: Amount,
    carry_after: Amount,
    invoices: Vec<InvoiceRow>,
}

/// A document to keep.
pub async fn document(console: Console, visit: Visit) -> Result<Response<Body>> {
    let id: InvoiceId = visit.guest.path("id")?;
    let query: DocumentQuery = visit.guest.query()?;
    let mut response = response(asked(&console.app.cloud, &visit.actor, &id, &query).await?);
    shell::set(&mut response, CACHE_CONTROL, "no-store");
    shell::guard(&mut response);
    Ok(response)
}

pub async fn draft(console: Console, visit: Visit) -> Result<Response<Body>> {
    let cloud = &console.app.cloud;
    let actor = &visit.actor;
    let invoice = cloud.draft_invoice(actor, actor.organization()?, None).await?.invoice;
    let page = PageRequest { limit: Some(EARLIER_MAX), ..PageRequest::default() };
    let invoices =
        cloud.list_invoices(actor, &InvoiceFilter::default(), &page).await?.items.iter().map(row).collect::<Result<_>>()?;
    let shell = Shell::of(&console, actor, "Invoices", "/console/invoices").await?;
    let content = invoice.content;
    let currency = content.account.currency;
    let amount = |nanos| Amount::new(nanos, currency);
    let (parties, taxes) = (parties(&content), taxes(&content)?);
    let standing = standing(&cloud.dunning(actor, actor.organization()?).await?);
    shell::html(&InvoicesPage {
        shell,
        parties,
        standing,
        taxes,
        id: invoice.id.to_string(),
        name: content.account.name,
        period: Span(content.period.interval),
        zone: content.account.zone,
        lines: content.lines.iter().map(|each| line(each, currency)).collect(),
        sum_label: if content.commitment.is_some() || content.advance.is_some() {
            "Sum of charges and contract"
        } else {
            "Sum of the charges"
        },
        contract: {
            let mut rows = content.commitment.as_ref().map_or(Ok(Vec::new()), |part| contract(part, currency))?;
            for line in content.advance.iter() {
                let of = format!("of the contract for {} to {}, in advance", line.first, line.last);
                let parts = [("Fee", line.fee), ("Commitment", line.commitment)].into_iter().filter(|(_, part)| !part.is_zero());
                rows.extend(
                    parts.map(|(name, part)| ContractRow { label: format!("{name} {of}"), amount: Amount::new(part, currency) }),
                );
            }
            rows
        },
        subtotal: amount(content.subtotal),
        // Ahead of exact charges is what is not asked for again.
        carried: (!content.carry_before.is_zero()).then(|| content.carry_before.checked_neg().map(amount)).transpose()?,
        total: amount(content.total),
        carry_after: amount(content.carry_after),
        invoices,
    })
}
