//! Lines of batches: the answer and what it cost are one record, or neither is there.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::{Value, json};
use sublet_core::ErrorCode;
use sublet_core::admission::{Access, Admission};
use sublet_core::batch::{LineEnd, LineEndpoint, LineName, LineRequest, LineServer};
use sublet_core::id::{BatchId, Identifier, RequestId};
use sublet_core::rate::{EndUsers, RateMetric, RateRule};
use sublet_core::tier::ServiceTier;
use sublet_core::usage::UsageRecord;
use sublet_gateway::Lines;

use crate::world::{SOON, World, chat, config};

async fn access(world: &World) -> Arc<Access> {
    world.cloud.authenticate(&world.key.parse().expect("a key")).await.expect("the key works")
}

async fn line(world: &World, number: u32, body: &Value) -> LineRequest {
    LineRequest {
        tier: ServiceTier::Flex,
        access: access(world).await,
        endpoint: LineEndpoint::ChatCompletions,
        body: body.to_string().into_bytes(),
        request: RequestId::from_trusted(Arc::from(format!("req_line{number}"))),
        attempt: 3,
        name: LineName { batch: BatchId::from_trusted(Arc::from("batch_1")), number },
    }
}

async fn serve(world: &World, number: u32, body: &Value) -> LineEnd {
    Lines::new(&world.gateway).serve(line(world, number, body).await).await
}

#[track_caller]
fn refusal(end: LineEnd) -> (ErrorCode, u16, Value) {
    match end {
        LineEnd::Refused { error, status, body } => (error.code(), status, serde_json::from_str(&body).expect("JSON")),
        other => panic!("not refused: {other:?}"),
    }
}

/// The body of the answer in a record.
fn answer(record: &UsageRecord) -> Value {
    serde_json::from_str(&record.line.as_ref().expect("a line").answer).expect("JSON")
}

#[tokio::test]
async fn the_answer_of_a_line_is_in_its_record_and_is_what_a_request_gets() {
    let world = World::new().await;
    assert_eq!(serve(&world, 1, &chat("please say 5")).await, LineEnd::Recorded);
    let online = crate::world::value(world.chat("please say 5").await).await.2;
    world.close().await;
    let records = world.cloud.records();
    let record = records.iter().find(|record| record.line.is_some()).unwrap();
    assert_eq!((record.attempt, record.request.as_str(), record.tokens.output.get()), (3, "req_line1", 5));
    assert_eq!((record.line.as_ref().unwrap().name.number, &answer(record)["choices"]), (1, &online["choices"]));
    assert_eq!(answer(record)["usage"], online["usage"]);
    assert_eq!(
        (record.tier, &answer(record)["service_tier"]),
        (ServiceTier::Flex, &json!("flex")),
        "what fills gaps has its price"
    );
    assert!(!format!("{record:?}").contains("choices"), "content is not for logs");
}

#[tokio::test]
async fn a_durable_line_is_settled_with_its_answer_after_a_crash() {
    let world = World::new().await;
    // Money to spend without the store.
    crate::world::text(world.chat("please say 50").await).await;
    world.gateway.flush(SOON).await.unwrap();
    world.cloud.unreachable.store(true, Ordering::SeqCst);
    world.disk.record_history();
    assert_eq!(serve(&world, 1, &chat("please say 5")).await, LineEnd::Recorded);
    let images = world.disk.history();
    let after = world.disk.crashed(0, false);
    world.cloud.unreachable.store(false, Ordering::SeqCst);
    let mut next = config();
    next.fence = 2;
    let cloud = Arc::clone(&world.cloud);
    let again = World::over(next, Arc::clone(&cloud), after, world.key.clone()).await;
    let found: Vec<UsageRecord> = cloud.records().into_iter().filter(|record| record.line.is_some()).collect();
    assert_eq!(found.len(), 1);
    assert_eq!(answer(&found[0])["usage"]["completion_tokens"], json!(5));
    drop(again);
    // Before its sync nothing of it is there, whatever of the write survives but all of it.
    let mut points = 0;
    for image in images {
        for kept in 0..image.unsynced() {
            let disk = image.crashed(kept, false);
            let journal = sublet_gateway::journal::Journal::open(Arc::new(disk), config().journal, world.clock.clone());
            assert_eq!(journal.unwrap().1.records, 1, "{kept} bytes survive");
            points += 1;
        }
    }
    assert!(points > 500, "{points} crash points");
}

#[tokio::test]
async fn a_line_that_cannot_be_recorded_is_refused_and_free() {
    let world = World::new().await;
    assert_eq!(serve(&world, 1, &chat("please say 5")).await, LineEnd::Recorded);
    world.disk.set_capacity(Some(world.disk.used() + 100));
    let (code, status, body) = refusal(serve(&world, 2, &chat("please say 5")).await);
    assert_eq!((code, status, &body["error"]["code"]), (ErrorCode::StorageFull, 507, &json!("storage_full")));
    world.disk.set_capacity(None);
    while world.gateway.ready().is_err() {
        tokio::task::yield_now().await;
    }
    assert_eq!(serve(&world, 2, &chat("please say 5")).await, LineEnd::Recorded, "the same attempt may try again");
    world.disk.fail_syncs();
    assert_eq!(serve(&world, 3, &chat("please say 5")).await, LineEnd::Unknown);
}

