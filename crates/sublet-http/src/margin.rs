//! The owner's view of a month.

use sublet_api::margin as wire;
use sublet_api::object::{MarginReportTag, ShowbackTag};
use sublet_api::price::Subject;
use sublet_cloud::data::{Costs, Figures, MarginLine, PeriodKey, PricingUnit, SkuFamily, SkuName, group_by, per_mille, per_unit};
use sublet_cloud::margin::{MarginReport, Utilisation};
use sublet_core::device::{DeviceClass, DeviceKind};
use sublet_core::id::{OrganizationId, SiteId};
use sublet_core::{Currency, Nanos, Result};

use crate::App;
use crate::answer::{Answer, json};
use crate::context::Context;
use crate::wire::{SkuParts, count, money, sku_parts};

async fn read(app: &App, context: &Context) -> Result<MarginReport> {
    let query: wire::MonthQuery = context.query()?;
    let month = query.month.as_deref().map(str::parse::<PeriodKey>).transpose().map_err(|error| error.param("month"))?;
    app.cloud.follow().await?;
    app.cloud.margin_report(&context.actor, month, query.currency).await
}

pub async fn report(app: App, context: Context) -> Result<Answer> {
    json(&to_wire(&read(&app, &context).await?)?)
}

pub async fn showback(app: App, context: Context) -> Result<Answer> {
    let report = read(&app, &context).await?;
    let mut teams = Vec::new();
    for (organization, figures) in group_by(internal(&report, true), |line| line.organization.clone())? {
        let own = internal(&report, true).filter(|line| line.organization == organization);
        teams.push(wire::TeamUse {
            name: name(&report, &organization),
            lines: skus(own, report.currency)?,
            figures: figures_to_wire(&figures, report.currency)?,
            organization,
        });
    }
    json(&wire::Showback {
        object: ShowbackTag,
        month: report.month.to_string(),
        currency: report.currency,
        as_of: report.as_of.into(),
        teams,
        total: figures_to_wire(&report.figures(true)?, report.currency)?,
    })
}

fn internal(report: &MarginReport, wanted: bool) -> impl Iterator<Item = &MarginLine> {
    report.made.lines.iter().filter(move |line| line.internal == wanted)
}

fn name(report: &MarginReport, organization: &OrganizationId) -> String {
    report.names.get(organization).cloned().unwrap_or_default()
}

fn to_wire(report: &MarginReport) -> Result<wire::MarginReport> {
    let currency = report.currency;
    let (used, internal_use) = (report.figures(false)?, report.figures(true)?);
    let [contra, _] = &report.contra;
    let (net, margin) = (report.net_revenue()?, report.gross_margin()?);
    let agreement = &report.agreement;
    let revenue_of_all = used.revenue.checked_add(internal_use.revenue)?;
    let in_currency = |amount| money(amount, currency);
    Ok(wire::MarginReport {
        object: MarginReportTag,
        month: report.month.to_string(),
        currency,
        as_of: report.as_of.into(),
        cost_version: report.costs.as_ref().map(|costs| costs.version().to_owned()),
        revenue: in_currency(used.revenue),
        promotions: in_currency(contra.promotions),
        compensations: in_currency(contra.compensations),
        refunds: in_currency(contra.refunds),
        breakage: in_currency(contra.breakage),
        commitments: in_currency(contra.commitments),
        fees: in_currency(contra.fees),
        rounding: in_currency(contra.rounding),
        net_revenue: in_currency(net),
        costs: costs_to_wire(&used.costs, currency),
        cost: in_currency(report.cost()?),
        bought_for_nobody: in_currency(report.made.bought_for_nobody),
        processor_fees: in_currency(report.processor_fees),
        gross_margin: in_currency(margin),
        margin_permille: per_mille(margin, net.checked_sub(used.without_cost)?),
        without_cost: in_currency(used.without_cost),
        families: families(report)?,
        products: products(report)?,
        skus: skus(internal(report, false), currency)?,
        customers: customers(report)?,
        sites: sites(report)?,
        internal: figures_to_wire(&internal_use, currency)?,
        utilisation: report.utilisation.iter().map(|kind| utilisation(kind, currency)).collect::<Result<_>>()?,
        ledger: wire::LedgerAgreement {
            posted: in_currency(agreement.posted),
            timing: in_currency(revenue_of_all.checked_sub(agreement.posted)?),
            recognised: in_currency(agreement.recognised),
            booked: in_currency(agreement.booked),
            difference: in_currency(agreement.recognised.checked_sub(agreement.booked)?),
        },
    })
}

const fn costs_to_wire(costs: &Costs, currency: Currency) -> wire::CostOfSupply {
    wire::CostOfSupply {
        power: money(costs.device.power, currency),
        depreciation: money(costs.device.depreciation, currency),
        device_time: money(costs.device.device_time, currency),
        transfer_price: money(costs.device.transfer_price, currency),
        models: money(costs.models, currency),
        upstream: money(costs.upstream, currency),
    }
}

