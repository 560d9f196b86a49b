//! The operator's home: what is idle, what is sold, what it earned, and whether anything is wrong.

use std::collections::BTreeMap;

use askama::Template;
use axum::body::Body;
use http::Response;
use sublet_cloud::data::{BillingCalendar, ChargeSummary, Interval, KindFigures, PageRequest};
use sublet_core::{Currency, Nanos, Result};

use super::audit::AuditRow;
use super::chart::{Part, Svg, meter};
use super::device::{self, KindRow};
use super::figure::{Amount, Count, Span};
use super::organization::{self, OrganizationRow};
use super::shell::Shell;
use super::usage::{self, CHART_DAYS, DayChart, SkuRow};
use super::visit::Visit;
use super::{Console, audit, shell};

const ROWS_ON_HOME: i64 = 8;
const QUARANTINE_COUNTED_MAX: i64 = 100;

/// What one organization paid.
struct EarnedRow {
    id: String,
    name: String,
    charges: Count,
    amount: Amount,
    share: Svg,
}

#[derive(Template)]
#[template(path = "operator.html")]
struct OperatorPage {
    shell: Shell,
    period: Span,
    fleet: KindFigures,
    fleet_meter: Svg,
    fleet_parts: Vec<Part>,
    kinds: Vec<KindRow>,
    sold: Vec<(&'static str, u32)>,
    time: Svg,
    time_parts: Vec<Part>,
    earned: Vec<Amount>,
    chart: Option<DayChart>,
    earners: Vec<EarnedRow>,
    skus: Vec<SkuRow>,
    held: Vec<Amount>,
    quarantine: Count,
    organizations: Vec<OrganizationRow>,
    more_organizations: bool,
    audit: Vec<AuditRow>,
}

/// The running month in UTC: what the operator's figures are cut by.
fn this_month(console: &Console) -> Result<Interval> {
    Ok(BillingCalendar::new("UTC")?.period_at(console.app.cloud.clock().now())?.interval)
}

/// Sums by currency, in the order of currencies.
fn sums(amounts: impl IntoIterator<Item = (Currency, Nanos)>) -> Result<Vec<Amount>> {
    let mut sums: BTreeMap<Currency, Nanos> = BTreeMap::new();
    for (currency, nanos) in amounts {
        let sum = sums.entry(currency).or_default();
        *sum = sum.checked_add(nanos)?;
    }
    Ok(sums.into_iter().map(|(currency, nanos)| Amount::new(nanos, currency)).collect())
}

async fn earners(console: &Console, visit: &Visit, lines: &[ChargeSummary]) -> Result<Vec<EarnedRow>> {
    let mut sums: BTreeMap<_, (Currency, i64, Nanos)> = BTreeMap::new();
    for line in lines {
        let entry = sums.entry((line.organization.clone(), line.currency)).or_insert((line.currency, 0, Nanos::ZERO));
        entry.1 = entry.1.saturating_add(line.charges);
        entry.2 = entry.2.checked_add(line.amount)?;
    }
    let highest = sums.values().map(|(_, _, amount)| amount.get()).max().unwrap_or(0);
    let mut rows = Vec::with_capacity(sums.len());
    for ((id, _), (currency, charges, nanos)) in sums {
        let name = console.app.cloud.get_organization(&visit.actor, &id).await?.name;
        let amount = Amount::new(nanos, currency);
        let parts = [Part::new("spent", format!("{} {currency}", amount.text()), nanos.get())];
        let share = meter(highest, &parts, &format!("{} {currency}", amount.text()));
        rows.push(EarnedRow { id: id.to_string(), name, charges: Count(charges), amount, share });
    }
    rows.sort_by_key(|row| std::cmp::Reverse(row.amount.nanos));
    Ok(rows)
}

fn whole_fleet(kinds: &[KindRow]) -> KindFigures {
    let sum = |of: fn(&KindFigures) -> u32| kinds.iter().map(|row| of(&row.figures)).fold(0, u32::saturating_add);
    KindFigures {
        total: sum(|figures| figures.total),
        healthy: sum(|figures| figures.healthy),
        idle: sum(|figures| figures.idle),
        internal: sum(|figures| figures.internal),
        external: sum(|figures| figures.external),
        promised: sum(|figures| figures.promised),
        firm: sum(|figures| figures.firm),
        reserve: sum(|figures| figures.reserve),
        kept: sum(|figures| figures.kept),
        outside: sum(|figures| figures.outside),
        room: None,
    }
}

pub async fn home(console: Console, visit: Visit) -> Result<Response<Body>> {
    let (cloud, compute, actor) = (&console.app.cloud, &console.app.compute, &visit.actor);
    let interval = this_month(&console)?;
    let kinds = device::kinds(&compute.capacity(actor).await?);
    let fleet = whole_fleet(&kinds);
    let out_of_service = fleet.total.saturating_sub(fleet.healthy);
    let fleet_parts = device::parts(&fleet, out_of_service).to_vec();
    let fleet_words = format!("{} of {} devices idle", fleet.idle, fleet.total);
    let times = compute.device_time(actor, interval.starts_at, cloud.clock().now()).await?;
    let time_parts = device::time_parts(&times);
    let lines = cloud.earnings(actor, interval.starts_at, interval.ends_at).await?;
    let earned = sums(lines.iter().map(|line| (line.currency, line.amount)))?;
    let currency = earned.first().map_or(Currency::EUR, |amount| amount.currency);
    let days = cloud.spend_by_day(actor, CHART_DAYS).await?;
    let page = PageRequest { limit: Some(organization::ROWS_ON_PAGE), ..PageRequest::default() };
    let (organizations, more_organizations) = organization::rows(cloud, actor, &page).await?;
    let quarantine = PageRequest { limit: Some(QUARANTINE_COUNTED_MAX), ..PageRequest::default() };
    let quarantine = cloud.list_quarantine(actor, &quarantine).await?.items.len();
    let tail = PageRequest { limit: Some(ROWS_ON_HOME), ..PageRequest::default() };
    let sold = device::sold_by_notice(&console, &visit).await?;
    shell::html(&OperatorPage {
        shell: Shell::of(&console, actor, "Overview", "/console").await?,
        period: Span(interval),
        fleet_meter: meter(i64::from(fleet.total), &fleet_parts, &fleet_words),
        fleet,
        fleet_parts,
        kinds,
        sold: sold.into_iter().map(|(notice, units)| (notice.as_str(), units)).collect(),
        time: meter(time_parts.iter().map(|part| part.value).sum(), &time_parts, "device time this month by what was done with it"),
        time_parts,
        chart: usage::day_chart(&days, currency)?,
        earners: earners(&console, &visit, &lines).await?,
        skus: usage::skus(&lines)?,
        earned,
        held: sums(organizations.iter().map(|row| (row.held.currency, row.held.nanos)))?,
        quarantine: Count(i64::try_from(quarantine).unwrap_or(i64::MAX)),
        organizations,
        more_organizations,
        audit: audit::rows(cloud, actor, &tail).await?.0,
    })
}

#[derive(Template)]
#[template(path = "earnings.html")]
struct EarningsPage {
    shell: Shell,
    period: Span,
    earned: Vec<Amount>,
    /// What was bought from suppliers; nothing if nothing was.
    bought: Vec<Amount>,
    earners: Vec<EarnedRow>,
    skus: Vec<SkuRow>,
}

pub async fn earnings(console: Console, visit: Visit) -> Result<Response<Body>> {
    let interval = this_month(&console)?;
    let lines = console.app.cloud.earnings(&visit.actor, interval.starts_at, interval.ends_at).await?;
    let bought = console.app.cloud.margins(&visit.actor, interval.starts_at, interval.ends_at).await?;
    shell::html(&EarningsPage {
        bought: sums(bought.iter().map(|line| (line.currency, line.cost)))?,
        shell: Shell::of(&console, &visit.actor, "Earnings", "/console/earnings").await?,
        period: Span(interval),
        earned: sums(lines.iter().map(|line| (line.currency, line.amount)))?,
        earners: earners(&console, &visit, &lines).await?,
        skus: usage::skus(&lines)?,
    })
}
