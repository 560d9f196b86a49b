//! One generation in several dialects: the same counts, the same money, each in its own words.

use http::Request;
use serde_json::{Value, json};

use crate::world::{World, chat, text, value};

fn message(script: &str) -> Value {
    json!({"model": "tiny", "max_tokens": 50, "messages": [{"role": "user", "content": script}]})
}

fn response(script: &str) -> Value {
    json!({"model": "tiny", "input": script})
}

fn streamed(mut body: Value) -> Value {
    body["stream"] = json!(true);
    body
}

/// Named events; the name is the object's type.
fn named(text: &str) -> Vec<Value> {
    let event = |block: &str| {
        let (name, data) = block.split_once('\n').unwrap_or_else(|| panic!("no name: {block}"));
        let data: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(data["type"], name.strip_prefix("event: ").unwrap(), "{block}");
        data
    };
    text.split("\n\n").filter(|block| !block.is_empty() && !block.starts_with(':')).map(event).collect()
}

#[tokio::test]
async fn a_message_has_anthropic_s_shape() {
    let world = World::new().await;
    let (status, headers, answer) = value(world.post("/v1/messages", &message("please say 2")).await).await;
    assert_eq!(status, 200);
    assert_eq!(headers["request-id"], headers["x-request-id"]);
    assert!(headers.contains_key("x-sublet-cost"));
    insta::assert_json_snapshot!("message", answer);
    insta::assert_snapshot!(
        "message_events",
        text(world.post("/v1/messages?beta=true", &streamed(message("please say 2"))).await).await
    );
    world.close().await;
}

#[tokio::test]
async fn a_response_has_openai_s_shape() {
    let world = World::new().await;
    let mut body = response("please say 2");
    body["include"] = json!(["message.output_text.logprobs"]);
    body["metadata"] = json!({"a": "b"});
    let (status, _, answer) = value(world.post("/v1/responses", &body).await).await;
    assert_eq!(status, 200);
    insta::assert_json_snapshot!("response", answer);
    insta::assert_snapshot!("response_events", text(world.post("/v1/responses", &streamed(response("please say 2"))).await).await);
    world.close().await;
}

#[tokio::test]
async fn every_dialect_counts_and_charges_the_same() {
    let world = World::new().await;
    world.engine.shared.cached.store(1, std::sync::atomic::Ordering::SeqCst);
    let mut costs = Vec::new();
    let bodies = [
        ("/v1/chat/completions", chat("please say 7")),
        ("/v1/responses", response("please say 7")),
        ("/v1/messages", message("please say 7")),
    ];
    for (path, body) in bodies {
        let (status, headers, answer) = value(world.post(path, &body).await).await;
        assert_eq!(status, 200, "{answer}");
        let usage = &answer["usage"];
        let (input, cached, output) = match path {
            "/v1/chat/completions" => {
                (&usage["prompt_tokens"], &usage["prompt_tokens_details"]["cached_tokens"], &usage["completion_tokens"])
            }
            "/v1/responses" => (&usage["input_tokens"], &usage["input_tokens_details"]["cached_tokens"], &usage["output_tokens"]),
            _ => (&usage["input_tokens"], &usage["cache_read_input_tokens"], &usage["output_tokens"]),
        };
        // Messages count what was cached apart from the rest.
        let input = input.as_i64().unwrap() + if path == "/v1/messages" { cached.as_i64().unwrap() } else { 0 };
        assert_eq!((input, cached, output), (3, &json!(1), &json!(7)), "{path}: {usage}");
        costs.push(headers["x-sublet-cost"].clone());
    }
    assert!(costs.windows(2).all(|pair| pair[0] == pair[1]), "{costs:?}");
    world.close().await;
}

#[tokio::test]
async fn events_of_a_response_are_numbered_and_name_one_item() {
    let world = World::new().await;
    for script in ["please say 3", "please say 0"] {
        let events = named(&text(world.post("/v1/responses", &streamed(response(script))).await).await);
        let numbers: Vec<u64> = events.iter().map(|event| event["sequence_number"].as_u64().unwrap()).collect();
        assert!(numbers.iter().copied().eq(0..u64::try_from(events.len()).unwrap()), "{numbers:?}");
        let item = |event: &Value| event["item_id"].as_str().or_else(|| event["item"]["id"].as_str()).map(str::to_owned);
        let items: std::collections::BTreeSet<String> = events.iter().filter_map(item).collect();
        let last = events.last().unwrap();
        assert_eq!(last["type"], "response.completed", "{script}");
        let output = last["response"]["output"].as_array().unwrap();
        assert_eq!((items.len(), output.len(), items.first().unwrap().as_str()), (1, 1, output[0]["id"].as_str().unwrap()));
        let deltas: String = events.iter().filter_map(|event| event["delta"].as_str()).collect();
        assert_eq!(output[0]["content"][0]["text"], deltas);
        assert!(["id", "created_at"].iter().all(|name| events[0]["response"][name] == last["response"][name]));
    }
    world.close().await;
}

#[tokio::test]
async fn a_body_on_many_lines_is_answered_with_whole_events() {
    let world = World::new().await;
    let mut body = streamed(response("please say 2"));
    body["metadata"] = json!({"a": "b", "c": "d"});
    body["text"] = json!({"format": {"type": "text"}});
    let pretty = serde_json::to_string_pretty(&body).unwrap().replace('\n', "\r\n");
    let events = named(&text(world.send(world.request("/v1/responses", pretty)).await).await);
    assert_eq!(events.last().unwrap()["response"]["metadata"], body["metadata"]);
    world.close().await;
}

