//! Builds a decoder from named tensors, the same way for both file formats.

use sublet_core::Result;

use super::bytes::invalid;
use super::gguf::GgufTensors;
use super::safetensors::Safetensors;
use crate::architecture::Hyperparameters;
use crate::decoder::{Decoder, Layer, Linear};
use crate::matrix::{Matrix, Storage};
use crate::quant::{bfloat_to_f32, half_to_f32};

/// 16-bit models up to this many bytes are widened to f32 at load: for small models the work
/// per product matters more than the memory.
const WIDEN_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Where tensors come from.
pub enum Tensors {
    Safetensors(Vec<Safetensors>),
    Gguf(GgufTensors),
}

/// Which optional tensors a model has.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub tied_head: bool,
    /// A bias that the settings promise must be there; one that they do not mention may be.
    pub biases: Biases,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Biases {
    None,
    QueryKeyValue,
    /// Query, key, value and output.
    Attention,
    /// Whatever the file has.
    AsFound,
}

/// The parts of one layer that have weights.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Part {
    AttentionNorm,
    Query,
    Key,
    Value,
    Output,
    FeedForwardNorm,
    Gate,
    Up,
    Down,
}

impl Part {
    fn hugging_face(self) -> &'static str {
        match self {
            Self::AttentionNorm => "input_layernorm",
            Self::Query => "self_attn.q_proj",
            Self::Key => "self_attn.k_proj",
            Self::Value => "self_attn.v_proj",
            Self::Output => "self_attn.o_proj",
            Self::FeedForwardNorm => "post_attention_layernorm",
            Self::Gate => "mlp.gate_proj",
            Self::Up => "mlp.up_proj",
            Self::Down => "mlp.down_proj",
        }
    }

    fn gguf(self) -> &'static str {
        match self {
            Self::AttentionNorm => "attn_norm",
            Self::Query => "attn_q",
            Self::Key => "attn_k",
            Self::Value => "attn_v",
            Self::Output => "attn_output",
            Self::FeedForwardNorm => "ffn_norm",
            Self::Gate => "ffn_gate",
            Self::Up => "ffn_up",
            Self::Down => "ffn_down",
        }
    }

    fn has_bias(self, biases: Biases) -> bool {
        match biases {
            Biases::None | Biases::AsFound => false,
            Biases::QueryKeyValue => matches!(self, Self::Query | Self::Key | Self::Value),
            Biases::Attention => matches!(self, Self::Query | Self::Key | Self::Value | Self::Output),
        }
    }
}

impl Tensors {
    fn file(&self) -> &str {
        match self {
            Self::Safetensors(files) => files.first().map_or("model.safetensors", Safetensors::file),
            Self::Gguf(file) => file.file(),
        }
    }

    pub fn contains(&self, name: &str) -> bool {
        match self {
            Self::Safetensors(files) => files.iter().any(|file| file.contains(name)),
            Self::Gguf(file) => file.contains(name),
        }
    }

    /// Rows of a matrix where the format says so without being asked for a shape.
    pub fn rows(&self, name: &str) -> Option<usize> {
        match self {
            Self::Safetensors(_) => None,
            Self::Gguf(file) => file.rows(name),
        }
    }

    fn read(&self, name: &str, shape: &[usize]) -> Result<Storage> {
        match self {
            Self::Safetensors(files) => {
                for file in files {
                    if let Some(storage) = file.read(name, shape)? {
                        return Ok(storage);
                    }
                }
            }
            Self::Gguf(file) => {
                if let Some(storage) = file.read(name, shape)? {
                    return Ok(storage);
                }
            }
        }
        Err(invalid(self.file(), format!("has no tensor {name}")))
    }

    fn matrix(&self, name: &str, rows: usize, columns: usize) -> Result<Matrix> {
        let storage = self.read(name, &[rows, columns])?;
        let found = Matrix::new(rows, columns, storage);
        found.ok_or_else(|| invalid(self.file(), format!("tensor {name} does not hold {rows} × {columns} weights")))
    }

