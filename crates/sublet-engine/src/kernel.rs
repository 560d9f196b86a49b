//! The inner loops: dot products in f32 and in 8-bit integers.
//!
//! Purpose: everything that wants processor-specific instructions, behind safe functions.
//!
//! Invariants:
//! - One output element is always summed in the same order: eight running sums over the shared
//!   dimension, then one fixed tree. Tiling changes which elements are computed together, never
//!   how one is computed, so a row's result does not depend on the rows beside it.
//! - The instruction set is chosen once per process; two processors may differ in the last bits.
//! - This file holds the crate's only `unsafe`: calls of functions whose instruction set was
//!   detected at run time, and loads from slices whose bounds are checked just before.
//!
//! Deliberately absent: threads, allocation, shapes of models.
#![allow(unsafe_code)]

use std::sync::OnceLock;

/// Running sums per output element.
pub const LANES: usize = 8;
/// Weights in one integer group: they share an activation scale.
pub const GROUP: usize = 32;
/// Weights that share one weight scale and one offset.
pub const SUBGROUP: usize = 16;
/// Weights unpacked at a time.
pub const BLOCK: usize = 256;

/// Weights of one row, unpacked: weight `i` is `scale[i / 16] * quants[i] + offset[i / 16]`.
pub struct UnpackedBlock {
    pub quants: [i8; BLOCK],
    pub scales: [f32; BLOCK / SUBGROUP],
    pub offsets: [f32; BLOCK / SUBGROUP],
    /// Whether any offset is not zero.
    pub has_offsets: bool,
}

impl UnpackedBlock {
    pub const fn new() -> Self {
        Self { quants: [0; BLOCK], scales: [0.0; BLOCK / SUBGROUP], offsets: [0.0; BLOCK / SUBGROUP], has_offsets: false }
    }
}

/// Activations of one row, rounded to 8 bits with one scale per 32 values.
#[derive(Clone, Default)]
pub struct QuantizedRow {
    pub quants: Vec<i8>,
    /// One per [`GROUP`].
    pub scales: Vec<f32>,
    /// The sum of the rounded values, one per [`SUBGROUP`].
    pub sums: Vec<f32>,
}

impl QuantizedRow {
    /// Rounds `values`, whose length is a multiple of [`GROUP`].
    pub fn assign(&mut self, values: &[f32]) {
        self.quants.clear();
        self.scales.clear();
        self.sums.clear();
        for group in values.chunks_exact(GROUP) {
            let largest = group.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
            let scale = largest / 127.0;
            let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
            self.scales.push(scale);
            for half in group.chunks_exact(SUBGROUP) {
                let mut sum = 0_i32;
                for value in half {
                    let quant = (value * inverse).round_ties_even() as i8;
                    sum += i32::from(quant);
                    self.quants.push(quant);
                }
                self.sums.push(sum as f32 * scale);
            }
        }
    }
}

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
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
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
        // SAFETY: the variant exists only after both features were detected, and all lengths are equal.
        #[cfg(target_arch = "x86_64")]
        Instructions::Avx2 => unsafe { avx2::dots(left, right) },
        Instructions::Portable => portable::dots(left, right),
    }
}

/// Adds `factor * values` to `into`, element by element. Both have the same length.
pub fn accumulate(into: &mut [f32], values: &[f32], factor: f32) {
    assert_eq!(into.len(), values.len(), "accumulation needs equal lengths");
    match instructions() {
        // SAFETY: the variant exists only after both features were detected.
        #[cfg(target_arch = "x86_64")]
        Instructions::Avx2 => unsafe { avx2::accumulate(into, values, factor) },
        Instructions::Portable => {
            for (sum, value) in into.iter_mut().zip(values) {
                *sum += factor * value;
            }
        }
    }
}

/// Part of a quantized row: groups `first_group..first_group + groups`.
#[derive(Clone, Copy)]
pub struct GroupRange {
    pub first_group: usize,
    pub groups: usize,
}

/// Adds the products of one unpacked block and the same range of each of `N` rows to `sums`.
/// `with` is what [`instructions`] or [`specialized`] gave.
#[inline(always)]
pub fn add_block<const N: usize>(
    with: Instructions,
    block: &UnpackedBlock,
    rows: [&QuantizedRow; N],
    range: GroupRange,
    sums: &mut [[f32; LANES]; N],
) {
    let end = range.first_group + range.groups;
    assert!(range.groups <= BLOCK / GROUP, "a block has at most eight groups");
    assert!(rows.iter().all(|row| row.scales.len() >= end && row.quants.len() >= end * GROUP && row.sums.len() >= end * 2));
    match with {
        // SAFETY: the variant exists only after both features were detected; the ranges were checked.
        #[cfg(target_arch = "x86_64")]
        Instructions::Avx2 => unsafe { avx2::add_block(block, rows, range, sums) },
        Instructions::Portable => portable::add_block(block, rows, range, sums),
    }
}

/// A loop to be compiled for the detected instructions. [`Work::run`] must be `inline(always)`,
/// and so must what it calls: only inlined code uses the instructions.
pub trait Work {
    fn run(self, with: Instructions);
}

