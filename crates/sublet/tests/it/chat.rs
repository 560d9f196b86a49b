//! Chat completions: the streaming contract, sampling, and what a client pays that hangs up.

use serde_json::{Value, json};

use crate::on_both;
use crate::routes::Stranger;
use crate::server::{Database, Home, Server, chat, merge, nanos, never_end, text, wait_for};

on_both! {
    a_client_that_hangs_up_stops_the_engine_and_pays_what_was_delivered: hanging_up_stops_the_engine;
    a_beginning_that_was_computed_before_is_charged_as_cached_to_its_tenant_only: cached_beginnings;
    a_stream_keeps_the_contract: stream_contract;
    a_stream_says_what_the_whole_answer_says: stream_and_whole;
    a_seed_repeats_an_answer_and_limits_and_stops_hold: seeds_and_limits;
    two_choices_are_both_given_counted_and_charged: two_choices;
}

/// Chunks that a client reads before it hangs up.
const READ_CHUNKS: u64 = 30;
/// Tokens that may be on their way to a client that hangs up: what fits into the buffers between.
const ON_THEIR_WAY_MAX: u64 = 200;
/// Steps that the engine may still take while the hang-up travels.
const STEPS_UNTIL_NOTICED_MAX: i64 = 120;
/// Tokens made that never reached the connection: they wait between the engine and the writer, and are not charged.
const UNDELIVERED_MAX: i128 = 32;

fn chunks(server: &Server, body: &Value) -> Vec<Value> {
    let opened = server.ask("POST", "/v1/chat/completions").key(&server.keys.project).json(body).open().unwrap();
    assert_eq!(opened.status, 200);
    let mut events: Vec<String> = opened.events().map(Result::unwrap).collect();
    assert_eq!(events.pop().as_deref(), Some("[DONE]"));
    events.iter().map(|event| serde_json::from_str(event).unwrap()).collect()
}

fn answer(server: &Server, extra: &Value) -> Value {
    server.make("/v1/chat/completions", &server.keys.project, &chat(&server.keys.model, 24, extra))
}

fn content(answer: &Value) -> String {
    text(&answer["choices"][0]["message"]["content"])
}

fn cached_beginnings(database: Database) {
    let server = Home::new(database).start();
    let stranger = Stranger::make(&server, Some("5"));
    let question = "What is a hold, and what is it not? ".repeat(8);
    let ask = |key: &str| {
        let body = json!({
            "model": server.keys.model, "max_tokens": 8, "temperature": 0,
            "messages": [{ "role": "user", "content": question }],
        });
        let answer = server.make("/v1/chat/completions", key, &body);
        let usage = &answer["usage"];
        let counts = (usage["prompt_tokens"].as_i64().unwrap(), usage["prompt_tokens_details"]["cached_tokens"].as_i64().unwrap());
        (content(&answer), counts)
    };
    let (first, (prompt, none)) = ask(&server.keys.project);
    let (second, (_, cached)) = ask(&server.keys.project);
    assert!(prompt > 64 && none == 0, "{prompt} tokens, {none} cached");
    assert_eq!((second, cached), (first.clone(), (prompt - 1) / 64 * 64));
    assert_eq!(ask(&stranger.project), (first, (prompt, 0)), "another tenant gains nothing, not even time");
    server.wait_until_settled();
    let charged = |meter: &str| {
        let charges = server.charges();
        let of_meter = charges.iter().filter(|charge| charge["meter"] == json!(meter));
        of_meter.map(|charge| charge["quantity"].as_i64().unwrap()).sum::<i64>()
    };
    assert_eq!((charged("cached_input_tokens"), charged("input_tokens")), (cached, 2 * prompt - cached));
    server.assert_books();
}

fn stream_contract(database: Database) {
    let server = Home::new(database).start();
    let usage = json!({ "include_usage": true });
    let body = chat(&server.keys.model, 12, &json!({ "stream": true, "stream_options": usage, "logit_bias": never_end() }));
    let opened = server.ask("POST", "/v1/chat/completions").key(&server.keys.project).json(&body).open().unwrap();
    let header = |name: &str| opened.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
    assert_eq!(header("content-type").as_deref(), Some("text/event-stream"));
    assert_eq!(header("cache-control").as_deref(), Some("no-cache"));
    assert_eq!(header("x-accel-buffering").as_deref(), Some("no"));
    let id = header("x-request-id").unwrap();
    drop(opened);

    let all = chunks(&server, &body);
    let (last, rest) = all.split_last().unwrap();
    assert_eq!(rest[0]["choices"][0]["delta"], json!({ "role": "assistant", "content": "" }));
    assert!(rest.iter().all(|chunk| chunk["usage"].is_null() && chunk["id"] == rest[0]["id"]), "{rest:?}");
    assert_ne!(rest[0]["id"], json!(id));
    let (end, deltas) = rest.split_last().unwrap();
    assert_eq!((&end["choices"][0]["delta"], &end["choices"][0]["finish_reason"]), (&json!({}), &json!("length")));
    assert!(deltas.iter().all(|chunk| chunk["choices"][0]["finish_reason"].is_null()));
    assert_eq!((&last["choices"], &last["usage"]["completion_tokens"]), (&json!([]), &json!(12)));

    let mut silent = body;
    silent.as_object_mut().unwrap().remove("stream_options");
    assert!(chunks(&server, &silent).iter().all(|chunk| chunk.get("usage").is_none()), "usage is not leaked");
}

