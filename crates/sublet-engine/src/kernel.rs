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
//!   detected at run time, loads from slices whose bounds are checked just before, and fetching ahead.
//!
//! Deliberately absent: threads, shapes of models.
#![allow(unsafe_code)]

use std::sync::OnceLock;

use crate::quant::{bfloat_to_f32, half_to_f32};

/// Running sums per output element.
pub const LANES: usize = 8;
/// Weights in one integer group: they share an activation scale.
pub const GROUP: usize = 32;
/// Weights that share one weight scale and one offset.
pub const SUBGROUP: usize = 16;
/// Weights unpacked at a time.
pub const BLOCK: usize = 256;

/// [`BLOCK`] weights of one row, unpacked: weight `i` is `scales[i / 16] * quants[i] + offsets[i / 16]`.
#[derive(Clone)]
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

/// One group of `N` rows of activations, rounded to 8 bits with one scale for each row.
#[derive(Clone, Copy)]
pub struct RoundedGroup<const N: usize> {
    pub quants: [[i8; GROUP]; N],
    pub scales: [f32; N],
}

/// `N` rows of activations, group by group, in the order in which products read them.
pub struct RoundedRows<const N: usize> {
    pub groups: Vec<RoundedGroup<N>>,
    /// The sums of the rounded values of each [`SUBGROUP`], [`LANES`] at a time; what is beyond the row is zero.
    pub sums: Vec<[[f32; LANES]; N]>,
}

impl<const N: usize> RoundedRows<N> {
    /// Rounds `rows`, whose lengths are equal and a multiple of [`GROUP`].
    pub fn new(rows: [&[f32]; N]) -> Self {
        let groups = rows[0].len() / GROUP;
        let mut rounded = Self {
            groups: vec![RoundedGroup { quants: [[0; GROUP]; N], scales: [0.0; N] }; groups],
            sums: vec![[[0.0; LANES]; N]; (groups * 2).div_ceil(LANES)],
        };
        specialized(Rounding { rows, into: &mut rounded });
        rounded
    }
}

struct Rounding<'a, const N: usize> {
    rows: [&'a [f32]; N],
    into: &'a mut RoundedRows<N>,
}

