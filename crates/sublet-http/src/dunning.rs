//! What is overdue, and what follows from it.

use sublet_api::dunning as wire;
use sublet_api::object::{DunningPolicyTag, DunningTag};
use sublet_cloud::data::{DunningPolicy, OnSuspension};
use sublet_cloud::dunning::{DunnedInvoice, Dunning};
use sublet_core::id::{InvoiceId, OrganizationId};
use sublet_core::{Currency, Nanos, Result};

use crate::App;
use crate::answer::{Answer, json};
use crate::context::Context;
use crate::wire::money;

fn policy_from_wire(days: wire::DunningDays) -> DunningPolicy {
    DunningPolicy { reminders: days.reminders, suspend_after: days.suspend_after }
}

fn days_to_wire(policy: DunningPolicy) -> wire::DunningDays {
    wire::DunningDays { reminders: policy.reminders, suspend_after: policy.suspend_after }
}

fn invoice_to_wire(debt: &DunnedInvoice, currency: Currency) -> wire::DunnedInvoice {
    wire::DunnedInvoice {
        invoice: debt.invoice.clone(),
        number: debt.number.clone(),
        due_on: debt.due_on.to_string(),
        due: money(debt.due, currency),
        reminded_after: debt.reminded.map(|reminded| reminded.after_days),
        reminded_on: debt.reminded.map(|reminded| reminded.on.to_string()),
        paused: debt.paused.clone(),
    }
}

fn to_wire(dunning: Dunning) -> Result<wire::Dunning> {
    let overdue = Nanos::checked_sum(dunning.overdue().map(|debt| debt.due))?;
    Ok(wire::Dunning {
        object: DunningTag,
        suspended_at: dunning.account.suspended_at.map(Into::into),
        on_suspension: match dunning.account.on_suspension {
            OnSuspension::Finish => wire::OnSuspension::Finish,
            OnSuspension::Stop => wire::OnSuspension::Stop,
        },
        overdue: money(overdue, dunning.currency),
        paused: dunning.account.paused,
        own_policy: dunning.account.policy.is_some(),
        policy: days_to_wire(dunning.policy),
        invoices: dunning.debts.iter().map(|debt| invoice_to_wire(debt, dunning.currency)).collect(),
        organization: dunning.organization,
    })
}

pub async fn get_own(app: App, context: Context) -> Result<Answer> {
    json(&to_wire(app.cloud.dunning(&context.actor, context.actor.organization()?).await?)?)
}

pub async fn get(app: App, context: Context) -> Result<Answer> {
    let id: OrganizationId = context.path("id")?;
    json(&to_wire(app.cloud.dunning(&context.actor, &id).await?)?)
}

pub async fn set_on_suspension(app: App, context: Context) -> Result<Answer> {
    let body: wire::SetOnSuspension = context.body()?;
    let choice = match body.on_suspension {
        wire::OnSuspension::Finish => OnSuspension::Finish,
        wire::OnSuspension::Stop => OnSuspension::Stop,
    };
    json(&to_wire(app.cloud.set_on_suspension(&context.actor, choice).await?)?)
}

pub async fn set(app: App, context: Context) -> Result<Answer> {
    let id: OrganizationId = context.path("id")?;
    let body: wire::SetDunning = context.body()?;
    let policy = body.policy.map(policy_from_wire);
    json(&to_wire(app.cloud.set_dunning(&context.actor, &id, (policy.as_ref(), body.paused.as_ref())).await?)?)
}

pub async fn pause_invoice(app: App, context: Context) -> Result<Answer> {
    let id: InvoiceId = context.path("id")?;
    let body: wire::PauseInvoice = context.body()?;
    json(&to_wire(app.cloud.pause_invoice(&context.actor, &id, body.paused.as_ref()).await?)?)
}

pub async fn get_policy(app: App, context: Context) -> Result<Answer> {
    let policy = app.cloud.dunning_policy(&context.actor).await?;
    json(&wire::DunningPolicy { object: DunningPolicyTag, days: days_to_wire(policy) })
}

pub async fn set_policy(app: App, context: Context) -> Result<Answer> {
    let policy = policy_from_wire(context.body()?);
    app.cloud.set_dunning_policy(&context.actor, &policy).await?;
    json(&wire::DunningPolicy { object: DunningPolicyTag, days: days_to_wire(policy) })
}
