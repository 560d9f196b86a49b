//! Models on other servers: what is passed on, who is asked, and who is not.

use http::Request;
use serde_json::{Value, json};
use sublet_core::DurationMs;
use sublet_core::rate::RateLimits;
use sublet_core::supply::{Audience, ReplicaState};
use sublet_core::usage::{Measured, Outcome, UsageRecord};

use crate::cloud::{CACHED, INPUT, OUTPUT, organization_id};
use crate::upstream::{Part, Reply, Upstream, counted, ended, model, replica, said, usage, whole, words};
use crate::world::{World, config, event, events, read, text, value};

const FREE_PORT: &str = "http://127.0.0.1:9/v1";

pub fn ask() -> Value {
    json!({"model": "far/away", "messages": [{"role": "user", "content": "hello there"}]})
}

pub fn streamed() -> Value {
    json!({"model": "far/away", "messages": [{"role": "user", "content": "hello there"}], "stream": true, "stream_options": {"include_usage": true}})
}

/// A gateway with one remote model on one replica.
pub async fn world(upstream: &Upstream) -> World {
    let world = World::new().await;
    world.cloud.offer([model("far/away", vec![replica(1, &upstream.base_url)])]);
    world
}

pub async fn post(world: &World, body: &Value) -> (u16, Value) {
    let (status, _, body) = value(world.post("/v1/chat/completions", body).await).await;
    (status, body)
}

pub async fn only_record(world: &World) -> UsageRecord {
    world.at_rest().await;
    let records = world.cloud.records();
    assert_eq!(records.len(), 1, "{records:?}");
    records.into_iter().next().unwrap()
}

pub fn counts(record: &UsageRecord) -> (i64, i64, i64) {
    let tokens = record.tokens;
    (tokens.input.get(), tokens.cached_input.get(), tokens.output.get())
}

#[tokio::test]
async fn an_answer_is_passed_on_with_only_our_fields_changed() {
    let upstream = Upstream::start().await;
    upstream.then(whole("hi", usage(7, 3)));
    let world = world(&upstream).await;
    let mut body = ask();
    body["their_option"] = json!({"deep": [1, 2.5]});
    let sent = body.to_string().replace("2.5", "2.50");
    let (status, headers, answer) = value(world.send(world.request("/v1/chat/completions", sent)).await).await;
    assert_eq!(status, 200, "{answer}");
    let request = headers["x-request-id"].to_str().unwrap().to_owned();
    assert_eq!(
        answer,
        json!({
            "id": request, "model": "far/away", "object": "chat.completion", "created": 1,
            "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi", "their_field": [1]}, "finish_reason": "stop"}],
            "their_field": {"a": 1}, "service_tier": "default", "usage": usage(7, 3),
        })
    );
    let sent = &upstream.received()[0];
    assert_eq!(sent.path, "/v1/chat/completions");
    assert_eq!(sent.headers["authorization"], "Bearer secret-of-vault-1");
    assert_eq!(
        sent.body,
        json!({"model": "theirs/model", "max_completion_tokens": 1024, "messages": body["messages"], "their_option": {"deep": [1, 2.5]}})
    );
    assert!(sent.text.contains("2.50"), "numbers keep their text: {}", sent.text);
    let record = only_record(&world).await;
    assert_eq!(counts(&record), (5, 2, 3));
    assert_eq!((record.measured, record.outcome, record.attempt), (Measured::Engine, Outcome::Completed, 1));
    assert_eq!(record.replica.as_ref().map(sublet_core::id::ReplicaId::as_str), Some("rep_1"));
    assert_eq!(world.cloud.settled("a"), 5 * INPUT + 2 * CACHED + 3 * OUTPUT);
    world.close().await;
}

#[tokio::test]
async fn a_stream_is_passed_on_and_its_counts_are_always_asked_for() {
    for include_usage in [true, false] {
        let upstream = Upstream::start().await;
        upstream.then(words(20));
        let world = world(&upstream).await;
        let mut body = streamed();
        body["stream_options"] = json!({"include_usage": include_usage});
        let answer = text(world.post("/v1/chat/completions", &body).await).await;
        let (events, done) = events(&answer);
        assert!(done);
        assert_eq!(upstream.received()[0].body["stream_options"], json!({"include_usage": true}));
        let said = events.iter().filter(|event| event["choices"][0]["delta"]["content"] == "word").count();
        assert_eq!(said, 20);
        assert!(events.iter().all(|event| event["model"] == "far/away" && event["id"] == events[0]["id"]));
        let last = events.last().unwrap();
        assert_eq!(last["choices"] == json!([]), include_usage, "{last}");
        if include_usage {
            assert_eq!(last["usage"], usage(7, 20));
            assert!(events[..events.len() - 1].iter().all(|event| event["usage"] == Value::Null && event.get("usage").is_some()));
        } else {
            assert!(!answer.contains("usage"), "{answer}");
        }
        assert_eq!(counts(&only_record(&world).await), (5, 2, 20));
        world.close().await;
    }
}

