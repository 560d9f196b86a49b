//! The owner's margin: what the running month brought, what supplying it cost, by thing, by customer and by site.

use askama::Template;
use axum::body::Body;
use http::Response;
use sublet_cloud::data::{Figures, MarginLine, SkuName, group_by};
use sublet_cloud::margin::MarginReport;
use sublet_core::id::SiteId;
use sublet_core::{Currency, Nanos, Result};

use super::Console;
use super::figure::{Amount, quantity_text, sku_text};
use super::shell::{self, Shell};
use super::visit::Visit;

/// Most rows of a table: those that brought most.
const ROWS_MAX: usize = 100;

struct Row {
    name: String,
    /// Of a thing.
    quantity: String,
    revenue: Amount,
    /// `None` where it is not known what all of it cost.
    cost: Option<Amount>,
    margin: Option<Amount>,
}

struct KindRow {
    kind: String,
    /// Of the time that there was, in percent.
    sold: String,
    unused: Option<Amount>,
}

#[derive(Template)]
#[template(path = "margin.html")]
struct MarginPage {
    shell: Shell,
    month: String,
    figures: Vec<(&'static str, Amount)>,
    /// Revenue whose cost is not known.
    without_cost: Option<Amount>,
    has_costs: bool,
    skus: Vec<Row>,
    customers: Vec<Row>,
    sites: Vec<Row>,
    kinds: Vec<KindRow>,
}

pub async fn show(console: Console, visit: Visit) -> Result<Response<Body>> {
    let report = console.app.cloud.margin_report(&visit.actor, None, None).await?;
    let currency = report.currency;
    let used = report.figures(false)?;
    let figure = |label, amount| (label, Amount::new(amount, currency));
    shell::html(&MarginPage {
        shell: Shell::of(&console, &visit.actor, "Margin", "/console/margin").await?,
        month: report.month.to_string(),
        figures: vec![
            figure("Gross margin", report.gross_margin()?),
            figure("Net revenue", report.net_revenue()?),
            figure("Cost of supply", report.cost()?),
            figure("Teams of the owner used", report.figures(true)?.revenue),
        ],
        without_cost: Some(used.without_cost).filter(|amount| !amount.is_zero()).map(|amount| Amount::new(amount, currency)),
        has_costs: report.costs.is_some(),
        skus: skus(&report)?,
        customers: customers(&report)?,
        sites: sites(&report)?,
        kinds: kinds(&report),
    })
}

/// Lines of customers.
fn sold(report: &MarginReport) -> impl Iterator<Item = &MarginLine> {
    report.made.lines.iter().filter(|line| !line.internal)
}

fn skus(report: &MarginReport) -> Result<Vec<Row>> {
    let by_sku = group_by(sold(report), |line| line.sku.clone())?;
    let row = |(sku, figures): (&SkuName, &Figures)| {
        row(sku_text(sku), quantity_text(sku, figures.quantity.get()), (figures, report.currency))
    };
    most(by_sku.iter().map(row).collect())
}

fn customers(report: &MarginReport) -> Result<Vec<Row>> {
    let by_customer = group_by(sold(report), |line| line.organization.clone())?;
    let name = |id| report.names.get(id).cloned().unwrap_or_default();
    most(by_customer.iter().map(|(id, figures)| row(name(id), String::new(), (figures, report.currency))).collect())
}

fn sites(report: &MarginReport) -> Result<Vec<Row>> {
    let row = |(site, figures): (&Option<SiteId>, &Figures)| {
        let name = site.as_ref().map_or_else(|| "no site".to_owned(), ToString::to_string);
        row(name, String::new(), (figures, report.currency))
    };
    most(report.made.sites.iter().map(row).collect())
}

fn row(name: String, quantity: String, (figures, currency): (&Figures, Currency)) -> Result<Row> {
    let amount = |nanos: Nanos| Amount::new(nanos, currency);
    let is_known = figures.without_cost.is_zero();
    let (cost, margin) = (figures.costs.total()?, figures.margin()?);
    Ok(Row {
        name,
        quantity,
        revenue: amount(figures.revenue),
        cost: is_known.then(|| amount(cost)),
        margin: is_known.then(|| amount(margin)),
    })
}

fn most(rows: Vec<Result<Row>>) -> Result<Vec<Row>> {
    let mut rows = rows.into_iter().collect::<Result<Vec<_>>>()?;
    rows.sort_by_key(|row| std::cmp::Reverse(row.revenue.nanos));
    rows.truncate(ROWS_MAX);
    Ok(rows)
}

fn kinds(report: &MarginReport) -> Vec<KindRow> {
    let kinds = report.utilisation.iter().take(ROWS_MAX).map(|(kind, used)| KindRow {
        kind: kind.to_string(),
        sold: used.sold_per_mille().map_or_else(|| "–".to_owned(), |share| format!("{}.{} %", share / 10, share % 10)),
        unused: used.unused_cost.map(|cost| Amount::new(cost, report.currency)),
    });
    kinds.collect()
}
