//! Management's page: what the running month returned, what the devices did, what was missed, what was promised and kept.

use askama::Template;
use axum::body::Body;
use http::Response;
use sublet_cloud::data::{ClassTimes, DeviceKind, TimeClass, Unfilled};
use sublet_cloud::monthly_return::{Capital, Promises, ReturnReport};
use sublet_core::notice::NoticeClass;
use sublet_core::{Currency, DurationMs, Nanos, Result};

use super::Console;
use super::chart::{Part, Svg, bars, meter};
use super::figure::{Amount, Count, duration_text};
use super::shell::{self, Shell};
use super::visit::Visit;

/// Most kinds that the page has.
const KINDS_MAX: usize = 100;
/// From so many thousandths on most of something is in one part of the week.
const MOST_PER_MILLE: i64 = 500;
const HOUR_MILLIS: i64 = 3_600_000;

struct KindRow {
    kind: String,
    meter: Svg,
    owned: String,
    before: String,
    after: String,
    unhealthy: String,
}

struct UnfilledRow {
    kind: String,
    hours: Count,
    /// The price at which it would have brought most, the hours at it, and what they would have brought.
    best: Option<(Amount, Count, Amount)>,
    when: String,
    reasons: String,
    by_hour: Svg,
}

struct PromiseRow {
    notice: NoticeClass,
    ended: Count,
    by_owner: Count,
    kept: Count,
    broken: Count,
    compensated: Vec<Amount>,
}

#[derive(Template)]
#[template(path = "return.html")]
struct ReturnPage {
    shell: Shell,
    month: String,
    has_costs: bool,
    money: Vec<(&'static str, Amount)>,
    before: String,
    after: String,
    payback: String,
    capital: Amount,
    priced: u32,
    devices: u32,
    cash: Option<Amount>,
    kinds: Vec<KindRow>,
    unfilled: Vec<UnfilledRow>,
    elsewhere: Vec<(Currency, Count)>,
    zone: String,
    is_all: bool,
    promises: Vec<PromiseRow>,
}

pub async fn show(console: Console, visit: Visit) -> Result<Response<Body>> {
    let report = console.app.cloud.return_report(&visit.actor, None, None).await?;
    let (margin, currency) = (&report.margin, report.margin.currency);
    let amount = |nanos: Nanos| Amount::new(nanos, currency);
    let Capital { payback, devices, priced } = report.capital;
    let all = report.time();
    shell::html(&ReturnPage {
        shell: Shell::of(&console, &visit.actor, "Return", "/console/return").await?,
        month: margin.month.to_string(),
        has_costs: margin.costs.is_some(),
        money: vec![
            ("Earned", amount(margin.net_revenue()?)),
            ("Cost", amount(margin.cost()?)),
            ("Margin", amount(margin.gross_margin()?)),
        ],
        before: percent(all.before_per_mille()),
        after: percent(all.after_per_mille()),
        payback: payback
            .tenths_of_months()
            .map_or_else(|| "–".to_owned(), |tenths| format!("{}.{} months", tenths / 10, tenths % 10)),
        capital: amount(payback.capital),
        priced,
        devices,
        cash: payback.monthly_cash()?.map(amount),
        kinds: report.times.iter().take(KINDS_MAX).map(kind).collect(),
        unfilled: unfilled_rows(&report),
        elsewhere: report.unfilled.elsewhere.iter().map(|(currency, millis)| (*currency, hours(*millis))).collect(),
        zone: report.unfilled.zone.name().to_owned(),
        is_all: report.unfilled.is_all,
        promises: report.promises.iter().map(promise).collect(),
    })
}

fn percent(per_mille: Option<i64>) -> String {
    per_mille.map_or_else(|| "–".to_owned(), |share| format!("{}.{} %", share / 10, share % 10))
}

/// Whole device-hours, rounded half up.
fn hours(millis: i64) -> Count {
    Count(millis.saturating_add(HOUR_MILLIS / 2).div_euclid(HOUR_MILLIS))
}

fn text_of(micros: i64) -> String {
    duration_text(DurationMs::from_millis(micros.div_euclid(1_000)))
}

fn kind((kind, times): (&DeviceKind, &ClassTimes)) -> KindRow {
    let part = |(class, micros): (TimeClass, i64)| {
        let (colour, name) = match class {
            TimeClass::OwnUse => ("internal", "used by our own teams".to_owned()),
            TimeClass::OutsideUse => ("internal", "used by us outside".to_owned()),
            TimeClass::Sold(NoticeClass::N0) => ("spot", "sold at notice n0".to_owned()),
            TimeClass::Sold(notice) => ("external", format!("sold at notice {notice}")),
            TimeClass::Held => ("promised", "in customers' leases, not running".to_owned()),
            TimeClass::Reserved => ("promised", "held for our own teams".to_owned()),
            TimeClass::Drained => ("drain", "between leases".to_owned()),
            TimeClass::Idle => ("idle", "idle".to_owned()),
            TimeClass::Unhealthy => ("bad", "out of service".to_owned()),
            TimeClass::Unknown => ("track", "not known".to_owned()),
        };
        Part::new(colour, format!("{name}: {}", text_of(micros)), micros)
    };
    let parts: Vec<Part> = times.iter().map(part).collect();
    let (before, after) = (percent(times.before_per_mille()), percent(times.after_per_mille()));
    KindRow {
        kind: kind.to_string(),
        meter: meter(times.owned(), &parts, &format!("{kind}: {before} used by us, {after} with what was sold")),
        owned: text_of(times.owned()),
        before,
        after,
        unhealthy: text_of(times.of(TimeClass::Unhealthy)),
    }
}

fn unfilled_rows(report: &ReturnReport) -> Vec<UnfilledRow> {
    let currency = report.margin.currency;
    let row = |(kind, found): (&DeviceKind, &Unfilled)| {
        let reasons =
            found.by_reason.iter().map(|(reason, millis)| format!("{} {}", hours(*millis), reason.as_str().replace('_', " ")));
        let when = found.densest.map(|(part, share)| {
            let word = if share >= MOST_PER_MILLE { "mostly" } else { "more than elsewhere on" };
            format!("{word} {} ({})", part.as_str(), percent(Some(share)))
        });
        let bar =
            |(hour, millis): (usize, &i64)| Part::new("spent", format!("{hour}:00: {} device-hours", hours(*millis)), *millis);
        let by_hour: Vec<Part> = found.by_hour.iter().enumerate().map(bar).collect();
        UnfilledRow {
            kind: kind.to_string(),
            hours: hours(found.device_millis),
            best: found
                .best
                .map(|best| (Amount::new(best.price, currency), hours(best.device_millis), Amount::new(best.worth, currency))),
            when: when.unwrap_or_default(),
            reasons: reasons.collect::<Vec<_>>().join(", "),
            by_hour: bars(&by_hour, &format!("unfilled demand for {kind} by hour of the day")),
        }
    };
    report.unfilled.kinds.iter().take(KINDS_MAX).map(row).collect()
}

fn promise((notice, of_class): (&NoticeClass, &Promises)) -> PromiseRow {
    PromiseRow {
        notice: *notice,
        ended: Count(of_class.ended),
        by_owner: Count(of_class.ended_by_owner),
        kept: Count(of_class.kept),
        broken: Count(of_class.broken),
        compensated: of_class.compensated.iter().map(|(currency, amount)| Amount::new(*amount, *currency)).collect(),
    }
}
