//! How customers' money comes in and goes out: the ports to banks and processors, and what processors tell.
//!
//! What a processor tells by itself is proven to come from it and taken as a hint: it wakes what it names, and the
//! reconciler asks the processor. So it does not matter whether hints come twice, out of order or not at all. What names
//! nothing of ours is quarantined, where an operator sees it.

use std::sync::Arc;

use sublet_core::payment::{
    BalancePort, CardPort, Checkout, CheckoutAsk, Notice, NoticeSubject, PaymentFailure, PaymentMethod, PaymentPort,
    PaymentProgress, RefundAsk, SeenRefund,
};
use sublet_core::{BoxFuture, Currency, DurationMs, Error, ErrorCode, Nanos, Result, Scope, Timestamp};
use sublet_money::account::Processor;
use sublet_store::incoming_payment::{self, IncomingPayment, IncomingProblem, IncomingState};
use sublet_store::refund::{self, RefundState};
use sublet_store::{Tx, saved_card, top_up};

use crate::Cloud;

/// The first repetition of what went wrong comes so much later; each one after twice as late.
const BACKOFF_BASE: DurationMs = DurationMs::from_seconds(5);
const BACKOFF_MAX: DurationMs = DurationMs::from_hours(1);

/// Who takes money here.
#[derive(Clone)]
pub struct Payments {
    pub bank: Arc<dyn PaymentPort>,
    /// `None` where the operator did not configure it.
    pub stripe: Option<Arc<dyn PaymentPort>>,
    /// Who keeps customers' cards: Stripe, where it is configured.
    pub cards: Option<Arc<dyn CardPort>>,
    /// Who holds what customers paid until it is on the owner's bank account: Stripe, where it is configured.
    pub balance: Option<Arc<dyn BalancePort>>,
}

impl Default for Payments {
    fn default() -> Self {
        Self { bank: Arc::new(BankTransfer), stripe: None, cards: None, balance: None }
    }
}

impl Payments {
    pub(crate) fn port(&self, method: PaymentMethod) -> Result<&Arc<dyn PaymentPort>> {
        match method {
            PaymentMethod::Bank => Ok(&self.bank),
            PaymentMethod::Stripe | PaymentMethod::Card => self.stripe.as_ref().ok_or_else(|| {
                Error::new(ErrorCode::NotOffered, "payments by Stripe are not set up here").param("method").alternative("bank")
            }),
        }
    }

    pub(crate) fn cards(&self) -> Result<&Arc<dyn CardPort>> {
        let none = || Error::new(ErrorCode::NotOffered, "cards are not kept here: payments by Stripe are not set up");
        self.cards.as_ref().ok_or_else(|| none().alternative("a top-up by bank"))
    }
}

/// Transfers between bank accounts. Nothing happens until an operator says what arrived; nothing is asked of anybody.
#[derive(Clone, Copy, Debug)]
pub struct BankTransfer;

impl PaymentPort for BankTransfer {
    fn check(&self, _: Nanos, _: Currency) -> Result<()> {
        Ok(())
    }
    fn open<'a>(&'a self, ask: &'a CheckoutAsk) -> BoxFuture<'a, Result<Checkout, PaymentFailure>> {
        Box::pin(async move { Ok(Checkout { name: ask.top_up.to_string(), url: None }) })
    }
    fn look<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<PaymentProgress, PaymentFailure>> {
        Box::pin(async { Ok(PaymentProgress::Open) })
    }
    fn close<'a>(&'a self, _: &'a str, _: &'a str) -> BoxFuture<'a, Result<(), PaymentFailure>> {
        Box::pin(async { Ok(()) })
    }
    fn refund<'a>(&'a self, _: &'a RefundAsk) -> BoxFuture<'a, Result<SeenRefund, PaymentFailure>> {
        Box::pin(async { Err(PaymentFailure::Refused("a transfer is made by a person".to_owned())) })
    }
    fn find_refund<'a>(&'a self, _: &'a RefundAsk) -> BoxFuture<'a, Result<Option<SeenRefund>, PaymentFailure>> {
        Box::pin(async { Ok(None) })
    }
    fn read_notice(&self, _: &[u8], _: &str, _: Timestamp) -> Result<Notice> {
        Err(Error::new(ErrorCode::NotOffered, "a bank sends no notices"))
    }
}

