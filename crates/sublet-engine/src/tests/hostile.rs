//! Files that are damaged, lie, or are of another kind: an error that names the file, no panic.

use std::path::Path;

use serde_json::{Value, json};
use sublet_core::ErrorCode;

use crate::load::{ModelSource, load};
use crate::test_model::{GgufKind, Noise, TinyModel, gguf, safetensors, sentence_piece_gguf, tokenizer_json, write_directory};

/// Mutations tried per kind of file.
const MUTATIONS: usize = 300;

fn tiny() -> TinyModel {
    TinyModel { hidden: 32, layers: 1, heads: 2, kv_heads: 1, intermediate: 32, ..TinyModel::default() }
}

/// Loads and, if that works, computes: a loaded model must be able to run.
fn outcome(source: ModelSource) -> Result<(), (ErrorCode, String)> {
    let model = load(source).map_err(|error| (error.code(), error.message().to_owned()))?;
    let mut pool = crate::kv::KvPool::new(&model.decoder.parameters, 1 << 16);
    let vocabulary = model.decoder.parameters.vocabulary as u32;
    let tokens = [0, 1, vocabulary - 1];
    let logits = super::reference::logits_after(&model, &mut crate::kv::KvCache::default(), &mut pool, &tokens);
    assert_eq!(logits.len(), vocabulary as usize);
    Ok(())
}

fn refused(directory: &Path, file: &str) -> String {
    let (code, message) = outcome(ModelSource::from_path(directory).expect("it looks like a model")).expect_err("it is refused");
    assert_eq!(code, ErrorCode::ModelFileInvalid);
    assert!(message.contains(file), "{message} names {file}");
    message
}

fn directory() -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a temporary directory");
    write_directory(&tiny(), directory.path());
    directory
}

fn edit_config(directory: &Path, change: impl FnOnce(&mut Value)) {
    let mut config = tiny().config();
    change(&mut config);
    std::fs::write(directory.join("config.json"), config.to_string()).expect("it can be written");
}

#[test]
fn missing_files_are_named() {
    for file in ["model.safetensors", "tokenizer.json"] {
        let directory = directory();
        std::fs::remove_file(directory.path().join(file)).expect("it was there");
        assert!(refused(directory.path(), file).contains("cannot be opened"));
    }
    let empty = tempfile::tempdir().expect("a temporary directory");
    assert!(ModelSource::from_path(empty.path()).is_err_and(|error| error.message().contains("config.json")));
    assert!(ModelSource::from_path(&empty.path().join("nothing")).is_err_and(|error| error.message().contains("does not exist")));
}

#[test]
fn settings_that_cannot_be_served_are_refused() {
    type Change = fn(&mut Value);
    let changes: [(&str, Change); 14] = [
        ("GPT2LMHeadModel", |c| c["architectures"] = json!(["GPT2LMHeadModel"])),
        ("architecture", |c| c["architectures"] = json!([])),
        ("hidden_act", |c| c["hidden_act"] = json!("gelu")),
        ("hidden size", |c| c["hidden_size"] = json!(1_u64 << 60)),
        ("hidden size", |c| c["hidden_size"] = json!(0)),
        ("layers", |c| c["num_hidden_layers"] = json!(4_000_000_000_u64)),
        ("heads", |c| c["num_attention_heads"] = json!(0)),
        ("share", |c| c["num_key_value_heads"] = json!(3)),
        ("shape", |c| c["intermediate_size"] = json!(64)),
        ("model.layers.1", |c| c["num_hidden_layers"] = json!(2)),
        ("yarn", |c| c["rope_scaling"] = json!({"rope_type": "yarn", "factor": 4.0})),
        ("factor", |c| c["rope_scaling"] = json!({"rope_type": "llama3"})),
        ("GGUF", |c| c["quantization_config"] = json!({"quant_method": "gptq"})),
        ("vocabulary", |c| c["vocab_size"] = json!(5_000_000)),
    ];
    for (hint, change) in changes {
        let directory = directory();
        edit_config(directory.path(), change);
        let message = refused(directory.path(), "");
        assert!(message.contains(hint), "'{message}' says {hint}");
    }
}

#[test]
fn supported_settings_load() {
    type Change = fn(&mut Value);
    let changes: [Change; 4] = [
        |c| c["rope_scaling"] = json!({"type": "linear", "factor": 2.0}),
        |c| {
            c["rope_parameters"] = json!({
                "rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0,
                "high_freq_factor": 4.0, "original_max_position_embeddings": 64
            });
        },
        |c| c["sliding_window"] = json!(32),
        |c| c["max_position_embeddings"] = json!(1_u64 << 50),
    ];
    for change in changes {
        let directory = directory();
        edit_config(directory.path(), change);
        assert_eq!(outcome(ModelSource::Directory(directory.path().to_owned())), Ok(()));
    }
}

