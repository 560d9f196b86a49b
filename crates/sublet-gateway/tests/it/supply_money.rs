//! Models on other servers: what is held and charged when they count, lie, fail or stop.

use serde_json::{Value, json};
use sublet_core::supplier::ExternalSupply;
use sublet_core::supply::EngineKind;
use sublet_core::usage::{Measured, Outcome};
use sublet_core::{DurationMs, TokenCount};

use crate::cloud::{CACHED, INPUT, OUTPUT};
use crate::suppliers::{permit, supplier};
use crate::upstream::{Part, Reply, Upstream, chunk, counted, ended, model, replica, said, usage, whole, words};
use crate::world::{World, event, events, read, text, value};

use crate::supply::{ask, counts, only_record, post, streamed, world};

#[tokio::test]
async fn i_usage_that_is_missing_is_estimated_and_never_zero() {
    for reply in [
        whole("four words of text", Value::Null),
        whole("four words of text", json!({"prompt_tokens": -1, "completion_tokens": 3})),
        Reply::Stream(vec![said("four "), said("words "), said("of "), said("text"), ended("stop"), Part::Done]),
        // It ends without saying so.
        Reply::Stream(vec![said("four "), said("words "), said("of "), said("text"), ended("stop")]),
    ] {
        let upstream = Upstream::start().await;
        let is_stream = matches!(reply, Reply::Stream(_));
        upstream.then(reply);
        let world = world(&upstream).await;
        let response = world.post("/v1/chat/completions", &if is_stream { streamed() } else { ask() }).await;
        assert_eq!(response.status(), 200);
        let answer = text(response).await;
        let record = only_record(&world).await;
        assert_eq!(record.measured, Measured::Estimated, "{answer}");
        let (input, cached, output) = counts(&record);
        assert!((10..100).contains(&input) && cached == 0 && (4..=6).contains(&output), "{record:?}");
        world.close().await;
    }
}

#[tokio::test]
async fn usage_that_cannot_be_is_charged_as_far_as_it_can() {
    for (reply, is_stream) in [
        (whole("hi", usage(1_000_000, 1_000_000)), false),
        (Reply::Stream(vec![said("hi"), ended("stop"), counted(1_000_000, 1_000_000), Part::Done]), true),
    ] {
        let upstream = Upstream::start().await;
        upstream.then(reply);
        let world = world(&upstream).await;
        let mut body = if is_stream { streamed() } else { ask() };
        body["max_tokens"] = json!(5);
        let answer = text(world.post("/v1/chat/completions", &body).await).await;
        let record = only_record(&world).await;
        assert_eq!(record.measured, Measured::Bounded);
        let (input, cached, output) = counts(&record);
        assert!(input + cached < 2_000 && output == 5, "{record:?}");
        let shown = answer.contains("\"completion_tokens\":5");
        assert!(shown, "what is shown is what is charged: {answer}");
        world.close().await;
    }
}

#[tokio::test]
async fn a_stream_that_ignores_its_maximum_is_ended() {
    let upstream = Upstream::start().await;
    let mut parts: Vec<Part> = (0..40).map(|_| said(&"w".repeat(100))).collect();
    parts.push(Part::Wait);
    upstream.then(Reply::Stream(parts));
    let world = world(&upstream).await;
    let mut body = streamed();
    body["max_tokens"] = json!(5);
    let answer = text(world.post("/v1/chat/completions", &body).await).await;
    assert!(answer.ends_with("data: [DONE]\n\n"), "{answer}");
    upstream.closed().await;
    let record = only_record(&world).await;
    assert_eq!((counts(&record).2, record.measured, record.outcome), (5, Measured::Estimated, Outcome::Length));
    world.close().await;
}

