//! Functions of single values and rows: the exponential and what is made of it, and norms.
//!
//! Invariants: a row's result depends on nothing but the row. Loops are written so that the compiler can turn them
//! into the processor's instructions, which the standard library's exponential prevents.

use crate::kernel::{self, Instructions, LANES, Work};

/// Where the exponential is the smallest ordinary number and where it is infinite, nearly.
const EXPONENT_MIN: f32 = -87.0;
const EXPONENT_MAX: f32 = 88.0;
/// Adding it rounds to a whole number, which is then in the lowest bits.
const ROUNDING: f32 = 12_582_912.0;

/// ln 2 in two parts; the first has so few bits that its multiples are exact.
const LN_2_FIRST: f32 = 355.0 / 512.0;
const LN_2_REST: f32 = -2.121_944_4e-4;

/// The exponential of a value, within two units of the last place; outside its range that of the nearest end.
///
/// Source: the argument is reduced by whole multiples of ln 2, given in two parts; then its Taylor polynomial.
#[inline(always)]
pub fn exponential(value: f32) -> f32 {
    let clamped = if value > EXPONENT_MAX { EXPONENT_MAX } else { value };
    let clamped = if clamped < EXPONENT_MIN { EXPONENT_MIN } else { clamped };
    let shifted = clamped * std::f32::consts::LOG2_E + ROUNDING;
    let whole = shifted - ROUNDING;
    let rest = clamped - whole * LN_2_FIRST - whole * LN_2_REST;
    let mut polynomial = 1.0 / 5_040.0;
    for factor in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        polynomial = polynomial * rest + factor;
    }
    let power = f32::from_bits(shifted.to_bits().wrapping_add(127) << 23);
    polynomial * power
}

/// Turns scores into weights that sum to one.
pub fn softmax(scores: &mut [f32]) {
    kernel::specialized(Softmax(scores));
}

struct Softmax<'a>(&'a mut [f32]);

impl Work for Softmax<'_> {
    #[inline(always)]
    fn run(self, _: Instructions) {
        let (chunks, rest) = self.0.as_chunks_mut::<LANES>();
        let mut largest = [f32::NEG_INFINITY; LANES];
        for chunk in chunks.iter() {
            for (largest, score) in largest.iter_mut().zip(chunk) {
                *largest = if *score > *largest { *score } else { *largest };
            }
        }
        let largest = largest.iter().chain(rest.iter()).copied().fold(f32::NEG_INFINITY, f32::max);
        let mut sums = [0.0; LANES];
        for chunk in chunks.iter_mut() {
            for (sum, score) in sums.iter_mut().zip(chunk) {
                *score = exponential(*score - largest);
                *sum += *score;
            }
        }
        for (sum, score) in sums.iter_mut().zip(rest.iter_mut()) {
            *score = exponential(*score - largest);
            *sum += *score;
        }
        let inverse = 1.0 / kernel::reduce(sums);
        for score in self.0 {
            *score *= inverse;
        }
    }
}

/// Multiplies `gates` by their logistic function and by `values`.
pub fn gate(gates: &mut [f32], values: &[f32]) {
    kernel::specialized(Gate { gates, values });
}

struct Gate<'a> {
    gates: &'a mut [f32],
    values: &'a [f32],
}

impl Work for Gate<'_> {
    #[inline(always)]
    fn run(self, _: Instructions) {
        for (gate, value) in self.gates.iter_mut().zip(self.values) {
            *gate = *gate / (1.0 + exponential(-*gate)) * value;
        }
    }
}

/// Adds element by element.
pub fn add(into: &mut [f32], values: &[f32]) {
    for (sum, value) in into.iter_mut().zip(values) {
        *sum += value;
    }
}

/// Root-mean-square normalization of each row.
pub fn normalize(rows: &[f32], weight: &[f32], epsilon: f32) -> Vec<f32> {
    let mut normed = Vec::with_capacity(rows.len());
    for row in rows.chunks_exact(weight.len()) {
        let squares = kernel::dots([row], [row])[0][0];
        let factor = 1.0 / (squares / weight.len() as f32 + epsilon).sqrt();
        normed.extend(row.iter().zip(weight).map(|(value, weight)| value * factor * weight));
    }
    normed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exponential_is_that_of_the_standard_library_but_for_the_last_places() {
        for step in -8_700..=8_800 {
            let value = step as f32 / 100.0;
            let (own, exact) = (f64::from(exponential(value)), f64::from(value).exp());
            assert!((own / exact - 1.0).abs() < 4e-7, "{value}: {own} against {exact}");
        }
        assert_eq!(exponential(0.0), 1.0);
        assert!(exponential(f32::NEG_INFINITY) < 2e-38 && exponential(-1e9) < 2e-38);
        assert!(exponential(f32::INFINITY).is_finite() && exponential(f32::NAN).is_nan());
    }

    #[test]
    fn weights_sum_to_one_and_keep_their_order() {
        for count in [1, 7, 8, 9, 100] {
            let mut scores: Vec<f32> = (0..count).map(|index| (index * 7 % 11) as f32 - 3.0).collect();
            let before = scores.clone();
            softmax(&mut scores);
            assert!((scores.iter().sum::<f32>() - 1.0).abs() < 1e-5);
            for (score, value) in scores.iter().zip(&before) {
                assert!((score / scores[0] - (value - before[0]).exp()).abs() < 1e-3 * score / scores[0]);
            }
        }
    }

    #[test]
    fn a_gate_lets_large_values_through_and_small_ones_not() {
        let mut gates = [-200.0, -1.0, 0.0, 1.0, 200.0];
        gate(&mut gates, &[2.0; 5]);
        let expected = [0.0, -0.537_882_8, 0.0, 1.462_117_2, 400.0];
        assert!(gates.iter().zip(expected).all(|(gate, expected)| (gate - expected).abs() < 1e-5), "{gates:?}");
    }
}
