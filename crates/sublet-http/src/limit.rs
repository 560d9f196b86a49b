//! Spend limits of the organization, its projects and their keys.

use sublet_api::limit as wire;
use sublet_api::list::ListQuery;
use sublet_api::object::{Deleted, SpendAlertTag, SpendForecastTag, SpendLimitTag};
use sublet_cloud::data::{
    AlertBasis, AlertRule, AtLimit, Budget, BudgetWindow, Forecast, ForecastMethod, Page, SpendAlert, SpendLimit,
};
use sublet_cloud::forecast::{FORECASTS_MAX, LimitForecast};
use sublet_cloud::limit::{LimitChange, LimitSubject, LimitTarget};
use sublet_core::admission::Narrowing;
use sublet_core::id::{KeyId, ProjectId};
use sublet_core::rate::EndUsers;
use sublet_core::{Currency, Error, ErrorCode, Result};

use crate::App;
use crate::answer::{Answer, json};
use crate::context::{Context, page_answer, page_request};
use crate::wire::money;

const fn window_to_wire(window: BudgetWindow) -> wire::LimitWindow {
    match window {
        BudgetWindow::Total => wire::LimitWindow::Total,
        BudgetWindow::Day => wire::LimitWindow::Day,
        BudgetWindow::Month => wire::LimitWindow::Month,
    }
}

const fn at_limit_to_wire(at_limit: AtLimit) -> wire::AtLimit {
    match at_limit {
        AtLimit::Hard => wire::AtLimit::Hard,
        AtLimit::Soft => wire::AtLimit::Soft,
        AtLimit::FinishThenStop { .. } => wire::AtLimit::FinishThenStop,
    }
}

const fn basis_to_wire(basis: AlertBasis) -> wire::AlertBasis {
    match basis {
        AlertBasis::Actual => wire::AlertBasis::Actual,
        AlertBasis::Forecast => wire::AlertBasis::Forecast,
    }
}

fn rule_from_wire(rule: &wire::AlertRule) -> AlertRule {
    let basis = match rule.on {
        wire::AlertBasis::Actual => AlertBasis::Actual,
        wire::AlertBasis::Forecast => AlertBasis::Forecast,
    };
    AlertRule { basis, percent: rule.percent }
}

fn owner_to_wire(subject: LimitSubject) -> wire::LimitOwner {
    match subject {
        LimitSubject::Organization(id) => wire::LimitOwner::Organization(id),
        LimitSubject::Project(id) => wire::LimitOwner::Project(id),
        LimitSubject::Key(id) => wire::LimitOwner::Key(id),
    }
}

/// What the body asks for. The two parts of `finish_then_stop` come together.
fn change(body: &wire::SetSpendLimit) -> Result<LimitChange> {
    let at_limit = match (body.at_limit, body.overrun_max) {
        (Some(wire::AtLimit::FinishThenStop), Some(overrun_max)) => Some(AtLimit::FinishThenStop { overrun_max: overrun_max.0 }),
        (Some(wire::AtLimit::FinishThenStop), None) => {
            return Err(
                Error::new(ErrorCode::InvalidRequest, "say what finishing may cost beyond the limit at most").param("overrun_max")
            );
        }
        (_, Some(_)) => {
            return Err(Error::new(ErrorCode::InvalidRequest, "only a limit that is 'finish_then_stop' has an overrun")
                .param("overrun_max")
                .alternative("set 'at_limit' to 'finish_then_stop'"));
        }
        (Some(wire::AtLimit::Hard), None) => Some(AtLimit::Hard),
        (Some(wire::AtLimit::Soft), None) => Some(AtLimit::Soft),
        (None, None) => None,
    };
    let alerts = body.alerts.as_ref().map(|alerts| alerts.iter().map(rule_from_wire).collect());
    Ok(LimitChange { amount: body.amount.0, at_limit, alerts })
}

pub fn to_wire(limit: &SpendLimit, budget: &Budget, currency: Currency) -> Result<wire::SpendLimit> {
    let LimitTarget { subject, requests } = LimitTarget::parse(&limit.subject)?;
    let (each_end_user, end_user) = end_user_fields(&requests.end_users);
    let overrun_max = match limit.at_limit {
        AtLimit::Hard | AtLimit::Soft => None,
        AtLimit::FinishThenStop { overrun_max } => Some(money(overrun_max, currency)),
    };
    let alert = |rule: &AlertRule| wire::AlertRule { on: basis_to_wire(rule.basis), percent: rule.percent };
    Ok(wire::SpendLimit {
        object: SpendLimitTag,
        owner: owner_to_wire(subject),
        window: window_to_wire(limit.window),
        model: requests.model.as_deref().map(str::to_owned),
        each_end_user,
        end_user,
        amount: money(limit.amount, currency),
        at_limit: at_limit_to_wire(limit.at_limit),
        overrun_max,
        alerts: limit.alerts.iter().map(alert).collect(),
        spent: money(budget.settled, currency),
        held: money(budget.reserved, currency),
        remaining: money(budget.left(), currency),
        reached_at: budget.reached_at.map(Into::into),
        resets_at: budget.ends_at.map(Into::into),
        created_at: limit.created_at.into(),
    })
}

