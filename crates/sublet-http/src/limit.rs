//! Spend limits of the organization, its projects and their keys.

use sublet_api::limit as wire;
use sublet_api::object::{Deleted, SpendLimitTag};
use sublet_cloud::data::SpendLimit;
use sublet_cloud::data::{Budget, BudgetWindow};
use sublet_cloud::limit::{LimitSubject, LimitTarget};
use sublet_core::admission::Narrowing;
use sublet_core::id::{KeyId, ProjectId};
use sublet_core::rate::EndUsers;
use sublet_core::{Currency, Error, ErrorCode, Nanos, Result};

use crate::App;
use crate::answer::{Answer, json};
use crate::context::Context;
use crate::wire::money;

const fn window_to_wire(window: BudgetWindow) -> wire::LimitWindow {
    match window {
        BudgetWindow::Total => wire::LimitWindow::Total,
        BudgetWindow::Day => wire::LimitWindow::Day,
        BudgetWindow::Month => wire::LimitWindow::Month,
    }
}

pub fn to_wire(limit: &SpendLimit, budget: &Budget, currency: Currency) -> Result<wire::SpendLimit> {
    let LimitTarget { subject, requests } = LimitTarget::parse(&limit.subject)?;
    let (each_end_user, end_user) = end_user_fields(&requests.end_users);
    let owner = match subject {
        LimitSubject::Organization(id) => wire::LimitOwner::Organization(id),
        LimitSubject::Project(id) => wire::LimitOwner::Project(id),
        LimitSubject::Key(id) => wire::LimitOwner::Key(id),
    };
    Ok(wire::SpendLimit {
        object: SpendLimitTag,
        owner,
        window: window_to_wire(limit.window),
        model: requests.model.as_deref().map(str::to_owned),
        each_end_user,
        end_user,
        amount: money(limit.amount, currency),
        spent: money(budget.settled, currency),
        held: money(budget.reserved, currency),
        remaining: money(budget.left(), currency),
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
    let amount: Nanos = context.body::<wire::SetSpendLimit>()?.amount.0;
    let currency = currency(&app, &context).await?;
    let set = app.cloud.set_limit(&context.actor, target.clone(), window, amount).await?;
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
