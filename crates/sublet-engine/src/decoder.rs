//! The decoder graph of the Llama family over a ragged batch.
//!
//! A batch is a list of rows; a row is one token at one position of one sequence, whether it
//! belongs to a prompt or is the last token produced. Each row is computed with the same
//! arithmetic whatever other rows there are, which makes a result independent of the batch.
//!
//! Invariants: rows of one sequence come in rising order of position, the first at the end of
//! its cache, with room for all of them in it.
//!
//! Deliberately absent: sampling, scheduling, any model family with another graph.

use rayon::prelude::*;

use crate::architecture::{Hyperparameters, RopeLayout};
use crate::elementwise::{self, add, normalize, softmax};
use crate::kernel;
use crate::kv::{KvCache, PAGE_POSITIONS, PageLayout, Place, Side};
use crate::matrix::{Activations, Matrix, PARALLEL_VALUES_MIN, Quantize};

/// Products in one batch's attention below which threads cost more than they save.
const PARALLEL_ATTENTION_MIN: usize = 1 << 16;

/// A matrix and the bias some models add.
pub struct Linear {
    pub weight: Matrix,
    pub bias: Option<Vec<f32>>,
}

/// One layer's weights.
pub struct Layer {
    pub attention_norm: Vec<f32>,
    pub query: Linear,
    pub key: Linear,
    pub value: Linear,
    pub output: Linear,
    pub feed_forward_norm: Vec<f32>,
    pub gate: Linear,
    pub up: Linear,
    pub down: Linear,
}

/// All weights; shapes were checked when they were loaded.
pub struct Decoder {
    pub parameters: Hyperparameters,
    pub embedding: Matrix,
    pub layers: Vec<Layer>,
    pub final_norm: Vec<f32>,
    /// `None` where the embedding serves as output matrix too.
    pub head: Option<Matrix>,
}

/// One token to compute.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    pub token: u32,
    pub position: usize,
    /// Index into the caches given with the batch.
    pub cache: usize,
    pub wants: Wants,
}

/// What is read off a row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wants {
    /// Only its keys and values are needed.
    Nothing,
    /// The next token's scores.
    Logits,
    /// What the last layer made of it, after the final norm.
    State,
}

/// What was read off the rows of a batch, in their order.
#[derive(Debug)]
pub struct Computed {
    /// A vocabulary's worth for each row that wants them.
    pub logits: Vec<f32>,
    /// As many values as the model is wide for each row that wants its state.
    pub states: Vec<f32>,
}

impl Linear {
    fn apply(&self, input: &Activations<'_>, output: &mut [f32]) {
        self.weight.multiply(input, output);
        if let Some(bias) = &self.bias {
            for row in output.chunks_exact_mut(bias.len()) {
                add(row, bias);
            }
        }
    }
}

impl Layer {
    fn matrices(&self) -> impl Iterator<Item = &Matrix> {
        [&self.query, &self.key, &self.value, &self.output, &self.gate, &self.up, &self.down]
            .into_iter()
            .map(|linear| &linear.weight)
    }
}

impl Decoder {
    fn matrices(&self) -> impl Iterator<Item = &Matrix> {
        self.layers.iter().flat_map(Layer::matrices).chain([&self.embedding]).chain(&self.head)
    }

    /// Bytes of all weight matrices.
    pub fn weight_bytes(&self) -> usize {
        self.matrices().map(Matrix::bytes).sum()
    }

    /// Weights in all matrices: the products one row takes, nearly.
    pub fn weight_count(&self) -> usize {
        self.matrices().map(|matrix| matrix.rows() * matrix.columns()).sum()
    }

    /// Computes all rows, extends their caches, and returns what the rows want.
    pub fn forward(&self, rows: &[Row], caches: &mut [&mut KvCache]) -> Computed {
        let width = self.parameters.hidden;
        let mut hidden = vec![0.0; rows.len() * width];
        for (row, into) in rows.iter().zip(hidden.chunks_exact_mut(width)) {
            self.embedding.copy_row(row.token as usize, into);
        }
        let rotations = Rotations::new(&self.parameters, rows);
        for (index, layer) in self.layers.iter().enumerate() {
            self.attend(index, rows, caches, (&rotations, &mut hidden));
            self.feed_forward(layer, &mut hidden);
        }
        for row in rows {
            caches[row.cache].length = row.position + 1;
        }
        let states = self.normed(rows, &hidden, Wants::State);
        Computed { logits: self.logits(&self.normed(rows, &hidden, Wants::Logits)), states }
    }

