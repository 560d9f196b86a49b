//! Limits on speed that several gateways share, and those on models and end users.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::{Value, json};
use sublet_core::DurationMs;
use sublet_core::admission::Narrowing;
use sublet_core::rate::{EndUsers, HOLDING_LIFE, RateMetric, RateRule};

use crate::cloud::{INPUT, OUTPUT};
use crate::world::{SOON, World, chat, read_deltas, text, value};

fn rule(name: &str, metric: RateMetric, limit: i64) -> RateRule {
    RateRule { name: name.into(), subject: "proj_a".into(), metric, value: limit, model: None, end_users: EndUsers::All }
}

async fn limited(rules: Vec<RateRule>) -> World {
    let world = World::new().await;
    world.cloud.change_key(&world.key, |access| access.limits = rules);
    world
}

async fn status(world: &World, body: &Value) -> u16 {
    value(world.post("/v1/chat/completions", body).await).await.0
}

/// Waits until some gateway has asked the cloud once more.
async fn after_another_draw(world: &World) {
    let mut draws = world.cloud.draws.subscribe();
    draws.mark_unchanged();
    tokio::time::timeout(SOON.to_std(), draws.changed()).await.expect("the sweep tells the cloud").unwrap();
}

fn by(user: &str) -> Value {
    let mut body = chat("please say 1");
    body["user"] = json!(user);
    body
}

#[tokio::test]
async fn two_gateways_let_through_what_one_would() {
    let one = limited(vec![rule("rlim_1", RateMetric::RequestsPerMinute, 60)]).await;
    let two = one.beside("gw_two").await;
    let mut passed = 0;
    for turn in 0..80 {
        let world = if turn % 3 == 0 { &one } else { &two };
        passed += i32::from(status(world, &chat("please say 1")).await == 200);
    }
    // What one holds when the other is refused is still there.
    for _ in 0..20 {
        for world in [&one, &two] {
            passed += i32::from(status(world, &chat("please say 1")).await == 200);
        }
    }
    assert_eq!(passed, 60);
    let (refused, headers, answer) = value(one.chat("please say 1").await).await;
    assert_eq!((refused, &answer["error"]["code"]), (429, &json!("rate_limit_exceeded")));
    assert_eq!(answer["error"]["message"].as_str().unwrap(), "proj_a may use 60 requests per minute");
    assert_eq!(headers["retry-after-ms"], "1000");
    one.clock.advance(DurationMs::from_seconds(1));
    assert_eq!((status(&two, &chat("please say 1")).await, status(&one, &chat("please say 1")).await), (200, 429));
    for world in [&one, &two] {
        world.at_rest().await;
    }
    assert!(*one.cloud.draws.borrow() < 180, "most are not asked for one by one");
}

#[tokio::test]
async fn tokens_of_one_gateway_are_a_debt_for_the_other() {
    let one = limited(vec![rule("rlim_1", RateMetric::TokensPerDay, 100)]).await;
    let two = one.beside("gw_two").await;
    text(one.chat("please say 200").await).await;
    after_another_draw(&one).await;
    let (status, headers, _) = value(two.chat("please say 1").await).await;
    // 203 tokens of 100: 104 have to come back, at 864 s each.
    assert_eq!((status, headers["retry-after"].to_str().unwrap()), (429, "89856"));
    assert_eq!(headers["x-ratelimit-reset-tokens"], "48h43m12s");
}

#[tokio::test]
async fn a_limit_is_on_one_model_or_on_each_end_user() {
    let each = RateRule { end_users: EndUsers::Each, ..rule("rlim_each", RateMetric::RequestsPerMinute, 2) };
    let bob = RateRule { end_users: EndUsers::One("bob".into()), ..rule("rlim_bob", RateMetric::RequestsPerMinute, 1) };
    let other = RateRule { model: Some("another".into()), ..rule("rlim_model", RateMetric::RequestsPerMinute, 1) };
    let all = rule("rlim_all", RateMetric::RequestsPerMinute, 6);
    let world = limited(vec![each, bob, other, all]).await;
    let mut seen = Vec::new();
    for user in ["ann", "bob", "bob", "ann", "ann", "cem"] {
        seen.push(status(&world, &by(user)).await);
    }
    assert_eq!(seen, [200, 200, 429, 200, 429, 200]);
    // A refused request counts where it was not refused: the six of all are used up.
    let nobody = status(&world, &chat("please say 1")).await;
    let mut message = json!({"model": "tiny", "max_tokens": 9, "messages": [{"role": "user", "content": "please say 1"}]});
    message["metadata"] = json!({"user_id": "ann"});
    let (refused, headers, answer) = value(world.post("/v1/messages", &message).await).await;
    assert_eq!((nobody, refused), (429, 429), "{answer}");
    assert!(headers.contains_key("anthropic-ratelimit-requests-reset"), "{headers:?}");
    let mut wrong = chat("please say 1");
    wrong["user"] = json!(7);
    world.clock.advance(DurationMs::from_seconds(60));
    assert_eq!(status(&world, &wrong).await, 400);
    world.close().await;
    let names: Vec<String> = world.cloud.buckets.lock().unwrap().keys().map(ToString::to_string).collect();
    assert!(names.iter().all(|name| !name.contains("ann") && !name.contains("cem")), "{names:?}");
}

