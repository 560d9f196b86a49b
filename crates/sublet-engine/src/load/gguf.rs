//! Models in one GGUF file.
//!
//! Source of the format: the GGUF specification in the ggml project's documentation
//! (versions 2 and 3, little-endian).
//!
//! Invariants: as for every file here, a length is compared with the file's before it is used.

use std::collections::HashMap;
use std::path::Path;
use std::sync::OnceLock;

use sublet_core::Result;
use sublet_core::engine::Pooling;

use super::LoadedModel;
use super::assemble::{Biases, Options, Tensors};
use super::bytes::{ByteSource, invalid};
use super::gguf_tokenizer;
use crate::architecture::{CONTEXT_MAX, Hyperparameters, Rope, RopeLayout, RopeScaling};
use crate::matrix::Storage;
use crate::pooling::VectorSettings;
use crate::quant::BlockFormat;
use crate::template::ChatTemplate;
use crate::tokenizer::ModelTokenizer;

const ENTRIES_MAX: u64 = 1 << 20;
/// Elements in one metadata array: the largest are vocabularies and merges.
const ARRAY_MAX: u64 = 1 << 22;
const STRING_BYTES_MAX: u64 = 1 << 20;
const DIMENSIONS_MAX: u32 = 4;
/// Bytes of the header read at a time.
const WINDOW_BYTES: u64 = 1 << 20;
const ALIGNMENT_DEFAULT: u64 = 32;

/// A metadata value; widths are unified, arrays of other kinds are skipped.
#[derive(Clone, PartialEq, Debug)]
pub enum Metadata {
    Integer(i128),
    Float(f64),
    Bool(bool),
    Text(String),
    Texts(Vec<String>),
    Floats(Vec<f32>),
    Integers(Vec<i64>),
}

/// The metadata by key, and the file's name for errors.
pub struct GgufMetadata {
    pub file: String,
    values: HashMap<String, Metadata>,
}

impl GgufMetadata {
    pub fn get(&self, key: &str) -> Option<&Metadata> {
        self.values.get(key)
    }

    pub fn text(&self, key: &str) -> Option<&str> {
        match self.get(key) {
            Some(Metadata::Text(text)) => Some(text),
            _ => None,
        }
    }

    pub fn bool(&self, key: &str) -> Option<bool> {
        match self.get(key) {
            Some(Metadata::Bool(value)) => Some(*value),
            _ => None,
        }
    }

    pub fn index(&self, key: &str) -> Option<usize> {
        match self.get(key) {
            Some(Metadata::Integer(value)) => usize::try_from(*value).ok(),
            _ => None,
        }
    }

    fn float(&self, key: &str) -> Option<f64> {
        match self.get(key) {
            Some(Metadata::Float(value)) => Some(*value),
            _ => None,
        }
    }

    fn need(&self, key: &str) -> Result<usize> {
        self.index(key).ok_or_else(|| invalid(&self.file, format!("has no whole number {key}")))
    }
}

struct TensorEntry {
    /// As the file has it: the fastest dimension first.
    dimensions: Vec<u64>,
    kind: u32,
    offset: u64,
}

/// A file's tensors by name.
pub struct GgufTensors {
    source: ByteSource,
    tensors: HashMap<String, TensorEntry>,
    data_start: u64,
}

impl GgufTensors {
    pub fn file(&self) -> &str {
        self.source.name()
    }

    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Reads a tensor, `None` if there is none of this name.
    pub fn read(&self, name: &str, shape: &[usize]) -> Result<Option<Storage>> {
        let Some(entry) = self.tensors.get(name) else { return Ok(None) };
        if !entry.dimensions.iter().rev().copied().eq(shape.iter().map(|size| *size as u64)) {
            let problem = format!("tensor {name} has dimensions {:?}, the metadata ask for {shape:?} reversed", entry.dimensions);
            return Err(invalid(self.file(), problem));
        }
        let Some(kind) = Kind::from_code(entry.kind) else {
            let problem = format!(
                "tensor {name} has type number {}; F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0 and Q2_K to Q6_K work",
                entry.kind
            );
            return Err(invalid(self.file(), problem));
        };
        let columns = entry.dimensions.first().copied().unwrap_or(1);
        let rows = entry.dimensions.iter().skip(1).try_fold(1_u64, |product, size| product.checked_mul(*size));
        let (weights, bytes) = kind.block();
        if !columns.is_multiple_of(weights) {
            return Err(invalid(self.file(), format!("tensor {name} has rows of {columns}, not a multiple of {weights}")));
        }
        let length = rows.and_then(|rows| rows.checked_mul(columns / weights)).and_then(|blocks| blocks.checked_mul(bytes));
        let (Some(length), Some(offset)) = (length, self.data_start.checked_add(entry.offset)) else {
            return Err(invalid(self.file(), format!("tensor {name} has impossible dimensions")));
        };
        Ok(Some(kind.storage(self.source.read(offset, length)?)))
    }
}

