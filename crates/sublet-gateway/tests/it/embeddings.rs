//! Vectors from the engine of the process: fields, bounds, form, money, and lines of batches.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::{Value, json};
use sublet_core::admission::Admission;
use sublet_core::batch::{LineEnd, LineEndpoint, LineName, LineRequest, LineServer};
use sublet_core::id::{BatchId, Identifier, RequestId};
use sublet_core::usage::{Outcome, UsageRecord};
use sublet_gateway::Lines;

use crate::cloud::INPUT;
use crate::world::{World, value};

const PATH: &str = "/v1/embeddings";

async fn embed(world: &World, fields: Value) -> (u16, Value) {
    let mut body = json!({"model": "tiny"});
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    let (status, headers, answer) = value(world.post(PATH, &body).await).await;
    assert!(headers.contains_key("x-request-id"));
    assert_eq!(headers.contains_key("x-sublet-cost"), status == 200, "{answer}");
    (status, answer)
}

async fn record(world: &World) -> UsageRecord {
    world.at_rest().await;
    world.cloud.records().pop().expect("a record")
}

#[tokio::test]
async fn vectors_come_in_the_order_of_the_inputs_and_are_charged_to_the_token() {
    let world = World::new().await;
    let inputs: Vec<Vec<u32>> = (1..=19).map(|number| vec![number; usize::try_from(number).unwrap()]).collect();
    let (status, answer) = embed(&world, json!({"input": inputs})).await;
    assert_eq!((status, &answer["object"], &answer["model"]), (200, &json!("list"), &json!("tiny")), "{answer}");
    assert_eq!(answer["usage"], json!({"prompt_tokens": 190, "total_tokens": 190}));
    for (index, (vector, number)) in answer["data"].as_array().unwrap().iter().zip(1..=19_u32).enumerate() {
        assert_eq!((&vector["object"], &vector["index"]), (&json!("embedding"), &json!(index)));
        assert_eq!(vector["embedding"][0].as_f64(), Some(f64::from(number * number)), "{vector}");
    }
    let record = record(&world).await;
    assert_eq!((record.tokens.input.get(), record.tokens.output.get(), record.outcome), (190, 0, Outcome::Completed));
    assert_eq!((record.route.as_str(), world.cloud.settled("a")), (PATH, 190 * INPUT));
    assert_eq!(world.cloud.records().len(), 1, "one record for all lanes");
    world.close().await;
}

#[tokio::test]
async fn floats_and_their_bytes_are_the_same_vector() {
    let world = World::new().await;
    let (_, floats) = embed(&world, json!({"input": "one two", "encoding_format": "float", "user": "u"})).await;
    assert_eq!(floats["data"][0]["embedding"], json!([14.0, 0.5, -1.0, 1e-9]));
    let (_, bytes) = embed(&world, json!({"input": ["one two"], "encoding_format": "base64"})).await;
    assert_eq!(bytes["data"][0]["embedding"], json!("AABgQQAAAD8AAIC/X3CJMA=="));
    let (status, short) = embed(&world, json!({"input": [7, 7], "dimensions": 2})).await;
    assert_eq!((status, &short["data"][0]["embedding"]), (200, &json!([14.0, 0.5])));
    world.close().await;
}

#[tokio::test]
async fn what_cannot_be_embedded_is_refused_by_name_and_is_free() {
    let world = World::new().await;
    let many = |count: usize| vec!["x"; count];
    let long = "word ".repeat(1_001);
    let heavy: Vec<Vec<u32>> = vec![vec![1; 1_000]; 301];
    for (fields, code, param) in [
        (json!({}), "invalid_request", "input"),
        (json!({"input": null}), "invalid_request", "input"),
        (json!({"input": []}), "invalid_request", "input"),
        (json!({"input": 3}), "invalid_request", "input"),
        (json!({"input": ["a", 3]}), "invalid_request", "input"),
        (json!({"input": [[1], "a"]}), "invalid_request", "input"),
        (json!({"input": [-1]}), "invalid_request", "input"),
        (json!({"input": ""}), "invalid_request", "input[0]"),
        (json!({"input": ["a", ""]}), "invalid_request", "input[1]"),
        (json!({"input": [[1], []]}), "invalid_request", "input[1]"),
        (json!({"input": many(2_049)}), "invalid_request", "input"),
        (json!({"input": heavy}), "invalid_request", "input"),
        (json!({"input": ["a", long]}), "context_length_exceeded", "input[1]"),
        (json!({"input": [[1], [2, 500]]}), "invalid_request", "input[1]"),
        (json!({"input": "a", "dimensions": 3}), "invalid_request", "dimensions"),
        (json!({"input": "a", "dimensions": 0}), "invalid_request", "dimensions"),
        (json!({"input": "a", "encoding_format": "hex"}), "invalid_request", "encoding_format"),
        (json!({"input": "a", "stream": true}), "unsupported_field", "stream"),
        (json!({"input": "a", "input_type": "query"}), "unsupported_field", "input_type"),
        (json!({"input": "a", "truncate_prompt_tokens": 4}), "unsupported_field", "truncate_prompt_tokens"),
    ] {
        let shown: String = fields.to_string().chars().take(60).collect();
        let (status, answer) = embed(&world, fields).await;
        let error = &answer["error"];
        assert_eq!((status, error["code"].as_str(), error["param"].as_str()), (400, Some(code), Some(param)), "{shown}: {answer}");
    }
    let (_, foreign) = embed(&world, json!({"input": [[1], [2, 500]]})).await;
    let hint = foreign["error"]["alternatives"].to_string();
    assert!(hint.contains("check_embedding_ctx_length=False"), "{foreign}");
    world.at_rest().await;
    assert!(world.cloud.records().is_empty());
    world.close().await;
}