#[tokio::test]
async fn names_that_would_override_ours_are_refused() {
    let upstream = Upstream::start().await;
    let world = world(&upstream).await;
    for (name, code) in [
        ("n_predict", "invalid_request"),
        ("MAX_TOKENS", "invalid_request"),
        ("Model", "invalid_request"),
        ("cache_salt", "unsupported_field"),
        ("kv_transfer_params", "unsupported_field"),
    ] {
        let mut body = ask();
        body[name] = json!(8_000);
        let (status, answer) = post(&world, &body).await;
        assert_eq!((status, &answer["error"]["code"], &answer["error"]["param"]), (400, &json!(code), &json!(name)), "{answer}");
    }
    assert!(upstream.received().is_empty());
    world.close().await;
}

/// Nobody can take a model from others by asking it for what it does not do.
#[tokio::test]
async fn what_a_model_does_not_do_is_no_failure_of_its_servers() {
    let upstream = Upstream::start().await;
    let world = world(&upstream).await;
    for _ in 0..5 {
        upstream.then(Reply::Json(404, json!({"error": {"message": "not supported in the v1/completions endpoint"}})));
        assert_eq!(world.post("/v1/completions", &json!({"model": "far/away", "prompt": "x"})).await.status(), 502);
    }
    upstream.then(whole("hi", usage(7, 3)));
    assert_eq!(post(&world, &ask()).await.0, 200);
    world.close().await;
}

#[tokio::test]
async fn m_another_replica_takes_over_before_the_first_byte_and_one_is_charged() {
    let broken = [
        Reply::Json(500, json!({"error": {"message": "boom"}})),
        Reply::Json(503, json!({})),
        Reply::Json(429, json!({})),
        Reply::Json(401, json!({"error": "who are you"})),
        Reply::Json(404, json!({"error": {"message": "no such model"}})),
        Reply::Raw(200, "text/html", "<html>".to_owned()),
        Reply::Json(200, json!({"error": {"message": "inside"}})),
        Reply::Json(200, json!({"choices": []})),
        Reply::Stream(vec![Part::Cut]),
        Reply::Stream(vec![Part::Done]),
        Reply::Stream(vec![Part::Raw("data: {nonsense\n\n".to_owned())]),
        Reply::Stream(vec![Part::Event(json!({"error": {"message": "first"}}))]),
        Reply::Stream(vec![]),
        Reply::Hang,
    ];
    for reply in broken {
        let (first, second) = (Upstream::start().await, Upstream::start().await);
        let is_stream = matches!(reply, Reply::Stream(_) | Reply::Hang);
        let name = match &reply {
            Reply::Json(status, body) => format!("{status} {body}"),
            Reply::Busy(status, ..) => format!("{status}"),
            Reply::Raw(..) => "html".to_owned(),
            Reply::Stream(parts) => format!("a stream of {}", parts.len()),
            Reply::Hang => "silence".to_owned(),
        };
        first.then(reply);
        second.then(if is_stream { words(3) } else { whole("hi", usage(7, 3)) });
        let mut config = config();
        config.supply.first_byte_wait = DurationMs::from_millis(200);
        let world = World::with(config).await;
        world.cloud.offer([model("far/away", vec![replica(1, &first.base_url), replica(2, &second.base_url)])]);
        let response = world.post("/v1/chat/completions", &if is_stream { streamed() } else { ask() }).await;
        assert_eq!(response.status(), 200, "{name}");
        text(response).await;
        assert_eq!((first.received().len(), second.received().len()), (1, 1), "{name}");
        first.closed().await;
        let record = only_record(&world).await;
        assert_eq!(record.replica.as_ref().map(sublet_core::id::ReplicaId::as_str), Some("rep_2"), "{name}");
        assert_eq!(counts(&record), (5, 2, 3), "{name}");
        world.close().await;
    }
}