/// A later count may be dearer than an earlier one: what is held for the prompt is held to the end.
#[tokio::test]
async fn d_a_prompt_that_is_counted_higher_at_the_end_is_covered() {
    for (first, last) in [((5, 0), (1_000, 0)), ((5, 0), (5, 3)), ((0, 0), (900, 2))] {
        let upstream = Upstream::start().await;
        let with_counts = |output: i64, (prompt, cached): (i64, i64), choices: &Value| {
            let mut event = chunk(choices);
            event["usage"] =
                json!({"prompt_tokens": prompt, "completion_tokens": output, "prompt_tokens_details": {"cached_tokens": cached}});
            Part::Event(event)
        };
        let word = json!([{"index": 0, "delta": {"content": "word"}}]);
        let mut parts: Vec<Part> = (1..=40).map(|output| with_counts(output, first, &word)).collect();
        parts.extend([ended("length"), with_counts(40, last, &json!([])), Part::Done]);
        upstream.then(Reply::Stream(parts));
        let world = world(&upstream).await;
        let mut body = streamed();
        body["max_tokens"] = json!(40);
        let answer = text(world.post("/v1/chat/completions", &body).await).await;
        assert!(answer.ends_with("data: [DONE]\n\n"), "{answer}");
        let record = only_record(&world).await;
        assert_eq!(counts(&record), (last.0 - last.1, last.1, 40), "{first:?} then {last:?}");
        world.close().await;
    }
}

/// Whatever a server says of usage, and however early its client leaves, text is paid for.
#[tokio::test]
async fn h_text_is_never_free() {
    let zero = |text: &str| {
        let mut event = chunk(&json!([{"index": 0, "delta": {"content": text}}]));
        event["usage"] = json!({"prompt_tokens": 9, "completion_tokens": 0});
        Part::Event(event)
    };
    let call = chunk(&json!([{"index": 0, "delta": {"function_call": {"arguments": "{\"a\": 1}"}}}]));
    let parts = chunk(&json!([{"index": 0, "delta": {"content": [{"type": "text", "text": "word"}]}}]));
    for (events, least) in [
        ((0..8).map(|_| zero("word")).collect::<Vec<_>>(), 8),
        (vec![counted(9, 1), said("four "), said("more "), said("words "), said("here")], 5),
        (vec![Part::Event(call.clone()), Part::Event(call)], 2),
        (vec![Part::Event(parts.clone()), Part::Event(parts)], 2),
    ] {
        let upstream = Upstream::start().await;
        let seen = events.iter().filter(|event| matches!(event, Part::Event(event) if event["choices"] != json!([]))).count();
        upstream.then(Reply::Stream(events.into_iter().chain([Part::Wait]).collect()));
        let world = world(&upstream).await;
        let mut body = world.post("/v1/chat/completions", &streamed()).await.into_body();
        for _ in 0..seen {
            event(&mut body).await.unwrap();
        }
        drop(body);
        upstream.closed().await;
        let record = only_record(&world).await;
        assert!(counts(&record).2 >= least && counts(&record).0 > 0, "{least}: {record:?}");
        world.close().await;
    }
}

/// Counts of one answer among several are no counts of all.
#[tokio::test]
async fn several_answers_are_counted_together() {
    let upstream = Upstream::start().await;
    let of = |index: usize, output: i64| {
        let mut event = chunk(&json!([{"index": index, "delta": {"content": "word"}}]));
        event["usage"] = usage(9, output);
        Part::Event(event)
    };
    let events = (1..=5).flat_map(|output| (0..4).map(move |index| (index, output))).map(|(index, output)| of(index, output));
    upstream.then(Reply::Stream(events.chain([Part::Wait]).collect()));
    let world = world(&upstream).await;
    let mut body = streamed();
    body["n"] = json!(4);
    let mut body = world.post("/v1/chat/completions", &body).await.into_body();
    for _ in 0..20 {
        event(&mut body).await.unwrap();
    }
    drop(body);
    upstream.closed().await;
    assert_eq!(counts(&only_record(&world).await).2, 20);
    world.close().await;
}

/// A client that leaves with the last word leaves after the counts: the end is kept for them.
#[tokio::test]
async fn the_end_of_an_answer_comes_with_its_counts() {
    let upstream = Upstream::start().await;
    upstream.then(Reply::Stream(vec![said("one"), ended("stop"), Part::Wait, counted(9, 500), Part::Done]));
    let world = world(&upstream).await;
    let mut body = world.post("/v1/chat/completions", &streamed()).await.into_body();
    assert!(event(&mut body).await.unwrap().contains("one"));
    upstream.go_on();
    assert!(event(&mut body).await.unwrap().contains("\"finish_reason\":\"stop\""));
    drop(body);
    assert_eq!(counts(&only_record(&world).await), (7, 2, 500), "also what nobody sees is counted");
    world.close().await;
}

