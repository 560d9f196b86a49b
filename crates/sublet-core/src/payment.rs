//! The port to whoever takes customers' money: a bank, or a processor of payments.
//!
//! A call names what it is for by our own id and carries a key, so that repeating it does nothing twice. What a
//! processor tells by itself is a hint to ask it: only what it answers when it is asked moves money.
//!
//! A saved card is charged in two steps: what is to be charged is prepared first, and moves nothing; charging what was
//! prepared succeeds at most once, however often it is asked for and under whatever key.
//!
//! Deliberately absent: numbers of cards. Customers give those to the processor, on its own page.

use std::fmt;

use crate::BoxFuture;
use crate::error::Result;
use crate::id::{RefundId, SavedCardId, TopUpId};
use crate::money::{Currency, Nanos};
use crate::time::Timestamp;

/// How a customer pays in.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum PaymentMethod {
    /// A transfer that names our reference.
    Bank,
    /// On a page of Stripe.
    Stripe,
    /// With the card that is saved at Stripe.
    Card,
}

impl PaymentMethod {
    pub const ALL: [Self; 3] = [Self::Bank, Self::Stripe, Self::Card];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bank => "bank",
            Self::Stripe => "stripe",
            Self::Card => "card",
        }
    }
}

impl fmt::Display for PaymentMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why there is a top-up that nobody asked for by itself.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum TopUpCause {
    /// The credit fell below what the account's rule says.
    Threshold,
    /// It is the day that the rule names.
    Period,
    /// The customer's bank wants the customer to confirm a charge of either.
    Confirmation,
}

impl TopUpCause {
    pub const ALL: [Self; 3] = [Self::Threshold, Self::Period, Self::Confirmation];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Threshold => "threshold",
            Self::Period => "period",
            Self::Confirmation => "confirmation",
        }
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
    /// The customer's bank takes no charge of the card without the customer. Text for the customer.
    NeedsCustomer(String),
    /// Nothing was paid, and nothing can be any more.
    Closed,
}

/// Asks for a page on which a customer saves a card.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CardPageAsk {
    pub card: SavedCardId,
    /// Repeats have the same one.
    pub key: String,
    /// No card can be saved there afterwards.
    pub expires_at: Timestamp,
}

/// What is shown of a card.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CardFace {
    pub brand: String,
    pub last4: String,
    pub expires_month: u8,
    pub expires_year: u16,
}

/// A card that a processor keeps.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeptCard {
    /// What the processor calls whom it belongs to.
    pub customer: String,
    /// What the processor calls the card.
    pub name: String,
    pub face: CardFace,
}

/// How far the saving of a card is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CardProgress {
    /// Nothing was saved, and it can still be.
    Open,
    Saved(KeptCard),
    /// Nothing was saved, and nothing can be any more.
    Closed,
}

/// Asks that a charge of a saved card is prepared.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChargeAsk {
    pub top_up: TopUpId,
    pub key: String,
    pub amount: Nanos,
    pub currency: Currency,
    pub description: String,
    /// As [`KeptCard`] has them.
    pub customer: String,
    pub card: String,
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
    /// A card that is being saved.
    Card(SavedCardId),
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

/// Who keeps customers' cards and charges them. Every call can be repeated.
pub trait CardPort: Send + Sync {
    /// Makes a page on which a card is saved, or finds the one that was made under the same key.
    fn open_page<'a>(&'a self, ask: &'a CardPageAsk) -> BoxFuture<'a, Result<Checkout, PaymentFailure>>;
    fn look_at_page<'a>(&'a self, page: &'a str) -> BoxFuture<'a, Result<CardProgress, PaymentFailure>>;
    /// Lets the processor forget a card. A card that it does not know any more is refused.
    fn forget<'a>(&'a self, card: &'a str, key: &'a str) -> BoxFuture<'a, Result<(), PaymentFailure>>;
    /// Prepares a charge and answers its name. No money moves.
    fn prepare<'a>(&'a self, ask: &'a ChargeAsk) -> BoxFuture<'a, Result<String, PaymentFailure>>;
    /// Charges what was prepared, while the customer is not there. What became of it is what [`Self::look_at_charge`] says.
    fn charge<'a>(&'a self, charge: &'a str, key: &'a str) -> BoxFuture<'a, Result<(), PaymentFailure>>;
    /// `Open` where it was prepared and not charged.
    fn look_at_charge<'a>(&'a self, charge: &'a str) -> BoxFuture<'a, Result<PaymentProgress, PaymentFailure>>;
    /// Calls off what was prepared, so that it cannot be charged. What was charged stays as it is, and is refused.
    fn call_off<'a>(&'a self, charge: &'a str, key: &'a str) -> BoxFuture<'a, Result<(), PaymentFailure>>;
}

/// How far a payout is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum PayoutState {
    /// It is on its way, or will be.
    Pending,
    /// It is on the bank account. It can still come back.
    Paid,
    /// The bank did not take it, or sent it back.
    Failed,
    Cancelled,
}

impl PayoutState {
    pub const ALL: [Self; 4] = [Self::Pending, Self::Paid, Self::Failed, Self::Cancelled];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Paid => "paid",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// A payout as the processor knows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SeenPayout {
    pub name: String,
    /// Below zero where the processor took money from the bank account.
    pub amount: Nanos,
    pub currency: Currency,
    pub state: PayoutState,
    /// Why it failed.
    pub reason: Option<String>,
    pub made_at: Timestamp,
}

/// Some payouts, the newest first.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PayoutPage {
    pub payouts: Vec<SeenPayout>,
    /// Names where the next page begins, if there is one.
    pub next: Option<String>,
}

/// Who holds money between customers and the owner's bank account.
pub trait BalancePort: Send + Sync {
    /// Payouts that were made since an instant; `after` is where the page before it ended.
    fn payouts<'a>(&'a self, since: Timestamp, after: Option<&'a str>) -> BoxFuture<'a, Result<PayoutPage, PaymentFailure>>;
    /// What it holds, of each currency, whether it can be paid out yet or not.
    fn balance(&self) -> BoxFuture<'_, Result<Vec<(Nanos, Currency)>, PaymentFailure>>;
}
