//! Refunds: paid credit that goes back to the customer, approved by somebody else than who asked for it.
//!
//! What is asked for is taken from credit at once, so it is spent by nobody meanwhile; what comes to nothing is credit
//! again. Never more than the paid credit that is there: what was given, or set aside, or is owed, is not paid out. It
//! is paid by a transfer that a person makes, or by the processor of a payment, at most what that payment was.
//!
//! A processor is asked whether it knows the refund before it is asked to make it, each time. So an answer that was
//! lost costs a question, and never a second refund.

use sublet_core::id::{OrganizationId, RefundId, TopUpId};
use sublet_core::payment::{PaymentFailure, PaymentMethod, RefundAsk, RefundProgress, SeenRefund};
use sublet_core::{Currency, Error, ErrorCode, Nanos, Result, Timestamp};
use sublet_money::account::CreditKind;
use sublet_money::posting::{EntryHead, Fact, post};
use sublet_store::organization::Organization;
use sublet_store::refund::{self, Refund, RefundState};
use sublet_store::top_up::{self, TopUpState};
use sublet_store::{Page, PageRequest, Tx, credit, ledger, organization};

use crate::audit::Deed;
use crate::idempotency::{Answer, Call, Render};
use crate::incoming_payment::check_note;
use crate::payment::{backoff, processor};
use crate::payment_step::CLAIM;
use crate::top_up::{ANY, changed, check_amount, next_look};
use crate::{Action, Actor, Cloud};

/// What is to go back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewRefund {
    pub organization: OrganizationId,
    pub amount: Nanos,
    pub currency: Currency,
    /// Why.
    pub note: String,
}

/// How an approved refund is paid.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RefundWay {
    /// A person makes a transfer.
    Bank,
    /// The processor of this payment gives it back.
    Payment(TopUpId),
}

impl Cloud {
    /// Asks for paid credit back.
    pub async fn request_refund(&self, call: &Call, new: &NewRefund, render: &Render<Refund>) -> Result<Answer<Refund>> {
        call.actor.require(Action::RequestRefunds)?;
        check_amount(new.amount, new.currency)?;
        check_note(&new.note, "note")?;
        let id: RefundId = self.ids.mint();
        self.once(call, render, (self, &call.actor, new, id), |(cloud, actor, new, id), tx| {
            Box::pin(async move {
                let now = cloud.now();
                let account = organization::get(tx, &actor.scope, &new.organization).await?;
                if account.currency != new.currency {
                    let message = format!("the account is kept in {}", account.currency);
                    return Err(Error::new(ErrorCode::CurrencyMismatch, message).param("amount"));
                }
                // What is owed is paid first.
                cloud.settle_owed(tx, &account.id, now).await?;
                let tax = cloud.tax_of_refund(tx, &account, (new.amount, now)).await?;
                let (net, paid) = (new.amount.checked_sub(tax)?, refundable(tx, &account).await?);
                if net <= Nanos::ZERO {
                    return Err(Error::new(ErrorCode::InvalidAmount, "of so little, all is tax").param("amount"));
                }
                if net > paid {
                    let message = format!("{paid} {} of paid credit is there and not set aside", account.currency);
                    return Err(Error::new(ErrorCode::InsufficientQuota, message)
                        .param("amount")
                        .alternative(format!("at most {paid}, and what was paid with it for tax")));
                }
                let requested = Refund {
                    id: id.clone(),
                    organization: account.id.clone(),
                    amount: new.amount,
                    tax,
                    currency: new.currency,
                    note: new.note.clone(),
                    state: RefundState::Requested,
                    method: None,
                    top_up: None,
                    payment: None,
                    requested_by: actor.name().to_owned(),
                    answered_by: None,
                    reason: None,
                    transaction: None,
                    next_at: None,
                    calls: 0,
                    tries: 0,
                    created_at: now,
                    answered_at: None,
                    ended_at: None,
                };
                refund::insert(tx, &requested).await?;
                cloud.post_refund(tx, &requested, &Fact::RefundRequested { net, tax }).await?;
                let detail = format!("{} {}", requested.amount, requested.currency);
                cloud.record_refund(tx, actor, &requested, ("refund.request", detail)).await?;
                Ok(requested)
            })
        })
        .await
    }

    pub async fn get_refund(&self, actor: &Actor, id: &RefundId) -> Result<Refund> {
        actor.require(Action::ReadBilling)?;
        self.store.read((actor, id), |(actor, id), tx| Box::pin(refund::get(tx, &actor.scope, id))).await
    }

