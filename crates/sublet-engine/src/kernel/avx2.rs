//! The loops for processors with AVX2, FMA and F16C.

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
pub unsafe fn half_dots<const BRAIN: bool, const M: usize, const N: usize>(left: [&[u16]; M], right: [&[f32]; N]) -> [[f32; N]; M] {
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
