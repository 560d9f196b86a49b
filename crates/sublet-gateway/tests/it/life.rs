//! Start, failure of the disk and the store, drain and stop.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::json;
use sublet_core::DurationMs;
use sublet_core::usage::Outcome;

use crate::cloud::{INPUT, OUTPUT};
use crate::world::{SOON, World, config, event, events, read, read_deltas, text, value};

#[tokio::test]
async fn a_full_disk_refuses_new_work_voids_what_cannot_be_recorded_and_recovers() {
    let world = World::new().await;
    text(world.chat("please say 5").await).await;
    world.engine.set_pace(3);
    let mut running = world.stream("please say 9").await;
    read_deltas(&mut running, 3).await;
    world.disk.set_capacity(Some(world.disk.used() + 100));
    world.engine.set_pace(u64::MAX);
    let (seen, done) = events(&read(running).await);
    assert_eq!((seen.last().unwrap()["error"]["code"].as_str(), done), (Some("storage_full"), false));
    // The refusal also makes the writer look again, so it is the only one that may come late.
    let (status, _, answer) = value(world.chat("please say 5").await).await;
    assert_eq!((status, &answer["error"]["code"]), (507, &json!("storage_full")));
    assert_eq!(world.gateway.ready().unwrap_err().code().as_str(), "storage_full");

    world.disk.set_capacity(None);
    while world.gateway.ready().is_err() {
        tokio::task::yield_now().await;
    }
    text(world.chat("please say 5").await).await;
    world.close().await;
    let records = world.cloud.records();
    assert_eq!(records.iter().map(|record| record.tokens.output.get()).collect::<Vec<_>>(), [5, 5]);
}

#[tokio::test]
async fn a_record_without_room_leaves_nothing_before_the_next_one() {
    let world = World::new().await;
    text(world.chat("please say 5").await).await;
    world.engine.set_pace(3);
    let mut bodies = [world.stream("please say 9").await, world.stream("please say 7").await];
    for body in &mut bodies {
        read_deltas(body, 3).await;
    }
    world.disk.set_capacity(Some(world.disk.used() + 100));
    world.engine.set_pace(u64::MAX);
    let [refused, later] = bodies;
    assert!(read(refused).await.contains("storage_full"));
    world.disk.set_capacity(None);
    assert!(read(later).await.contains("[DONE]"), "space came back before its record");
    let journal =
        sublet_gateway::journal::Journal::open(Arc::new(world.disk.crashed(0, false)), config().journal, world.clock.clone());
    assert_eq!(journal.unwrap().1.records, 2);
    world.close().await;
    assert_eq!(world.cloud.records().len(), 2);
}

#[tokio::test]
async fn a_failed_sync_stops_the_gateway_for_good() {
    let world = World::new().await;
    world.disk.fail_syncs();
    let (status, _, answer) = value(world.chat("please say 5").await).await;
    assert_eq!((status, &answer["error"]["code"]), (500, &json!("internal_error")));
    for _ in 0..2 {
        let (status, _, answer) = value(world.chat("please say 5").await).await;
        assert_eq!((status, &answer["error"]["code"]), (503, &json!("store_unavailable")));
    }
    assert!(world.gateway.ready().is_err());
    assert_eq!(world.gateway.metrics().held.get(), 0, "what cannot be known stays captured, not held");
}

#[tokio::test]
async fn g_usage_waits_in_the_journal_while_the_store_is_away() {
    let world = World::new().await;
    // Requests before it, so that there is money to spend without the store.
    text(world.chat("please say 50").await).await;
    text(world.chat("please say 50").await).await;
    world.gateway.flush(SOON).await.unwrap();
    world.cloud.unreachable.store(true, Ordering::SeqCst);
    for _ in 0..3 {
        assert_eq!(world.chat("please say 5").await.status(), 200);
    }
    assert!(world.gateway.flush(DurationMs::from_millis(5)).await.is_err());
    assert_eq!((world.cloud.records().len(), world.gateway.metrics().journal_unsettled), (2, 3));
    world.cloud.unreachable.store(false, Ordering::SeqCst);
    world.close().await;
    assert_eq!(world.cloud.records().len(), 5);
}

