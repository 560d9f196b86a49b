//! Models in Hugging Face format: config.json, safetensors, tokenizer.json and their companions.
//!
//! Source of the fields: the published configuration files of Llama, Mistral and Qwen2 models
//! and the documentation of the transformers library.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::OnceLock;

use serde::Deserialize;
use serde_json::Value;
use sublet_core::Result;
use sublet_core::engine::Pooling;

use super::assemble::{Biases, Options, Tensors};
use super::bytes::{ByteSource, invalid};
use super::safetensors::Safetensors;
use super::{EmbeddedFiles, LoadedModel};
use crate::architecture::{CONTEXT_MAX, Hyperparameters, Rope, RopeLayout, RopeScaling};
use crate::pooling::{PoolingFile, VectorSettings, shortening};
use crate::template::ChatTemplate;
use crate::tokenizer::ModelTokenizer;

/// Weight files one index may name.
const SHARDS_MAX: usize = 1_000;
const CONFIG: &str = "config.json";
const TOKENIZER: &str = "tokenizer.json";

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    architectures: Vec<String>,
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    intermediate_size: usize,
    vocab_size: usize,
    max_position_embeddings: usize,
    rms_norm_eps: f32,
    rope_theta: Option<f64>,
    rope_scaling: Option<Value>,
    rope_parameters: Option<Value>,
    partial_rotary_factor: Option<f64>,
    hidden_act: Option<String>,
    #[serde(default)]
    tie_word_embeddings: bool,
    attention_bias: Option<bool>,
    #[serde(default)]
    mlp_bias: bool,
    sliding_window: Option<usize>,
    use_sliding_window: Option<bool>,
    quantization_config: Option<Value>,
    eos_token_id: Option<Value>,
    #[serde(default)]
    is_matryoshka: bool,
    #[serde(default)]
    matryoshka_dimensions: Vec<u32>,
}

#[derive(Deserialize)]
struct RopeFields {
    rope_type: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    rope_theta: Option<f64>,
    factor: Option<f64>,
    low_freq_factor: Option<f64>,
    high_freq_factor: Option<f64>,
    original_max_position_embeddings: Option<f64>,
}

/// The files of one model, opened.
struct Files {
    config: ByteSource,
    weights: Vec<ByteSource>,
    tokenizer: ByteSource,
    tokenizer_config: Option<ByteSource>,
    generation_config: Option<ByteSource>,
    template: Option<ByteSource>,
    pooling: PoolingSource,
}

/// Where it is said how vectors are made.
enum PoolingSource {
    Unsaid,
    File(ByteSource),
    /// In a way that this engine does not read.
    Unknown,
}

impl PoolingSource {
    /// In the layout of the sentence-transformers library: its steps are numbered folders.
    fn of(directory: &Path) -> Result<Self> {
        let file = directory.join("1_Pooling").join(CONFIG);
        if directory.join("2_Dense").exists() {
            return Ok(Self::Unknown);
        }
        if file.exists() { ByteSource::open(&file).map(Self::File) } else { Ok(Self::Unsaid) }
    }
}

pub fn load_directory(directory: &Path) -> Result<LoadedModel> {
    let optional = |name: &str| optional(directory, name);
    load_files(Files {
        config: ByteSource::open(&directory.join(CONFIG))?,
        weights: weight_files(directory)?,
        tokenizer: ByteSource::open(&directory.join(TOKENIZER))?,
        tokenizer_config: optional("tokenizer_config.json")?,
        generation_config: optional("generation_config.json")?,
        template: optional("chat_template.jinja")?,
        pooling: PoolingSource::of(directory)?,
    })
}

fn optional(directory: &Path, name: &str) -> Result<Option<ByteSource>> {
    let path = directory.join(name);
    if path.exists() { ByteSource::open(&path).map(Some) } else { Ok(None) }
}

pub fn load_embedded(files: EmbeddedFiles) -> Result<LoadedModel> {
    load_files(Files {
        config: ByteSource::memory(CONFIG, files.config),
        weights: vec![ByteSource::memory("model.safetensors", files.weights)],
        tokenizer: ByteSource::memory(TOKENIZER, files.tokenizer),
        tokenizer_config: files.tokenizer_config.map(|bytes| ByteSource::memory("tokenizer_config.json", bytes)),
        generation_config: files.generation_config.map(|bytes| ByteSource::memory("generation_config.json", bytes)),
        template: None,
        pooling: PoolingSource::Unsaid,
    })
}

