//! What is reported to those who levy taxes.

use sublet_api::object::TaxReportTag;
use sublet_api::tax_report as wire;
use sublet_cloud::data::{BillingCalendar, TaxFigures, TaxKey, TaxPeriod, TaxSums};
use sublet_cloud::tax_report::TaxTie;
use sublet_core::{Error, Result};

use crate::App;
use crate::answer::{Answer, json};
use crate::context::Context;
use crate::wire::money;

pub async fn report(app: App, context: Context) -> Result<Answer> {
    let query: wire::TaxReportQuery = context.query()?;
    let period: Option<TaxPeriod> = query.period.as_deref().map(str::parse).transpose()?;
    let calendar = BillingCalendar::new(query.zone.as_deref().unwrap_or("UTC")).map_err(|error: Error| error.param("zone"))?;
    let report = app.cloud.tax_report(&context.actor, period, &calendar).await?;
    json(&wire::TaxReport {
        object: TaxReportTag,
        period: report.period.to_string(),
        zone: report.zone,
        start_time: report.interval.starts_at.into(),
        end_time: report.interval.ends_at.into(),
        as_of: report.as_of.into(),
        lines: report.lines.iter().map(line_to_wire).collect::<Result<_>>()?,
        ledger: report.ties.iter().map(tie_to_wire).collect::<Result<_>>()?,
    })
}

fn line_to_wire((key, figures): (&TaxKey, &TaxFigures)) -> Result<wire::TaxReportLine> {
    let sums = |sums: TaxSums| wire::TaxReportSums {
        documents: sums.documents,
        base: money(sums.base, key.currency),
        tax: money(sums.tax, key.currency),
    };
    Ok(wire::TaxReportLine {
        jurisdiction: key.jurisdiction.to_string(),
        name: key.name.clone(),
        category: key.category.to_string(),
        rate: key.rate.to_string(),
        currency: key.currency,
        invoiced: sums(figures.invoiced),
        credited: sums(figures.credited),
        base: money(figures.base()?, key.currency),
        tax: money(figures.tax()?, key.currency),
    })
}

fn tie_to_wire(tie: &TaxTie) -> Result<wire::TaxReportTie> {
    Ok(wire::TaxReportTie {
        jurisdiction: tie.jurisdiction.to_string(),
        currency: tie.currency,
        reported: money(tie.reported, tie.currency),
        booked: money(tie.booked, tie.currency),
        difference: money(tie.reported.checked_sub(tie.booked)?, tie.currency),
    })
}
