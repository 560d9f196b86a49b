//! Choosing the next token.
//!
//! Order of effects: penalties for tokens already produced, bias, what a rule forbids, temperature,
//! top-k, top-p, one random draw. Log-probabilities are those of the model itself, before any of this.
//!
//! Invariants: one draw per token from the sequence's own generator, and ties go to the lower
//! token id, so the same seed, prompt and settings give the same tokens.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use sublet_core::engine::{Millionths, PositionLogprobs, Sampling, TokenLogprob};

use crate::constraint::TokenSet;
use crate::tokenizer::ModelTokenizer;

/// Below this temperature the choice is the likeliest token: dividing would overflow.
const GREEDY_TEMPERATURE: f32 = 1e-4;

/// One sequence's way of choosing, with its generator and the counts of what it produced.
pub struct Sampler {
    temperature: f32,
    top_p: f32,
    top_k: usize,
    presence_penalty: f32,
    frequency_penalty: f32,
    logit_bias: Vec<(u32, f32)>,
    logprobs: Option<usize>,
    counts: BTreeMap<u32, u32>,
    random: Xoshiro256,
}

/// A chosen token.
pub struct Choice {
    pub token: u32,
    pub logprobs: Option<PositionLogprobs>,
}

impl Sampler {
    /// `seed` is the request's or one drawn for it.
    pub fn new(sampling: &Sampling, seed: u64) -> Self {
        Self {
            temperature: to_f32(sampling.temperature),
            top_p: to_f32(sampling.top_p),
            top_k: sampling.top_k.unwrap_or(0) as usize,
            presence_penalty: to_f32(sampling.presence_penalty),
            frequency_penalty: to_f32(sampling.frequency_penalty),
            logit_bias: sampling.logit_bias.iter().map(|(token, bias)| (*token, to_f32(*bias))).collect(),
            logprobs: sampling.logprobs.map(usize::from),
            counts: BTreeMap::new(),
            random: Xoshiro256::new(seed),
        }
    }

    /// Chooses from the scores of the whole vocabulary, which it may change; only from `allowed`, if that is given.
    pub fn choose(&mut self, logits: &mut [f32], allowed: Option<&TokenSet>, tokenizer: &ModelTokenizer) -> Choice {
        let before = self.logprobs.map(|count| LogprobSource::new(logits, count));
        self.adjust(logits);
        if let Some(allowed) = allowed {
            forbid_others(logits, allowed);
        }
        let mut token = if self.temperature < GREEDY_TEMPERATURE { largest(logits) } else { self.draw(logits) };
        if let Some(allowed) = allowed.filter(|allowed| !allowed.is_allowed(token)) {
            // No allowed token has a score that is a number.
            token = allowed.first_bit_set().map_or(token, |first| first as u32);
        }
        if self.presence_penalty != 0.0 || self.frequency_penalty != 0.0 {
            *self.counts.entry(token).or_insert(0) += 1;
        }
        Choice { token, logprobs: before.map(|source| source.report(token, tokenizer)) }
    }

    fn adjust(&self, logits: &mut [f32]) {
        for (token, count) in &self.counts {
            if let Some(logit) = logits.get_mut(*token as usize) {
                *logit -= self.presence_penalty + self.frequency_penalty * *count as f32;
            }
        }
        for (token, bias) in &self.logit_bias {
            if let Some(logit) = logits.get_mut(*token as usize) {
                *logit += bias;
            }
        }
    }

    fn draw(&mut self, logits: &mut [f32]) -> u32 {
        let draw = self.random.unit();
        let best = logits[largest(logits) as usize];
        for logit in logits.iter_mut() {
            // A score that is not a number gets no weight.
            *logit = ((*logit - best) / self.temperature).exp().max(0.0);
        }
        let limited = self.top_k > 0 && self.top_k < logits.len();
        if !limited && self.top_p >= 1.0 {
            let total: f64 = logits.iter().map(|weight| f64::from(*weight)).sum();
            return pick(logits.iter().enumerate().map(|(token, weight)| (token as u32, *weight)), total * draw);
        }
        let mut candidates: Vec<(u32, f32)> =
            logits.iter().enumerate().filter(|(_, weight)| **weight > 0.0).map(|(token, weight)| (token as u32, *weight)).collect();
        if limited && self.top_k < candidates.len() {
            candidates.select_nth_unstable_by(self.top_k - 1, heavier_first);
            candidates.truncate(self.top_k);
        }
        candidates.sort_unstable_by(heavier_first);
        let total: f64 = candidates.iter().map(|(_, weight)| f64::from(*weight)).sum();
        let nucleus = total * f64::from(self.top_p);
        let mut kept = 0.0;
        let mut count = 0;
        for (_, weight) in &candidates {
            kept += f64::from(*weight);
            count += 1;
            if kept >= nucleus {
                break;
            }
        }
        pick(candidates.into_iter().take(count), kept * draw)
    }
}

