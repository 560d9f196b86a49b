//! Stripe's objects, as far as they are read.

use std::collections::BTreeMap;

use serde::Deserialize;
use sublet_core::payment::{Paid, PaymentFailure, PaymentProgress, RefundProgress, SeenRefund};
use sublet_core::{Currency, Nanos};

use crate::amount::from_stripe;

/// A Checkout Session; its payment is there where it was asked for.
#[derive(Deserialize)]
pub struct Session {
    pub id: String,
    pub url: Option<String>,
    status: Option<String>,
    payment_status: String,
    amount_total: Option<i64>,
    currency: Option<String>,
    payment_intent: Option<Expanded>,
}

/// An object, or only its name.
#[derive(Deserialize)]
#[serde(untagged)]
enum Expanded {
    Whole(Box<PaymentIntent>),
    Name(serde::de::IgnoredAny),
}

#[derive(Deserialize)]
pub struct PaymentIntent {
    id: String,
    status: String,
    amount_received: Option<i64>,
    currency: Option<String>,
    last_payment_error: Option<PaymentError>,
    latest_charge: Option<Charge>,
}

#[derive(Deserialize)]
struct PaymentError {
    code: Option<String>,
    message: Option<String>,
}

impl PaymentError {
    /// What the customer may read.
    fn told(&self) -> Option<String> {
        let message = self.message.as_deref()?;
        Some(message.chars().filter(|letter| !letter.is_control()).take(200).collect())
    }
}

#[derive(Deserialize)]
struct Charge {
    balance_transaction: Option<BalanceTransaction>,
}

#[derive(Deserialize)]
struct BalanceTransaction {
    fee: i64,
    currency: String,
}

impl Session {
    pub fn progress(&self) -> Result<PaymentProgress, PaymentFailure> {
        let intent = match &self.payment_intent {
            Some(Expanded::Whole(intent)) => Some(intent),
            Some(Expanded::Name(_)) | None => None,
        };
        match (self.status.as_deref(), self.payment_status.as_str()) {
            (_, "paid") => self.paid(intent.map(AsRef::as_ref)).map(PaymentProgress::Paid),
            (Some("open"), "unpaid") => Ok(PaymentProgress::Open),
            (Some("expired"), "unpaid") => Ok(PaymentProgress::Closed),
            // The money is on its way, or did not come.
            (Some("complete"), "unpaid") => Ok(match intent {
                Some(intent) if matches!(intent.status.as_str(), "requires_payment_method" | "canceled") => {
                    let told = intent.last_payment_error.as_ref().and_then(PaymentError::told);
                    PaymentProgress::Failed(told.unwrap_or_else(|| "the payment did not come through".to_owned()))
                }
                _ => PaymentProgress::Processing,
            }),
            (status, payment) => Err(unknown(format!("a session is {status:?} and {payment}"))),
        }
    }

    fn paid(&self, intent: Option<&PaymentIntent>) -> Result<Paid, PaymentFailure> {
        let intent = intent.ok_or_else(|| unknown("a session is paid and names no payment".to_owned()))?;
        let amount = self.amount_total.zip(self.currency.as_deref()).and_then(|(units, currency)| from_stripe(units, currency));
        let (amount, currency) = amount.ok_or_else(|| unknown("a session is paid in no known currency".to_owned()))?;
        Ok(Paid { payment: intent.id.clone(), amount, currency, fee: intent.fee() })
    }
}

impl PaymentIntent {
    fn fee(&self) -> Option<(Nanos, Currency)> {
        let told = self.latest_charge.as_ref().and_then(|charge| charge.balance_transaction.as_ref());
        let fee = told.and_then(|transaction| from_stripe(transaction.fee, &transaction.currency));
        fee.filter(|(fee, _)| !fee.is_negative())
    }

    /// Of one that charges a saved card.
    pub fn progress(&self) -> Result<PaymentProgress, PaymentFailure> {
        let told = || self.last_payment_error.as_ref().and_then(PaymentError::told);
        match self.status.as_str() {
            "succeeded" => {
                let amount = self.amount_received.zip(self.currency.as_deref());
                let amount = amount.and_then(|(units, currency)| from_stripe(units, currency));
                let (amount, currency) = amount.ok_or_else(|| unknown("a card was charged in no known currency".to_owned()))?;
                Ok(PaymentProgress::Paid(Paid { payment: self.id.clone(), amount, currency, fee: self.fee() }))
            }
            "processing" => Ok(PaymentProgress::Processing),
            "requires_confirmation" => Ok(PaymentProgress::Open),
            "canceled" => Ok(PaymentProgress::Closed),
            "requires_action" => Ok(PaymentProgress::NeedsCustomer("the bank asks for a confirmation".to_owned())),
            "requires_payment_method" => {
                let code = self.last_payment_error.as_ref().and_then(|error| error.code.as_deref());
                let told = told().unwrap_or_else(|| "the card was not charged".to_owned());
                let needs_customer = code == Some("authentication_required");
                Ok(if needs_customer { PaymentProgress::NeedsCustomer(told) } else { PaymentProgress::Failed(told) })
            }
            other => Err(unknown(format!("a charge of a card is {other}"))),
        }
    }
}

#[derive(Deserialize)]
pub struct RefundObject {
    pub id: String,
    /// `null` where it is not known yet.
    status: Option<String>,
    failure_reason: Option<String>,
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
}

impl RefundObject {
    pub fn seen(&self) -> Result<SeenRefund, PaymentFailure> {
        let progress = match self.status.as_deref() {
            None | Some("pending" | "requires_action") => RefundProgress::Pending,
            Some("succeeded") => RefundProgress::Paid,
            Some(status @ ("failed" | "canceled")) => {
                let reason = self.failure_reason.as_deref().unwrap_or(status);
                RefundProgress::Failed(format!("Stripe could not pay it: {}", reason.replace('_', " ")))
            }
            Some(other) => return Err(unknown(format!("a refund is {other}"))),
        };
        Ok(SeenRefund { name: self.id.clone(), progress })
    }
}

#[derive(Deserialize)]
pub struct RefundList {
    pub data: Vec<RefundObject>,
    pub has_more: bool,
}

/// Something that this version does not know is not taken for anything.
pub fn unknown(why: String) -> PaymentFailure {
    PaymentFailure::Unclear { why, key_is_used: false }
}
