//! The invoice of the running period as it stands, and those before it.

use askama::Template;
use axum::body::Body;
use http::Response;
use sublet_cloud::data::{Invoice, InvoiceLine, PageRequest};
use sublet_core::{Currency, Result};

use super::figure::{Amount, Count, Span, quantity_text, sku_text};
use super::shell::Shell;
use super::visit::Visit;
use super::{Console, shell};

const EARLIER_MAX: i64 = 24;

struct LineRow {
    project: String,
    sku: String,
    quantity: String,
    price: String,
    charges: Count,
    amount: Amount,
}

fn line(line: &InvoiceLine, currency: Currency) -> LineRow {
    LineRow {
        project: line.project.to_string(),
        sku: line.band.as_ref().map_or_else(|| sku_text(&line.sku), |band| format!("{}, {band}", sku_text(&line.sku))),
        quantity: quantity_text(&line.sku, line.quantity.get()),
        price: line.price.clone(),
        charges: Count(i64::try_from(line.charges.count).unwrap_or(i64::MAX)),
        amount: Amount::new(line.charges.amount, currency),
    }
}

struct InvoiceRow {
    id: String,
    period: String,
    state: &'static str,
    total: Amount,
}

fn row(invoice: &Invoice) -> InvoiceRow {
    InvoiceRow {
        id: invoice.id.to_string(),
        period: invoice.content.period.key.to_string(),
        state: invoice.state.as_str(),
        total: Amount::new(invoice.content.total, invoice.content.account.currency),
    }
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
    subtotal: Amount,
    carried: Option<Amount>,
    total: Amount,
    carry_after: Amount,
    invoices: Vec<InvoiceRow>,
}

pub async fn draft(console: Console, visit: Visit) -> Result<Response<Body>> {
    let cloud = &console.app.cloud;
    let actor = &visit.actor;
    let invoice = cloud.draft_invoice(actor, actor.organization()?, None).await?;
    let page = PageRequest { limit: Some(EARLIER_MAX), ..PageRequest::default() };
    let invoices = cloud.list_invoices(actor, &page).await?.items.iter().map(row).collect();
    let shell = Shell::of(&console, actor, "Invoices", "/console/invoices").await?;
    let content = invoice.content;
    let currency = content.account.currency;
    let amount = |nanos| Amount::new(nanos, currency);
    shell::html(&InvoicesPage {
        shell,
        id: invoice.id.to_string(),
        name: content.account.name,
        period: Span(content.period.interval),
        zone: content.account.zone,
        lines: content.lines.iter().map(|each| line(each, currency)).collect(),
        subtotal: amount(content.subtotal),
        carried: (!content.carry_before.is_zero()).then(|| amount(content.carry_before)),
        total: amount(content.total),
        carry_after: amount(content.carry_after),
        invoices,
    })
}
