//! Leases.

use sublet_api::lease as wire;
use sublet_api::object::{LeaseNoticeTag, LeaseTag};
use sublet_api::reclaim::DeclareCheckpoint;
use sublet_api::sku::SkuName;
use sublet_cloud::lease::LeaseStatement;
use sublet_cloud::lease_notice::{NoticeStatement, NoticeWait};
use sublet_core::id::LeaseId;
use sublet_core::lease::LeaseState;
use sublet_core::{DurationMs, Result};

use crate::App;
use crate::answer::{Answer, json, text_of};
use crate::context::{Context, once, page_answer, page_request};
use crate::sku::name_of;
use crate::wire::{count, metadata, money};

/// The stored states that are shown as `status`.
const fn states(status: wire::LeaseStatus) -> [&'static str; 2] {
    match status {
        wire::LeaseStatus::Active => ["pending", "active"],
        wire::LeaseStatus::Ending => ["ending"; 2],
        wire::LeaseStatus::Ended => ["ended"; 2],
    }
}

const fn status(state: LeaseState) -> wire::LeaseStatus {
    match state {
        LeaseState::Pending | LeaseState::Active => wire::LeaseStatus::Active,
        LeaseState::Ending { .. } => wire::LeaseStatus::Ending,
        LeaseState::Ended { .. } => wire::LeaseStatus::Ended,
    }
}

fn to_wire(statement: &LeaseStatement) -> Result<wire::Lease> {
    let lease = &statement.lease;
    Ok(wire::Lease {
        object: LeaseTag,
        id: lease.id.clone(),
        organization: lease.organization.clone(),
        project: lease.project.clone(),
        quote: lease.quote.clone(),
        status: status(lease.state),
        sku: SkuName(name_of(&lease.sku)),
        units: lease.units,
        notice: lease.notice,
        devices: lease.devices.clone(),
        price: money(lease.price, lease.currency),
        price_version: lease.price_version.clone(),
        maximum_cost: lease.max_cost.map(|most| money(most, lease.currency)),
        maximum_price: lease.max_price.map(|most| money(most, lease.currency)),
        cost: money(lease.cost, lease.currency),
        held: money(statement.held, lease.currency),
        made_good: statement.made_good.map(|amount| money(amount, lease.currency)),
        early_credit: statement.early_credit.map(|amount| money(amount, lease.currency)),
        starts_at: lease.starts_at.into(),
        ends_at: lease.ends_at.map(Into::into),
        ended_at: lease.ended_at.map(Into::into),
        end_reason: lease.state.reason().map(|reason| reason.explanation().to_owned()),
        generation: count(lease.generation)?,
        created_at: lease.created_at.into(),
        metadata: metadata(&lease.metadata)?,
    })
}

pub async fn create(app: App, context: Context) -> Result<Answer> {
    let body: wire::CreateLease = context.body()?;
    let pairs = body.metadata.pairs();
    let outcome =
        app.compute.accept_quote(&context.call()?, &body.quote, pairs, &|statement| text_of(&to_wire(statement)?)).await?;
    once(outcome, |statement| to_wire(statement).ok())
}

pub async fn get(app: App, context: Context) -> Result<Answer> {
    let id: LeaseId = context.path("id")?;
    json(&to_wire(&app.compute.get_lease(&context.actor, &id).await?)?)
}

/// Leases of the caller's scope: a project's own, or all for the operator.
pub async fn list(app: App, context: Context) -> Result<Answer> {
    let query: wire::LeaseListQuery = context.query()?;
    let asked = query.page();
    let wanted = query.status.map(states);
    let page = app.compute.list_leases(&context.actor, wanted, &page_request(&asked)?).await?;
    let items = page.items.iter().map(to_wire).collect::<Result<Vec<_>>>()?;
    page_answer(&asked, sublet_cloud::data::Page { items, has_more: page.has_more }, |wire| wire, |wire| wire.id.to_string())
}

/// Answers at once if there is a notice that the caller has not seen, or the lease has ended.
pub async fn notice(app: App, context: Context) -> Result<Answer> {
    let id: LeaseId = context.path("id")?;
    let query: wire::LeaseNoticeQuery = context.query()?;
    let wait = DurationMs::from_seconds(query.wait_s.unwrap_or(0).into());
    let asked = NoticeWait { wait, after: query.after_generation.unwrap_or(0) };
    let NoticeStatement { lease, generation, reason, told_at, deadline } =
        app.compute.lease_notice(&context.actor, &id, asked).await?;
    json(&wire::LeaseNotice {
        object: LeaseNoticeTag,
        lease: lease.id,
        project: lease.project,
        status: status(lease.state),
        generation,
        reason: reason.map(|reason| reason.to_string()),
        end_reason: reason.map(|reason| reason.explanation().to_owned()),
        told_at: told_at.map(Into::into),
        deadline: deadline.map(Into::into),
    })
}

pub async fn cancel(app: App, context: Context) -> Result<Answer> {
    let id: LeaseId = context.path("id")?;
    let generation = context.generation()?;
    json(&to_wire(&app.compute.end_lease(&context.actor, &id, generation).await?)?)
}

pub async fn checkpoint(app: App, context: Context) -> Result<Answer> {
    let id: LeaseId = context.path("id")?;
    let body: DeclareCheckpoint = context.body()?;
    json(&to_wire(&app.compute.declare_checkpoint(&context.actor, &id, body.at.map(|at| at.0)).await?)?)
}

pub async fn give_back(app: App, context: Context) -> Result<Answer> {
    let id: LeaseId = context.path("id")?;
    json(&to_wire(&app.compute.yield_lease(&context.actor, &id).await?)?)
}

#[cfg(test)]
mod tests {
    use sublet_core::Timestamp;
    use sublet_core::lease::EndReason;

    use super::*;

    #[test]
    fn a_lease_is_found_by_the_word_that_it_is_shown_with_and_by_no_other() {
        let (reason, deadline) = (EndReason::Reclaimed, Timestamp::from_micros(0));
        let all = [LeaseState::Pending, LeaseState::Active, LeaseState::Ending { reason, deadline }, LeaseState::Ended { reason }];
        for state in all {
            for word in [wire::LeaseStatus::Active, wire::LeaseStatus::Ending, wire::LeaseStatus::Ended] {
                assert_eq!(states(word).contains(&state.as_str()), status(state) == word, "{state:?} {word:?}");
            }
        }
        let refused = sublet_api::parse_query::<wire::LeaseListQuery>("status=pending").unwrap_err().to_string();
        assert!(["active", "ending", "ended"].iter().all(|word| refused.contains(word)), "{refused}");
    }
}
