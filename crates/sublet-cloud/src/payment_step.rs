//! The reconciler of payments: whatever is to be done with a bank or processor is a row with an instant, and is done
//! outside of any transaction, then written down in one.
//!
//! A step can be repeated at any point: its question has a key that follows from the row, and what is written depends
//! on the answer and on the row as it is then, not as it was.

use sublet_core::id::TopUpId;
use sublet_core::payment::{ChargeAsk, Checkout, CheckoutAsk, PaymentFailure, PaymentMethod, PaymentProgress, TopUpCause};
use sublet_core::{DurationMs, Error, Result};
use sublet_store::incoming_payment::IncomingProblem;
use sublet_store::top_up::{self, TopUp, TopUpState, TopUpStep};
use sublet_store::{Tx, refund, saved_card, top_up_rule};

use crate::payment::backoff;
use crate::saved_card::is_card_gone;
use crate::top_up::{ANY, changed, next_look};
use crate::{Actor, Cloud};

/// How often it is looked for what is due.
const LOOK_PERIOD: DurationMs = DurationMs::from_seconds(2);
/// What is done in one look, of each kind.
const AT_ONCE: i64 = 20;
/// Rules that are looked at in one look.
const RULES_AT_ONCE: i64 = 100;
/// Nobody else does the same step meanwhile.
pub(crate) const CLAIM: DurationMs = DurationMs::from_seconds(60);

/// What a step brought to light.
enum Outcome {
    Opened(Checkout),
    /// `closing` if nothing can be paid any more by what we asked.
    Seen {
        progress: PaymentProgress,
        closing: bool,
    },
    Failed(PaymentFailure),
}

/// What one look did.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct PaymentReport {
    pub steps: u64,
    /// Whose outcome could not be written down; they are done again.
    pub failed: u64,
}

