//! Input that is wrong is refused by name, before it costs anything.

use axum::body::Body;
use http::Request;
use serde_json::{Value, json};
use sublet_core::admission::ModelAccess;

use crate::world::{World, chat, value};

/// Body fields laid over a good chat request, and what they must answer: status, code, param.
fn wrong_chats() -> Vec<(Value, u16, &'static str, Option<&'static str>)> {
    let image = json!([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]);
    let calls = json!([{"role": "assistant", "content": "x", "tool_calls": [{"id": "1"}]}]);
    let bad = 400;
    vec![
        (json!({"model": null}), bad, "invalid_request", Some("model")),
        (json!({"model": 7}), bad, "invalid_request", Some("model")),
        (json!({"model": ""}), bad, "invalid_request", Some("model")),
        (json!({"model": "nope"}), 404, "model_not_found", Some("model")),
        (json!({"messages": null}), bad, "invalid_request", Some("messages")),
        (json!({"messages": []}), bad, "invalid_request", Some("messages")),
        (json!({"messages": "hello"}), bad, "invalid_request", Some("messages")),
        (json!({"messages": [{"role": "nobody", "content": "x"}]}), bad, "invalid_request", Some("messages[0].role")),
        (json!({"messages": [{"content": "x"}]}), bad, "invalid_request", Some("messages[0].role")),
        (json!({"messages": [{"role": "user"}]}), bad, "invalid_request", Some("messages[0].content")),
        (json!({"messages": [{"role": "user", "content": 5}]}), bad, "invalid_request", Some("messages[0].content")),
        (json!({"messages": image}), bad, "unsupported_field", Some("messages[0].content[0].type")),
        (json!({"messages": calls}), bad, "unsupported_field", Some("messages[0].tool_calls[0].function")),
        (json!({"n": 0}), bad, "invalid_request", Some("n")),
        (json!({"n": 1_000_000_000}), bad, "invalid_request", Some("n")),
        (json!({"n": 1.5}), bad, "invalid_request", Some("n")),
        (json!({"best_of": 2}), bad, "unsupported_field", Some("best_of")),
        (json!({"temperature": 9}), bad, "invalid_request", Some("temperature")),
        (json!({"temperature": -0.1}), bad, "invalid_request", Some("temperature")),
        (json!({"temperature": "hot"}), bad, "invalid_request", Some("temperature")),
        (json!({"top_p": 0}), bad, "invalid_request", Some("top_p")),
        (json!({"top_p": 1.1}), bad, "invalid_request", Some("top_p")),
        (json!({"presence_penalty": 3}), bad, "invalid_request", Some("presence_penalty")),
        (json!({"frequency_penalty": -2.5}), bad, "invalid_request", Some("frequency_penalty")),
        (json!({"max_tokens": 0}), bad, "invalid_request", Some("max_tokens")),
        (json!({"max_completion_tokens": -1}), bad, "invalid_request", Some("max_completion_tokens")),
        (json!({"max_tokens": "many"}), bad, "invalid_request", Some("max_tokens")),
        (json!({"seed": "x"}), bad, "invalid_request", Some("seed")),
        (json!({"stream": "yes"}), bad, "invalid_request", Some("stream")),
        (json!({"stop": ""}), bad, "invalid_request", Some("stop")),
        (json!({"stop": vec!["x"; 17]}), bad, "invalid_request", Some("stop")),
        (json!({"stop": ["x".repeat(257)]}), bad, "invalid_request", Some("stop")),
        (json!({"top_logprobs": 21, "logprobs": true}), bad, "invalid_request", Some("top_logprobs")),
        (json!({"top_logprobs": 2}), bad, "invalid_request", Some("top_logprobs")),
        (json!({"logprobs": 2}), bad, "invalid_request", Some("logprobs")),
        (json!({"logit_bias": {"1": 101}}), bad, "invalid_request", Some("logit_bias")),
        (json!({"logit_bias": {"word": 1}}), bad, "invalid_request", Some("logit_bias")),
        (json!({"logit_bias": {"500": 1}}), bad, "invalid_request", Some("logit_bias")),
        (json!({"service_tier": "gold"}), bad, "invalid_request", Some("service_tier")),
        (json!({"modalities": ["text", "audio"]}), bad, "unsupported_field", Some("modalities")),
        (json!({"audio": {"voice": "x"}}), bad, "unsupported_field", Some("audio")),
    ]
}

