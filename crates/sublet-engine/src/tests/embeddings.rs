//! Vectors of texts: what they are, beside whom they are computed, and what is refused.

use futures_util::StreamExt;
use sublet_core::engine::{EmbedRequest, FinishReason, GenerationEvent, GenerationStream, ModelEngine, Pooling, Prompt};
use sublet_core::tier::ServiceTier;
use sublet_core::{Bytes, ErrorCode, Result, TokenCount};

use super::harness::*;
use super::reference::{Vector, shipped, shipped_directory};
use crate::test_model::{TinyModel, safetensors, tokenizer_json};
use crate::{Engine, EngineConfig, ModelSource};

/// Largest difference allowed in a value of a vector of length 1: the reference is printed with six decimals and
/// sums in another order.
const VALUE_TOLERANCE: f64 = 1e-5;
/// The same for a sum over all values.
const SUM_TOLERANCE: f64 = 1e-3;

fn start(engine: &Engine, inputs: &[Prompt], dimensions: Option<u32>) -> Result<GenerationStream> {
    let prepared: Result<Vec<_>> = inputs.iter().map(|input| engine.prepare_input(MODEL, input)).collect();
    engine.embed(EmbedRequest { model: MODEL.to_owned(), inputs: prepared?, dimensions, tier: ServiceTier::Default })
}

/// The vectors of a whole stream, as bytes; checks the order of its events.
fn vectors(mut stream: GenerationStream) -> Vec<Vec<u8>> {
    let (mut found, mut input, mut ended) = (Vec::new(), None, false);
    while let Some(event) = block_on(stream.next()) {
        assert!(!ended, "nothing follows the end");
        match event {
            GenerationEvent::Started { input: tokens, cached_input } => {
                assert!(found.is_empty() && cached_input == TokenCount::ZERO && input.replace(tokens).is_none());
            }
            GenerationEvent::Vector { input, values } => {
                assert_eq!(input, found.len(), "in the order of the inputs");
                found.push(values);
            }
            GenerationEvent::Finished { reason: FinishReason::Stop, output: TokenCount::ZERO } => ended = true,
            other => panic!("{other:?}"),
        }
    }
    assert!(ended && input.is_some());
    found
}

fn embed(engine: &Engine, inputs: &[Prompt]) -> Vec<Vec<u8>> {
    vectors(start(engine, inputs, None).expect("the request is accepted"))
}

fn floats(bytes: &[u8]) -> Vec<f64> {
    bytes.chunks_exact(4).map(|value| f64::from(f32::from_le_bytes(value.try_into().expect("four bytes")))).collect()
}

fn text(length: usize) -> Prompt {
    Prompt::Text("abc defghi jk".chars().cycle().skip(length % 13).take(length).collect())
}

fn assert_is(found: &[u8], expected: &Vector) {
    let found = floats(found);
    for (value, expected) in found.iter().zip(&expected.first) {
        assert!((value - expected).abs() < VALUE_TOLERANCE, "{value} against {expected}");
    }
    let sum: f64 = found.iter().sum();
    let sizes: f64 = found.iter().map(|value| value.abs()).sum();
    let length: f64 = found.iter().map(|value| value * value).sum();
    assert!((sum - expected.sum).abs() < SUM_TOLERANCE, "{sum} against {}", expected.sum);
    assert!((sizes - expected.sum_of_sizes).abs() < SUM_TOLERANCE, "{sizes} against {}", expected.sum_of_sizes);
    assert!((length - 1.0).abs() < 1e-6, "the length is {length}");
}

