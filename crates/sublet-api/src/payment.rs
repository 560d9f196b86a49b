//! How a customer's money comes in and goes out: top-ups, what arrived, refunds.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sublet_core::id::{CreditGrantId, IncomingPaymentId, OrganizationId, RefundId, TopUpId};

use crate::list::list_query;
use crate::money::Money;
use crate::object::{BankStatementTag, IncomingPaymentTag, PaymentNoticeTag, RefundTag, TopUpTag};
use crate::schema::IdText;
use crate::time::{Rfc3339, UnixSeconds};

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$note:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "snake_case")]
        pub enum $name { $($(#[$note])* $variant),+ }

        impl $name {
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];
            pub const fn as_str(self) -> &'static str { match self { $(Self::$variant => $text),+ } }
        }

        impl std::str::FromStr for $name {
            type Err = sublet_core::Error;
            fn from_str(text: &str) -> sublet_core::Result<Self> {
                Self::ALL.iter().copied().find(|known| known.as_str() == text).ok_or_else(|| {
                    let known: Vec<&str> = Self::ALL.iter().map(|known| known.as_str()).collect();
                    sublet_core::Error::new(sublet_core::ErrorCode::InvalidRequest, format!("it is one of {}", known.join(", ")))
                })
            }
        }
    };
}
pub(crate) use words;

words! {
    /// How a customer pays in.
    PaymentMethod {
        /// A transfer that names the reference.
        Bank = "bank",
        /// On a page of Stripe.
        Stripe = "stripe",
        /// With the card that is saved at Stripe.
        Card = "card",
    }
}

words! {
    /// Why there is a top-up that nobody asked for by itself.
    TopUpCause {
        /// The credit fell below what the rule says.
        Threshold = "threshold",
        /// It is the day that the rule names.
        Period = "period",
        /// The bank of the card wants the customer to confirm a charge of either.
        Confirmation = "confirmation",
    }
}

words! {
    /// What became of a top-up.
    TopUpStatus {
        /// Nothing is paid yet.
        Pending = "pending",
        /// It is credit.
        Succeeded = "succeeded",
        Failed = "failed",
        Cancelled = "cancelled",
        /// Nothing was paid in time.
        Expired = "expired",
    }
}

words! {
    /// What became of a refund.
    RefundStatus {
        /// Somebody else than who asked for it has to approve it.
        Requested = "requested",
        /// It is to be paid.
        Approved = "approved",
        Paid = "paid",
        /// By the operator; it is credit again.
        Rejected = "rejected",
        /// By the customer; it is credit again.
        Cancelled = "cancelled",
        /// It could not be paid; it is credit again.
        Failed = "failed",
    }
}

words! {
    /// What became of money that arrived.
    IncomingStatus {
        /// It paid a top-up.
        Matched = "matched",
        /// The operator has to say what to do with it.
        Quarantined = "quarantined",
        /// The operator made credit of it.
        Credited = "credited",
        /// The operator sent it back, or it is none of a customer's.
        Returned = "returned",
    }
}

words! {
    /// Why money that arrived is not counted by itself.
    IncomingProblem {
        NoReference = "no_reference",
        SeveralReferences = "several_references",
        UnknownReference = "unknown_reference",
        /// It names a top-up that is paid in another way.
        OtherMethod = "other_method",
        WrongCurrency = "wrong_currency",
        Partial = "partial",
        Excess = "excess",
        PaidAlready = "paid_already",
        /// The top-up was cancelled, or expired.
        NotPending = "not_pending",
        /// A processor told of a payment that nobody here asked for.
        UnknownPayment = "unknown_payment",
        /// A processor told of a refund that nobody here asked for.
        UnknownRefund = "unknown_refund",
        /// A refund that was paid came back.
        RefundReturned = "refund_returned",
        /// A customer disputes a payment with its bank.
        Disputed = "disputed",
    }
}

words! {
    /// What is done with money that is quarantined.
    IncomingAction {
        /// It becomes credit of an organization.
        Credit = "credit",
        /// It was sent back, or is none of a customer's.
        Return = "return",
    }
}

/// What a customer means to pay in, and how far it is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct TopUp {
    pub object: TopUpTag,
    #[schemars(with = "IdText<TopUpId>")]
    pub id: TopUpId,
    #[schemars(with = "IdText<OrganizationId>")]
    pub organization: OrganizationId,
    pub method: PaymentMethod,
    pub amount: Money,
    pub status: TopUpStatus,
    /// What of the rule it is for; null if somebody asked for it.
    pub cause: Option<TopUpCause>,
    /// What a bank transfer has to name (ISO 11649); null for other methods.
    pub reference: Option<String>,
    /// Where to pay; null for bank transfers, and for a moment where the processor did not answer yet.
    pub checkout_url: Option<String>,
    /// Why it is as it is.
    pub reason: Option<String>,
    /// The credit it became.
    #[schemars(with = "Option<IdText<CreditGrantId>>")]
    pub credit_grant: Option<CreditGrantId>,
    /// What of it went back, or is on its way back, through its processor.
    pub refunded: Money,
    /// What the processor keeps for itself, for the operator; null where it is not known.
    pub fee: Option<Money>,
    pub expires_at: Rfc3339,
    pub created_at: UnixSeconds,
    pub ended_at: Option<Rfc3339>,
}

