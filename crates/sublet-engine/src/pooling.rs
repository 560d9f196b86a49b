//! Vectors of texts: the inputs of one request, one after the other on one sequence.
//!
//! Invariants: an input is pooled from its first position to its last in order, whatever the slices in which it was
//! computed, so that its vector does not depend on what else was in the batch; every vector has length 1.
//!
//! Deliberately absent: attention without a mask and pooling of a first token, which encoders are trained for and the
//! decoders of this engine are not.

use std::collections::VecDeque;
use std::sync::Arc;

use serde::Deserialize;
use sublet_core::TokenCount;
use sublet_core::engine::{EmbeddingInfo, Pooling, Shortening};

use crate::decoder::Wants;

/// Lengths of shortened vectors that one model may name.
const LENGTHS_MAX: usize = 64;

/// What is left to do of one request for vectors.
pub struct Vectors {
    /// Inputs after the one that is computed now.
    rest: VecDeque<Arc<[u32]>>,
    /// The place of the one that is computed now.
    input: usize,
    total: TokenCount,
    pooling: Pooling,
    /// Values of each vector.
    dimensions: usize,
    sum: Vec<f64>,
}

impl Vectors {
    /// The request, and the tokens of its first input; `None` if it has none.
    pub fn new(inputs: Vec<Arc<[u32]>>, pooling: Pooling, dimensions: usize) -> Option<(Self, Vec<u32>)> {
        let count: usize = inputs.iter().map(|tokens| tokens.len()).sum();
        let mut rest = VecDeque::from(inputs);
        let first = rest.pop_front()?.to_vec();
        let total = TokenCount::new(i64::try_from(count).unwrap_or(i64::MAX));
        Some((Self { rest, input: 0, total, pooling, dimensions, sum: Vec::new() }, first))
    }

    /// Tokens of all inputs.
    pub fn total(&self) -> TokenCount {
        self.total
    }

    /// What is read off a position of an input.
    pub fn wants(&self, position: usize, length: usize) -> Wants {
        match self.pooling {
            Pooling::Mean => Wants::State,
            Pooling::Last if position + 1 == length => Wants::State,
            Pooling::Last => Wants::Nothing,
        }
    }

    /// Takes one position's state. An input that gave its memory away begins again at its first position.
    pub fn add(&mut self, position: usize, state: &[f32]) {
        if position == 0 || self.sum.len() != state.len() {
            self.sum = vec![0.0; state.len()];
        }
        for (sum, value) in self.sum.iter_mut().zip(state) {
            *sum += f64::from(*value);
        }
    }

    /// The place and the vector of the input whose positions were all added; `None` if the model made no numbers of it.
    pub fn take(&mut self) -> Option<(usize, Vec<u8>)> {
        let mut values = std::mem::take(&mut self.sum);
        // A mean and a sum differ in length only, and the length becomes 1.
        values.truncate(self.dimensions);
        let length = values.iter().map(|value| value * value).sum::<f64>().sqrt();
        let scale = if length > 0.0 { 1.0 / length } else { 0.0 };
        let bytes = values.iter().flat_map(|value| ((value * scale) as f32).to_le_bytes()).collect();
        length.is_finite().then_some((self.input, bytes))
    }

    /// The tokens of the next input.
    pub fn advance(&mut self) -> Option<Vec<u32>> {
        let next = self.rest.pop_front()?;
        self.input += 1;
        Some(next.to_vec())
    }
}

/// What a model's files say of its vectors.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VectorSettings {
    /// `None` is a kind that this engine does not make.
    pub pooling: Option<Pooling>,
    pub shortening: Shortening,
}

impl Default for VectorSettings {
    fn default() -> Self {
        Self { pooling: Some(Pooling::Mean), shortening: Shortening::Refused }
    }
}

impl VectorSettings {
    /// As a model whose vectors have `width` values offers it.
    pub fn info(&self, width: usize) -> Option<EmbeddingInfo> {
        let dimensions = u32::try_from(width).ok()?;
        Some(EmbeddingInfo { dimensions, pooling: self.pooling?, shortening: self.shortening.clone() })
    }
}

