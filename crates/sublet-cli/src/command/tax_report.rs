//! `sublet report tax`.

use clap::Args;
use sublet_api::tax_report::{TaxReport, TaxReportLine, TaxReportQuery};
use sublet_core::error::Result;
use sublet_money::table::{Cell as CsvCell, Column, Decimal, Kind, csv_header, write_csv};

use crate::Context;
use crate::context::Style;
use crate::render::{Cell, Table};

/// Which months, and where.
#[derive(Args, Debug)]
pub struct TaxReportArgs {
    /// A month like 2026-03 or a quarter like 2026-Q1; the running month if left out
    #[arg(long)]
    period: Option<String>,
    /// The time zone in which it is one; UTC if left out
    #[arg(long)]
    zone: Option<String>,
    /// As CSV
    #[arg(long)]
    csv: bool,
}

impl TaxReportArgs {
    pub(super) fn run(self, context: &mut Context<'_>) -> Result<()> {
        let query = TaxReportQuery { period: self.period, zone: self.zone };
        let report = context.client()?.tax_report(&query)?;
        context.show_text(&report, |report, style| if self.csv { csv(report) } else { text(report, style) })
    }
}

type Read = for<'r> fn(&'r TaxReportLine) -> CsvCell<'r>;

const fn column(name: &'static str, kind: Kind, cell: Read) -> Column<TaxReportLine> {
    Column { name, kind, is_optional: false, cell }
}

fn documents<'r>(count: u64) -> CsvCell<'r> {
    CsvCell::Count(i64::try_from(count).unwrap_or(i64::MAX))
}

const COLUMNS: &[Column<TaxReportLine>] = &[
    column("jurisdiction", Kind::Text, |line| CsvCell::text(&line.jurisdiction)),
    column("name", Kind::Text, |line| CsvCell::text(&line.name)),
    column("category", Kind::Text, |line| CsvCell::text(&line.category)),
    column("rate_percent", Kind::Text, |line| CsvCell::text(&line.rate)),
    column("currency", Kind::Text, |line| CsvCell::text(line.currency.as_str())),
    column("invoices", Kind::Count, |line| documents(line.invoiced.documents)),
    column("invoiced_base", Kind::Decimal, |line| CsvCell::Decimal(Decimal::of_nanos(line.invoiced.base.nanos()))),
    column("invoiced_tax", Kind::Decimal, |line| CsvCell::Decimal(Decimal::of_nanos(line.invoiced.tax.nanos()))),
    column("credit_notes", Kind::Count, |line| documents(line.credited.documents)),
    column("credited_base", Kind::Decimal, |line| CsvCell::Decimal(Decimal::of_nanos(line.credited.base.nanos()))),
    column("credited_tax", Kind::Decimal, |line| CsvCell::Decimal(Decimal::of_nanos(line.credited.tax.nanos()))),
    column("base", Kind::Decimal, |line| CsvCell::Decimal(Decimal::of_nanos(line.base.nanos()))),
    column("tax", Kind::Decimal, |line| CsvCell::Decimal(Decimal::of_nanos(line.tax.nanos()))),
];

fn csv(report: &TaxReport) -> String {
    let columns: Vec<&Column<TaxReportLine>> = COLUMNS.iter().collect();
    let mut text = csv_header(&columns);
    for line in &report.lines {
        write_csv(&mut text, &columns, line);
    }
    text
}

fn text(report: &TaxReport, style: Style) -> String {
    let lines = report.lines.iter().map(|line| {
        [
            Cell::text(&line.jurisdiction),
            Cell::text(format!("{} {} %", line.name, line.rate)),
            Cell::text(&line.category),
            Cell::text(line.currency.as_str()),
            Cell::number(line.invoiced.base.nanos().to_string()),
            Cell::number(line.invoiced.tax.nanos().to_string()),
            Cell::number(line.credited.base.nanos().to_string()),
            Cell::number(line.credited.tax.nanos().to_string()),
            Cell::number(line.tax.nanos().to_string()),
        ]
    });
    let titles = ["where", "tax", "category", "currency", "base", "tax", "credited base", "credited tax", "to be paid"];
    let lines = Table::new(titles, "no document with taxes was issued").rows(lines);
    let ties = report.ledger.iter().map(|tie| {
        [
            Cell::text(&tie.jurisdiction),
            Cell::text(tie.currency.as_str()),
            Cell::number(tie.reported.nanos().to_string()),
            Cell::number(tie.booked.nanos().to_string()),
            Cell::number(tie.difference.nanos().to_string()),
        ]
    });
    let ties = Table::new(["where", "currency", "reported", "in the books", "difference"], "nothing was booked").rows(ties);
    format!("{} ({})\n{}\n{}", report.period, report.zone, lines.render(style), ties.render(style))
}
