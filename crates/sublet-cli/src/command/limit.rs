//! `sublet billing limits`, and what they tell: `sublet billing forecast` and `sublet billing alerts`.

use clap::{Args, Subcommand};
use sublet_api::client::{Client, KeyPath, LimitPath};
use sublet_api::limit::{
    AlertBasis, AlertRule, AtLimit, LimitOwner, LimitQuery, LimitWindow, SetSpendLimit, SpendAlert, SpendForecast, SpendLimit,
};
use sublet_api::list::ListQuery;
use sublet_api::money::Amount;
use sublet_core::error::{Error, ErrorCode, Result};
use sublet_core::id::{KeyId, ProjectId};
use sublet_core::money::Currency;

use super::key::project_or_own;
use super::{PageArgs, show_page};
use crate::Context;
use crate::render::{self, Cell, Table};
use crate::value::{MoneyArgument, word};

/// Spend limits; all that apply do apply.
#[derive(Subcommand, Debug)]
pub enum LimitCommand {
    /// List limits and what is left of them
    List {
        #[command(flatten)]
        owner: OwnerArgs,
    },
    /// Set a limit, or change it; what is not said stays as it was
    Set {
        #[command(flatten)]
        owner: OwnerArgs,
        /// total, day or month
        #[arg(value_parser = word::<LimitWindow>)]
        window: LimitWindow,
        /// Such as 20 or "20 EUR"
        amount: MoneyArgument,
        #[command(flatten)]
        requests: RequestArgs,
        #[command(flatten)]
        terms: TermArgs,
    },
    /// Remove a limit
    Remove {
        #[command(flatten)]
        owner: OwnerArgs,
        /// total, day or month
        #[arg(value_parser = word::<LimitWindow>)]
        window: LimitWindow,
        #[command(flatten)]
        requests: RequestArgs,
    },
}

/// Whose limit; the organization's if nothing is said.
#[derive(Args, Debug)]
pub struct OwnerArgs {
    /// A project's limit
    #[arg(long)]
    pub project: Option<ProjectId>,
    /// A key's limit
    #[arg(long)]
    pub of_key: Option<KeyId>,
}

/// On which requests; on all if nothing is said.
#[derive(Args, Debug)]
pub struct RequestArgs {
    /// Those for this model
    #[arg(long)]
    pub model: Option<String>,
    /// Those of each end user, who has the limit for himself
    #[arg(long, conflicts_with = "end_user")]
    pub each_end_user: bool,
    /// Those of this end user
    #[arg(long)]
    pub end_user: Option<String>,
}

/// What happens at the limit, and before.
#[derive(Args, Debug)]
pub struct TermArgs {
    /// What happens when it is reached: hard stops at the last token that is paid for, soft stops nothing,
    /// finish_then_stop refuses new work and lets admitted work finish
    #[arg(long, value_name = "hard|soft|finish_then_stop", value_parser = word::<AtLimit>)]
    at_limit: Option<AtLimit>,
    /// With finish_then_stop: what finishing may cost beyond the limit at most, such as 5
    #[arg(long, value_name = "AMOUNT")]
    overrun_max: Option<MoneyArgument>,
    /// Tell when so many percent are spent; may be repeated. The alerts given replace those of before
    #[arg(long, value_name = "PERCENT")]
    alert: Vec<u16>,
    /// Tell when so many percent are expected at the end of the window; may be repeated
    #[arg(long, value_name = "PERCENT")]
    forecast_alert: Vec<u16>,
    /// Tell nothing any more
    #[arg(long, conflicts_with_all = ["alert", "forecast_alert"])]
    no_alerts: bool,
}

impl TermArgs {
    fn body(self, amount: Amount, currency: Currency) -> Result<SetSpendLimit> {
        let rule = |on: AlertBasis| move |percent: u16| AlertRule { on, percent };
        let actual = self.alert.into_iter().map(rule(AlertBasis::Actual));
        let alerts: Vec<AlertRule> = actual.chain(self.forecast_alert.into_iter().map(rule(AlertBasis::Forecast))).collect();
        let overrun_max = self.overrun_max.map(|overrun| overrun.in_currency(currency)).transpose()?;
        if overrun_max.is_some() != (self.at_limit == Some(AtLimit::FinishThenStop)) {
            return Err(Error::new(ErrorCode::Usage, "--overrun-max and --at-limit finish_then_stop are said together"));
        }
        Ok(SetSpendLimit {
            amount,
            at_limit: self.at_limit,
            overrun_max: overrun_max.map(|overrun| Amount(overrun.nanos())),
            alerts: (self.no_alerts || !alerts.is_empty()).then_some(alerts),
        })
    }
}

impl RequestArgs {
    fn query(self) -> LimitQuery {
        let Self { model, each_end_user, end_user } = self;
        LimitQuery { model, each_end_user: each_end_user.then_some(true), end_user }
    }
}

impl OwnerArgs {
    fn path(self, client: &Client) -> Result<LimitPath> {
        Ok(match (self.project, self.of_key) {
            (project, Some(key)) => LimitPath::Key(KeyPath { project: project_or_own(project, client)?, key }),
            (Some(project), None) => LimitPath::Project(project),
            (None, None) => LimitPath::Organization,
        })
    }
}

