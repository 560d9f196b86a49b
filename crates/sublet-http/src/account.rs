//! Who the calling project key is, and what it can still spend.

use sublet_api::account::Account;
use sublet_api::object::AccountTag;
use sublet_cloud::data::Work;
use sublet_core::admission::{ModelAccess, Narrowing};
use sublet_core::{Error, Nanos, Result};

use crate::App;
use crate::answer::{Answer, json};
use crate::context::Context;
use crate::limit;
use crate::wire::money;

pub async fn get(app: App, context: Context) -> Result<Answer> {
    let actor = &context.actor;
    let (organization_id, project_id) = actor.project()?;
    let own = sublet_cloud::Actor { scope: sublet_core::Scope::Organization(organization_id.clone()), ..actor.clone() };
    let organization = app.cloud.get_organization(&own, organization_id).await?;
    let project = app.cloud.get_project(actor, project_id).await?;
    let key = app.cloud.get_own_key(actor).await?;
    let currency = organization.currency;
    let available = app.cloud.credit_balance(actor, organization_id).await?.funds.available;
    let limits = app.cloud.list_limits(actor, None).await?;
    // A limit on some requests does not bind the others.
    let binding = limits.iter().filter(|(limit, _)| Narrowing::parse(&limit.subject).1 == Narrowing::NONE);
    let spendable = binding.map(|(_, budget)| budget.room(Work::New)).fold(available.max(Nanos::ZERO), Nanos::min);
    json(&Account {
        object: AccountTag,
        organization: organization.id.clone(),
        organization_name: organization.name.clone(),
        class: organization.class,
        project: project.id.clone(),
        project_name: project.name,
        key: key.id.clone(),
        key_expires_at: key.expires_at.map(Into::into),
        models: match &key.models {
            ModelAccess::All => None,
            ModelAccess::Only(names) => Some(names.clone()),
        },
        rate_limits: key.rates.into(),
        currency,
        time_zone: organization.time_zone.clone(),
        credit_available: money(available, currency),
        limits: limits.iter().map(|(limit, budget)| limit::to_wire(limit, budget, currency)).collect::<Result<_, Error>>()?,
        spendable: money(spendable, currency),
    })
}