#[tokio::test]
async fn wrong_fields_are_refused_by_name_and_cost_nothing() {
    let world = World::new().await;
    for (fields, status, code, param) in wrong_chats() {
        let mut body = chat("say 3");
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let (got, headers, answer) = value(world.post("/v1/chat/completions", &body).await).await;
        let error = &answer["error"];
        assert_eq!((got, error["code"].as_str(), error["param"].as_str()), (status, Some(code), param), "{fields}: {answer}");
        assert!(headers.contains_key("x-request-id"));
        assert_eq!(error["doc_url"], json!(format!("/errors/{code}")));
    }
    world.close().await;
    assert_eq!(world.cloud.grants.load(std::sync::atomic::Ordering::SeqCst), 0);
}

#[tokio::test]
async fn harmless_fields_are_taken_and_neutral_values_mean_nothing() {
    let world = World::new().await;
    for fields in [
        json!({"metadata": {"a": "b"}, "user": "u", "store": true, "safety_identifier": "s", "prompt_cache_key": "k"}),
        json!({"service_tier": "auto", "parallel_tool_calls": true, "reasoning_effort": "low", "some_new_field": [1, 2]}),
        json!({"tools": [], "tool_choice": "none", "response_format": {"type": "text"}, "modalities": ["text"], "n": null}),
        json!({"temperature": 0, "top_p": 1, "seed": -5, "stop": ["x", "y"], "logit_bias": {"5": -100}, "max_tokens": 3}),
        json!({"messages": [{"role": "user", "content": [{"type": "text", "text": "please "}, {"type": "text", "text": "say 3"}]}]}),
        json!({"messages": [{"role": "developer", "content": "d", "name": "n"}, {"role": "user", "content": "say 3"}]}),
    ] {
        let mut body = chat("please say 3");
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let (status, _, answer) = value(world.post("/v1/chat/completions", &body).await).await;
        assert_eq!((status, &answer["choices"][0]["message"]["content"]), (200, &json!("w1 w2 w3 ")), "{fields}: {answer}");
        assert_eq!(answer["service_tier"], "default", "the tier that served is told");
    }
    world.close().await;
}

#[tokio::test]
async fn bodies_that_are_no_json_object_are_refused() {
    let world = World::new().await;
    let deep = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
    for body in [
        Body::from(""),
        Body::from("[]"),
        Body::from("[{\"model\":\"tiny\"}]"),
        Body::from("\"tiny\""),
        Body::from("{\"model\":"),
        Body::from("{\"model\":\"tiny\"} {}"),
        Body::from(vec![b'{', 0xff, b'}']),
        Body::from("{\"model\":\"\\ud800\",}"),
        Body::from(deep),
    ] {
        let (status, _, answer) = value(world.send(world.request("/v1/chat/completions", body)).await).await;
        assert_eq!((status, &answer["error"]["code"]), (400, &json!("invalid_json")), "{answer}");
    }
    world.close().await;
}

#[tokio::test]
async fn bodies_have_a_bound_and_a_type() {
    let mut config = crate::world::config();
    config.body_max = sublet_core::Bytes::new(1_000);
    let world = World::with(config).await;
    let (status, _, answer) = value(world.chat(&"x".repeat(1_000)).await).await;
    assert_eq!((status, &answer["error"]["code"]), (413, &json!("body_too_large")));
    let typed = |kind: &str| {
        let mut request = world.request("/v1/chat/completions", chat("say 1").to_string());
        request.headers_mut().insert("content-type", kind.parse().unwrap());
        request
    };
    for (kind, expected) in [("image/png", 415), ("multipart/form-data; boundary=x", 415), ("application/json; charset=utf-8", 200)]
    {
        assert_eq!(world.send(typed(kind)).await.status(), expected, "{kind}");
    }
    world.close().await;
}

#[tokio::test]
async fn prompts_beyond_the_context_are_refused_and_not_repeated() {
    let world = World::new().await;
    for words in [998, 70_000] {
        let (status, headers, answer) = value(world.chat(&format!("{} say 3", "word ".repeat(words))).await).await;
        assert_eq!((status, &answer["error"]["code"]), (400, &json!("context_length_exceeded")));
        assert_eq!(headers["x-should-retry"], "false");
        let words = answer["error"]["message"].as_str().unwrap();
        assert!(words.contains("prompt is too long") && words.contains("this model's maximum context length is"), "{words}");
    }
    // One token of room is enough for one token.
    let (_, _, answer) = value(world.chat(&format!("{} say 3", "word ".repeat(997))).await).await;
    assert_eq!((&answer["usage"]["total_tokens"], &answer["choices"][0]["finish_reason"]), (&json!(1_000), &json!("length")));
    world.close().await;
}

