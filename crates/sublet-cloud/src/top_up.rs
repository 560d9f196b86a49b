//! Top-ups: what a customer means to pay in, from the intent to the credit.
//!
//! The intent is committed before anybody outside is asked, and the key of that question follows from it; so a crash at
//! any point leaves something that [`Cloud::reconcile_payments`] finishes. A top-up becomes credit in the one
//! transaction that moves it to `succeeded`, and it moves there once. Money that comes after it failed, expired or was
//! cancelled is money all the same, and still becomes credit.

use sublet_core::id::{CreditGrantId, OrganizationId, SavedCardId, TopUpId};
use sublet_core::organization::OrganizationClass;
use sublet_core::payment::{Paid, PaymentMethod, TopUpCause};
use sublet_core::{Currency, DurationMs, Error, ErrorCode, Nanos, Result, Scope, Timestamp};
use sublet_money::account::CreditKind;
use sublet_money::credit_lot::CreditTerms;
use sublet_money::posting::{EntryHead, Fact, post};
use sublet_money::reference::PaymentReference;
use sublet_store::credit::CreditGrant;
use sublet_store::incoming_payment::IncomingProblem;
use sublet_store::organization::Organization;
use sublet_store::saved_card::{self, SavedCardState};
use sublet_store::top_up::{self, TopUp, TopUpState, TopUpStep};
use sublet_store::{Page, PageRequest, Tx, ledger, organization};

use crate::audit::Deed;
use crate::credit::GrantSource;
use crate::idempotency::{Answer, Call};
use crate::payment::processor;
use crate::{Action, Actor, Cloud};

/// Most top-ups of one account that wait for money.
pub const PENDING_MAX: i64 = 20;
/// How long a bank transfer is waited for.
const BANK_WAIT: DurationMs = DurationMs::from_hours(24 * 30);
/// How long a page is open: less than the day for which keys of a question work.
pub(crate) const PAGE_WAIT: DurationMs = DurationMs::from_hours(23);
/// How long it is tried to charge a card. What is not charged then is called off.
const CHARGE_WAIT: DurationMs = DurationMs::from_hours(1);

/// What a customer means to pay in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewTopUp {
    pub method: PaymentMethod,
    pub amount: Nanos,
    pub currency: Currency,
}

/// A top-up that is to be noted.
pub(crate) struct Intent<'a> {
    pub(crate) id: TopUpId,
    pub(crate) account: &'a Organization,
    pub(crate) method: PaymentMethod,
    pub(crate) amount: Nanos,
    pub(crate) card: Option<SavedCardId>,
    pub(crate) cause: Option<TopUpCause>,
}

impl Cloud {
    /// Notes what a customer means to pay in, and makes a place for it. Where that is not clear yet, it is tried again
    /// by itself, and the top-up says where to pay once there is a place.
    pub async fn create_top_up(&self, call: &Call, new: &NewTopUp) -> Result<TopUp> {
        call.actor.require(Action::PayIn)?;
        check_amount(new.amount, new.currency)?;
        self.settings.payments.port(new.method)?.check(new.amount, new.currency)?;
        let id: TopUpId = self.ids.mint();
        let render = |created: &TopUp| Ok(created.id.to_string());
        let answer = self
            .once(call, &render, (self, &call.actor, new, id), |(cloud, actor, new, id), tx| {
                Box::pin(cloud.insert_top_up(tx, actor, (id, new)))
            })
            .await?;
        let id = match answer {
            Answer::New(created) => created.id,
            Answer::Replayed(id) => id.parse()?,
        };
        self.advance_top_up(&id).await?;
        self.get_top_up(&call.actor, &id).await
    }

    async fn insert_top_up(&self, tx: &mut Tx, actor: &Actor, (id, new): (&TopUpId, &NewTopUp)) -> Result<TopUp> {
        let account = organization::get(tx, &actor.scope, actor.organization()?).await?;
        if new.currency != account.currency {
            let message = format!("the account is kept in {}, and this is {}", account.currency, new.currency);
            return Err(Error::new(ErrorCode::CurrencyMismatch, message).param("amount"));
        }
        if account.class == OrganizationClass::Supplier {
            return Err(Error::new(ErrorCode::Conflict, "a supplier is paid, and pays nothing in"));
        }
        if top_up::count_pending(tx, &account.id).await? >= PENDING_MAX {
            let message = format!("{PENDING_MAX} top-ups of this account wait for money already");
            return Err(Error::new(ErrorCode::Conflict, message).alternative("pay or cancel one of them"));
        }
        let card = if new.method == PaymentMethod::Card { Some(card_to_charge(tx, &account.id).await?) } else { None };
        let (id, method, amount) = (id.clone(), new.method, new.amount);
        self.intend(tx, actor, Intent { id, account: &account, method, amount, card, cause: None }).await
    }

