//! The inner loops: dot products in f32 and in 8-bit integers.
//!
//! Purpose: everything that wants processor-specific instructions, behind safe functions.
//!
//! Invariants:
//! - One output element is always summed in the same order: eight running sums over the shared
//!   dimension, then one fixed tree. Tiling changes which elements are computed together, never
//!   how one is computed, so a row's result does not depend on the rows beside it.
//! - The instruction set is chosen once per process; two processors may differ in the last bits.
//! - This module holds the crate's only `unsafe`: calls of functions whose instruction set was
//!   detected at run time, loads from slices whose bounds are checked just before, and fetching ahead.
//!
//! Deliberately absent: threads, shapes of models.
#![allow(unsafe_code)]

#[cfg(target_arch = "x86_64")]
mod avx2;
mod operand;
mod portable;

use std::sync::OnceLock;

pub use operand::{RoundedRows, UnpackedBlock};

use crate::quant::{bfloat_to_f32, half_to_f32};

/// Running sums per output element.
pub const LANES: usize = 8;
/// Weights in one integer group: they share an activation scale.
pub const GROUP: usize = 32;
/// Weights that share one weight scale and one offset.
pub const SUBGROUP: usize = 16;
/// Weights unpacked at a time.
pub const BLOCK: usize = 256;

/// Which instructions this process uses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Instructions {
    #[cfg(target_arch = "x86_64")]
    Avx2,
    Portable,
}

/// Detects the instruction set once.
pub fn instructions() -> Instructions {
    static CHOSEN: OnceLock<Instructions> = OnceLock::new();
    *CHOSEN.get_or_init(|| {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c") {
            return Instructions::Avx2;
        }
        Instructions::Portable
    })
}

/// Computes `M × N` dot products. All slices have the same length.
pub fn dots<const M: usize, const N: usize>(left: [&[f32]; M], right: [&[f32]; N]) -> [[f32; N]; M] {
    dots_with(instructions(), left, right)
}

fn dots_with<const M: usize, const N: usize>(with: Instructions, left: [&[f32]; M], right: [&[f32]; N]) -> [[f32; N]; M] {
    let length = left[0].len();
    assert!(left.iter().chain(&right).all(|slice| slice.len() == length), "dot products need equal lengths");
    match with {
        // SAFETY: the variant exists only after its features were detected, and all lengths are equal.
        #[cfg(target_arch = "x86_64")]
        Instructions::Avx2 => unsafe { avx2::dots(left, right) },
        Instructions::Portable => portable::dots(left, right),
    }
}

/// The two kinds of 16-bit numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Half {
    Ieee,
    Brain,
}

/// As [`dots`] with 16-bit numbers on the left: the same sums as of their f32 values.
pub fn half_dots<const M: usize, const N: usize>(half: Half, left: [&[u16]; M], right: [&[f32]; N]) -> [[f32; N]; M] {
    half_dots_with(instructions(), half, left, right)
}

