//! What the Stripe of tests does with saved cards: pages that save one, and charges while nobody is there.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{FakeStripe, Said, State, error, fee_of};

impl FakeStripe {
    /// Charges of saved cards, charged or not.
    pub fn intents(&self) -> Vec<Value> {
        self.state().intents.values().cloned().collect()
    }
    /// What cards were charged, in minor units.
    pub fn charged(&self) -> i64 {
        self.intents().iter().filter_map(|intent| intent["amount_received"].as_i64()).sum()
    }
    /// Cards that can be charged.
    pub fn cards(&self) -> Vec<String> {
        self.state().cards.keys().cloned().collect()
    }
    /// Nobody can be charged any more.
    pub fn forget_cards(&self) {
        self.state().cards.clear();
    }
    /// A page has had its time.
    pub fn expire(&self, session: &str) {
        self.change(session, |session| session["status"] = json!("expired"));
    }
    /// The next charge of a card is declined with this code; the one after it with what is said next.
    pub fn decline_next(&self, code: &'static str) {
        self.state().declines.push_back(code);
    }
    /// Every charge turns out to have been made, whatever was said of it.
    pub fn charge_all(&self) {
        self.state().intents.values_mut().for_each(succeed);
    }
    /// The customer saves a card on a page.
    pub fn save_card(&self, session: &str, last4: &str) {
        let mut state = self.state();
        let number = state.cards.len() + 1;
        let (card, customer) = (format!("pm_{last4}_{number}"), format!("cus_{number}"));
        state.cards.insert(card.clone(), customer.clone());
        let session = state.sessions.get_mut(session).expect("a session");
        session["status"] = json!("complete");
        session["customer"] = json!(customer);
        session["setup_intent"] = json!({"id": session["id"].as_str().unwrap_or_default().replace("cs_", "seti_"),
            "object": "setup_intent", "status": "succeeded", "metadata": session["metadata"],
            "payment_method": {"id": card, "object": "payment_method", "type": "card",
                "card": {"brand": "visa", "last4": last4, "exp_month": 12, "exp_year": 2031}}});
    }
}

impl State {
    /// A request with exactly these fields, or what is wrong with it.
    fn exactly(&mut self, form: &BTreeMap<String, String>, known: &[&str]) -> Result<(), Said> {
        if form.len() == known.len() && known.iter().all(|name| form.contains_key(*name)) {
            return Ok(());
        }
        self.wrong.push(format!("{form:?}"));
        Err((400, error("invalid_request_error", "Received unknown parameter, or a required one is missing")))
    }

    pub(super) fn open_for_card(&mut self, form: &BTreeMap<String, String>) -> Said {
        let known = [
            "mode",
            "payment_method_types[0]",
            "customer_creation",
            "client_reference_id",
            "metadata[card]",
            "setup_intent_data[metadata][card]",
            "expires_at",
            "success_url",
            "cancel_url",
        ];
        if let Err(said) = self.exactly(form, &known) {
            return said;
        }
        let id = format!("cs_test_{}", self.sessions.len() + 1);
        let session = json!({"id": id, "object": "checkout.session", "mode": "setup", "status": "open",
            "payment_status": "no_payment_required", "amount_total": null, "currency": null, "customer": null,
            "client_reference_id": form["client_reference_id"], "metadata": {"card": form["metadata[card]"]},
            "payment_intent": null, "setup_intent": {"id": id.replace("cs_", "seti_"), "status": "requires_payment_method"},
            "url": format!("https://checkout.stripe.com/c/pay/{id}"),
            "expires_at": form["expires_at"].parse::<i64>().unwrap_or_default()});
        self.sessions.insert(id, session.clone());
        let mut shown = session;
        shown["setup_intent"] = shown["setup_intent"]["id"].clone();
        (200, shown)
    }