    pub async fn list_refunds(
        &self,
        actor: &Actor,
        filter: (Option<&OrganizationId>, Option<RefundState>),
        page: &PageRequest,
    ) -> Result<Page<Refund>> {
        actor.require(Action::ReadBilling)?;
        self.store
            .read((actor, filter, page), |(actor, filter, page), tx| Box::pin(refund::list(tx, &actor.scope, *filter, page)))
            .await
    }

    /// Approves a refund that somebody else asked for, and says how it is paid. The same again changes nothing.
    pub async fn approve_refund(&self, actor: &Actor, id: &RefundId, way: &RefundWay) -> Result<Refund> {
        actor.require(Action::ManagePayments)?;
        self.store.write((self, actor, id, way), |(cloud, actor, id, way), tx| Box::pin(cloud.approve(tx, actor, id, way))).await?;
        self.advance_refund(id).await?;
        self.get_refund(actor, id).await
    }

    async fn approve(&self, tx: &mut Tx, actor: &Actor, id: &RefundId, way: &RefundWay) -> Result<()> {
        let known = refund::get(tx, &actor.scope, id).await?;
        let (method, of) = match way {
            RefundWay::Bank => (PaymentMethod::Bank, None),
            RefundWay::Payment(top_up) => (PaymentMethod::Stripe, Some(top_up.clone())),
        };
        if known.state != RefundState::Requested {
            let is_same = matches!(known.state, RefundState::Approved | RefundState::Paid)
                && known.method == Some(method)
                && known.top_up == of
                && known.answered_by.as_deref() == Some(actor.name());
            return if is_same { Ok(()) } else { Err(not_in(RefundState::Requested, known.state)) };
        }
        if known.requested_by == actor.name() {
            return Err(Error::new(ErrorCode::Conflict, "a refund is approved by somebody else than who asked for it")
                .alternative("a key of another operator"));
        }
        let mut approved = Refund {
            state: RefundState::Approved,
            method: Some(method),
            answered_by: Some(actor.name().to_owned()),
            answered_at: Some(self.now()),
            ..known
        };
        if let Some(top_up) = of {
            approved.payment = Some(self.reserve_payment(tx, &approved, &top_up).await?);
            (approved.top_up, approved.next_at) = (Some(top_up), Some(self.now()));
        }
        changed(refund::update(tx, RefundState::Requested, &approved).await?)?;
        let detail = format!("{} {} by {method}", approved.amount, approved.currency);
        self.record_refund(tx, actor, &approved, ("refund.approve", detail)).await
    }

    /// The payment that is paid back, with what of it goes back noted: never more than it was.
    async fn reserve_payment(&self, tx: &mut Tx, refund: &Refund, id: &TopUpId) -> Result<String> {
        let top_up = top_up::get(tx, &ANY, id).await.map_err(|error| error.param("top_up"))?;
        let wrong = |message: String| Error::new(ErrorCode::Conflict, message).param("top_up").alternative("pay it by bank");
        if top_up.organization != refund.organization || top_up.state != TopUpState::Succeeded {
            return Err(wrong(format!("{id} is no payment of this customer that succeeded")));
        }
        let Some(payment) = top_up.payment.filter(|_| top_up.method != PaymentMethod::Bank) else {
            return Err(wrong(format!("{id} was paid by bank, which gives nothing back by itself")));
        };
        if !top_up::note_refund(tx, id, refund.amount).await? {
            let left = top_up.amount.checked_sub(top_up.refunded)?;
            return Err(wrong(format!("of {id}, {left} {} can still be given back", top_up.currency)));
        }
        Ok(payment)
    }

    /// Refuses a refund, or calls off one that a person was to pay: it is credit again.
    pub async fn reject_refund(&self, actor: &Actor, id: &RefundId, reason: &str) -> Result<Refund> {
        actor.require(Action::ManagePayments)?;
        check_note(reason, "reason")?;
        self.end_refund(actor, id, (RefundState::Rejected, reason)).await
    }

    /// The customer wants it no more, and nobody has approved it yet.
    pub async fn cancel_refund(&self, actor: &Actor, id: &RefundId) -> Result<Refund> {
        actor.require(Action::PayIn)?;
        self.end_refund(actor, id, (RefundState::Cancelled, "called off by the customer")).await
    }

