//! The port to whoever takes customers' money: a bank, or a processor of payments.
//!
//! A call names what it is for by our own id and carries a key, so that repeating it does nothing twice. What a
//! processor tells by itself is a hint to ask it: only what it answers when it is asked moves money.
//!
//! Deliberately absent: data of cards. Customers give those to the processor, on its own page.

use std::fmt;

use crate::BoxFuture;
use crate::error::Result;
use crate::id::{RefundId, TopUpId};
use crate::money::{Currency, Nanos};
use crate::time::Timestamp;

/// How a customer pays in.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum PaymentMethod {
    /// A transfer that names our reference.
    Bank,
    /// On a page of Stripe.
    Stripe,
}

impl PaymentMethod {
    pub const ALL: [Self; 2] = [Self::Bank, Self::Stripe];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bank => "bank",
            Self::Stripe => "stripe",
        }
    }
}

impl fmt::Display for PaymentMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a call did not do what it was for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PaymentFailure {
    /// It was not done, and the same call will not be: a card was declined, a field is wrong. Text for the customer.
    Refused(String),
    /// Nobody knows whether it was done, or it can be done later: to be asked, or repeated under the same key.
    Unclear {
        /// For the operator's log.
        why: String,
        /// The processor keeps this failure as the answer under the key: another attempt needs another key.
        key_is_used: bool,
    },
}

/// Asks for a place where a customer can pay.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CheckoutAsk {
    pub top_up: TopUpId,
    /// Repeats have the same one.
    pub key: String,
    pub amount: Nanos,
    pub currency: Currency,
    /// What the customer reads beside the amount.
    pub description: String,
    /// Nothing can be paid there afterwards.
    pub expires_at: Timestamp,
}

/// A place where a customer can pay.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Checkout {
    /// What the processor calls it.
    pub name: String,
    /// `None` where the customer pays by naming the reference.
    pub url: Option<String>,
}

/// A payment that is done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Paid {
    /// What the processor calls it; refunds name it.
    pub payment: String,
    pub amount: Nanos,
    pub currency: Currency,
    /// What the processor keeps for itself, where it says so already, in the currency in which it pays out.
    pub fee: Option<(Nanos, Currency)>,
}

/// How far a payment is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PaymentProgress {
    /// Nothing was paid, and it can still be.
    Open,
    /// The customer did what it could, and the money is on its way.
    Processing,
    Paid(Paid),
    /// Text for the customer.
    Failed(String),
    /// Nothing was paid, and nothing can be any more.
    Closed,
}

/// Asks that part of a payment is paid back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RefundAsk {
    pub refund: RefundId,
    pub key: String,
    /// As [`Paid::payment`] has it.
    pub payment: String,
    pub amount: Nanos,
    pub currency: Currency,
}

/// How far a refund is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RefundProgress {
    Pending,
    Paid,
    /// It did not reach the customer, and the money is ours again.
    Failed(String),
}

/// A refund as the processor knows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SeenRefund {
    pub name: String,
    pub progress: RefundProgress,
}

/// What a notice is about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NoticeSubject {
    /// A payment; `None` if it names no top-up of ours.
    Payment(Option<TopUpId>),
    /// A refund; `None` if it names none of ours.
    Refund(Option<RefundId>),
    /// Something that a person has to look at: a customer disputes a payment.
    Dispute,
    /// Nothing that moves a customer's money.
    Other,
}

/// What a processor tells by itself, known to come from it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Notice {
    /// The same for every delivery of it.
    pub id: String,
    /// What happened, in the processor's words.
    pub kind: String,
    /// What the processor calls what it happened to.
    pub object: String,
    pub subject: NoticeSubject,
    /// What it is over, where it says so in a currency that accounts are kept in.
    pub amount: Option<(Nanos, Currency)>,
}

/// Who takes money and gives it back. Every call can be repeated.
pub trait PaymentPort: Send + Sync {
    /// Whether it can take this amount at all; an error names what would work.
    fn check(&self, amount: Nanos, currency: Currency) -> Result<()>;
    /// Makes a place to pay, or finds the one that was made under the same key.
    fn open<'a>(&'a self, ask: &'a CheckoutAsk) -> BoxFuture<'a, Result<Checkout, PaymentFailure>>;
    /// Asks what became of it.
    fn look<'a>(&'a self, checkout: &'a str) -> BoxFuture<'a, Result<PaymentProgress, PaymentFailure>>;
    /// Closes it, so that nothing can be paid there. Closing what is paid or closed changes nothing.
    fn close<'a>(&'a self, checkout: &'a str, key: &'a str) -> BoxFuture<'a, Result<(), PaymentFailure>>;
    /// Pays back. Only after [`Self::find_refund`] found nothing.
    fn refund<'a>(&'a self, ask: &'a RefundAsk) -> BoxFuture<'a, Result<SeenRefund, PaymentFailure>>;
    /// What became of a refund; `None` if the processor knows none.
    fn find_refund<'a>(&'a self, ask: &'a RefundAsk) -> BoxFuture<'a, Result<Option<SeenRefund>, PaymentFailure>>;
    /// Reads what the processor sent by itself. An error unless it is proven to come from it, and lately.
    fn read_notice(&self, body: &[u8], signature: &str, now: Timestamp) -> Result<Notice>;
}