    /// A vector in f32; `NaN` and infinities would poison every answer, so they are refused.
    pub fn vector(&self, name: &str, length: usize) -> Result<Vec<f32>> {
        let values: Vec<f32> = match self.read(name, &[length])? {
            Storage::F32(values) => values,
            Storage::Bf16(values) => values.into_iter().map(bfloat_to_f32).collect(),
            Storage::F16(values) => values.into_iter().map(half_to_f32).collect(),
            Storage::Blocks(..) => return Err(invalid(self.file(), format!("tensor {name} is quantized; it must be F32 or F16"))),
        };
        if values.iter().any(|value| !value.is_finite()) {
            return Err(invalid(self.file(), format!("tensor {name} holds values that are not finite")));
        }
        Ok(values)
    }

    fn layer_tensor(&self, layer: usize, part: Part, kind: &str) -> String {
        match self {
            Self::Safetensors(_) => format!("model.layers.{layer}.{}.{kind}", part.hugging_face()),
            Self::Gguf(_) => format!("blk.{layer}.{}.{kind}", part.gguf()),
        }
    }

    fn top_tensor(&self, hugging_face: &'static str, gguf: &'static str) -> &'static str {
        match self {
            Self::Safetensors(_) => hugging_face,
            Self::Gguf(_) => gguf,
        }
    }

    fn linear(&self, layer: usize, part: Part, (rows, columns): (usize, usize), biases: Biases) -> Result<Linear> {
        let weight = self.matrix(&self.layer_tensor(layer, part, "weight"), rows, columns)?;
        let bias_name = self.layer_tensor(layer, part, "bias");
        let wanted = part.has_bias(biases) || (biases == Biases::AsFound && self.contains(&bias_name));
        let bias = if wanted { Some(self.vector(&bias_name, rows)?) } else { None };
        Ok(Linear { weight, bias })
    }

    fn layer(&self, index: usize, p: &Hyperparameters, biases: Biases) -> Result<Layer> {
        let (query_width, kv_width) = (p.heads * p.head_width, p.kv_heads * p.head_width);
        let norm = |part| self.vector(&self.layer_tensor(index, part, "weight"), p.hidden);
        Ok(Layer {
            attention_norm: norm(Part::AttentionNorm)?,
            query: self.linear(index, Part::Query, (query_width, p.hidden), biases)?,
            key: self.linear(index, Part::Key, (kv_width, p.hidden), biases)?,
            value: self.linear(index, Part::Value, (kv_width, p.hidden), biases)?,
            output: self.linear(index, Part::Output, (p.hidden, query_width), biases)?,
            feed_forward_norm: norm(Part::FeedForwardNorm)?,
            gate: self.linear(index, Part::Gate, (p.intermediate, p.hidden), biases)?,
            up: self.linear(index, Part::Up, (p.intermediate, p.hidden), biases)?,
            down: self.linear(index, Part::Down, (p.hidden, p.intermediate), biases)?,
        })
    }

    /// Reads all weights.
    pub fn assemble(&self, parameters: Hyperparameters, options: Options) -> Result<Decoder> {
        let p = &parameters;
        let embedding = self.matrix(self.top_tensor("model.embed_tokens.weight", "token_embd.weight"), p.vocabulary, p.hidden)?;
        let mut layers = Vec::new();
        for index in 0..p.layers {
            layers.push(self.layer(index, p, options.biases)?);
        }
        let final_norm = self.vector(self.top_tensor("model.norm.weight", "output_norm.weight"), p.hidden)?;
        let head_name = self.top_tensor("lm_head.weight", "output.weight");
        let head = if options.tied_head { None } else { Some(self.matrix(head_name, p.vocabulary, p.hidden)?) };
        let decoder = Decoder { embedding, layers, final_norm, head, parameters };
        Ok(if decoder.weight_bytes() <= WIDEN_BYTES_MAX { widened(decoder) } else { decoder })
    }
}

fn widened(decoder: Decoder) -> Decoder {
    let wide = |linear: Linear| Linear { weight: linear.weight.widened(), bias: linear.bias };
    let layers = decoder.layers.into_iter().map(|layer| Layer {
        query: wide(layer.query),
        key: wide(layer.key),
        value: wide(layer.value),
        output: wide(layer.output),
        gate: wide(layer.gate),
        up: wide(layer.up),
        down: wide(layer.down),
        ..layer
    });
    Decoder { embedding: decoder.embedding.widened(), layers: layers.collect(), head: decoder.head.map(Matrix::widened), ..decoder }
}
