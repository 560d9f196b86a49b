//! Batches over HTTP: their whole life, what is refused, who pays, and what ends them early.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::files::{batch_file, content};
use crate::on_both;
use crate::routes::Stranger;
use crate::server::{Database, Home, Server, chat, merge, nanos, never_end, text, wait_for};

on_both! {
    j_a_batch_is_answered_line_by_line_and_charged_like_requests: life;
    a_file_with_wrong_lines_is_refused_with_their_numbers: wrong_lines;
    a_batch_that_is_cancelled_keeps_its_answers: cancel;
    a_batch_that_is_out_of_time_ends_with_what_it_has: expiry;
    the_lines_of_a_revoked_key_end_with_that_error: revoked_key;
    lines_beyond_the_budget_end_with_that_error: budget;
    a_stranger_sees_no_batch: tenants;
    requests_go_before_lines: filler;
}

/// One line of an input file.
pub fn line(id: &str, url: &str, body: &Value) -> String {
    format!("{}\n", json!({ "custom_id": id, "method": "POST", "url": url, "body": body }))
}

/// Chat lines of so many output tokens each.
pub fn chat_lines(model: &str, count: usize, tokens: u32) -> String {
    let body = chat(model, tokens, &json!({ "logit_bias": never_end() }));
    (0..count).map(|n| line(&format!("line-{n}"), "/v1/chat/completions", &body)).collect()
}

pub fn create(server: &Server, key: &str, file: &str, extra: &Value) -> Value {
    let mut body = json!({ "input_file_id": file, "endpoint": "/v1/chat/completions", "completion_window": "24h" });
    merge(&mut body, extra);
    server.make("/v1/batches", key, &body)
}

pub fn see(server: &Server, key: &str, batch: &Value) -> Value {
    server.see(&format!("/v1/batches/{}", text(&batch["id"])), key)
}

pub fn ended(server: &Server, key: &str, batch: &Value) -> Value {
    wait_for("the batch to end", || {
        let batch = see(server, key, batch);
        let over = matches!(batch["status"].as_str(), Some("completed" | "failed" | "expired" | "cancelled"));
        over.then_some(batch)
    })
}

/// The lines of one of a batch's files by their custom id; each is there once.
pub fn output(server: &Server, key: &str, file: &Value) -> BTreeMap<String, Value> {
    let Some(id) = file.as_str() else { return BTreeMap::new() };
    let mut lines = BTreeMap::new();
    for line in String::from_utf8(content(server, key, id)).unwrap().lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        assert_eq!(lines.insert(text(&line["custom_id"]), line.clone()), None, "answered twice: {line}");
    }
    lines
}

/// What was charged for each request of a batch.
pub fn charged(server: &Server) -> BTreeMap<String, i128> {
    let mut sums = BTreeMap::new();
    for charge in server.charges() {
        if let Some(request) = charge["request"].as_str() {
            *sums.entry(request.to_owned()).or_insert(0) += nanos(&charge["amount"]);
        }
    }
    sums
}

/// Each answered line was charged, once, and nothing else was.
pub fn assert_charged_as_answered(server: &Server, answers: &BTreeMap<String, Value>) {
    server.wait_until_settled();
    let charged = charged(server);
    let mut answered: Vec<String> = answers.values().map(|line| text(&line["response"]["request_id"])).collect();
    answered.sort_unstable();
    assert_eq!(charged.keys().cloned().collect::<Vec<_>>(), answered);
    assert!(charged.values().all(|amount| *amount > 0), "{charged:?}");
    server.assert_books();
}