    /// Notes an intent, before anybody outside is asked.
    pub(crate) async fn intend(&self, tx: &mut Tx, actor: &Actor, intent: Intent<'_>) -> Result<TopUp> {
        let now = self.now();
        let Intent { id, account, method, amount, card, cause } = intent;
        let wait = match method {
            PaymentMethod::Bank => BANK_WAIT,
            PaymentMethod::Stripe => PAGE_WAIT,
            PaymentMethod::Card => CHARGE_WAIT,
        };
        let created = TopUp {
            reference: PaymentReference::of(&id)?.as_str().to_owned(),
            id,
            organization: account.id.clone(),
            method,
            amount,
            currency: account.currency,
            state: TopUpState::Pending,
            step: TopUpStep::Open,
            next_at: Some(now),
            calls: 0,
            tries: 0,
            checkout: None,
            url: None,
            payment: None,
            reason: None,
            grant: None,
            refunded: Nanos::ZERO,
            fee: None,
            created_by: actor.name().to_owned(),
            expires_at: now.plus(wait),
            created_at: now,
            ended_at: None,
            card,
            cause,
        };
        top_up::insert(tx, &created).await?;
        let why = cause.map(|cause| format!(", for {}", cause.as_str())).unwrap_or_default();
        let detail = format!("{} {} by {}{why}", created.amount, created.currency, created.method);
        self.record_top_up(tx, actor, &created, ("top_up.create", detail)).await?;
        Ok(created)
    }

    pub async fn get_top_up(&self, actor: &Actor, id: &TopUpId) -> Result<TopUp> {
        actor.require(Action::ReadBilling)?;
        self.store.read((actor, id), |(actor, id), tx| Box::pin(top_up::get(tx, &actor.scope, id))).await
    }

    pub async fn list_top_ups(
        &self,
        actor: &Actor,
        filter: (Option<&OrganizationId>, Option<TopUpState>),
        page: &PageRequest,
    ) -> Result<Page<TopUp>> {
        actor.require(Action::ReadBilling)?;
        self.store
            .read((actor, filter, page), |(actor, filter, page), tx| Box::pin(top_up::list(tx, &actor.scope, *filter, page)))
            .await
    }

    /// Calls a top-up off. It is cancelled once nothing can be paid there any more; what was paid before is credit.
    /// Cancelling again changes nothing.
    pub async fn cancel_top_up(&self, actor: &Actor, id: &TopUpId) -> Result<TopUp> {
        actor.require(Action::PayIn)?;
        self.store
            .write((self, actor, id), |(cloud, actor, id), tx| {
                Box::pin(async move {
                    let known = top_up::get(tx, &actor.scope, id).await?;
                    let was = (known.state, known.step);
                    match known.state {
                        TopUpState::Pending => {}
                        TopUpState::Cancelled => return Ok(()),
                        state => {
                            let message = format!("the top-up is {} already", state.as_str());
                            return Err(Error::new(ErrorCode::Conflict, message));
                        }
                    }
                    if known.step == TopUpStep::Close {
                        return Ok(());
                    }
                    let mut closing = TopUp { step: TopUpStep::Close, next_at: Some(cloud.now()), tries: 0, ..known };
                    if closing.checkout.is_none() {
                        // Nobody was told where to pay. If there is such a place, it is closed when that is known.
                        closing = cloud.ended(closing, TopUpState::Cancelled, None);
                    }
                    changed(top_up::update(tx, was, &closing).await?)?;
                    cloud.record_top_up(tx, actor, &closing, ("top_up.cancel", String::new())).await?;
                    if closing.state == TopUpState::Pending {
                        return Ok(());
                    }
                    cloud.note_rule_failure(tx, &closing, false).await
                })
            })
            .await?;
        self.advance_top_up(id).await?;
        self.get_top_up(actor, id).await
    }

    /// A top-up with nothing more to be done.
    pub(crate) fn ended(&self, top_up: TopUp, state: TopUpState, reason: Option<String>) -> TopUp {
        let (step, ended_at) = (TopUpStep::Done, Some(self.now()));
        TopUp { state, step, next_at: None, tries: 0, reason, ended_at, ..top_up }
    }

