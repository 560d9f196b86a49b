//! One request's life: counts, ends, stop strings, allowance, cancellation.

use futures_util::StreamExt;
use sublet_core::engine::{Allowance, FinishReason, GenerationEvent, Millionths, ModelEngine, Prompt};
use sublet_core::{ErrorCode, TokenCount};

use super::harness::*;
use crate::EngineConfig;
use crate::test_model::TinyModel;

#[test]
fn a_generation_starts_delivers_and_ends_at_its_maximum() {
    let engine = engine();
    let outcome = ask("hello").run(&engine);
    assert_eq!(outcome.input, Some(6), "five bytes and the beginning");
    assert_eq!((outcome.reason, outcome.output), (Some(FinishReason::Length), 20));
    let chat = Ask { prompt: chat("hi"), ..ask("") }.run(&engine);
    assert_eq!(chat.input, Some("sumuser: hi\nmassistant: ".len() as i64 - 1), "as the template renders it");
}

#[test]
fn without_a_maximum_it_runs_to_the_end_of_the_context() {
    let engine = engine();
    let outcome = Ask { max_output: None, ..ask("abc") }.run(&engine);
    assert_eq!((outcome.reason, outcome.output), (Some(FinishReason::Length), 256 - 4));
}

#[test]
fn the_end_token_stops_and_is_not_counted() {
    let engine = engine();
    let mut request = ask("abc");
    request.sampling.logit_bias = vec![(crate::test_model::END_TOKEN, Millionths(100_000_000))];
    let outcome = request.run(&engine);
    assert_eq!((outcome.reason, outcome.output, outcome.text.as_str()), (Some(FinishReason::Stop), 0, ""));
    assert_eq!(engine.load().produced, 0);
}

#[test]
fn a_stop_string_ends_the_text_before_itself() {
    let engine = engine();
    let bias = |token: u8| vec![(u32::from(token) + 3, Millionths(100_000_000))];
    let mut request = ask("abc");
    request.sampling.logit_bias = bias(b'x');
    assert_eq!(request.run(&engine).text, "x".repeat(20));
    request.stop = vec!["xxx".to_owned()];
    let outcome = request.run(&engine);
    assert_eq!((outcome.text.as_str(), outcome.output, outcome.reason), ("", 0, Some(FinishReason::StopString(0))));
    request.stop = vec!["xy".to_owned()];
    let outcome = request.run(&engine);
    assert_eq!((outcome.text.len(), outcome.output, outcome.reason), (20, 20, Some(FinishReason::Length)));
}

#[test]
fn never_a_token_beyond_the_allowance() {
    let engine = engine();
    let allowance = std::sync::Arc::new(Allowance::new(TokenCount::new(3)));
    let request = Ask { allowance: allowance.clone(), ..ask("hello") };
    let stream = request.start(&engine).expect("accepted");
    wait_for(&engine, |load| load.parked == 1);
    assert_eq!(engine.load().produced, 3);
    allowance.raise_to(TokenCount::new(7));
    engine.wake();
    wait_for(&engine, |load| load.parked == 1 && load.produced == 7);
    let steps = engine.load().steps;
    engine.wake();
    allowance.close();
    engine.wake();
    let outcome = collect(stream);
    assert_eq!((outcome.reason, outcome.output), (Some(FinishReason::Allowance), 7));
    assert_eq!(engine.load().steps, steps, "a parked sequence costs no step");
    let whole = Ask { max_output: Some(7), ..ask("hello") }.run(&engine);
    assert_eq!((whole.text, whole.reason), (outcome.text, Some(FinishReason::Length)), "parking changes nothing");
}

#[test]
fn an_allowance_of_nothing_computes_nothing() {
    let engine = engine();
    let allowance = std::sync::Arc::new(Allowance::new(TokenCount::ZERO));
    allowance.close();
    let outcome = Ask { allowance, ..ask("hello") }.run(&engine);
    assert_eq!((outcome.reason, outcome.output, outcome.input), (Some(FinishReason::Allowance), 0, None));
    assert_eq!(engine.load().steps, 0);
}

