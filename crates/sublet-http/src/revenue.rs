//! The owner's revenue, deferred and to come.

use sublet_api::margin::MonthQuery;
use sublet_api::object::RevenueReportTag;
use sublet_api::revenue as wire;
use sublet_cloud::data::{BacklogMonth, PeriodKey, SkuFamily};
use sublet_cloud::revenue::{ContractRevenue, RevenueReport, Tie};
use sublet_core::{Nanos, Result};

use crate::App;
use crate::answer::{Answer, json};
use crate::context::Context;
use crate::wire::money;

pub async fn report(app: App, context: Context) -> Result<Answer> {
    let query: MonthQuery = context.query()?;
    let month = query.month.as_deref().map(str::parse::<PeriodKey>).transpose().map_err(|error| error.param("month"))?;
    app.cloud.follow().await?;
    json(&to_wire(&app.cloud.revenue_report(&context.actor, month, query.currency).await?)?)
}

fn to_wire(report: &RevenueReport) -> Result<wire::RevenueReport> {
    let money = |amount: Nanos| money(amount, report.currency);
    let contract = |part: &ContractRevenue| wire::ContractRevenue {
        contract: part.contract.clone(),
        organization: part.organization.clone(),
        name: part.name.clone(),
        commitments: money(part.commitments),
        fees: money(part.fees),
        deferred: money(part.deferred),
        firm: money(part.firm),
        planned: money(part.planned),
    };
    let month = |month: &BacklogMonth| wire::BacklogMonth {
        month: month.month.to_string(),
        firm: money(month.firm),
        planned: money(month.planned),
    };
    let family = |family: SkuFamily| wire::FamilyRevenue {
        family: family.as_str().to_owned(),
        recognised: money(report.usage.get(&family).copied().unwrap_or_default()),
    };
    let tie = |(what, tie): (&str, Tie)| -> Result<wire::RevenueTie> {
        Ok(wire::RevenueTie {
            what: what.to_owned(),
            reported: money(tie.reported),
            booked: money(tie.booked),
            difference: money(tie.reported.checked_sub(tie.booked)?),
        })
    };
    let ties = [
        ("usage", report.usage_tie),
        ("commitments", report.commitments_tie),
        ("fees", report.fees_tie),
        ("deferred", report.deferred_tie),
    ];
    Ok(wire::RevenueReport {
        object: RevenueReportTag,
        month: report.month.to_string(),
        currency: report.currency,
        as_of: report.as_of.into(),
        usage: SkuFamily::ALL.into_iter().map(family).collect(),
        commitments: money(report.commitments()?),
        fees: money(report.fees()?),
        recognised: money(report.recognised()?),
        deferred: money(report.deferred()?),
        contracts: report.contracts.iter().map(contract).collect(),
        backlog: report.backlog.iter().map(month).collect(),
        ledger: ties.into_iter().map(tie).collect::<Result<_>>()?,
    })
}