#[test]
fn a_weight_file_that_lies_is_refused_before_anything_is_allocated() {
    let header = |text: &str| [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat();
    let embedding = |dtype: &str, shape: &str, offsets: &str| {
        header(&format!(r#"{{"model.embed_tokens.weight":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}}}"#))
    };
    for (bytes, hint) in [
        (vec![], "truncated"),
        (vec![1, 2, 3], "truncated"),
        (u64::MAX.to_le_bytes().to_vec(), "header length"),
        (1_000_000_u64.to_le_bytes().to_vec(), "truncated"),
        (header("not json"), "JSON"),
        (header("{}"), "no tensor"),
        (embedding("F32", "[259,32]", "[0,33152]"), "truncated"),
        (embedding("F32", "[259,32]", "[0,10]"), "offsets"),
        (embedding("F32", "[259,32]", "[33152,0]"), "offsets"),
        (embedding("F32", "[259,32]", "[18446744073709551000,18446744073709584152]"), "described wrongly"),
        (embedding("F32", "[259,32]", "[18446744073709518463,18446744073709551615]"), "truncated"),
        (embedding("F32", "[1000000000000,1000000000000]", "[0,10]"), "shape"),
        (embedding("I64", "[259,32]", "[0,66304]"), "type I64"),
    ] {
        let directory = directory();
        std::fs::write(directory.path().join("model.safetensors"), bytes).expect("it can be written");
        let message = refused(directory.path(), "model.safetensors");
        assert!(message.contains(hint), "'{message}' says {hint}");
    }
}

#[test]
fn an_index_cannot_point_outside_its_directory() {
    for name in ["../outside.safetensors", "/etc/passwd", "..", "a/b.safetensors"] {
        let directory = directory();
        let index = json!({"weight_map": {"model.norm.weight": name}}).to_string();
        std::fs::write(directory.path().join("model.safetensors.index.json"), index).expect("it can be written");
        assert!(refused(directory.path(), "model.safetensors.index.json").contains("outside"));
    }
}

#[test]
fn norms_that_are_not_finite_are_refused() {
    let directory = directory();
    let mut tensors = tiny().tensors();
    tensors.iter_mut().find(|tensor| tensor.name == "model.norm.weight").expect("it has one").values[3] = f32::NAN;
    std::fs::write(directory.path().join("model.safetensors"), safetensors(&tensors)).expect("it can be written");
    assert!(refused(directory.path(), "model.safetensors").contains("not finite"));
}

/// Changes, cuts or repeats a few bytes.
fn mutate(bytes: &[u8], noise: &mut Noise) -> Vec<u8> {
    let mut mutated = bytes.to_vec();
    let pick = |noise: &mut Noise, most: usize| (noise.bits() % most.max(1) as u64) as usize;
    match noise.bits() % 4 {
        0 => mutated.truncate(pick(noise, bytes.len())),
        1 => {
            let at = pick(noise, bytes.len());
            let end = (at + pick(noise, 16)).min(mutated.len());
            mutated.drain(at..end);
        }
        _ => {
            for _ in 0..=pick(noise, 8) {
                // Headers are where lies do harm: half of the changes go to the beginning.
                let span = if noise.bits().is_multiple_of(2) { bytes.len().min(512) } else { bytes.len() };
                let at = pick(noise, span);
                mutated[at] = match noise.bits() % 3 {
                    0 => 0xff,
                    1 => 0,
                    _ => noise.bits() as u8,
                };
            }
        }
    }
    mutated
}

#[test]
fn mutated_files_give_errors_or_models_but_never_a_panic() {
    let directory = directory();
    let mut noise = Noise(0x5eed);
    for file in ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
        let path = directory.path().join(file);
        let good = std::fs::read(&path).expect("it is there");
        for _ in 0..MUTATIONS {
            std::fs::write(&path, mutate(&good, &mut noise)).expect("it can be written");
            if let Err((code, message)) = outcome(ModelSource::Directory(directory.path().to_owned())) {
                assert_eq!(code, ErrorCode::ModelFileInvalid, "{message}");
            }
        }
        std::fs::write(&path, good).expect("it can be written");
    }
    let path = directory.path().join("model.gguf");
    for good in [gguf(&tiny(), GgufKind::F32), gguf(&tiny(), GgufKind::Q8_0), sentence_piece_gguf(&tiny())] {
        // The header is small beside the weights, so it is mutated alone as well.
        for _ in 0..MUTATIONS {
            std::fs::write(&path, mutate(&good, &mut noise)).expect("it can be written");
            if let Err((code, message)) = outcome(ModelSource::Gguf(path.clone())) {
                assert_eq!(code, ErrorCode::ModelFileInvalid, "{message}");
            }
        }
    }
}

#[test]
fn a_truncated_gguf_file_is_refused_at_every_length() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("model.gguf");
    let good = gguf(&tiny(), GgufKind::Q8_0);
    let mut length = 0;
    while length < good.len() - 32 {
        std::fs::write(&path, &good[..length]).expect("it can be written");
        let refused = outcome(ModelSource::Gguf(path.clone())).expect_err("it is refused");
        assert!(refused.1.contains("model.gguf"), "{}", refused.1);
        length += 977;
    }
}

#[test]
fn a_tokenizer_that_adds_tokens_which_it_has_not_is_refused() {
    type Change = fn(&mut Value);
    let changes: [(&str, Change); 2] = [
        ("contradicts itself", |added| *added = json!({"<w>": added["<s>"]})),
        ("token 9999", |added| added["<s>"]["ids"] = json!([9_999])),
    ];
    for (hint, change) in changes {
        let directory = directory();
        let mut tokenizer = tokenizer_json();
        change(&mut tokenizer["post_processor"]["special_tokens"]);
        std::fs::write(directory.path().join("tokenizer.json"), tokenizer.to_string()).expect("it can be written");
        let message = refused(directory.path(), "tokenizer.json");
        assert!(message.contains(hint), "{message}");
    }
}

#[test]
fn a_tokenizer_beyond_the_vocabulary_is_refused() {
    let directory = directory();
    let mut tokenizer = tokenizer_json();
    tokenizer["model"]["vocab"]["zzz"] = json!(900);
    std::fs::write(directory.path().join("tokenizer.json"), tokenizer.to_string()).expect("it can be written");
    assert!(refused(directory.path(), "tokenizer.json").contains("vocabulary"));
}