/// What a name of a method means in the books.
pub(crate) const fn processor(method: PaymentMethod) -> Processor {
    match method {
        PaymentMethod::Bank => Processor::Bank,
        PaymentMethod::Stripe | PaymentMethod::Card => Processor::Stripe,
    }
}

/// When something is tried again that went wrong so often in a row.
pub(crate) fn backoff(now: Timestamp, tries: i64) -> Timestamp {
    let doublings = u32::try_from(tries.clamp(1, 20)).unwrap_or(1) - 1;
    let wait = BACKOFF_BASE.millis().saturating_mul(1_i64 << doublings);
    now.plus(DurationMs::from_millis(wait.min(BACKOFF_MAX.millis())))
}

impl Cloud {
    /// Takes what Stripe sent by itself. Whoever can make its signature is Stripe; nothing is read before that is known.
    pub async fn receive_notice(&self, body: &[u8], signature: &str) -> Result<Notice> {
        let port = self.settings.payments.port(PaymentMethod::Stripe)?;
        let notice = port.read_notice(body, signature, self.now())?;
        self.store.write((self, &notice), |(cloud, notice), tx| Box::pin(cloud.take_notice(tx, notice))).await?;
        Ok(notice)
    }

    async fn take_notice(&self, tx: &mut Tx, notice: &Notice) -> Result<()> {
        let now = self.now();
        let problem = match &notice.subject {
            NoticeSubject::Other => return Ok(()),
            NoticeSubject::Payment(Some(id)) if top_up::find(tx, &Scope::Operator, id).await?.is_some() => {
                return top_up::wake(tx, id, now).await.map(|_| ());
            }
            NoticeSubject::Card(id) => return saved_card::wake(tx, id, now).await,
            NoticeSubject::Refund(Some(id)) => match refund::find(tx, &Scope::Operator, id).await? {
                Some(known) if known.state == RefundState::Approved => {
                    let woken = refund::Refund { next_at: Some(now), ..known };
                    return refund::update(tx, RefundState::Approved, &woken).await.map(|_| ());
                }
                // Only what was paid can come back: of any other one the credit is there already.
                Some(known) if known.state != RefundState::Paid || !notice.kind.ends_with("failed") => return Ok(()),
                Some(_) => IncomingProblem::RefundReturned,
                None => IncomingProblem::UnknownRefund,
            },
            NoticeSubject::Payment(_) => IncomingProblem::UnknownPayment,
            NoticeSubject::Refund(None) => IncomingProblem::UnknownRefund,
            NoticeSubject::Dispute => IncomingProblem::Disputed,
        };
        let reference = format!("{} {}", notice.kind, notice.id);
        self.quarantine_payment(tx, (PaymentMethod::Stripe, &notice.object), notice.amount, (reference, problem)).await
    }

    /// Keeps what nobody knows of where an operator sees it. The same transaction is kept once.
    pub(crate) async fn quarantine_payment(
        &self,
        tx: &mut Tx,
        (source, transaction): (PaymentMethod, &str),
        amount: Option<(Nanos, Currency)>,
        (reference, problem): (String, IncomingProblem),
    ) -> Result<()> {
        let unknown = IncomingPayment {
            id: self.ids.mint(),
            source,
            transaction: transaction.to_owned(),
            amount,
            reference,
            state: IncomingState::Quarantined,
            problem: Some(problem),
            top_up: None,
            organization: None,
            answer: None,
            answered_by: None,
            grant: None,
            created_at: self.now(),
            answered_at: None,
        };
        if incoming_payment::insert(tx, &unknown).await? {
            tracing::warn!(id = %unknown.id, problem = problem.as_str(), "money is quarantined until an operator looks at it");
        }
        Ok(())
    }
}