fn half_dots_with<const M: usize, const N: usize>(
    with: Instructions,
    half: Half,
    left: [&[u16]; M],
    right: [&[f32]; N],
) -> [[f32; N]; M] {
    let length = left[0].len();
    let is_equal = left.iter().all(|slice| slice.len() == length) && right.iter().all(|slice| slice.len() == length);
    assert!(is_equal, "dot products need equal lengths");
    match (with, half) {
        // SAFETY: the variant exists only after its features were detected, and all lengths are equal.
        #[cfg(target_arch = "x86_64")]
        (Instructions::Avx2, Half::Ieee) => unsafe { avx2::half_dots::<false, M, N>(left, right) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        (Instructions::Avx2, Half::Brain) => unsafe { avx2::half_dots::<true, M, N>(left, right) },
        (Instructions::Portable, _) => {
            let wide = left.map(|slice| slice.iter().map(|bits| half.value(*bits)).collect::<Vec<f32>>());
            portable::dots(wide.each_ref().map(Vec::as_slice), right)
        }
    }
}

/// The f32 values of 16-bit numbers. Both have the same length.
pub fn widen(half: Half, from: &[u16], into: &mut [f32]) {
    assert_eq!(from.len(), into.len(), "a value for each number");
    match (instructions(), half) {
        // SAFETY: the variant exists only after its features were detected.
        #[cfg(target_arch = "x86_64")]
        (Instructions::Avx2, Half::Ieee) => unsafe { avx2::widen_halves(from, into) },
        _ => into.iter_mut().zip(from).for_each(|(into, bits)| *into = half.value(*bits)),
    }
}

impl Half {
    #[inline(always)]
    pub fn value(self, bits: u16) -> f32 {
        match self {
            Self::Ieee => half_to_f32(bits),
            Self::Brain => bfloat_to_f32(bits),
        }
    }
}

/// Adds `weights[i]` times row `i` of `rows` to `into`, one row after the other.
pub fn accumulate(into: &mut [f32], rows: &[f32], weights: &[f32]) {
    assert!(rows.len() >= into.len() * weights.len(), "a row for each weight");
    match instructions() {
        // SAFETY: the variant exists only after its features were detected.
        #[cfg(target_arch = "x86_64")]
        Instructions::Avx2 => unsafe { avx2::accumulate(into, rows, weights) },
        Instructions::Portable => {
            for (row, weight) in rows.chunks_exact(into.len()).zip(weights) {
                for (sum, value) in into.iter_mut().zip(row) {
                    *sum += weight * value;
                }
            }
        }
    }
}

/// The products of `M` unpacked rows of weights and `N` rows of activations of the same length.
/// `with` is what [`instructions`] or [`specialized`] gave.
#[inline(always)]
pub fn block_products<const M: usize, const N: usize>(
    with: Instructions,
    weights: [&[UnpackedBlock]; M],
    rows: &RoundedRows<N>,
) -> [[f32; N]; M] {
    let blocks = rows.groups.len().div_ceil(BLOCK / GROUP);
    assert!(weights.iter().all(|weights| weights.len() == blocks), "rows of equal length");
    assert_eq!(rows.sums.len(), (rows.groups.len() * 2).div_ceil(LANES), "a sum for each subgroup");
    match with {
        // SAFETY: the variant exists only after its features were detected.
        #[cfg(target_arch = "x86_64")]
        Instructions::Avx2 => unsafe { avx2::block_products(weights, rows) },
        Instructions::Portable => portable::block_products(weights, rows),
    }
}

/// Has `bytes` fetched from memory while something else is computed.
pub fn prefetch(bytes: &[u8]) {
    #[cfg(target_arch = "x86_64")]
    for line in bytes.chunks(64) {
        // SAFETY: the instruction is part of every such processor, and reads nothing.
        unsafe { std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(line.as_ptr().cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = bytes;
}

/// A loop to be compiled for the detected instructions. [`Work::run`] must be `inline(always)`,
/// and so must what it calls: only inlined code uses the instructions.
pub trait Work {
    fn run(self, with: Instructions);
}

/// Runs `work` with the detected instructions.
pub fn specialized(work: impl Work) {
    match instructions() {
        // SAFETY: the variant exists only after its features were detected.
        #[cfg(target_arch = "x86_64")]
        Instructions::Avx2 => unsafe { avx2::run(work) },
        Instructions::Portable => work.run(Instructions::Portable),
    }
}

/// Sums the lanes in one fixed order.
#[inline(always)]
pub fn reduce(lanes: [f32; LANES]) -> f32 {
    let four = [lanes[0] + lanes[4], lanes[1] + lanes[5], lanes[2] + lanes[6], lanes[3] + lanes[7]];
    (four[0] + four[2]) + (four[1] + four[3])
}

#[cfg(test)]
mod tests {
    use super::operand::RoundedGroup;
    use super::*;

    fn values(count: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        (0..count)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) as f32 / 8_388_608.0 - 1.0
            })
            .collect()
    }

    fn exact(left: &[f32], right: &[f32]) -> f64 {
        left.iter().zip(right).map(|(l, r)| f64::from(*l) * f64::from(*r)).sum()
    }

    #[test]
    fn a_dot_product_is_the_same_alone_and_in_a_tile_for_every_length() {
        for length in [0, 1, 7, 8, 9, 31, 64, 100, 257] {
            let left: Vec<_> = (0..4).map(|i| values(length, 1 + i)).collect();
            let right: Vec<_> = (0..3).map(|i| values(length, 91 + i)).collect();
            let tile = dots([&left[0], &left[1], &left[2], &left[3]], [&right[0], &right[1], &right[2]]);
            for m in 0..4 {
                for n in 0..3 {
                    let alone = dots([&left[m]], [&right[n]])[0][0];
                    assert_eq!(alone.to_bits(), tile[m][n].to_bits(), "length {length}");
                    assert!((f64::from(alone) - exact(&left[m], &right[n])).abs() < 1e-4);
                }
            }
        }
    }

    #[test]
    fn portable_and_detected_instructions_agree() {
        let (left, right) = (values(300, 5), values(300, 6));
        let portable = dots_with(Instructions::Portable, [&left], [&right])[0][0];
        assert!((portable - dots([&left], [&right])[0][0]).abs() < 1e-4);

        let bits: Vec<u16> = (0..300_u16).map(|index| 0x3000 + index * 37).collect();
        for half in [Half::Ieee, Half::Brain] {
            let wide: Vec<f32> = bits.iter().map(|bits| half.value(*bits)).collect();
            let [portable, detected] =
                [Instructions::Portable, instructions()].map(|with| half_dots_with(with, half, [&bits], [&right])[0][0]);
            assert!((portable - detected).abs() < 1e-4 * portable.abs().max(1.0), "{portable} {detected}");
            assert_eq!(detected.to_bits(), dots([&wide], [&right])[0][0].to_bits());
        }
    }

    #[test]
    fn rows_are_accumulated_one_after_the_other() {
        for width in [7, 32, 64, 75] {
            let (rows, weights) = (values(width * 5, 3), values(5, 4));
            let mut sums = values(width, 5);
            let expected: Vec<f32> =
                (0..width).map(|at| sums[at] + (0..5).map(|row| weights[row] * rows[row * width + at]).sum::<f32>()).collect();
            accumulate(&mut sums, &rows, &weights);
            assert!(sums.iter().zip(&expected).all(|(sum, expected)| (sum - expected).abs() < 1e-5));
        }
    }

    /// Two blocks of which the second is used in part.
    fn blocks(seed: usize) -> Vec<UnpackedBlock> {
        let block = |number: usize| UnpackedBlock {
            quants: std::array::from_fn(|index| (((index + number) * 37 + seed * 11) % 256) as u8 as i8),
            scales: std::array::from_fn(|i| 0.01 + (i + number) as f32 / 1000.0),
            offsets: std::array::from_fn(|i| i as f32 / 100.0 - 0.05),
            has_offsets: number == 1,
        };
        vec![block(0), block(1)]
    }

    #[test]
    fn block_products_are_the_same_alone_in_a_tile_and_with_any_instructions() {
        let width = BLOCK + 5 * GROUP;
        let sources: Vec<Vec<f32>> = (0..4).map(|row| values(width, 9 + row)).collect();
        let four = RoundedRows::<4>::new(std::array::from_fn(|n| &sources[n][..]));
        let weights = [blocks(1), blocks(2)];
        let tile = block_products(instructions(), [&weights[0], &weights[1]], &four);
        for (n, source) in sources.iter().enumerate() {
            let one = RoundedRows::<1>::new([source]);
            for m in 0..2 {
                let alone = block_products(instructions(), [&weights[m]], &one)[0][0];
                assert_eq!(alone.to_bits(), tile[m][n].to_bits());
                let portable = block_products(Instructions::Portable, [&weights[m]], &one)[0][0];
                let weight = |i: usize| {
                    let (block, at) = (&weights[m][i / BLOCK], i % BLOCK);
                    let offset = if block.has_offsets { block.offsets[at / SUBGROUP] } else { 0.0 };
                    block.scales[at / SUBGROUP] * f32::from(block.quants[at]) + offset
                };
                let value = |i: usize| f32::from(one.groups[i / GROUP].quants[0][i % GROUP]) * one.groups[i / GROUP].scales[0];
                let expected: f32 = (0..width).map(|i| weight(i) * value(i)).sum();
                assert!((alone - expected).abs() < 2e-3 && (alone - portable).abs() < 2e-3, "{alone} {portable} {expected}");
            }
        }
    }

    #[test]
    fn rounding_keeps_values_within_half_a_step() {
        let source = values(64, 3);
        let row = RoundedRows::<1>::new([&source]);
        for (index, value) in source.iter().enumerate() {
            let RoundedGroup { quants: [quants], scales: [scale] } = row.groups[index / GROUP];
            assert!((f32::from(quants[index % GROUP]) * scale - value).abs() <= scale * 0.501);
        }
        let zero = RoundedRows::<1>::new([&[0.0; 32]]);
        assert_eq!((zero.groups.len(), zero.groups[0].scales[0], zero.sums.len()), (1, 0.0, 1));
    }
}