    async fn end_refund(&self, actor: &Actor, id: &RefundId, (state, reason): (RefundState, &str)) -> Result<Refund> {
        self.store
            .write((self, actor, id, reason), move |(cloud, actor, id, reason), tx| {
                Box::pin(async move {
                    let known = refund::get(tx, &actor.scope, id).await?;
                    let by_hand = known.state == RefundState::Approved && known.method == Some(PaymentMethod::Bank);
                    if known.state == state {
                        return Ok(known);
                    }
                    if known.state != RefundState::Requested && !(by_hand && state == RefundState::Rejected) {
                        return Err(not_in(RefundState::Requested, known.state));
                    }
                    cloud.call_off(tx, actor, known, (state, (*reason).to_owned())).await
                })
            })
            .await
    }

    /// What was to go back is credit again.
    async fn call_off(&self, tx: &mut Tx, actor: &Actor, known: Refund, (state, reason): (RefundState, String)) -> Result<Refund> {
        let was = known.state;
        let ended = Refund { state, reason: Some(reason.clone()), next_at: None, ended_at: Some(self.now()), ..known };
        changed(refund::update(tx, was, &ended).await?)?;
        if let (Some(top_up), Some(PaymentMethod::Stripe)) = (&ended.top_up, ended.method) {
            changed(top_up::note_refund(tx, top_up, ended.amount.checked_neg()?).await?)?;
        }
        let (net, tax) = (ended.amount.checked_sub(ended.tax)?, ended.tax);
        self.post_refund(tx, &ended, &Fact::RefundCalledOff { net, tax }).await?;
        self.note_paid(tx, &ended.organization, self.now()).await?;
        let action = match state {
            RefundState::Cancelled => "refund.cancel",
            RefundState::Failed => "refund.fail",
            _ => "refund.reject",
        };
        self.record_refund(tx, actor, &ended, (action, reason)).await?;
        Ok(ended)
    }

    /// Notes the transfer that a person made for it. The same again changes nothing.
    pub async fn pay_refund(&self, actor: &Actor, id: &RefundId, transaction: &str) -> Result<Refund> {
        actor.require(Action::ManagePayments)?;
        check_note(transaction, "transaction_id")?;
        self.store
            .write((self, actor, id, transaction), |(cloud, actor, id, transaction), tx| {
                Box::pin(async move {
                    let known = refund::get(tx, &actor.scope, id).await?;
                    if known.state == RefundState::Paid && known.transaction.as_deref() == Some(*transaction) {
                        return Ok(known);
                    }
                    if known.state != RefundState::Approved || known.method != Some(PaymentMethod::Bank) {
                        return Err(not_in(RefundState::Approved, known.state));
                    }
                    cloud.paid_out(tx, actor, known, transaction).await
                })
            })
            .await
            .map_err(|error: Error| {
                // One database names the index, the other one its columns.
                let names = |text: &String| text.contains("refunds_transaction") || text.contains("refunds.transaction_id");
                let is_used = error.private_context().iter().any(names);
                let used = || Error::new(ErrorCode::Conflict, "this transaction paid another refund").param("transaction_id");
                if is_used { used() } else { error }
            })
    }

    async fn paid_out(&self, tx: &mut Tx, actor: &Actor, known: Refund, transaction: &str) -> Result<Refund> {
        let transaction = Some(transaction.to_owned());
        let paid = Refund { state: RefundState::Paid, transaction, next_at: None, ended_at: Some(self.now()), ..known };
        changed(refund::update(tx, RefundState::Approved, &paid).await?)?;
        self.post_refund(tx, &paid, &Fact::RefundPaid { amount: paid.amount }).await?;
        let detail = format!("{} {} {}", paid.amount, paid.currency, paid.transaction.as_deref().unwrap_or_default());
        self.record_refund(tx, actor, &paid, ("refund.pay", detail)).await?;
        Ok(paid)
    }

    /// Asks the processor about a refund that is due, if it is.
    pub(crate) async fn advance_refund(&self, id: &RefundId) -> Result<()> {
        let claimed = self
            .store
            .write((self, id), |(cloud, id), tx| {
                Box::pin(async move {
                    let (known, now) = (refund::get(tx, &ANY, id).await?, cloud.now());
                    if known.state != RefundState::Approved || known.next_at.is_none_or(|at| at > now) {
                        return Ok(None);
                    }
                    let claimed = Refund { next_at: Some(now.plus(CLAIM)), ..known };
                    Ok(refund::update(tx, RefundState::Approved, &claimed).await?.then_some(claimed))
                })
            })
            .await?;
        let Some(refund) = claimed else { return Ok(()) };
        let outcome = self.ask_refund(&refund).await;
        self.store
            .write((self, &refund, &outcome), |(cloud, refund, outcome), tx| {
                Box::pin(async move {
                    let known = refund::get(tx, &ANY, &refund.id).await?;
                    if known.state != RefundState::Approved {
                        return Ok(());
                    }
                    // Whoever was told something meanwhile wants to be asked sooner.
                    let woken = known.next_at.filter(|at| Some(*at) != refund.next_at);
                    cloud.note_refund(tx, known, (outcome, woken)).await
                })
            })
            .await
    }

