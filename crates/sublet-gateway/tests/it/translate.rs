//! Responses and Messages over a server that speaks chat completions.

use serde_json::{Value, json};
use sublet_core::supply::{EngineKind, Replica};

use crate::upstream::{Part, Reply, Upstream, chunk, counted, ended, model, replica, said, usage};
use crate::world::{World, text, value};

async fn world(upstream: &Upstream) -> World {
    let world = World::new().await;
    world.cloud.offer([model("far/away", vec![replica(1, &upstream.base_url)])]);
    world
}

fn calls(parts: &Value) -> Part {
    Part::Event(chunk(&json!([{"index": 0, "delta": {"tool_calls": parts}, "finish_reason": null}])))
}

/// Text, then two calls whose places do not begin at zero, in several pieces.
fn speech_and_calls() -> Reply {
    Reply::Stream(vec![
        said("Let me "),
        said("look."),
        calls(&json!([{"index": 1, "id": "call_a", "type": "function", "function": {"name": "weather", "arguments": ""}}])),
        calls(&json!([{"index": 1, "function": {"arguments": "{\"city\":"}}])),
        calls(&json!([{"index": 1, "function": {"arguments": "\"Ulm\"}"}}])),
        calls(&json!([{"index": 4, "id": "call_b", "type": "function", "function": {"name": "time", "arguments": "{}"}}])),
        ended("tool_calls"),
        counted(30, 12),
        Part::Done,
    ])
}

fn whole_calls() -> Reply {
    let function = json!({"name": "weather", "arguments": "{\"city\":\"Ulm\"}"});
    let message =
        json!({"role": "assistant", "content": null, "tool_calls": [{"id": "call_a", "type": "function", "function": function}]});
    let choice = json!({"index": 0, "message": message, "finish_reason": "tool_calls"});
    Reply::Json(200, json!({"id": "x", "object": "chat.completion", "model": "y", "choices": [choice], "usage": usage(30, 12)}))
}

/// The data of events with names, in order.
fn named(stream: &str) -> Vec<Value> {
    let blocks = stream.split("\n\n").filter(|block| block.starts_with("event: "));
    blocks.map(|block| serde_json::from_str(block.split_once("data: ").unwrap().1).unwrap()).collect()
}

fn kinds(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["type"].as_str().unwrap()).collect()
}

const SCHEMA: &str = r#"{"type":"object","properties":{"city":{"type":"string"}},"required":["city"]}"#;

fn schema() -> Value {
    serde_json::from_str(SCHEMA).unwrap()
}

fn message_request(stream: bool) -> Value {
    json!({
        "model": "far/away", "max_tokens": 50, "stream": stream, "system": "Be brief.", "stop_sequences": ["END"],
        "temperature": 0.25, "top_k": 7,
        "tools": [{"name": "weather", "description": "Tells it", "input_schema": schema()}, {"name": "time", "input_schema": {"type": "object"}}],
        "tool_choice": {"type": "auto", "disable_parallel_tool_use": true},
        "messages": [
            {"role": "user", "content": "How is it in Ulm?"},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "call_1", "name": "weather", "input": {"city": "Ulm"}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "call_1", "content": "rain"}]},
        ],
    })
}