#[tokio::test]
async fn text_prompts_take_every_form_of_the_api() {
    let world = World::new().await;
    for (prompt, count) in
        [(json!("please say 3"), 1), (json!(["please say 3"]), 1), (json!([1, 2, 3]), 1), (json!([[1, 2, 3], [4]]), 2)]
    {
        let (status, _, answer) = value(world.post("/v1/completions", &json!({"model": "tiny", "prompt": prompt})).await).await;
        assert_eq!((status, answer["choices"].as_array().unwrap().len()), (200, count), "{prompt}: {answer}");
    }
    for prompt in
        [json!([]), json!([[]]), json!([1, 500]), json!([1, "a"]), json!({}), json!(vec!["x"; 9]), json!([-1]), Value::Null]
    {
        let (status, _, answer) = value(world.post("/v1/completions", &json!({"model": "tiny", "prompt": prompt})).await).await;
        assert_eq!((status, &answer["error"]["param"]), (400, &json!("prompt")), "{prompt}: {answer}");
    }
    for fields in [json!({"echo": true}), json!({"suffix": "x"}), json!({"best_of": 4}), json!({"logprobs": 6})] {
        let mut body = json!({"model": "tiny", "prompt": "say 3"});
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        assert_eq!(world.post("/v1/completions", &body).await.status(), 400, "{fields}");
    }
    world.close().await;
}

#[tokio::test]
async fn a_key_opens_only_its_plane_and_its_models() {
    let world = World::new().await;
    world.cloud.change_key(&world.key, |access| access.models = ModelAccess::Only(vec!["lab/tiny".to_owned()]));
    let (status, _, answer) = value(world.chat("say 3").await).await;
    assert_eq!((status, &answer["error"]["code"]), (403, &json!("model_not_allowed")));
    assert_eq!(answer["error"]["alternatives"], json!(["lab/tiny"]));

    let good = chat("say 3").to_string();
    let admin = format!("sk-adm-{:064x}", 1);
    let other = crate::cloud::secret(99);
    for (headers, status, code) in [
        (vec![], 401, "missing_api_key"),
        (vec![("authorization", "Bearer".to_owned())], 401, "missing_api_key"),
        (vec![("authorization", "Basic abc".to_owned())], 401, "missing_api_key"),
        (vec![("authorization", "Bearer sk-sub-short".to_owned())], 401, "invalid_api_key"),
        (vec![("x-api-key", other.clone())], 401, "invalid_api_key"),
        (vec![("x-api-key", admin)], 403, "wrong_key_plane"),
        (vec![("x-api-key", other), ("authorization", format!("Bearer {}", world.key))], 401, "invalid_api_key"),
    ] {
        let request =
            headers.iter().fold(Request::post("/v1/chat/completions"), |request, (name, value)| request.header(*name, value));
        let (got, _, answer) = value(world.send(request.body(Body::from(good.clone())).unwrap()).await).await;
        assert_eq!((got, answer["error"]["code"].as_str()), (status, Some(code)), "{headers:?}");
    }
    world.close().await;
}

#[tokio::test]
async fn a_revoked_or_expired_key_is_refused_at_once_and_a_good_one_is_remembered() {
    use std::sync::atomic::Ordering;
    let world = World::new().await;
    for _ in 0..5 {
        assert_eq!(world.chat("say 1").await.status(), 200);
    }
    assert_eq!(world.cloud.authentications.load(Ordering::SeqCst), 1);
    let expiry = sublet_core::Clock::now(&*world.clock).plus(sublet_core::DurationMs::from_seconds(5));
    world.cloud.change_key(&world.key, |access| access.expires_at = Some(expiry));
    assert_eq!(world.chat("say 1").await.status(), 200);
    assert_eq!(world.cloud.authentications.load(Ordering::SeqCst), 2);
    world.clock.advance(sublet_core::DurationMs::from_seconds(5));
    world.chat("say 1").await;
    assert_eq!(world.cloud.authentications.load(Ordering::SeqCst), 3, "an expired key is asked for again");
    world.cloud.revoke(&world.key);
    assert_eq!(world.chat("say 1").await.status(), 401);
    world.close().await;
}