/// How `1_Pooling/config.json` of the sentence-transformers library names the kinds: as switches, and in newer
/// files as one word.
#[derive(Deserialize)]
pub struct PoolingFile {
    pooling_mode: Option<String>,
    #[serde(default)]
    pooling_mode_mean_tokens: bool,
    #[serde(default)]
    pooling_mode_lasttoken: bool,
    #[serde(default)]
    pooling_mode_cls_token: bool,
    #[serde(default)]
    pooling_mode_max_tokens: bool,
    #[serde(default)]
    pooling_mode_mean_sqrt_len_tokens: bool,
    #[serde(default)]
    pooling_mode_weightedmean_tokens: bool,
}

impl PoolingFile {
    pub fn pooling(&self) -> Option<Pooling> {
        let others = self.pooling_mode_cls_token
            || self.pooling_mode_max_tokens
            || self.pooling_mode_mean_sqrt_len_tokens
            || self.pooling_mode_weightedmean_tokens;
        match (self.pooling_mode.as_deref(), self.pooling_mode_mean_tokens, self.pooling_mode_lasttoken) {
            (Some("mean"), ..) => Some(Pooling::Mean),
            (Some("lasttoken"), ..) => Some(Pooling::Last),
            (Some(_), ..) => None,
            (None, true, false) if !others => Some(Pooling::Mean),
            (None, false, true) if !others => Some(Pooling::Last),
            (None, ..) => None,
        }
    }
}

/// How `config.json` says that vectors may be shortened: the fields that vLLM reads, too.
pub fn shortening(any: bool, lengths: &[u32], width: usize) -> Shortening {
    let fits = |length: &&u32| **length > 0 && usize::try_from(**length).is_ok_and(|length| length <= width);
    let lengths: Vec<u32> = lengths.iter().filter(fits).copied().take(LENGTHS_MAX).collect();
    match (lengths.is_empty(), any) {
        (false, _) => Shortening::To(lengths.into()),
        (true, true) => Shortening::Any,
        (true, false) => Shortening::Refused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_a_model_say_how_it_pools() {
        for (file, expected) in [
            (r#"{"pooling_mode_mean_tokens":true}"#, Some(Pooling::Mean)),
            (r#"{"pooling_mode_lasttoken":true,"word_embedding_dimension":64}"#, Some(Pooling::Last)),
            (r#"{"pooling_mode":"lasttoken"}"#, Some(Pooling::Last)),
            (r#"{"pooling_mode":"mean"}"#, Some(Pooling::Mean)),
            (r#"{"pooling_mode":"cls"}"#, None),
            (r#"{"pooling_mode_cls_token":true}"#, None),
            (r#"{"pooling_mode_mean_tokens":true,"pooling_mode_max_tokens":true}"#, None),
            ("{}", None),
        ] {
            let file: PoolingFile = serde_json::from_str(file).expect("it is well formed");
            assert_eq!(file.pooling(), expected);
        }
    }

    #[test]
    fn vectors_are_shortened_only_as_the_model_says() {
        assert_eq!(shortening(false, &[], 64), Shortening::Refused);
        assert_eq!(shortening(true, &[], 64), Shortening::Any);
        assert_eq!(shortening(true, &[0, 16, 99], 64), Shortening::To([16].into()));
        let info =
            VectorSettings { shortening: Shortening::To([16].into()), ..VectorSettings::default() }.info(64).expect("it fits");
        assert_eq!([16, 17, 64].map(|length| info.allows(length)), [true, false, true]);
    }

    #[test]
    fn a_vector_has_length_one_and_begins_again_at_its_first_position() {
        let (mut vectors, first) = Vectors::new(vec![[1, 2].into(), [3].into()], Pooling::Mean, 1).expect("it has inputs");
        assert_eq!((first, vectors.total()), (vec![1, 2], TokenCount::new(3)));
        vectors.add(0, &[9.0, 9.0]);
        vectors.add(0, &[3.0, 4.0]);
        vectors.add(1, &[3.0, 4.0]);
        assert_eq!(vectors.take(), Some((0, 1.0_f32.to_le_bytes().to_vec())));
        assert_eq!(vectors.advance(), Some(vec![3]));
        vectors.add(0, &[0.0, 0.0]);
        assert_eq!(vectors.take(), Some((1, 0.0_f32.to_le_bytes().to_vec())));
        vectors.add(0, &[f32::NAN, 0.0]);
        assert_eq!(vectors.take(), None);
        assert_eq!(vectors.advance(), None);
    }
}