#[tokio::test]
async fn a_message_is_asked_for_as_a_chat_and_answered_as_a_message() {
    let upstream = Upstream::start().await;
    upstream.then(speech_and_calls()).then(whole_calls());
    let world = world(&upstream).await;
    let stream = text(world.post("/v1/messages", &message_request(true)).await).await;
    let events = named(&stream);
    assert_eq!(
        kinds(&events),
        [
            "message_start",
            "content_block_start",
            "content_block_delta",
            "content_block_delta",
            "content_block_stop",
            "content_block_start",
            "content_block_delta",
            "content_block_delta",
            "content_block_stop",
            "content_block_start",
            "content_block_delta",
            "content_block_stop",
            "message_delta",
            "message_stop"
        ],
        "{stream}"
    );
    assert_eq!(events[5]["content_block"]["id"], json!("call_a"));
    let arguments: String = [6, 7].iter().map(|at: &usize| events[*at]["delta"]["partial_json"].as_str().unwrap()).collect();
    assert_eq!(arguments, "{\"city\":\"Ulm\"}");
    assert_eq!((&events[9]["content_block"]["name"], &events[9]["index"]), (&json!("time"), &json!(2)));
    assert_eq!((&events[12]["delta"]["stop_reason"], &events[12]["usage"]["output_tokens"]), (&json!("tool_use"), &json!(12)));

    let function = |name: &str, more: Value| json!({"type": "function", "function": {"name": name, "parameters": more}});
    let mut weather = function("weather", schema());
    weather["function"]["description"] = json!("Tells it");
    assert_eq!(
        upstream.received()[0].body,
        json!({
            "model": "theirs/model", "stream": true, "stream_options": {"include_usage": true}, "max_completion_tokens": 50,
            "temperature": 0.25, "top_k": 7, "stop": ["END"], "tool_choice": "auto", "parallel_tool_calls": false,
            "tools": [weather, function("time", json!({"type": "object"}))],
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "How is it in Ulm?"},
                {"role": "assistant", "content": null, "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{\"city\":\"Ulm\"}"}}]},
                {"role": "tool", "content": "rain", "tool_call_id": "call_1"},
            ],
        })
    );

    let (status, _, answer) = value(world.post("/v1/messages", &message_request(false)).await).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["content"], json!([{"type": "tool_use", "id": "call_a", "name": "weather", "input": {"city": "Ulm"}}]));
    assert_eq!((&answer["stop_reason"], &answer["usage"]["output_tokens"]), (&json!("tool_use"), &json!(12)));
    world.close().await;
    assert_eq!(world.cloud.records().len(), 2);
}

#[tokio::test]
async fn a_response_is_asked_for_as_a_chat_and_answered_as_a_response() {
    let upstream = Upstream::start().await;
    upstream.then(speech_and_calls()).then(whole_calls()).then(crate::upstream::whole("{\"city\":\"Ulm\"}", usage(9, 5)));
    let world = world(&upstream).await;
    let tools = json!([{"type": "web_search"}, {"type": "function", "name": "weather", "parameters": schema()}]);
    let body = |stream: bool| json!({"model": "far/away", "input": "How is it in Ulm?", "tools": tools, "tool_choice": "required", "stream": stream});
    let stream = text(world.post("/v1/responses", &body(true)).await).await;
    let events = named(&stream);
    let numbers: Vec<u64> = events.iter().map(|event| event["sequence_number"].as_u64().unwrap()).collect();
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{numbers:?}");
    let output = &events.last().unwrap()["response"]["output"];
    let told: Vec<(&Value, &Value)> = output.as_array().unwrap().iter().map(|item| (&item["type"], &item["arguments"])).collect();
    assert_eq!(
        told,
        [
            (&json!("message"), &Value::Null),
            (&json!("function_call"), &json!("{\"city\":\"Ulm\"}")),
            (&json!("function_call"), &json!("{}"))
        ]
    );
    for added in events.iter().filter(|event| event["type"] == "response.output_item.added") {
        assert!(output.as_array().unwrap().iter().any(|item| item["id"] == added["item"]["id"]), "{added}");
    }
    let only = json!({"type": "function", "function": {"name": "weather"}});
    assert_eq!(upstream.received()[0].body["tool_choice"], only, "with one tool, required is this one");
    assert_eq!(upstream.received()[0].body["tools"].as_array().unwrap().len(), 1, "what is no function is skipped");
    let (_, _, answer) = value(world.post("/v1/responses", &body(false)).await).await;
    assert_eq!((&answer["output"][0]["name"], &answer["output"][0]["call_id"]), (&json!("weather"), &json!("call_a")), "{answer}");

    let format = json!({"format": {"type": "json_schema", "name": "place", "schema": schema()}});
    let (_, _, answer) =
        value(world.post("/v1/responses", &json!({"model": "far/away", "input": "Where?", "text": format})).await).await;
    assert_eq!(answer["output"][0]["content"][0]["text"], json!("{\"city\":\"Ulm\"}"), "{answer}");
    assert_eq!(upstream.received()[2].body["response_format"]["json_schema"]["schema"], schema());
    world.close().await;
}

