//! The reconciler of payments: whatever is to be done with a bank or processor is a row with an instant, and is done
//! outside of any transaction, then written down in one.
//!
//! A step can be repeated at any point: its question has a key that follows from the row, and what is written depends
//! on the answer and on the row as it is then, not as it was.

use sublet_core::id::TopUpId;
use sublet_core::payment::{Checkout, CheckoutAsk, PaymentFailure, PaymentProgress};
use sublet_core::{DurationMs, Result};
use sublet_store::incoming_payment::IncomingProblem;
use sublet_store::top_up::{self, TopUp, TopUpState, TopUpStep};
use sublet_store::{Tx, refund};

use crate::payment::backoff;
use crate::top_up::{ANY, changed, next_look};
use crate::{Actor, Cloud};

/// How often it is looked for what is due.
const LOOK_PERIOD: DurationMs = DurationMs::from_seconds(2);
/// What is done in one look, of each kind.
const AT_ONCE: i64 = 20;
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
        Ok(report)
    }

    /// Does the step of a top-up that is due, if there is one.
    pub(crate) async fn advance_top_up(&self, id: &TopUpId) -> Result<()> {
        let claimed = self.store.write((self, id), |(cloud, id), tx| Box::pin(cloud.claim_top_up(tx, id))).await?;
        let Some(top_up) = claimed else { return Ok(()) };
        let outcome = self.ask(&top_up).await;
        self.store
            .write((self, id, &top_up, &outcome), |(cloud, id, asked, outcome), tx| {
                Box::pin(async move {
                    let known = top_up::get(tx, &ANY, id).await?;
                    cloud.note_outcome(tx, asked, known, outcome).await
                })
            })
            .await
    }

    async fn claim_top_up(&self, tx: &mut Tx, id: &TopUpId) -> Result<Option<TopUp>> {
        let now = self.now();
        let known = top_up::get(tx, &ANY, id).await?;
        if known.next_at.is_none_or(|at| at > now) {
            return Ok(None);
        }
        let was = (known.state, known.step);
        let claimed = TopUp { next_at: Some(now.plus(CLAIM)), ..known };
        Ok(top_up::update(tx, was, &claimed).await?.then_some(claimed))
    }

    /// Asks the processor what the step needs. Outside of any transaction.
    async fn ask(&self, top_up: &TopUp) -> Outcome {
        let port = match self.settings.payments.port(top_up.method) {
            Ok(port) => port,
            Err(error) => {
                return Outcome::Failed(PaymentFailure::Unclear { why: error.to_string(), key_is_used: false });
            }
        };
        let key = if top_up.calls == 0 { top_up.id.to_string() } else { format!("{}-{}", top_up.id, top_up.calls) };
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
        port.look(checkout).await.map_or_else(Outcome::Failed, |progress| Outcome::Seen { progress, closing })
    }

    /// Writes down what a step brought to light.
    async fn note_outcome(&self, tx: &mut Tx, asked: &TopUp, known: TopUp, outcome: &Outcome) -> Result<()> {
        let (was, now) = ((known.state, known.step), self.now());
        let is_pending = known.state == TopUpState::Pending;
        // Whoever was told something meanwhile wants to be asked sooner.
        let woken = known.next_at.filter(|at| Some(*at) != asked.next_at);
        let over = if now >= known.expires_at { TopUpState::Expired } else { TopUpState::Cancelled };
        let next = match outcome {
            Outcome::Seen { progress: PaymentProgress::Paid(paid), .. } => {
                return match self.succeed(tx, &Actor::system(), known.clone(), paid).await? {
                    None => Ok(()),
                    Some(problem) => self.refuse_payment(tx, known, (&paid.payment, paid), problem).await,
                };
            }
            // What was asked is no longer what is to be done, and whoever changed it does the rest.
            _ if was != (asked.state, asked.step) && !matches!(outcome, Outcome::Opened(_)) => return Ok(()),
            Outcome::Opened(_) if known.checkout.is_some() => return Ok(()),
            Outcome::Opened(checkout) if is_pending => TopUp {
                checkout: Some(checkout.name.clone()),
                url: checkout.url.clone(),
                step: TopUpStep::Look,
                next_at: Some(next_look(known.created_at, now)),
                tries: 0,
                ..known
            },
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
            Outcome::Seen { progress: PaymentProgress::Failed(why), .. } if is_pending => {
                self.ended(known, TopUpState::Failed, Some(why.clone()))
            }
            Outcome::Seen { .. } if is_pending => self.ended(known, over, None),
            Outcome::Seen { .. } => TopUp { step: TopUpStep::Done, next_at: None, tries: 0, ..known },
            Outcome::Failed(PaymentFailure::Refused(why)) if known.step == TopUpStep::Open => {
                self.ended(known, TopUpState::Failed, Some(why.clone()))
            }
            Outcome::Failed(failure) => self.later(known, failure),
        };
        let next_at = next.next_at.map(|at| woken.map_or(at, |woken| at.min(woken)));
        let next = TopUp { next_at, ..next };
        changed(top_up::update(tx, was, &next).await?)?;
        if is_pending && next.state != TopUpState::Pending {
            let detail = next.reason.clone().unwrap_or_default();
            self.record_top_up(tx, &Actor::system(), &next, (ended_as(next.state), detail)).await?;
        }
        Ok(())
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
        TopUp { tries, calls: known.calls + i64::from(key_is_used), next_at: Some(backoff(now, tries)), ..known }
    }

    /// Money came that is not what the top-up is over: it waits for an operator.
    async fn refuse_payment(
        &self,
        tx: &mut Tx,
        known: TopUp,
        (transaction, paid): (&str, &sublet_core::payment::Paid),
        problem: IncomingProblem,
    ) -> Result<()> {
        let (source, was) = (known.method, (known.state, known.step));
        let amount = Some((paid.amount, paid.currency));
        self.quarantine_payment(tx, (source, transaction), amount, (known.id.to_string(), problem)).await?;
        if known.state == TopUpState::Succeeded {
            return Ok(());
        }
        let why = format!("{} {} came, and the operator looks at it", paid.amount, paid.currency);
        let failed = self.ended(known, TopUpState::Failed, Some(why.clone()));
        changed(top_up::update(tx, was, &failed).await?)?;
        self.record_top_up(tx, &Actor::system(), &failed, ("top_up.fail", why)).await
    }
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