fn life(database: Database) {
    let server = Home::new(database).start();
    let key = &server.keys.project;
    let (model, url) = (&server.keys.model, "/v1/chat/completions");
    let mut lines = chat_lines(model, 20, 3);
    lines.push('\n');
    lines.push_str(&line("another", url, &chat(model, 4, &json!({ "seed": 11 }))));
    let file = batch_file(&server, key, lines.as_bytes());
    let asked = json!({ "metadata": { "round": "one" }, "output_expires_after": { "anchor": "created_at", "seconds": 7200 } });
    let made = create(&server, key, &file, &asked);
    assert_eq!((&made["object"], &made["status"], &made["errors"]), (&json!("batch"), &json!("validating"), &Value::Null));
    assert_eq!((&made["metadata"]["round"], &made["input_file_id"]), (&json!("one"), &json!(file)));
    let batch = ended(&server, key, &made);
    assert_eq!(batch["status"], json!("completed"), "{batch}");
    assert_eq!(batch["request_counts"], json!({ "total": 21, "completed": 21, "failed": 0 }));
    assert_eq!((&batch["error_file_id"], &batch["errors"]), (&Value::Null, &Value::Null));
    for time in ["in_progress_at", "finalizing_at", "completed_at"] {
        assert!(batch[time].as_i64().unwrap() >= batch["created_at"].as_i64().unwrap(), "{time}");
    }
    let answers = output(&server, key, &batch["output_file_id"]);
    assert_eq!(answers.len(), 21);
    let one = &answers["line-7"];
    assert_eq!((&one["response"]["status_code"], &one["error"]), (&json!(200), &Value::Null));
    assert_eq!(one["response"]["body"]["object"], json!("chat.completion"));
    let online = server.make(url, key, &chat(model, 3, &json!({ "logit_bias": never_end() })));
    assert_eq!(one["response"]["body"]["choices"], online["choices"], "a line is answered as a request is");
    assert_eq!(one["response"]["body"]["usage"]["prompt_tokens"], online["usage"]["prompt_tokens"]);
    let tokens = |field: &str| answers.values().map(|line| line["response"]["body"]["usage"][field].as_i64().unwrap()).sum::<i64>();
    assert_eq!(
        (&batch["usage"]["input_tokens"], &batch["usage"]["output_tokens"]),
        (&json!(tokens("prompt_tokens")), &json!(tokens("completion_tokens")))
    );
    let quote = &batch["sublet"]["quote"];
    assert_eq!(quote["input_tokens"], batch["usage"]["input_tokens"], "prompts are counted exactly");
    let file = server.see(&format!("/v1/files/{}", text(&batch["output_file_id"])), key);
    assert_eq!(
        (&file["purpose"], file["expires_at"].as_i64().unwrap() - file["created_at"].as_i64().unwrap()),
        (&json!("batch_output"), 7_200)
    );
    server.wait_until_settled();
    let request = text(&one["response"]["request_id"]);
    let settled = server.see(&format!("/v1/requests/{request}"), key);
    let cost: i128 = charged(&server)
        .iter()
        .filter(|(id, _)| **id != text(&online["id"]).replacen("chatcmpl", "req", 1))
        .map(|(_, nanos)| nanos)
        .sum();
    assert!(nanos(&settled["cost"]) > 0 && nanos(&quote["least"]) <= cost && cost <= nanos(&quote["most"]), "{cost} for {quote}");
    server.assert_books();
}

