//! A Stripe that listens on loopback: answers in the real shapes, and is as strict about requests as the real one. It
//! keeps what it did under each key, as Stripe does, and can be told to fail.
//!
//! Deliberately absent: everything that payments by Checkout, saved cards, refunds and payouts do not need.

mod cards;
mod payouts;

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::io::{BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use ring::hmac;
use serde_json::{Value, json};
use sublet_core::Timestamp;
use sublet_core::payment::{BalancePort, CardPort, PaymentPort};
use sublet_stripe::{Stripe, StripeConfig};

use crate::asked::Asked;
use crate::secret::KnownSecrets;

pub const API_KEY: &str = "sk_test_outside";
pub const WEBHOOK_SECRET: &str = "whsec_outside";
/// The version that requests have to name.
const API_VERSION: &str = "2026-06-24.dahlia";
/// How long the port waits for an answer.
const TIMEOUT: Duration = Duration::from_secs(2);

/// How the next request fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trouble {
    /// It does not.
    None,
    /// This status with this type of error; nothing is done, and nothing kept under the key.
    Refuse(u16, &'static str),
    /// Done, and the answer is lost.
    LoseAnswer,
    /// An error of its own, which is kept under the key; nothing is done.
    Break,
    /// Not done, and no answer ever comes.
    Hang,
}

#[derive(Default)]
struct State {
    sessions: BTreeMap<String, Value>,
    refunds: Vec<Value>,
    /// Charges of saved cards, by name.
    intents: BTreeMap<String, Value>,
    /// Cards that can be charged, and whose they are.
    cards: BTreeMap<String, String>,
    /// What was paid out, the oldest first, and what is held, in minor units by currency.
    payouts: Vec<Value>,
    held: BTreeMap<String, i64>,
    /// How the next charges of cards are declined.
    declines: VecDeque<&'static str>,
    /// The path and form of a key's first request, and its answer.
    keys: BTreeMap<String, (String, u16, String)>,
    troubles: VecDeque<Trouble>,
    /// The path at which everything is refused.
    refused: Option<&'static str>,
    /// `METHOD path`, and what was wrong with requests.
    seen: Vec<String>,
    wrong: Vec<String>,
    next_refund: Option<&'static str>,
    /// What waits for answers that never come.
    hung: Vec<TcpStream>,
}

/// The server. It listens until the test's process ends.
#[derive(Clone)]
pub struct FakeStripe {
    state: Arc<Mutex<State>>,
    address: String,
}

const SECRETS: KnownSecrets = KnownSecrets(&[("stripe", API_KEY), ("stripe-webhook", WEBHOOK_SECRET)]);

type Said = (u16, Value);

impl FakeStripe {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port of loopback");
        let address = format!("http://{}", listener.local_addr().expect("an address"));
        let fake = Self { state: Arc::default(), address };
        let serving = fake.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let serving = serving.clone();
                thread::spawn(move || serving.serve(stream));
            }
        });
        fake
    }

    pub fn url(&self) -> &str {
        &self.address
    }

    /// The real port, asking this server.
    pub fn port(&self) -> Arc<dyn PaymentPort> {
        Arc::new(self.stripe())
    }
    /// The real port for cards, asking this server.
    pub fn card_port(&self) -> Arc<dyn CardPort> {
        Arc::new(self.stripe())
    }

    /// The real port for what is held and paid out, asking this server.
    pub fn balance_port(&self) -> Arc<dyn BalancePort> {
        Arc::new(self.stripe())
    }

    fn stripe(&self) -> Stripe {
        let config = StripeConfig {
            api_base: self.address.parse().expect("an address"),
            api_key: "stripe".parse().expect("a name"),
            webhook_secret: "stripe-webhook".parse().expect("a name"),
            return_url: "https://cloud.example/paid".to_owned(),
            timeout: TIMEOUT,
        };
        Stripe::new(config, Arc::new(SECRETS)).expect("a port")
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panicked with it")
    }

    /// The next request fails in this way; those after it in the ways that are said afterwards.
    pub fn fail_next(&self, trouble: Trouble) {
        self.state().troubles.push_back(trouble);
    }
    /// The next request works.
    pub fn pass_next(&self) {
        self.fail_next(Trouble::None);
    }
    /// Refunds are made in this status from now on; `succeeded` at first.
    pub fn refund_as(&self, status: &'static str) {
        self.state().next_refund = Some(status);
    }
    /// Whatever is asked for at this path is refused from now on.
    pub fn refuse_at(&self, path: &'static str) {
        self.state().refused = Some(path);
    }
    /// No page and no charge is known any more, as to another account of Stripe's.
    pub fn forget_all(&self) {
        let mut state = self.state();
        state.sessions.clear();
        state.intents.clear();
    }
    /// Every request so far, as `METHOD path`.
    pub fn seen(&self) -> Vec<String> {
        self.state().seen.clone()
    }
    /// What was wrong with requests; tests expect nothing.
    pub fn wrong(&self) -> Vec<String> {
        self.state().wrong.clone()
    }
    pub fn sessions(&self) -> Vec<Value> {
        self.state().sessions.values().cloned().collect()
    }
    pub fn refunds(&self) -> Vec<Value> {
        self.state().refunds.clone()
    }
    /// Sets the status of every refund.
    pub fn settle_refunds(&self, status: &str) {
        for refund in &mut self.state().refunds {
            refund["status"] = json!(status);
        }
    }

    /// The customer pays; `received` minor units of the fee are kept. What was paid or closed before stays as it is.
    pub fn pay(&self, session: &str, fee: i64) {
        self.change(session, |session| {
            session["status"] = json!("complete");
            session["payment_status"] = json!("paid");
            let currency = session["currency"].clone();
            session["payment_intent"] = intent(session, "succeeded");
            session["payment_intent"]["latest_charge"]["balance_transaction"] = fee_of(&session["capture_method"], fee, &currency);
        });
    }
    /// The customer does what it can, and the money is on its way for days.
    pub fn begin_to_pay(&self, session: &str) {
        self.change(session, |session| {
            session["status"] = json!("complete");
            session["payment_intent"] = intent(session, "processing");
        });
    }
    /// Money that was on its way did not come.
    pub fn bounce(&self, session: &str) {
        let mut state = self.state();
        let session = state.sessions.get_mut(session).expect("a session");
        session["payment_intent"]["status"] = json!("requires_payment_method");
        session["payment_intent"]["last_payment_error"] = json!({"message": "Insufficient funds."});
    }
    pub fn change_amount(&self, session: &str, units: i64) {
        self.change(session, |session| session["amount_total"] = json!(units));
    }

    fn change(&self, session: &str, change: impl FnOnce(&mut Value)) {
        let mut state = self.state();
        let session = state.sessions.get_mut(session).expect("a session");
        if session["status"] == json!("open") {
            change(session);
        }
    }

    /// An event as Stripe sends it, and its header.
    pub fn event(&self, id: &str, kind: &str, object: &Value, at: Timestamp) -> (String, String) {
        let event = json!({"id": id, "object": "event", "api_version": API_VERSION, "type": kind, "livemode": false,
            "created": at.millis() / 1_000, "data": {"object": object}});
        let body = event.to_string();
        let header = sign(WEBHOOK_SECRET, at, &body);
        (body, header)
    }

    fn serve(&self, stream: TcpStream) {
        let mut reader = BufReader::new(stream);
        while let Some(asked) = Asked::read(&mut reader) {
            let trouble = {
                let mut state = self.state();
                state.seen.push(format!("{} {}", asked.method, asked.path));
                let is_refused = state.refused.is_some_and(|path| path == asked.path);
                if is_refused { Some(Trouble::Refuse(400, "invalid_request_error")) } else { state.troubles.pop_front() }
            };
            let (status, body) = match trouble {
                Some(Trouble::Hang) => {
                    self.state().hung.push(reader.into_inner());
                    return;
                }
                Some(Trouble::Refuse(status, kind)) => (status, error(kind, "you shall not").to_string()),
                other => self.answer(&asked, other == Some(Trouble::Break)),
            };
            if trouble == Some(Trouble::LoseAnswer) {
                return;
            }
            let head = format!(
                "HTTP/1.1 {status} x\r\ncontent-type: application/json\r\ncontent-length: {}\r\nrequest-id: req_1\r\n\r\n",
                body.len()
            );
            let stream = reader.get_mut();
            if stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes())).is_err() {
                return;
            }
        }
    }

    fn answer(&self, asked: &Asked, breaks: bool) -> (u16, String) {
        let mut state = self.state();
        if let Some(wrong) = strictly(asked) {
            state.wrong.push(format!("{} {}: {wrong}", asked.method, asked.path));
            let status = if wrong.contains("key of the API") { 401 } else { 400 };
            return (status, error("invalid_request_error", wrong).to_string());
        }
        if asked.method == "GET" {
            let (status, said) = state.get(asked);
            return (status, said.to_string());
        }
        let key = asked.header("idempotency-key").to_owned();
        let request = format!("{}\n{}", asked.path, String::from_utf8_lossy(&asked.body));
        if let Some((known, status, said)) = state.keys.get(&key) {
            if *known == request {
                return (*status, said.clone());
            }
            return (400, error("idempotency_error", "Keys can only be used with the same parameters.").to_string());
        }
        let (status, said) = if breaks { (500, error("api_error", "Something broke.")) } else { state.post(asked) };
        // What fails its validation is not kept.
        if status != 400 {
            state.keys.insert(key, (request, status, said.to_string()));
        }
        (status, said.to_string())
    }
}

