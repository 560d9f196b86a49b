//! The vocabulary inside a GGUF file, written as a `tokenizer.json`.
//!
//! Two kinds are known: byte-level BPE (`gpt2`), which has its merges, and SentencePiece BPE
//! (`llama`), whose merges follow from the scores of its pieces: two pieces may merge when
//! their concatenation is a piece, the better-scored one first.
//!
//! Source of the keys: the GGUF specification. Source of the splitting expressions: the
//! `tokenizer.json` files published with GPT-2, Llama 3, Qwen2 and SmolLM.

use std::collections::HashMap;

use serde_json::{Map, Value, json};
use sublet_core::Result;

use super::bytes::invalid;
use super::gguf::{GgufMetadata, Metadata};

/// Pieces longer than this take no part in merges, in bytes.
const MERGE_PIECE_BYTES_MAX: usize = 512;

const LLAMA3_SPLIT: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|",
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
const QWEN2_SPLIT: &str =
    concat!(r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|", r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+");

/// The token types of the specification that matter here.
const TYPE_CONTROL: i64 = 3;
const TYPE_USER_DEFINED: i64 = 4;

struct Vocabulary<'a> {
    file: &'a str,
    tokens: &'a [String],
    types: &'a [i64],
}

impl Vocabulary<'_> {
    fn kind(&self, id: usize) -> i64 {
        self.types.get(id).copied().unwrap_or(1)
    }

    fn ids(&self) -> Map<String, Value> {
        self.tokens.iter().enumerate().map(|(id, token)| (token.clone(), json!(id))).collect()
    }

    /// Control tokens have no text; user-defined ones are found before anything else is split.
    fn added_tokens(&self) -> Vec<Value> {
        let listed = |(id, _): &(usize, &String)| matches!(self.kind(*id), TYPE_CONTROL | TYPE_USER_DEFINED);
        let entry = |(id, token): (usize, &String)| {
            json!({
                "id": id, "content": token, "special": self.kind(id) == TYPE_CONTROL,
                "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
            })
        };
        self.tokens.iter().enumerate().filter(listed).map(entry).collect()
    }
}

