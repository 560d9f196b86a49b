//! Top-ups, what arrived, refunds, and what processors tell.

use sublet_api::object::{BankStatementTag, IncomingPaymentTag, PaymentNoticeTag, RefundTag, TopUpTag};
use sublet_api::payment as wire;
use sublet_cloud::Actor;
use sublet_cloud::data::{IncomingPayment, IncomingProblem, IncomingState, Refund, RefundState, TopUp, TopUpState};
use sublet_cloud::incoming_payment::{IncomingAnswer, RowOutcome, TakenRow};
use sublet_cloud::refund::{NewRefund, RefundWay};
use sublet_cloud::top_up::NewTopUp;
use sublet_core::key::KeyPlane;
use sublet_core::payment::{PaymentMethod, TopUpCause};
use sublet_core::{Error, ErrorCode, Result};

use crate::App;
use crate::answer::{Answer, json, text_of};
use crate::context::{Context, once, page_answer, page_request};
use crate::wire::money;

const fn method_to_wire(method: PaymentMethod) -> wire::PaymentMethod {
    match method {
        PaymentMethod::Bank => wire::PaymentMethod::Bank,
        PaymentMethod::Stripe => wire::PaymentMethod::Stripe,
        PaymentMethod::Card => wire::PaymentMethod::Card,
    }
}

const fn method_from_wire(method: wire::PaymentMethod) -> PaymentMethod {
    match method {
        wire::PaymentMethod::Bank => PaymentMethod::Bank,
        wire::PaymentMethod::Stripe => PaymentMethod::Stripe,
        wire::PaymentMethod::Card => PaymentMethod::Card,
    }
}

const fn cause_to_wire(cause: TopUpCause) -> wire::TopUpCause {
    match cause {
        TopUpCause::Threshold => wire::TopUpCause::Threshold,
        TopUpCause::Period => wire::TopUpCause::Period,
        TopUpCause::Confirmation => wire::TopUpCause::Confirmation,
    }
}

const fn top_up_status(state: TopUpState) -> wire::TopUpStatus {
    match state {
        TopUpState::Pending => wire::TopUpStatus::Pending,
        TopUpState::Succeeded => wire::TopUpStatus::Succeeded,
        TopUpState::Failed => wire::TopUpStatus::Failed,
        TopUpState::Cancelled => wire::TopUpStatus::Cancelled,
        TopUpState::Expired => wire::TopUpStatus::Expired,
    }
}

const fn refund_status(state: RefundState) -> wire::RefundStatus {
    match state {
        RefundState::Requested => wire::RefundStatus::Requested,
        RefundState::Approved => wire::RefundStatus::Approved,
        RefundState::Paid => wire::RefundStatus::Paid,
        RefundState::Rejected => wire::RefundStatus::Rejected,
        RefundState::Cancelled => wire::RefundStatus::Cancelled,
        RefundState::Failed => wire::RefundStatus::Failed,
    }
}

const fn incoming_status(state: IncomingState) -> wire::IncomingStatus {
    match state {
        IncomingState::Matched => wire::IncomingStatus::Matched,
        IncomingState::Quarantined => wire::IncomingStatus::Quarantined,
        IncomingState::Credited => wire::IncomingStatus::Credited,
        IncomingState::Returned => wire::IncomingStatus::Returned,
    }
}

const fn problem_to_wire(problem: IncomingProblem) -> wire::IncomingProblem {
    match problem {
        IncomingProblem::NoReference => wire::IncomingProblem::NoReference,
        IncomingProblem::SeveralReferences => wire::IncomingProblem::SeveralReferences,
        IncomingProblem::UnknownReference => wire::IncomingProblem::UnknownReference,
        IncomingProblem::OtherMethod => wire::IncomingProblem::OtherMethod,
        IncomingProblem::WrongCurrency => wire::IncomingProblem::WrongCurrency,
        IncomingProblem::Partial => wire::IncomingProblem::Partial,
        IncomingProblem::Excess => wire::IncomingProblem::Excess,
        IncomingProblem::PaidAlready => wire::IncomingProblem::PaidAlready,
        IncomingProblem::NotPending => wire::IncomingProblem::NotPending,
        IncomingProblem::UnknownPayment => wire::IncomingProblem::UnknownPayment,
        IncomingProblem::UnknownRefund => wire::IncomingProblem::UnknownRefund,
        IncomingProblem::RefundReturned => wire::IncomingProblem::RefundReturned,
        IncomingProblem::Disputed => wire::IncomingProblem::Disputed,
    }
}

/// A stored state by the text of a wire status: both are the same words.
fn state_of<T: std::str::FromStr<Err = Error>>(status: Option<&str>) -> Result<Option<T>> {
    status.map(str::parse).transpose()
}

