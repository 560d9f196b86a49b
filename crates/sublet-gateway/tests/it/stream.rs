//! The exact form of answers, streamed and whole.

use serde_json::{Value, json};
use sublet_core::DurationMs;

use crate::world::{World, chat, event, events, read, read_deltas, streamed, text, value};

#[tokio::test]
async fn a_streamed_chat_is_framed_as_clients_expect() {
    let world = World::new().await;
    let response = world.post("/v1/chat/completions", &streamed("please say 2")).await;
    for (name, expected) in [("content-type", "text/event-stream"), ("cache-control", "no-cache"), ("x-accel-buffering", "no")] {
        assert_eq!(response.headers()[name], expected);
    }
    assert!(response.headers()["x-request-id"].to_str().unwrap().starts_with("req_"));
    insta::assert_snapshot!(text(response).await);
    world.close().await;
}

#[tokio::test]
async fn a_streamed_chat_without_the_option_carries_no_usage() {
    let world = World::new().await;
    let mut body = streamed("please say 2");
    body.as_object_mut().unwrap().remove("stream_options");
    let answer = text(world.post("/v1/chat/completions", &body).await).await;
    assert!(!answer.contains("usage") && !answer.contains("\"choices\":[]"), "{answer}");
    assert!(answer.ends_with("data: [DONE]\n\n"));
    world.close().await;
}

#[tokio::test]
async fn a_streamed_completion_is_framed_as_clients_expect() {
    let world = World::new().await;
    let body = json!({"model": "tiny", "prompt": "please say 2", "stream": true, "logprobs": 1, "stream_options": {"include_usage": true}});
    insta::assert_snapshot!(text(world.post("/v1/completions", &body).await).await);
    world.close().await;
}

#[tokio::test]
async fn whole_answers_have_openai_s_shape() {
    let world = World::new().await;
    let mut body = chat("please say 2");
    body["logprobs"] = json!(true);
    body["top_logprobs"] = json!(1);
    let (_, _, answer) = value(world.post("/v1/chat/completions", &body).await).await;
    insta::assert_json_snapshot!("chat_completion", answer);
    let body = json!({"model": "tiny", "prompt": "please say 2", "logprobs": 1});
    let (_, _, answer) = value(world.post("/openai/v1/completions", &body).await).await;
    insta::assert_json_snapshot!("completion", answer);
    world.close().await;
}

#[tokio::test]
async fn streamed_events_read_as_the_wire_types_say() {
    let world = World::new().await;
    let answer = text(world.post("/v1/chat/completions", &streamed("please say 3")).await).await;
    let (events, done) = events(&answer);
    assert!(done);
    let chunks: Vec<sublet_api::openai::ChatChunk> =
        events.into_iter().map(|event| serde_json::from_value(event).unwrap()).collect();
    let text: String = chunks.iter().flat_map(|chunk| &chunk.choices).filter_map(|choice| choice.delta.content.clone()).collect();
    assert_eq!(text, "w1 w2 w3 ");
    let last = chunks.last().unwrap();
    assert!(last.choices.is_empty() && last.usage.unwrap().total_tokens == 6);
    assert!(last.sublet.as_ref().unwrap().provisional);
    world.close().await;
}

#[tokio::test]
async fn every_answer_of_a_stream_finishes() {
    let world = World::new().await;
    let mut body = streamed("please say 5");
    body["n"] = json!(4);
    let (events, done) = events(&text(world.post("/v1/chat/completions", &body).await).await);
    let choices: Vec<&Value> = events.iter().flat_map(|event| event["choices"].as_array().unwrap()).collect();
    for index in 0..4 {
        let mine: Vec<_> = choices.iter().filter(|choice| choice["index"] == json!(index)).collect();
        assert_eq!(mine[0]["delta"], json!({"role": "assistant", "content": ""}));
        assert_eq!(mine.last().unwrap()["finish_reason"], "stop");
        let text: String = mine.iter().filter_map(|choice| choice["delta"]["content"].as_str()).collect();
        assert_eq!(text, "w1 w2 w3 w4 w5 ");
    }
    assert!(done);
    world.close().await;
}

#[tokio::test]
async fn the_record_is_durable_before_the_last_bytes() {
    let world = World::new().await;
    world.disk.stand_still(true);
    let mut body = world.stream("please say 2").await;
    read_deltas(&mut body, 2).await;
    let mut rest = tokio::spawn(async move { event(&mut body).await.unwrap() });
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
    assert!(!rest.is_finished(), "the end was told before the record was durable");
    world.disk.stand_still(false);
    assert!((&mut rest).await.unwrap().ends_with("data: [DONE]\n\n"));
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn silence_is_filled_with_a_comment_only_after_a_long_time() {
    let world = World::new().await;
    let mut body = world.stream("please wait").await;
    assert!(event(&mut body).await.unwrap().contains("assistant"));
    let before = tokio::time::Instant::now();
    assert_eq!(event(&mut body).await.unwrap(), ": still working\n\n");
    let waited = DurationMs::from_millis(i64::try_from(before.elapsed().as_millis()).unwrap());
    assert!(waited >= DurationMs::from_seconds(14) && waited <= DurationMs::from_seconds(16), "{waited:?}");
    drop(body);
}

#[tokio::test]
async fn models_are_listed_and_found_with_their_prices() {
    let world = World::new().await;
    let get = |path: &str| http::Request::get(path).header("x-api-key", &world.key).body(axum::body::Body::empty()).unwrap();
    let (_, headers, list) = value(world.send(get("/v1/models")).await).await;
    assert!(headers.contains_key("x-request-id"));
    insta::assert_json_snapshot!("models", list);
    for path in ["/v1/models/lab/tiny", "/models/lab/tiny", "/openai/v1/models/lab/tiny"] {
        let (status, _, model) = value(world.send(get(path)).await).await;
        assert_eq!((status, &model["id"]), (200, &json!("lab/tiny")));
    }
    let (status, _, error) = value(world.send(get("/v1/models/no/such")).await).await;
    assert_eq!((status, &error["error"]["code"]), (404, &json!("model_not_found")));
    assert_eq!(error["error"]["alternatives"], json!(["lab/tiny", "tiny", "unpriced"]));
    world.close().await;
}

#[tokio::test]
async fn a_stream_whose_engine_never_begins_still_begins() {
    let mut config = crate::world::config();
    config.first_event_wait = DurationMs::from_millis(1);
    let world = World::with(config).await;
    let mut body = world.stream("please stuck").await;
    assert!(event(&mut body).await.unwrap().contains("assistant"));
    drop(body);
    world.close().await;
    let answer = read(world.chat("say 1").await.into_body()).await;
    assert!(answer.contains("shutting_down"), "{answer}");
}
