//! Many requests at once: independence, fairness, bounds.

use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::BoxStream;
use sublet_core::engine::{Allowance, FinishReason, GenerationEvent, ModelEngine};
use sublet_core::{Bytes, ErrorCode, TokenCount};

use super::harness::*;
use crate::test_model::TinyModel;
use crate::{EngineConfig, ModelSource};

fn start(engine: &crate::Engine, ask: &Ask) -> BoxStream<'static, GenerationEvent> {
    ask.start(engine).expect("the request is accepted")
}

fn words(number: usize) -> String {
    format!("prompt {number} {}", "wide ".repeat(number % 7))
}

#[test]
fn a_seeded_answer_is_the_same_alone_and_in_a_batch_of_eight() {
    let engine = engine();
    let asks: Vec<Ask> = (0..8).map(|i| Ask { max_output: Some(40), ..ask_seeded(&words(i), i as u64) }).collect();
    let alone: Vec<Outcome> = asks.iter().map(|ask| ask.run(&engine)).collect();
    let streams: Vec<_> = asks.iter().map(|ask| start(&engine, ask)).collect();
    let together: Vec<Outcome> = streams.into_iter().map(collect).collect();
    for (alone, together) in alone.iter().zip(&together) {
        assert_eq!((&alone.text, alone.output), (&together.text, together.output));
    }
    assert_ne!(alone[0].text, ask_seeded(&words(0), 99).run(&engine).text, "another seed, another text");
}

#[test]
fn threads_change_nothing() {
    let wide = TinyModel { hidden: 256, heads: 4, kv_heads: 2, intermediate: 768, ..TinyModel::default() };
    let texts: Vec<Vec<String>> = [1, 2]
        .map(|threads| {
            let engine = engine_with(EngineConfig { threads: Some(threads), ..EngineConfig::default() }, &wide);
            let streams: Vec<_> = (0..8).map(|i| start(&engine, &ask_seeded(&"long ".repeat(20 + i), 5))).collect();
            streams.into_iter().map(|stream| collect(stream).text).collect()
        })
        .to_vec();
    assert_eq!(texts[0], texts[1]);
}

#[test]
fn a_thousand_streams_are_all_served() {
    let tiny = TinyModel { hidden: 32, layers: 1, ..TinyModel::default() };
    let engine = engine_with(EngineConfig::default(), &tiny);
    let streams: Vec<_> =
        (0..1_000).map(|i| start(&engine, &Ask { max_output: Some(8), ..ask_seeded(&words(i), i as u64) })).collect();
    let read = streams.into_iter().map(|stream| async move { stream.collect::<Vec<_>>().await });
    for events in block_on(join_all(read)) {
        let ended = matches!(events.last(), Some(GenerationEvent::Finished { .. }));
        assert!(ended, "{events:?}");
    }
    let load = wait_for(&engine, |load| load.running + load.queued + load.parked == 0);
    assert!(load.produced > 7_000, "{load:?}");
}

#[test]
fn parked_sequences_hold_no_slot_and_come_back() {
    let config = EngineConfig { running_max: 2, ..EngineConfig::default() };
    let engine = engine_with(config, &TinyModel::default());
    let poor: Vec<_> = (0..10)
        .map(|i| {
            let allowance = Arc::new(Allowance::new(TokenCount::new(2)));
            let ask = Ask { allowance: Arc::clone(&allowance), ..ask_seeded(&words(i), 1) };
            (allowance, start(&engine, &ask), ask)
        })
        .collect();
    wait_for(&engine, |load| load.parked == 10);
    assert_eq!(ask("rich").run(&engine).output, 20, "a paying request passes ten parked ones with two slots");
    for (allowance, ..) in &poor {
        allowance.raise_to(TokenCount::new(1_000));
    }
    engine.wake();
    for (_, stream, ask) in poor {
        let outcome = collect(stream);
        assert_eq!(outcome.reason, Some(FinishReason::Length));
        assert_eq!(outcome.text, Ask { allowance: Arc::new(Allowance::new(TokenCount::new(99))), ..ask }.run(&engine).text);
    }
}