#[test]
fn a_dropped_stream_stops_within_one_step() {
    let engine = engine_with(EngineConfig::default(), &TinyModel { context: 100_000, ..TinyModel::default() });
    let mut stream = Ask { max_output: None, ..ask("hello") }.start(&engine).expect("accepted");
    while !matches!(block_on(stream.next()), Some(GenerationEvent::Delta { .. })) {}
    drop(stream);
    // Read after the drop: at most the step that was under way then is still to be counted.
    let dropped = engine.load();
    let after = wait_for(&engine, |load| load.running + load.parked + load.queued == 0);
    assert!(after.steps <= dropped.steps + 1, "{dropped:?} {after:?}");
    assert_eq!(engine.load().steps, after.steps);
}

#[test]
fn a_slow_reader_parks_its_own_sequence_only() {
    let engine = engine();
    let slow = Ask { max_output: None, ..ask("slow") }.start(&engine).expect("accepted");
    wait_for(&engine, |load| load.parked == 1);
    assert!(engine.load().produced < 100, "the channel bounds what is produced ahead");
    assert_eq!(ask("quick").run(&engine).output, 20);
    let outcome = collect(slow);
    assert_eq!((outcome.reason, outcome.output), (Some(FinishReason::Length), 256 - 5));
}

#[test]
fn logprobs_come_with_every_counted_token() {
    let engine = engine();
    let mut request = ask("hello");
    request.sampling.logprobs = Some(3);
    let outcome = request.run(&engine);
    assert_eq!(outcome.logprobs.len(), 20);
    for position in &outcome.logprobs {
        assert_eq!(position.top.len(), 3);
        assert_eq!(position.top[0], position.chosen, "greedy takes the likeliest");
        assert!(position.top[0].logprob >= position.top[1].logprob && position.chosen.logprob.0 <= 0);
    }
}

#[test]
fn what_cannot_be_served_is_refused_with_its_reason() {
    let engine = engine();
    let code = |prompt: Prompt| engine.prepare(MODEL, &prompt).map_err(|error| error.code()).map(|_| ());
    assert_eq!(code(Prompt::Text("x".repeat(300))), Err(ErrorCode::ContextLengthExceeded));
    let words = engine.prepare(MODEL, &Prompt::Text("x".repeat(300))).expect_err("it is too long").message().to_owned();
    // By these words LangChain, LiteLLM and others know which error it is.
    assert!(words.contains("prompt is too long") && words.contains("this model's maximum context length is"), "{words}");
    assert_eq!(code(Prompt::Text("x".repeat(30_000_000))), Err(ErrorCode::ContextLengthExceeded));
    assert_eq!(code(Prompt::Tokens(vec![])), Err(ErrorCode::InvalidRequest));
    assert_eq!(code(Prompt::Tokens(vec![259])), Err(ErrorCode::InvalidRequest));
    let unknown = engine.prepare("huge", &chat("hi")).expect_err("there is no such model");
    assert_eq!((unknown.code(), unknown.alternatives()), (ErrorCode::ModelNotFound, &[MODEL.to_owned()][..]));
    type Change = fn(&mut Ask);
    let changes: [(&str, Change); 7] = [
        ("temperature", |ask| ask.sampling.temperature = Millionths(2_000_001)),
        ("top_p", |ask| ask.sampling.top_p = Millionths(0)),
        ("presence_penalty", |ask| ask.sampling.presence_penalty = Millionths(-2_000_001)),
        ("frequency_penalty", |ask| ask.sampling.frequency_penalty = Millionths(2_000_001)),
        ("logit_bias", |ask| ask.sampling.logit_bias = vec![(259, Millionths(1))]),
        ("logit_bias", |ask| ask.sampling.logit_bias = vec![(1, Millionths(100_000_001))]),
        ("stop", |ask| ask.stop = vec!["x".to_owned(); 17]),
    ];
    for (param, change) in changes {
        let mut request = ask("hi");
        change(&mut request);
        let error = request.start(&engine).err().expect("refused");
        assert_eq!((error.code(), error.param_name()), (ErrorCode::InvalidRequest, Some(param)));
    }
}
