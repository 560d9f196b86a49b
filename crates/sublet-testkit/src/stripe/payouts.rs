//! What the Stripe of tests holds and pays out.

use serde_json::{Value, json};
use sublet_core::Timestamp;

use super::{Asked, FakeStripe, Said, State};

impl FakeStripe {
    /// Makes a payout in a status, over so many minor units.
    pub fn pay_out(&self, (id, status): (&str, &str), (units, currency): (i64, &str), at: Timestamp) {
        self.state().payouts.push(json!({"id": id, "object": "payout", "amount": units, "currency": currency, "status": status,
            "automatic": true, "failure_code": null, "failure_message": null, "created": at.millis() / 1_000}));
    }
    /// A payout gets on.
    pub fn move_payout(&self, id: &str, status: &str) {
        let mut state = self.state();
        let payout = state.payouts.iter_mut().find(|payout| payout["id"] == json!(id)).expect("a payout");
        payout["status"] = json!(status);
        if status == "failed" {
            payout["failure_code"] = json!("account_closed");
            payout["failure_message"] = json!("The bank account has been closed.");
        }
    }
    /// Says how much is held, in minor units.
    pub fn hold(&self, units: i64, currency: &str) {
        self.state().held.insert(currency.to_owned(), units);
    }
}

impl State {
    /// The newest first; pages are shorter than Stripe's, so that there are some.
    pub(super) fn list_payouts(&self, asked: &Asked) -> Said {
        let since: i64 = asked.query("created[gte]").and_then(|second| second.parse().ok()).unwrap_or_default();
        let mut known: Vec<&Value> = self.payouts.iter().rev().filter(|payout| payout["created"].as_i64() >= Some(since)).collect();
        if let Some(after) = asked.query("starting_after") {
            let end = known.iter().position(|payout| payout["id"] == json!(after)).map_or(known.len(), |at| at + 1);
            known.drain(..end);
        }
        let has_more = known.len() > 2;
        known.truncate(2);
        (200, json!({"object": "list", "url": "/v1/payouts", "has_more": has_more, "data": known}))
    }

    /// Half of it can be paid out.
    pub(super) fn balance(&self) -> Said {
        let funds = |share: fn(i64) -> i64| -> Vec<Value> {
            let held = self.held.iter();
            held.map(|(currency, units)| json!({"amount": share(*units), "currency": currency})).collect()
        };
        let (available, pending) = (funds(|units| units / 2), funds(|units| units - units / 2));
        (200, json!({"object": "balance", "livemode": false, "available": available, "pending": pending}))
    }
}