#[tokio::test]
async fn what_was_drawn_is_spent_while_the_cloud_is_away_and_then_there_is_a_clear_refusal() {
    let world = limited(vec![rule("rlim_1", RateMetric::RequestsPerMinute, 640)]).await;
    assert_eq!(status(&world, &chat("please say 1")).await, 200);
    world.cloud.unreachable.store(true, Ordering::SeqCst);
    let mut seen = Vec::new();
    for _ in 0..11 {
        seen.push(status(&world, &chat("please say 1")).await);
    }
    let served = seen.iter().filter(|status| **status == 200).count();
    assert_eq!(served, 9, "a draw brings a part of the limit: {seen:?}");
    let (status, _, answer) = value(world.chat("please say 1").await).await;
    assert_eq!((status, &answer["error"]["code"]), (503, &json!("store_unavailable")));
    world.cloud.unreachable.store(false, Ordering::SeqCst);
    assert_eq!(self::status(&world, &chat("please say 1")).await, 200);
    world.close().await;
}

#[tokio::test]
async fn places_are_shared_and_come_back_from_idle_and_lost_gateways() {
    let one = limited(vec![rule("rlim_1", RateMetric::ConcurrentRequests, 2)]).await;
    let two = one.beside("gw_two").await;
    one.engine.set_pace(1);
    let mut first = one.stream("please say 9").await;
    read_deltas(&mut first, 1).await;
    let mut second = one.stream("please say 9").await;
    read_deltas(&mut second, 1).await;
    let (refused, _, answer) = value(two.chat("please say 1").await).await;
    assert_eq!((refused, &answer["error"]["code"]), (429, &json!("concurrency_exceeded")));
    assert!(answer["error"]["message"].as_str().unwrap().starts_with("proj_a may have 2 requests in flight, and has that many"));
    drop(first);
    // The place that is free again is idle a second later, and goes back.
    one.clock.advance(DurationMs::from_seconds(2));
    after_another_draw(&one).await;
    let third = two.stream("please say 9").await;
    assert_eq!(status(&two, &chat("please say 1")).await, 429);
    // A gateway that is never heard of again keeps nothing for long.
    drop((second, third));
    one.clock.advance(HOLDING_LIFE);
    let three = one.beside("gw_three").await;
    let (a, b) = tokio::join!(three.chat("please say 1"), three.chat("please say 1"));
    assert_eq!((a.status().as_u16(), b.status().as_u16()), (200, 200));
}

#[tokio::test]
async fn many_wait_for_one_draw() {
    let world = Arc::new(limited(vec![rule("rlim_1", RateMetric::RequestsPerMinute, 100)]).await);
    world.cloud.slow.store(true, Ordering::SeqCst);
    let ask = || {
        let world = Arc::clone(&world);
        tokio::spawn(async move { world.chat("please say 1").await.status().as_u16() })
    };
    let asked: Vec<_> = (0..40).map(|_| ask()).collect();
    tokio::task::yield_now().await;
    world.cloud.slow.store(false, Ordering::SeqCst);
    world.cloud.go.notify_waiters();
    world.cloud.go.notify_one();
    for status in asked {
        assert_eq!(status.await.unwrap(), 200);
    }
    assert!(*world.cloud.draws.borrow() <= 4, "{:?}", world.cloud.draws);
    world.close().await;
}

#[tokio::test]
async fn money_of_an_end_user_is_held_apart_and_goes_back() {
    let world = World::new().await;
    let each = Narrowing { model: None, end_users: EndUsers::Each };
    world.cloud.change_key(&world.key, |access| access.narrow_limits = vec![each]);
    // Enough for one answer: three tokens in and one out.
    world.cloud.books.lock().unwrap().class_limit = Some(3 * INPUT + OUTPUT + 10);
    assert_eq!(status(&world, &by("ann")).await, 200);
    let (refused, _, answer) = value(world.post("/v1/chat/completions", &by("ann")).await).await;
    assert_eq!((refused, &answer["error"]["code"]), (429, &json!("insufficient_quota")));
    assert_eq!(status(&world, &by("bob")).await, 200);
    assert_eq!(status(&world, &chat("please say 1")).await, 200, "unnamed ones are one more end user");
    assert_eq!(status(&world, &chat("please say 1")).await, 429);
    world.close().await;
    assert_eq!(world.cloud.records().len(), 3);
}

#[tokio::test]
async fn a_request_that_another_limit_refuses_is_not_counted() {
    let rules = vec![rule("rlim_1", RateMetric::RequestsPerMinute, 2), rule("rlim_2", RateMetric::ConcurrentRequests, 1)];
    let world = limited(rules).await;
    world.engine.set_pace(1);
    let mut stream = world.stream("please say 9").await;
    read_deltas(&mut stream, 1).await;
    for _ in 0..5 {
        assert_eq!(value(world.chat("please say 1").await).await.2["error"]["code"], json!("concurrency_exceeded"));
    }
    drop(stream);
    world.engine.set_pace(u64::MAX);
    assert_eq!(status(&world, &chat("please say 1")).await, 200);
    assert_eq!(value(world.chat("please say 1").await).await.2["error"]["code"], json!("rate_limit_exceeded"));
    world.close().await;
}

#[tokio::test]
async fn a_gateway_that_goes_on_with_less_keeps_no_places_it_does_not_need() {
    let one = limited(vec![rule("rlim_1", RateMetric::ConcurrentRequests, 4)]).await;
    let two = one.beside("gw_two").await;
    one.engine.set_pace(1);
    let mut streams = Vec::new();
    for _ in 0..4 {
        let mut stream = one.stream("please say 9").await;
        read_deltas(&mut stream, 1).await;
        streams.push(stream);
    }
    assert_eq!(status(&two, &chat("please say 1")).await, 429);
    streams.truncate(1);
    // No time passes, so nothing is idle here.
    after_another_draw(&one).await;
    assert_eq!(status(&two, &chat("please say 1")).await, 200);
}