/// How a tensor is stored.
#[derive(Clone, Copy)]
enum Kind {
    F32,
    F16,
    Bf16,
    Blocks(BlockFormat),
}

impl Kind {
    /// The type numbers of the specification.
    fn from_code(code: u32) -> Option<Self> {
        Some(match code {
            0 => Self::F32,
            1 => Self::F16,
            2 => Self::Blocks(BlockFormat::Q4_0),
            3 => Self::Blocks(BlockFormat::Q4_1),
            6 => Self::Blocks(BlockFormat::Q5_0),
            7 => Self::Blocks(BlockFormat::Q5_1),
            8 => Self::Blocks(BlockFormat::Q8_0),
            10 => Self::Blocks(BlockFormat::Q2K),
            11 => Self::Blocks(BlockFormat::Q3K),
            12 => Self::Blocks(BlockFormat::Q4K),
            13 => Self::Blocks(BlockFormat::Q5K),
            14 => Self::Blocks(BlockFormat::Q6K),
            30 => Self::Bf16,
            _ => return None,
        })
    }

    /// Weights and bytes of one block.
    fn block(self) -> (u64, u64) {
        match self {
            Self::F32 => (1, 4),
            Self::F16 | Self::Bf16 => (1, 2),
            Self::Blocks(format) => (format.weights() as u64, format.bytes() as u64),
        }
    }

    fn storage(self, bytes: Vec<u8>) -> Storage {
        let halves = |bytes: &[u8]| bytes.as_chunks().0.iter().map(|chunk| u16::from_le_bytes(*chunk)).collect();
        match self {
            Self::F32 => Storage::F32(bytes.as_chunks().0.iter().map(|chunk| f32::from_le_bytes(*chunk)).collect()),
            Self::F16 => Storage::F16(halves(&bytes)),
            Self::Bf16 => Storage::Bf16(halves(&bytes)),
            Self::Blocks(format) => Storage::Blocks(format, bytes),
        }
    }
}

/// Reads the header from front to back.
struct Cursor<'a> {
    source: &'a ByteSource,
    offset: u64,
    window: Vec<u8>,
    window_start: u64,
}

impl Cursor<'_> {
    fn take(&mut self, length: u64) -> Result<&[u8]> {
        let inside = self.offset >= self.window_start && self.offset + length <= self.window_start + self.window.len() as u64;
        if !inside {
            let left = self.source.length().saturating_sub(self.offset);
            self.window = self.source.read(self.offset, length.max(WINDOW_BYTES.min(left)))?;
            self.window_start = self.offset;
        }
        let start = (self.offset - self.window_start) as usize;
        self.offset += length;
        Ok(&self.window[start..start + length as usize])
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        Ok(self.take(N as u64)?.try_into().expect("as many bytes as were taken"))
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn bounded(&mut self, what: &str, most: u64) -> Result<u64> {
        let count = self.u64()?;
        if count > most {
            return Err(invalid(self.source.name(), format!("claims {count} {what}; at most {most} work")));
        }
        Ok(count)
    }

    fn string(&mut self) -> Result<String> {
        let length = self.bounded("bytes in one string", STRING_BYTES_MAX)?;
        Ok(String::from_utf8_lossy(self.take(length)?).into_owned())
    }

    fn value(&mut self, kind: u32) -> Result<Metadata> {
        Ok(match kind {
            0 => Metadata::Integer(u8::from_le_bytes(self.array()?).into()),
            1 => Metadata::Integer(i8::from_le_bytes(self.array()?).into()),
            2 => Metadata::Integer(u16::from_le_bytes(self.array()?).into()),
            3 => Metadata::Integer(i16::from_le_bytes(self.array()?).into()),
            4 => Metadata::Integer(self.u32()?.into()),
            5 => Metadata::Integer(i32::from_le_bytes(self.array()?).into()),
            6 => Metadata::Float(f32::from_le_bytes(self.array()?).into()),
            7 => Metadata::Bool(self.array::<1>()? != [0]),
            8 => Metadata::Text(self.string()?),
            9 => self.list()?,
            10 => Metadata::Integer(self.u64()?.into()),
            11 => Metadata::Integer(i64::from_le_bytes(self.array()?).into()),
            12 => Metadata::Float(f64::from_le_bytes(self.array()?)),
            other => return Err(invalid(self.source.name(), format!("has metadata of unknown type {other}"))),
        })
    }

    fn list(&mut self) -> Result<Metadata> {
        let kind = self.u32()?;
        let count = self.bounded("elements in one array", ARRAY_MAX)?;
        if kind == 9 {
            return Err(invalid(self.source.name(), "has arrays of arrays"));
        }
        // Nothing is reserved ahead: a lying count meets the end of the file first.
        let (mut texts, mut floats, mut integers) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..count {
            match self.value(kind)? {
                Metadata::Text(text) => texts.push(text),
                Metadata::Float(value) => floats.push(value as f32),
                Metadata::Integer(value) => integers.push(value as i64),
                Metadata::Bool(value) => integers.push(i64::from(value)),
                Metadata::Texts(_) | Metadata::Floats(_) | Metadata::Integers(_) => {}
            }
        }
        Ok(match kind {
            8 => Metadata::Texts(texts),
            6 | 12 => Metadata::Floats(floats),
            _ => Metadata::Integers(integers),
        })
    }
}