/// Fees are the owner's cost, and the operator's to see.
fn top_up_to_wire(top_up: &TopUp, actor: &Actor) -> wire::TopUp {
    let is_bank = top_up.method == PaymentMethod::Bank;
    let is_pending = top_up.state == TopUpState::Pending;
    wire::TopUp {
        object: TopUpTag,
        id: top_up.id.clone(),
        organization: top_up.organization.clone(),
        method: method_to_wire(top_up.method),
        amount: money(top_up.amount, top_up.currency),
        status: top_up_status(top_up.state),
        cause: top_up.cause.map(cause_to_wire),
        reference: Some(top_up.reference.clone()).filter(|_| is_bank),
        checkout_url: top_up.url.clone().filter(|_| is_pending),
        reason: top_up.reason.clone(),
        credit_grant: top_up.grant.clone(),
        refunded: money(top_up.refunded, top_up.currency),
        fee: top_up.fee.filter(|_| actor.plane == KeyPlane::Operator).map(|(fee, currency)| money(fee, currency)),
        expires_at: top_up.expires_at.into(),
        created_at: top_up.created_at.into(),
        ended_at: top_up.ended_at.map(Into::into),
    }
}

fn refund_to_wire(refund: &Refund) -> wire::Refund {
    wire::Refund {
        object: RefundTag,
        id: refund.id.clone(),
        organization: refund.organization.clone(),
        amount: money(refund.amount, refund.currency),
        note: refund.note.clone(),
        status: refund_status(refund.state),
        method: refund.method.map(method_to_wire),
        top_up: refund.top_up.clone(),
        transaction_id: refund.transaction.clone(),
        requested_by: refund.requested_by.clone(),
        approved_by: refund.answered_by.clone(),
        reason: refund.reason.clone(),
        created_at: refund.created_at.into(),
        approved_at: refund.answered_at.map(Into::into),
        ended_at: refund.ended_at.map(Into::into),
    }
}

fn incoming_to_wire(payment: &IncomingPayment) -> wire::IncomingPayment {
    wire::IncomingPayment {
        object: IncomingPaymentTag,
        id: payment.id.clone(),
        source: method_to_wire(payment.source),
        transaction_id: payment.transaction.clone(),
        amount: payment.amount.map(|(amount, currency)| money(amount, currency)),
        reference: payment.reference.clone(),
        status: incoming_status(payment.state),
        problem: payment.problem.map(problem_to_wire),
        top_up: payment.top_up.clone(),
        organization: payment.organization.clone(),
        note: payment.answer.clone(),
        answered_by: payment.answered_by.clone(),
        credit_grant: payment.grant.clone(),
        created_at: payment.created_at.into(),
        answered_at: payment.answered_at.map(Into::into),
    }
}

fn statement_to_wire(rows: &[TakenRow]) -> wire::BankStatement {
    let row = |row: &TakenRow| {
        let (status, top_up, problem) = match &row.outcome {
            RowOutcome::Matched(top_up) => (wire::RowStatus::Matched, Some(top_up.clone()), None),
            RowOutcome::Quarantined(problem) => (wire::RowStatus::Quarantined, None, Some(problem_to_wire(*problem))),
            RowOutcome::Known => (wire::RowStatus::Known, None, None),
            RowOutcome::Outgoing => (wire::RowStatus::Outgoing, None, None),
        };
        wire::StatementRow { transaction_id: row.transaction.clone(), status, top_up, problem }
    };
    wire::BankStatement { object: BankStatementTag, rows: rows.iter().map(row).collect() }
}

pub async fn create_top_up(app: App, context: Context) -> Result<Answer> {
    let body: wire::CreateTopUp = context.body()?;
    let method = method_from_wire(body.method);
    let new = NewTopUp { method, amount: body.amount.nanos(), currency: body.amount.currency };
    json(&top_up_to_wire(&app.cloud.create_top_up(&context.call()?, &new).await?, &context.actor))
}

pub async fn get_top_up(app: App, context: Context) -> Result<Answer> {
    json(&top_up_to_wire(&app.cloud.get_top_up(&context.actor, &context.path("id")?).await?, &context.actor))
}

pub async fn list_top_ups(app: App, context: Context) -> Result<Answer> {
    let query: wire::TopUpListQuery = context.query()?;
    let asked = query.page();
    let filter = (query.organization.as_ref(), state_of(query.status.map(wire::TopUpStatus::as_str))?);
    let page = app.cloud.list_top_ups(&context.actor, filter, &page_request(&asked)?).await?;
    page_answer(&asked, page, |top_up| top_up_to_wire(&top_up, &context.actor), |wire| wire.id.to_string())
}

pub async fn cancel_top_up(app: App, context: Context) -> Result<Answer> {
    json(&top_up_to_wire(&app.cloud.cancel_top_up(&context.actor, &context.path("id")?).await?, &context.actor))
}