/// The narrowest thing the path names: a key, a project, or the organization.
fn subject(context: &Context) -> Result<LimitSubject> {
    if context.path_text("key").is_ok() {
        return context.path::<KeyId>("key").map(LimitSubject::Key);
    }
    if context.path_text("id").is_ok() {
        return context.path::<ProjectId>("id").map(LimitSubject::Project);
    }
    Ok(LimitSubject::Organization(context.actor.organization()?.clone()))
}

/// A key is named below its own project and nowhere else.
async fn checked_subject(app: &App, context: &Context) -> Result<LimitSubject> {
    let subject = subject(context)?;
    if let LimitSubject::Key(key) = &subject {
        let project: ProjectId = context.path("id")?;
        app.cloud.get_project_key(&context.actor, &project, key).await?;
    }
    Ok(subject)
}

/// The two fields that say whose requests are limited: `each_end_user` and `end_user`.
pub fn end_user_fields(end_users: &EndUsers) -> (bool, Option<String>) {
    match end_users {
        EndUsers::All => (false, None),
        EndUsers::Each => (true, None),
        EndUsers::One(name) => (false, Some(name.to_string())),
    }
}

/// Which requests the two fields mean.
pub fn end_users(each: bool, one: Option<String>) -> Result<EndUsers> {
    match (each, one) {
        (false, None) => Ok(EndUsers::All),
        (true, None) => Ok(EndUsers::Each),
        (false, Some(name)) => Ok(EndUsers::One(name.into())),
        (true, Some(_)) => Err(Error::new(ErrorCode::InvalidRequest, "a limit is on each end user or on one of them")
            .param("end_user")
            .alternative("leave 'each_end_user' out")
            .alternative("leave 'end_user' out")),
    }
}

async fn checked_target(app: &App, context: &Context) -> Result<LimitTarget> {
    let subject = checked_subject(app, context).await?;
    let wire::LimitQuery { model, each_end_user, end_user } = context.query()?;
    let end_users = end_users(each_end_user.unwrap_or_default(), end_user)?;
    Ok(LimitTarget { subject, requests: Narrowing { model: model.map(Into::into), end_users } })
}

async fn currency(app: &App, context: &Context) -> Result<Currency> {
    Ok(app.cloud.get_organization(&context.actor, context.actor.organization()?).await?.currency)
}

pub async fn list(app: App, context: Context) -> Result<Answer> {
    let subject = checked_subject(&app, &context).await?;
    let currency = currency(&app, &context).await?;
    let limits = app.cloud.list_limits(&context.actor, Some(&subject)).await?;
    let data = limits.iter().map(|(limit, budget)| to_wire(limit, budget, currency)).collect::<Result<_>>()?;
    json(&sublet_api::List::whole(data))
}

pub async fn set(app: App, context: Context) -> Result<Answer> {
    let target = checked_target(&app, &context).await?;
    let window: BudgetWindow = context.path("window")?;
    let change = change(&context.body::<wire::SetSpendLimit>()?)?;
    let currency = currency(&app, &context).await?;
    let set = app.cloud.set_limit(&context.actor, target.clone(), window, change).await?;
    let limits = app.cloud.list_limits(&context.actor, Some(&target.subject)).await?;
    let (limit, budget) = limits
        .iter()
        .find(|(limit, _)| limit.window == window && limit.subject == set.subject)
        .ok_or_else(|| Error::new(ErrorCode::Conflict, "the limit was removed at the same time"))?;
    json(&to_wire(limit, budget, currency)?)
}

pub async fn delete(app: App, context: Context) -> Result<Answer> {
    let target = checked_target(&app, &context).await?;
    let window: BudgetWindow = context.path("window")?;
    let name = format!("{}/{}", target.name(), window.as_str());
    app.cloud.remove_limit(&context.actor, target, window).await?;
    json(&Deleted::new("spend_limit", name))
}