fn stream_and_whole(database: Database) {
    let server = Home::new(database).start();
    let whole = answer(&server, &json!({}));
    let streamed = chunks(&server, &chat(&server.keys.model, 24, &json!({ "stream": true })));
    let said: String = streamed.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(said, content(&whole));
}

fn seeds_and_limits(database: Database) {
    let server = Home::new(database).start();
    let warm = json!({ "temperature": 1.2, "seed": 11 });
    let first = content(&answer(&server, &warm));
    assert_eq!(content(&answer(&server, &warm)), first);
    let others = (12..18).map(|seed| content(&answer(&server, &json!({ "temperature": 1.2, "seed": seed }))));
    assert!(others.into_iter().any(|other| other != first), "six other seeds say the same");

    let mut long = json!({ "logit_bias": never_end(), "temperature": 0 });
    let cut = answer(&server, &long);
    assert_eq!((&cut["choices"][0]["finish_reason"], &cut["usage"]["completion_tokens"]), (&json!("length"), &json!(24)));
    let said = content(&cut);
    let stop: String = said.chars().skip(6).take(4).collect();
    merge(&mut long, &json!({ "stop": [stop] }));
    let stopped = answer(&server, &long);
    assert_eq!(stopped["choices"][0]["finish_reason"], json!("stop"), "{stopped}");
    assert_eq!(content(&stopped), said.split(stop.as_str()).next().unwrap());
}

fn two_choices(database: Database) {
    let server = Home::new(database).start();
    let two = answer(&server, &json!({ "n": 2, "logit_bias": never_end(), "max_tokens": 8 }));
    assert_eq!((two["choices"].as_array().unwrap().len(), &two["usage"]["completion_tokens"]), (2, &json!(16)));
    let body = chat(&server.keys.model, 8, &json!({ "n": 2, "stream": true, "logit_bias": never_end() }));
    let ends: Vec<Value> = chunks(&server, &body)
        .iter()
        .flat_map(|chunk| chunk["choices"].as_array().unwrap().clone())
        .filter(|choice| !choice["finish_reason"].is_null())
        .map(|choice| choice["index"].clone())
        .collect();
    assert!(ends == [json!(0), json!(1)] || ends == [json!(1), json!(0)], "{ends:?}");
    server.wait_until_settled();
    let settled = server.see(&format!("/v1/requests/{}", text(&two["id"])), &server.keys.project);
    assert_eq!(settled["usage"]["output_tokens"], json!(16));
}

fn hanging_up_stops_the_engine(database: Database) {
    let server = Home::new(database).start();
    let tokens = 1_900;
    let body = chat(&server.keys.model, tokens, &json!({ "stream": true, "logit_bias": never_end() }));
    let opened = server.ask("POST", "/v1/chat/completions").key(&server.keys.project).json(&body).open().unwrap();
    let mut events = opened.events();
    let mut id = Value::Null;
    for _ in 0..READ_CHUNKS {
        let chunk: Value = serde_json::from_str(&events.next().unwrap().unwrap()).unwrap();
        id = chunk["id"].clone();
    }
    let at_hang_up = server.figure("sublet_engine_steps_total");
    drop(events);
    let settled = wait_for("the broken request to settle", || {
        let answer = server.get(&format!("/v1/requests/{}", text(&id)), &server.keys.project).unwrap();
        (answer.status == 200).then(|| answer.json())
    });
    server.wait_until_settled();
    let (steps, produced) = (server.figure("sublet_engine_steps_total"), server.figure("sublet_engine_tokens_total"));
    assert!(steps - at_hang_up <= STEPS_UNTIL_NOTICED_MAX, "{at_hang_up} steps, then {steps}");
    assert_eq!(settled["outcome"], json!("client_cancelled"), "{settled}");
    let charged = settled["usage"]["output_tokens"].as_u64().unwrap();
    // The first chunk carries the role, not a token.
    assert!((READ_CHUNKS - 1..=READ_CHUNKS + ON_THEIR_WAY_MAX).contains(&charged), "{settled}");
    assert!(i128::from(produced) - i128::from(charged) <= UNDELIVERED_MAX, "{produced} tokens made, {charged} charged");
    assert!(nanos(&settled["cost"]) > 0);
    server.assert_books();
}