#[tokio::test]
async fn an_answer_that_ignores_its_maximum_is_not_given() {
    let upstream = Upstream::start().await;
    upstream.then(whole(&"word ".repeat(1_000), usage(7, 1_000)));
    let world = world(&upstream).await;
    let mut body = ask();
    body["max_tokens"] = json!(5);
    let (status, answer) = post(&world, &body).await;
    assert_eq!((status, &answer["error"]["code"]), (502, &json!("upstream_failed")), "{answer}");
    world.close().await;
    assert_eq!(world.cloud.records(), []);
}

#[tokio::test]
async fn h_a_stream_that_breaks_is_charged_for_what_was_delivered() {
    for end in [
        Part::Cut,
        Part::Raw("data: {\"choices\":[{\"del\n\n".to_owned()),
        Part::Event(json!({"error": {"message": "engine died"}})),
        Part::Event(json!({"choices": "none"})),
    ] {
        let upstream = Upstream::start().await;
        upstream.then(Reply::Stream(vec![said("one "), said("two "), Part::Wait, end]));
        let world = world(&upstream).await;
        let mut body = world.post("/v1/chat/completions", &streamed()).await.into_body();
        let mut answer = event(&mut body).await.unwrap() + &event(&mut body).await.unwrap();
        upstream.go_on();
        answer += &read(body).await;
        let (events, done) = events(&answer);
        assert!(!done, "{answer}");
        assert_eq!(events.last().unwrap()["error"]["code"], "upstream_failed", "{answer}");
        let record = only_record(&world).await;
        assert_eq!((record.outcome, record.measured, counts(&record).2), (Outcome::ServerStopped, Measured::Estimated, 2));
        world.close().await;
    }
}

#[tokio::test]
async fn a_client_that_leaves_ends_the_replicas_work_and_pays_for_what_it_got() {
    let upstream = Upstream::start().await;
    let counted_so_far = |count: i64| {
        let mut event = chunk(&json!([{"index": 0, "delta": {"content": "w "}}]));
        event["usage"] = usage(9, count);
        Part::Event(event)
    };
    upstream.then(Reply::Stream(vec![counted_so_far(1), counted_so_far(2), counted_so_far(3), Part::Wait, said("never")]));
    let world = World::new().await;
    world.cloud.offer([model(
        "far/away",
        vec![sublet_core::supply::Replica { engine: EngineKind::Vllm, ..replica(1, &upstream.base_url) }],
    )]);
    let mut body = world.post("/v1/chat/completions", &streamed()).await.into_body();
    for _ in 0..3 {
        assert!(event(&mut body).await.unwrap().contains("\"content\":\"w \""));
    }
    drop(body);
    upstream.closed().await;
    assert_eq!(upstream.received()[0].body["stream_options"]["continuous_usage_stats"], true);
    let record = only_record(&world).await;
    assert_eq!((record.outcome, record.measured, counts(&record)), (Outcome::ClientCancelled, Measured::Engine, (7, 2, 3)));
    world.close().await;
}

#[tokio::test]
async fn a_stream_is_paid_ahead_and_stops_when_the_money_does() {
    let upstream = Upstream::start().await;
    upstream.then(words(200));
    let world = world(&upstream).await;
    // The prompt's bound and some fifty tokens.
    world.cloud.limit("a", 1_300 * INPUT + 50 * OUTPUT);
    let answer = text(world.post("/v1/chat/completions", &streamed()).await).await;
    let (events, done) = events(&answer);
    assert!(done, "{answer}");
    let stop = events.iter().find(|event| event["sublet_stop"] == "budget").expect("the end says why");
    assert_eq!(stop["choices"][0]["finish_reason"], "length");
    upstream.closed().await;
    let record = only_record(&world).await;
    let said = events.iter().filter(|event| event["choices"][0]["delta"]["content"] == "word").count();
    assert_eq!((record.outcome, counts(&record).2), (Outcome::BudgetStopped, i64::try_from(said).unwrap()));
    assert!((40..=70).contains(&said), "{said}");
    assert!(world.cloud.settled("a") <= 1_300 * INPUT + 50 * OUTPUT);
    world.close().await;
}