    async fn ask_refund(&self, refund: &Refund) -> Result<SeenRefund, PaymentFailure> {
        let unclear = |why: String| PaymentFailure::Unclear { why, key_is_used: false };
        let port = self.settings.payments.port(PaymentMethod::Stripe).map_err(|error| unclear(error.to_string()))?;
        let payment = refund.payment.clone().ok_or_else(|| unclear("the refund names no payment".to_owned()))?;
        let key = if refund.calls == 0 { refund.id.to_string() } else { format!("{}-{}", refund.id, refund.calls) };
        let ask = RefundAsk { refund: refund.id.clone(), key, payment, amount: refund.amount, currency: refund.currency };
        match port.find_refund(&ask).await {
            Ok(Some(seen)) => Ok(seen),
            Ok(None) => port.refund(&ask).await,
            // A question that is refused says nothing about the refund: it may have been made.
            Err(PaymentFailure::Refused(why)) => Err(unclear(why)),
            Err(failure) => Err(failure),
        }
    }

    async fn note_refund(
        &self,
        tx: &mut Tx,
        known: Refund,
        (outcome, woken): (&Result<SeenRefund, PaymentFailure>, Option<Timestamp>),
    ) -> Result<()> {
        let (now, system) = (self.now(), Actor::system());
        let later = match outcome {
            Ok(SeenRefund { name, progress: RefundProgress::Paid }) => {
                return self.paid_out(tx, &system, known, name).await.map(|_| ());
            }
            Ok(SeenRefund { progress: RefundProgress::Failed(why), .. }) | Err(PaymentFailure::Refused(why)) => {
                return self.call_off(tx, &system, known, (RefundState::Failed, why.clone())).await.map(|_| ());
            }
            Ok(SeenRefund { progress: RefundProgress::Pending, .. }) => {
                Refund { next_at: Some(next_look(known.created_at, now)), tries: 0, ..known }
            }
            Err(PaymentFailure::Unclear { why, key_is_used }) => {
                let tries = known.tries.saturating_add(1);
                tracing::warn!(id = %known.id, tries, why, "it is not clear how far a refund is");
                Refund { tries, calls: known.calls + i64::from(*key_is_used), next_at: Some(backoff(now, tries)), ..known }
            }
        };
        let next_at = later.next_at.map(|at| woken.map_or(at, |woken| at.min(woken)));
        changed(refund::update(tx, RefundState::Approved, &Refund { next_at, ..later }).await?)
    }

    async fn post_refund(&self, tx: &mut Tx, refund: &Refund, fact: &Fact) -> Result<()> {
        let memo = format!("{} {}", refund.id, refund.state.as_str());
        let head = EntryHead { id: self.ids.mint(), at: self.now(), currency: refund.currency, memo };
        let through = processor(refund.method.unwrap_or(PaymentMethod::Bank));
        ledger::post(tx, &post(head, &refund.organization, fact)?.through(through)).await.map(|_| ())
    }

    async fn record_refund(
        &self,
        tx: &mut Tx,
        actor: &Actor,
        refund: &Refund,
        (action, detail): (&'static str, String),
    ) -> Result<()> {
        let deed = Deed { organization: Some(&refund.organization), action, target: refund.id.as_str(), detail };
        self.record(tx, actor, deed, self.now()).await
    }
}

fn not_in(wanted: RefundState, state: RefundState) -> Error {
    Error::new(ErrorCode::Conflict, format!("the refund is {}, not {}", state.as_str(), wanted.as_str()))
}

/// The paid credit that can go back: what is there, but for lots that are for one use or end, and with nothing below zero.
async fn refundable(tx: &mut Tx, account: &Organization) -> Result<Nanos> {
    let lots = credit::list_lots(tx, &account.id).await?;
    let of_lots = Nanos::checked_sum(lots.iter().filter(|lot| lot.kind == CreditKind::Paid).map(|lot| lot.remaining))?;
    Ok(ledger::available(tx, &account.id).await?.paid.checked_sub(of_lots)?.max(Nanos::ZERO))
}
