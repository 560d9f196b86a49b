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