#[tokio::test]
async fn a_journal_that_grows_beyond_its_bound_refuses_new_work() {
    let mut config = config();
    config.journal.unsettled_max = sublet_core::Bytes::new(600);
    let world = World::with(config).await;
    text(world.chat("please say 50").await).await;
    text(world.chat("please say 5").await).await;
    let (status, _, answer) = value(world.chat("please say 5").await).await;
    assert_eq!((status, &answer["error"]["code"]), (503, &json!("store_unavailable")));
    assert!(answer["error"]["message"].as_str().unwrap().contains("usage records"));
}

#[tokio::test]
async fn settled_segments_are_deleted() {
    let mut config = config();
    config.journal.segment_max = sublet_core::Bytes::new(1_500);
    let world = World::with(config).await;
    for _ in 0..30 {
        text(world.chat("please say 2").await).await;
        world.gateway.flush(SOON).await.unwrap();
    }
    assert!(world.disk.files().len() <= 2, "{:?}", world.disk.files());
    world.close().await;
    assert_eq!(world.cloud.records().len(), 30);
}

#[tokio::test]
async fn a_drain_refuses_new_requests_and_lets_the_others_end() {
    let world = World::new().await;
    world.engine.set_pace(2);
    let mut running = world.stream("please say 5").await;
    read_deltas(&mut running, 2).await;
    let gateway = Arc::clone(&world.gateway);
    let drain = tokio::spawn(async move { gateway.shutdown(SOON).await });
    tokio::task::yield_now().await;
    let (status, headers, answer) = value(world.chat("please say 1").await).await;
    assert_eq!((status, &answer["error"]["code"]), (503, &json!("shutting_down")));
    assert!(headers.contains_key("retry-after"));
    world.engine.set_pace(u64::MAX);
    let (_, done) = events(&read(running).await);
    assert!(done);
    let report = drain.await.unwrap();
    assert_eq!((report.stopped, report.unsettled, report.slices_left), (0, 0, 0));
    assert_eq!(world.cloud.records()[0].outcome, Outcome::Completed);
    assert_eq!((world.cloud.open_slices(), world.cloud.sliced("a")), (0, 0));
}

#[tokio::test]
async fn at_the_deadline_streams_are_ended_and_charged_for_what_was_delivered() {
    let world = World::new().await;
    world.engine.set_pace(4);
    let mut running = world.stream("please say 50").await;
    read_deltas(&mut running, 4).await;
    let silent = world.stream("please stuck").await;
    let readers = [running, silent].map(|body| tokio::spawn(read(body)));
    tokio::task::yield_now().await;
    let report = world.gateway.shutdown(DurationMs::ZERO).await;
    assert_eq!((report.stopped, report.unsettled, report.slices_left), (2, 0, 0));
    for reader in readers {
        let (seen, done) = events(&reader.await.unwrap());
        assert_eq!((seen.last().unwrap()["error"]["code"].as_str(), done), (Some("shutting_down"), false));
    }
    let records = world.cloud.records();
    assert_eq!((records.len(), records[0].outcome, records[0].tokens.output.get()), (1, Outcome::ServerStopped, 4));
}

#[tokio::test]
async fn g_a_lost_process_settles_its_acknowledged_records_at_the_next_start_and_once() {
    let world = World::new().await;
    world.cloud.unreachable.store(false, Ordering::SeqCst);
    text(world.chat("please say 50").await).await;
    world.gateway.flush(SOON).await.unwrap();
    world.cloud.unreachable.store(true, Ordering::SeqCst);
    text(world.chat("please say 5").await).await;
    text(world.chat("please say 6").await).await;
    let mut cut = world.stream("please say 9").await;
    event(&mut cut).await;

    let after = world.disk.crashed(0, false);
    world.cloud.unreachable.store(false, Ordering::SeqCst);
    let mut config = config();
    config.fence = 2;
    let next = World::over(config, Arc::clone(&world.cloud), after, world.key.clone()).await;
    let outputs: Vec<_> = next.cloud.records().iter().map(|record| record.tokens.output.get()).collect();
    assert_eq!(outputs, [50, 5, 6], "settled before anything is served, also what was settled before");
    assert_eq!(next.chat("please say 7").await.status(), 200);
    next.gateway.flush(SOON).await.unwrap();
    assert_eq!(next.cloud.records().len(), 4);
    drop(cut);
}

