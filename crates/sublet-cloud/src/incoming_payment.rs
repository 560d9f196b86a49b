//! Money that arrived: bank statements taken in, matched with top-ups by reference, and what could not be matched.
//!
//! A transaction of the bank account counts once for ever, whoever takes it in and however often. It pays a top-up only
//! if it names exactly one, and is exactly what that is over; everything else is quarantined with the reason, and an
//! operator says whose it is or that it went back. Nothing that arrived is dropped.

use sublet_core::id::{IncomingPaymentId, OrganizationId, TopUpId};
use sublet_core::payment::{Paid, PaymentMethod};
use sublet_core::{Error, ErrorCode, Nanos, Result, Scope};
use sublet_money::account::CreditKind;
use sublet_money::credit_lot::CreditTerms;
use sublet_money::reference::PaymentReference;
use sublet_money::statement::{self, BankTransaction};
use sublet_store::credit::CreditGrant;
use sublet_store::incoming_payment::{self, IncomingPayment, IncomingProblem, IncomingState};
use sublet_store::top_up::{self, TopUpState};
use sublet_store::{Page, PageRequest, Tx, organization};

use crate::audit::Deed;
use crate::credit::GrantSource;
use crate::idempotency::{Answer, Call, Render};
use crate::payment::processor;
use crate::top_up::{ANY, changed, mismatch};
use crate::{Action, Actor, Cloud};

/// Longest note of an operator, in characters.
const NOTE_MAX_CHARS: usize = 200;

/// What became of a row of a statement.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RowOutcome {
    Matched(TopUpId),
    Quarantined(IncomingProblem),
    /// It was taken in before, with the same figures.
    Known,
    /// It went out, and is nothing that customers paid.
    Outgoing,
}

/// A row of a statement that was taken in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TakenRow {
    pub transaction: String,
    pub outcome: RowOutcome,
}

/// What an operator says of a payment that is quarantined.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum IncomingAnswer {
    /// It is this customer's, and becomes its credit.
    Credit(OrganizationId),
    /// It was sent back, or is none of a customer's.
    Return,
}

impl Cloud {
    /// Takes in a statement as CSV: all of it or, if a row is wrong, nothing.
    pub async fn import_statement(
        &self,
        call: &Call,
        content: &str,
        render: &Render<Vec<TakenRow>>,
    ) -> Result<Answer<Vec<TakenRow>>> {
        call.actor.require(Action::ManagePayments)?;
        let rows = statement::read(content)?;
        self.once(call, render, (self, &call.actor, rows), |(cloud, actor, rows), tx| {
            Box::pin(async move {
                let mut taken = Vec::with_capacity(rows.len());
                for row in rows {
                    let outcome = cloud.take_in(tx, actor, row).await?;
                    taken.push(TakenRow { transaction: row.id.clone(), outcome });
                }
                Ok(taken)
            })
        })
        .await
    }

