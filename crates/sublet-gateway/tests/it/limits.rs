//! Speed limits, repeats, and retries.

use std::sync::Arc;

use http::Request;
use serde_json::json;
use sublet_core::DurationMs;
use sublet_core::id::{Identifier, KeyId};
use sublet_core::rate::{RateLimits, RateRule};

use crate::world::{World, chat, event, read_deltas, text, value};

fn limits(requests: Option<u32>, tokens: Option<u32>, concurrent: Option<u32>) -> RateLimits {
    RateLimits { requests_per_minute: requests, tokens_per_minute: tokens, concurrent_requests: concurrent }
}

fn rules(requests: Option<u32>, tokens: Option<u32>, concurrent: Option<u32>) -> Vec<RateRule> {
    limits(requests, tokens, concurrent).rules(&KeyId::from_trusted(Arc::from("key_1")))
}

#[tokio::test]
async fn every_answer_tells_the_limits_and_a_refusal_the_real_wait() {
    let world = World::new().await;
    world.cloud.change_key(&world.key, |access| access.limits = rules(Some(2), Some(600), None));
    let response = world.chat("please say 7").await;
    let headers = response.headers().clone();
    assert_eq!(
        ["requests", "tokens"].map(|kind| headers[&format!("x-ratelimit-remaining-{kind}")].to_str().unwrap().to_owned()),
        ["1", "597"],
        "the prompt is counted at once, the output when it is known"
    );
    text(response).await;
    text(world.chat("please say 7").await).await;
    let (status, headers, answer) = value(world.chat("please say 7").await).await;
    assert_eq!((status, &answer["error"]["code"]), (429, &json!("rate_limit_exceeded")));
    let shown = |name: &str| headers[name].to_str().unwrap().to_owned();
    assert_eq!((shown("retry-after"), shown("retry-after-ms")), ("30".to_owned(), "30000".to_owned()));
    assert_eq!((shown("x-ratelimit-limit-requests"), shown("x-ratelimit-remaining-requests")), ("2".to_owned(), "0".to_owned()));
    assert_eq!((shown("x-ratelimit-reset-requests"), shown("x-ratelimit-remaining-tokens")), ("1m0s".to_owned(), "580".to_owned()));
    world.clock.advance(DurationMs::from_seconds(30));
    assert_eq!(world.chat("please say 7").await.status(), 200);
    world.close().await;
}

#[tokio::test]
async fn waits_that_clients_ignore_come_with_the_advice_not_to_repeat() {
    let world = World::new().await;
    world.cloud.change_key(&world.key, |access| access.limits = rules(None, Some(10), None));
    text(world.chat("please say 30").await).await;
    let (status, headers, _) = value(world.chat("please say 1").await).await;
    assert_eq!(
        (status, &headers["retry-after"], &headers["x-should-retry"]),
        (429, &"144".parse().unwrap(), &"false".parse().unwrap())
    );
    world.close().await;
}

#[tokio::test]
async fn b_requests_in_flight_are_limited_and_end_however_they_end() {
    let world = World::new().await;
    world.cloud.change_key(&world.key, |access| access.limits = rules(None, None, Some(2)));
    world.engine.set_pace(1);
    let mut first = world.stream("please say 9").await;
    let second = world.stream("please say 9").await;
    read_deltas(&mut first, 1).await;
    let (status, _, answer) = value(world.chat("please say 1").await).await;
    assert_eq!((status, &answer["error"]["code"]), (429, &json!("concurrency_exceeded")));
    drop((first, second));
    world.engine.set_pace(u64::MAX);
    for script in ["please say 1", "please fail 0", "please say 0"] {
        text(world.chat(script).await).await;
    }
    assert_eq!(world.post("/v1/chat/completions", &json!({"model": "tiny"})).await.status(), 400);
    let third = world.stream("please say 9").await;
    let fourth = world.stream("please say 9").await;
    drop((third, fourth));
    world.close().await;
}