/// Parses the header.
fn open(source: ByteSource) -> Result<(GgufMetadata, GgufTensors)> {
    let mut cursor = Cursor { source: &source, offset: 0, window: Vec::new(), window_start: 0 };
    if cursor.array::<4>()? != *b"GGUF" {
        return Err(invalid(source.name(), "is not a GGUF file"));
    }
    let version = cursor.u32()?;
    if version != 2 && version != 3 {
        return Err(invalid(source.name(), format!("is GGUF version {version}; little-endian versions 2 and 3 work")));
    }
    let tensor_count = cursor.bounded("tensors", ENTRIES_MAX)?;
    let value_count = cursor.bounded("metadata values", ENTRIES_MAX)?;
    let mut values = HashMap::new();
    for _ in 0..value_count {
        let key = cursor.string()?;
        let kind = cursor.u32()?;
        values.insert(key, cursor.value(kind)?);
    }
    let mut tensors = HashMap::new();
    for _ in 0..tensor_count {
        let name = cursor.string()?;
        let dimension_count = cursor.u32()?;
        if dimension_count > DIMENSIONS_MAX {
            return Err(invalid(
                source.name(),
                format!("a tensor has {dimension_count} dimensions; at most {DIMENSIONS_MAX} work"),
            ));
        }
        let dimensions: Result<Vec<u64>> = (0..dimension_count).map(|_| cursor.u64()).collect();
        let entry = TensorEntry { dimensions: dimensions?, kind: cursor.u32()?, offset: cursor.u64()? };
        tensors.insert(name, entry);
    }
    let metadata = GgufMetadata { file: source.name().to_owned(), values };
    let alignment = metadata.index("general.alignment").map_or(ALIGNMENT_DEFAULT, |alignment| alignment as u64);
    if alignment == 0 || alignment > WINDOW_BYTES {
        return Err(invalid(source.name(), format!("has an alignment of {alignment} bytes")));
    }
    let data_start = cursor.offset.next_multiple_of(alignment);
    Ok((metadata, GgufTensors { source, tensors, data_start }))
}

pub fn load_file(path: &Path) -> Result<LoadedModel> {
    let beside = path.with_file_name("tokenizer.json");
    let tokenizer = if beside.is_file() { Some(ByteSource::open(&beside)?) } else { None };
    load_source(ByteSource::open(path)?, tokenizer)
}

/// Loads a file with the tokenizer that lies beside it, if one does.
pub fn load_source(source: ByteSource, tokenizer: Option<ByteSource>) -> Result<LoadedModel> {
    let (metadata, tensors) = open(source)?;
    let (name, json) = match tokenizer {
        Some(source) => (source.name().to_owned(), source.text()?),
        None => (metadata.file.clone(), gguf_tokenizer::tokenizer_json(&metadata)?),
    };
    let tokenizer = ModelTokenizer::from_json(json.as_bytes()).map_err(|problem| invalid(&name, problem))?;
    let token_name = |key: &str| metadata.index(key).and_then(|id| tokenizer.name(u32::try_from(id).ok()?));
    let template = match metadata.text("tokenizer.chat_template") {
        Some(text) => {
            let (begin, end) = (token_name("tokenizer.ggml.bos_token_id"), token_name("tokenizer.ggml.eos_token_id"));
            let made = ChatTemplate::new(text.to_owned(), begin, end);
            Some(made.map_err(|problem| invalid(&metadata.file, format!("chat template: {problem}")))?)
        }
        None => None,
    };
    let end_tokens = ["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"]
        .into_iter()
        .filter_map(|key| u32::try_from(metadata.index(key)?).ok())
        .collect();
    let tensors = Tensors::Gguf(tensors);
    let parameters = hyperparameters(&metadata, &tensors)?;
    let options = Options { tied_head: !tensors.contains("output.weight"), biases: Biases::AsFound };
    let decoder = tensors.assemble(parameters, options)?;
    let vectors = vector_settings(&metadata);
    LoadedModel { decoder, tokenizer, template, end_tokens, vectors, rules: OnceLock::new() }.check_vocabulary(&name)
}

