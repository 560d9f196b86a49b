//! What Stripe paid out, and what it holds.

use sublet_api::list::ListQuery;
use sublet_api::object::{PayoutTag, ProcessorFundsTag};
use sublet_api::payout as wire;
use sublet_cloud::data::Payout;
use sublet_cloud::payout::HeldFunds;
use sublet_core::Result;
use sublet_core::payment::PayoutState;

use crate::App;
use crate::answer::{Answer, json};
use crate::context::{Context, page_answer, page_request};
use crate::wire::money;

const fn status(state: PayoutState) -> wire::PayoutStatus {
    match state {
        PayoutState::Pending => wire::PayoutStatus::Pending,
        PayoutState::Paid => wire::PayoutStatus::Paid,
        PayoutState::Failed => wire::PayoutStatus::Failed,
        PayoutState::Cancelled => wire::PayoutStatus::Cancelled,
    }
}

fn to_wire(payout: Payout) -> wire::Payout {
    wire::Payout {
        object: PayoutTag,
        id: payout.id,
        transaction_id: payout.name,
        amount: money(payout.amount, payout.currency),
        status: status(payout.state),
        reason: payout.reason,
        made_at: payout.made_at.into(),
        posted_at: payout.posted_at.map(Into::into),
        returned_at: payout.returned_at.map(Into::into),
    }
}

fn funds_to_wire(funds: &HeldFunds) -> Result<wire::HeldFunds> {
    let sum = |amount| money(amount, funds.currency);
    Ok(wire::HeldFunds {
        collected: sum(funds.collected),
        fees: sum(funds.fees),
        paid_out: sum(funds.paid_out),
        held: sum(funds.held),
        reported: funds.reported.map(sum),
        difference: funds.difference()?.map(sum),
    })
}

pub async fn list(app: App, context: Context) -> Result<Answer> {
    let query: ListQuery = context.query()?;
    let asked = query.page();
    let page = app.cloud.list_payouts(&context.actor, &page_request(&asked)?).await?;
    page_answer(&asked, page, to_wire, |wire| wire.id.to_string())
}

pub async fn funds(app: App, context: Context) -> Result<Answer> {
    let held = app.cloud.held_funds(&context.actor).await?;
    let currencies = held.iter().map(funds_to_wire).collect::<Result<_>>()?;
    json(&wire::ProcessorFunds { object: ProcessorFundsTag, currencies })
}
