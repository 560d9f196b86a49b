//! Models that tests write themselves: random weights, a byte vocabulary.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::tokenizer::{ModelTokenizer, byte_table};

/// The sizes of a tiny model.
#[derive(Clone, Debug)]
pub struct TinyModel {
    pub hidden: usize,
    pub layers: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub intermediate: usize,
    pub context: usize,
    pub tied: bool,
    pub seed: u64,
}

impl Default for TinyModel {
    fn default() -> Self {
        Self { hidden: 64, layers: 2, heads: 4, kv_heads: 2, intermediate: 96, context: 256, tied: true, seed: 1 }
    }
}

/// Three special tokens and 256 bytes.
pub const VOCABULARY: usize = 259;
pub const END_TOKEN: u32 = 2;

/// A named tensor in f32.
pub struct Tensor {
    pub name: String,
    pub shape: Vec<usize>,
    pub values: Vec<f32>,
}

/// A small generator, so that tests need no other.
pub struct Noise(pub u64);

impl Noise {
    pub fn bits(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn unit(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
    }
}

impl TinyModel {
    pub fn config(&self) -> Value {
        json!({
            "architectures": ["LlamaForCausalLM"], "hidden_size": self.hidden, "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads, "num_key_value_heads": self.kv_heads, "intermediate_size": self.intermediate,
            "vocab_size": VOCABULARY, "max_position_embeddings": self.context, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
            "tie_word_embeddings": self.tied, "hidden_act": "silu", "eos_token_id": [END_TOKEN], "bos_token_id": 0,
        })
    }

    /// All tensors under their Hugging Face names.
    pub fn tensors(&self) -> Vec<Tensor> {
        let mut noise = Noise(self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let head_width = self.hidden / self.heads;
        let (q, kv, h, i) = (self.heads * head_width, self.kv_heads * head_width, self.hidden, self.intermediate);
        let mut shapes: Vec<(String, Vec<usize>)> =
            vec![("model.embed_tokens.weight".into(), vec![VOCABULARY, h]), ("model.norm.weight".into(), vec![h])];
        if !self.tied {
            shapes.push(("lm_head.weight".into(), vec![VOCABULARY, h]));
        }
        for layer in 0..self.layers {
            for (part, shape) in [
                ("input_layernorm", vec![h]),
                ("self_attn.q_proj", vec![q, h]),
                ("self_attn.k_proj", vec![kv, h]),
                ("self_attn.v_proj", vec![kv, h]),
                ("self_attn.o_proj", vec![h, q]),
                ("post_attention_layernorm", vec![h]),
                ("mlp.gate_proj", vec![i, h]),
                ("mlp.up_proj", vec![i, h]),
                ("mlp.down_proj", vec![h, i]),
            ] {
                shapes.push((format!("model.layers.{layer}.{part}.weight"), shape));
            }
        }
        let tensor = |(name, shape): (String, Vec<usize>)| {
            let count = shape.iter().product();
            let values = match shape.len() {
                1 => (0..count).map(|_| 1.0 + 0.1 * noise.unit()).collect(),
                _ => (0..count).map(|_| noise.unit() * 1.7 / (shape[1] as f32).sqrt()).collect(),
            };
            Tensor { name, shape, values }
        };
        shapes.into_iter().map(tensor).collect()
    }
}

/// The safetensors container of some tensors.
pub fn safetensors(tensors: &[Tensor]) -> Vec<u8> {
    let mut header = serde_json::Map::new();
    let mut data = Vec::new();
    for tensor in tensors {
        let start = data.len();
        data.extend(tensor.values.iter().flat_map(|value| value.to_le_bytes()));
        header.insert(tensor.name.clone(), json!({"dtype": "F32", "shape": tensor.shape, "data_offsets": [start, data.len()]}));
    }
    let header = Value::Object(header).to_string();
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &data].concat()
}

/// Byte `b` is token `b + 3`; tokens 0 to 2 begin, mark and end.
pub fn tokenizer_json() -> Value {
    let mut vocabulary = BTreeMap::from([("<s>".to_owned(), 0), ("<m>".to_owned(), 1), ("</s>".to_owned(), 2)]);
    for (character, byte) in byte_table() {
        vocabulary.insert(character.to_string(), u32::from(byte) + 3);
    }
    let special = |id: u32, content: &str| json!({"id": id, "content": content, "special": true, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false});
    let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null,
        "added_tokens": [special(0, "<s>"), special(1, "<m>"), special(2, "</s>")],
        "pre_tokenizer": byte_level, "decoder": byte_level,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]}}
        },
        "model": {"type": "BPE", "vocab": vocabulary, "merges": [], "unk_token": null, "byte_fallback": false}
    })
}

pub fn tiny_tokenizer() -> ModelTokenizer {
    ModelTokenizer::from_json(tokenizer_json().to_string().as_bytes()).expect("the test's tokenizer is well formed")
}

pub const CHAT_TEMPLATE: &str =
    "{{ bos_token }}{% for message in messages %}<m>{{ message.role }}: {{ message.content }}\n{% endfor %}<m>assistant: ";