/// Runs `work` with the detected instructions.
pub fn specialized(work: impl Work) {
    match instructions() {
        // SAFETY: the variant exists only after both features were detected.
        #[cfg(target_arch = "x86_64")]
        Instructions::Avx2 => unsafe { avx2::run(work) },
        Instructions::Portable => work.run(Instructions::Portable),
    }
}

/// Sums the lanes in one fixed order.
pub fn reduce(lanes: [f32; LANES]) -> f32 {
    let four = [lanes[0] + lanes[4], lanes[1] + lanes[5], lanes[2] + lanes[6], lanes[3] + lanes[7]];
    (four[0] + four[2]) + (four[1] + four[3])
}

mod portable {
    use super::{BLOCK, GROUP, GroupRange, LANES, QuantizedRow, SUBGROUP, UnpackedBlock, reduce};

    pub fn dots<const M: usize, const N: usize>(left: [&[f32]; M], right: [&[f32]; N]) -> [[f32; N]; M] {
        left.map(|l| right.map(|r| dot(l, r)))
    }

    fn dot(left: &[f32], right: &[f32]) -> f32 {
        let mut sums = [0.0_f32; LANES];
        let (left_chunks, left_tail) = left.as_chunks::<LANES>();
        let (right_chunks, right_tail) = right.as_chunks::<LANES>();
        for (l, r) in left_chunks.iter().zip(right_chunks) {
            for lane in 0..LANES {
                sums[lane] += l[lane] * r[lane];
            }
        }
        let tail: f32 = left_tail.iter().zip(right_tail).map(|(l, r)| l * r).sum();
        reduce(sums) + tail
    }

    pub fn add_block<const N: usize>(
        block: &UnpackedBlock,
        rows: [&QuantizedRow; N],
        range: GroupRange,
        sums: &mut [[f32; LANES]; N],
    ) {
        for (row, sums) in rows.iter().zip(sums) {
            for group in 0..range.groups {
                add_group(block, row, (group, range.first_group + group), sums);
            }
        }
        const { assert!(BLOCK.is_multiple_of(GROUP) && GROUP == 2 * SUBGROUP) }
    }