fn with_key(world: &World, key: &str, script: &str) -> Request<axum::body::Body> {
    let mut request = world.request("/v1/chat/completions", chat(script).to_string());
    request.headers_mut().insert("idempotency-key", key.parse().unwrap());
    request
}

#[tokio::test]
async fn m_a_repeat_with_the_same_idempotency_key_is_never_charged_again() {
    let world = World::new().await;
    let (_, headers, _) = value(world.send(with_key(&world, "k1", "please say 5")).await).await;
    let first = headers["x-request-id"].to_str().unwrap().to_owned();
    let (status, _, answer) = value(world.send(with_key(&world, "k1", "please say 5")).await).await;
    assert_eq!((status, &answer["error"]["code"]), (409, &json!("already_served")));
    assert!(answer["error"]["message"].as_str().unwrap().contains(&first));
    let (status, _, answer) = value(world.send(with_key(&world, "k1", "please say 6")).await).await;
    assert_eq!((status, &answer["error"]["code"]), (422, &json!("idempotency_mismatch")));
    world.close().await;
    assert_eq!(world.cloud.records().len(), 1);
}

#[tokio::test]
async fn m_a_repeat_waits_for_the_first_and_a_failed_first_may_be_repeated() {
    let world = World::new().await;
    world.engine.set_pace(1);
    let mut body = chat("please say 5");
    body["stream"] = json!(true);
    let mut request = world.request("/v1/chat/completions", body.to_string());
    request.headers_mut().insert("idempotency-key", "k1".parse().unwrap());
    let mut running = world.send(request).await.into_body();
    event(&mut running).await;
    let mut again = world.request("/v1/chat/completions", body.to_string());
    again.headers_mut().insert("idempotency-key", "k1".parse().unwrap());
    let (status, _, answer) = value(world.send(again).await).await;
    assert_eq!((status, &answer["error"]["code"]), (409, &json!("idempotency_in_progress")));
    drop(running);
    world.engine.set_pace(u64::MAX);
    assert_eq!(world.send(with_key(&world, "k1", "please fail 0")).await.status(), 500);
    assert_eq!(world.send(with_key(&world, "k1", "please say 5")).await.status(), 200);
    world.close().await;
    assert_eq!(world.cloud.records().len(), 1);
}

/// Counters of keys are never dropped for want of room while they say something: new keys wait instead.
#[tokio::test]
async fn o_a_gateway_full_of_keys_forgets_no_limit() {
    let mut config = crate::world::config();
    config.keys_max = 1;
    let world = World::with(config).await;
    let ask = |key: &str| {
        let request = Request::post("/v1/chat/completions").header("authorization", format!("Bearer {key}"));
        request.body(axum::body::Body::from(chat("say 1").to_string())).unwrap()
    };
    // One key a shard, so some of these meet where there is room for one.
    let keys: Vec<String> = (10..26).map(|number| world.cloud.add_key(number, "a", limits(Some(1), None, None))).collect();
    let mut first = Vec::new();
    for key in &keys {
        first.push(world.send(ask(key)).await.status().as_u16());
    }
    assert!(first.contains(&200) && first.iter().all(|status| matches!(status, 200 | 503)), "{first:?}");
    for (key, status) in keys.iter().zip(&first) {
        let again = world.send(ask(key)).await.status().as_u16();
        assert_eq!(again, if *status == 200 { 429 } else { 503 }, "whoever was counted is still counted");
    }
    world.close().await;
}

#[tokio::test]
async fn the_client_s_own_retries_are_on_the_record() {
    let world = World::new().await;
    let mut request = world.request("/v1/chat/completions", chat("please say 1").to_string());
    request.headers_mut().insert("x-stainless-retry-count", "2".parse().unwrap());
    text(world.send(request).await).await;
    world.close().await;
    assert_eq!(world.cloud.records()[0].client_retry, 2);
}
