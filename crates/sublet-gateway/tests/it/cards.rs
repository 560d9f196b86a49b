//! Model cards as callers meet them: aliases, licences, ends, whom a model is for, and how fast it was here.

use std::sync::Arc;

use serde_json::{Value, json};
use sublet_core::Timestamp;
use sublet_core::admission::ModelAccess;
use sublet_core::card::{AcceptedLicence, Cards, DataPolicy, Licence, ModelCard, Weights};
use sublet_core::id::{Identifier, OrganizationId};
use sublet_core::supply::Audience;

use crate::world::{START, World, chat, streamed, text, value};

fn set(world: &World, cards: Vec<(&str, ModelCard)>) {
    let cards = cards.into_iter().map(|(model, card)| (model.to_owned(), card));
    *world.cloud.cards.lock().unwrap() = Arc::new(Cards::new(cards));
}

fn organization(name: &str) -> OrganizationId {
    OrganizationId::from_trusted(Arc::from(format!("org_{name}")))
}

async fn see(world: &World, path: &str) -> (u16, Value) {
    let request = http::Request::get(path).header("x-api-key", &world.key).body(axum::body::Body::empty()).unwrap();
    let (status, _, body) = value(world.send(request).await).await;
    (status, body)
}

fn days(count: i64) -> Timestamp {
    Timestamp::from_seconds(START.seconds() + count * 86_400)
}

#[tokio::test]
async fn an_alias_is_answered_priced_and_recorded_as_its_model() {
    let world = World::new().await;
    set(&world, vec![("tiny", ModelCard { aliases: vec!["best".to_owned(), "lab/tiny".to_owned()], ..ModelCard::default() })]);
    let mut body = chat("please say 3");
    body["model"] = json!("best");
    let (status, _, answer) = value(world.post("/v1/chat/completions", &body).await).await;
    assert_eq!((status, &answer["model"]), (200, &json!("tiny")), "{answer}");
    let (_, _, vectors) = value(world.post("/v1/embeddings", &json!({"model": "best", "input": "x"})).await).await;
    assert_eq!(vectors["model"], json!("tiny"), "{vectors}");
    body["model"] = json!("lab/tiny");
    let (_, _, answer) = value(world.post("/v1/chat/completions", &body).await).await;
    assert_eq!(answer["model"], json!("lab/tiny"), "a model's own name comes first");
    world.at_rest().await;
    let models: Vec<String> = world.cloud.records().into_iter().map(|record| record.model).collect();
    assert_eq!(models, ["tiny", "tiny", "lab/tiny"]);
    let (status, card) = see(&world, "/v1/models/best").await;
    assert_eq!((status, &card["id"], &card["sublet"]["aliases"]), (200, &json!("tiny"), &json!(["best", "lab/tiny"])), "{card}");
    // A key may be confined to an alias or to what it stands for, and to nothing else.
    for (allowed, status) in [("best", 200), ("tiny", 200), ("lab/tiny", 403)] {
        world.cloud.change_key(&world.key, |access| access.models = ModelAccess::Only(vec![allowed.to_owned()]));
        body["model"] = json!("best");
        assert_eq!(world.post("/v1/chat/completions", &body).await.status(), status, "{allowed}");
    }
    world.close().await;
}

#[tokio::test]
async fn a_licence_that_was_not_accepted_refuses_with_the_way_to_accept_it() {
    let world = World::new().await;
    let licence = Licence { name: "llama3.1".to_owned(), url: Some("https://example.com/l".to_owned()), acceptance_required: true };
    set(&world, vec![("tiny", ModelCard { licence: Some(licence), aliases: vec!["best".to_owned()], ..ModelCard::default() })]);
    for (path, body) in [
        ("/v1/chat/completions", chat("please say 3")),
        ("/v1/embeddings", json!({"model": "best", "input": "x"})),
        ("/v1/responses", json!({"model": "tiny", "input": "say 3"})),
        ("/v1/responses/input_tokens", json!({"model": "tiny", "input": "say 3"})),
    ] {
        let (status, _, answer) = value(world.post(path, &body).await).await;
        assert_eq!((status, &answer["error"]["code"]), (403, &json!("licence_not_accepted")), "{path}: {answer}");
        let ways = answer["error"]["alternatives"].to_string();
        assert!(ways.contains("sublet models accept tiny") && ways.contains("POST /v1/organization/licences"), "{ways}");
        assert!(answer["error"]["message"].as_str().unwrap().contains("https://example.com/l"));
    }
    let (_, card) = see(&world, "/v1/models/tiny").await;
    assert_eq!(card["sublet"]["licence"]["accepted"], json!(false), "{card}");
    let accepted = AcceptedLicence { model: "tiny".to_owned(), licence: "llama3.1".to_owned() };
    world.cloud.change_key(&world.key, |access| access.licences = vec![accepted]);
    assert_eq!(world.chat("please say 3").await.status(), 200);
    let (_, card) = see(&world, "/v1/models/tiny").await;
    assert_eq!(card["sublet"]["licence"]["accepted"], json!(true), "{card}");
    world.close().await;
}

