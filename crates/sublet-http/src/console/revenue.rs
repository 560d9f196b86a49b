//! The owner's revenue: what the running month earned, what is deferred, and what contracts bring in months to come.

use askama::Template;
use axum::body::Body;
use http::Response;
use sublet_cloud::data::{BacklogMonth, SkuFamily};
use sublet_cloud::revenue::{ContractRevenue, RevenueReport};
use sublet_core::{Currency, Nanos, Result};

use super::Console;
use super::chart::{Part, Svg, bars};
use super::figure::Amount;
use super::shell::{self, Shell};
use super::visit::Visit;

/// Months of the backlog that the chart has.
const MONTHS_IN_CHART: usize = 36;

/// One figure of the month.
struct Figure {
    label: &'static str,
    amount: Amount,
}

struct ContractRow {
    name: String,
    organization: String,
    deferred: Amount,
    firm: Amount,
    planned: Amount,
}

struct BacklogChart {
    chart: Svg,
    first: String,
    last: String,
    highest: Amount,
}

#[derive(Template)]
#[template(path = "revenue.html")]
struct RevenuePage {
    shell: Shell,
    month: String,
    figures: Vec<Figure>,
    contracts: Vec<ContractRow>,
    backlog: Option<BacklogChart>,
    /// Sums that are not those of the ledger.
    off: Vec<&'static str>,
}

pub async fn show(console: Console, visit: Visit) -> Result<Response<Body>> {
    let report = console.app.cloud.revenue_report(&visit.actor, None, None).await?;
    let currency = report.currency;
    let ties = [
        ("usage", report.usage_tie),
        ("commitments", report.commitments_tie),
        ("fees", report.fees_tie),
        ("deferred revenue", report.deferred_tie),
    ];
    shell::html(&RevenuePage {
        shell: Shell::of(&console, &visit.actor, "Revenue", "/console/revenue").await?,
        month: report.month.to_string(),
        figures: figures(&report)?,
        contracts: report.contracts.iter().map(|part| row(part, currency)).collect(),
        backlog: chart(&report.backlog, currency),
        off: ties.into_iter().filter(|(_, tie)| tie.reported != tie.booked).map(|(what, _)| what).collect(),
    })
}

fn figures(report: &RevenueReport) -> Result<Vec<Figure>> {
    let figure = |label, amount| Figure { label, amount: Amount::new(amount, report.currency) };
    let family = |family: SkuFamily| report.usage.get(&family).copied().unwrap_or_default();
    Ok(vec![
        figure("Recognised so far", report.recognised()?),
        figure("Model tokens", family(SkuFamily::ModelTokens)),
        figure("Model requests", family(SkuFamily::ModelRequests)),
        figure("Device time", family(SkuFamily::DeviceTime)),
        figure("Job starts", family(SkuFamily::JobStarts)),
        figure("Project fees", family(SkuFamily::ProjectFees)),
        figure("One-time fees", family(SkuFamily::OneTimeFees)),
        figure("File storage", family(SkuFamily::FileStorage)),
        figure("File egress", family(SkuFamily::FileEgress)),
        figure("Commitments", report.commitments()?),
        figure("Fees", report.fees()?),
        figure("Deferred now", report.deferred()?),
    ])
}

fn row(part: &ContractRevenue, currency: Currency) -> ContractRow {
    ContractRow {
        name: part.name.clone(),
        organization: part.organization.to_string(),
        deferred: Amount::new(part.deferred, currency),
        firm: Amount::new(part.firm, currency),
        planned: Amount::new(part.planned, currency),
    }
}

/// The planned backlog month by month; what of it is firm is in the words of each bar.
fn chart(backlog: &[BacklogMonth], currency: Currency) -> Option<BacklogChart> {
    let shown = &backlog[..backlog.len().min(MONTHS_IN_CHART)];
    let (first, last) = (shown.first()?, shown.last()?);
    let text = |amount: Nanos| format!("{} {currency}", Amount::new(amount, currency).text());
    let part = |month: &BacklogMonth| {
        let label = format!("{}: {}, of which {} firm", month.month, text(month.planned), text(month.firm));
        Part::new(if month.firm == month.planned { "spent" } else { "held" }, label, month.planned.get())
    };
    let parts: Vec<_> = shown.iter().map(part).collect();
    let highest = shown.iter().map(|month| month.planned).max().unwrap_or(Nanos::ZERO);
    let words = format!("backlog by month, {} to {}, at most {}", first.month, last.month, text(highest));
    Some(BacklogChart {
        chart: bars(&parts, &words),
        first: first.month.to_string(),
        last: last.month.to_string(),
        highest: Amount::new(highest, currency),
    })
}
