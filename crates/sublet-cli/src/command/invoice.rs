//! `sublet billing invoices`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use sublet_api::document::DocumentQuery;
use sublet_api::invoice::{DraftInvoice, Invoice, InvoiceLine, InvoiceListQuery, InvoiceStatus};
use sublet_api::money::Money;
use sublet_api::time::Rfc3339;
use sublet_core::error::{Error, ErrorCode, Result};
use sublet_core::id::{InvoiceId, OrganizationId};

use super::file::{self, Download};
use super::price::rate;
use super::seller;
use super::usage::quantity;
use super::{PageArgs, show_page};
use crate::Context;
use crate::context::Style;
use crate::render::{self, Cell, NOTHING, Table};
use crate::value::word;

/// Bills.
#[derive(Subcommand, Debug)]
pub enum InvoiceCommand {
    /// Draft the bill of a period; the same draft each time
    Draft {
        /// Any instant of the period; the current period if left out
        #[arg(long, value_name = "INSTANT")]
        at: Option<Rfc3339>,
    },
    /// Show one bill
    Show {
        id: InvoiceId,
        /// Of any organization (operator)
        #[arg(long)]
        any: bool,
    },
    /// Get an issued bill with all its charges, prices and proofs, for 'sublet verify-invoice'
    Bundle {
        id: InvoiceId,
        /// Of any organization (operator)
        #[arg(long)]
        any: bool,
        /// Write it into this file; it appears when it is whole
        #[arg(long, short, value_name = "PATH")]
        output: Option<PathBuf>,
    },
    /// Get a bill for finance: as PDF, or as UBL 2.1 by EN 16931
    Download(DownloadArgs),
    /// List bills
    List {
        /// Of every organization (operator)
        #[arg(long)]
        all: bool,
        /// Of one organization (operator, with --all)
        #[arg(long, value_name = "ORGANIZATION", requires = "all")]
        of: Option<OrganizationId>,
        /// With this number, such as INV-2026-000001
        #[arg(long)]
        number: Option<String>,
        /// draft, issued, paid or void
        #[arg(long, value_parser = word::<InvoiceStatus>)]
        status: Option<InvoiceStatus>,
        #[command(flatten)]
        page: PageArgs,
    },
}

/// Which document, and where to.
#[derive(Args, Debug)]
pub struct DownloadArgs {
    /// Its number, such as INV-2026-000001, or its id
    invoice: String,
    /// pdf, or ubl for issued ones
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// A credit note of the bill instead, by its number or id
    #[arg(long, value_name = "NUMBER")]
    credit_note: Option<String>,
    /// Of any organization (operator)
    #[arg(long)]
    any: bool,
    /// Write it into this file; it appears when it is whole
    #[arg(long, short, value_name = "PATH")]
    output: Option<PathBuf>,
}

impl DownloadArgs {
    fn run(self, context: &mut Context<'_>) -> Result<()> {
        let client = context.client()?;
        let id = match self.invoice.parse::<InvoiceId>() {
            Ok(id) => id,
            Err(_) => {
                let query = InvoiceListQuery { number: Some(self.invoice.clone()), ..InvoiceListQuery::default() };
                let list = if self.any { client.all_invoices(&query)? } else { client.invoices(&query)? };
                let found = list.data.into_iter().next().map(|invoice| invoice.id);
                found.ok_or_else(|| Error::new(ErrorCode::NotFound, format!("there is no invoice '{}'", self.invoice)))?
            }
        };
        let query = DocumentQuery { format: self.format, credit_note: self.credit_note };
        let content = if self.any { client.any_invoice_document(&id, &query)? } else { client.invoice_document(&id, &query)? };
        let download = Download { name: &self.invoice, content };
        match self.output {
            None => file::print(context, download),
            Some(path) => file::save(context, download, &path),
        }
    }
}

impl InvoiceCommand {
    pub(super) fn run(self, context: &mut Context<'_>) -> Result<()> {
        let client = context.client()?;
        match self {
            Self::Draft { at } => {
                let invoice = client.draft_invoice(&DraftInvoice { at })?;
                context.show_text(&invoice, text)
            }
            Self::Show { id, any } => {
                let invoice = if any { client.any_invoice(&id)? } else { client.invoice(&id)? };
                context.show_text(&invoice, text)
            }
            Self::Bundle { id, any, output } => {
                let content = if any { client.any_invoice_bundle(&id)? } else { client.invoice_bundle(&id)? };
                let download = Download { name: id.as_str(), content };
                match output {
                    None => file::print(context, download),
                    Some(path) => file::save(context, download, &path),
                }
            }
            Self::Download(args) => args.run(context),
            Self::List { all, of, number, status, page } => {
                let order = page.order();
                let query = InvoiceListQuery {
                    status,
                    organization: of,
                    number,
                    limit: page.limit,
                    after: page.after,
                    before: None,
                    order,
                };
                let list = if all { client.all_invoices(&query)? } else { client.invoices(&query)? };
                show_page(context, &list, table)
            }
        }
    }
}