impl Cloud {
    /// Does what is due until `stop` says so.
    pub async fn run_payments(&self, mut stop: tokio::sync::watch::Receiver<bool>) {
        while !*stop.borrow() {
            if let Err(error) = self.reconcile_payments().await {
                tracing::error!(%error, private = ?error, "payments were not looked at; it is tried again");
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK_PERIOD.to_std()) => {}
                changed = stop.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// Does what is due now.
    pub async fn reconcile_payments(&self) -> Result<PaymentReport> {
        let now = self.now();
        let mut report = PaymentReport::default();
        let due = self.store.read(now, |now, tx| Box::pin(saved_card::due(tx, *now, AT_ONCE))).await?;
        for id in due {
            report.steps += 1;
            if let Err(error) = self.advance_saved_card(&id).await {
                report.failed += 1;
                tracing::error!(%id, %error, private = ?error, "a card did not get on; it is tried again");
            }
        }
        let due = self.store.read(now, |now, tx| Box::pin(top_up_rule::due(tx, *now, RULES_AT_ONCE))).await?;
        for id in due {
            report.steps += 1;
            if let Err(error) = self.look_at_rule(&id).await {
                report.failed += 1;
                tracing::error!(organization = %id, %error, private = ?error, "a rule for top-ups was not looked at; it is tried again");
            }
        }
        let due = self.store.read(now, |now, tx| Box::pin(top_up::due(tx, *now, AT_ONCE))).await?;
        for id in due {
            report.steps += 1;
            if let Err(error) = self.advance_top_up(&id).await {
                report.failed += 1;
                tracing::error!(%id, %error, private = ?error, "a top-up did not get on; it is tried again");
            }
        }
        let due = self.store.read(now, |now, tx| Box::pin(refund::due(tx, *now, AT_ONCE))).await?;
        for id in due {
            report.steps += 1;
            if let Err(error) = self.advance_refund(&id).await {
                report.failed += 1;
                tracing::error!(%id, %error, private = ?error, "a refund did not get on; it is tried again");
            }
        }
        if let Err(error) = self.reconcile_payouts().await {
            report.failed += 1;
            tracing::error!(%error, private = ?error, "payouts were not looked at; it is tried again");
        }
        Ok(report)
    }

    /// Does the step of a top-up that is due, if there is one. What was prepared is charged at once.
    pub(crate) async fn advance_top_up(&self, id: &TopUpId) -> Result<()> {
        if self.step_top_up(id).await? {
            self.step_top_up(id).await?;
        }
        Ok(())
    }

    /// Whether it is a charge that was prepared.
    async fn step_top_up(&self, id: &TopUpId) -> Result<bool> {
        let claimed = self.store.write((self, id), |(cloud, id), tx| Box::pin(cloud.claim_top_up(tx, id))).await?;
        let Some(top_up) = claimed else { return Ok(false) };
        let is_card = top_up.method == PaymentMethod::Card;
        let outcome = if is_card { self.ask_card(&top_up).await } else { self.ask(&top_up).await };
        self.store
            .write((self, id, &top_up, &outcome), |(cloud, id, asked, outcome), tx| {
                Box::pin(async move {
                    let known = top_up::get(tx, &ANY, id).await?;
                    cloud.note_outcome(tx, asked, known, outcome).await
                })
            })
            .await?;
        Ok(is_card && matches!(outcome, Outcome::Opened(_)))
    }

    /// The step that is due, if there is one, and nobody else does it. A card that is not kept any more is not charged.
    async fn claim_top_up(&self, tx: &mut Tx, id: &TopUpId) -> Result<Option<TopUp>> {
        let now = self.now();
        let known = top_up::get(tx, &ANY, id).await?;
        if known.next_at.is_none_or(|at| at > now) {
            return Ok(None);
        }
        let was = (known.state, known.step);
        let is_to_charge = known.state == TopUpState::Pending && matches!(known.step, TopUpStep::Open | TopUpStep::Charge);
        let is_gone = is_to_charge && is_card_gone(tx, &known).await?;
        let claimed = TopUp { next_at: Some(now.plus(CLAIM)), ..known };
        if !is_gone {
            return Ok(top_up::update(tx, was, &claimed).await?.then_some(claimed));
        }
        let reason = Some("the card was removed".to_owned());
        if claimed.checkout.is_some() {
            // It is prepared: it is called off, and then what is true counts.
            let claimed = TopUp { step: TopUpStep::Close, tries: 0, reason, ..claimed };
            return Ok(top_up::update(tx, was, &claimed).await?.then_some(claimed));
        }
        let ended = self.ended(claimed, TopUpState::Cancelled, reason);
        changed(top_up::update(tx, was, &ended).await?)?;
        let detail = ended.reason.clone().unwrap_or_default();
        self.record_top_up(tx, &Actor::system(), &ended, (ended_as(ended.state), detail)).await?;
        self.note_rule_failure(tx, &ended, false).await.map(|()| None)
    }

    /// Asks the processor what the step needs. Outside of any transaction.
    async fn ask(&self, top_up: &TopUp) -> Outcome {
        let port = match self.settings.payments.port(top_up.method) {
            Ok(port) => port,
            Err(error) => {
                return Outcome::Failed(PaymentFailure::Unclear { why: error.to_string(), key_is_used: false });
            }
        };
        let key = key_of(top_up.id.as_str(), top_up.calls);
        let Some(checkout) = &top_up.checkout else {
            let ask = CheckoutAsk {
                top_up: top_up.id.clone(),
                key,
                amount: top_up.amount,
                currency: top_up.currency,
                description: "Credit".to_owned(),
                expires_at: top_up.expires_at,
            };
            return port.open(&ask).await.map_or_else(Outcome::Failed, Outcome::Opened);
        };
        let closing = top_up.step == TopUpStep::Close;
        if closing && let Err(PaymentFailure::Unclear { why, key_is_used }) = port.close(checkout, &format!("{key}-close")).await {
            return Outcome::Failed(PaymentFailure::Unclear { why, key_is_used });
        }
        seen(port.look(checkout).await, closing)
    }

    /// The same of one that charges a card. Charging again what was charged is refused, so it is asked what is true
    /// whatever the answer to it was.
    async fn ask_card(&self, top_up: &TopUp) -> Outcome {
        let unclear = |error: Error| Outcome::Failed(PaymentFailure::Unclear { why: error.to_string(), key_is_used: false });
        let port = match self.settings.payments.cards() {
            Ok(port) => port,
            Err(error) => return unclear(error),
        };
        let key = key_of(top_up.id.as_str(), top_up.calls);
        let Some(charge) = &top_up.checkout else {
            return match self.charge_ask(top_up, key).await {
                Ok(ask) => {
                    port.prepare(&ask).await.map_or_else(Outcome::Failed, |name| Outcome::Opened(Checkout { name, url: None }))
                }
                Err(error) => unclear(error),
            };
        };
        // What was not charged in time is not charged late.
        let is_late = top_up.step == TopUpStep::Charge && self.now() >= top_up.expires_at;
        let step = if is_late { TopUpStep::Close } else { top_up.step };
        let closing = step == TopUpStep::Close;
        let told = match step {
            TopUpStep::Charge => port.charge(charge, &format!("{key}-charge")).await,
            TopUpStep::Close => port.call_off(charge, &format!("{key}-close")).await,
            TopUpStep::Open | TopUpStep::Look | TopUpStep::Done => Ok(()),
        };
        let refused = match told {
            Err(PaymentFailure::Unclear { why, key_is_used }) => {
                return Outcome::Failed(PaymentFailure::Unclear { why, key_is_used });
            }
            Err(PaymentFailure::Refused(why)) => Some(why),
            Ok(()) => None,
        };
        match port.look_at_charge(charge).await {
            // It was not even tried, and will not be: the card is gone.
            Ok(PaymentProgress::Open) if step == TopUpStep::Charge => match refused {
                Some(why) => Outcome::Seen { progress: PaymentProgress::Failed(why), closing },
                None => Outcome::Failed(PaymentFailure::Unclear { why: "it was not charged".to_owned(), key_is_used: true }),
            },
            looked => seen(looked, closing),
        }
    }

    async fn charge_ask(&self, top_up: &TopUp, key: String) -> Result<ChargeAsk> {
        let missing = || Error::internal(format!("{} names no card that was saved", top_up.id));
        let id = top_up.card.as_ref().ok_or_else(missing)?;
        let card = self.store.read(id, |id, tx| Box::pin(saved_card::get(tx, &ANY, id))).await?;
        let kept = card.kept.ok_or_else(missing)?;
        Ok(ChargeAsk {
            top_up: top_up.id.clone(),
            key,
            amount: top_up.amount,
            currency: top_up.currency,
            description: "Credit".to_owned(),
            customer: kept.customer,
            card: kept.name,
        })
    }

    /// Writes down what a step brought to light.
    async fn note_outcome(&self, tx: &mut Tx, asked: &TopUp, known: TopUp, outcome: &Outcome) -> Result<()> {
        let was = (known.state, known.step);
        if let Outcome::Seen { progress: PaymentProgress::Paid(paid), .. } = outcome {
            return match self.succeed(tx, &Actor::system(), known.clone(), paid).await? {
                None => Ok(()),
                Some(problem) => self.refuse_payment(tx, known, (&paid.payment, paid), problem).await,
            };
        }
        // What was asked is no longer what is to be done, and whoever changed it does the rest.
        let is_stale = was != (asked.state, asked.step) && !matches!(outcome, Outcome::Opened(_));
        if is_stale || matches!(outcome, Outcome::Opened(_)) && known.checkout.is_some() {
            return Ok(());
        }
        // Whoever was told something meanwhile wants to be asked sooner.
        let woken = known.next_at.filter(|at| Some(*at) != asked.next_at);
        let next = self.after(known, outcome);
        let next_at = next.next_at.map(|at| woken.map_or(at, |woken| at.min(woken)));
        let next = TopUp { next_at, ..next };
        changed(top_up::update(tx, was, &next).await?)?;
        if let (Outcome::Opened(_), Some(TopUpCause::Confirmation)) = (outcome, next.cause) {
            self.mail_confirmation(tx, &next).await?;
        }
        if was.0 == TopUpState::Pending && next.state != TopUpState::Pending {
            let detail = next.reason.clone().unwrap_or_default();
            self.record_top_up(tx, &Actor::system(), &next, (ended_as(next.state), detail)).await?;
            let needs_customer = matches!(outcome, Outcome::Seen { progress: PaymentProgress::NeedsCustomer(_), .. });
            self.note_rule_failure(tx, &next, needs_customer).await?;
        }
        Ok(())
    }

    /// What a top-up is after a step that brought no payment to light.
    fn after(&self, known: TopUp, outcome: &Outcome) -> TopUp {
        let (now, is_pending) = (self.now(), known.state == TopUpState::Pending);
        let over = if now >= known.expires_at { TopUpState::Expired } else { TopUpState::Cancelled };
        match outcome {
            Outcome::Opened(checkout) if is_pending => {
                let is_card = known.method == PaymentMethod::Card;
                let next_at = if is_card { now } else { next_look(known.created_at, now) };
                let step = if is_card { TopUpStep::Charge } else { TopUpStep::Look };
                let (checkout, url) = (Some(checkout.name.clone()), checkout.url.clone());
                TopUp { checkout, url, step, next_at: Some(next_at), tries: 0, ..known }
            }
            // It was called off before it was known where to pay: nobody shall.
            Outcome::Opened(checkout) => {
                let name = Some(checkout.name.clone());
                TopUp { checkout: name, step: TopUpStep::Close, next_at: Some(now), tries: 0, ..known }
            }
            Outcome::Seen { progress: PaymentProgress::Open, closing: false } if is_pending && now >= known.expires_at => {
                TopUp { step: TopUpStep::Close, next_at: Some(now), tries: 0, ..known }
            }
            Outcome::Seen { progress: PaymentProgress::Open, closing: false } if is_pending => {
                TopUp { next_at: Some(next_look(known.created_at, now)), tries: 0, ..known }
            }
            Outcome::Seen { progress: PaymentProgress::Processing, .. } => {
                TopUp { step: TopUpStep::Look, next_at: Some(next_look(known.created_at, now)), tries: 0, ..known }
            }
            Outcome::Seen { progress: PaymentProgress::Failed(why) | PaymentProgress::NeedsCustomer(why), closing }
                if is_pending =>
            {
                let failed = self.ended(known, TopUpState::Failed, Some(why.clone()));
                // What was prepared for a card could still be charged.
                let is_left = failed.method == PaymentMethod::Card && !closing;
                if is_left { TopUp { step: TopUpStep::Close, next_at: Some(now), ..failed } } else { failed }
            }
            Outcome::Seen { .. } if is_pending => {
                let why = known.reason.clone();
                self.ended(known, over, why)
            }
            Outcome::Seen { .. } => TopUp { step: TopUpStep::Done, next_at: None, tries: 0, ..known },
            Outcome::Failed(PaymentFailure::Refused(why)) if known.step == TopUpStep::Open => {
                self.ended(known, TopUpState::Failed, Some(why.clone()))
            }
            // It is known to nobody: what cannot be looked at is called off when its time is over.
            Outcome::Failed(PaymentFailure::Refused(_))
                if is_pending && known.step == TopUpStep::Look && now >= known.expires_at =>
            {
                TopUp { step: TopUpStep::Close, next_at: Some(now), tries: 0, ..known }
            }
            Outcome::Failed(failure) => self.later(known, failure),
        }
    }

    /// What is not clear is asked again, later each time. What nobody was told of in time is over.
    fn later(&self, known: TopUp, failure: &PaymentFailure) -> TopUp {
        let (now, tries) = (self.now(), known.tries.saturating_add(1));
        let (why, key_is_used) = match failure {
            PaymentFailure::Refused(why) => (why, false),
            PaymentFailure::Unclear { why, key_is_used } => (why, *key_is_used),
        };
        tracing::warn!(id = %known.id, step = known.step.as_str(), tries, why, "it is not clear how far a payment is");
        if known.step == TopUpStep::Open && now >= known.expires_at {
            return self.ended(known, TopUpState::Expired, Some("it did not become clear where to pay".to_owned()));
        }
        let calls = known.calls + i64::from(key_is_used);
        TopUp { tries, calls, next_at: Some(backoff(now, tries)), ..known }
    }

    /// Money came that is not what the top-up is over: it waits for an operator.
    async fn refuse_payment(
        &self,
        tx: &mut Tx,
        known: TopUp,
        (transaction, paid): (&str, &sublet_core::payment::Paid),
        problem: IncomingProblem,
    ) -> Result<()> {
        let was = (known.state, known.step);
        // Of a processor, a transaction is the same however it was asked for.
        let source = if known.method == PaymentMethod::Card { PaymentMethod::Stripe } else { known.method };
        let amount = Some((paid.amount, paid.currency));
        self.quarantine_payment(tx, (source, transaction), amount, (known.id.to_string(), problem)).await?;
        if known.state == TopUpState::Succeeded {
            return Ok(());
        }
        let why = format!("{} {} came, and the operator looks at it", paid.amount, paid.currency);
        let failed = self.ended(known, TopUpState::Failed, Some(why.clone()));
        changed(top_up::update(tx, was, &failed).await?)?;
        self.record_top_up(tx, &Actor::system(), &failed, ("top_up.fail", why)).await?;
        self.note_rule_failure(tx, &failed, false).await
    }
}

/// What was seen. Where it is known to nobody although it was called off, nothing can be paid by it.
fn seen(looked: Result<PaymentProgress, PaymentFailure>, closing: bool) -> Outcome {
    match looked {
        Ok(progress) => Outcome::Seen { progress, closing },
        Err(PaymentFailure::Refused(_)) if closing => Outcome::Seen { progress: PaymentProgress::Closed, closing },
        Err(failure) => Outcome::Failed(failure),
    }
}

/// The key of a question follows from the row that it is about.
pub(crate) fn key_of(id: &str, calls: i64) -> String {
    if calls == 0 { id.to_owned() } else { format!("{id}-{calls}") }
}

const fn ended_as(state: TopUpState) -> &'static str {
    match state {
        TopUpState::Pending => "top_up.change",
        TopUpState::Succeeded => "top_up.succeed",
        TopUpState::Failed => "top_up.fail",
        TopUpState::Cancelled => "top_up.end",
        TopUpState::Expired => "top_up.expire",
    }
}