impl State {
    fn get(&self, asked: &Asked) -> Said {
        if asked.path == "/v1/refunds" {
            let of = asked.query("payment_intent").unwrap_or_default();
            let known: Vec<&Value> = self.refunds.iter().filter(|refund| refund["payment_intent"] == json!(of)).collect();
            return (200, json!({"object": "list", "url": "/v1/refunds", "has_more": false, "data": known}));
        }
        match asked.path.as_str() {
            "/v1/payouts" => return self.list_payouts(asked),
            "/v1/balance" => return self.balance(),
            _ => {}
        }
        if let Some(intent) = asked.path.strip_prefix("/v1/payment_intents/").and_then(|id| self.intents.get(id)) {
            let mut shown = intent.clone();
            if asked.query("expand[]").as_deref() != Some("latest_charge.balance_transaction") {
                shown["latest_charge"] = shown["latest_charge"]["id"].clone();
            }
            return (200, shown);
        }
        let session = asked.path.strip_prefix("/v1/checkout/sessions/").and_then(|id| self.sessions.get(id));
        let Some(session) = session else { return (404, error("invalid_request_error", "No such object")) };
        let mut shown = session.clone();
        if asked.query("expand[]").as_deref() != Some("payment_intent.latest_charge.balance_transaction") {
            shown["payment_intent"] = shown["payment_intent"]["id"].clone();
        }
        if asked.query("expand[]").as_deref() != Some("setup_intent.payment_method") {
            shown["setup_intent"] = shown["setup_intent"]["id"].clone();
        }
        (200, shown)
    }

