//! What a month returned to the owner.

use sublet_api::margin::MonthQuery;
use sublet_api::monthly_return as wire;
use sublet_api::object::ReturnReportTag;
use sublet_cloud::data::{ClassTimes, DeviceKind, PeriodKey, PricePoint, Unfilled, per_mille};
use sublet_cloud::margin::MarginReport;
use sublet_cloud::monthly_return::{Capital, Promises, ReturnReport, UnfilledDemand};
use sublet_core::notice::NoticeClass;
use sublet_core::{Currency, Nanos, Result};

use crate::App;
use crate::answer::{Answer, json};
use crate::context::Context;
use crate::wire::{count, money};

pub async fn report(app: App, context: Context) -> Result<Answer> {
    let query: MonthQuery = context.query()?;
    let month = query.month.as_deref().map(str::parse::<PeriodKey>).transpose().map_err(|error| error.param("month"))?;
    app.cloud.follow().await?;
    json(&to_wire(&app.cloud.return_report(&context.actor, month, query.currency).await?)?)
}

fn to_wire(report: &ReturnReport) -> Result<wire::ReturnReport> {
    let margin = &report.margin;
    let (currency, without_cost) = (margin.currency, margin.figures(false)?.without_cost);
    let (earned, left) = (margin.net_revenue()?, margin.gross_margin()?);
    let kind = |(kind, times): (&DeviceKind, &ClassTimes)| Ok(wire::KindTime { kind: kind.to_string(), time: time(times)? });
    Ok(wire::ReturnReport {
        object: ReturnReportTag,
        month: margin.month.to_string(),
        currency,
        as_of: margin.as_of.into(),
        cost_version: margin.costs.as_ref().map(|costs| costs.version().to_owned()),
        earned: money(earned, currency),
        cost: money(margin.cost()?, currency),
        margin: money(left, currency),
        margin_permille: per_mille(left, earned.checked_sub(without_cost)?),
        without_cost: money(without_cost, currency),
        unused_cost: unused_cost(margin)?.map(|cost| money(cost, currency)),
        time: time(&report.time())?,
        kinds: report.times.iter().map(kind).collect::<Result<_>>()?,
        payback: payback(&report.capital, currency)?,
        unfilled: unfilled(&report.unfilled, currency)?,
        promises: report.promises.iter().map(promises).collect::<Result<_>>()?,
    })
}

fn unused_cost(margin: &MarginReport) -> Result<Option<Nanos>> {
    let costs: Option<Vec<Nanos>> = margin.utilisation.values().map(|used| used.unused_cost).collect();
    costs.map(Nanos::checked_sum).transpose()
}

fn time(times: &ClassTimes) -> Result<wire::DeviceTime> {
    let millis = |micros: i64| count(micros.div_euclid(1_000));
    let class = |(class, micros)| Ok(wire::ClassTime { class: format!("{class}"), milliseconds: millis(micros)? });
    Ok(wire::DeviceTime {
        owned_milliseconds: millis(times.owned())?,
        classes: times.iter().filter(|(_, micros)| *micros > 0).map(class).collect::<Result<_>>()?,
        before_permille: times.before_per_mille(),
        after_permille: times.after_per_mille(),
    })
}

fn payback(capital: &Capital, currency: Currency) -> Result<wire::PaybackPeriod> {
    let payback = &capital.payback;
    Ok(wire::PaybackPeriod {
        capital: money(payback.capital, currency),
        devices: capital.devices,
        priced_devices: capital.priced,
        cash: money(payback.cash, currency),
        monthly_cash: payback.monthly_cash()?.map(|cash| money(cash, currency)),
        tenths_of_months: payback.tenths_of_months(),
    })
}

fn unfilled(demand: &UnfilledDemand, currency: Currency) -> Result<wire::UnfilledDemand> {
    let elsewhere = |(currency, millis): (&Currency, &i64)| {
        Ok(wire::UnfilledElsewhere { currency: *currency, device_milliseconds: count(*millis)? })
    };
    Ok(wire::UnfilledDemand {
        kinds: demand.kinds.iter().map(|(kind, found)| unfilled_kind(kind, found, currency)).collect::<Result<_>>()?,
        other_currencies: demand.elsewhere.iter().map(elsewhere).collect::<Result<_>>()?,
        time_zone: demand.zone.name().to_owned(),
        is_complete: demand.is_all,
    })
}

fn unfilled_kind(kind: &DeviceKind, found: &Unfilled, currency: Currency) -> Result<wire::UnfilledKind> {
    let at = |best: PricePoint| -> Result<wire::UnfilledPrice> {
        let device_milliseconds = count(best.device_millis)?;
        Ok(wire::UnfilledPrice { price: money(best.price, currency), device_milliseconds, worth: money(best.worth, currency) })
    };
    let reasons = found.by_reason.iter();
    let reasons =
        reasons.map(|(reason, millis)| Ok(wire::UnfilledFor { reason: reason.to_string(), device_milliseconds: count(*millis)? }));
    let notices = found.by_notice.iter();
    let notices = notices.map(|(notice, millis)| Ok(wire::UnfilledAt { notice: *notice, device_milliseconds: count(*millis)? }));
    Ok(wire::UnfilledKind {
        kind: kind.to_string(),
        device_milliseconds: count(found.device_millis)?,
        at: found.best.map(at).transpose()?,
        reasons: reasons.collect::<Result<_>>()?,
        notices: notices.collect::<Result<_>>()?,
        by_hour: found.by_hour.iter().map(|millis| count(*millis)).collect::<Result<_>>()?,
        densest: found.densest.map(|(part, _)| part.as_str().to_owned()),
        densest_permille: found.densest.map(|(_, share)| share),
    })
}

fn promises((notice, of_class): (&NoticeClass, &Promises)) -> Result<wire::ClassPromises> {
    Ok(wire::ClassPromises {
        notice: *notice,
        ended: count(of_class.ended)?,
        ended_by_owner: count(of_class.ended_by_owner)?,
        kept: count(of_class.kept)?,
        broken: count(of_class.broken)?,
        compensation: of_class.compensated.iter().map(|(currency, amount)| money(*amount, *currency)).collect(),
    })
}