pub fn tokenizer_config() -> Value {
    json!({"chat_template": CHAT_TEMPLATE, "bos_token": "<s>", "eos_token": {"content": "</s>"}})
}

/// Writes a model in Hugging Face format.
pub fn write_directory(model: &TinyModel, directory: &std::path::Path) {
    for (name, bytes) in [
        ("config.json", model.config().to_string().into_bytes()),
        ("model.safetensors", safetensors(&model.tensors())),
        ("tokenizer.json", tokenizer_json().to_string().into_bytes()),
        ("tokenizer_config.json", tokenizer_config().to_string().into_bytes()),
    ] {
        std::fs::write(directory.join(name), bytes).expect("the temporary directory can be written");
    }
}

/// How the matrices of a GGUF file are stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GgufKind {
    F32,
    F16,
    Q8_0,
}

/// A GGUF file in the making.
#[derive(Default)]
struct GgufWriter {
    values: Vec<u8>,
    value_count: u64,
    tensors: Vec<u8>,
    tensor_count: u64,
    data: Vec<u8>,
}

impl GgufWriter {
    fn text(into: &mut Vec<u8>, text: &str) {
        into.extend((text.len() as u64).to_le_bytes());
        into.extend(text.as_bytes());
    }

    fn value(&mut self, key: &str, kind: u32, bytes: &[u8]) {
        Self::text(&mut self.values, key);
        self.values.extend(kind.to_le_bytes());
        self.values.extend(bytes);
        self.value_count += 1;
    }

    fn u32(&mut self, key: &str, value: usize) {
        self.value(key, 4, &(value as u32).to_le_bytes());
    }

    fn string(&mut self, key: &str, value: &str) {
        let mut bytes = Vec::new();
        Self::text(&mut bytes, value);
        self.value(key, 8, &bytes);
    }

    fn list(&mut self, key: &str, kind: u32, elements: &[Vec<u8>]) {
        let mut bytes = kind.to_le_bytes().to_vec();
        bytes.extend((elements.len() as u64).to_le_bytes());
        bytes.extend(elements.concat());
        self.value(key, 9, &bytes);
    }

    fn strings(&mut self, key: &str, texts: &[String]) {
        let elements: Vec<Vec<u8>> = texts
            .iter()
            .map(|text| {
                let mut bytes = Vec::new();
                Self::text(&mut bytes, text);
                bytes
            })
            .collect();
        self.list(key, 8, &elements);
    }

    fn tensor(&mut self, name: &str, tensor: &Tensor, kind: GgufKind) {
        let kind = if tensor.shape.len() == 1 { GgufKind::F32 } else { kind };
        Self::text(&mut self.tensors, name);
        self.tensors.extend((tensor.shape.len() as u32).to_le_bytes());
        self.tensors.extend(tensor.shape.iter().rev().flat_map(|size| (*size as u64).to_le_bytes()));
        let (code, bytes): (u32, Vec<u8>) = match kind {
            GgufKind::F32 => (0, tensor.values.iter().flat_map(|value| value.to_le_bytes()).collect()),
            GgufKind::F16 => (1, tensor.values.iter().flat_map(|value| half_bits(*value).to_le_bytes()).collect()),
            GgufKind::Q8_0 => (8, tensor.values.chunks(32).flat_map(q8_block).collect()),
        };
        self.tensors.extend(code.to_le_bytes());
        self.tensors.extend((self.data.len() as u64).to_le_bytes());
        self.tensor_count += 1;
        self.data.extend(bytes);
        self.data.resize(self.data.len().next_multiple_of(32), 0);
    }

    fn finish(self) -> Vec<u8> {
        let mut file = b"GGUF".to_vec();
        file.extend(3_u32.to_le_bytes());
        file.extend(self.tensor_count.to_le_bytes());
        file.extend(self.value_count.to_le_bytes());
        file.extend(self.values);
        file.extend(self.tensors);
        file.resize(file.len().next_multiple_of(32), 0);
        file.extend(self.data);
        file
    }
}

/// Rounds a normal number to half precision.
fn half_bits(value: f32) -> u16 {
    let bits = value.to_bits();
    let magnitude = (bits & 0x7fff_ffff) + 0x1000;
    if magnitude < 0x3880_0000 {
        return (bits >> 16 & 0x8000) as u16;
    }
    ((bits >> 16) & 0x8000) as u16 | ((magnitude - 0x3800_0000) >> 13) as u16
}

fn q8_block(values: &[f32]) -> Vec<u8> {
    let largest = values.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
    let scale = crate::quant::half_to_f32(half_bits(largest / 127.0));
    let quants = values.iter().map(|value| (value / scale).round().clamp(-127.0, 127.0) as i8 as u8);
    half_bits(largest / 127.0).to_le_bytes().into_iter().chain(quants).collect()
}