#[tokio::test]
async fn a_refusal_of_the_request_is_given_on_and_nobody_else_is_asked() {
    let (first, second) = (Upstream::start().await, Upstream::start().await);
    first.then(Reply::Json(
        400,
        json!({"error": {"message": "theirs/model: top_k is wrong", "type": "x", "param": "top_k", "code": 400}}),
    ));
    first.then(Reply::Json(
        400,
        json!({"object": "error", "message": "This model's maximum context length is 10 tokens", "code": 400}),
    ));
    let world = World::new().await;
    world.cloud.offer([model("far/away", vec![replica(1, &first.base_url), replica(2, &second.base_url)])]);
    let (status, answer) = post(&world, &ask()).await;
    assert_eq!(
        (status, &answer["error"]["message"], &answer["error"]["param"]),
        (400, &json!("far/away: top_k is wrong"), &json!("top_k"))
    );
    // Its turn comes round: the same replica is asked again only when the other had its own.
    second.then(Reply::Json(400, json!({"error": {"code": "context_length_exceeded", "message": "too long"}})));
    let (status, answer) = post(&world, &streamed()).await;
    assert_eq!((status, &answer["error"]["code"]), (400, &json!("context_length_exceeded")), "{answer}");
    let (status, answer) = post(&world, &ask()).await;
    assert_eq!((status, &answer["error"]["code"]), (400, &json!("context_length_exceeded")), "{answer}");
    world.close().await;
    assert_eq!(world.cloud.records(), []);
}

#[tokio::test]
async fn a_stream_that_falls_silent_is_ended() {
    let upstream = Upstream::start().await;
    upstream.then(Reply::Stream(vec![said("one "), Part::Wait]));
    let mut config = config();
    config.supply.idle_max = DurationMs::from_millis(100);
    let world = World::with(config).await;
    world.cloud.offer([model("far/away", vec![replica(1, &upstream.base_url)])]);
    let answer = text(world.post("/v1/chat/completions", &streamed()).await).await;
    assert!(answer.contains("upstream_timeout") && !answer.contains("[DONE]"), "{answer}");
    upstream.closed().await;
    assert_eq!(counts(&only_record(&world).await).2, 1);
    world.close().await;
}

#[tokio::test]
async fn a_replica_that_fails_is_left_alone_until_it_is_well() {
    let upstream = Upstream::start().await;
    (0..3).for_each(|_| {
        upstream.then(Reply::Json(500, json!({})));
    });
    let world = world(&upstream).await;
    for _ in 0..3 {
        assert_eq!(post(&world, &ask()).await.0, 502);
    }
    let (status, headers, answer) = value(world.post("/v1/chat/completions", &ask()).await).await;
    assert_eq!((status, &answer["error"]["code"]), (503, &json!("model_unavailable")), "{answer}");
    assert_eq!(headers["retry-after"], "1");
    assert_eq!(upstream.received().len(), 3, "it was not asked again");
    assert!(world.gateway.replicas()[0].resting_until.is_some());
    world.clock.advance(DurationMs::from_seconds(2));
    while upstream.probes() == 0 {
        tokio::task::yield_now().await;
    }
    upstream.then(whole("back", usage(7, 1)));
    while post(&world, &ask()).await.0 != 200 {
        tokio::task::yield_now().await;
    }
    assert_eq!((upstream.received().len(), world.gateway.replicas()[0].resting_until), (4, None), "its trial was enough");
    world.close().await;
}

#[tokio::test]
async fn callers_of_busy_servers_are_told_the_shortest_wait_if_it_is_longer_than_the_queue() {
    let busy = |status, seconds| Reply::Busy(status, "retry-after", seconds);
    for (first, second, expected, repeated) in [
        (busy(429, "7"), busy(503, "5"), "5", true),
        // Clients do not wait for so long, or not to the end.
        (busy(429, "300"), busy(529, "90"), "90", false),
    ] {
        let upstreams = (Upstream::start().await, Upstream::start().await);
        upstreams.0.then(first);
        upstreams.1.then(second);
        let world = World::new().await;
        world.cloud.offer([model("far/away", vec![replica(1, &upstreams.0.base_url), replica(2, &upstreams.1.base_url)])]);
        let (status, headers, answer) = value(world.post("/v1/chat/completions", &ask()).await).await;
        assert_eq!((status, &answer["error"]["code"]), (503, &json!("queue_full")), "{answer}");
        assert_eq!((&headers["retry-after"], headers.get("x-should-retry").is_none()), (&expected.parse().unwrap(), repeated));
        assert_eq!((upstreams.0.received().len(), upstreams.1.received().len()), (1, 1), "nobody was asked again");
        world.close().await;
    }
}

#[tokio::test]
async fn a_busy_server_is_asked_again_when_it_said_and_no_earlier() {
    let upstream = Upstream::start().await;
    let mut config = config();
    config.supply.queue_wait = DurationMs::from_seconds(60);
    let world = World::with(config).await;
    world.cloud.offer([model("far/away", vec![replica(1, &upstream.base_url)])]);
    for (header, value, least) in [("retry-after", "0", 0), ("retry-after-ms", "200", 200)] {
        upstream.then(Reply::Busy(503, header, value)).then(whole("hi", usage(7, 3)));
        let start = tokio::time::Instant::now();
        assert_eq!(post(&world, &ask()).await.0, 200);
        assert!(start.elapsed() >= std::time::Duration::from_millis(least), "asked again after {:?}", start.elapsed());
    }
    assert_eq!(upstream.received().len(), 4, "each was refused once");
    world.close().await;
}