#[tokio::test]
async fn h_a_client_that_leaves_ends_the_work_and_pays_nothing() {
    let world = World::new().await;
    let body = json!({"model": "tiny", "input": ["a", "b", "get stuck"]});
    let mut call = Box::pin(world.post(PATH, &body));
    while world.engine.shared.running.load(Ordering::SeqCst) == 0 {
        assert!(!std::future::poll_fn(|context| std::task::Poll::Ready(call.as_mut().poll(context).is_ready())).await);
        tokio::task::yield_now().await;
    }
    drop(call);
    assert!(world.engine.shared.cancelled.load(Ordering::SeqCst) > 0);
    world.at_rest().await;
    assert!(world.cloud.records().is_empty());
    world.close().await;
}

#[tokio::test]
async fn a_purse_that_does_not_cover_the_input_refuses_before_any_work() {
    let world = World::new().await;
    world.cloud.limit("a", 5 * INPUT);
    let (status, answer) = embed(&world, json!({"input": vec![3; 100]})).await;
    assert_eq!((status, &answer["error"]["code"]), (429, &json!("insufficient_quota")), "{answer}");
    assert!(world.cloud.records().is_empty());
    world.close().await;
}

#[tokio::test]
async fn a_repeat_with_the_same_idempotency_key_is_not_charged_again() {
    let world = World::new().await;
    let send = || {
        let mut request = world.request(PATH, json!({"model": "tiny", "input": "one two"}).to_string());
        request.headers_mut().insert("idempotency-key", http::HeaderValue::from_static("once"));
        world.send(request)
    };
    assert_eq!(send().await.status(), 200);
    let (status, _, answer) = value(send().await).await;
    assert_eq!((status, &answer["error"]["code"]), (409, &json!("already_served")));
    assert_eq!(record(&world).await.tokens.input.get(), 2);
    assert_eq!(world.cloud.settled("a"), 2 * INPUT);
    world.close().await;
}

#[tokio::test]
async fn a_line_of_a_batch_is_charged_for_its_input_with_its_answer() {
    let world = World::new().await;
    let access = world.cloud.authenticate(&world.key.parse().expect("a key")).await.expect("the key works");
    let line = |body: Value| LineRequest {
        tier: sublet_core::tier::ServiceTier::Flex,
        access: Arc::clone(&access),
        endpoint: LineEndpoint::Embeddings,
        body: body.to_string().into_bytes(),
        request: RequestId::from_trusted(Arc::from("req_line1")),
        attempt: 1,
        name: LineName { batch: BatchId::from_trusted(Arc::from("batch_1")), number: 1 },
    };
    let lines = Lines::new(&world.gateway);
    let body = json!({"model": "tiny", "input": ["a b c", "d"]});
    let estimate = lines.estimate(Arc::clone(&access), LineEndpoint::Embeddings, body.to_string().into_bytes()).await.unwrap();
    assert_eq!((estimate.input.get(), estimate.output_max.get(), estimate.least), (4, 0, estimate.most));
    assert_eq!(lines.serve(line(body)).await, LineEnd::Recorded);
    let record = record(&world).await;
    let answer: Value = serde_json::from_str(&record.line.as_ref().expect("a line").answer).unwrap();
    assert_eq!((&answer["data"][0]["embedding"][0], &answer["usage"]["prompt_tokens"]), (&json!(21.0), &json!(4)));
    assert_eq!(world.cloud.settled("a"), 4 * INPUT / 2, "at the price of flex");
    world.close().await;
}

#[tokio::test]
async fn moderations_are_refused_with_what_would_work() {
    let world = World::new().await;
    let response = world.post("/v1/moderations", &json!({"input": "x"})).await;
    let (status, headers, answer) = value(response).await;
    assert_eq!(
        (status, &answer["error"]["code"], &answer["error"]["type"]),
        (404, &json!("not_offered"), &json!("invalid_request_error"))
    );
    assert_eq!(answer["error"]["alternatives"].as_array().map(Vec::len), Some(2), "{answer}");
    assert_eq!(headers["x-should-retry"], "false");
    let stranger = http::Request::post("/v1/moderations").body(axum::body::Body::from("{}")).unwrap();
    assert_eq!(world.send(stranger).await.status(), 401);
    world.close().await;
}
