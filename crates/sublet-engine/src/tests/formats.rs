//! The same weights through every file format give the same logits.

use std::path::Path;

use sublet_core::engine::Chat;

use crate::decoder::{Row, Wants};
use crate::kernel::reduce;
use crate::kv::{KvCache, KvPool};
use crate::load::{LoadedModel, ModelSource, load};
use crate::matrix::{Activations, Matrix, Quantize, Storage};
use crate::quant::{BlockFormat, half_to_f32};
use crate::test_model::{GgufKind, TinyModel, VOCABULARY, gguf, safetensors, tokenizer_json, write_directory};
use crate::tokenizer::SpecialTokens;

use super::harness::embedded;
use super::reference::logits_after;

fn logits(model: &LoadedModel, tokens: &[u32]) -> Vec<f32> {
    let mut pool = KvPool::new(&model.decoder.parameters, 1 << 20);
    logits_after(model, &mut KvCache::default(), &mut pool, tokens)
}

fn largest_difference(left: &[f32], right: &[f32]) -> f32 {
    assert_eq!(left.len(), right.len());
    left.iter().zip(right).map(|(l, r)| (l - r).abs()).fold(0.0, f32::max)
}

fn load_gguf(directory: &Path, model: &TinyModel, kind: GgufKind) -> LoadedModel {
    let path = directory.join("model.gguf");
    std::fs::write(&path, gguf(model, kind)).expect("the temporary directory can be written");
    load(ModelSource::from_path(directory).expect("the directory holds one GGUF file")).expect("the GGUF file loads")
}

#[test]
fn every_block_format_decodes_as_the_reference_decoder_does() {
    let formats = [
        BlockFormat::Q4_0,
        BlockFormat::Q4_1,
        BlockFormat::Q5_0,
        BlockFormat::Q5_1,
        BlockFormat::Q8_0,
        BlockFormat::Q2K,
        BlockFormat::Q3K,
        BlockFormat::Q4K,
        BlockFormat::Q5K,
        BlockFormat::Q6K,
    ];
    let hex = |text: &str| -> Vec<u8> {
        (0..text.len() / 2).map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).expect("the fixture is hexadecimal")).collect()
    };
    let lines: Vec<&str> = include_str!("blocks.txt").lines().collect();
    assert_eq!(lines.len(), formats.len());
    for (line, format) in lines.into_iter().zip(formats) {
        let parts: Vec<&str> = line.split(' ').collect();
        let expected: Vec<f32> = hex(parts[2]).as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        let matrix = Matrix::new(1, 256, Storage::Blocks(format, hex(parts[1]))).expect("the fixture holds 256 weights");
        let mut decoded = vec![0.0; 256];
        matrix.copy_row(0, &mut decoded);
        assert!(largest_difference(&decoded, &expected) < 1e-5, "{}", parts[0]);

        let input: Vec<f32> = (0..256).map(|i| ((i * 29 % 64) as f32 - 31.5) / 32.0).collect();
        let mut product = [0.0];
        matrix.multiply(&Activations::new(&input, 256, Quantize::Yes), &mut product);
        let exact: f32 = reduce(std::array::from_fn(|l| (l..256).step_by(8).map(|i| expected[i] * input[i]).sum()));
        let size: f32 = expected.iter().zip(&input).map(|(e, i)| (e * i).abs()).sum();
        assert!((product[0] - exact).abs() < 0.01 * size, "{}: {} against {exact}", parts[0], product[0]);
    }
}

#[test]
fn halves_convert_exactly() {
    for (half, value) in [
        (0x0000, 0.0),
        (0x3c00, 1.0),
        (0xc000, -2.0),
        (0x7bff, 65504.0),
        (0x0001, 2.0_f32.powi(-24)),
        (0x0400, 2.0_f32.powi(-14)),
        (0x03ff, 1023.0 * 2.0_f32.powi(-24)),
        (0x7c00, f32::INFINITY),
    ] {
        assert_eq!(half_to_f32(half), value, "{half:#x}");
    }
    assert!(half_to_f32(0x7e00).is_nan());
    assert!(half_to_f32(0x8000).is_sign_negative());
}

#[test]
fn a_gguf_file_gives_the_logits_of_the_same_weights_as_safetensors() {
    let tokens: Vec<u32> = (0..40).map(|i| 3 + (i * 37 + 5) % 256).collect();
    for tied in [true, false] {
        let tiny = TinyModel { tied, ..TinyModel::default() };
        let plain = load(ModelSource::Embedded(embedded(&tiny))).expect("the tiny model loads");
        let expected = logits(&plain, &tokens);
        for (kind, tolerance) in [(GgufKind::F32, 2e-4), (GgufKind::F16, 0.02), (GgufKind::Q8_0, 0.12)] {
            let directory = tempfile::tempdir().expect("a temporary directory");
            let difference = largest_difference(&logits(&load_gguf(directory.path(), &tiny, kind), &tokens), &expected);
            assert!(difference < tolerance, "{kind:?}, tied {tied}: {difference}");
        }
    }
}

