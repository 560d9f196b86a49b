//! What Stripe paid out to the owner's bank account, and what it still holds.

use std::collections::BTreeMap;

use serde::Deserialize;
use sublet_core::payment::{BalancePort, PaymentFailure, PayoutPage, PayoutState, SeenPayout};
use sublet_core::{BoxFuture, Currency, Nanos, Result, Timestamp};

use crate::Stripe;
use crate::amount::from_stripe;
use crate::client::Call;
use crate::object::unknown;

/// Longest reason that is kept, in characters.
const REASON_CHARS_MAX: usize = 200;

#[derive(Deserialize)]
struct PayoutList {
    data: Vec<PayoutObject>,
    has_more: bool,
}

#[derive(Deserialize)]
struct PayoutObject {
    id: String,
    amount: i64,
    currency: String,
    status: String,
    failure_message: Option<String>,
    created: i64,
}

#[derive(Deserialize)]
struct Balance {
    available: Vec<Funds>,
    pending: Vec<Funds>,
}

#[derive(Deserialize)]
struct Funds {
    amount: i64,
    currency: String,
}

impl PayoutObject {
    /// `None` where it is in a currency that accounts are not kept in: it is none of theirs.
    fn seen(self) -> Result<Option<SeenPayout>, PaymentFailure> {
        if self.currency.to_ascii_uppercase().parse::<Currency>().is_err() {
            return Ok(None);
        }
        let state = match self.status.as_str() {
            "pending" | "in_transit" => PayoutState::Pending,
            "paid" => PayoutState::Paid,
            "failed" => PayoutState::Failed,
            "canceled" => PayoutState::Cancelled,
            other => return Err(unknown(format!("the payout {} is {other}", self.id))),
        };
        let amount = from_stripe(self.amount, &self.currency);
        let (amount, currency) = amount.ok_or_else(|| unknown(format!("the payout {} is over no whole amount", self.id)))?;
        let plain = |text: String| text.chars().filter(|letter| !letter.is_control()).take(REASON_CHARS_MAX).collect();
        let made_at = Timestamp::from_millis(self.created.saturating_mul(1_000));
        Ok(Some(SeenPayout { name: self.id, amount, currency, state, reason: self.failure_message.map(plain), made_at }))
    }
}

impl Stripe {
    async fn list_payouts(&self, since: Timestamp, after: Option<&str>) -> Result<PayoutPage, PaymentFailure> {
        let since = since.millis().div_euclid(1_000).max(0).to_string();
        let mut query = vec![("limit", "100"), ("created[gte]", since.as_str())];
        query.extend(after.map(|after| ("starting_after", after)));
        let list: PayoutList = self.call(Call::get("/v1/payouts", &query)).await?;
        let next = list.data.last().filter(|_| list.has_more).map(|last| last.id.clone());
        let payouts = list.data.into_iter().filter_map(|payout| payout.seen().transpose()).collect::<Result<_, _>>()?;
        Ok(PayoutPage { payouts, next })
    }

    async fn read_balance(&self) -> Result<Vec<(Nanos, Currency)>, PaymentFailure> {
        let balance: Balance = self.call(Call::get("/v1/balance", &[])).await?;
        let mut held: BTreeMap<Currency, Nanos> = BTreeMap::new();
        for funds in balance.available.iter().chain(&balance.pending) {
            // A currency that accounts are not kept in is none of theirs.
            let Some((amount, currency)) = from_stripe(funds.amount, &funds.currency) else { continue };
            let sum = held.entry(currency).or_insert(Nanos::ZERO);
            *sum = sum.checked_add(amount).map_err(|error| unknown(error.to_string()))?;
        }
        Ok(held.into_iter().map(|(currency, amount)| (amount, currency)).collect())
    }
}

impl BalancePort for Stripe {
    fn payouts<'a>(&'a self, since: Timestamp, after: Option<&'a str>) -> BoxFuture<'a, Result<PayoutPage, PaymentFailure>> {
        Box::pin(self.list_payouts(since, after))
    }
    fn balance(&self) -> BoxFuture<'_, Result<Vec<(Nanos, Currency)>, PaymentFailure>> {
        Box::pin(self.read_balance())
    }
}