#[test]
fn the_shipped_models_vectors_match_an_independent_implementation() {
    let (_, reference) = shipped();
    let last = tempfile::tempdir().expect("a temporary directory");
    for name in ["config.json", "model.safetensors", "tokenizer.json"] {
        std::fs::copy(shipped_directory().join(name), last.path().join(name)).expect("it can be copied");
    }
    std::fs::create_dir(last.path().join("1_Pooling")).expect("it can be made");
    std::fs::write(last.path().join("1_Pooling/config.json"), r#"{"pooling_mode_lasttoken": true}"#).expect("it can be written");
    for (directory, pooling) in [(shipped_directory(), Pooling::Mean), (last.path().to_owned(), Pooling::Last)] {
        let engine = empty_engine(EngineConfig::default());
        let info = engine.add_model(MODEL, ModelSource::Directory(directory)).expect("the shipped model loads");
        assert_eq!(info.embeddings.expect("it makes vectors").pooling, pooling);
        let inputs: Vec<Prompt> = reference.prompts.iter().map(|case| Prompt::Tokens(case.ids.clone())).collect();
        for (found, case) in embed(&engine, &inputs).iter().zip(&reference.prompts) {
            assert_is(found, if pooling == Pooling::Mean { &case.vector_mean } else { &case.vector_last });
        }
    }
}

#[test]
fn a_vector_is_the_same_to_the_last_bit_alone_in_a_batch_in_slices_and_in_scarce_memory() {
    let inputs: Vec<Prompt> = (0..40).map(|index| text(1 + index * 6)).collect();
    let alone: Vec<Vec<u8>> = {
        let engine = engine();
        inputs.iter().flat_map(|input| embed(&engine, std::slice::from_ref(input))).collect()
    };
    let sliced = EngineConfig { prefill_tokens_per_step_max: 7, ..EngineConfig::default() };
    // 2 layers × 2 × 2 heads × 16 values × 4 bytes = 512 bytes per position: the longest input fits, and little else.
    let scarce = EngineConfig { kv_bytes_max: Some(Bytes::new(512 * 256)), running_max: 4, ..EngineConfig::default() };
    for config in [EngineConfig::default(), sliced, scarce] {
        let engine = engine_with(config, &TinyModel::default());
        let answers: Vec<_> = (0..3).map(|seed| ask_seeded("beside", seed).start(&engine).expect("accepted")).collect();
        let reversed: Vec<Prompt> = inputs.iter().rev().cloned().collect();
        let other = start(&engine, &reversed, None).expect("the request is accepted");
        assert_eq!(embed(&engine, &inputs), alone);
        assert_eq!(vectors(other), alone.iter().rev().cloned().collect::<Vec<_>>());
        answers.into_iter().for_each(|answer| assert!(collect(answer).reason.is_some()));
    }
}

#[test]
fn tokens_and_their_text_have_one_vector() {
    let engine = engine();
    let tokens = engine.prepare_input(MODEL, &Prompt::Text("the same".to_owned())).expect("it is a good input").tokens.to_vec();
    let found = embed(&engine, &[Prompt::Text("the same".to_owned()), Prompt::Tokens(tokens), Prompt::Text("other".to_owned())]);
    assert_eq!(found[0], found[1]);
    assert_ne!(found[0], found[2]);
}

#[test]
fn answers_pass_a_long_request_for_vectors_and_two_of_those_share() {
    let small = TinyModel { hidden: 32, layers: 1, ..TinyModel::default() };
    for running_max in [1, 2, 64] {
        let config = EngineConfig { running_max, prefill_tokens_per_step_max: 64, ..EngineConfig::default() };
        let engine = engine_with(config, &small);
        let many: Vec<Prompt> = (0..200).map(|_| text(200)).collect();
        let long = start(&engine, &many, None).expect("the request is accepted");
        wait_for(&engine, |load| load.steps > 3);
        let answered = ask("quick").run(&engine);
        assert_eq!(answered.output, 20);
        let short = embed(&engine, &[text(200)]);
        let steps = engine.load().steps;
        assert_eq!(vectors(long)[0], short[0]);
        let all = engine.load().steps;
        assert!(steps < all / 2, "with {running_max} slots others waited {steps} of {all} steps");
    }
}

#[test]
fn a_slow_reader_stops_only_itself_and_one_that_leaves_ends_the_work() {
    let engine = engine();
    let many: Vec<Prompt> = (0..200).map(|_| text(20)).collect();
    let unread = start(&engine, &many, None).expect("the request is accepted");
    wait_for(&engine, |load| load.parked == 1);
    assert_eq!(ask("others").run(&engine).output, 20);
    assert_eq!(vectors(unread).len(), 200);
    let left = start(&engine, &many, None).expect("the request is accepted");
    let load = wait_for(&engine, |load| load.running + load.parked == 1);
    drop(left);
    let after = wait_for(&engine, |load| load.running + load.parked + load.queued == 0);
    assert!(after.steps < load.steps + 60, "most of the work was not done");
}

#[test]
fn what_cannot_be_embedded_is_refused_by_name() {
    let engine = engine();
    let refused = |input: Prompt| engine.prepare_input(MODEL, &input).err().map(|error| error.code());
    assert_eq!(refused(Prompt::Tokens(vec![3; 256])), None, "an input may fill the context");
    assert_eq!(refused(Prompt::Tokens(vec![3; 257])), Some(ErrorCode::ContextLengthExceeded));
    assert_eq!(refused(text(100_000)), Some(ErrorCode::ContextLengthExceeded));
    assert_eq!(refused(Prompt::Tokens(Vec::new())), Some(ErrorCode::InvalidRequest));
    assert_eq!(refused(Prompt::Tokens(vec![259])), Some(ErrorCode::InvalidRequest));
    assert_eq!(refused(chat("x")), Some(ErrorCode::InvalidRequest));
    for dimensions in [0, 32, 65] {
        let error = start(&engine, &[text(3)], Some(dimensions)).err().expect("it was not trained for other lengths");
        assert_eq!((error.code(), error.param_name()), (ErrorCode::InvalidRequest, Some("dimensions")));
    }
    assert_eq!(start(&engine, &[], None).err().map(|error| error.code()), Some(ErrorCode::InvalidRequest));
    assert!(start(&engine, &[text(3)], Some(64)).is_ok());
}

#[test]
fn vectors_are_shortened_where_the_model_was_trained_for_it() {
    let model = TinyModel::default();
    let mut config = model.config();
    config["matryoshka_dimensions"] = serde_json::json!([8, 16]);
    let files = crate::EmbeddedFiles {
        config: config.to_string().into_bytes().into(),
        weights: safetensors(&model.tensors()).into(),
        tokenizer: tokenizer_json().to_string().into_bytes().into(),
        tokenizer_config: None,
        generation_config: None,
    };
    let engine = empty_engine(EngineConfig::default());
    engine.add_model(MODEL, ModelSource::Embedded(files)).expect("the model loads");
    let whole = floats(&embed(&engine, &[text(50)])[0]);
    let short = floats(&vectors(start(&engine, &[text(50)], Some(8)).expect("it is accepted"))[0]);
    let length = whole[..8].iter().map(|value| value * value).sum::<f64>().sqrt();
    assert_eq!(short.len(), 8);
    for (short, whole) in short.iter().zip(&whole) {
        assert!((short - whole / length).abs() < 1e-6, "the first values, at length 1");
    }
    assert!(start(&engine, &[text(50)], Some(9)).is_err());
}