#[tokio::test]
async fn an_answer_that_cannot_be_stopped_is_limited_to_what_can_be_paid() {
    let upstream = Upstream::start().await;
    upstream.then(whole("hi", usage(7, 3)));
    let world = world(&upstream).await;
    world.cloud.limit("a", 1_300 * INPUT + 50 * OUTPUT);
    let (status, answer) = post(&world, &ask()).await;
    assert_eq!(status, 200, "{answer}");
    let max = upstream.received()[0].body["max_completion_tokens"].as_i64().unwrap();
    assert!((40..=80).contains(&max), "{max}");
    world.close().await;
    // Not even one token.
    world.cloud.limit("b", 10);
    let poor = World::new().await;
    poor.cloud.limit("a", 10);
    poor.cloud.offer([model("far/away", vec![replica(1, &upstream.base_url)])]);
    let (status, answer) = post(&poor, &ask()).await;
    assert_eq!((status, &answer["error"]["code"]), (429, &json!("insufficient_quota")));
    assert_eq!(upstream.received().len(), 1, "nobody was asked");
    poor.close().await;
}

#[tokio::test]
async fn d_a_suppliers_stream_is_paid_before_it_begins() {
    let upstream = Upstream::start().await;
    upstream.then(words(3));
    let world = World::new().await;
    world.cloud.offer([model("far/away", vec![supplier(1, &upstream.base_url)])]);
    permit(&world, ExternalSupply::Any);
    world.cloud.limit("a", 1_300 * INPUT + 50 * OUTPUT);
    let answer = text(world.post("/v1/chat/completions", &streamed()).await).await;
    assert!(answer.ends_with("data: [DONE]\n\n"), "{answer}");
    let max = upstream.received()[0].body["max_completion_tokens"].as_i64().unwrap();
    assert!((40..=80).contains(&max), "{max}");
    assert_eq!(counts(&only_record(&world).await), (5, 2, 3));
    world.close().await;
}

#[tokio::test]
async fn embeddings_are_charged_for_their_input_alone() {
    let upstream = Upstream::start().await;
    let data = json!([{"object": "embedding", "index": 0, "embedding": "AACAPw=="}]);
    upstream.then(Reply::Json(
        200,
        json!({"object": "list", "data": data, "model": "theirs/model", "usage": {"prompt_tokens": 9, "total_tokens": 9}}),
    ));
    let world = world(&upstream).await;
    let body = json!({"model": "far/away", "input": [[1, 2], [3]], "encoding_format": "base64"});
    let (status, headers, answer) = value(world.post("/v1/embeddings", &body).await).await;
    assert_eq!((status, &answer["data"], &answer["usage"]["prompt_tokens"]), (200, &data, &json!(9)), "{answer}");
    assert!(headers.contains_key("x-sublet-cost"));
    let sent = &upstream.received()[0];
    assert_eq!(
        (sent.path.as_str(), &sent.body),
        ("/v1/embeddings", &json!({"model": "theirs/model", "input": [[1, 2], [3]], "encoding_format": "base64"}))
    );
    assert_eq!(counts(&only_record(&world).await), (9, 0, 0));
    assert_eq!(world.cloud.settled("a"), 9 * INPUT);
    for (input, status) in [(json!(null), 400), (json!([]), 400), (json!(3), 400), (json!({}), 400)] {
        let (found, _, _) = value(world.post("/v1/embeddings", &json!({"model": "far/away", "input": input})).await).await;
        assert_eq!(found, status, "{input}");
    }
    let (found, _, answer) = value(world.post("/v1/embeddings", &json!({"model": "lab/tiny", "input": "x"})).await).await;
    assert_eq!((found, &answer["error"]["code"]), (400, &json!("unsupported_field")), "{answer}");
    assert_eq!(answer["error"]["alternatives"], json!(["far/away", "tiny", "unpriced"]), "{answer}");
    world.close().await;
}

#[tokio::test]
async fn b_embeddings_that_fail_cost_nothing() {
    let upstream = Upstream::start().await;
    upstream.then(Reply::Json(500, json!({}))).then(Reply::Json(200, json!({"data": 1, "usage": 7})));
    let world = world(&upstream).await;
    let body = json!({"model": "far/away", "input": "x"});
    assert_eq!(world.post("/v1/embeddings", &body).await.status(), 502);
    // There is something, but its count is missing: estimated.
    assert_eq!(world.post("/v1/embeddings", &body).await.status(), 200);
    assert_eq!(only_record(&world).await.measured, Measured::Estimated);
    world.close().await;
}

