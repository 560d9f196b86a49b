//! What is charged, and what is not, however a request ends.

use std::sync::atomic::Ordering;

use serde_json::json;
use sublet_core::admission::TokenUsage;
use sublet_core::rate::RateLimits;
use sublet_core::usage::Outcome;
use sublet_core::{DurationMs, Nanos, TokenCount};

use crate::cloud::{CACHED, INPUT, OUTPUT, per_token, prices};
use crate::world::{World, chat, config, event, events, read, read_deltas, streamed, text, value};

fn tokens(input: i64, cached: i64, output: i64) -> TokenUsage {
    TokenUsage { input: TokenCount::new(input), cached_input: TokenCount::new(cached), output: TokenCount::new(output) }
}

fn cost(input: i64, cached: i64, output: i64) -> i64 {
    input * INPUT + cached * CACHED + output * OUTPUT
}

#[tokio::test]
async fn an_answer_is_charged_once_for_exactly_its_tokens() {
    let world = World::new().await;
    let (status, headers, body) = value(world.chat("please say 20").await).await;
    assert_eq!((status, &body["choices"][0]["finish_reason"]), (200, &json!("stop")));
    assert_eq!((&body["usage"]["prompt_tokens"], &body["usage"]["completion_tokens"]), (&json!(3), &json!(20)));
    assert_eq!(headers["x-sublet-cost"], "0.00000203 EUR");
    world.at_rest().await;
    let records = world.cloud.records();
    assert_eq!(records.len(), 1);
    assert_eq!((records[0].outcome, records[0].tokens), (Outcome::Completed, tokens(3, 0, 20)));
    assert_eq!(body["id"], json!(records[0].request.as_str()));
    assert_eq!(headers["x-request-id"], records[0].request.as_str());
    assert_eq!(world.cloud.settled("a"), cost(3, 0, 20));
    world.close().await;
}

#[tokio::test]
async fn the_budget_stops_the_decode_at_the_last_affordable_token() {
    for (prompt_and_tokens, streams) in [(cost(3, 0, 13), false), (cost(3, 0, 13), true), (cost(3, 0, 13) + 99 - 4, true)] {
        let world = World::new().await;
        // One nano-unit of slack for each priced line, and one for the split of the prompt.
        world.cloud.limit("a", prompt_and_tokens + 4);
        let body = if streams { streamed("please say 100") } else { chat("please say 100") };
        let answer = text(world.post("/v1/chat/completions", &body).await).await;
        assert!(answer.contains("\"finish_reason\":\"length\"") && answer.contains("\"sublet_stop\":\"budget\""), "{answer}");
        world.at_rest().await;
        let records = world.cloud.records();
        assert_eq!((records[0].outcome, records[0].tokens), (Outcome::BudgetStopped, tokens(3, 0, 13)));
        assert_eq!(world.engine.shared.produced.load(Ordering::SeqCst), 13, "not one token more was computed");
        world.close().await;
    }
}