/// The whole `tokenizer.json`.
pub fn tokenizer_json(metadata: &GgufMetadata) -> Result<String> {
    let Some(Metadata::Texts(tokens)) = metadata.get("tokenizer.ggml.tokens") else {
        return Err(invalid(&metadata.file, "has no tokenizer.ggml.tokens; a tokenizer.json beside it would work"));
    };
    let types: &[i64] = match metadata.get("tokenizer.ggml.token_type") {
        Some(Metadata::Integers(types)) => types,
        _ => &[],
    };
    let vocabulary = Vocabulary { file: &metadata.file, tokens, types };
    let mut description = match metadata.text("tokenizer.ggml.model") {
        Some("gpt2") => byte_level(metadata, &vocabulary)?,
        Some("llama") => sentence_piece(metadata, &vocabulary)?,
        other => {
            let shown: String = other.unwrap_or("none").chars().take(40).collect();
            let problem = format!("has a vocabulary of kind '{shown}'; gpt2 and llama work, or a tokenizer.json beside the file");
            return Err(invalid(vocabulary.file, problem));
        }
    };
    let begin_default = metadata.text("tokenizer.ggml.model") == Some("llama");
    if metadata.bool("tokenizer.ggml.add_bos_token").unwrap_or(begin_default) {
        let id = metadata.index("tokenizer.ggml.bos_token_id");
        if let Some(token) = id.and_then(|id| tokens.get(id)) {
            description["post_processor"] = json!({
                "type": "TemplateProcessing",
                "single": [{"SpecialToken": {"id": token, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
                "special_tokens": {token.as_str(): {"id": token, "ids": [id], "tokens": [token]}},
            });
        }
    }
    description["version"] = json!("1.0");
    description["added_tokens"] = Value::Array(vocabulary.added_tokens());
    Ok(description.to_string())
}

fn byte_level(metadata: &GgufMetadata, vocabulary: &Vocabulary<'_>) -> Result<Value> {
    let level = |regex: Value| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": regex});
    let split = |pattern: &str| {
        let split = json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false});
        json!({"type": "Sequence", "pretokenizers": [split, level(json!(false))]})
    };
    let (pre_tokenizer, normalizer, ignore_merges) = match metadata.text("tokenizer.ggml.pre").unwrap_or("gpt-2") {
        "gpt-2" | "gpt2" => (level(json!(true)), Value::Null, false),
        "smollm" => {
            let digits = json!({"type": "Digits", "individual_digits": true});
            (json!({"type": "Sequence", "pretokenizers": [digits, level(json!(true))]}), Value::Null, false)
        }
        "llama-bpe" | "llama3" | "llama-v3" => (split(LLAMA3_SPLIT), Value::Null, true),
        "qwen2" => (split(QWEN2_SPLIT), json!({"type": "NFC"}), false),
        other => {
            let shown: String = other.chars().take(40).collect();
            let problem =
                format!("splits text as '{shown}'; gpt-2, smollm, llama-bpe and qwen2 work, or a tokenizer.json beside the file");
            return Err(invalid(vocabulary.file, problem));
        }
    };
    let Some(Metadata::Texts(merges)) = metadata.get("tokenizer.ggml.merges") else {
        return Err(invalid(vocabulary.file, "has no tokenizer.ggml.merges"));
    };
    Ok(json!({
        "normalizer": normalizer, "pre_tokenizer": pre_tokenizer, "decoder": level(json!(true)),
        "model": {"type": "BPE", "vocab": vocabulary.ids(), "merges": merges, "ignore_merges": ignore_merges},
    }))
}

fn sentence_piece(metadata: &GgufMetadata, vocabulary: &Vocabulary<'_>) -> Result<Value> {
    let Some(Metadata::Floats(scores)) = metadata.get("tokenizer.ggml.scores") else {
        return Err(invalid(vocabulary.file, "has no tokenizer.ggml.scores"));
    };
    let replace = json!({"type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}"});
    let mut normalizers = Vec::new();
    if metadata.bool("tokenizer.ggml.add_space_prefix").unwrap_or(true) {
        normalizers.push(json!({"type": "Prepend", "prepend": "\u{2581}"}));
    }
    normalizers.push(replace);
    let unknown = metadata.index("tokenizer.ggml.unknown_token_id").unwrap_or(0);
    let decoders = json!([
        {"type": "Replace", "pattern": {"String": "\u{2581}"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
    ]);
    Ok(json!({
        "normalizer": {"type": "Sequence", "normalizers": normalizers}, "pre_tokenizer": null,
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": {
            "type": "BPE", "vocab": vocabulary.ids(), "merges": merges_from_scores(vocabulary.tokens, scores),
            "unk_token": vocabulary.tokens.get(unknown), "fuse_unk": true, "byte_fallback": true,
        },
    }))
}

/// Every way to make a piece from two others, the best-scored pieces first.
fn merges_from_scores(tokens: &[String], scores: &[f32]) -> Vec<Value> {
    let ids: HashMap<&str, usize> = tokens.iter().enumerate().map(|(id, token)| (token.as_str(), id)).collect();
    let mut merges: Vec<(f32, usize, usize)> = Vec::new();
    for (token, score) in tokens.iter().zip(scores).filter(|(token, _)| token.len() <= MERGE_PIECE_BYTES_MAX) {
        for (at, _) in token.char_indices().skip(1) {
            let (left, right) = token.split_at(at);
            if let (Some(left), Some(right)) = (ids.get(left), ids.get(right)) {
                merges.push((*score, *left, *right));
            }
        }
    }
    merges.sort_by(|a, b| b.0.total_cmp(&a.0).then((a.1, a.2).cmp(&(b.1, b.2))));
    merges.into_iter().map(|(_, left, right)| json!([tokens[left], tokens[right]])).collect()
}