/// The kinds of pooling as llama.cpp numbers them in `{architecture}.pooling_type`: 0 says nothing, 1 is the mean,
/// 3 the last token; the others are for encoders and for ranking.
fn vector_settings(metadata: &GgufMetadata) -> VectorSettings {
    let architecture = metadata.text("general.architecture").unwrap_or_default();
    let pooling = match metadata.index(&format!("{architecture}.pooling_type")) {
        None | Some(0 | 1) => Some(Pooling::Mean),
        Some(3) => Some(Pooling::Last),
        Some(_) => None,
    };
    VectorSettings { pooling, ..VectorSettings::default() }
}

fn hyperparameters(metadata: &GgufMetadata, tensors: &Tensors) -> Result<Hyperparameters> {
    let refuse = |problem: String| invalid(&metadata.file, problem);
    let architecture = metadata.text("general.architecture").unwrap_or_default();
    let layout = match architecture {
        "llama" => RopeLayout::Pairs,
        "qwen2" => RopeLayout::Halves,
        other => {
            let shown: String = other.chars().take(60).collect();
            return Err(refuse(format!("the architecture '{shown}' is not one this engine runs; llama and qwen2 work")));
        }
    };
    let key = |name: &str| format!("{architecture}.{name}");
    if metadata.index(&key("expert_count")).is_some_and(|count| count > 0) {
        return Err(refuse("mixtures of experts are not supported".to_owned()));
    }
    let heads = metadata.need(&key("attention.head_count"))?;
    let hidden = metadata.need(&key("embedding_length"))?;
    let head_width = metadata.index(&key("attention.key_length")).unwrap_or(hidden.checked_div(heads).unwrap_or(0));
    if metadata.index(&key("rope.dimension_count")).is_some_and(|width| width != head_width) {
        return Err(refuse("rotary embedding of a part of each head is not supported".to_owned()));
    }
    let tokens = match metadata.get("tokenizer.ggml.tokens") {
        Some(Metadata::Texts(tokens)) => Some(tokens.len()),
        _ => None,
    };
    let vocabulary = tensors.rows("token_embd.weight").or(metadata.index(&key("vocab_size"))).or(tokens).unwrap_or(0);
    let parameters = Hyperparameters {
        hidden,
        layers: metadata.need(&key("block_count"))?,
        heads,
        kv_heads: metadata.index(&key("attention.head_count_kv")).unwrap_or(heads),
        head_width,
        intermediate: metadata.need(&key("feed_forward_length"))?,
        vocabulary,
        context: metadata.need(&key("context_length"))?.min(CONTEXT_MAX),
        norm_epsilon: metadata.float(&key("attention.layer_norm_rms_epsilon")).unwrap_or(1e-5) as f32,
        rope: Rope { layout, frequencies: Vec::new() },
    };
    parameters.check().map_err(refuse)?;
    let scaling = rope_scaling(metadata, architecture, tensors, head_width)?;
    let theta = metadata.float(&key("rope.freq_base")).unwrap_or(10_000.0);
    let parameters = Hyperparameters { rope: Rope::new(layout, head_width, theta, &scaling), ..parameters };
    parameters.check().map_err(refuse)?;
    Ok(parameters)
}

fn rope_scaling(metadata: &GgufMetadata, architecture: &str, tensors: &Tensors, head_width: usize) -> Result<RopeScaling> {
    if tensors.contains("rope_freqs.weight") {
        return Ok(RopeScaling::Divisors(tensors.vector("rope_freqs.weight", head_width / 2)?));
    }
    match metadata.text(&format!("{architecture}.rope.scaling.type")) {
        None | Some("none") => Ok(RopeScaling::None),
        Some("linear") => {
            let factor = metadata.float(&format!("{architecture}.rope.scaling.factor")).unwrap_or(1.0);
            Ok(RopeScaling::Linear { factor })
        }
        Some(other) => {
            let shown: String = other.chars().take(40).collect();
            Err(invalid(&metadata.file, format!("rope scaling '{shown}' is not supported; none and linear work")))
        }
    }
}

impl GgufTensors {
    /// Rows of a matrix, if there is one of this name.
    pub fn rows(&self, name: &str) -> Option<usize> {
        let entry = self.tensors.get(name)?;
        usize::try_from(*entry.dimensions.get(1)?).ok()
    }
}