impl LimitCommand {
    pub(super) fn run(self, context: &mut Context<'_>) -> Result<()> {
        let client = context.client()?;
        match self {
            Self::List { owner } => {
                let list = client.limits(&owner.path(&client)?)?;
                show_page(context, &list, table)
            }
            Self::Set { owner, window, amount, requests, terms } => {
                let currency = client.own_organization()?.currency;
                let body = terms.body(Amount(amount.in_currency(currency)?.nanos()), currency)?;
                let limit = client.set_limit(&owner.path(&client)?, window, &requests.query(), &body)?;
                context.show(&limit, |limit| table(std::slice::from_ref(limit)))
            }
            Self::Remove { owner, window, requests } => {
                let removed = client.remove_limit(&owner.path(&client)?, window, &requests.query())?;
                context.show_text(&removed, |_, _| format!("removed the {} limit\n", window.as_str()))
            }
        }
    }
}

/// `sublet billing forecast`.
pub fn forecast(context: &mut Context<'_>) -> Result<()> {
    let list = context.client()?.spend_forecasts()?;
    show_page(context, &list, forecasts)
}

/// `sublet billing alerts`.
pub fn alerts(context: &mut Context<'_>, page: PageArgs) -> Result<()> {
    let order = page.order();
    let list = context.client()?.spend_alerts(&ListQuery { limit: page.limit, after: page.after, before: None, order })?;
    show_page(context, &list, alert_table)
}

fn requests(model: Option<&str>, end_user: Option<&str>, each_end_user: bool) -> String {
    let users = match (end_user, each_end_user) {
        (Some(name), _) => Some(format!("of {name}")),
        (None, true) => Some("of each end user".to_owned()),
        (None, false) => None,
    };
    let parts: Vec<String> = model.iter().map(|model| format!("for {model}")).chain(users).collect();
    if parts.is_empty() { "all".to_owned() } else { parts.join(" ") }
}

fn requests_of(limit: &SpendLimit) -> String {
    requests(limit.model.as_deref(), limit.end_user.as_deref(), limit.each_end_user)
}

fn owner_text(owner: &LimitOwner) -> String {
    match owner {
        LimitOwner::Organization(id) => id.to_string(),
        LimitOwner::Project(id) => id.to_string(),
        LimitOwner::Key(id) => id.to_string(),
    }
}

fn at_limit(limit: &SpendLimit) -> String {
    match &limit.overrun_max {
        Some(overrun) => format!("{} within {} more", limit.at_limit.as_str(), render::money(overrun)),
        None => limit.at_limit.as_str().to_owned(),
    }
}

fn thresholds(limit: &SpendLimit) -> String {
    let text = |rule: &AlertRule| match rule.on {
        AlertBasis::Actual => format!("{}%", rule.percent),
        AlertBasis::Forecast => format!("forecast {}%", rule.percent),
    };
    limit.alerts.iter().map(text).collect::<Vec<_>>().join(", ")
}

fn table(limits: &[SpendLimit]) -> Table {
    let rows = limits.iter().map(|limit| {
        [
            Cell::text(owner_text(&limit.owner)),
            Cell::text(requests_of(limit)),
            Cell::text(limit.window.as_str()),
            Cell::number(render::money(&limit.amount)),
            Cell::number(render::money(&limit.spent)),
            Cell::number(render::money(&limit.held)),
            Cell::number(render::money(&limit.remaining)),
            Cell::text(render::rfc3339(limit.resets_at)),
            Cell::text(at_limit(limit)),
            Cell::text(thresholds(limit)),
        ]
    });
    Table::new(
        ["of", "requests", "window", "limit", "spent", "set aside", "left", "resets", "at limit", "alerts"],
        "no limits here; the credit alone bounds spending",
    )
    .rows(rows)
}

fn forecasts(forecasts: &[SpendForecast]) -> Table {
    let rows = forecasts.iter().map(|SpendForecast { limit, forecast, .. }| {
        let money = |pick: fn(&sublet_api::limit::ForecastBand) -> &sublet_api::money::Money| {
            Cell::number(forecast.as_ref().map_or_else(String::new, |band| render::money(pick(band))))
        };
        let method = match forecast {
            Some(band) => band.method.as_str(),
            None if limit.window == LimitWindow::Total => "no end",
            None => "not enough data",
        };
        [
            Cell::text(owner_text(&limit.owner)),
            Cell::text(requests_of(limit)),
            Cell::text(limit.window.as_str()),
            Cell::number(render::money(&limit.amount)),
            Cell::number(render::money(&limit.spent)),
            money(|band| &band.low),
            money(|band| &band.expected),
            money(|band| &band.high),
            Cell::text(method),
            Cell::text(render::rfc3339(limit.resets_at)),
        ]
    });
    let columns = ["of", "requests", "window", "limit", "spent", "low", "expected", "high", "method", "at"];
    Table::new(columns, "no limits here: set one, hard or soft, to see what it will stand at").rows(rows)
}

fn alert_table(alerts: &[SpendAlert]) -> Table {
    let rows = alerts.iter().map(|alert| {
        [
            Cell::text(alert.id.as_str()),
            Cell::text(render::instant(alert.created_at.0)),
            Cell::text(owner_text(&alert.owner)),
            Cell::text(requests(alert.model.as_deref(), alert.end_user.as_deref(), false)),
            Cell::text(alert.window.as_str()),
            Cell::text(match alert.refused {
                true => "refused".to_owned(),
                false => format!("{} {}%", alert.on.as_str(), alert.percent),
            }),
            Cell::number(render::money(&alert.amount)),
            Cell::number(render::money(&alert.spent)),
            Cell::number(alert.forecast.as_ref().map_or_else(String::new, render::money)),
        ]
    });
    Table::new(["alert", "told", "of", "requests", "window", "at", "limit", "spent", "forecast"], "no limit has told anything")
        .rows(rows)
}