#[tokio::test]
async fn d_pictures_are_held_for_as_if_they_filled_the_context() {
    let upstream = Upstream::start().await;
    let world = world(&upstream).await;
    world.cloud.limit("a", 2_000 * INPUT + 50 * OUTPUT);
    let mut body = ask();
    body["messages"][0]["content"] =
        json!([{"type": "text", "text": "what is this"}, {"type": "image_url", "image_url": {"url": "http://x/y"}}]);
    assert_eq!(post(&world, &body).await.0, 429);
    world.cloud.limit("a", 4_100 * INPUT + 50 * OUTPUT);
    upstream.then(whole("a cat", usage(3_000, 2)));
    let (status, answer) = post(&world, &body).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(counts(&only_record(&world).await), (2_998, 2, 2));
    world.close().await;
}

/// Whatever replicas do, in whatever order, money is right and nothing is left behind.
#[tokio::test]
async fn many_requests_over_failing_replicas_leave_the_books_right() {
    let upstreams = [Upstream::start().await, Upstream::start().await, Upstream::start().await];
    for round in 0..40_usize {
        for (number, upstream) in upstreams.iter().enumerate() {
            upstream.then(match (round * 7 + number * 3) % 8 {
                0 => Reply::Json(500, json!({})),
                1 => Reply::Stream(vec![said("a "), Part::Cut]),
                2 => Reply::Stream(vec![said("a "), said("b "), ended("stop"), Part::Done]),
                3 => Reply::Stream(vec![Part::Raw("data: {\n\n".to_owned())]),
                4 => Reply::Stream(vec![said("a "), ended("stop"), counted(5, 50_000), Part::Done]),
                5 => Reply::Json(429, json!({})),
                6 => words(30),
                _ => words(3),
            });
        }
    }
    let world = World::new().await;
    let replicas = upstreams.iter().zip(1..).map(|(upstream, number)| replica(number, &upstream.base_url)).collect();
    world.cloud.offer([model("far/away", replicas)]);
    world.cloud.limit("a", 40 * 1_300 * INPUT);
    let mut body = streamed();
    body["max_tokens"] = json!(40);
    for _ in 0..10 {
        let requests = (0..8).map(|number| {
            let (world, body) = (&world, &body);
            async move {
                let response = world.post("/v1/chat/completions", body).await;
                let mut body = response.into_body();
                if number % 3 == 0 {
                    event(&mut body).await;
                    return;
                }
                read(body).await;
            }
        });
        futures_util::future::join_all(requests).await;
        world.clock.advance(DurationMs::from_seconds(40));
    }
    world.at_rest().await;
    let spent: i64 = world.cloud.records().iter().map(counts).map(|(i, c, o)| i * INPUT + c * CACHED + o * OUTPUT).sum();
    assert_eq!(spent, world.cloud.settled("a"));
    assert!(
        world.cloud.records().len() > 10 && world.cloud.records().iter().all(|record| record.tokens.output <= TokenCount::new(40))
    );
    world.close().await;
}

/// What a slice has free is no reason to ask for a shorter answer, as long as there is more to be had.
#[tokio::test]
async fn an_answer_that_is_paid_before_is_cut_by_the_budget_only() {
    let upstream = Upstream::start().await;
    let world = world(&upstream).await;
    let mut body = ask();
    let mut asked = Vec::new();
    for tokens in [1, 50, 400] {
        upstream.then(whole("fine", usage(9, 1)));
        body["max_tokens"] = json!(tokens);
        assert_eq!(world.post("/v1/chat/completions", &body).await.status(), 200);
        asked.push(upstream.received().last().unwrap().body["max_tokens"].clone());
    }
    assert_eq!(asked, [json!(1), json!(50), json!(400)]);
    // A budget that is used up still cuts it.
    world.gateway.flush(crate::world::SOON).await.unwrap();
    let left = 30 * OUTPUT + 2_000 * INPUT;
    world.cloud.limit("a", world.cloud.settled("a") + world.cloud.sliced("a") + left);
    upstream.then(whole("fine", usage(9, 1)));
    body["max_tokens"] = json!(2_000);
    assert_eq!(world.post("/v1/chat/completions", &body).await.status(), 200);
    let cut = upstream.received().last().unwrap().body["max_tokens"].as_i64().unwrap();
    assert!((1..2_000).contains(&cut), "{cut}");
    world.close().await;
    assert_eq!(world.cloud.records().len(), 4);
}