/// The single weight file, or all that the index names.
fn weight_files(directory: &Path) -> Result<Vec<ByteSource>> {
    let index_path = directory.join("model.safetensors.index.json");
    if !index_path.exists() {
        return Ok(vec![ByteSource::open(&directory.join("model.safetensors"))?]);
    }
    let source = ByteSource::open(&index_path)?;
    let index: Value = parse(&source)?;
    let map = index.get("weight_map").and_then(Value::as_object);
    let map = map.ok_or_else(|| invalid(source.name(), "has no weight_map"))?;
    let names: BTreeSet<&str> = map.values().filter_map(Value::as_str).collect();
    if names.is_empty() || names.len() > SHARDS_MAX {
        return Err(invalid(source.name(), format!("names {} weight files; 1 to {SHARDS_MAX} work", names.len())));
    }
    names
        .into_iter()
        .map(|name| {
            // A name with a separator could point outside the directory.
            if name.contains(['/', '\\']) || name.starts_with('.') {
                return Err(invalid(source.name(), "names a weight file outside its directory"));
            }
            ByteSource::open(&directory.join(name))
        })
        .collect()
}

/// The tokenizer and the chat template of a model, without its weights.
pub fn load_tokenizer(directory: &Path) -> Result<(ModelTokenizer, Option<ChatTemplate>)> {
    let config = optional(directory, "tokenizer_config.json")?;
    let config: Value = config.as_ref().map_or(Ok(Value::Null), parse)?;
    let template = template(optional(directory, "chat_template.jinja")?.as_ref(), &config)?;
    Ok((tokenizer(&ByteSource::open(&directory.join(TOKENIZER))?)?, template))
}

fn tokenizer(source: &ByteSource) -> Result<ModelTokenizer> {
    ModelTokenizer::from_json(source.text()?.as_bytes()).map_err(|problem| invalid(source.name(), problem))
}

/// The template in a file of its own, else the one of tokenizer_config.json.
fn template(file: Option<&ByteSource>, tokenizer_config: &Value) -> Result<Option<ChatTemplate>> {
    let (name, text) = match (file, template_text(tokenizer_config)) {
        (Some(source), _) => (source.name(), source.text()?),
        (None, Some(text)) => ("tokenizer_config.json", text),
        (None, None) => return Ok(None),
    };
    let special = |key: &str| special_token(tokenizer_config, key);
    let made = ChatTemplate::new(text, special("bos_token"), special("eos_token"));
    made.map(Some).map_err(|problem| invalid(name, format!("chat template: {problem}")))
}

fn parse<T: serde::de::DeserializeOwned>(source: &ByteSource) -> Result<T> {
    serde_json::from_str(&source.text()?).map_err(|error| invalid(source.name(), error))
}

fn load_files(files: Files) -> Result<LoadedModel> {
    let config: Config = parse(&files.config)?;
    let (parameters, biases) = hyperparameters(&config)?;
    let tokenizer_config: Value = files.tokenizer_config.as_ref().map_or(Ok(Value::Null), parse)?;
    let generation_config: Value = files.generation_config.as_ref().map_or(Ok(Value::Null), parse)?;
    let tokenizer = tokenizer(&files.tokenizer)?;
    let template = template(files.template.as_ref(), &tokenizer_config)?;
    let mut end_tokens = end_tokens(&config, &generation_config);
    if end_tokens.is_empty() {
        end_tokens.extend(special_token(&tokenizer_config, "eos_token").and_then(|token| tokenizer.token_id(&token)));
    }
    let weights: Result<Vec<_>> = files.weights.into_iter().map(Safetensors::open).collect();
    let tensors = Tensors::Safetensors(weights?);
    // A tied head may still be stored; either way it is the same matrix.
    let options = Options { tied_head: config.tie_word_embeddings, biases };
    let decoder = tensors.assemble(parameters, options)?;
    let pooling = match &files.pooling {
        PoolingSource::Unsaid => Some(Pooling::Mean),
        PoolingSource::File(source) => parse::<PoolingFile>(source)?.pooling(),
        PoolingSource::Unknown => None,
    };
    let shortening = shortening(config.is_matryoshka, &config.matryoshka_dimensions, decoder.parameters.hidden);
    let vectors = VectorSettings { pooling, shortening };
    LoadedModel { decoder, tokenizer, template, end_tokens, vectors, rules: OnceLock::new() }
        .check_vocabulary(files.tokenizer.name())
}