    async fn take_in(&self, tx: &mut Tx, actor: &Actor, row: &BankTransaction) -> Result<RowOutcome> {
        if row.amount <= Nanos::ZERO {
            return Ok(RowOutcome::Outgoing);
        }
        let amount = Some((row.amount, row.currency));
        if let Some(known) = incoming_payment::find_transaction(tx, &ANY, (PaymentMethod::Bank, &row.id)).await? {
            if known.amount == amount && known.reference == row.reference {
                return Ok(RowOutcome::Known);
            }
            let message = format!("the transaction '{}' was taken in before, with other figures", row.id);
            return Err(Error::new(ErrorCode::Conflict, message).param("content").alternative("the bank's own transaction ids"));
        }
        let found = matching(tx, row).await?;
        let (state, problem) = match &found.problem {
            Some(problem) => (IncomingState::Quarantined, Some(*problem)),
            None => (IncomingState::Matched, None),
        };
        let id: IncomingPaymentId = self.ids.mint();
        let incoming = IncomingPayment {
            id: id.clone(),
            source: PaymentMethod::Bank,
            transaction: row.id.clone(),
            amount,
            reference: row.reference.clone(),
            state,
            problem,
            top_up: found.top_up.as_ref().map(|known| known.id.clone()),
            organization: found.top_up.as_ref().map(|known| known.organization.clone()),
            answer: None,
            answered_by: None,
            grant: None,
            created_at: self.now(),
            answered_at: None,
        };
        if !incoming_payment::insert(tx, &incoming).await? {
            return Err(Error::new(ErrorCode::Conflict, "another import takes the same transactions in").param("content"));
        }
        match (problem, found.top_up) {
            (None, Some(top_up)) => {
                let paid = Paid { payment: row.id.clone(), amount: row.amount, currency: row.currency, fee: None };
                let target = top_up.id.clone();
                match self.succeed(tx, actor, top_up, &paid).await? {
                    None => Ok(RowOutcome::Matched(target)),
                    Some(problem) => Err(Error::internal(format!("{target} was matched, and is {}", problem.as_str()))),
                }
            }
            (problem, _) => {
                let problem = problem.unwrap_or(IncomingProblem::UnknownReference);
                let detail = format!("{} {} {}", row.amount, row.currency, problem.as_str());
                let deed = Deed {
                    organization: incoming.organization.as_ref(),
                    action: "payment.quarantine",
                    target: id.as_str(),
                    detail,
                };
                self.record(tx, actor, deed, self.now()).await?;
                Ok(RowOutcome::Quarantined(problem))
            }
        }
    }

    pub async fn list_incoming(
        &self,
        actor: &Actor,
        state: Option<IncomingState>,
        page: &PageRequest,
    ) -> Result<Page<IncomingPayment>> {
        actor.require(Action::ManagePayments)?;
        self.store
            .read((actor, state, page), |(actor, state, page), tx| Box::pin(incoming_payment::list(tx, &actor.scope, *state, page)))
            .await
    }

    /// Says what is done with a payment that is quarantined. The same answer again changes nothing.
    pub async fn answer_incoming(
        &self,
        actor: &Actor,
        id: &IncomingPaymentId,
        (answer, note): (&IncomingAnswer, &str),
    ) -> Result<IncomingPayment> {
        actor.require(Action::ManagePayments)?;
        check_note(note, "note")?;
        self.store
            .write((self, actor, id, answer, note), |(cloud, actor, id, answer, note), tx| {
                Box::pin(async move {
                    let known = incoming_payment::get(tx, &actor.scope, id).await?;
                    if known.state != IncomingState::Quarantined {
                        let is_same = match answer {
                            IncomingAnswer::Credit(organization) => {
                                known.state == IncomingState::Credited && known.organization.as_ref() == Some(organization)
                            }
                            IncomingAnswer::Return => known.state == IncomingState::Returned,
                        };
                        let conflict = || Error::new(ErrorCode::Conflict, format!("it is {} already", known.state.as_str()));
                        return if is_same { Ok(known) } else { Err(conflict()) };
                    }
                    cloud.settle_incoming(tx, actor, known, (answer, note)).await
                })
            })
            .await
    }

