//! Spend limits as meters: what is settled, what is held, what is left, and what is expected at the end.

use sublet_cloud::data::{AtLimit, BudgetWindow, Forecast};
use sublet_cloud::forecast::LimitForecast;
use sublet_cloud::{Actor, Cloud};
use sublet_core::admission::Narrowing;
use sublet_core::{Currency, Nanos, Result};

use super::chart::{Part, Svg, meter_with_mark};
use super::figure::{Amount, When};

/// One limit on one subject.
pub struct LimitRow {
    pub subject: String,
    pub id: String,
    pub window: &'static str,
    pub settled: Amount,
    pub held: Amount,
    pub left: Amount,
    pub limit: Amount,
    pub resets: Option<When>,
    /// What happens at the limit, where that is not to stop.
    pub at_limit: Option<String>,
    pub forecast: Option<ForecastRow>,
    pub meter: Svg,
}

/// What is expected when the window ends.
pub struct ForecastRow {
    pub low: Amount,
    pub expected: Amount,
    pub high: Amount,
    pub method: &'static str,
    /// More than the limit.
    pub is_above: bool,
}

fn forecast_row(forecast: &Forecast, limit: Nanos, currency: Currency) -> ForecastRow {
    let amount = |nanos| Amount::new(nanos, currency);
    ForecastRow {
        low: amount(forecast.low),
        expected: amount(forecast.expected),
        high: amount(forecast.high),
        method: match forecast.method {
            sublet_cloud::data::ForecastMethod::WeeklyProfile => "by the hours of the last weeks",
            sublet_cloud::data::ForecastMethod::RunRate => "if it goes on as so far",
        },
        is_above: forecast.expected > limit,
    }
}

/// What a limit is on, as somebody calls it from their own place.
fn subject_text(name: &str, actor: &Actor) -> String {
    let (subject, requests) = Narrowing::parse(name);
    let is_own_key = actor.key.as_ref().is_some_and(|key| key.as_str() == subject);
    let is_own_project = actor.scope.project().is_some_and(|project| project.as_str() == subject);
    let subject = match sublet_core::id::prefix_of(subject) {
        Some("org") => "Organization",
        Some("proj") if is_own_project => "This project",
        Some("key") if is_own_key => "This key",
        _ => subject,
    };
    requests.name(subject)
}

fn row(found: &LimitForecast, currency: Currency, actor: &Actor) -> Result<LimitRow> {
    let LimitForecast { limit, budget, forecast } = found;
    let amount = |nanos| Amount::new(nanos, currency);
    let taken = budget.settled.checked_add(budget.reserved)?;
    let (settled, held, whole) = (amount(budget.settled), amount(budget.reserved), amount(limit.amount));
    let mut parts = vec![
        Part::new("spent", format!("spent {} {currency}", settled.text()), budget.settled.get()),
        Part::new("held", format!("held {} {currency}", held.text()), budget.reserved.get()),
    ];
    let mut description = format!("{} of {} {currency} spent, {} held", settled.text(), whole.text(), held.text());
    let mut scale = limit.amount.max(taken);
    if let Some(forecast) = forecast {
        let expected = amount(forecast.expected);
        let more = forecast.expected.get().saturating_sub(taken.get());
        parts.push(Part::new("expected", format!("expected {} {currency}", expected.text()), more));
        description.push_str(&format!(", {} expected at the end", expected.text()));
        // What is expected beyond the limit is seen, and the limit becomes a mark inside of the meter.
        scale = scale.max(forecast.expected);
    }
    let at_limit = match limit.at_limit {
        AtLimit::Hard => None,
        AtLimit::Soft => Some("soft: nothing is stopped".to_owned()),
        AtLimit::FinishThenStop { overrun_max } => Some(format!("what runs may finish within {} more", amount(overrun_max).text())),
    };
    Ok(LimitRow {
        subject: subject_text(&limit.subject, actor),
        id: limit.subject.clone(),
        window: match limit.window {
            BudgetWindow::Total => "in total",
            BudgetWindow::Day => "per day",
            BudgetWindow::Month => "per month",
        },
        settled,
        held,
        left: amount(budget.left()),
        limit: whole,
        resets: budget.ends_at.map(When),
        at_limit,
        forecast: forecast.as_ref().map(|forecast| forecast_row(forecast, limit.amount, currency)),
        meter: meter_with_mark(scale.get(), &parts, Some(limit.amount.get()).filter(|mark| *mark < scale.get()), &description),
    })
}

/// Every limit that binds the actor, the first hundred.
pub async fn rows(cloud: &Cloud, actor: &Actor, currency: Currency) -> Result<Vec<LimitRow>> {
    let limits = cloud.forecast_limits(actor, None).await?;
    limits.iter().map(|found| row(found, currency, actor)).collect()
}
