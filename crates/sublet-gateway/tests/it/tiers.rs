//! Service tiers: which is served, told and charged, and who gives way to whom.

use serde_json::{Value, json};
use sublet_core::DurationMs;
use sublet_core::supplier::ExternalSupply;
use sublet_core::supply::{Replica, ReplicaState};
use sublet_core::tier::ServiceTier;
use sublet_core::usage::Outcome;

use crate::cloud::{INPUT, OUTPUT};
use crate::suppliers::{permit, supplier};
use crate::supply::{ask, counts, only_record, streamed};
use crate::upstream::{Part, Reply, Upstream, counted, ended, model, replica, said, usage, whole};
use crate::world::{World, chat, config, event, events, read, text, value};

/// A gateway that is patient, with one remote model on one replica that takes one request at a time.
async fn narrow(upstream: &Upstream) -> World {
    let mut config = config();
    config.supply.queue_wait = DurationMs::from_seconds(60);
    let world = World::with(config).await;
    world.cloud.offer([model("far/away", vec![seat(upstream)])]);
    world
}

fn seat(upstream: &Upstream) -> Replica {
    Replica { in_flight_max: 1, ..replica(1, &upstream.base_url) }
}

fn at(tier: &str, mut body: Value) -> Value {
    body["service_tier"] = json!(tier);
    body
}

/// A stream that says one word, and goes on when it is told to.
fn held() -> Reply {
    Reply::Stream(vec![said("word"), Part::Wait, said("more"), ended("stop"), counted(7, 2), Part::Done])
}

