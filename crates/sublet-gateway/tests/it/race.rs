//! Many requests at once: the limit holds at every step, and nothing is left behind.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::body::Body;
use proptest::prelude::*;
use serde_json::{Value, json};
use sublet_core::rate::RateLimits;
use sublet_core::usage::{Outcome, UsageRecord};
use sublet_core::{Bytes, TokenCount};

use crate::cloud::{INPUT, OUTPUT};
use crate::world::{World, chat, config, event, events, read, read_deltas, streamed, text};

fn cost(input: i64, output: i64) -> i64 {
    input * INPUT + output * OUTPUT
}

#[tokio::test]
async fn a_thousand_streams_with_money_for_half_spend_it_to_the_last_token_and_no_more() {
    const STREAMS: usize = 1_000;
    let mut config = config();
    config.output_step = TokenCount::new(16);
    let world = Arc::new(World::with(config).await);
    let limit = 500 * cost(3, 40);
    world.cloud.limit("a", limit);
    let tasks: Vec<_> = (0..STREAMS)
        .map(|_| {
            let world = Arc::clone(&world);
            tokio::spawn(async move { read(world.stream("please say 40").await).await })
        })
        .collect();
    let mut complete = 0;
    for task in tasks {
        let answer = task.await.unwrap();
        assert!(answer.ends_with("data: [DONE]\n\n"), "{answer}");
        complete += usize::from(!answer.contains("\"sublet_stop\":\"budget\""));
    }
    world.at_rest().await;
    let records = world.cloud.records();
    let spent: i64 = records.iter().map(|record| cost(record.tokens.input.get(), record.tokens.output.get())).sum();
    assert_eq!((records.len(), spent), (STREAMS, world.cloud.settled("a")));
    // Each request's upper bound has a few nano-units of rounding slack, and one more token may not have been affordable.
    let unused = limit - spent;
    assert!((0..=4 * 1_000 + OUTPUT).contains(&unused), "{unused} of {limit} are unused");
    assert!(complete < STREAMS && records.iter().any(|record| record.outcome == Outcome::BudgetStopped));
    world.close().await;
}

#[tokio::test]
async fn a_a_check_then_add_race_cannot_be_won() {
    let world = Arc::new(World::new().await);
    // Ten can pay; a hundred ask at the same instant.
    world.cloud.limit("a", 10 * (cost(3, 1) + 4));
    let mut body = chat("please say 1");
    body["max_tokens"] = json!(1);
    let tasks: Vec<_> = (0..100)
        .map(|_| {
            let (world, body) = (Arc::clone(&world), body.clone());
            tokio::spawn(async move { world.post("/v1/chat/completions", &body).await.status().as_u16() })
        })
        .collect();
    let mut served = 0;
    for task in tasks {
        let status = task.await.unwrap();
        assert!(status == 200 || status == 429, "{status}");
        served += usize::from(status == 200);
    }
    assert!(served >= 10, "{served}");
    world.close().await;
    assert_eq!(world.cloud.settled("a"), i64::try_from(served).unwrap() * cost(3, 1));
    assert!(world.cloud.grants.load(Ordering::SeqCst) < 60, "grants of one key are asked for together");
}

/// What a hundred streams of forty words cost that ask at the same instant, with money for two to the end: how many were
/// admitted, how many of those came to their end, and what was spent beyond the limit.
async fn at_the_border(overrun: i64) -> (usize, usize, i64) {
    let world = Arc::new(World::new().await);
    let limit = 2 * cost(3, 40);
    world.cloud.limit("a", limit);
    world.cloud.books.lock().unwrap().overrun = overrun;
    let tasks: Vec<_> = (0..100)
        .map(|_| {
            let world = Arc::clone(&world);
            tokio::spawn(async move {
                let response = world.post("/v1/chat/completions", &streamed("please say 40")).await;
                (response.status().as_u16(), text(response).await)
            })
        })
        .collect();
    let (mut admitted, mut finished) = (0, 0);
    for task in tasks {
        let (status, answer) = task.await.unwrap();
        assert!(status == 200 || status == 429, "{status} {answer}");
        admitted += usize::from(status == 200);
        finished += usize::from(status == 200 && !answer.contains("\"sublet_stop\":\"budget\""));
    }
    // All that was reserved for finishing and not used came back, so what is left of the limit is all there is.
    world.close().await;
    let spent = world.cloud.settled("a");
    assert_eq!(world.cloud.records().len(), admitted, "what was refused costs nothing");
    (admitted, finished, spent - limit)
}