    fn attend(&self, index: usize, rows: &[Row], caches: &mut [&mut KvCache], (rotations, hidden): (&Rotations, &mut Vec<f32>)) {
        let (p, layer) = (&self.parameters, &self.layers[index]);
        let layout = PageLayout::new(p);
        let normed = normalize(hidden, &layer.attention_norm, p.norm_epsilon);
        let input = Activations::new(&normed, p.hidden, quantize([&layer.query, &layer.key, &layer.value]));
        let mut query = vec![0.0; rows.len() * p.heads * p.head_width];
        let mut key = vec![0.0; rows.len() * p.kv_heads * p.head_width];
        let mut value = vec![0.0; key.len()];
        let key_and_value = || together(|| layer.key.apply(&input, &mut key), || layer.value.apply(&input, &mut value));
        together(|| layer.query.apply(&input, &mut query), key_and_value);
        rotations.apply(&mut query);
        rotations.apply(&mut key);
        let kv_width = p.kv_heads * p.head_width;
        for (row, (key, value)) in rows.iter().zip(key.chunks_exact(kv_width).zip(value.chunks_exact(kv_width))) {
            let place = Place { layer: index, side: Side::Keys, position: row.position };
            caches[row.cache].write(layout, place, key);
            caches[row.cache].write(layout, Place { side: Side::Values, ..place }, value);
        }
        let mixed = self.mix(index, rows, caches, &query);
        let input = Activations::new(&mixed, p.heads * p.head_width, layer.output.weight.quantize());
        let mut output = vec![0.0; hidden.len()];
        layer.output.apply(&input, &mut output);
        add(hidden, &output);
    }

    /// The attention of every row over its sequence's positions up to its own. What one head of keys and values gives
    /// to a row is a task of its own.
    fn mix(&self, layer: usize, rows: &[Row], caches: &[&mut KvCache], query: &[f32]) -> Vec<f32> {
        let p = &self.parameters;
        let width = p.heads / p.kv_heads * p.head_width;
        let mut mixed = vec![0.0; query.len()];
        let products: usize = rows.iter().map(|row| (row.position + 1) * width * p.kv_heads).sum();
        let task = |(index, into): (usize, &mut [f32])| {
            let row = rows[index / p.kv_heads];
            let head = Head { layer, index: index % p.kv_heads, positions: row.position + 1 };
            self.mix_head(head, caches[row.cache], (&query[index * width..][..width], into));
        };
        if products < PARALLEL_ATTENTION_MIN || rayon::current_thread_index().is_none() {
            mixed.chunks_exact_mut(width).enumerate().for_each(task);
        } else {
            mixed.par_chunks_exact_mut(width).enumerate().for_each(task);
        }
        mixed
    }

    /// What the queries that share a head of keys and values read from it.
    fn mix_head(&self, head: Head, cache: &KvCache, (queries, into): (&[f32], &mut [f32])) {
        let width = self.parameters.head_width;
        let layout = PageLayout::new(&self.parameters);
        let pages = head.positions.div_ceil(PAGE_POSITIONS);
        let keys = || cache.head(layout, head.layer, Side::Keys, head.index).take(pages);
        // A row of scores for each query.
        let mut scores = vec![0.0; queries.len() / width * pages * PAGE_POSITIONS];
        let pairs = queries.chunks(2 * width).zip(scores.chunks_mut(2 * pages * PAGE_POSITIONS));
        for (queries, scores) in pairs {
            let (first, second) = queries.split_at(width);
            let (first_scores, second_scores) = scores.split_at_mut(pages * PAGE_POSITIONS);
            if second.is_empty() {
                score(keys(), [first], [first_scores]);
            } else {
                score(keys(), [first, second], [first_scores, second_scores]);
            }
        }
        let scale = 1.0 / (width as f32).sqrt();
        for (into, scores) in into.chunks_exact_mut(width).zip(scores.chunks_exact_mut(pages * PAGE_POSITIONS)) {
            let weights = &mut scores[..head.positions];
            weights.iter_mut().for_each(|score| *score *= scale);
            softmax(weights);
            let values = cache.head(layout, head.layer, Side::Values, head.index);
            for (values, weights) in values.zip(weights.chunks(PAGE_POSITIONS)) {
                kernel::accumulate(into, values, weights);
            }
        }
    }