async fn until(mut is: impl FnMut() -> bool) {
    while !is() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn the_tier_is_told_recorded_and_charged_in_every_dialect() {
    for (asked, tier, half_prices) in [
        ("auto", "default", 2),
        ("default", "default", 2),
        ("flex", "flex", 1),
        ("priority", "priority", 4),
        ("fast", "priority", 4),
    ] {
        let world = World::new().await;
        let (status, headers, answer) = value(world.post("/v1/chat/completions", &at(asked, chat("please say 5"))).await).await;
        assert_eq!((status, &answer["service_tier"]), (200, &json!(tier)), "{answer}");
        assert_eq!(headers["x-sublet-tier"], tier);
        let record = only_record(&world).await;
        assert_eq!(record.tier.as_str(), tier);
        let (input, cached, output) = counts(&record);
        assert_eq!((cached, world.cloud.settled("a")), (0, (input * INPUT + output * OUTPUT) * half_prices / 2));
        let cost = headers["x-sublet-cost"].to_str().unwrap().to_owned();
        assert!(cost.contains(&sublet_core::Nanos::new(world.cloud.settled("a")).to_string()), "{cost}");
        world.close().await;
    }
    let world = World::new().await;
    let answer = text(world.post("/v1/chat/completions", &at("flex", crate::world::streamed("please say 3"))).await).await;
    assert!(events(&answer).0.iter().all(|event| event["service_tier"] == "flex"), "{answer}");
    let responses = json!({"model": "tiny", "input": "please say 3", "service_tier": "flex"});
    assert_eq!(value(world.post("/v1/responses", &responses).await).await.2["service_tier"], "flex");
    for (asked, told) in [("auto", "standard"), ("standard_only", "standard"), ("flex", "flex"), ("priority", "priority")] {
        let messages = json!({"model": "tiny", "max_tokens": 9, "messages": [{"role": "user", "content": "please say 3"}], "service_tier": asked});
        assert_eq!(value(world.post("/v1/messages", &messages).await).await.2["usage"]["service_tier"], told);
    }
    world.close().await;
}

#[tokio::test]
async fn a_tier_that_is_not_sold_is_refused_and_not_replaced() {
    let upstream = Upstream::start().await;
    let world = narrow(&upstream).await;
    let (status, _, answer) = value(world.post("/v1/chat/completions", &at("priority", ask())).await).await;
    assert_eq!((status, &answer["error"]["code"]), (403, &json!("policy_refused")), "{answer}");
    assert_eq!((&answer["error"]["param"], &answer["error"]["alternatives"]), (&json!("service_tier"), &json!(["default"])));
    assert!(upstream.received().is_empty() && world.cloud.records().is_empty());
    world.close().await;
}

#[tokio::test]
async fn models_list_the_tiers_at_which_they_are_sold() {
    let world = World::new().await;
    let request = http::Request::get("/v1/models/tiny").header("authorization", format!("Bearer {}", world.key));
    let answer = value(world.send(request.body(axum::body::Body::empty()).unwrap()).await).await.2;
    let tiers: Vec<(&str, &str)> = answer["service_tiers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|tier| (tier["service_tier"].as_str().unwrap(), tier["notice"].as_str().unwrap()))
        .collect();
    assert_eq!(tiers, [("flex", "n0"), ("default", "n15m"), ("priority", "n1h")]);
    assert_eq!(answer["service_tiers"][1]["pricing"], answer["pricing"]);
    world.close().await;
}

#[tokio::test]
async fn flex_that_has_begun_is_preempted_by_a_higher_tier_and_charged_for_what_was_delivered() {
    let upstream = Upstream::start().await;
    upstream.then(held()).then(whole("hi", usage(7, 3)));
    let world = narrow(&upstream).await;
    let mut flex = world.post("/v1/chat/completions", &at("flex", streamed())).await.into_body();
    event(&mut flex).await.unwrap();
    let (status, _, answer) = value(world.post("/v1/chat/completions", &ask()).await).await;
    assert_eq!((status, &answer["choices"][0]["message"]["content"]), (200, &json!("hi")), "{answer}");
    let rest = read(flex).await;
    assert!(rest.contains("\"code\":\"preempted\"") && !rest.contains("[DONE]"), "{rest}");
    world.at_rest().await;
    let records = world.cloud.records();
    let preempted = records.iter().find(|record| record.tier == ServiceTier::Flex).expect("what was delivered is charged");
    assert_eq!((preempted.outcome, preempted.tokens.output.get()), (Outcome::Preempted, 1));
    assert_eq!((records.len(), upstream.received().len()), (2, 2));
    world.close().await;
}

#[tokio::test]
async fn flex_that_has_not_begun_waits_again_and_is_charged_once() {
    let upstream = Upstream::start().await;
    upstream.then(Reply::Hang).then(held()).then(whole("late", usage(7, 3)));
    let world = narrow(&upstream).await;
    let flex = at("flex", ask());
    let asked = world.post("/v1/chat/completions", &flex);
    let higher = async {
        until(|| upstream.received().len() == 1).await;
        let mut higher = world.post("/v1/chat/completions", &streamed()).await.into_body();
        event(&mut higher).await.unwrap();
        assert_eq!(upstream.received().len(), 2, "flex waits meanwhile");
        upstream.go_on();
        read(higher).await
    };
    let (flex, higher) = tokio::join!(asked, higher);
    assert!(higher.contains("[DONE]"));
    let (status, _, answer) = value(flex).await;
    assert_eq!((status, &answer["choices"][0]["message"]["content"]), (200, &json!("late")));
    world.at_rest().await;
    assert_eq!((world.cloud.records().len(), upstream.received().len()), (2, 3));
    world.close().await;
}

#[tokio::test]
async fn a_supplier_is_not_told_to_stop_what_has_to_be_paid_anyway() {
    let upstream = Upstream::start().await;
    upstream.then(held()).then(whole("hi", usage(7, 3)));
    let world = narrow(&upstream).await;
    world.cloud.offer([model("far/away", vec![Replica { in_flight_max: 1, ..supplier(1, &upstream.base_url) }])]);
    permit(&world, ExternalSupply::Any);
    let mut flex = world.post("/v1/chat/completions", &at("flex", streamed())).await.into_body();
    event(&mut flex).await.unwrap();
    let body = ask();
    let higher = world.post("/v1/chat/completions", &body);
    let first = async {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        upstream.go_on();
        read(flex).await
    };
    let (higher, flex) = tokio::join!(higher, first);
    assert!(flex.contains("more") && flex.contains("[DONE]"), "{flex}");
    assert_eq!(higher.status(), 200);
    world.close().await;
}

#[tokio::test]
async fn places_go_by_tier_and_who_waits_too_long_is_told_when_to_repeat() {
    let upstream = Upstream::start().await;
    upstream.then(held());
    upstream.then(whole("second", usage(7, 3))).then(whole("third", usage(7, 3)));
    let world = narrow(&upstream).await;
    let mut first = world.post("/v1/chat/completions", &streamed()).await.into_body();
    event(&mut first).await.unwrap();
    let (flex, default) = (at("flex", ask()), ask());
    let flex = async { value(world.post("/v1/chat/completions", &flex).await).await.2 };
    let default = async { value(world.post("/v1/chat/completions", &default).await).await.2 };
    let release = async {
        until(|| world.gateway.metrics().in_flight == 3).await;
        // They have come to wait when nothing else is left to do.
        for _ in 0..1_000 {
            tokio::task::yield_now().await;
        }
        upstream.go_on();
        read(first).await
    };
    let (flex, default, _) = tokio::join!(flex, default, release);
    assert_eq!(
        (&default["choices"][0]["message"]["content"], &flex["choices"][0]["message"]["content"]),
        (&json!("second"), &json!("third"))
    );
    world.close().await;
}

#[tokio::test]
async fn a_replica_that_drains_ends_flex_at_once_and_the_rest_in_peace() {
    let upstream = Upstream::start().await;
    upstream.then(held()).then(held());
    let world = narrow(&upstream).await;
    let two = |state| Replica { in_flight_max: 2, state, ..replica(1, &upstream.base_url) };
    world.cloud.offer([model("far/away", vec![two(ReplicaState::Serving)])]);
    let mut flex = world.post("/v1/chat/completions", &at("flex", streamed())).await.into_body();
    let mut default = world.post("/v1/chat/completions", &streamed()).await.into_body();
    event(&mut flex).await.unwrap();
    event(&mut default).await.unwrap();
    world.cloud.offer([model("far/away", vec![two(ReplicaState::Draining)])]);
    // The sweep sees the change; nobody has to call for it.
    let ended = read(flex).await;
    assert!(ended.contains("\"code\":\"preempted\""), "{ended}");
    assert_eq!(world.gateway.replicas()[0].in_flight, 1, "its load is known over the change");
    upstream.go_on();
    assert!(read(default).await.contains("[DONE]"));
    world.close().await;
}

#[tokio::test]
async fn a_replica_that_says_it_is_full_is_asked_again_and_not_beyond_what_it_took() {
    let upstream = Upstream::start().await;
    upstream.then(held()).then(Reply::Json(429, json!({}))).then(whole("hi", usage(7, 3)));
    let world = narrow(&upstream).await;
    world.cloud.offer([model("far/away", vec![replica(1, &upstream.base_url)])]);
    let mut first = world.post("/v1/chat/completions", &streamed()).await.into_body();
    event(&mut first).await.unwrap();
    let body = ask();
    let second = world.post("/v1/chat/completions", &body);
    let release = async {
        until(|| upstream.received().len() == 2).await;
        for _ in 0..1_000 {
            tokio::task::yield_now().await;
        }
        assert_eq!(upstream.received().len(), 2, "it takes one: the second waits for the first");
        upstream.go_on();
        read(first).await
    };
    let (second, _) = tokio::join!(second, release);
    assert_eq!((second.status().as_u16(), upstream.received().len()), (200, 3));
    world.close().await;
}