#[tokio::test]
async fn what_was_admitted_at_the_border_finishes_and_the_rest_is_refused() {
    // Enough for all that can be admitted: each needs a word to begin with.
    let (admitted, finished, beyond) = at_the_border(100 * cost(3, 40)).await;
    assert!(admitted == finished && (3..100).contains(&admitted), "{finished} of {admitted} came to their end");
    assert_eq!(beyond, i64::try_from(admitted).unwrap() * cost(3, 40) - 2 * cost(3, 40));
}

#[tokio::test]
async fn finishing_never_costs_more_than_was_said() {
    for overrun in [1, 3 * cost(3, 40), 7_777] {
        let (admitted, finished, beyond) = at_the_border(overrun).await;
        assert!(beyond <= overrun, "{beyond} beyond a limit that may be overrun by {overrun}");
        assert!(finished < admitted, "{finished} of {admitted}: not all of them can have finished");
    }
}

#[tokio::test]
async fn work_that_waits_in_a_line_behind_a_limit_is_refused_when_others_finish() {
    let world = Arc::new(World::new().await);
    // The first stream takes all of it, and goes on beyond.
    let limit = cost(3, 8) + 10;
    world.cloud.limit("a", limit);
    world.cloud.books.lock().unwrap().overrun = 100 * cost(3, 40);
    let mut first = world.stream("please say 500").await;
    read_deltas(&mut first, 20).await;
    let refused = world.chat("please say 1").await;
    assert_eq!(refused.status(), 429, "{}", text(refused).await);
    read_deltas(&mut first, 100).await;
    drop(first);
    world.close().await;
    assert!(world.cloud.settled("a") > limit);
}

/// One request of the property test.
#[derive(Clone, Debug)]
struct Plan {
    script: String,
    stream: bool,
    answers: usize,
    /// Leave after so many events.
    leave_after: Option<usize>,
    second_key: bool,
}

#[derive(Clone, Copy, Debug)]
enum Shock {
    None,
    StoreAway,
    DiskFull,
}

fn plan() -> impl Strategy<Value = Plan> {
    let script = prop_oneof![
        4 => (0_u32..40).prop_map(|n| format!("please say {n}")),
        1 => (0_u32..20).prop_map(|n| format!("please fail {n}")),
        1 => (0_u32..30).prop_map(|n| format!("please hide {n}")),
    ];
    (script, any::<bool>(), prop_oneof![4 => Just(1), 1 => 2..4_usize], prop::option::weighted(0.3, 0..30_usize), any::<bool>())
        .prop_map(|(script, stream, answers, leave_after, second_key)| Plan { script, stream, answers, leave_after, second_key })
}

/// What the client saw, which decides what may be charged.
#[derive(Debug)]
enum Seen {
    /// Exactly this output is charged; zero is no record.
    Exactly(i64),
    /// The client left after so much; charged exactly, unless the disk had no room for the record.
    Left(i64),
    /// Nothing is charged.
    Nothing,
    /// The answer could not be completed: what was delivered is charged, or nothing if the record found no room.
    AtMost(i64),
}

async fn run(world: Arc<World>, second: String, plan: Plan) -> (String, Seen) {
    let mut body = if plan.stream { streamed(&plan.script) } else { chat(&plan.script) };
    body["n"] = json!(plan.answers);
    let mut request = world.request("/v1/chat/completions", body.to_string());
    if plan.second_key {
        request.headers_mut().insert("authorization", format!("Bearer {second}").parse().unwrap());
    }
    let response = world.send(request).await;
    let id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
    if response.status() != 200 {
        return (id, Seen::Nothing);
    }
    if !plan.stream {
        let answer: Value = serde_json::from_str(&read(response.into_body()).await).unwrap();
        return (id, Seen::Exactly(answer["usage"]["completion_tokens"].as_i64().unwrap()));
    }
    (id, watch(response.into_body(), plan.leave_after).await)
}

