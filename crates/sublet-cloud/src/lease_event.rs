//! What is posted of leases: that one was told that it ends, and that it has ended.
//!
//! A notice is an event of its own for each deadline that a lease is told, in the transaction that tells it. A lease that its
//! holder ends, or that ends with its job, was not told anything: of it only the end is posted.

use serde_json::{Value, json};
use sublet_core::lease::EndReason;
use sublet_core::{Nanos, Result, Scope, Timestamp};
use sublet_store::Tx;
use sublet_store::compensation::{self, LeaseNotice};
use sublet_store::lease::Lease;
use sublet_store::webhook::WebhookEvent;

use crate::Cloud;
use crate::early_credit::is_holders;
use crate::lease::state_in;
use crate::webhook::Event;

impl Cloud {
    /// Keeps what the holder of a lease is told of its end, and has it posted.
    pub(crate) async fn note_told(&self, tx: &mut Tx, lease: &Lease, notice: &LeaseNotice) -> Result<()> {
        compensation::insert_notice(tx, &lease.id, notice).await?;
        if is_holders(notice.reason) {
            return Ok(());
        }
        let kind = WebhookEvent::LeaseNotice;
        let endpoints = self.endpoints_for(tx, &lease.organization, kind).await?;
        if endpoints.is_empty() {
            return Ok(());
        }
        let generation = compensation::list_notices(tx, &Scope::Operator, &lease.id).await?.len();
        let key = format!("{}:{}:{generation}", kind.as_str(), lease.id);
        let data = notice_data(lease, notice, generation);
        self.queue_for(tx, &endpoints, &Event { key, kind: kind.as_str(), data, at: self.now() }).await
    }

    /// Has it posted that a lease has ended. The caller has given back what is given back of it.
    pub(crate) async fn queue_lease_ended(&self, tx: &mut Tx, ended: &Lease, now: Timestamp) -> Result<()> {
        let kind = WebhookEvent::LeaseEnded;
        let endpoints = self.endpoints_for(tx, &ended.organization, kind).await?;
        if endpoints.is_empty() {
            return Ok(());
        }
        let statement = state_in(tx, ended.clone()).await?;
        let money = |amount: Nanos| json!({ "amount": amount.to_string(), "currency": ended.currency.as_str() });
        let reason = ended.state.reason();
        let data = json!({
            "object": "lease",
            "id": ended.id,
            "project": ended.project,
            "status": ended.state.as_str(),
            "sku": ended.sku.to_string(),
            "units": ended.units,
            "notice": ended.notice,
            "cost": money(ended.cost),
            "made_good": statement.made_good.map(money),
            "early_credit": statement.early_credit.map(money),
            "starts_at": ended.starts_at.to_string(),
            "ended_at": ended.ended_at.map(|at| at.to_string()),
            "reason": reason.map(EndReason::as_str),
            "end_reason": reason.map(EndReason::explanation),
        });
        let event = Event { key: format!("{}:{}", kind.as_str(), ended.id), kind: kind.as_str(), data, at: now };
        self.queue_for(tx, &endpoints, &event).await
    }
}

/// What a lease was told, as the API has it.
fn notice_data(lease: &Lease, notice: &LeaseNotice, generation: usize) -> Value {
    json!({
        "object": "lease.notice",
        "lease": lease.id,
        "project": lease.project,
        "status": "ending",
        "generation": generation,
        "reason": notice.reason.as_str(),
        "end_reason": notice.reason.explanation(),
        "told_at": notice.told_at.to_string(),
        "deadline": notice.deadline.to_string(),
    })
}