#[test]
fn a_gguf_files_own_vocabulary_tokenizes_as_the_tokenizer_beside_it() {
    let tiny = TinyModel::default();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let inside = load_gguf(directory.path(), &tiny, GgufKind::F32);
    std::fs::write(directory.path().join("tokenizer.json"), tokenizer_json().to_string()).expect("it can be written");
    let beside = load_gguf(directory.path(), &tiny, GgufKind::F32);
    for text in ["hello", "Grüße, 世界!\n\n  x", "<m>user", "a</s>b", ""] {
        assert_eq!(inside.tokenizer.encode(text, SpecialTokens::Add), beside.tokenizer.encode(text, SpecialTokens::Add));
    }
    assert_eq!(inside.end_tokens, [2]);
    assert_eq!(
        inside.template.map(|template| template.render(&Chat::default()).expect("it renders")),
        Some("<s><m>assistant: ".to_owned())
    );
    assert_eq!((0..VOCABULARY as u32).find(|t| inside.tokenizer.bytes(*t) != beside.tokenizer.bytes(*t)), None);
}

#[test]
fn a_sentence_piece_vocabulary_merges_by_score_and_falls_back_to_bytes() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("model.gguf");
    std::fs::write(&path, crate::test_model::sentence_piece_gguf(&TinyModel::default())).expect("it can be written");
    let model = load(ModelSource::Gguf(path)).expect("it loads");
    let encode = |text: &str| model.tokenizer.encode(text, SpecialTokens::Add).expect("it encodes");
    let names = |text: &str| -> Vec<String> { encode(text).into_iter().filter_map(|token| model.tokenizer.name(token)).collect() };
    assert_eq!(names("ab abc"), ["<s>", "▁ab", "▁ab", "c"], "▁ab has a better score than bc");
    assert_eq!(names("é"), ["<s>", "▁", "<0xC3>", "<0xA9>"]);
    for text in ["ab abc", "é x\n", "cab"] {
        let bytes: Vec<u8> = encode(text).into_iter().flat_map(|token| model.tokenizer.bytes(token).to_vec()).collect();
        assert_eq!(String::from_utf8_lossy(&bytes), format!(" {text}"), "with the space that the vocabulary prefixes");
    }
}

#[test]
fn sharded_and_single_safetensors_are_the_same_model() {
    let tiny = TinyModel { tied: false, ..TinyModel::default() };
    let directory = tempfile::tempdir().expect("a temporary directory");
    write_directory(&tiny, directory.path());
    let single = load(ModelSource::Directory(directory.path().to_owned())).expect("the single file loads");
    std::fs::remove_file(directory.path().join("model.safetensors")).expect("it was there");
    let mut tensors = tiny.tensors();
    let second = tensors.split_off(tensors.len() / 2);
    let mut map = serde_json::Map::new();
    for (name, part) in [("a.safetensors", &tensors), ("b.safetensors", &second)] {
        std::fs::write(directory.path().join(name), safetensors(part)).expect("it can be written");
        map.extend(part.iter().map(|tensor| (tensor.name.clone(), name.into())));
    }
    let index = serde_json::json!({ "weight_map": map }).to_string();
    std::fs::write(directory.path().join("model.safetensors.index.json"), index).expect("it can be written");
    let sharded = load(ModelSource::Directory(directory.path().to_owned())).expect("the shards load");
    assert_eq!(logits(&single, &[3, 50, 9]), logits(&sharded, &[3, 50, 9]));
}

#[test]
fn a_prompt_in_chunks_or_at_once_gives_the_same_bytes() {
    let model = load(ModelSource::Embedded(embedded(&TinyModel::default()))).expect("the tiny model loads");
    let tokens: Vec<u32> = (0..70).map(|i| 3 + (i * 11) % 256).collect();
    let whole = logits(&model, &tokens);
    let mut pool = KvPool::new(&model.decoder.parameters, 1 << 20);
    let mut cache = KvCache::default();
    let mut last = Vec::new();
    for chunk in [&tokens[..1], &tokens[1..20], &tokens[20..69], &tokens[69..]] {
        last = logits_after(&model, &mut cache, &mut pool, chunk);
    }
    assert_eq!(whole, last);
    // Beside rows of another sequence, too.
    let (mut one, mut two) = (KvCache::default(), KvCache::default());
    assert!(pool.grow(&mut one, 70) && pool.grow(&mut two, 70));
    let row = |cache, (position, token): (usize, &u32)| {
        let wants = if position == 69 { Wants::Logits } else { Wants::State };
        Row { token: *token, position, cache, wants }
    };
    let mut rows: Vec<Row> = tokens.iter().enumerate().map(|pair| row(0, pair)).collect();
    rows.extend(tokens.iter().rev().enumerate().map(|pair| row(1, pair)));
    let both = model.decoder.forward(&rows, &mut [&mut one, &mut two]);
    assert_eq!(whole, both.logits[..VOCABULARY]);
}