fn figures_to_wire(figures: &Figures, currency: Currency) -> Result<wire::MarginFigures> {
    let margin = figures.margin()?;
    Ok(wire::MarginFigures {
        revenue: money(figures.revenue, currency),
        costs: costs_to_wire(&figures.costs, currency),
        cost: money(figures.costs.total()?, currency),
        without_cost: money(figures.without_cost, currency),
        margin: money(margin, currency),
        margin_permille: per_mille(margin, figures.revenue.checked_sub(figures.without_cost)?),
    })
}

/// What a unit brings, where all costs are known.
fn unit(figures: &Figures, unit: PricingUnit, currency: Currency) -> Result<Option<wire::UnitMargin>> {
    if figures.without_cost != Nanos::ZERO {
        return Ok(None);
    }
    let each = |amount| per_unit(amount, figures.quantity.get(), unit).map(|amount| money(amount, currency));
    let per = count(unit.base_units())?;
    let (Some(revenue), Some(cost), Some(margin)) = (each(figures.revenue), each(figures.costs.total()?), each(figures.margin()?))
    else {
        return Ok(None);
    };
    Ok(Some(wire::UnitMargin { per, revenue, cost, margin }))
}

fn families(report: &MarginReport) -> Result<Vec<wire::FamilyMargin>> {
    let currency = report.currency;
    let groups = group_by(internal(report, false), |line| line.sku.family())?;
    let family = |(family, figures): (SkuFamily, Figures)| {
        Ok(wire::FamilyMargin {
            family: family.to_string(),
            quantity: count(figures.quantity.get())?,
            unit: unit(&figures, family.pricing_unit(), currency)?,
            figures: figures_to_wire(&figures, currency)?,
        })
    };
    groups.into_iter().map(family).collect()
}

fn products(report: &MarginReport) -> Result<Vec<wire::ProductMargin>> {
    let currency = report.currency;
    let subject = |line: &MarginLine| (line.sku.family(), sku_parts(&line.sku).subject);
    let product = |((family, subject), figures): ((SkuFamily, Subject), Figures)| {
        Ok(wire::ProductMargin {
            subject,
            quantity: count(figures.quantity.get())?,
            unit: unit(&figures, family.pricing_unit(), currency)?,
            figures: figures_to_wire(&figures, currency)?,
        })
    };
    group_by(internal(report, false), subject)?.into_iter().map(product).collect()
}

fn skus<'l>(lines: impl Iterator<Item = &'l MarginLine>, currency: Currency) -> Result<Vec<wire::SkuMargin>> {
    let sku = |(sku, figures): (SkuName, Figures)| {
        let SkuParts { subject, meter, notice, service_tier, site, isolation } = sku_parts(&sku);
        Ok(wire::SkuMargin {
            subject,
            meter,
            notice,
            service_tier,
            site,
            isolation,
            quantity: count(figures.quantity.get())?,
            unit: unit(&figures, sku.pricing_unit(), currency)?,
            below_cost: figures.margin()?.is_negative(),
            figures: figures_to_wire(&figures, currency)?,
        })
    };
    group_by(lines, |line| line.sku.clone())?.into_iter().map(sku).collect()
}

fn customers(report: &MarginReport) -> Result<Vec<wire::CustomerMargin>> {
    let groups = group_by(internal(report, false), |line| line.organization.clone())?;
    let customer = |(organization, figures): (OrganizationId, Figures)| {
        let name = name(report, &organization);
        Ok(wire::CustomerMargin { organization, name, figures: figures_to_wire(&figures, report.currency)? })
    };
    groups.into_iter().map(customer).collect()
}

/// What has no site is the last.
fn sites(report: &MarginReport) -> Result<Vec<wire::SiteMargin>> {
    let (placed, rest): (Vec<_>, Vec<_>) = report.made.sites.iter().partition(|(site, _)| site.is_some());
    let site = |(site, figures): (&Option<SiteId>, &Figures)| {
        Ok(wire::SiteMargin { site: site.clone(), figures: figures_to_wire(figures, report.currency)? })
    };
    placed.into_iter().chain(rest).map(site).collect()
}

fn utilisation((kind, used): (&DeviceKind, &Utilisation), currency: Currency) -> Result<wire::DeviceUtilisation> {
    let of = |classes: &[DeviceClass]| count(used.of(classes));
    Ok(wire::DeviceUtilisation {
        kind: kind.to_string(),
        capacity_milliseconds: count(used.capacity())?,
        sold_milliseconds: of(&[DeviceClass::Lease, DeviceClass::Spot])?,
        internal_milliseconds: of(&[DeviceClass::Internal])?,
        held_milliseconds: of(&[DeviceClass::Held])?,
        idle_milliseconds: of(&[DeviceClass::Idle])?,
        out_milliseconds: of(&[DeviceClass::Drain, DeviceClass::Unhealthy])?,
        sold_permille: used.sold_per_mille(),
        unused_cost: used.unused_cost.map(|cost| money(cost, currency)),
    })
}