    async fn settle_incoming(
        &self,
        tx: &mut Tx,
        actor: &Actor,
        known: IncomingPayment,
        (answer, note): (&IncomingAnswer, &str),
    ) -> Result<IncomingPayment> {
        let now = self.now();
        let mut done = IncomingPayment {
            state: IncomingState::Returned,
            answer: Some(note.to_owned()),
            answered_by: Some(actor.name().to_owned()),
            answered_at: Some(now),
            ..known
        };
        if let IncomingAnswer::Credit(organization) = answer {
            let account =
                organization::get(tx, &Scope::Operator, organization).await.map_err(|error| error.param("organization"))?;
            let is_money = !matches!(done.problem, Some(IncomingProblem::UnknownRefund | IncomingProblem::Disputed));
            let Some((amount, currency)) = done.amount.filter(|_| is_money) else {
                return Err(Error::new(ErrorCode::Conflict, "no money came with it that could be credited").param("action"));
            };
            if currency != account.currency {
                let message = format!("the account is kept in {}, and {currency} arrived", account.currency);
                let error = Error::new(ErrorCode::CurrencyMismatch, message).param("organization");
                return Err(error.alternative("send it back, and answer 'return'"));
            }
            let grant = CreditGrant {
                id: self.ids.mint(),
                organization: account.id.clone(),
                kind: CreditKind::Paid.as_str().to_owned(),
                amount,
                currency,
                reference: format!("{} {}", done.id, done.transaction),
                terms: CreditTerms::default(),
                remaining: None,
                created_at: now,
            };
            self.insert_grant(tx, actor, &grant, GrantSource::Payment(processor(done.source))).await?;
            (done.state, done.organization, done.grant) = (IncomingState::Credited, Some(account.id.clone()), Some(grant.id));
            self.close_named(tx, actor, &done).await?;
        }
        incoming_payment::answer(tx, &done).await?;
        let detail = format!("{}: {note}", done.state.as_str());
        let deed = Deed { organization: done.organization.as_ref(), action: "payment.answer", target: done.id.as_str(), detail };
        self.record(tx, actor, deed, now).await?;
        Ok(done)
    }

    /// What was credited apart is not waited for any more.
    async fn close_named(&self, tx: &mut Tx, actor: &Actor, incoming: &IncomingPayment) -> Result<()> {
        let Some(id) = &incoming.top_up else { return Ok(()) };
        let known = top_up::get(tx, &ANY, id).await?;
        if known.state != TopUpState::Pending || Some(&known.organization) != incoming.organization.as_ref() {
            return Ok(());
        }
        let was = (known.state, known.step);
        let why = format!("{} was credited in its place", incoming.id);
        let closed = self.ended(known, TopUpState::Cancelled, Some(why.clone()));
        changed(top_up::update(tx, was, &closed).await?)?;
        self.record_top_up(tx, actor, &closed, ("top_up.cancel", why)).await
    }
}

/// The top-up that a transfer names, and why it does not pay it.
struct Match {
    top_up: Option<top_up::TopUp>,
    problem: Option<IncomingProblem>,
}

async fn matching(tx: &mut Tx, row: &BankTransaction) -> Result<Match> {
    let mut named = PaymentReference::find_in(&row.reference).into_iter();
    let nobodys = |problem| Match { top_up: None, problem: Some(problem) };
    let reference = match (named.next(), named.next()) {
        (None, _) => return Ok(nobodys(IncomingProblem::NoReference)),
        (Some(_), Some(_)) => return Ok(nobodys(IncomingProblem::SeveralReferences)),
        (Some(reference), None) => reference,
    };
    let Some(top_up) = top_up::find_by_reference(tx, &ANY, reference.as_str()).await? else {
        return Ok(nobodys(IncomingProblem::UnknownReference));
    };
    let paid = Paid { payment: row.id.clone(), amount: row.amount, currency: row.currency, fee: None };
    let problem = match (top_up.method, top_up.state) {
        (PaymentMethod::Stripe | PaymentMethod::Card, _) => Some(IncomingProblem::OtherMethod),
        (PaymentMethod::Bank, TopUpState::Succeeded) => Some(IncomingProblem::PaidAlready),
        (PaymentMethod::Bank, TopUpState::Pending) => mismatch(&top_up, &paid),
        (PaymentMethod::Bank, TopUpState::Failed | TopUpState::Cancelled | TopUpState::Expired) => {
            Some(IncomingProblem::NotPending)
        }
    };
    Ok(Match { top_up: Some(top_up), problem })
}

/// One line for a person.
pub(crate) fn check_note(note: &str, param: &'static str) -> Result<()> {
    let length = note.chars().count();
    if (1..=NOTE_MAX_CHARS).contains(&length) && !note.chars().any(char::is_control) {
        return Ok(());
    }
    Err(Error::new(ErrorCode::InvalidRequest, format!("it is one line of 1 to {NOTE_MAX_CHARS} characters")).param(param))
}