#[tokio::test]
async fn nobody_new_is_sent_to_a_replica_that_drains_or_is_full() {
    let upstream = Upstream::start().await;
    let world = World::new().await;
    let with = |state, in_flight_max| sublet_core::supply::Replica { state, in_flight_max, ..replica(1, &upstream.base_url) };
    world.cloud.offer([model("far/away", vec![with(ReplicaState::Draining, 64)])]);
    assert_eq!(post(&world, &ask()).await.0, 503);
    upstream.then(Reply::Stream(vec![said("a "), Part::Wait, ended("stop"), counted(7, 1), Part::Done]));
    world.cloud.offer([model("far/away", vec![with(ReplicaState::Serving, 1)])]);
    let mut body = world.post("/v1/chat/completions", &streamed()).await.into_body();
    event(&mut body).await.unwrap();
    let (status, answer) = post(&world, &ask()).await;
    assert_eq!((status, &answer["error"]["code"]), (503, &json!("queue_full")), "{answer}");
    // It drains now: what it began still ends.
    world.cloud.offer([model("far/away", vec![with(ReplicaState::Draining, 1)])]);
    upstream.go_on();
    assert!(read(body).await.contains("[DONE]"));
    assert_eq!(upstream.received().len(), 1);
    world.close().await;
}

#[tokio::test]
async fn a_model_for_some_does_not_exist_for_others() {
    let upstream = Upstream::start().await;
    let world = World::new().await;
    let mut private = model("far/away", vec![replica(1, &upstream.base_url)]);
    private.audience = Audience::Only(vec![organization_id("b")]);
    world.cloud.offer([private, model("open", vec![])]);
    let other = world.cloud.add_key(2, "b", RateLimits::default());
    let list = |key: &str| {
        Request::get("/v1/models").header("authorization", format!("Bearer {key}")).body(axum::body::Body::empty()).unwrap()
    };
    for (key, expected) in [(&world.key, vec!["open", "tiny"]), (&other, vec!["far/away", "open", "tiny"])] {
        let (_, _, answer) = value(world.send(list(key)).await).await;
        let names: Vec<&str> = answer["data"].as_array().unwrap().iter().map(|model| model["id"].as_str().unwrap()).collect();
        let names: Vec<&str> = names.into_iter().filter(|name| expected.contains(name) || *name == "far/away").collect();
        assert_eq!(names, expected);
    }
    let (status, answer) = post(&world, &ask()).await;
    assert_eq!((status, &answer["error"]["code"]), (404, &json!("model_not_found")));
    assert!(!answer.to_string().replace("'far/away'", "").contains("far/away"), "{answer}");
    world.close().await;
}

#[tokio::test]
async fn a_conversation_goes_on_at_the_replica_that_knows_its_beginning() {
    let upstreams = [Upstream::start().await, Upstream::start().await, Upstream::start().await];
    for upstream in &upstreams {
        (0..20).for_each(|_| {
            upstream.then(whole("hi", usage(7, 3)));
        });
    }
    let world = World::new().await;
    let replicas = upstreams.iter().zip(1..).map(|(upstream, number)| replica(number, &upstream.base_url)).collect();
    world.cloud.offer([model("far/away", replicas)]);
    let served = || upstreams.iter().map(|upstream| upstream.received().len()).collect::<Vec<_>>();
    for talk in 0..3 {
        let before = served();
        let mut messages = vec![json!({"role": "system", "content": format!("talk {talk} {}", "about this and that ".repeat(60))})];
        for _ in 0..4 {
            messages.push(json!({"role": "user", "content": "and then?"}));
            assert_eq!(post(&world, &json!({"model": "far/away", "messages": messages})).await.0, 200);
            messages.push(json!({"role": "assistant", "content": "hi"}));
        }
        let grown: Vec<usize> = served().iter().zip(&before).map(|(now, then)| now - then).collect();
        assert_eq!((grown.iter().sum::<usize>(), grown.iter().max()), (4, Some(&4)), "one replica has all of a talk: {grown:?}");
    }
    assert_eq!(served(), [4, 4, 4], "different talks are spread");
    world.close().await;
}

#[tokio::test]
async fn a_server_that_cannot_be_reached_is_named_by_no_word() {
    let world = World::new().await;
    world.cloud.offer([model("far/away", vec![replica(1, FREE_PORT)])]);
    let (status, answer) = post(&world, &ask()).await;
    assert_eq!((status, &answer["error"]["code"]), (502, &json!("upstream_failed")));
    assert!(!answer.to_string().contains("127.0.0.1") && !answer.to_string().contains("theirs"), "{answer}");
    world.close().await;
}