    /// A charge of a card that is made and not confirmed.
    pub(super) fn prepare(&mut self, form: &BTreeMap<String, String>) -> Said {
        let known = [
            "amount",
            "currency",
            "customer",
            "payment_method",
            "payment_method_types[0]",
            "capture_method",
            "description",
            "metadata[top_up]",
        ];
        if let Err(said) = self.exactly(form, &known) {
            return said;
        }
        let units = form["amount"].parse::<i64>().ok().filter(|units| *units > 0);
        let (Some(units), Some(customer)) = (units, self.cards.get(&form["payment_method"])) else {
            return (400, error("invalid_request_error", "No such PaymentMethod, or no amount"));
        };
        if *customer != form["customer"] {
            return (400, error("invalid_request_error", "The payment method does not belong to this customer"));
        }
        let id = format!("pi_card_{}", self.intents.len() + 1);
        let intent = json!({"id": id, "object": "payment_intent", "status": "requires_confirmation", "amount": units,
            "amount_received": 0, "currency": form["currency"], "customer": form["customer"],
            "payment_method": form["payment_method"], "capture_method": form["capture_method"],
            "metadata": {"top_up": form["metadata[top_up]"]}, "last_payment_error": null, "latest_charge": null});
        self.intents.insert(id, intent.clone());
        (200, intent)
    }

    pub(super) fn change_intent(&mut self, path: &str, form: &BTreeMap<String, String>) -> Said {
        let Some((id, verb)) = path.strip_prefix("/v1/payment_intents/").and_then(|rest| rest.split_once('/')) else {
            return (404, error("invalid_request_error", "Unrecognized request URL"));
        };
        let Some(intent) = self.intents.get_mut(id) else {
            return (404, error("invalid_request_error", "No such payment_intent"));
        };
        let status = intent["status"].as_str().unwrap_or_default().to_owned();
        let unexpected = |verb: &str| {
            let message = format!("You cannot {verb} this PaymentIntent because it has a status of {status}.");
            let mut said = error("invalid_request_error", &message);
            said["error"]["code"] = json!("payment_intent_unexpected_state");
            (400, said)
        };
        match verb {
            "cancel" if matches!(status.as_str(), "succeeded" | "canceled" | "processing") => unexpected("cancel"),
            "cancel" => {
                intent["status"] = json!("canceled");
                (200, shown(intent))
            }
            "confirm" if status != "requires_confirmation" => unexpected("confirm"),
            "confirm" if form.len() != 1 || form.get("off_session").is_none_or(|value| value != "true") => {
                self.wrong.push(format!("a confirmation of {form:?}"));
                (400, error("invalid_request_error", "Received unknown parameter, or a required one is missing"))
            }
            "confirm" if !self.cards.contains_key(intent["payment_method"].as_str().unwrap_or_default()) => {
                (400, error("invalid_request_error", "The provided PaymentMethod was detached from its customer."))
            }
            "confirm" => charge(intent, self.declines.pop_front()),
            _ => (404, error("invalid_request_error", "Unrecognized request URL")),
        }
    }

    pub(super) fn detach(&mut self, path: &str) -> Said {
        let id = path.strip_prefix("/v1/payment_methods/").and_then(|rest| rest.strip_suffix("/detach"));
        match id.filter(|id| self.cards.remove(*id).is_some()) {
            Some(id) => (200, json!({"id": id, "object": "payment_method", "customer": null})),
            None => (400, error("invalid_request_error", "The payment method you provided is not attached to a customer")),
        }
    }
}

/// As an answer has it where nothing is expanded.
fn shown(intent: &Value) -> Value {
    let mut shown = intent.clone();
    shown["latest_charge"] = shown["latest_charge"]["id"].clone();
    shown
}

fn succeed(intent: &mut Value) {
    let charge = intent["id"].as_str().unwrap_or_default().replace("pi_", "ch_");
    let transaction = fee_of(&intent["capture_method"], 25, &intent["currency"]);
    intent["status"] = json!("succeeded");
    intent["amount_received"] = intent["amount"].clone();
    intent["latest_charge"] = json!({"id": charge, "object": "charge", "balance_transaction": transaction});
}

/// Charges a card while nobody is there. What is declined waits for another card, and says why.
fn charge(intent: &mut Value, decline: Option<&'static str>) -> Said {
    let Some(code) = decline else {
        succeed(intent);
        return (200, shown(intent));
    };
    let message = match code {
        "authentication_required" => "Your card was declined. This transaction requires authentication.",
        _ => "Your card was declined.",
    };
    let charge = intent["id"].as_str().unwrap_or_default().replace("pi_", "ch_");
    intent["status"] = json!("requires_payment_method");
    intent["payment_method"] = Value::Null;
    intent["last_payment_error"] = json!({"type": "card_error", "code": code, "message": message, "charge": charge});
    let mut said = error("card_error", message);
    said["error"]["code"] = json!(code);
    said["error"]["payment_intent"] = shown(intent);
    (402, said)
}