fn hyperparameters(config: &Config) -> Result<(Hyperparameters, Biases)> {
    let refuse = |problem: String| invalid(CONFIG, problem);
    let architecture = config.architectures.first().map_or("", String::as_str);
    let biases = match architecture {
        "LlamaForCausalLM" | "MistralForCausalLM" if config.attention_bias == Some(true) => Biases::Attention,
        "LlamaForCausalLM" | "MistralForCausalLM" => Biases::None,
        "Qwen2ForCausalLM" => Biases::QueryKeyValue,
        other => {
            let shown: String = other.chars().take(60).collect();
            return Err(refuse(format!(
                "the architecture '{shown}' is not one this engine runs; LlamaForCausalLM, MistralForCausalLM and Qwen2ForCausalLM work"
            )));
        }
    };
    if config.hidden_act.as_deref().is_some_and(|act| act != "silu") {
        return Err(refuse("hidden_act is not silu".to_owned()));
    }
    if config.mlp_bias {
        return Err(refuse("mlp_bias is not supported".to_owned()));
    }
    if config.partial_rotary_factor.is_some_and(|factor| factor != 1.0) {
        return Err(refuse("partial_rotary_factor is not supported".to_owned()));
    }
    if config.quantization_config.is_some() {
        return Err(refuse("quantized safetensors are not supported; GGUF works for quantized weights".to_owned()));
    }
    let head_width = match config.head_dim {
        Some(width) => width,
        None => config.hidden_size.checked_div(config.num_attention_heads).unwrap_or(0),
    };
    if head_width > config.hidden_size {
        return Err(refuse(format!("head_dim {head_width} is larger than hidden_size")));
    }
    // Within the window attention is full, so a model with a sliding window is served up to it.
    let window = config.sliding_window.filter(|_| config.use_sliding_window.unwrap_or(true));
    let context = config.max_position_embeddings.min(window.unwrap_or(usize::MAX)).min(CONTEXT_MAX);
    let (theta, scaling) = rope(config)?;
    let parameters = Hyperparameters {
        hidden: config.hidden_size,
        layers: config.num_hidden_layers,
        heads: config.num_attention_heads,
        kv_heads: config.num_key_value_heads.unwrap_or(config.num_attention_heads),
        head_width,
        intermediate: config.intermediate_size,
        vocabulary: config.vocab_size,
        context,
        norm_epsilon: config.rms_norm_eps,
        rope: Rope { layout: RopeLayout::Halves, frequencies: Vec::new() },
    };
    parameters.check().map_err(refuse)?;
    let parameters = Hyperparameters { rope: Rope::new(RopeLayout::Halves, head_width, theta, &scaling), ..parameters };
    parameters.check().map_err(refuse)?;
    Ok((parameters, biases))
}

fn rope(config: &Config) -> Result<(f64, RopeScaling)> {
    let theta = config.rope_theta.unwrap_or(10_000.0);
    let Some(value) = config.rope_parameters.as_ref().or(config.rope_scaling.as_ref()) else {
        return Ok((theta, RopeScaling::None));
    };
    let fields: RopeFields =
        serde_json::from_value(value.clone()).map_err(|error| invalid(CONFIG, format!("rope settings: {error}")))?;
    let need = |field: Option<f64>, name: &str| {
        field
            .filter(|value| *value > 0.0)
            .ok_or_else(|| invalid(CONFIG, format!("rope settings: {name} is missing or not positive")))
    };
    let scaling = match fields.rope_type.as_deref().or(fields.kind.as_deref()).unwrap_or("default") {
        "default" => RopeScaling::None,
        "linear" => RopeScaling::Linear { factor: need(fields.factor, "factor")? },
        "llama3" => RopeScaling::Llama3 {
            factor: need(fields.factor, "factor")?,
            low_frequency_factor: need(fields.low_freq_factor, "low_freq_factor")?,
            high_frequency_factor: need(fields.high_freq_factor, "high_freq_factor")?,
            original_context: need(fields.original_max_position_embeddings, "original_max_position_embeddings")?,
        },
        other => {
            let shown: String = other.chars().take(40).collect();
            return Err(invalid(CONFIG, format!("rope type '{shown}' is not supported; default, linear and llama3 work")));
        }
    };
    Ok((fields.rope_theta.unwrap_or(theta), scaling))
}

/// The tokens of generation_config.json, else those of config.json.
fn end_tokens(config: &Config, generation: &Value) -> Vec<u32> {
    let ids = |value: &Value| -> Vec<u32> {
        let one = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
        value.as_array().map_or_else(|| one(value).into_iter().collect(), |list| list.iter().filter_map(one).collect())
    };
    let generated = generation.get("eos_token_id").map(ids).unwrap_or_default();
    if generated.is_empty() { config.eos_token_id.as_ref().map(ids).unwrap_or_default() } else { generated }
}

/// A string, or the entry named `default` of a list of named templates.
fn template_text(tokenizer_config: &Value) -> Option<String> {
    let value = tokenizer_config.get("chat_template")?;
    if let Some(text) = value.as_str() {
        return Some(text.to_owned());
    }
    let named = value.as_array()?;
    let default = named.iter().find(|entry| entry.get("name").and_then(Value::as_str) == Some("default"));
    default.or(named.first())?.get("template")?.as_str().map(ToOwned::to_owned)
}

/// A token given as a string or as an object with its content.
fn special_token(tokenizer_config: &Value, key: &str) -> Option<String> {
    let value = tokenizer_config.get(key)?;
    value.as_str().or_else(|| value.get("content")?.as_str()).map(ToOwned::to_owned)
}