    /// Makes credit of a payment, in the transaction that notes it as paid. Once; for ever.
    pub(crate) async fn succeed(&self, tx: &mut Tx, actor: &Actor, known: TopUp, paid: &Paid) -> Result<Option<IncomingProblem>> {
        if known.state == TopUpState::Succeeded {
            return Ok((known.payment.as_deref() != Some(&paid.payment)).then_some(IncomingProblem::PaidAlready));
        }
        if let Some(problem) = mismatch(&known, paid) {
            return Ok(Some(problem));
        }
        let was = (known.state, known.step);
        let grant: CreditGrantId = self.ids.mint();
        let mut done = self.ended(known, TopUpState::Succeeded, None);
        (done.grant, done.payment, done.fee) = (Some(grant.clone()), Some(paid.payment.clone()), paid.fee);
        changed(top_up::update(tx, was, &done).await?)?;
        let granted = CreditGrant {
            id: grant,
            organization: done.organization.clone(),
            kind: CreditKind::Paid.as_str().to_owned(),
            amount: done.amount,
            currency: done.currency,
            reference: format!("{} {}", done.id, paid.payment),
            terms: CreditTerms::default(),
            remaining: None,
            created_at: self.now(),
        };
        self.insert_grant(tx, actor, &granted, GrantSource::Payment(processor(done.method))).await?;
        if let Some((fee, currency)) = done.fee.filter(|(fee, currency)| !fee.is_zero() && *currency == done.currency) {
            let memo = format!("fee of {} for {}", done.method, done.id);
            let head = EntryHead { id: self.ids.mint(), at: self.now(), currency, memo };
            ledger::post(tx, &post(head, &done.organization, &Fact::ProcessorFeeKept { amount: fee })?).await?;
        }
        let detail = format!("{} {} by {} {}", done.amount, done.currency, done.method, paid.payment);
        self.record_top_up(tx, actor, &done, ("top_up.succeed", detail)).await?;
        self.note_rule_success(tx, &done).await?;
        Ok(None)
    }

    pub(crate) async fn record_top_up(
        &self,
        tx: &mut Tx,
        actor: &Actor,
        top_up: &TopUp,
        (action, detail): (&'static str, String),
    ) -> Result<()> {
        let deed = Deed { organization: Some(&top_up.organization), action, target: top_up.id.as_str(), detail };
        self.record(tx, actor, deed, self.now()).await
    }
}

/// The card of an account, if nothing is charged to it at the moment.
async fn card_to_charge(tx: &mut Tx, organization: &OrganizationId) -> Result<SavedCardId> {
    let Some(card) = saved_card::find(tx, organization, SavedCardState::Saved).await? else {
        let error = Error::new(ErrorCode::Conflict, "no card is saved").param("method");
        return Err(error.alternative("save one with 'sublet saved-card save', or pay on a page with method 'stripe'"));
    };
    if top_up::is_card_charged(tx, organization).await? {
        let error = Error::new(ErrorCode::Conflict, "the card is being charged for another top-up").param("method");
        return Err(error.alternative("try again when that one has ended"));
    }
    Ok(card.id)
}

/// Why a payment is not what its top-up is over.
pub(crate) fn mismatch(top_up: &TopUp, paid: &Paid) -> Option<IncomingProblem> {
    match (paid.currency == top_up.currency, paid.amount.cmp(&top_up.amount)) {
        (false, _) => Some(IncomingProblem::WrongCurrency),
        (true, std::cmp::Ordering::Less) => Some(IncomingProblem::Partial),
        (true, std::cmp::Ordering::Greater) => Some(IncomingProblem::Excess),
        (true, std::cmp::Ordering::Equal) => None,
    }
}

/// Amounts that come in and go out are whole minor units above zero.
pub(crate) fn check_amount(amount: Nanos, currency: Currency) -> Result<()> {
    let unit = currency.minor_unit();
    if amount > Nanos::ZERO && amount.get() % unit.get() == 0 {
        return Ok(());
    }
    let message = format!("an amount of {currency} that is paid is a multiple of {unit} above zero, and {amount} is not");
    Err(Error::new(ErrorCode::InvalidAmount, message).param("amount"))
}

/// A row that changed between its reading and its writing in one transaction: another process was there.
pub(crate) fn changed(was_updated: bool) -> Result<()> {
    if was_updated { Ok(()) } else { Err(Error::new(ErrorCode::Conflict, "it was changed by another call at the same time")) }
}

/// The next look at what nobody told about: soon at first, then ever later.
pub(crate) fn next_look(created_at: Timestamp, now: Timestamp) -> Timestamp {
    let wait = (now.since(created_at).millis() / 4).clamp(60_000, 3_600_000);
    now.plus(DurationMs::from_millis(wait))
}

/// That of the operator, for what belongs to a customer.
pub(crate) const ANY: Scope = Scope::Operator;