    fn post(&mut self, asked: &Asked) -> Said {
        let form = asked.form();
        match asked.path.as_str() {
            "/v1/checkout/sessions" if form.get("mode").is_some_and(|mode| mode == "setup") => self.open_for_card(&form),
            "/v1/checkout/sessions" => self.open(&form),
            "/v1/refunds" => self.refund(&form),
            "/v1/payment_intents" => self.prepare(&form),
            path if path.starts_with("/v1/payment_intents/") => self.change_intent(path, &form),
            path if path.starts_with("/v1/payment_methods/") => self.detach(path),
            path => {
                let id = path.strip_prefix("/v1/checkout/sessions/").and_then(|rest| rest.strip_suffix("/expire"));
                match id.and_then(|id| self.sessions.get_mut(id)) {
                    None => (404, error("invalid_request_error", "No such object")),
                    Some(session) if session["status"] != json!("open") => {
                        (400, error("invalid_request_error", "Only Checkout Sessions with a status in [\"open\"] can be expired."))
                    }
                    Some(session) => {
                        session["status"] = json!("expired");
                        (200, session.clone())
                    }
                }
            }
        }
    }

    fn open(&mut self, form: &BTreeMap<String, String>) -> Said {
        let known = [
            "mode",
            "client_reference_id",
            "metadata[top_up]",
            "payment_intent_data[metadata][top_up]",
            "payment_intent_data[capture_method]",
            "line_items[0][quantity]",
            "line_items[0][price_data][currency]",
            "line_items[0][price_data][unit_amount]",
            "line_items[0][price_data][product_data][name]",
            "expires_at",
            "success_url",
            "cancel_url",
        ];
        let field = |name: &str| form.get(name).cloned().unwrap_or_default();
        let units: Option<i64> = field("line_items[0][price_data][unit_amount]").parse().ok().filter(|units| *units > 0);
        let (Some(units), true) = (units, form.len() == known.len() && known.iter().all(|name| form.contains_key(*name))) else {
            self.wrong.push(format!("a session of {form:?}"));
            return (400, error("invalid_request_error", "Received unknown parameter, or a required one is missing"));
        };
        let id = format!("cs_test_{}", self.sessions.len() + 1);
        let session = json!({"id": id, "object": "checkout.session", "mode": "payment", "status": "open",
            "payment_status": "unpaid", "amount_total": units, "currency": field("line_items[0][price_data][currency]"),
            "client_reference_id": field("client_reference_id"), "metadata": {"top_up": field("metadata[top_up]")},
            "capture_method": field("payment_intent_data[capture_method]"),
            "payment_intent": null, "url": format!("https://checkout.stripe.com/c/pay/{id}"),
            "expires_at": field("expires_at").parse::<i64>().unwrap_or_default()});
        self.sessions.insert(id, session.clone());
        (200, session)
    }

