//! Many concurrent streams of one key, with money for about half of them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::on_both;
use crate::server::{Database, Home, NewKey, Server, chat, full, merge, nanos, never_end, stopwatch};

on_both! {
    a_budget_for_half_of_the_streams_is_never_exceeded: half_of_the_streams_are_paid;
}

/// Between two looks at the limit while streams run.
const SAMPLE_PAUSE: Duration = Duration::from_millis(15);

/// How a stream ended for its client.
#[derive(Debug)]
enum End {
    /// With `[DONE]`: its id, why it stopped, and the tokens its usage names.
    Finished { id: String, reason: String, output: u64 },
    /// Before its first byte: the error's code.
    Refused(String),
}

fn half_of_the_streams_are_paid(database: Database) {
    let server = Home::new(database).start();
    let (streams, tokens) = if full() { (1_000, 64) } else { (240, 24) };
    let request = stream_request(&server.keys.model, tokens);
    let probe = end_of_stream(&server, &server.keys.project, &request);
    let End::Finished { id, .. } = &probe else { panic!("{probe:?}") };
    server.wait_until_settled();
    let one = nanos(&server.see(&format!("/v1/requests/{id}"), &server.keys.project)["cost"]);

    let key = server.new_key("half");
    let limit = one * i128::from(streams) / 2;
    server.limit_key(&key, limit);
    let elapsed = stopwatch();
    let (ends, samples) = run_streams(&server, &key, &request, streams);
    let took = elapsed();
    server.wait_until_settled();

    let spent = assert_spend_is_the_sum_of_its_requests(&server, &key, &ends);
    assert!(spent <= limit, "{spent} of {limit}");
    assert!(spent * 100 >= limit * 90, "only {spent} of {limit} could be spent");
    server.assert_books();
    let mut outcomes: BTreeMap<&str, u32> = BTreeMap::new();
    for end in &ends {
        *outcomes
            .entry(match end {
                End::Finished { reason, .. } => reason,
                End::Refused(code) => code,
            })
            .or_default() += 1;
    }
    eprintln!("count: concurrent streams on {database:?} = {streams}");
    eprintln!("count: looks at the limit meanwhile on {database:?} = {samples}");
    eprintln!("{outcomes:?}, spent {spent} of {limit} nano-units in {took:?}");
}

fn stream_request(model: &str, tokens: u32) -> Value {
    let mut request = chat(model, tokens, &json!({ "stream": true, "stream_options": { "include_usage": true } }));
    merge(&mut request, &json!({ "logit_bias": never_end() }));
    request
}

fn end_of_stream(server: &Server, key: &str, request: &Value) -> End {
    let opened = server.ask("POST", "/v1/chat/completions").key(key).json(request).open().unwrap();
    if opened.status != 200 {
        let status = opened.status;
        let body: Value = serde_json::from_str(&opened.text().unwrap()).unwrap();
        assert_eq!(status, 429, "{body}");
        return End::Refused(body["error"]["code"].as_str().unwrap_or_default().to_owned());
    }
    let (mut id, mut reason, mut output, mut done) = (String::new(), String::new(), 0, false);
    for event in opened.events() {
        let event = event.unwrap();
        if event == "[DONE]" {
            done = true;
            continue;
        }
        let chunk: Value = serde_json::from_str(&event).unwrap();
        assert_eq!(chunk.get("error"), None, "{chunk}");
        id = chunk["id"].as_str().unwrap().to_owned();
        reason = chunk["choices"][0]["finish_reason"].as_str().map_or(reason, str::to_owned);
        output = chunk["usage"]["completion_tokens"].as_u64().unwrap_or(output);
    }
    assert!(done, "{id} ended without [DONE]");
    End::Finished { id, reason, output }
}

/// Runs the streams, looking at the limit all the time. Returns their ends and the number of looks.
fn run_streams(server: &Server, key: &NewKey, request: &Value, streams: u32) -> (Vec<End>, u32) {
    let running = AtomicBool::new(true);
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut looks = 0;
            while running.load(Ordering::Relaxed) {
                assert_within_limit(server, key);
                looks += 1;
                std::thread::sleep(SAMPLE_PAUSE);
            }
            looks
        });
        let clients: Vec<_> = (0..streams).map(|_| scope.spawn(|| end_of_stream(server, &key.secret, request))).collect();
        let ends = clients.into_iter().map(|client| client.join().expect("a stream's client does not fail")).collect();
        running.store(false, Ordering::Relaxed);
        (ends, watch.join().expect("the limit holds at each look"))
    })
}

fn assert_within_limit(server: &Server, key: &NewKey) {
    let limits = server.see(&format!("{}/spend_limits", key.path()), &server.keys.admin);
    let limit = &limits["data"][0];
    let (amount, spent, held) = (nanos(&limit["amount"]), nanos(&limit["spent"]), nanos(&limit["held"]));
    assert!(spent + held <= amount, "{spent} spent and {held} held of {amount}");
}

/// What the limit says was spent is what the requests cost, to the last nano; nothing is held.
fn assert_spend_is_the_sum_of_its_requests(server: &Server, key: &NewKey, ends: &[End]) -> i128 {
    let mut sum = 0;
    for end in ends {
        match end {
            End::Finished { id, reason, output } => {
                assert!(matches!(reason.as_str(), "stop" | "length"), "{end:?}");
                let settled = server.see(&format!("/v1/requests/{id}"), &key.secret);
                assert_eq!(settled["usage"]["output_tokens"], json!(output), "{settled}");
                sum += nanos(&settled["cost"]);
            }
            End::Refused(code) => assert_eq!(code, "insufficient_quota"),
        }
    }
    let limit = server.see(&format!("{}/spend_limits", key.path()), &server.keys.admin)["data"][0].clone();
    assert_eq!(nanos(&limit["held"]), 0, "{limit}");
    assert_eq!(nanos(&limit["spent"]), sum, "{limit}");
    sum
}