#[test]
fn memory_for_two_serves_eight_with_the_same_answers() {
    // 2 layers × 2 × 2 heads × 16 values × 4 bytes = 512 bytes per position: 100 positions fit.
    let config = EngineConfig { kv_bytes_max: Some(Bytes::new(512 * 112)), ..EngineConfig::default() };
    let tight = engine_with(config, &TinyModel::default());
    assert_eq!(tight.models()[0].context_window, TokenCount::new(112), "the context served is what fits");
    let roomy = engine();
    let asks: Vec<Ask> = (0..8).map(|i| Ask { max_output: Some(45), ..ask_seeded(&words(i), i as u64) }).collect();
    let streams: Vec<_> = asks.iter().map(|ask| start(&tight, ask)).collect();
    for (ask, stream) in asks.iter().zip(streams) {
        assert_eq!(collect(stream).text, ask.run(&roomy).text, "recomputed keys and values are the same");
    }
}

#[test]
fn parked_memory_is_given_up_to_those_who_can_run() {
    let config = EngineConfig { kv_bytes_max: Some(Bytes::new(512 * 112)), ..EngineConfig::default() };
    let engine = engine_with(config, &TinyModel::default());
    let allowance = Arc::new(Allowance::new(TokenCount::new(30)));
    let asleep = Ask { allowance: Arc::clone(&allowance), max_output: Some(50), ..ask_seeded(&words(6), 3) };
    let stream = start(&engine, &asleep);
    wait_for(&engine, |load| load.parked == 1);
    assert_eq!(Ask { max_output: Some(80), ..ask(&words(0)) }.run(&engine).output, 80);
    allowance.raise_to(TokenCount::new(50));
    engine.wake();
    let outcome = collect(stream);
    assert_eq!((outcome.output, &outcome.text), (50, &asleep.run(&engine).text));
}

#[test]
fn a_full_queue_refuses_with_a_measured_hint() {
    let config = EngineConfig { running_max: 1, queue_max: 3, ..EngineConfig::default() };
    let engine = engine_with(config, &TinyModel::default());
    let penniless = || Ask { allowance: Arc::new(Allowance::new(TokenCount::ZERO)), ..ask("x") };
    let waiting: Vec<_> = (0..3).map(|_| start(&engine, &penniless())).collect();
    wait_for(&engine, |load| load.parked == 3);
    let error = ask("y").start(&engine).err().expect("the queue is full");
    assert_eq!(error.code(), ErrorCode::QueueFull);
    assert_eq!(error.retry_after_hint().map(|after| after.millis()), Some(1_000), "nothing has been measured yet");
    drop(waiting);
    wait_for(&engine, |load| load.parked == 0);
    assert_eq!(ask("y").run(&engine).output, 20);
}

#[test]
fn the_hint_follows_the_measured_time_between_two_ends() {
    // The clock advances a millisecond per look, and it is looked at once per step and per end; an end
    // is twenty steps away from the next.
    let config = EngineConfig { running_max: 1, queue_max: 3, ..EngineConfig::default() };
    let engine = engine_with(config, &TinyModel::default());
    let streams: Vec<_> = (0..3).map(|_| start(&engine, &ask("x"))).collect();
    for stream in streams {
        assert_eq!(collect(stream).output, 20);
    }
    let penniless = || Ask { allowance: Arc::new(Allowance::new(TokenCount::ZERO)), ..ask("x") };
    let waiting: Vec<_> = (0..3).map(|_| start(&engine, &penniless())).collect();
    wait_for(&engine, |load| load.parked == 3);
    let error = ask("y").start(&engine).err().expect("the queue is full");
    let hint = error.retry_after_hint().map_or(0, |after| after.millis());
    assert!((10..=60).contains(&hint), "{hint} ms");
    drop(waiting);
}

#[test]
fn a_removed_model_ends_its_streams_and_is_gone() {
    let engine = engine();
    let parked = start(&engine, &Ask { allowance: Arc::new(Allowance::new(TokenCount::new(1))), ..ask("x") });
    wait_for(&engine, |load| load.parked == 1);
    engine.remove_model(MODEL).expect("it was there");
    let failure = collect(parked).failure.expect("it did not end well");
    assert_eq!(failure.code(), ErrorCode::ShuttingDown);
    assert_eq!(ask("x").start(&engine).err().map(|error| error.code()), Some(ErrorCode::ModelNotFound));
    assert_eq!(engine.remove_model(MODEL).err().map(|error| error.code()), Some(ErrorCode::ModelNotFound));
    engine.add_model(MODEL, ModelSource::Embedded(embedded(&TinyModel::default()))).expect("the name is free again");
    let taken = engine.add_model(MODEL, ModelSource::Embedded(embedded(&TinyModel::default())));
    assert_eq!(taken.err().map(|error| error.code()), Some(ErrorCode::Conflict));
}