    fn feed_forward(&self, layer: &Layer, hidden: &mut [f32]) {
        let p = &self.parameters;
        let normed = normalize(hidden, &layer.feed_forward_norm, p.norm_epsilon);
        let input = Activations::new(&normed, p.hidden, quantize([&layer.gate, &layer.up, &layer.up]));
        let mut gate = vec![0.0; hidden.len() / p.hidden * p.intermediate];
        let mut up = vec![0.0; gate.len()];
        together(|| layer.gate.apply(&input, &mut gate), || layer.up.apply(&input, &mut up));
        if gate.len() < PARALLEL_VALUES_MIN || rayon::current_thread_index().is_none() {
            elementwise::gate(&mut gate, &up);
        } else {
            let parts = gate.par_chunks_mut(p.intermediate).zip(up.par_chunks(p.intermediate));
            parts.for_each(|(gate, up)| elementwise::gate(gate, up));
        }
        let input = Activations::new(&gate, p.intermediate, layer.down.weight.quantize());
        let mut output = vec![0.0; hidden.len()];
        layer.down.apply(&input, &mut output);
        add(hidden, &output);
    }

    /// The final norm of the rows that want so.
    fn normed(&self, rows: &[Row], hidden: &[f32], wants: Wants) -> Vec<f32> {
        let p = &self.parameters;
        let mut wanted = Vec::new();
        for (row, hidden) in rows.iter().zip(hidden.chunks_exact(p.hidden)) {
            if row.wants == wants {
                wanted.extend_from_slice(hidden);
            }
        }
        normalize(&wanted, &self.final_norm, p.norm_epsilon)
    }

    fn logits(&self, normed: &[f32]) -> Vec<f32> {
        if normed.is_empty() {
            return Vec::new();
        }
        let p = &self.parameters;
        let head = self.head.as_ref().unwrap_or(&self.embedding);
        let mut logits = vec![0.0; normed.len() / p.hidden * p.vocabulary];
        head.multiply(&Activations::new(normed, p.hidden, head.quantize()), &mut logits);
        logits
    }
}

/// Runs both, without a wait between them where there are threads.
fn together(first: impl FnOnce() + Send, second: impl FnOnce() + Send) {
    if rayon::current_thread_index().is_none() {
        first();
        second();
    } else {
        rayon::join(first, second);
    }
}

fn quantize(users: [&Linear; 3]) -> Quantize {
    if users.iter().any(|linear| linear.weight.quantize() == Quantize::Yes) { Quantize::Yes } else { Quantize::No }
}

/// A head of keys and values as far as a row sees it.
#[derive(Clone, Copy)]
struct Head {
    layer: usize,
    index: usize,
    positions: usize,
}

/// The products of `N` queries and every key, a row of scores for each query.
fn score<'a, const N: usize>(pages: impl Iterator<Item = &'a [f32]>, queries: [&[f32]; N], mut scores: [&mut [f32]; N]) {
    let width = queries[0].len();
    for (page, keys) in pages.enumerate() {
        for (four, keys) in keys.chunks_exact(4 * width).enumerate() {
            let keys: [&[f32]; 4] = std::array::from_fn(|key| &keys[key * width..][..width]);
            for (key, products) in kernel::dots(keys, queries).into_iter().enumerate() {
                for (scores, product) in scores.iter_mut().zip(products) {
                    scores[page * PAGE_POSITIONS + four * 4 + key] = product;
                }
            }
        }
    }
}

/// Cosine and sine of each row's position, made once for all layers.
struct Rotations {
    layout: RopeLayout,
    head_width: usize,
    /// `head_width / 2` pairs of cosine and sine per row.
    turns: Vec<(f32, f32)>,
    rows: usize,
}

impl Rotations {
    fn new(parameters: &Hyperparameters, rows: &[Row]) -> Self {
        let rope = &parameters.rope;
        let mut turns = Vec::with_capacity(rows.len() * rope.frequencies.len());
        for row in rows {
            turns.extend(rope.frequencies.iter().map(|frequency| {
                let (sine, cosine) = (row.position as f64 * frequency).sin_cos();
                (cosine as f32, sine as f32)
            }));
        }
        Self { layout: rope.layout, head_width: parameters.head_width, turns, rows: rows.len() }
    }

    /// Rotates every head of every row.
    fn apply(&self, values: &mut [f32]) {
        let (row_width, half) = (values.len() / self.rows, self.head_width / 2);
        for (row, turns) in values.chunks_exact_mut(row_width).zip(self.turns.chunks_exact(half)) {
            for head in row.chunks_exact_mut(self.head_width) {
                for (pair, (cosine, sine)) in turns.iter().enumerate() {
                    let (first, second) = match self.layout {
                        RopeLayout::Halves => (pair, pair + half),
                        RopeLayout::Pairs => (2 * pair, 2 * pair + 1),
                    };
                    let (x, y) = (head[first], head[second]);
                    head[first] = x * cosine - y * sine;
                    head[second] = y * cosine + x * sine;
                }
            }
        }
    }
}