/// GGUF files of the llama architecture hold rotated pairs side by side.
fn permuted(tensor: &Tensor, heads: usize) -> Tensor {
    let (rows, columns) = (tensor.shape[0], tensor.shape[1]);
    let width = rows / heads;
    let source = |row: usize| {
        let (head, within) = (row / width, row % width);
        head * width + within % 2 * (width / 2) + within / 2
    };
    let values = (0..rows).flat_map(|row| tensor.values[source(row) * columns..][..columns].to_vec()).collect();
    Tensor { name: tensor.name.clone(), shape: tensor.shape.clone(), values }
}

fn gguf_name(name: &str) -> String {
    let mut name = name.to_owned();
    for (from, to) in [
        ("model.embed_tokens", "token_embd"),
        ("model.norm", "output_norm"),
        ("lm_head", "output"),
        ("model.layers", "blk"),
        ("input_layernorm", "attn_norm"),
        ("post_attention_layernorm", "ffn_norm"),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.o_proj", "attn_output"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
    ] {
        name = name.replace(from, to);
    }
    name
}

impl GgufWriter {
    fn model(&mut self, model: &TinyModel, kind: GgufKind) {
        self.string("general.architecture", "llama");
        for (key, value) in [
            ("block_count", model.layers),
            ("context_length", model.context),
            ("embedding_length", model.hidden),
            ("feed_forward_length", model.intermediate),
            ("attention.head_count", model.heads),
            ("attention.head_count_kv", model.kv_heads),
            ("rope.dimension_count", model.hidden / model.heads),
        ] {
            self.u32(&format!("llama.{key}"), value);
        }
        self.value("llama.attention.layer_norm_rms_epsilon", 6, &1e-5_f32.to_le_bytes());
        for tensor in model.tensors() {
            let name = gguf_name(&tensor.name);
            let tensor = if name.ends_with("attn_q.weight") {
                permuted(&tensor, model.heads)
            } else if name.ends_with("attn_k.weight") {
                permuted(&tensor, model.kv_heads)
            } else {
                tensor
            };
            self.tensor(&name, &tensor, kind);
        }
    }

    fn ends(&mut self) {
        self.u32("tokenizer.ggml.bos_token_id", 0);
        self.u32("tokenizer.ggml.eos_token_id", END_TOKEN as usize);
        self.value("tokenizer.ggml.add_bos_token", 7, &[1]);
    }
}

/// A whole model in one GGUF file, with the byte vocabulary inside.
pub fn gguf(model: &TinyModel, kind: GgufKind) -> Vec<u8> {
    let mut writer = GgufWriter::default();
    writer.model(model, kind);
    let mut tokens = vec!["<s>".to_owned(), "<m>".to_owned(), "</s>".to_owned()];
    let mut bytes: Vec<(u8, char)> = byte_table().into_iter().map(|(character, byte)| (byte, character)).collect();
    bytes.sort_unstable();
    tokens.extend(bytes.into_iter().map(|(_, character)| character.to_string()));
    let types: Vec<Vec<u8>> = (0..VOCABULARY).map(|id| if id < 3 { 3_i32 } else { 1 }.to_le_bytes().to_vec()).collect();
    writer.string("tokenizer.ggml.model", "gpt2");
    writer.string("tokenizer.ggml.pre", "gpt-2");
    writer.strings("tokenizer.ggml.tokens", &tokens);
    writer.strings("tokenizer.ggml.merges", &[]);
    writer.list("tokenizer.ggml.token_type", 5, &types);
    writer.string("tokenizer.chat_template", CHAT_TEMPLATE);
    writer.ends();
    writer.finish()
}

/// The same model with a small SentencePiece vocabulary.
pub fn sentence_piece_gguf(model: &TinyModel) -> Vec<u8> {
    let mut writer = GgufWriter::default();
    writer.model(model, GgufKind::F32);
    let mut tokens: Vec<String> = ["<s>", "<unk>", "</s>"].map(ToOwned::to_owned).to_vec();
    tokens.extend((0..240).map(|byte| format!("<0x{byte:02X}>")));
    // The best-scored pieces come first; scores fall with the id.
    tokens.extend(["ab", "\u{2581}ab", "bc", "\u{2581}", "a", "b", "c", "x"].map(ToOwned::to_owned));
    let kind = |id: usize| -> i32 {
        match id {
            0 | 2 => 3,
            1 => 2,
            3..243 => 6,
            _ => 1,
        }
    };
    let types: Vec<Vec<u8>> = (0..tokens.len()).map(|id| kind(id).to_le_bytes().to_vec()).collect();
    let scores: Vec<Vec<u8>> = (0..tokens.len()).map(|id| (-(id as f32)).to_le_bytes().to_vec()).collect();
    writer.string("tokenizer.ggml.model", "llama");
    writer.strings("tokenizer.ggml.tokens", &tokens);
    writer.list("tokenizer.ggml.scores", 6, &scores);
    writer.list("tokenizer.ggml.token_type", 5, &types);
    writer.u32("tokenizer.ggml.unknown_token_id", 1);
    writer.ends();
    writer.finish()
}