fn text(invoice: &Invoice, style: Style) -> String {
    let mut head = vec![
        ("invoice", Cell::text(invoice.number.as_deref().unwrap_or_else(|| invoice.id.as_str()))),
        ("status", Cell::state(invoice.status.as_str())),
        ("organization", Cell::text(invoice.organization.as_str())),
        ("from", Cell::text(render::instant(invoice.period_start.0))),
        ("until before", Cell::text(render::instant(invoice.period_end.0))),
        ("time zone", Cell::text(&invoice.time_zone)),
    ];
    head.extend(seller::parties(invoice.seller.as_ref(), invoice.buyer.as_ref()));
    if let Some(day) = &invoice.due_on {
        head.push(("due on", Cell::text(day)));
    }
    let head = Table::of_fields(head);
    let lines = Table::new(
        ["project", "what", "meter", "tier", "notice", "band", "late from", "quantity", "price", "charges", "amount"],
        "nothing was used",
    )
    .rows(invoice.lines.iter().map(line));
    let sum = if invoice.commitment.is_some() || invoice.advance.is_some() { "sum of both" } else { "sum of charges" };
    let mut amounts = Vec::new();
    if let Some(line) = &invoice.commitment {
        let period = format!("{} to {}, of {}", line.first_month, line.last_month, line.contract);
        amounts.extend([
            ("commitment", Cell::text(period)),
            ("committed", Cell::number(render::money(&line.committed))),
            ("counted before", Cell::number(render::money(&line.counted_before))),
            ("counted here", Cell::number(render::money(&line.counted))),
            ("missing", Cell::number(render::money(&line.shortfall))),
            ("rolled over", Cell::number(render::money(&line.roll_over_used))),
            ("overage", Cell::number(render::money(&line.overage))),
            ("fee for leaving", Cell::number(render::money(&line.exit_fee))),
        ]);
        if let Some(drawdown) = &line.drawdown {
            amounts.extend([
                ("paid in advance", Cell::number(render::money(&drawdown.drawn))),
                ("left at its end", Cell::number(render::money(&drawdown.unused))),
                ("lapsed", Cell::number(render::money(&drawdown.lapsed))),
            ]);
        }
    }
    if let Some(line) = &invoice.advance {
        let period = format!("{} to {}, of {}", line.first_month, line.last_month, line.contract);
        amounts.extend([("in advance", Cell::text(period)), ("fee", Cell::number(render::money(&line.fee)))]);
        amounts.extend(line.commitment.as_ref().map(|amount| ("commitment", Cell::number(render::money(amount)))));
    }
    amounts.extend([
        (sum, Cell::number(render::money(&invoice.subtotal))),
        ("carried over", Cell::number(render::money(&invoice.carried))),
        ("rounding", Cell::number(render::money(&invoice.rounding))),
        ("total", Cell::number(render::money(&invoice.total))),
    ]);
    if let Some(tax) = &invoice.tax {
        amounts.extend([
            ("paid by gifts", Cell::number(render::money(&tax.gifts))),
            ("tax", Cell::number(render::money(&tax.amount))),
            ("total with tax", Cell::number(render::money(&tax.gross))),
            ("tax credited", Cell::number(render::money(&tax.credited))),
        ]);
    }
    amounts.extend([
        ("credited", Cell::number(render::money(&invoice.credited))),
        ("still to pay", Cell::number(render::money(&invoice.amount_due))),
    ]);
    let taxes = invoice.tax.as_ref().map_or_else(String::new, |tax| format!("{}\n", seller::tax_lines(tax).render(style)));
    let foot = Table::of_fields(amounts);
    let rerates = if invoice.rerates.is_empty() { String::new() } else { format!("{}\n", rerates(invoice).render(style)) };
    format!("{}\n{}\n{rerates}{taxes}{}", head.render(style), lines.render(style), foot.render(style))
}

/// Why lines are of other price lists than held then.
fn rerates(invoice: &Invoice) -> Table {
    let rows = invoice.rerates.iter().map(|rerate| {
        [
            Cell::text(rerate.id.as_str()),
            Cell::text(render::instant(rerate.from.0)),
            Cell::text(render::instant(rerate.until.0)),
            Cell::text(&rerate.reason),
            Cell::number(render::money(&rerate.amount)),
        ]
    });
    Table::new(["rated anew by", "from", "until before", "because", "adds"], "").rows(rows)
}

fn line(line: &InvoiceLine) -> [Cell; 11] {
    let currency = line.amount.currency;
    let price = match line.unit_amount {
        Some(amount) => rate(&Money { amount, currency }, line.meter, line.unit_per),
        None => line.price.clone(),
    };
    [
        Cell::text(line.project.as_str()),
        Cell::text(line.subject.name()),
        Cell::text(line.meter.as_str()),
        Cell::text(line.service_tier.map_or(NOTHING, |tier| tier.as_str())),
        Cell::text(render::kind_of_time(line.notice, line.site.as_ref(), line.isolation)),
        Cell::text(line.band.as_deref().unwrap_or(NOTHING)),
        Cell::text(line.late.as_ref().map_or(NOTHING, |late| &late.period)),
        Cell::number(quantity(line.meter, line.quantity)),
        Cell::number(price),
        Cell::number(line.charges),
        Cell::number(render::money(&line.amount)),
    ]
}

fn table(invoices: &[Invoice]) -> Table {
    let rows = invoices.iter().map(|invoice| {
        [
            Cell::text(invoice.id.as_str()),
            Cell::optional(invoice.number.as_ref()),
            Cell::state(invoice.status.as_str()),
            Cell::text(render::instant(invoice.period_start.0)),
            Cell::text(render::instant(invoice.period_end.0)),
            Cell::number(render::money(&invoice.total)),
            Cell::number(render::money(invoice.tax.as_ref().map_or(&invoice.total, |tax| &tax.gross))),
            Cell::number(render::money(&invoice.amount_due)),
        ]
    });
    Table::new(["invoice", "number", "status", "from", "until before", "total", "with tax", "still to pay"], "no invoices yet")
        .rows(rows)
}