fn wrong_lines(database: Database) {
    let server = Home::new(database).start();
    let key = &server.keys.project;
    let (model, url) = (&server.keys.model, "/v1/chat/completions");
    let good = chat(model, 2, &json!({}));
    let lines = [
        line("a", url, &good),
        line("a", url, &good),
        "not json\n".to_owned(),
        line("c", "/v1/completions", &good),
        line("d", url, &chat("no-such-model", 2, &json!({}))),
        line("e", url, &chat(model, 2, &json!({ "stream": true }))),
        line("f", url, &chat(model, 2, &json!({ "temperature": 9 }))),
        line("g", url, &good).replace("POST", "GET"),
        format!("{{\"custom_id\":\"{}\"}}\n", "x".repeat(1 << 20)),
    ];
    let batch = ended(&server, key, &create(&server, key, &batch_file(&server, key, lines.concat().as_bytes()), &json!({})));
    assert_eq!((&batch["status"], &batch["output_file_id"]), (&json!("failed"), &Value::Null), "{batch}");
    let found: Vec<(i64, String, String)> = batch["errors"]["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| (error["line"].as_i64().unwrap(), text(&error["code"]), error["param"].as_str().unwrap_or("").to_owned()))
        .collect();
    let expected = [
        (2, "invalid_request", "custom_id"),
        (3, "invalid_json", ""),
        (4, "invalid_request", "url"),
        (5, "model_not_found", "model"),
        (6, "invalid_request", "stream"),
        (7, "invalid_request", "temperature"),
        (8, "invalid_request", "method"),
        (9, "body_too_large", ""),
    ];
    assert_eq!(found, expected.map(|(line, code, param)| (line, code.to_owned(), param.to_owned())), "{batch}");
    let blank = ended(&server, key, &create(&server, key, &batch_file(&server, key, b" \n\n"), &json!({})));
    assert_eq!((&blank["status"], &blank["errors"]["data"][0]["line"]), (&json!("failed"), &Value::Null));
    let file = batch_file(&server, key, lines[0].as_bytes());
    for (extra, code, param) in [
        (json!({ "endpoint": "/v1/videos" }), "unsupported_field", "endpoint"),
        (json!({ "endpoint": "/v1/moderations" }), "not_offered", "endpoint"),
        (json!({ "completion_window": "48h" }), "invalid_request", "completion_window"),
        (json!({ "input_file_id": "file_0000" }), "not_found", "input_file_id"),
        (json!({ "colour": "red" }), "invalid_request", "colour"),
    ] {
        let mut body = json!({ "input_file_id": file, "endpoint": url, "completion_window": "24h" });
        merge(&mut body, &extra);
        let refused = server.post("/v1/batches", key, &body).unwrap();
        assert_eq!((refused.code().as_str(), &refused.json()["error"]["param"]), (code, &json!(param)), "{}", refused.text());
    }
    assert_eq!(server.figure("sublet_engine_tokens_total"), 0, "nothing was run");
    server.assert_books();
}

/// A batch of long lines, once some of it is answered.
fn under_way(server: &Server, key: &str, extra: &Value) -> (String, Value) {
    let file = batch_file(server, key, chat_lines(&server.keys.model, 600, 40).as_bytes());
    let batch = create(server, key, &file, extra);
    wait_for("some lines to be answered", || {
        (see(server, key, &batch)["request_counts"]["completed"].as_i64().unwrap() >= 3).then_some(())
    });
    (file, batch)
}

/// Every line is in one of the two files; those without an answer have this code.
fn assert_partial(server: &Server, key: &str, batch: &Value, code: &str) -> BTreeMap<String, Value> {
    let answers = output(server, key, &batch["output_file_id"]);
    let errors = output(server, key, &batch["error_file_id"]);
    assert_eq!(answers.len() + errors.len(), 600);
    assert!(answers.keys().all(|id| !errors.contains_key(id)));
    assert!(errors.values().all(|line| line["error"]["code"] == json!(code) && line["response"] == Value::Null), "{errors:?}");
    let counts = json!({ "total": 600, "completed": answers.len(), "failed": errors.len() });
    assert_eq!(batch["request_counts"], counts);
    assert!(answers.len() >= 3 && !errors.is_empty(), "{} answered", answers.len());
    answers
}

fn cancel(database: Database) {
    let server = Home::new(database).start();
    let key = &server.keys.project;
    let (file, batch) = under_way(&server, key, &json!({}));
    assert_eq!(server.figure("sublet_batches{status=\"in_progress\"}"), 1);
    let needed = server.ask("DELETE", &format!("/v1/files/{file}")).key(key).send().unwrap();
    assert_eq!((needed.status, needed.code().as_str()), (409, "conflict"), "{}", needed.text());
    let path = format!("/v1/batches/{}/cancel", text(&batch["id"]));
    let cancelling = server.make(&path, key, &json!({}));
    assert!(matches!(cancelling["status"].as_str(), Some("cancelling" | "cancelled")), "{cancelling}");
    let batch = ended(&server, key, &batch);
    assert_eq!((&batch["status"], batch["cancelled_at"].is_i64()), (&json!("cancelled"), true));
    let answers = assert_partial(&server, key, &batch, "batch_cancelled");
    assert_charged_as_answered(&server, &answers);
    let lines = |outcome: &str| server.figure(&format!("sublet_batch_lines_total{{outcome=\"{outcome}\"}}"));
    let answered = i64::try_from(answers.len()).unwrap();
    // One whose answer was durable as it was stopped is answered, and was not seen to end.
    assert!((3..=answered).contains(&lines("completed")) && lines("failed") == 0, "{}", lines("completed"));
    assert_eq!(lines("unanswered"), 600 - answered);
    for name in
        ["batches{status=\"in_progress\"}", "batch_lines_running", "batch_answers_running", "batch_oldest_waiting_milliseconds"]
    {
        assert_eq!(server.figure(&format!("sublet_{name}")), 0, "{name}");
    }
    assert_eq!(server.make(&path, key, &json!({})), batch, "a repeat changes nothing");
    server.ask("DELETE", &format!("/v1/files/{file}")).key(key).send().unwrap().good();
}

fn expiry(database: Database) {
    let server = Home::new(database).start();
    let key = &server.keys.project;
    let (_, batch) = under_way(&server, key, &json!({ "completion_window": "3s" }));
    let batch = ended(&server, key, &batch);
    assert_eq!((&batch["status"], batch["expired_at"].is_i64()), (&json!("expired"), true), "{batch}");
    assert_charged_as_answered(&server, &assert_partial(&server, key, &batch, "batch_expired"));
}

fn revoked_key(database: Database) {
    let server = Home::new(database).start();
    let paying = server.new_key("paying");
    let (_, batch) = under_way(&server, &paying.secret, &json!({}));
    assert_eq!(batch["sublet"]["key"], json!(paying.id));
    server.ask("DELETE", &paying.path()).key(&server.keys.admin).send().unwrap().good();
    let key = &server.keys.project;
    let batch = ended(&server, key, &batch);
    assert_eq!(
        (&batch["status"], &batch["errors"]["data"][0]["code"]),
        (&json!("completed"), &json!("invalid_api_key")),
        "{batch}"
    );
    assert_charged_as_answered(&server, &assert_partial(&server, key, &batch, "invalid_api_key"));
}

fn budget(database: Database) {
    let server = Home::new(database).start();
    let paying = server.new_key("paying");
    let online = server.make(
        "/v1/chat/completions",
        &server.keys.project,
        &chat(&server.keys.model, 40, &json!({ "logit_bias": never_end() })),
    );
    server.wait_until_settled();
    let one: i128 = charged(&server).values().sum();
    // Input and one token for all, but not all of the output; a line costs half of what the same costs online.
    let limit = one * 200;
    server.limit_key(&paying, limit);
    let file = batch_file(&server, &paying.secret, chat_lines(&server.keys.model, 600, 40).as_bytes());
    let batch = ended(&server, &paying.secret, &create(&server, &paying.secret, &file, &json!({})));
    assert_eq!(
        (&batch["status"], &batch["errors"]["data"][0]["code"]),
        (&json!("completed"), &json!("insufficient_quota")),
        "{batch}"
    );
    let answers = assert_partial(&server, &paying.secret, &batch, "insufficient_quota");
    server.wait_until_settled();
    let mut charged = charged(&server);
    charged.remove(&text(&online["id"]).replacen("chatcmpl", "req", 1));
    let spent: i128 = charged.values().sum();
    assert!(spent <= limit && spent > limit * 95 / 100, "{spent} of {limit} spent");
    assert_eq!(charged.len(), answers.len());
    // What is left does not even begin another batch.
    let refused = ended(&server, &paying.secret, &create(&server, &paying.secret, &file, &json!({})));
    assert_eq!(
        (&refused["status"], &refused["errors"]["data"][0]["code"]),
        (&json!("failed"), &json!("insufficient_quota")),
        "{refused}"
    );
    server.assert_books();
}

fn tenants(database: Database) {
    let server = Home::new(database).start();
    let key = &server.keys.project;
    let file = batch_file(&server, key, chat_lines(&server.keys.model, 2, 2).as_bytes());
    let batch = ended(&server, key, &create(&server, key, &file, &json!({})));
    let stranger = Stranger::make(&server, Some("5"));
    let path = format!("/v1/batches/{}", text(&batch["id"]));
    assert_eq!(server.get(&path, &stranger.project).unwrap().status, 404);
    assert_eq!(server.post(&format!("{path}/cancel"), &stranger.project, &json!({})).unwrap().status, 404);
    let output = format!("/v1/files/{}/content", text(&batch["output_file_id"]));
    assert_eq!(server.get(&output, &stranger.project).unwrap().status, 404);
    assert_eq!(server.see("/v1/batches", &stranger.project)["data"], json!([]));
    let body = json!({ "input_file_id": file, "endpoint": "/v1/chat/completions", "completion_window": "24h" });
    let stolen = server.post("/v1/batches", &stranger.project, &body).unwrap();
    assert_eq!((stolen.status, stolen.code().as_str()), (404, "not_found"), "{}", stolen.text());
    let listed = server.see("/v1/batches", key);
    assert_eq!(listed["data"], json!([batch]));
}

/// Clients that ask one after the other while a batch runs.
const CLIENTS: usize = 4;

fn filler(database: Database) {
    let server = Home::new(database).start();
    let key = &server.keys.project;
    let (_, batch) = under_way(&server, key, &json!({}));
    let body = chat(&server.keys.model, 40, &json!({ "logit_bias": never_end() }));
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                for _ in 0..5 {
                    server.post("/v1/chat/completions", key, &body).unwrap().good();
                }
            });
        }
    });
    let seen = wait_for("a forecast", || {
        let batch = see(&server, key, &batch);
        let over = batch["status"] != json!("in_progress");
        (over || batch["sublet"]["forecast"]["ends_at"].is_i64()).then_some(batch)
    });
    if seen["status"] == json!("in_progress") {
        assert_eq!(seen["sublet"]["forecast"]["meets_deadline"], json!(true), "{seen}");
    }
    let batch = ended(&server, key, &batch);
    assert_eq!((&batch["status"], &batch["request_counts"]["completed"]), (&json!("completed"), &json!(600)));
    server.wait_until_settled();
    assert_eq!(charged(&server).len(), 600 + 5 * CLIENTS);
    server.assert_books();
}