/// Tokens are words, so what was delivered can be counted in the text.
fn delivered(text: &str) -> i64 {
    let (events, _) = events(text);
    let contents = events.iter().filter_map(|event| event["choices"][0]["delta"]["content"].as_str());
    i64::try_from(contents.map(|content| content.split_whitespace().count()).sum::<usize>()).unwrap()
}

async fn watch(mut body: Body, leave_after: Option<usize>) -> Seen {
    let mut text = String::new();
    let mut count = 0;
    loop {
        if leave_after == Some(count) {
            return Seen::Left(delivered(&text));
        }
        let Some(event) = event(&mut body).await else { break };
        text.push_str(&event);
        count += 1;
    }
    let (seen, done) = events(&text);
    if done {
        let usage = seen.last().unwrap()["usage"]["completion_tokens"].as_i64().unwrap();
        assert_eq!(usage, delivered(&text), "{text}");
        return Seen::Exactly(usage);
    }
    match seen.last().unwrap()["error"]["code"].as_str().unwrap() {
        "storage_full" => Seen::AtMost(0),
        _ => Seen::AtMost(delivered(&text)),
    }
}

async fn shake(world: &World, shock: Shock) {
    match shock {
        Shock::None => {}
        Shock::StoreAway => world.cloud.unreachable.store(true, Ordering::SeqCst),
        Shock::DiskFull => world.disk.set_capacity(Some(world.disk.used() + 700)),
    }
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
    world.cloud.unreachable.store(false, Ordering::SeqCst);
    world.disk.set_capacity(None);
}

async fn play(plans: Vec<Plan>, limit: i64, shock: Shock) {
    let mut config = config();
    config.journal.segment_max = Bytes::new(4_000);
    let world = Arc::new(World::with(config).await);
    let second = world.cloud.add_key(2, "a", RateLimits::default());
    world.cloud.limit("a", limit);
    let tasks: Vec<_> = plans.into_iter().map(|plan| tokio::spawn(run(Arc::clone(&world), second.clone(), plan))).collect();
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
    shake(&world, shock).await;
    let mut seen = Vec::new();
    for task in tasks {
        seen.push(task.await.unwrap());
    }
    while world.gateway.ready().is_err() {
        tokio::task::yield_now().await;
    }
    world.at_rest().await;
    let records = world.cloud.records();
    for (id, seen) in &seen {
        check(records.iter().find(|record| record.request.as_str() == id), seen, shock);
    }
    assert!(records.len() <= seen.len());
    let spent: i64 = records.iter().map(|record| cost(record.tokens.input.get(), record.tokens.output.get())).sum();
    assert_eq!(spent, world.cloud.settled("a"));
    assert!(spent <= limit);
    world.close().await;
}

fn check(record: Option<&UsageRecord>, seen: &Seen, shock: Shock) {
    let charged = record.map_or(0, |record| record.tokens.output.get());
    match seen {
        Seen::Exactly(output) => assert_eq!(charged, *output, "{record:?}"),
        Seen::Left(output) if matches!(shock, Shock::DiskFull) => assert!(charged == 0 || charged == *output, "{record:?}"),
        Seen::Left(output) => assert_eq!(charged, *output, "{record:?}"),
        Seen::Nothing => assert!(record.is_none(), "{record:?}"),
        Seen::AtMost(output) => assert!(charged <= *output, "{charged} of {output}: {record:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 96,
        rng_seed: proptest::test_runner::RngSeed::Fixed(20_250_615),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_mix_of_requests_keeps_the_limit_and_charges_what_was_delivered(
        plans in prop::collection::vec(plan(), 1..40),
        limit in prop_oneof![0_i64..20_000, 20_000_i64..400_000],
        shock in prop_oneof![3 => Just(Shock::None), 1 => Just(Shock::StoreAway), 1 => Just(Shock::DiskFull)],
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(play(plans, limit, shock));
    }
}