#[tokio::test]
async fn a_line_that_is_dropped_leaves_nothing() {
    let world = World::new().await;
    world.engine.set_pace(2);
    let lines = Lines::new(&world.gateway);
    let mut serving = lines.serve(line(&world, 1, &chat("please say 9")).await);
    while held_soon(&world) == 0 {
        tokio::select! {
            biased;
            _ = &mut serving => panic!("it waits for the engine"),
            () = tokio::task::yield_now() => {}
        }
    }
    drop(serving);
    assert_eq!(held_soon(&world), 0);
    world.close().await;
    assert_eq!(world.cloud.records(), []);
}

fn held_soon(world: &World) -> i64 {
    world.gateway.metrics().held.get()
}

#[tokio::test]
async fn a_line_is_read_like_a_request_and_never_streams() {
    let world = World::new().await;
    let lines = Lines::new(&world.gateway);
    let estimate = |body: Value| {
        let lines = &lines;
        let world = &world;
        async move { lines.estimate(access(world).await, LineEndpoint::ChatCompletions, body.to_string().into_bytes()).await }
    };
    let mut body = chat("please say 5");
    body["max_tokens"] = json!(7);
    let good = estimate(body.clone()).await.unwrap();
    assert_eq!(good.output_max.get(), 7);
    assert!(good.input.get() > 0 && good.least < good.most);
    body["stream"] = json!(true);
    assert_eq!(estimate(body.clone()).await.unwrap_err().param_name(), Some("stream"));
    let (code, status, answer) = refusal(serve(&world, 1, &body).await);
    assert_eq!((code, status, &answer["error"]["param"]), (ErrorCode::InvalidRequest, 400, &json!("stream")));
    body["model"] = json!("nope");
    assert_eq!(estimate(body).await.unwrap_err().code(), ErrorCode::ModelNotFound);
}

#[tokio::test]
async fn a_line_without_money_is_refused_before_anything_is_computed() {
    let world = World::new().await;
    world.cloud.limit("a", 1);
    let (code, status, _) = refusal(serve(&world, 1, &chat("please say 5")).await);
    assert_eq!((code, status), (ErrorCode::InsufficientQuota, 429));
    world.close().await;
    assert_eq!(world.cloud.records(), []);
}

#[tokio::test]
async fn an_estimate_counts_the_answers_that_a_line_asks_for() {
    let world = World::new().await;
    let lines = Lines::new(&world.gateway);
    let estimate =
        async |endpoint, body: Value| lines.estimate(access(&world).await, endpoint, body.to_string().into_bytes()).await;
    let with = |n: u32| {
        let mut body = chat("please say 5");
        (body["n"], body["max_tokens"]) = (json!(n), json!(7));
        body
    };
    let one = estimate(LineEndpoint::ChatCompletions, with(1)).await.unwrap();
    let four = estimate(LineEndpoint::ChatCompletions, with(4)).await.unwrap();
    assert_eq!((one.answers, four.answers, four.output_max.get()), (1, 4, 28));
    assert_eq!(four.input, one.input, "the prompt is read once");
    let (output, least) = (one.most.get() - one.least.get(), one.least.get());
    assert_eq!(four.most.get() - four.least.get(), 4 * output, "of each answer all but the first token");
    assert!(four.least.get() > least);
    let prompts = json!({ "model": "tiny", "prompt": ["please say 1", "please say 2"], "n": 3, "max_tokens": 2 });
    let many = estimate(LineEndpoint::Completions, prompts).await.unwrap();
    assert_eq!((many.answers, many.output_max.get()), (6, 12));
}

#[tokio::test]
async fn a_refusal_says_what_was_short_where_other_lines_do_not_need_it() {
    let world = World::new().await;
    let rule = |name: &str, end_users| RateRule {
        name: name.into(),
        subject: "proj_a".into(),
        metric: RateMetric::RequestsPerMinute,
        value: 1,
        model: None,
        end_users,
    };
    world.cloud.change_key(&world.key, |access| access.limits = vec![rule("rlim_1", EndUsers::Each)]);
    let by = |user: &str| {
        let mut body = chat("please say 1");
        body["user"] = json!(user);
        body
    };
    let mut number = 0;
    let mut serve = async |body: Value| {
        number += 1;
        serve(&world, number, &body).await
    };
    let short = |end: LineEnd| match end {
        LineEnd::Refused { error, .. } => (error.code(), error.bottleneck_name().map(ToString::to_string)),
        other => panic!("not refused: {other:?}"),
    };
    assert_eq!(serve(by("one")).await, LineEnd::Recorded);
    let (code, first) = short(serve(by("one")).await);
    assert_eq!(code, ErrorCode::RateLimitExceeded);
    assert!(first.as_ref().is_some_and(|name| name.starts_with("rlim_1/") && !name.contains("one")), "{first:?}");
    assert_eq!(serve(by("two")).await, LineEnd::Recorded);
    assert_ne!(short(serve(by("two")).await).1, first, "each end user waits for his own");
    // What limits the whole key is everybody's.
    world.cloud.change_key(&world.key, |access| access.limits = vec![rule("rlim_2", EndUsers::All)]);
    assert_eq!(serve(by("three")).await, LineEnd::Recorded);
    assert_eq!(short(serve(by("four")).await), (ErrorCode::RateLimitExceeded, None));
}