pub async fn create_refund(app: App, context: Context) -> Result<Answer> {
    let body: wire::CreateRefund = context.body()?;
    let organization = context.actor.organization()?.clone();
    let new = NewRefund { organization, amount: body.amount.nanos(), currency: body.amount.currency, note: body.note };
    request_refund(&app, &context, &new).await
}

pub async fn operator_create_refund(app: App, context: Context) -> Result<Answer> {
    let body: wire::OperatorCreateRefund = context.body()?;
    let (amount, currency) = (body.amount.nanos(), body.amount.currency);
    request_refund(&app, &context, &NewRefund { organization: body.organization, amount, currency, note: body.note }).await
}

async fn request_refund(app: &App, context: &Context, new: &NewRefund) -> Result<Answer> {
    let outcome = app.cloud.request_refund(&context.call()?, new, &|refund| text_of(&refund_to_wire(refund))).await?;
    once(outcome, refund_to_wire)
}

pub async fn get_refund(app: App, context: Context) -> Result<Answer> {
    json(&refund_to_wire(&app.cloud.get_refund(&context.actor, &context.path("id")?).await?))
}

pub async fn list_refunds(app: App, context: Context) -> Result<Answer> {
    let query: wire::RefundListQuery = context.query()?;
    let asked = query.page();
    let filter = (query.organization.as_ref(), state_of(query.status.map(wire::RefundStatus::as_str))?);
    let page = app.cloud.list_refunds(&context.actor, filter, &page_request(&asked)?).await?;
    page_answer(&asked, page, |refund| refund_to_wire(&refund), |wire| wire.id.to_string())
}

pub async fn cancel_refund(app: App, context: Context) -> Result<Answer> {
    json(&refund_to_wire(&app.cloud.cancel_refund(&context.actor, &context.path("id")?).await?))
}

pub async fn approve_refund(app: App, context: Context) -> Result<Answer> {
    let body: wire::ApproveRefund = context.body()?;
    let way = body.top_up.map_or(RefundWay::Bank, RefundWay::Payment);
    json(&refund_to_wire(&app.cloud.approve_refund(&context.actor, &context.path("id")?, &way).await?))
}

pub async fn reject_refund(app: App, context: Context) -> Result<Answer> {
    let body: wire::RejectRefund = context.body()?;
    json(&refund_to_wire(&app.cloud.reject_refund(&context.actor, &context.path("id")?, &body.reason).await?))
}

pub async fn pay_refund(app: App, context: Context) -> Result<Answer> {
    let body: wire::PayRefund = context.body()?;
    json(&refund_to_wire(&app.cloud.pay_refund(&context.actor, &context.path("id")?, &body.transaction_id).await?))
}

pub async fn list_incoming(app: App, context: Context) -> Result<Answer> {
    let query: wire::IncomingPaymentListQuery = context.query()?;
    let asked = query.page();
    let state = state_of(query.status.map(wire::IncomingStatus::as_str))?;
    let page = app.cloud.list_incoming(&context.actor, state, &page_request(&asked)?).await?;
    page_answer(&asked, page, |payment| incoming_to_wire(&payment), |wire| wire.id.to_string())
}

pub async fn answer_incoming(app: App, context: Context) -> Result<Answer> {
    let body: wire::AnswerIncomingPayment = context.body()?;
    let answer = match (body.action, body.organization) {
        (wire::IncomingAction::Credit, Some(organization)) => IncomingAnswer::Credit(organization),
        (wire::IncomingAction::Return, None) => IncomingAnswer::Return,
        (wire::IncomingAction::Credit, None) => {
            return Err(Error::new(ErrorCode::InvalidRequest, "say whose credit it becomes").param("organization"));
        }
        (wire::IncomingAction::Return, Some(_)) => {
            return Err(Error::new(ErrorCode::InvalidRequest, "what is sent back becomes nobody's credit").param("organization"));
        }
    };
    let answered = app.cloud.answer_incoming(&context.actor, &context.path("id")?, (&answer, &body.note)).await?;
    json(&incoming_to_wire(&answered))
}

pub async fn import_statement(app: App, context: Context) -> Result<Answer> {
    let body: wire::ImportBankStatement = context.body()?;
    let render = |rows: &Vec<TakenRow>| text_of(&statement_to_wire(rows));
    let outcome = app.cloud.import_statement(&context.call()?, &body.content, &render).await?;
    once(outcome, |rows| statement_to_wire(rows))
}

pub async fn stripe_notice(app: App, context: Context) -> Result<Answer> {
    let signature = context.headers.get("stripe-signature").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let notice = app.cloud.receive_notice(&context.body, signature).await?;
    json(&wire::PaymentNotice { object: PaymentNoticeTag, id: notice.id })
}