/// A forbidden token has no weight at any temperature and with any bias.
fn forbid_others(logits: &mut [f32], allowed: &TokenSet) {
    for (scores, mut bits) in logits.chunks_mut(32).zip(allowed.as_slice().iter().copied()) {
        for score in scores {
            if bits & 1 == 0 {
                *score = f32::NEG_INFINITY;
            }
            bits >>= 1;
        }
    }
}

fn to_f32(setting: Millionths) -> f32 {
    (setting.0 as f64 / 1e6) as f32
}

fn heavier_first(left: &(u32, f32), right: &(u32, f32)) -> Ordering {
    right.1.total_cmp(&left.1).then(left.0.cmp(&right.0))
}

/// The first token of the largest score; scores that are not numbers never win.
fn largest(logits: &[f32]) -> u32 {
    let mut best = (0, f32::NEG_INFINITY);
    for (token, logit) in logits.iter().enumerate() {
        if *logit > best.1 {
            best = (token, *logit);
        }
    }
    best.0 as u32
}

/// The token at which the running sum passes `target`.
fn pick(weights: impl Iterator<Item = (u32, f32)>, target: f64) -> u32 {
    let mut sum = 0.0;
    let mut last = 0;
    for (token, weight) in weights {
        if weight > 0.0 {
            sum += f64::from(weight);
            last = token;
            if sum > target {
                break;
            }
        }
    }
    last
}

/// What is needed to report log-probabilities after the scores have been changed.
struct LogprobSource {
    logits: Vec<f32>,
    log_total: f32,
    count: usize,
}

impl LogprobSource {
    fn new(logits: &[f32], count: usize) -> Self {
        let best = logits[largest(logits) as usize];
        let total: f64 = logits.iter().map(|logit| f64::from((logit - best).exp())).sum();
        Self { logits: logits.to_vec(), log_total: best + total.ln() as f32, count }
    }

    fn report(&self, chosen: u32, tokenizer: &ModelTokenizer) -> PositionLogprobs {
        let mut ranked: Vec<(u32, f32)> = self.logits.iter().enumerate().map(|(token, logit)| (token as u32, *logit)).collect();
        if self.count < ranked.len() && self.count > 0 {
            ranked.select_nth_unstable_by(self.count - 1, heavier_first);
        }
        ranked.truncate(self.count);
        ranked.sort_unstable_by(heavier_first);
        let entry = |token: u32| self.entry(token, tokenizer);
        PositionLogprobs { chosen: entry(chosen), top: ranked.into_iter().map(|(token, _)| entry(token)).collect() }
    }

    fn entry(&self, token: u32, tokenizer: &ModelTokenizer) -> TokenLogprob {
        let bytes = tokenizer.bytes(token).to_vec();
        let text =
            if bytes.is_empty() { tokenizer.name(token).unwrap_or_default() } else { String::from_utf8_lossy(&bytes).into_owned() };
        let logprob = f64::from(self.logits[token as usize] - self.log_total);
        TokenLogprob { token: text, bytes, logprob: Millionths((logprob * 1e6).round() as i64) }
    }
}

/// xoshiro256++ seeded by splitmix64, after the public-domain descriptions of Blackman and
/// Vigna (<https://prng.di.unimi.it>).
struct Xoshiro256([u64; 4]);