#[tokio::test]
async fn an_end_is_announced_in_every_answer_and_then_comes() {
    let world = World::new().await;
    let card = ModelCard {
        deprecated_at: Some(days(-1)),
        shutdown_at: Some(days(1)),
        replacement: Some("lab/tiny".to_owned()),
        ..ModelCard::default()
    };
    set(&world, vec![("tiny", card)]);
    for body in [chat("please say 3"), streamed("please say 3")] {
        let response = world.post("/v1/chat/completions", &body).await;
        assert_eq!(response.status(), 200);
        let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
        assert_eq!(header("x-sublet-deprecation"), "model=tiny; shutdown=2025-06-16; replacement=lab/tiny");
        assert_eq!((header("sunset").as_str(), header("deprecation").as_str()), ("Mon, 16 Jun 2025 15:06:40 GMT", "@1749913600"));
        text(response).await;
    }
    let (_, card) = see(&world, "/v1/models/tiny").await;
    assert_eq!((&card["shutdown_date"], &card["sublet"]["replacement"]), (&json!(1_750_086_400), &json!("lab/tiny")), "{card}");
    world.clock.advance(sublet_core::DurationMs::from_seconds(86_400));
    let (status, _, answer) = value(world.chat("please say 3").await).await;
    assert_eq!((status, &answer["error"]["code"]), (404, &json!("model_not_found")), "{answer}");
    assert_eq!(answer["error"]["alternatives"], json!(["lab/tiny"]), "{answer}");
    assert!(answer["error"]["message"].as_str().unwrap().contains("shut down on 2025-06-16"), "{answer}");
    assert_eq!(see(&world, "/v1/models/tiny").await.0, 404);
    let (_, list) = see(&world, "/v1/models").await;
    assert!(!list.to_string().contains("\"tiny\""), "{list}");
    world.close().await;
}

#[tokio::test]
async fn a_model_for_others_does_not_exist_under_any_name() {
    let world = World::new().await;
    let only = |name: &str| ModelCard {
        audience: Audience::Only(vec![organization(name)]),
        aliases: vec!["best".to_owned()],
        ..ModelCard::default()
    };
    set(&world, vec![("tiny", only("b"))]);
    for name in ["tiny", "best"] {
        let (status, _, answer) = value(world.post("/v1/completions", &json!({"model": name, "prompt": "say 3"})).await).await;
        assert_eq!((status, &answer["error"]["alternatives"]), (404, &json!(["lab/tiny", "unpriced"])), "{answer}");
        assert_eq!(see(&world, &format!("/v1/models/{name}")).await.0, 404);
    }
    set(&world, vec![("tiny", only("a"))]);
    let (status, card) = see(&world, "/v1/models/best").await;
    assert_eq!((status, &card["sublet"]["private"]), (200, &json!(true)), "{card}");
    assert!(!card.to_string().contains("org_"), "whom else a model is for is not told");
    world.close().await;
}

#[tokio::test]
async fn a_card_says_what_is_known_and_leaves_out_what_is_not() {
    let world = World::new().await;
    let card = ModelCard {
        owned_by: Some("Example Works".to_owned()),
        description: Some("Small.".to_owned()),
        weights: Some(Weights::Open),
        licence: Some(Licence { name: "Apache-2.0".to_owned(), url: None, acceptance_required: false }),
        data_policy: Some(DataPolicy {
            retention: Some("none".to_owned()),
            used_for_training: Some(false),
            served_in: vec!["DE".to_owned()],
        }),
        ..ModelCard::default()
    };
    set(&world, vec![("tiny", card)]);
    let (_, told) = see(&world, "/v1/models/tiny").await;
    assert_eq!(told["owned_by"], json!("Example Works"));
    assert_eq!(
        told["sublet"],
        json!({
            "description": "Small.", "weights": "open", "private": false,
            "licence": {"name": "Apache-2.0", "acceptance_required": false, "accepted": true},
            "data_policy": {"retention": "none", "used_for_training": false, "served_in": ["DE"]},
            "embeddings": {"dimensions": 4, "pooling": "mean", "shorter": {"to": [2]}},
        })
    );
    let (_, plain) = see(&world, "/v1/models/lab/tiny").await;
    assert_eq!((&plain["sublet"], &plain["owned_by"]), (&json!({"private": false}), &json!("test")), "{plain}");
    // What was measured is there once something was.
    crate::world::read(world.stream("please say 20").await).await;
    let (_, told) = see(&world, "/v1/models/tiny").await;
    assert_eq!(told["sublet"]["measured"]["requests"], json!(1), "{told}");
    assert!(told["sublet"]["measured"]["first_token_ms"]["p90"].is_u64(), "{told}");
    world.clock.advance(sublet_core::DurationMs::from_seconds(7_200));
    let (_, told) = see(&world, "/v1/models/tiny").await;
    assert_eq!(told["sublet"].get("measured"), None, "an hour tells enough");
    world.close().await;
}