#[tokio::test]
async fn a_request_that_cannot_pay_one_token_is_refused_and_free() {
    let world = World::new().await;
    world.cloud.limit("a", cost(3, 0, 1) - 1);
    let (status, headers, body) = value(world.chat("please say 100").await).await;
    assert_eq!((status, &body["error"]["code"]), (429, &json!("insufficient_quota")));
    assert!(body["error"]["message"].as_str().unwrap().contains("limit"), "{body}");
    assert_eq!(headers["x-should-retry"], "false");
    world.close().await;
    assert_eq!((world.cloud.settled("a"), world.cloud.records().len()), (0, 0));
    assert_eq!(world.engine.shared.produced.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_refusal_is_for_those_who_were_there_when_it_was_asked_for() {
    let world = World::new().await;
    world.cloud.limit("a", cost(3, 0, 1) - 1);
    world.cloud.answers_slow.store(true, Ordering::SeqCst);
    let in_line = async || {
        // Nothing here waits for time: whoever can go on has done so after this.
        for _ in 0..1_000 {
            tokio::task::yield_now().await;
        }
    };
    let (early, late, ()) = tokio::join!(
        world.chat("please say 5"),
        async {
            in_line().await;
            assert_eq!(world.cloud.grants.load(Ordering::SeqCst), 1, "the refusal is on its way");
            world.cloud.limit("a", cost(3, 0, 100));
            world.chat("please say 5").await
        },
        async {
            in_line().await;
            in_line().await;
            world.cloud.answers_slow.store(false, Ordering::SeqCst);
            world.cloud.go.notify_waiters();
        }
    );
    assert_eq!((early.status().as_u16(), late.status().as_u16()), (429, 200));
    world.close().await;
}

#[tokio::test]
async fn h_a_client_that_leaves_pays_for_what_was_delivered_and_the_engine_stops() {
    let world = World::new().await;
    world.engine.set_pace(7);
    let mut body = world.stream("please say 500").await;
    read_deltas(&mut body, 7).await;
    drop(body);
    assert_eq!(world.engine.shared.cancelled.load(Ordering::SeqCst), 1);
    world.at_rest().await;
    let records = world.cloud.records();
    assert_eq!((records[0].outcome, records[0].tokens), (Outcome::ClientCancelled, tokens(3, 0, 7)));
    assert_eq!(world.engine.shared.produced.load(Ordering::SeqCst), 7);
    world.close().await;
    assert_eq!(world.cloud.settled("a"), cost(3, 0, 7));
}

#[tokio::test]
async fn h_delivered_means_handed_to_the_connection_not_computed() {
    let world = World::new().await;
    let mut body = world.stream("please say 500").await;
    read_deltas(&mut body, 3).await;
    drop(body);
    world.at_rest().await;
    assert_eq!(world.cloud.records()[0].tokens, tokens(3, 0, 3));
    world.close().await;
}

#[tokio::test]
async fn a_client_that_leaves_before_the_first_token_pays_nothing() {
    let world = World::new().await;
    world.engine.set_pace(0);
    let mut body = world.stream("please say 500").await;
    assert!(event(&mut body).await.unwrap().contains("assistant"));
    drop(body);
    world.close().await;
    assert_eq!((world.cloud.settled("a"), world.cloud.records().len()), (0, 0));
}

#[tokio::test]
async fn b_our_failure_before_any_output_is_void() {
    let world = World::new().await;
    let (status, headers, body) = value(world.chat("please fail 0").await).await;
    assert_eq!((status, &body["error"]["code"]), (500, &json!("internal_error")));
    assert_eq!(body["error"]["request_id"], headers["x-request-id"].to_str().unwrap());
    assert!(!body.to_string().contains("fake"), "private context stays here");
    // A stream has begun when the engine fails, so it is told inside.
    let (events, done) = events(&read(world.stream("please fail 0").await).await);
    assert_eq!((events.last().unwrap()["error"]["code"].as_str(), done), (Some("internal_error"), false));
    // An engine that takes nothing has a status of its own, streamed or not.
    world.engine.shared.room.store(0, Ordering::SeqCst);
    for body in [chat("please say 3"), streamed("please say 3")] {
        let (status, headers, body) = value(world.post("/v1/chat/completions", &body).await).await;
        assert_eq!((status, &body["error"]["code"]), (503, &json!("queue_full")));
        assert_eq!((&headers["retry-after"], &headers["retry-after-ms"]), (&"2".parse().unwrap(), &"1500".parse().unwrap()));
    }
    world.close().await;
    assert_eq!(world.cloud.records().len(), 0);
}

#[tokio::test]
async fn our_failure_inside_a_stream_charges_what_was_delivered_and_ends_without_done() {
    let world = World::new().await;
    let answer = read(world.stream("please fail 12").await).await;
    let (events, done) = events(&answer);
    assert!(!done);
    assert_eq!(events.last().unwrap()["error"]["code"], "internal_error");
    assert!(events.last().unwrap()["error"]["request_id"].as_str().unwrap().starts_with("req_"));
    world.at_rest().await;
    let records = world.cloud.records();
    assert_eq!((records[0].outcome, records[0].tokens), (Outcome::ServerStopped, tokens(3, 0, 12)));
    world.close().await;
}

#[tokio::test]
async fn our_failure_of_a_whole_answer_is_void_because_nothing_was_delivered() {
    let world = World::new().await;
    let (status, _, _) = value(world.chat("please fail 12").await).await;
    assert_eq!(status, 500);
    world.close().await;
    assert_eq!(world.cloud.records().len(), 0);
}

#[tokio::test]
async fn i_zero_output_is_void_and_still_an_answer() {
    let world = World::new().await;
    let (status, headers, body) = value(world.chat("please say 0").await).await;
    assert_eq!((status, &body["usage"]["completion_tokens"]), (200, &json!(0)));
    assert_eq!(headers["x-sublet-cost"], "0 EUR");
    world.close().await;
    assert_eq!(world.cloud.records().len(), 0);
}

#[tokio::test]
async fn d_cached_input_is_charged_as_cached_and_frees_money_for_output() {
    let world = World::new().await;
    world.engine.shared.cached.store(2, Ordering::SeqCst);
    // Enough for the whole prompt uncached and four tokens; two cached tokens save 18, one hundred buys a token.
    let prompt = format!("{} say 50", "word ".repeat(98));
    world.engine.shared.cached.store(90, Ordering::SeqCst);
    world.cloud.limit("a", cost(100, 0, 4) + 4);
    let (_, _, body) = value(world.chat(&prompt).await).await;
    assert_eq!(body["usage"]["prompt_tokens_details"]["cached_tokens"], 90);
    world.at_rest().await;
    let record = &world.cloud.records()[0];
    assert_eq!(record.tokens, tokens(10, 90, 12), "810 saved on the prompt are eight tokens more");
    world.close().await;
    assert_eq!(world.cloud.settled("a"), cost(10, 90, 12));
}

#[tokio::test]
async fn prices_that_are_no_whole_nanos_never_cost_more_than_their_holds() {
    let world = World::new().await;
    let third = sublet_core::Rate::new(sublet_core::Nanos::new(1_000), 3).unwrap();
    *world.cloud.prices.lock().unwrap() = prices(third, per_token(7), third);
    world.cloud.limit("a", 50_000);
    for _ in 0..40 {
        text(world.chat("please say 17").await).await;
    }
    world.close().await;
    let spent: i64 = world.cloud.records().iter().map(|record| record.tokens.total().get()).sum();
    // The line's charges add up to the rounded line.
    let input: i64 = world.cloud.records().iter().map(|record| record.tokens.input.get()).sum();
    let line = |tokens: i64| third.cost_half_even(tokens).unwrap().get();
    assert_eq!(world.cloud.settled("a"), line(input) + line(spent - input));
    assert!((50_000 - world.cloud.settled("a")) < 1_500, "{} are left", 50_000 - world.cloud.settled("a"));
}

#[tokio::test]
async fn a_free_model_needs_no_money_but_leaves_its_record() {
    let world = World::new().await;
    *world.cloud.prices.lock().unwrap() = prices(per_token(0), per_token(0), per_token(0));
    world.cloud.limit("a", 0);
    assert_eq!(world.chat("please say 30").await.status(), 200);
    world.at_rest().await;
    assert_eq!(world.cloud.records()[0].tokens, tokens(3, 0, 30));
    world.close().await;
}

/// What each request costs besides its tokens here.
const FLAT: i64 = 70_000;

async fn world_with_flat_price() -> World {
    let world = World::new().await;
    world.cloud.prices.lock().unwrap().request = Nanos::new(FLAT);
    world
}

#[tokio::test]
async fn a_flat_price_is_charged_once_a_request_however_many_answers_it_has() {
    let world = world_with_flat_price().await;
    let (_, headers, _) = value(world.chat("please say 20").await).await;
    assert_eq!(headers["x-sublet-cost"], "0.00007203 EUR");
    let mut two = chat("please say 2");
    two["n"] = json!(2);
    assert_eq!(world.post("/v1/chat/completions", &two).await.status(), 200);
    world.at_rest().await;
    assert_eq!(world.cloud.settled("a"), 2 * FLAT + cost(3, 0, 20) + cost(3, 0, 4));
    world.close().await;
}

#[tokio::test]
async fn a_flat_price_is_held_before_any_token_is_computed() {
    // The slack of the prompt's lines and of the output's.
    let slack = 4;
    for (budget, produced) in [(FLAT + cost(3, 0, 1) - 1, 0), (FLAT + cost(3, 0, 13) + slack, 13)] {
        let world = world_with_flat_price().await;
        world.cloud.limit("a", budget);
        let status = world.chat("please say 100").await.status();
        assert_eq!(status, if produced == 0 { 429 } else { 200 });
        world.at_rest().await;
        assert_eq!(world.engine.shared.produced.load(Ordering::SeqCst), produced, "not one token more was computed");
        assert!(world.cloud.settled("a") <= budget);
        world.close().await;
    }
}

#[tokio::test]
async fn what_is_void_has_no_flat_price() {
    let world = world_with_flat_price().await;
    assert_eq!(world.chat("please say 0").await.status(), 200);
    world.at_rest().await;
    assert_eq!((world.cloud.settled("a"), world.cloud.records().len()), (0, 0));
    world.close().await;
}

#[tokio::test]
async fn l_a_model_without_a_price_is_not_served() {
    let world = World::new().await;
    let mut body = chat("say 3");
    body["model"] = json!("unpriced");
    let (status, _, body) = value(world.post("/v1/chat/completions", &body).await).await;
    assert_eq!((status, &body["error"]["code"]), (409, &json!("unknown_price")));
    world.close().await;
}

#[tokio::test]
async fn tokens_the_engine_keeps_back_do_not_stop_the_money() {
    // Forty tokens are produced before the first is delivered, and steps are eight tokens.
    let world = World::new().await;
    let (status, _, body) = value(world.chat("please hide 40").await).await;
    assert_eq!((status, &body["usage"]["completion_tokens"]), (200, &json!(42)));
    world.close().await;
    assert_eq!(world.cloud.settled("a"), cost(3, 0, 42));
}

#[tokio::test]
async fn several_answers_share_one_prompt_and_each_is_counted() {
    let world = World::new().await;
    let mut body = chat("please say 20");
    body["n"] = json!(3);
    let (_, _, answer) = value(world.post("/v1/chat/completions", &body).await).await;
    assert_eq!(answer["choices"].as_array().unwrap().len(), 3);
    assert_eq!((&answer["usage"]["prompt_tokens"], &answer["usage"]["completion_tokens"]), (&json!(3), &json!(60)));
    world.close().await;
    assert_eq!(world.cloud.settled("a"), cost(3, 0, 60));
}

#[tokio::test]
async fn several_prompts_are_each_paid_once() {
    let world = World::new().await;
    let body = json!({"model": "tiny", "prompt": ["please say 4", "now please say 6"], "n": 2, "max_tokens": 50});
    let (_, _, answer) = value(world.post("/v1/completions", &body).await).await;
    let texts: Vec<_> = answer["choices"].as_array().unwrap().iter().map(|choice| choice["text"].as_str().unwrap().len()).collect();
    assert_eq!(texts, [12, 12, 18, 18]);
    world.close().await;
    assert_eq!(world.cloud.settled("a"), cost(7, 0, 20));
}

#[tokio::test]
async fn c_holds_are_no_larger_than_the_request_can_become() {
    let world = World::new().await;
    world.cloud.limit("a", 2 * cost(3, 0, 2) + 8);
    world.engine.set_pace(0);
    let mut body = streamed("please say 100");
    body["max_tokens"] = json!(2);
    let first = world.post("/v1/chat/completions", &body).await;
    let second = world.post("/v1/chat/completions", &body).await;
    assert_eq!((first.status().as_u16(), second.status().as_u16()), (200, 200));
    world.engine.set_pace(u64::MAX);
    for response in [first, second] {
        assert!(text(response).await.contains("[DONE]"));
    }
    world.close().await;
    assert_eq!(world.cloud.settled("a"), 2 * cost(3, 0, 2));
}

#[tokio::test]
async fn an_extension_waits_for_money_that_another_request_releases() {
    let world = World::new().await;
    // Each request gets a first step of eight; together they take everything.
    world.cloud.limit("a", 2 * (cost(3, 0, 8) + 4) + 40);
    world.engine.set_pace(0);
    let mut short = world.stream("please say 1").await;
    let mut long = world.stream("please say 12").await;
    event(&mut short).await;
    event(&mut long).await;
    world.engine.set_pace(u64::MAX);
    read_deltas(&mut long, 8).await;
    // Parked: eight tokens are paid, and what is left of the limit is less than a token.
    let rest = tokio::spawn(async move { read(long).await });
    tokio::task::yield_now().await;
    assert!(read(short).await.contains("[DONE]"));
    let (events, done) = events(&rest.await.unwrap());
    assert!(done);
    assert_eq!(events.last().unwrap()["usage"]["completion_tokens"], 12, "{events:?}");
    world.close().await;
}

#[tokio::test]
async fn a_store_that_is_away_lets_granted_money_be_spent_and_then_ends_the_stream_with_its_name() {
    let world = World::new().await;
    let mut body = world.stream("please say 500").await;
    read_deltas(&mut body, 1).await;
    world.cloud.unreachable.store(true, Ordering::SeqCst);
    let (events, done) = events(&read(body).await);
    assert!(!done);
    assert_eq!(events.last().unwrap()["error"]["code"], "store_unavailable");
    let (status, _, refused) = value(world.chat("please say 400").await).await;
    assert_eq!((status, &refused["error"]["code"]), (503, &json!("store_unavailable")));
    world.cloud.unreachable.store(false, Ordering::SeqCst);
    world.at_rest().await;
    let record = &world.cloud.records()[0];
    assert_eq!(record.outcome, Outcome::ServerStopped);
    assert!(record.tokens.output.get() >= 8, "what was granted before was spent: {record:?}");
    world.close().await;
}

#[tokio::test]
async fn money_in_an_idle_slice_of_another_key_is_found_when_it_is_needed() {
    let world = World::new().await;
    let second = world.cloud.add_key(2, "a", RateLimits::default());
    world.cloud.limit("a", cost(3, 0, 100));
    text(world.chat("please say 10").await).await;
    world.gateway.flush(crate::world::SOON).await.unwrap();
    assert!(world.cloud.sliced("a") > 0, "the first key's slice lies idle");
    let mut request = world.request("/v1/chat/completions", chat("please say 80").to_string());
    request.headers_mut().insert("authorization", format!("Bearer {second}").parse().unwrap());
    let (_, _, body) = value(world.send(request).await).await;
    assert_eq!(body["usage"]["completion_tokens"], 80);
    world.close().await;
}

#[tokio::test]
async fn what_was_admitted_gets_what_lies_idle_before_anything_goes_beyond_a_limit() {
    let world = World::new().await;
    let second = world.cloud.add_key(2, "a", RateLimits::default());
    let limit = cost(3, 0, 100);
    world.cloud.limit("a", limit);
    world.cloud.books.lock().unwrap().overrun = 100 * limit;
    // One begins with little; the other key's slice then takes the rest, and lies idle.
    let mut first = world.stream("please say 60").await;
    read_deltas(&mut first, 1).await;
    let mut request = world.request("/v1/chat/completions", chat("please say 10").to_string());
    request.headers_mut().insert("authorization", format!("Bearer {second}").parse().unwrap());
    text(world.send(request).await).await;
    assert!(read(first).await.contains("[DONE]"));
    world.gateway.flush(crate::world::SOON).await.unwrap();
    assert_eq!(world.cloud.beyond.load(Ordering::SeqCst), 0, "the limit had enough for both");
    world.close().await;
}

#[tokio::test]
async fn e_a_new_window_gets_a_new_slice_and_the_old_one_goes_back() {
    let world = World::new().await;
    *world.cloud.window_ends_at.lock().unwrap() = Some(crate::world::START.plus(DurationMs::from_seconds(10)));
    let mut old = world.stream("please say 30").await;
    read_deltas(&mut old, 1).await;
    world.clock.advance(DurationMs::from_seconds(10));
    *world.cloud.window_ends_at.lock().unwrap() = Some(crate::world::START.plus(DurationMs::from_hours(24)));
    text(world.chat("please say 5").await).await;
    world.gateway.flush(crate::world::SOON).await.unwrap();
    world.gateway.release_idle_slices_of(&crate::cloud::organization_id("a")).await;
    assert_eq!(world.cloud.open_slices(), 1, "the new one lay idle, the old one is in use");
    assert!(read(old).await.contains("[DONE]"), "what was admitted in the old window goes on in its slice");
    world.at_rest().await;
    let slices: std::collections::BTreeSet<_> = world.cloud.records().into_iter().map(|record| record.slice).collect();
    assert_eq!(slices.len(), 2);
    world.close().await;
}

#[tokio::test]
async fn an_idle_slice_goes_back_by_itself() {
    let mut config = config();
    config.sweep_interval = DurationMs::from_millis(1);
    let world = World::with(config).await;
    text(world.chat("please say 10").await).await;
    world.gateway.flush(crate::world::SOON).await.unwrap();
    assert_eq!(world.cloud.open_slices(), 1);
    world.clock.advance(DurationMs::from_seconds(6));
    while world.cloud.open_slices() > 0 {
        tokio::task::yield_now().await;
    }
    text(world.chat("please say 10").await).await;
    world.close().await;
}

#[tokio::test]
async fn f_far_from_the_limit_most_requests_ask_nobody() {
    let world = World::new().await;
    for _ in 0..200 {
        text(world.chat("please say 10").await).await;
    }
    let grants = world.cloud.grants.load(Ordering::SeqCst);
    assert!(grants < 50, "{grants} grants for 200 requests");
    world.close().await;
}
