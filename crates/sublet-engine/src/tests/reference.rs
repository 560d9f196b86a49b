//! The shipped model against logits computed by an independent implementation.
//!
//! `models/sublet-mini/reference.json` is written by `models/train/reference.py`, which shares
//! no code with this crate.

use std::path::PathBuf;

use serde::Deserialize;
use sublet_core::engine::{ChatMessage, Role};

use crate::decoder::{Row, Wants};
use crate::kv::{KvCache, KvPool};
use crate::load::{LoadedModel, ModelSource, load};
use crate::tokenizer::SpecialTokens;

/// Largest difference allowed in a logit: the two implementations sum in different orders, and
/// the reference is printed with five decimals.
const LOGIT_TOLERANCE: f32 = 2e-3;

#[derive(Deserialize)]
pub struct Reference {
    pub prompts: Vec<Case>,
}

/// A vector of length 1.
#[derive(Deserialize)]
pub struct Vector {
    pub first: Vec<f64>,
    pub sum: f64,
    pub sum_of_sizes: f64,
}

#[derive(Deserialize)]
pub struct Case {
    messages: Option<Vec<ChatMessage>>,
    rendered: Option<String>,
    text: Option<String>,
    pub ids: Vec<u32>,
    logits_first: Vec<f32>,
    argmax: u32,
    logit_max: f32,
    logsumexp: f32,
    greedy_ids: Vec<u32>,
    greedy_text: String,
    pub vector_mean: Vector,
    pub vector_last: Vector,
}

pub fn shipped_directory() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/sublet-mini"))
}

pub fn shipped() -> (LoadedModel, Reference) {
    let model = load(ModelSource::Directory(shipped_directory())).expect("the shipped model loads");
    let text = std::fs::read_to_string(shipped_directory().join("reference.json")).expect("the reference is there");
    (model, serde_json::from_str(&text).expect("the reference is well formed"))
}

/// Logits after the tokens, computed in one batch.
pub fn logits_after(model: &LoadedModel, cache: &mut KvCache, pool: &mut KvPool, tokens: &[u32]) -> Vec<f32> {
    let start = cache.length;
    assert!(pool.grow(cache, start + tokens.len()));
    let rows: Vec<Row> = tokens
        .iter()
        .enumerate()
        .map(|(index, token)| {
            let wants = if index + 1 == tokens.len() { Wants::Logits } else { Wants::Nothing };
            Row { token: *token, position: start + index, cache: 0, wants }
        })
        .collect();
    model.decoder.forward(&rows, &mut [cache]).logits
}

fn argmax(logits: &[f32]) -> u32 {
    let best = (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b]));
    best.expect("there are logits") as u32
}

#[test]
fn the_shipped_models_logits_match_an_independent_implementation() {
    let (model, reference) = shipped();
    assert!(!reference.prompts.is_empty());
    for case in reference.prompts {
        let mut pool = KvPool::new(&model.decoder.parameters, 1 << 20);
        let logits = logits_after(&model, &mut KvCache::default(), &mut pool, &case.ids);
        for (logit, expected) in logits.iter().zip(&case.logits_first) {
            assert!((logit - expected).abs() < LOGIT_TOLERANCE, "{logit} against {expected}");
        }
        let largest = logits[case.argmax as usize];
        let total: f32 = logits.iter().map(|logit| (logit - largest).exp()).sum();
        assert_eq!(argmax(&logits), case.argmax);
        assert!((largest - case.logit_max).abs() < LOGIT_TOLERANCE);
        assert!((largest + total.ln() - case.logsumexp).abs() < LOGIT_TOLERANCE);
    }
}

#[test]
fn the_shipped_models_greedy_continuations_match_an_independent_implementation() {
    let (model, reference) = shipped();
    for case in reference.prompts {
        let mut pool = KvPool::new(&model.decoder.parameters, 1 << 20);
        let mut cache = KvCache::default();
        let mut next = case.ids;
        let mut produced = Vec::new();
        let mut text = Vec::new();
        while produced.len() < case.greedy_ids.len() {
            let token = argmax(&logits_after(&model, &mut cache, &mut pool, &next));
            produced.push(token);
            match model.end_tokens.contains(&token) {
                // The reference writes special tokens out.
                true => text.extend(model.tokenizer.name(token).expect("the end token has a name").into_bytes()),
                false => text.extend_from_slice(model.tokenizer.bytes(token)),
            }
            next = vec![token];
        }
        assert_eq!(produced, case.greedy_ids);
        assert_eq!(String::from_utf8_lossy(&text), case.greedy_text);
    }
}

#[test]
fn the_shipped_models_prompts_are_rendered_and_tokenized_as_in_the_reference() {
    let (model, reference) = shipped();
    for case in reference.prompts {
        let (text, special) = match (case.messages, case.text) {
            (Some(messages), _) => {
                assert!(messages.iter().any(|message| message.role == Role::User));
                let template = model.template.as_ref().expect("the shipped model has a chat template");
                let rendered = template.render(&messages.into()).expect("its template renders");
                assert_eq!(Some(&rendered), case.rendered.as_ref());
                (rendered, SpecialTokens::Leave)
            }
            (None, text) => (text.expect("a prompt is messages or text"), SpecialTokens::Add),
        };
        assert_eq!(model.tokenizer.encode(&text, special), Ok(case.ids));
    }
}
