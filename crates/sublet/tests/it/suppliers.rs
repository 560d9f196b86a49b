//! Suppliers outside, from the operator's first command to the books: a server by script sells to the cloud.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::response::Response;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::on_both;
use crate::remote::{offer, price};
use crate::server::{Database, Home, Server, chat, nanos, text};

on_both! {
    what_is_bought_is_permitted_earns_its_margin_and_is_owed: a_supplier_is_paid;
}

/// A supplier that answers by script, on a thread of its own until it is dropped.
struct Supplier {
    base_url: String,
    script: Arc<Mutex<VecDeque<Value>>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Supplier {
    fn start() -> Self {
        let script = Arc::<Mutex<VecDeque<Value>>>::default();
        let served = Arc::clone(&script);
        let (tell, told) = std::sync::mpsc::channel();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
                tell.send(listener.local_addr().unwrap()).unwrap();
                let router = Router::new().fallback(move |_: Bytes| answer(Arc::clone(&served)));
                tokio::select! {
                    served = axum::serve(listener, router) => served.unwrap(),
                    _ = stopped => {}
                }
            });
        });
        let base_url = format!("http://{}/v1", told.recv().unwrap());
        Self { base_url, script, stop: Some(stop), thread: Some(thread) }
    }

    /// What it says next, and what it counts.
    fn then(&self, words: &[&str], (input, output): (u64, u64)) {
        let choice =
            |word: &&str| json!({ "index": 0, "message": { "role": "assistant", "content": word }, "finish_reason": "stop" });
        let usage = json!({ "prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output });
        let choices: Vec<Value> = words.iter().map(choice).collect();
        let body =
            json!({ "id": "theirs", "object": "chat.completion", "created": 1, "model": "m", "choices": choices, "usage": usage });
        self.script.lock().unwrap().push_back(body);
    }
}

impl Drop for Supplier {
    fn drop(&mut self) {
        self.stop.take().map(|stop| stop.send(()).ok());
        self.thread.take().map(|thread| thread.join().ok());
    }
}

async fn answer(script: Arc<Mutex<VecDeque<Value>>>) -> Response {
    let body = script.lock().unwrap().pop_front();
    let status = if body.is_some() { 200 } else { 500 };
    let body = body.unwrap_or_default().to_string();
    Response::builder().status(status).header("content-type", "application/json").body(body.into()).unwrap()
}

fn refused(server: &Server, tier: &str) -> (u16, String, Value) {
    let body = chat("far/mini", 8, &json!({ "service_tier": tier }));
    let answer = server.post("/v1/chat/completions", &server.keys.project, &body).unwrap();
    (answer.status, answer.code(), answer.json()["error"]["alternatives"].clone())
}

fn a_supplier_is_paid(database: Database) {
    let maker = Supplier::start();
    let server = Home::new(database).start();
    let operator = &server.keys.operator;
    let body = json!({ "name": "Maker", "class": "supplier", "currency": "EUR" });
    let supplier = text(&server.make("/operator/v1/organizations", operator, &body)["id"]);
    let policy = json!({ "retention": "none", "used_for_training": false, "region": "eu" });
    let terms = json!({ "supplier": supplier, "data_policy": policy, "min_margin_permille": 200 });
    let replica = offer(&server, "far/mini", &maker.base_url, &terms);
    assert_eq!((&replica["source"], &replica["supply"]["cost_version"]), (&json!("supplier"), &json!(null)), "{replica}");
    price(&server, "far/mini");

    // Without a cost it is not used, whoever asks.
    let (status, code, _) = refused(&server, "default");
    assert_eq!((status, code.as_str()), (503, "model_unavailable"));
    // The prices are 0.15 and 0.60 at the default tier, and half of that at flex.
    let path = format!("/operator/v1/replicas/{}", text(&replica["id"]));
    let cost = json!({ "input": "0.1", "cached_input": "0.05", "output": "0.3" });
    let wrong =
        server.post(&format!("{path}/costs"), operator, &json!({ "input": "1", "output": "1", "currency": "USD" })).unwrap();
    assert_eq!((wrong.status, wrong.code().as_str()), (400, "currency_mismatch"), "{}", wrong.text());
    let cost = server.make(&format!("{path}/costs"), operator, &cost);
    let seen = server.see(&path, operator)["supply"].clone();
    assert_eq!(seen["cost_version"], cost["version"]);
    let tier =
        |name: &str| seen["tiers"].as_array().unwrap().iter().find(|tier| tier["service_tier"] == json!(name)).unwrap().clone();
    assert_eq!((&tier("flex")["margin_permille"], tier("default")["refused"].is_null()), (&json!(-334), true), "{seen}");
    assert!(text(&tier("flex")["refused"]).contains("margin of input tokens"), "{seen}");

    // Nobody's data leaves the house before they say so.
    let (status, code, works) = refused(&server, "default");
    assert_eq!((status, code.as_str()), (403, "policy_refused"));
    assert!(works.to_string().contains("no_retention"), "{works}");
    let permission = json!({ "external": "no_retention", "regions": ["eu"] });
    let put = |key: &str| server.ask("PUT", "/v1/organization/data_policy").key(key).json(&permission).send().unwrap();
    assert_eq!(put(operator).status, 403, "not even the operator says it for them");
    assert_eq!(put(&server.keys.admin).good()["data_policy"], permission);
    let (status, code, works) = refused(&server, "flex");
    assert_eq!((status, code.as_str()), (403, "policy_refused"));
    assert!(works.as_array().unwrap().contains(&json!("service_tier 'default'")), "{works}");

    the_books_say_what_is_owed(&server, &maker, (&supplier, &text(&cost["version"])));
    let audit = server.see("/operator/v1/audit_logs?limit=100", operator).to_string();
    for action in ["replica.cost", "organization.data_policy"] {
        assert!(audit.contains(action), "{action}");
    }
    server.assert_books();
}

/// Buys twice, once in vain.
fn the_books_say_what_is_owed(server: &Server, maker: &Supplier, (supplier, version): (&str, &str)) {
    let operator = &server.keys.operator;
    maker.then(&["bought"], (1_001, 333));
    let answer = server.make("/v1/chat/completions", &server.keys.project, &chat("far/mini", 8, &json!({})));
    assert_eq!(answer["choices"][0]["message"]["content"], "bought", "{answer}");
    // It counts, and says nothing: our cost, and nobody's charge.
    maker.then(&[], (500, 20));
    let failed = server.post("/v1/chat/completions", &server.keys.project, &chat("far/mini", 8, &json!({}))).unwrap();
    assert_eq!(failed.status, 502, "{}", failed.text());
    server.wait_until_settled();
    let request = server.see(&format!("/v1/requests/{}", text(&answer["id"])), &server.keys.project);
    assert_eq!((&request["served_by"], &request["measured"]), (&json!("supplier"), &json!("bounded")), "{request}");
    assert_eq!(server.figure("sublet_requests_unsold_total"), 1);

    let margins = server.see("/operator/v1/reports/margins", operator);
    let line = &margins["lines"][0];
    assert_eq!((&line["purchases"], &line["unsold"], &line["supplier"]), (&json!(2), &json!(1), &json!(supplier)), "{margins}");
    let (revenue, owed) = (nanos(&line["revenue"]), nanos(&line["cost"]));
    assert_eq!(revenue, nanos(&request["cost"]));
    let bought = (line["input_tokens"].as_i64().unwrap(), line["output_tokens"].as_i64().unwrap());
    assert_eq!(owed, i128::from(bought.0) * 100 + i128::from(bought.1) * 300, "{margins}");
    assert_eq!(nanos(&line["margin"]), revenue - owed);
    let accounts = server.see("/operator/v1/ledger/accounts?limit=100", operator);
    let account =
        |name: String| accounts["data"].as_array().unwrap().iter().find(|account| account["name"] == json!(name)).cloned();
    let accrued = account(format!("liabilities:accrued:upstream:{supplier}")).expect("it is owed");
    let expense = account(format!("expenses:supply:upstream:{supplier}")).expect("it is a cost");
    assert_eq!(accrued["credits_posted"], expense["debits_posted"]);
    for format in ["beancount", "hledger"] {
        let journal = server.get(&format!("/operator/v1/ledger/export?format={format}"), operator).unwrap().text();
        assert!(journal.contains("cost_accrued"), "{format}");
    }
    let why = server.see(&format!("/operator/v1/why/{}", text(&answer["id"])), operator).to_string();
    assert!(why.contains(version) && why.contains(supplier), "{why}");
}