    fn refund(&mut self, form: &BTreeMap<String, String>) -> Said {
        let field = |name: &str| form.get(name).cloned().unwrap_or_default();
        let payment = field("payment_intent");
        let of = |session: &&Value| session["payment_intent"]["id"] == json!(payment);
        let paid = self.sessions.values().find(of).map(|session| (session["amount_total"].clone(), session["currency"].clone()));
        let charged = self.intents.get(&payment).map(|intent| (intent["amount_received"].clone(), intent["currency"].clone()));
        let Some((total, currency)) = paid.or(charged) else {
            return (404, error("invalid_request_error", "No such payment_intent"));
        };
        let units: i64 = field("amount").parse().unwrap_or_default();
        let back = |refund: &&Value| refund["payment_intent"] == json!(payment) && refund["status"] != json!("failed");
        let before: i64 = self.refunds.iter().filter(back).filter_map(|refund| refund["amount"].as_i64()).sum();
        if units <= 0 || before + units > total.as_i64().unwrap_or_default() {
            return (400, error("invalid_request_error", "Refund amount is greater than unrefunded amount on charge"));
        }
        let status = self.next_refund.unwrap_or("succeeded");
        let refund = json!({"id": format!("re_{}", self.refunds.len() + 1), "object": "refund", "amount": units,
            "currency": currency, "payment_intent": payment, "status": status, "failure_reason": null,
            "metadata": {"refund": field("metadata[refund]")}});
        self.refunds.push(refund.clone());
        (200, refund)
    }
}

/// The fee of a charge: known at once only where it is captured at once, which has to be asked for.
fn fee_of(capture_method: &Value, fee: i64, currency: &Value) -> Value {
    match capture_method.as_str() {
        Some("automatic") => json!({"id": "txn_1", "object": "balance_transaction", "fee": fee, "currency": currency}),
        _ => Value::Null,
    }
}

fn intent(session: &Value, status: &str) -> Value {
    let name = session["id"].as_str().unwrap_or_default().replace("cs_", "pi_");
    json!({"id": name, "object": "payment_intent", "status": status, "amount": session["amount_total"],
        "currency": session["currency"], "metadata": session["metadata"], "last_payment_error": null,
        "latest_charge": {"id": name.replace("pi_", "ch_"), "object": "charge", "balance_transaction": null}})
}

fn error(kind: &str, message: &str) -> Value {
    json!({"error": {"type": kind, "code": null, "message": message, "param": null}})
}

/// What a request lacks that Stripe, or this integration, insists on.
fn strictly(asked: &Asked) -> Option<&'static str> {
    if asked.header("authorization") != format!("Bearer {API_KEY}") {
        return Some("the key of the API is missing or wrong");
    }
    if asked.header("stripe-version") != API_VERSION {
        return Some("no version of the API is named");
    }
    if asked.method == "GET" {
        return (!asked.body.is_empty() || !asked.header("idempotency-key").is_empty()).then_some("a GET with a body or a key");
    }
    if asked.header("content-type") != "application/x-www-form-urlencoded" {
        return Some("the body is no form");
    }
    let key = asked.header("idempotency-key").len();
    if key == 0 || key > 255 {
        return Some("a POST without an Idempotency-Key");
    }
    (!asked.query.is_empty()).then_some("a POST with a query")
}

/// The header for a body, as Stripe signs it.
pub fn sign(secret: &str, at: Timestamp, body: &str) -> String {
    let second = at.millis() / 1_000;
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let mut hex = String::new();
    for byte in hmac::sign(&key, format!("{second}.{body}").as_bytes()).as_ref() {
        write!(hex, "{byte:02x}").expect("text can be written to");
    }
    format!("t={second},v1={hex}")
}