impl<const N: usize> Work for Rounding<'_, N> {
    #[inline(always)]
    fn run(self, _: Instructions) {
        for (n, row) in self.rows.into_iter().enumerate() {
            for (index, (values, into)) in row.as_chunks::<GROUP>().0.iter().zip(&mut self.into.groups).enumerate() {
                let mut lanes = [0.0_f32; LANES];
                for values in values.as_chunks::<LANES>().0 {
                    for (lane, value) in lanes.iter_mut().zip(values) {
                        *lane = if value.abs() > *lane { value.abs() } else { *lane };
                    }
                }
                let scale = lanes.into_iter().fold(0.0, f32::max) / 127.0;
                let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
                into.scales[n] = scale;
                // Loops and not closures: only what is inlined here uses the instructions.
                let mut quants = [0_i32; GROUP];
                for (quant, value) in quants.iter_mut().zip(values) {
                    *quant = (value * inverse).round_ties_even() as i32;
                }
                for (into, quant) in into.quants[n].iter_mut().zip(&quants) {
                    *into = *quant as i8;
                }
                for (half, quants) in quants.as_chunks::<SUBGROUP>().0.iter().enumerate() {
                    let mut sum = 0;
                    for quant in quants {
                        sum += quant;
                    }
                    let at = index * 2 + half;
                    self.into.sums[at / LANES][n][at % LANES] = sum as f32 * scale;
                }
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

mod portable {
    use super::{BLOCK, GROUP, LANES, RoundedRows, SUBGROUP, UnpackedBlock, reduce};

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

    pub fn block_products<const M: usize, const N: usize>(weights: [&[UnpackedBlock]; M], rows: &RoundedRows<N>) -> [[f32; N]; M] {
        weights.map(|blocks| std::array::from_fn(|n| block_product(blocks, rows, n)))
    }

    fn block_product<const N: usize>(blocks: &[UnpackedBlock], rows: &RoundedRows<N>, n: usize) -> f32 {
        let mut lanes = [0.0_f32; LANES];
        let sums = rows.sums.chunks(BLOCK / SUBGROUP / LANES);
        for ((block, groups), sums) in blocks.iter().zip(rows.groups.chunks(BLOCK / GROUP)).zip(sums) {
            for (index, group) in groups.iter().enumerate() {
                let quants = &block.quants[index * GROUP..][..GROUP];
                for (lane, total) in lanes.iter_mut().enumerate() {
                    let bytes = lane * 4..lane * 4 + 4;
                    let pairs = quants[bytes.clone()].iter().zip(&group.quants[n][bytes]);
                    let product: i32 = pairs.map(|(weight, value)| i32::from(*weight) * i32::from(*value)).sum();
                    *total += product as f32 * (block.scales[index * 2 + lane / 4] * group.scales[n]);
                }
            }
            if block.has_offsets {
                for (offsets, sums) in block.offsets.chunks_exact(LANES).zip(sums) {
                    for (total, (offset, sum)) in lanes.iter_mut().zip(offsets.iter().zip(&sums[n])) {
                        *total += offset * sum;
                    }
                }
            }
        }
        const { assert!(BLOCK.is_multiple_of(GROUP) && GROUP == 2 * SUBGROUP) }
        reduce(lanes)
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use super::{BLOCK, GROUP, Half, Instructions, LANES, RoundedRows, SUBGROUP, UnpackedBlock, Work, reduce};
    use std::arch::x86_64::{
        __m128i, __m256, __m256i, _mm_load_sd, _mm_loadu_si128, _mm256_abs_epi8, _mm256_broadcastsd_pd, _mm256_castpd_ps,
        _mm256_castsi256_ps, _mm256_cvtepi32_ps, _mm256_cvtepu16_epi32, _mm256_cvtph_ps, _mm256_fmadd_ps, _mm256_loadu_ps,
        _mm256_loadu_si256, _mm256_madd_epi16, _mm256_maddubs_epi16, _mm256_mul_ps, _mm256_permutevar_ps, _mm256_set1_epi16,
        _mm256_set1_ps, _mm256_setr_epi32, _mm256_setzero_ps, _mm256_setzero_si256, _mm256_sign_epi8, _mm256_slli_epi32,
        _mm256_storeu_ps,
    };

    /// Values of a row that are summed in registers while all rows go by.
    const ACCUMULATED: usize = 4;

    #[target_feature(enable = "avx2,fma,f16c")]
    fn store(value: __m256) -> [f32; LANES] {
        let mut lanes = [0.0; LANES];
        // SAFETY: the array has room for the eight lanes.
        unsafe { _mm256_storeu_ps(lanes.as_mut_ptr(), value) };
        lanes
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    fn load(values: &[f32; LANES]) -> __m256 {
        // SAFETY: the array has eight lanes.
        unsafe { _mm256_loadu_ps(values.as_ptr()) }
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    fn load_group(bytes: &[i8; GROUP]) -> __m256i {
        // SAFETY: the array has 32 bytes.
        unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
    }

    /// The first of two values four times, then the second.
    #[target_feature(enable = "avx2,fma,f16c")]
    fn load_pair(values: &[f32; 2]) -> __m256 {
        // SAFETY: the array has the 64 bits that are read, at any alignment.
        let pair = unsafe { _mm_load_sd(values.as_ptr().cast()) };
        let pairs = _mm256_castpd_ps(_mm256_broadcastsd_pd(pair));
        _mm256_permutevar_ps(pairs, _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1))
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    fn widen<const BRAIN: bool>(bits: __m128i) -> __m256 {
        if BRAIN { _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(bits))) } else { _mm256_cvtph_ps(bits) }
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    fn load_halves(bits: &[u16; LANES]) -> __m128i {
        // SAFETY: the array has 16 bytes.
        unsafe { _mm_loadu_si128(bits.as_ptr().cast()) }
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    pub fn widen_halves(from: &[u16], into: &mut [f32]) {
        let (chunks, rest) = from.as_chunks::<LANES>();
        let (into, into_rest) = into.as_chunks_mut::<LANES>();
        for (into, bits) in into.iter_mut().zip(chunks) {
            *into = store(widen::<false>(load_halves(bits)));
        }
        for (into, bits) in into_rest.iter_mut().zip(rest) {
            *into = Half::Ieee.value(*bits);
        }
    }

    /// The sums of the first `whole` products; `left` loads eight values of a row from a place on. Every slice of
    /// `right` has `whole` values at least.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn sums<const M: usize, const N: usize>(
        whole: usize,
        left: impl Fn(usize, usize) -> __m256,
        right: [&[f32]; N],
    ) -> [[__m256; N]; M] {
        let mut sums = [[_mm256_setzero_ps(); N]; M];
        let mut at = 0;
        while at < whole {
            // SAFETY: `at + LANES <= whole`, which every slice has.
            let r = right.map(|slice| unsafe { _mm256_loadu_ps(slice.as_ptr().add(at)) });
            for (m, sums) in sums.iter_mut().enumerate() {
                let l = left(m, at);
                for (sum, r) in sums.iter_mut().zip(r) {
                    *sum = _mm256_fmadd_ps(l, r, *sum);
                }
            }
            at += LANES;
        }
        sums
    }

    /// Every slice has the length of `left[0]`.
    #[target_feature(enable = "avx2,fma,f16c")]
    pub unsafe fn dots<const M: usize, const N: usize>(left: [&[f32]; M], right: [&[f32]; N]) -> [[f32; N]; M] {
        let whole = left[0].len() / LANES * LANES;
        // SAFETY: `at + LANES <= whole`, which every slice has.
        let row = |m: usize, at: usize| unsafe { _mm256_loadu_ps(left[m].as_ptr().add(at)) };
        // SAFETY: every slice has the length that `whole` was made of.
        let sums: [[__m256; N]; M] = unsafe { sums(whole, row, right) };
        let mut result = [[0.0; N]; M];
        for m in 0..M {
            for n in 0..N {
                let tail: f32 = left[m][whole..].iter().zip(&right[n][whole..]).map(|(l, r)| l * r).sum();
                result[m][n] = reduce(store(sums[m][n])) + tail;
            }
        }
        result
    }

    /// Every slice has the length of `left[0]`.
    #[target_feature(enable = "avx2,fma,f16c")]
    pub unsafe fn half_dots<const BRAIN: bool, const M: usize, const N: usize>(
        left: [&[u16]; M],
        right: [&[f32]; N],
    ) -> [[f32; N]; M] {
        let half = if BRAIN { Half::Brain } else { Half::Ieee };
        let whole = left[0].len() / LANES * LANES;
        // SAFETY: `at + LANES <= whole`, which every slice has.
        let row = |m: usize, at: usize| widen::<BRAIN>(unsafe { _mm_loadu_si128(left[m].as_ptr().add(at).cast()) });
        // SAFETY: every slice has the length that `whole` was made of.
        let sums: [[__m256; N]; M] = unsafe { sums(whole, row, right) };
        let mut result = [[0.0; N]; M];
        for m in 0..M {
            for n in 0..N {
                let tail: f32 = left[m][whole..].iter().zip(&right[n][whole..]).map(|(l, r)| half.value(*l) * r).sum();
                result[m][n] = reduce(store(sums[m][n])) + tail;
            }
        }
        result
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    pub fn run(work: impl Work) {
        work.run(Instructions::Avx2);
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    pub fn accumulate(into: &mut [f32], rows: &[f32], weights: &[f32]) {
        let width = into.len();
        let (parts, rest) = into.as_chunks_mut::<{ ACCUMULATED * LANES }>();
        for (index, part) in parts.iter_mut().enumerate() {
            let (part, _) = part.as_chunks_mut::<LANES>();
            let mut sums: [__m256; ACCUMULATED] = std::array::from_fn(|lane| load(&part[lane]));
            for (row, weight) in rows.chunks_exact(width).zip(weights) {
                let (values, _) = row[index * ACCUMULATED * LANES..][..ACCUMULATED * LANES].as_chunks::<LANES>();
                for lane in 0..ACCUMULATED {
                    sums[lane] = _mm256_fmadd_ps(_mm256_set1_ps(*weight), load(&values[lane]), sums[lane]);
                }
            }
            for (lane, sum) in part.iter_mut().zip(sums) {
                *lane = store(sum);
            }
        }
        let done = width - rest.len();
        for (row, weight) in rows.chunks_exact(width).zip(weights) {
            for (sum, value) in rest.iter_mut().zip(&row[done..]) {
                *sum = weight.mul_add(*value, *sum);
            }
        }
    }

    /// Eight sums of four products each: lane `i` covers bytes `4 i .. 4 i + 4`. `sizes` are those of the weights.
    #[target_feature(enable = "avx2,fma,f16c")]
    fn products(weights: __m256i, sizes: __m256i, activations: __m256i) -> __m256 {
        // One factor must be unsigned: move the weight's sign to the activation. 128 × 127 × 2 fits i16.
        let pairs = _mm256_maddubs_epi16(sizes, _mm256_sign_epi8(activations, weights));
        _mm256_cvtepi32_ps(_mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    pub fn block_products<const M: usize, const N: usize>(weights: [&[UnpackedBlock]; M], rows: &RoundedRows<N>) -> [[f32; N]; M] {
        let mut totals = [[_mm256_setzero_ps(); N]; M];
        for (index, groups) in rows.groups.chunks(BLOCK / GROUP).enumerate() {
            let blocks: [&UnpackedBlock; M] = std::array::from_fn(|m| &weights[m][index]);
            for (here, group) in groups.iter().enumerate().take(BLOCK / GROUP) {
                let mut activations = [_mm256_setzero_si256(); N];
                for (values, quants) in activations.iter_mut().zip(&group.quants) {
                    *values = load_group(quants);
                }
                for m in 0..M {
                    let quants = load_group(&blocks[m].quants.as_chunks().0[here]);
                    let sizes = _mm256_abs_epi8(quants);
                    let scales = load_pair(&blocks[m].scales.as_chunks().0[here]);
                    for n in 0..N {
                        let scale = _mm256_mul_ps(scales, _mm256_set1_ps(group.scales[n]));
                        totals[m][n] = _mm256_fmadd_ps(products(quants, sizes, activations[n]), scale, totals[m][n]);
                    }
                }
            }
            let sums = &rows.sums[index * (BLOCK / SUBGROUP / LANES)..];
            for m in 0..M {
                if blocks[m].has_offsets {
                    for (offsets, sums) in blocks[m].offsets.as_chunks().0.iter().zip(sums) {
                        for n in 0..N {
                            totals[m][n] = _mm256_fmadd_ps(load(offsets), load(&sums[n]), totals[m][n]);
                        }
                    }
                }
            }
        }
        // Loops and not closures, which would be calls.
        let mut result = [[0.0; N]; M];
        for (result, totals) in result.iter_mut().zip(totals) {
            for (result, total) in result.iter_mut().zip(totals) {
                *result = reduce(store(total));
            }
        }
        result
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
