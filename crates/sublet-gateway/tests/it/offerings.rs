//! Offerings as callers meet them, on every route that takes a model.

use std::sync::Arc;

use serde_json::{Value, json};
use sublet_api::route::{INFERENCE_BODY_BYTES_MAX, Method, Operation, ROUTES};
use sublet_core::offering::{Entitlements, Offering, OfferingChange, OfferingState, Offerings, Product, plan_change};
use sublet_core::{DurationMs, Timestamp};

use crate::world::{START, World, chat, value};

fn tiny() -> Product {
    Product::Model("tiny".into())
}

fn say(world: &World, changes: &[OfferingChange]) {
    let next = |before: Option<Offering>, change| plan_change(&tiny(), before.as_ref(), change, START).unwrap().or(before);
    *world.cloud.offerings.lock().unwrap() = Arc::new(Offerings::new(changes.iter().fold(None, next)));
}

fn state(state: OfferingState) -> OfferingChange {
    OfferingChange { state, ends_at: None, successor: None }
}

fn retiring(successor: &str) -> OfferingChange {
    let ends_at = Some(Timestamp::from_seconds(START.seconds() + 86_400));
    OfferingChange { state: OfferingState::Retiring, ends_at, successor: Some(Product::Model(successor.into())) }
}

fn may(world: &World, invited: bool, using: bool) {
    let set = |is_in: bool| is_in.then(tiny).into_iter().collect();
    world.cloud.change_key(&world.key, |access| access.entitlements = Entitlements { invited: set(invited), using: set(using) });
}

/// What each route of the table that takes a model is asked. A new one fails here until it is asked something.
fn bodies() -> Vec<(&'static str, Value)> {
    let takes_model = |operation: Operation| !matches!(operation, Operation::CreateModeration | Operation::CancelResponse);
    let routes = ROUTES.iter().filter(|route| route.method == Method::Post && route.body_bytes_max == INFERENCE_BODY_BYTES_MAX);
    let body = |operation| match operation {
        Operation::CreateChatCompletion => chat("please say 3"),
        Operation::CreateCompletion => json!({"prompt": "say 3"}),
        Operation::CreateEmbedding => json!({"input": "x"}),
        Operation::CreateResponse | Operation::CountResponseTokens => json!({"input": "say 3"}),
        Operation::CreateMessage => json!({"max_tokens": 50, "messages": [{"role": "user", "content": "say 3"}]}),
        Operation::CountMessageTokens => json!({"messages": [{"role": "user", "content": "say 3"}]}),
        other => panic!("{other:?} takes a model, and is not asked here"),
    };
    routes.filter(|route| takes_model(route.operation)).map(|route| (route.path, body(route.operation))).collect()
}

async fn ask(world: &World, path: &str, body: &Value, model: &str) -> (u16, Value) {
    let mut body = body.clone();
    body["model"] = json!(model);
    let (status, _, mut answer) = value(world.post(path, &body).await).await;
    // Every answer names its request.
    for holder in [&mut answer["error"], &mut Value::Null] {
        if let Some(error) = holder.as_object_mut() {
            error.remove("request_id");
        }
    }
    if let Some(answer) = answer.as_object_mut() {
        answer.remove("request_id");
    }
    (status, answer)
}

async fn see(world: &World, path: &str) -> (u16, Value) {
    let request = http::Request::get(path).header("x-api-key", &world.key).body(axum::body::Body::empty()).unwrap();
    let (status, _, body) = value(world.send(request).await).await;
    (status, body)
}

async fn listed(world: &World) -> Vec<Value> {
    let (_, list) = see(world, "/v1/models").await;
    list["data"].as_array().unwrap().iter().map(|model| model["id"].clone()).collect()
}

#[tokio::test]
async fn what_is_not_for_an_organization_answers_as_a_name_that_nobody_used() {
    let world = World::new().await;
    let bodies = bodies();
    assert!(bodies.len() >= 7, "{bodies:?}");
    for hidden in [
        vec![state(OfferingState::Draft)],
        vec![state(OfferingState::Invited)],
        vec![state(OfferingState::Invited), retiring("lab/tiny")],
        vec![state(OfferingState::Draft), state(OfferingState::Retired)],
    ] {
        say(&world, &hidden);
        for (path, body) in &bodies {
            let (status, answer) = ask(&world, path, body, "tiny").await;
            let (expected, unknown) = ask(&world, path, body, "tinx").await;
            assert_eq!((status, answer.to_string().replace("'tiny'", "'tinx'")), (expected, unknown.to_string()), "{path}");
            assert_eq!(status, 404, "{path}: {answer}");
        }
        let (status, one) = see(&world, "/v1/models/tiny").await;
        assert_eq!((status, &one["error"]["code"]), (404, &json!("model_not_found")));
        assert!(!listed(&world).await.contains(&json!("tiny")));
    }
    world.close().await;
    assert!(world.cloud.records().is_empty(), "nothing was done");
}