/// Body that creates a top-up.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateTopUp {
    /// In the account's currency, in whole minor units.
    pub amount: Money,
    pub method: PaymentMethod,
}

list_query! {
    /// Which top-ups.
    TopUpListQuery {
        #[schemars(with = "Option<IdText<OrganizationId>>")]
        organization: OrganizationId,
        status: TopUpStatus,
    }
}

/// Paid credit on its way back.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Refund {
    pub object: RefundTag,
    #[schemars(with = "IdText<RefundId>")]
    pub id: RefundId,
    #[schemars(with = "IdText<OrganizationId>")]
    pub organization: OrganizationId,
    pub amount: Money,
    /// Why it was asked for.
    pub note: String,
    pub status: RefundStatus,
    /// How it is paid, since it was approved.
    pub method: Option<PaymentMethod>,
    /// The payment that is given back, if a processor does.
    #[schemars(with = "Option<IdText<TopUpId>>")]
    pub top_up: Option<TopUpId>,
    /// The bank's or processor's name of what was paid out.
    pub transaction_id: Option<String>,
    /// The key that asked for it.
    pub requested_by: String,
    /// The key that approved it.
    pub approved_by: Option<String>,
    /// Why it was rejected, cancelled, or failed.
    pub reason: Option<String>,
    pub created_at: UnixSeconds,
    pub approved_at: Option<Rfc3339>,
    pub ended_at: Option<Rfc3339>,
}

/// Body that asks for paid credit back.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateRefund {
    /// In the account's currency, in whole minor units; at most the paid credit that is there.
    pub amount: Money,
    /// One line: why.
    pub note: String,
}

/// Body by which the operator asks for a customer's paid credit back.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OperatorCreateRefund {
    #[schemars(with = "IdText<OrganizationId>")]
    pub organization: OrganizationId,
    pub amount: Money,
    /// One line: why.
    pub note: String,
}

/// Body that approves a refund.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ApproveRefund {
    /// The payment that its processor gives back; by bank transfer if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<IdText<TopUpId>>")]
    pub top_up: Option<TopUpId>,
}

/// Body that rejects a refund.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RejectRefund {
    /// One line that the customer reads.
    pub reason: String,
}

/// Body that notes the transfer by which a refund was paid.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PayRefund {
    /// The bank's name of the transfer.
    pub transaction_id: String,
}

list_query! {
    /// Which refunds.
    RefundListQuery {
        #[schemars(with = "Option<IdText<OrganizationId>>")]
        organization: OrganizationId,
        status: RefundStatus,
    }
}

/// Money that arrived, or that a processor told of.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct IncomingPayment {
    pub object: IncomingPaymentTag,
    #[schemars(with = "IdText<IncomingPaymentId>")]
    pub id: IncomingPaymentId,
    pub source: PaymentMethod,
    /// The bank's or processor's name of it.
    pub transaction_id: String,
    /// Null where the processor did not say.
    pub amount: Option<Money>,
    /// What came with it.
    pub reference: String,
    pub status: IncomingStatus,
    /// Why it was quarantined.
    pub problem: Option<IncomingProblem>,
    /// The top-up that it paid, or names.
    #[schemars(with = "Option<IdText<TopUpId>>")]
    pub top_up: Option<TopUpId>,
    /// Whose it is, or seems to be.
    #[schemars(with = "Option<IdText<OrganizationId>>")]
    pub organization: Option<OrganizationId>,
    /// What the operator said of it, and who.
    pub note: Option<String>,
    pub answered_by: Option<String>,
    #[schemars(with = "Option<IdText<CreditGrantId>>")]
    pub credit_grant: Option<CreditGrantId>,
    pub created_at: UnixSeconds,
    pub answered_at: Option<Rfc3339>,
}

list_query! {
    /// Which payments that arrived.
    IncomingPaymentListQuery { status: IncomingStatus }
}

/// Body that says what is done with money that is quarantined.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AnswerIncomingPayment {
    pub action: IncomingAction,
    /// Whose credit it becomes; only with `credit`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<IdText<OrganizationId>>")]
    pub organization: Option<OrganizationId>,
    /// One line: why.
    pub note: String,
}

/// Body that takes a bank statement in.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImportBankStatement {
    /// CSV with the columns `transaction_id`, `amount`, `currency` and `reference`, at most 1,000 rows.
    pub content: String,
}

/// What became of a statement.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct BankStatement {
    pub object: BankStatementTag,
    pub rows: Vec<StatementRow>,
}

words! {
    /// What became of a row of a statement.
    RowStatus {
        /// It paid a top-up.
        Matched = "matched",
        Quarantined = "quarantined",
        /// It was taken in before.
        Known = "known",
        /// It went out, and is not kept here.
        Outgoing = "outgoing",
    }
}

/// A row of a statement.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct StatementRow {
    pub transaction_id: String,
    pub status: RowStatus,
    #[schemars(with = "Option<IdText<TopUpId>>")]
    pub top_up: Option<TopUpId>,
    pub problem: Option<IncomingProblem>,
}

/// A notice of a processor that was taken.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct PaymentNotice {
    pub object: PaymentNoticeTag,
    /// The processor's name of it.
    pub id: String,
}