impl Xoshiro256 {
    fn new(seed: u64) -> Self {
        let mut state = seed;
        Self(std::array::from_fn(|_| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = state;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^ (mixed >> 31)
        }))
    }

    fn next(&mut self) -> u64 {
        let s = &mut self.0;
        let result = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let shifted = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= shifted;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// In [0, 1), with 53 random bits.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_model::tiny_tokenizer;

    fn sampling(change: impl FnOnce(&mut Sampling)) -> Sampling {
        let mut sampling = Sampling { seed: Some(1), ..Sampling::default() };
        change(&mut sampling);
        sampling
    }

    fn draws(sampling: &Sampling, seed: u64, logits: &[f32], count: usize) -> Vec<u32> {
        let tokenizer = tiny_tokenizer();
        let mut sampler = Sampler::new(sampling, seed);
        (0..count).map(|_| sampler.choose(&mut logits.to_vec(), None, &tokenizer).token).collect()
    }

    #[test]
    fn settings_limit_what_can_be_drawn() {
        let logits = [1.0, 3.0, 2.0, -1.0, 3.0];
        let only = |sampling: &Sampling| {
            let mut seen = draws(sampling, 7, &logits, 4_000);
            seen.sort_unstable();
            seen.dedup();
            seen
        };
        assert_eq!(only(&sampling(|s| s.temperature = Millionths(0))), [1], "greedy takes the first of equals");
        assert_eq!(only(&sampling(|_| ())), [0, 1, 2, 3, 4]);
        assert_eq!(only(&sampling(|s| s.top_k = Some(2))), [1, 4]);
        assert_eq!(only(&sampling(|s| s.top_p = Millionths(500_000))), [1, 4]);
        assert_eq!(only(&sampling(|s| s.top_p = Millionths(1))), [1]);
        assert_eq!(only(&sampling(|s| s.logit_bias = vec![(3, Millionths(100_000_000)), (900, Millionths(1))])), [3]);
    }

    #[test]
    fn frequencies_follow_the_probabilities() {
        let drawn = draws(&sampling(|_| ()), 3, &[0.0, 3.0_f32.ln()], 20_000);
        let ones = drawn.iter().filter(|token| **token == 1).count();
        assert!((14_700..=15_300).contains(&ones), "{ones} of 20000, expected three quarters");
    }

    #[test]
    fn the_seed_decides() {
        let logits = [0.0; 50];
        let one = draws(&sampling(|_| ()), 11, &logits, 20);
        assert_eq!(one, draws(&sampling(|_| ()), 11, &logits, 20));
        assert_ne!(one, draws(&sampling(|_| ()), 12, &logits, 20));
    }

    #[test]
    fn penalties_discourage_repetition() {
        let greedy = |s: &mut Sampling| s.temperature = Millionths(0);
        let logits = [1.0, 0.9, 0.5];
        assert_eq!(draws(&sampling(greedy), 0, &logits, 3), [0, 0, 0]);
        let presence = sampling(|s| {
            greedy(s);
            s.presence_penalty = Millionths(2_000_000);
        });
        assert_eq!(draws(&presence, 0, &logits, 4), [0, 1, 2, 0]);
        let frequency = sampling(|s| {
            greedy(s);
            s.frequency_penalty = Millionths(300_000);
        });
        assert_eq!(draws(&frequency, 0, &logits, 4), [0, 1, 0, 1]);
    }

    #[test]
    fn logprobs_are_the_models_own_and_sorted() {
        let tokenizer = tiny_tokenizer();
        let settings = sampling(|s| {
            s.logprobs = Some(2);
            s.logit_bias = vec![(0, Millionths(50_000_000))];
        });
        let chosen = Sampler::new(&settings, 1).choose(&mut [0.0, 2.0_f32.ln(), 0.0], None, &tokenizer);
        let logprobs = chosen.logprobs.expect("asked for");
        assert_eq!(chosen.token, 0);
        assert_eq!(logprobs.chosen.logprob, Millionths(-1_386_294));
        assert_eq!(logprobs.top.iter().map(|t| t.logprob.0).collect::<Vec<_>>(), [-693_147, -1_386_294]);
    }

    #[test]
    fn scores_that_are_not_numbers_never_win() {
        for temperature in [0, 1_000_000] {
            let settings = sampling(|s| s.temperature = Millionths(temperature));
            assert_eq!(draws(&settings, 5, &[f32::NAN, 1.0, f32::NEG_INFINITY], 10), [1; 10]);
        }
    }
}