#[tokio::test]
async fn metrics_count_what_happened() {
    let world = World::new().await;
    text(world.chat("please say 5").await).await;
    text(world.chat("please say 0").await).await;
    let mut body = world.stream("please say 50").await;
    read_deltas(&mut body, 2).await;
    let during = world.gateway.metrics();
    assert_eq!(during.in_flight, 1);
    assert!(during.held.get() > 0);
    drop(body);
    world.post("/v1/chat/completions", &json!({"model": "nope"})).await;
    world.at_rest().await;
    let metrics = world.gateway.metrics();
    let count = |outcome| metrics.requests.iter().find(|(known, _)| *known == outcome).unwrap().1;
    assert_eq!((count(Outcome::Completed), count(Outcome::ClientCancelled)), (1, 1));
    assert_eq!((metrics.voided, metrics.refused, metrics.tokens.output.get()), (1, 1, 7));
    assert_eq!((metrics.journal_records, metrics.first_token.iter().sum::<u64>()), (2, 2));
    world.close().await;
}

#[tokio::test]
async fn f_a_grant_whose_answer_was_lost_is_taken_up_again() {
    let world = World::new().await;
    // So little that a second slice would find nothing left.
    world.cloud.limit("a", 3 * INPUT + 5 * OUTPUT + 4);
    world.cloud.answers_lost.store(true, Ordering::SeqCst);
    let (status, _, answer) = value(world.chat("please say 5").await).await;
    assert_eq!((status, &answer["error"]["code"]), (503, &json!("store_unavailable")));
    assert_eq!(world.cloud.open_slices(), 1);
    world.cloud.answers_lost.store(false, Ordering::SeqCst);
    assert_eq!(world.chat("please say 5").await.status(), 200);
    assert_eq!(world.cloud.open_slices(), 1, "the slice that was opened first pays");
    world.close().await;
}

#[tokio::test]
async fn f_a_grant_whose_answer_was_lost_goes_back_when_nobody_asks_again() {
    let world = World::new().await;
    world.cloud.answers_lost.store(true, Ordering::SeqCst);
    assert_eq!(world.chat("please say 5").await.status(), 503);
    world.cloud.answers_lost.store(false, Ordering::SeqCst);
    assert_eq!(world.cloud.open_slices(), 1);
    world.close().await;
}

/// Longer than a stream waits for others of its key to release money, in the test of that.
const LONG_MS: i64 = 300;

#[tokio::test]
async fn c_a_cloud_that_answers_late_is_no_empty_purse() {
    let mut config = config();
    config.money_wait_max = DurationMs::from_millis(LONG_MS / 30);
    let world = World::with(config).await;
    let body = world.stream("please say 100").await;
    world.cloud.slow.store(true, Ordering::SeqCst);
    let mut reading = std::pin::pin!(read(body));
    let early = tokio::time::timeout(DurationMs::from_millis(LONG_MS).to_std(), &mut reading).await;
    assert!(early.is_err(), "it ended before the cloud had spoken: {early:?}");
    world.cloud.slow.store(false, Ordering::SeqCst);
    world.cloud.go.notify_waiters();
    let (all, done) = events(&reading.await);
    assert!(done && all.iter().any(|event| event["usage"]["completion_tokens"] == json!(100)), "{all:?}");
    world.close().await;
}

#[tokio::test]
async fn c_a_cloud_that_never_answers_is_our_failure() {
    let mut config = config();
    (config.money_wait_max, config.grant_wait_max) = (DurationMs::from_millis(10), DurationMs::from_millis(50));
    let world = World::with(config).await;
    let body = world.stream("please say 100").await;
    world.cloud.slow.store(true, Ordering::SeqCst);
    let (all, done) = events(&read(body).await);
    let codes: Vec<_> = all.iter().filter_map(|event| event["error"]["code"].as_str()).collect();
    assert_eq!((done, codes), (false, vec!["store_unavailable"]), "{all:?}");
    world.cloud.slow.store(false, Ordering::SeqCst);
    world.cloud.go.notify_waiters();
    world.close().await;
}