const fn method_to_wire(method: ForecastMethod) -> wire::ForecastMethod {
    match method {
        ForecastMethod::WeeklyProfile => wire::ForecastMethod::WeeklyProfile,
        ForecastMethod::RunRate => wire::ForecastMethod::RunRate,
    }
}

fn forecast_to_wire(foreseen: &LimitForecast, currency: Currency) -> Result<wire::SpendForecast> {
    let band = |forecast: Forecast| wire::ForecastBand {
        low: money(forecast.low, currency),
        expected: money(forecast.expected, currency),
        high: money(forecast.high, currency),
        method: method_to_wire(forecast.method),
    };
    let limit = to_wire(&foreseen.limit, &foreseen.budget, currency)?;
    Ok(wire::SpendForecast { object: SpendForecastTag, limit, forecast: foreseen.forecast.map(band) })
}

pub async fn list_forecasts(app: App, context: Context) -> Result<Answer> {
    let currency = currency(&app, &context).await?;
    let forecasts = app.cloud.forecast_limits(&context.actor, None).await?;
    let data: Vec<_> = forecasts.iter().map(|foreseen| forecast_to_wire(foreseen, currency)).collect::<Result<_>>()?;
    let has_more = data.len() == FORECASTS_MAX;
    json(&sublet_api::List { has_more, ..sublet_api::List::whole(data) })
}

fn alert_to_wire(alert: &SpendAlert, currency: Currency) -> Result<wire::SpendAlert> {
    let LimitTarget { subject, requests } = LimitTarget::parse(&alert.budget.subject)?;
    let (_, end_user) = end_user_fields(&requests.end_users);
    Ok(wire::SpendAlert {
        object: SpendAlertTag,
        id: alert.id.clone(),
        owner: owner_to_wire(subject),
        window: window_to_wire(alert.budget.window),
        model: requests.model.as_deref().map(str::to_owned),
        end_user,
        starts_at: alert.ends_at.map(|_| alert.budget.starts_at.into()),
        ends_at: alert.ends_at.map(Into::into),
        on: basis_to_wire(alert.rule.basis),
        percent: alert.rule.percent,
        refused: alert.is_refusal(),
        amount: money(alert.amount, currency),
        spent: money(alert.settled, currency),
        held: money(alert.reserved, currency),
        forecast: alert.forecast.map(|forecast| money(forecast, currency)),
        created_at: alert.created_at.into(),
    })
}

pub async fn list_alerts(app: App, context: Context) -> Result<Answer> {
    let currency = currency(&app, &context).await?;
    let asked = context.query::<ListQuery>()?.page();
    let page = app.cloud.list_spend_alerts(&context.actor, &page_request(&asked)?).await?;
    let items = page.items.iter().map(|alert| alert_to_wire(alert, currency)).collect::<Result<_>>()?;
    page_answer(&asked, Page { items, has_more: page.has_more }, |wire| wire, |wire: &wire::SpendAlert| wire.id.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use sublet_cloud::data::BudgetRef;
    use sublet_cloud::webhook::alert_data;
    use sublet_core::{Nanos, Timestamp};

    #[test]
    fn an_alert_is_posted_as_it_is_listed() {
        let narrowed = Narrowing { model: Some("m".into()), end_users: EndUsers::One("u".into()) };
        let at = |micros: i64| Timestamp::from_micros(1_773_600_000_000_000 + micros);
        for (subject, window, ends_at) in [
            ("proj_1".to_owned(), BudgetWindow::Month, Some(at(86_400_000_000))),
            ("org_1".to_owned(), BudgetWindow::Total, None),
            (narrowed.name("key_1"), BudgetWindow::Day, Some(at(1))),
        ] {
            for (basis, forecast) in [(AlertBasis::Actual, None), (AlertBasis::Forecast, Some(Nanos::new(1_500_000_001)))] {
                let alert = SpendAlert {
                    id: "alert_1".parse().expect("an id"),
                    organization: "org_1".parse().expect("an id"),
                    budget: BudgetRef { subject: subject.clone(), window, starts_at: at(0) },
                    ends_at,
                    rule: AlertRule { basis, percent: 80 },
                    amount: Nanos::new(2_000_000_000),
                    settled: Nanos::new(7),
                    reserved: Nanos::ZERO,
                    forecast,
                    created_at: at(1_500_000),
                };
                let listed = serde_json::to_value(alert_to_wire(&alert, Currency::EUR).expect("an alert")).expect("JSON");
                assert_eq!(alert_data(&alert, Currency::EUR).expect("an alert"), listed);
            }
        }
    }
}
