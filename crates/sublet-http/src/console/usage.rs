//! What was used, as tables and as a chart of days.

use sublet_cloud::data::{ChargeSummary, SkuName};
use sublet_cloud::spend::DaySpend;
use sublet_cloud::usage::UsageReport;
use sublet_core::{Currency, Nanos, Result};

use super::chart::{Part, Svg, bars};
use super::figure::{Amount, Count, Day, quantity_text, sku_text};

/// Days in the chart.
pub const CHART_DAYS: u16 = 14;

/// One model's share.
pub struct ModelRow {
    pub model: String,
    pub requests: Count,
    pub input: Count,
    pub cached: Count,
    pub output: Count,
    pub cost: Amount,
}

/// One sku's share.
pub struct SkuRow {
    pub sku: String,
    pub name: String,
    pub quantity: String,
    pub charges: Count,
    pub cost: Amount,
}

pub fn models(report: &UsageReport, currency: Currency) -> Vec<ModelRow> {
    let row = |model: &sublet_cloud::data::UsageSummary| ModelRow {
        model: model.model.clone(),
        requests: Count(model.requests),
        input: Count(model.input_tokens),
        cached: Count(model.cached_input_tokens),
        output: Count(model.output_tokens),
        cost: Amount::new(model.amount, currency),
    };
    report.models.iter().map(row).collect()
}

/// Sums by sku over all projects, the dearest first.
pub fn skus(lines: &[ChargeSummary]) -> Result<Vec<SkuRow>> {
    let mut sums: Vec<(SkuName, Currency, i64, i64, Nanos)> = Vec::new();
    for line in lines {
        match sums.iter_mut().find(|(sku, currency, ..)| *sku == line.sku && *currency == line.currency) {
            Some((_, _, quantity, charges, amount)) => {
                *quantity = quantity.saturating_add(line.quantity);
                *charges = charges.saturating_add(line.charges);
                *amount = amount.checked_add(line.amount)?;
            }
            None => sums.push((line.sku.clone(), line.currency, line.quantity, line.charges, line.amount)),
        }
    }
    sums.sort_by(|a, b| b.4.cmp(&a.4).then_with(|| a.0.cmp(&b.0)));
    let row = |(sku, currency, quantity, charges, amount): (SkuName, Currency, i64, i64, Nanos)| SkuRow {
        name: sku_text(&sku),
        quantity: quantity_text(&sku, quantity),
        sku: sku.to_string(),
        charges: Count(charges),
        cost: Amount::new(amount, currency),
    };
    Ok(sums.into_iter().map(row).collect())
}

/// Spend of the last days in one currency.
pub struct DayChart {
    pub chart: Svg,
    pub first: Day,
    pub last: Day,
    pub highest: Amount,
}

/// The chart of the last days; `None` if nothing was charged.
pub fn day_chart(days: &[DaySpend], currency: Currency) -> Result<Option<DayChart>> {
    let amount_of = |day: &DaySpend| day.amounts.get(&currency).copied().unwrap_or(Nanos::ZERO);
    let total = Nanos::checked_sum(days.iter().map(amount_of))?;
    let highest = days.iter().map(amount_of).max().unwrap_or(Nanos::ZERO);
    let (Some(first), Some(last)) = (days.first(), days.last()) else { return Ok(None) };
    if total.is_zero() {
        return Ok(None);
    }
    let part = |day: &DaySpend| {
        let amount = amount_of(day);
        let label = format!("{}: {} {currency}", date_text(day), Amount::new(amount, currency).text());
        Part::new("spent", label, amount.get())
    };
    let parts: Vec<Part> = days.iter().map(part).collect();
    let highest = Amount::new(highest, currency);
    let description = format!("spend by day over {} days, {} {currency} at most", days.len(), highest.text());
    Ok(Some(DayChart { chart: bars(&parts, &description), first: middle(first), last: middle(last), highest }))
}

/// Noon lies in the same day in UTC as in the account's zone, almost everywhere.
fn middle(day: &DaySpend) -> Day {
    Day(day.interval.starts_at.plus(sublet_core::DurationMs::from_hours(12)))
}

fn date_text(day: &DaySpend) -> String {
    let text = middle(day).0.to_string();
    text.get(..10).unwrap_or(&text).to_owned()
}