#[tokio::test]
async fn an_invitation_opens_every_route_and_its_end_closes_them() {
    let world = World::new().await;
    say(&world, &[state(OfferingState::Invited)]);
    for (invited, status) in [(true, 200), (false, 404)] {
        may(&world, invited, false);
        for (path, body) in bodies() {
            assert_eq!(ask(&world, path, &body, "tiny").await.0, status, "{path}");
        }
        assert_eq!(listed(&world).await.contains(&json!("tiny")), invited);
    }
    may(&world, true, false);
    let (_, one) = see(&world, "/v1/models/tiny").await;
    assert_eq!((&one["sublet"]["private"], &one["sublet"]["offering"]), (&json!(true), &json!({"state": "invited"})), "{one}");
    world.close().await;
}

#[tokio::test]
async fn what_retires_warns_its_users_and_refuses_others_with_the_successor() {
    let world = World::new().await;
    say(&world, &[retiring("lab/tiny")]);
    for (path, body) in bodies() {
        let (status, answer) = ask(&world, path, &body, "tiny").await;
        assert_eq!(status, 403, "{path}: {answer}");
        assert!(answer["error"]["message"].as_str().unwrap().contains("takes no new users, since it retires on 2025-06-16"));
    }
    let (_, refused) = ask(&world, "/v1/chat/completions", &chat("say 3"), "tiny").await;
    assert_eq!((&refused["error"]["code"], &refused["error"]["alternatives"]), (&json!("model_not_allowed"), &json!(["lab/tiny"])));
    assert!(!listed(&world).await.contains(&json!("tiny")));
    may(&world, false, true);
    let response = world.chat("please say 3").await;
    assert_eq!(response.status(), 200);
    let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
    assert_eq!(header("x-sublet-deprecation"), "model=tiny; shutdown=2025-06-16; replacement=lab/tiny");
    assert_eq!(header("sunset"), "Mon, 16 Jun 2025 15:06:40 GMT");
    let (_, _, _) = value(response).await;
    let (_, one) = see(&world, "/v1/models/tiny").await;
    let note = json!({"state": "retiring", "ends_at": 1_750_086_400, "successor": "lab/tiny"});
    assert_eq!(one["sublet"]["offering"], note, "{one}");
    // Its end comes without anybody's act.
    world.clock.advance(DurationMs::from_seconds(86_400));
    for (path, body) in bodies() {
        let (status, answer) = ask(&world, path, &body, "tiny").await;
        assert_eq!(status, 404, "{path}: {answer}");
        assert!(answer["error"]["message"].as_str().unwrap().contains("was retired on 2025-06-16"), "{answer}");
    }
    world.close().await;
}

#[tokio::test]
async fn a_successor_that_the_caller_may_not_know_is_not_named() {
    let world = World::new().await;
    say(&world, &[retiring("secret/next")]);
    let (_, refused) = ask(&world, "/v1/chat/completions", &chat("say 3"), "tiny").await;
    assert!(!refused.to_string().contains("secret/next"), "{refused}");
    world.close().await;
}

#[tokio::test]
async fn a_preview_is_open_to_all_and_says_so() {
    let world = World::new().await;
    say(&world, &[state(OfferingState::Preview)]);
    assert_eq!(world.chat("please say 3").await.status(), 200);
    let (_, one) = see(&world, "/v1/models/tiny").await;
    assert_eq!(one["sublet"]["offering"], json!({"state": "preview"}), "{one}");
    say(&world, &[state(OfferingState::Preview), state(OfferingState::Public)]);
    let (_, one) = see(&world, "/v1/models/tiny").await;
    assert_eq!(one["sublet"].get("offering"), None, "nothing is said of what is public: {one}");
    world.close().await;
}