#[tokio::test]
async fn an_answer_that_is_cut_says_so() {
    let world = World::new().await;
    let mut body = response("please say 30");
    body["max_output_tokens"] = json!(4);
    let (_, _, answer) = value(world.post("/v1/responses", &body).await).await;
    assert_eq!((&answer["status"], &answer["incomplete_details"]["reason"]), (&json!("incomplete"), &json!("max_output_tokens")));
    assert_eq!(
        named(&text(world.post("/v1/responses", &streamed(body)).await).await).last().unwrap()["type"],
        "response.incomplete"
    );
    let mut body = message("please say 30");
    body["max_tokens"] = json!(4);
    let (_, _, answer) = value(world.post("/v1/messages", &body).await).await;
    assert_eq!((&answer["stop_reason"], &answer["usage"]["output_tokens"]), (&json!("max_tokens"), &json!(4)));
    world.close().await;
}

#[tokio::test]
async fn a_failure_in_a_stream_is_told_in_the_words_of_the_dialect() {
    let world = World::new().await;
    let events = named(&text(world.post("/v1/messages", &streamed(message("please fail 2"))).await).await);
    let last = events.last().unwrap();
    assert_eq!((&last["type"], &last["error"]["type"]), (&json!("error"), &json!("api_error")));
    assert!(last["request_id"].as_str().unwrap().starts_with("req_"));
    let events = named(&text(world.post("/v1/responses", &streamed(response("please fail 2"))).await).await);
    let kinds: Vec<&str> = events.iter().rev().take(2).map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["response.failed", "error"]);
    let failed = &events.last().unwrap()["response"];
    assert_eq!((&failed["status"], &failed["error"]["code"]), (&json!("failed"), &json!("internal_error")));
    world.close().await;
}

#[tokio::test]
async fn errors_have_the_shape_of_the_route() {
    let world = World::new().await;
    world.cloud.limit("a", 1);
    for (path, body) in [("/v1/messages", message("please say 3")), ("/messages", message("please say 3"))] {
        let (status, headers, answer) = value(world.post(path, &body).await).await;
        assert_eq!(
            (status, &answer["type"], &answer["error"]["type"]),
            (402, &json!("error"), &json!("billing_error")),
            "{answer}"
        );
        assert_eq!(
            (&answer["error"]["code"], &headers["x-should-retry"]),
            (&json!("insufficient_quota"), &"false".parse().unwrap())
        );
        assert_eq!(answer["request_id"], headers["request-id"].to_str().unwrap());
    }
    let (status, _, answer) = value(world.post("/v1/responses", &response("please say 3")).await).await;
    assert_eq!((status, &answer["error"]["code"]), (429, &json!("insufficient_quota")));
    world.cloud.limit("a", 1_000_000_000);
    let mut wrong = message("please say 3");
    wrong["model"] = json!("nope");
    let (status, _, answer) = value(world.post("/v1/messages", &wrong).await).await;
    assert_eq!((status, &answer["error"]["type"], &answer["error"]["param"]), (404, &json!("not_found_error"), &json!("model")));
    let keyless = Request::post("/v1/messages").body(message("please say 3").to_string().into()).unwrap();
    let (status, _, answer) = value(world.send(keyless).await).await;
    assert_eq!((status, &answer["error"]["type"]), (401, &json!("authentication_error")));
    world.close().await;
}

#[tokio::test]
async fn tokens_are_counted_for_nothing_and_as_they_are_charged() {
    let world = World::new().await;
    let mut body = message("please say 3");
    body.as_object_mut().unwrap().remove("max_tokens");
    body["system"] = json!("be brief and");
    let (status, _, counted) = value(world.post("/v1/messages/count_tokens", &body).await).await;
    assert_eq!((status, counted), (200, json!({"input_tokens": 6})));
    let (_, _, counted) = value(world.post("/v1/responses/input_tokens", &response("please say 3")).await).await;
    assert_eq!(counted, json!({"object": "response.input_tokens", "input_tokens": 3}));
    body["messages"][0]["content"] = json!(5);
    let (status, _, answer) = value(world.post("/v1/messages/count_tokens", &body).await).await;
    assert_eq!((status, &answer["error"]["param"]), (400, &json!("messages.0.content")));
    world.close().await;
    assert_eq!(world.cloud.grants.load(std::sync::atomic::Ordering::SeqCst), 0, "counting takes no money");
}

#[tokio::test]
async fn anthropic_s_clients_see_models_in_their_shape() {
    let world = World::new().await;
    let get = |path: &str| {
        let request = Request::get(path).header("x-api-key", &world.key).header("anthropic-version", "2023-06-01");
        request.body(axum::body::Body::empty()).unwrap()
    };
    let (_, _, list) = value(world.send(get("/v1/models")).await).await;
    assert_eq!(
        (&list["data"][0]["type"], &list["data"][0]["id"], &list["has_more"]),
        (&json!("model"), &json!("lab/tiny"), &json!(false))
    );
    assert!(list["data"][0]["created_at"].as_str().unwrap().ends_with('Z'));
    let (status, _, error) = value(world.send(get("/v1/models/nope")).await).await;
    assert_eq!((status, &error["error"]["type"]), (404, &json!("not_found_error")));
    world.close().await;
}