    fn add_group(block: &UnpackedBlock, row: &QuantizedRow, (here, there): (usize, usize), sums: &mut [f32; LANES]) {
        for (lane, sum) in sums.iter_mut().enumerate() {
            let mut product = 0_i32;
            for byte in lane * 4..lane * 4 + 4 {
                product += i32::from(block.quants[here * GROUP + byte]) * i32::from(row.quants[there * GROUP + byte]);
            }
            let scale = block.scales[here * 2 + lane / 4] * row.scales[there];
            *sum += product as f32 * scale;
        }
        if block.has_offsets {
            for subgroup in 0..2 {
                sums[(here * 2 + subgroup) % LANES] += block.offsets[here * 2 + subgroup] * row.sums[there * 2 + subgroup];
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use super::{GROUP, GroupRange, Instructions, LANES, QuantizedRow, UnpackedBlock, Work, reduce};
    use std::arch::x86_64::{
        __m256, __m256i, _mm_set1_ps, _mm256_abs_epi8, _mm256_cvtepi32_ps, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_loadu_si256,
        _mm256_madd_epi16, _mm256_maddubs_epi16, _mm256_mul_ps, _mm256_set_m128, _mm256_set1_epi16, _mm256_set1_ps,
        _mm256_setzero_ps, _mm256_sign_epi8, _mm256_storeu_ps,
    };

    #[target_feature(enable = "avx2,fma")]
    fn store(value: __m256) -> [f32; LANES] {
        let mut lanes = [0.0; LANES];
        // SAFETY: the array has room for the eight lanes.
        unsafe { _mm256_storeu_ps(lanes.as_mut_ptr(), value) };
        lanes
    }

    /// Every slice has the length of `left[0]`.
    #[target_feature(enable = "avx2,fma")]
    pub unsafe fn dots<const M: usize, const N: usize>(left: [&[f32]; M], right: [&[f32]; N]) -> [[f32; N]; M] {
        let length = left[0].len();
        let whole = length / LANES * LANES;
        let mut sums = [[_mm256_setzero_ps(); N]; M];
        let mut at = 0;
        while at < whole {
            // SAFETY: `at + LANES <= whole <= length`, the length of every slice.
            let r = right.map(|slice| unsafe { _mm256_loadu_ps(slice.as_ptr().add(at)) });
            for m in 0..M {
                // SAFETY: as above.
                let l = unsafe { _mm256_loadu_ps(left[m].as_ptr().add(at)) };
                for n in 0..N {
                    sums[m][n] = _mm256_fmadd_ps(l, r[n], sums[m][n]);
                }
            }
            at += LANES;
        }
        let mut result = [[0.0; N]; M];
        for m in 0..M {
            for n in 0..N {
                let tail: f32 = left[m][whole..].iter().zip(&right[n][whole..]).map(|(l, r)| l * r).sum();
                result[m][n] = reduce(store(sums[m][n])) + tail;
            }
        }
        result
    }

    #[target_feature(enable = "avx2,fma")]
    pub fn run(work: impl Work) {
        work.run(Instructions::Avx2);
    }

    #[target_feature(enable = "avx2,fma")]
    pub fn accumulate(into: &mut [f32], values: &[f32], factor: f32) {
        for (sum, value) in into.iter_mut().zip(values) {
            *sum = factor.mul_add(*value, *sum);
        }
    }

    /// Eight sums of four products each: lane `i` covers bytes `4 i .. 4 i + 4`.
    #[target_feature(enable = "avx2,fma")]
    fn products(weights: __m256i, activations: __m256i) -> __m256 {
        // One factor must be unsigned: move the weight's sign to the activation. 128 × 127 × 2 fits i16.
        let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(weights), _mm256_sign_epi8(activations, weights));
        _mm256_cvtepi32_ps(_mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
    }

    /// Every row holds the groups of `range`; the block holds `range.groups` of them.
    #[target_feature(enable = "avx2,fma")]
    pub unsafe fn add_block<const N: usize>(
        block: &UnpackedBlock,
        rows: [&QuantizedRow; N],
        range: GroupRange,
        sums: &mut [[f32; LANES]; N],
    ) {
        // SAFETY: each array has exactly eight lanes.
        let mut totals: [__m256; N] = std::array::from_fn(|n| unsafe { _mm256_loadu_ps(sums[n].as_ptr()) });
        for here in 0..range.groups {
            let there = range.first_group + here;
            // SAFETY: the block has 256 quants and `here < 8`.
            let weights = unsafe { _mm256_loadu_si256(block.quants.as_ptr().add(here * GROUP).cast()) };
            let scales = _mm256_set_m128(_mm_set1_ps(block.scales[here * 2 + 1]), _mm_set1_ps(block.scales[here * 2]));
            for n in 0..N {
                // SAFETY: the caller checked that the row holds group `there` whole.
                let activations = unsafe { _mm256_loadu_si256(rows[n].quants.as_ptr().add(there * GROUP).cast()) };
                let scale = _mm256_mul_ps(scales, _mm256_set1_ps(rows[n].scales[there]));
                totals[n] = _mm256_fmadd_ps(products(weights, activations), scale, totals[n]);
            }
        }
        for n in 0..N {
            sums[n] = store(totals[n]);
        }
        if block.has_offsets {
            add_offsets(block, rows, range, sums);
        }
    }

    /// Lane `i` takes subgroups `i` and `i + 8`.
    #[target_feature(enable = "avx2,fma")]
    fn add_offsets<const N: usize>(
        block: &UnpackedBlock,
        rows: [&QuantizedRow; N],
        range: GroupRange,
        sums: &mut [[f32; LANES]; N],
    ) {
        for (row, sums) in rows.iter().zip(sums) {
            let row_sums = &row.sums[range.first_group * 2..][..range.groups * 2];
            for (offsets, row_sums) in block.offsets.chunks_exact(LANES).zip(row_sums.chunks(LANES)) {
                for (sum, (offset, row_sum)) in sums.iter_mut().zip(offsets.iter().zip(row_sums)) {
                    *sum = offset.mul_add(*row_sum, *sum);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
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

        let mut block = UnpackedBlock::new();
        for (index, quant) in block.quants.iter_mut().enumerate() {
            *quant = ((index * 37 + 11) % 256) as u8 as i8;
        }
        block.scales = std::array::from_fn(|i| 0.01 + i as f32 / 1000.0);
        block.offsets = std::array::from_fn(|i| i as f32 / 100.0 - 0.05);
        block.has_offsets = true;
        let mut row = QuantizedRow::default();
        row.assign(&values(512, 9));
        let range = GroupRange { first_group: 4, groups: 8 };
        let (mut one, mut two) = ([[0.5; LANES]; 1], [[0.5; LANES]; 1]);
        add_block(Instructions::Portable, &block, [&row], range, &mut one);
        add_block(instructions(), &block, [&row], range, &mut two);
        assert!((reduce(one[0]) - reduce(two[0])).abs() < 1e-3, "{one:?} {two:?}");
        let expected: f32 = (0..BLOCK)
            .map(|i| {
                let weight = block.scales[i / SUBGROUP] * f32::from(block.quants[i]) + block.offsets[i / SUBGROUP];
                weight * f32::from(row.quants[128 + i]) * row.scales[4 + i / GROUP]
            })
            .sum();
        assert!((reduce(two[0]) - 4.0 - expected).abs() < 1e-3);
    }

    #[test]
    fn rounding_keeps_values_within_half_a_step() {
        let source = values(64, 3);
        let mut row = QuantizedRow::default();
        row.assign(&source);
        for (index, value) in source.iter().enumerate() {
            let scale = row.scales[index / GROUP];
            assert!((f32::from(row.quants[index]) * scale - value).abs() <= scale * 0.501);
        }
        row.assign(&[0.0; 32]);
        assert_eq!((row.quants.len(), row.scales[0]), (32, 0.0));
    }
}