#[tokio::test]
async fn a_server_that_counts_is_asked_for_the_count() {
    let (first, second) = (Upstream::start().await, Upstream::start().await);
    first.then(Reply::Json(500, json!({})));
    for _ in 0..3 {
        second.then(Reply::Json(200, json!({"count": 17, "max_model_len": 4096, "tokens": [1, 2]})));
    }
    let world = world(&first).await;
    let counts = |number, upstream: &Upstream| Replica { engine: EngineKind::Vllm, ..replica(number, &upstream.base_url) };
    let supplier = Replica { engine: EngineKind::Vllm, ..crate::suppliers::supplier(3, "http://127.0.0.1:9/v1") };
    world.cloud.offer([model("far/away", vec![counts(1, &first), counts(2, &second), supplier])]);
    let tools = json!([{"name": "look", "input_schema": schema()}]);
    let question = json!([{"role": "user", "content": "hi"}]);
    let asked = json!({"model": "far/away", "messages": question, "tools": tools});
    for _ in 0..2 {
        let (status, _, answer) = value(world.post("/v1/messages/count_tokens", &asked).await).await;
        assert_eq!((status, answer), (200, json!({"input_tokens": 17})));
    }
    let (status, _, answer) =
        value(world.post("/v1/responses/input_tokens", &json!({"model": "far/away", "input": "hi"})).await).await;
    assert_eq!((status, &answer["input_tokens"]), (200, &json!(17)), "{answer}");
    let sent = &second.received()[0];
    assert_eq!((sent.path.as_str(), &sent.body["model"], &sent.body["messages"]), ("/tokenize", &json!("theirs/model"), &question));
    assert_eq!(sent.body["tools"][0]["function"]["name"], "look", "{}", sent.text);
    world.at_rest().await;
    assert!(world.cloud.records().is_empty(), "counting is free");
    world.close().await;
}

#[tokio::test]
async fn a_count_that_nobody_gives_is_not_made_up() {
    for nonsense in [json!({"tokens": [1]}), json!({"count": 0}), json!({"count": -3}), json!("7")] {
        let upstream = Upstream::start().await;
        upstream.then(Reply::Json(200, nonsense.clone()));
        let world = world(&upstream).await;
        world.cloud.offer([model("far/away", vec![Replica { engine: EngineKind::Vllm, ..replica(1, &upstream.base_url) }])]);
        let body = json!({"model": "far/away", "messages": [{"role": "user", "content": "hi"}]});
        let (status, _, answer) = value(world.post("/v1/messages/count_tokens", &body).await).await;
        assert_eq!(status, 502, "{nonsense}: {answer}");
        world.close().await;
    }
}

#[tokio::test]
async fn what_only_the_server_could_count_is_not_guessed() {
    let upstream = Upstream::start().await;
    let world = world(&upstream).await;
    for (path, body) in [
        ("/v1/messages/count_tokens", json!({"model": "far/away", "messages": [{"role": "user", "content": "hi"}]})),
        ("/v1/responses/input_tokens", json!({"model": "far/away", "input": "hi"})),
    ] {
        let (status, _, answer) = value(world.post(path, &body).await).await;
        assert_eq!(status, 400, "{answer}");
        assert!(answer.to_string().contains("counted"), "{answer}");
    }
    assert!(upstream.received().is_empty());
    world.close().await;
}
