//! Block formats of quantized weights as they stand in GGUF files, and their unpacking.
//!
//! Source of the layouts: the block structures of the ggml project's public header and the
//! reference decoder of its `gguf` Python package, against which the tests compare.
//!
//! Invariants: weights stay in memory as they are in the file; unpacking is exact (integers,
//! one scale and one offset per 16 weights, both formed in f32).
//!
//! Unpacking is inlined into the loop that uses it, which is compiled for the processor's
//! instructions ([`crate::kernel::specialized`]).
//!
//! Deliberately absent: quantizing weights, importance-matrix formats (IQ*), ternary formats.

use crate::kernel::{BLOCK, GROUP, SUBGROUP, UnpackedBlock};

/// How a tensor's weights are stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BlockFormat {
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2K,
    Q3K,
    Q4K,
    Q5K,
    Q6K,
}

impl BlockFormat {
    /// Weights in one block.
    pub const fn weights(self) -> usize {
        match self {
            Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 | Self::Q8_0 => GROUP,
            Self::Q2K | Self::Q3K | Self::Q4K | Self::Q5K | Self::Q6K => BLOCK,
        }
    }

    /// Bytes of one block.
    pub const fn bytes(self) -> usize {
        match self {
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q5_1 => 24,
            Self::Q8_0 => 34,
            Self::Q2K => 84,
            Self::Q3K => 110,
            Self::Q4K => 144,
            Self::Q5K => 176,
            Self::Q6K => 210,
        }
    }

    /// Unpacks up to [`BLOCK`] weights from whole blocks and returns how many.
    #[inline(always)]
    pub fn unpack(self, blocks: &[u8], into: &mut UnpackedBlock) -> usize {
        into.has_offsets = matches!(self, Self::Q4_1 | Self::Q5_1 | Self::Q2K | Self::Q4K | Self::Q5K);
        match self {
            Self::Q2K => unpack_q2k(blocks, into),
            Self::Q3K => unpack_q3k(blocks, into),
            Self::Q4K => unpack_q4k(blocks, into),
            Self::Q5K => unpack_q5k(blocks, into),
            Self::Q6K => unpack_q6k(blocks, into),
            Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 | Self::Q8_0 => return self.unpack_groups(blocks, into),
        }
        BLOCK
    }

    #[inline(always)]
    fn unpack_groups(self, blocks: &[u8], into: &mut UnpackedBlock) -> usize {
        let none = 0;
        match self {
            Self::Q4_0 => groups(blocks, into, |block: &[u8; 18], quants| {
                unpack_nibbles(&block[2..18], 0, 8, quants);
                (bits_at(block, 0), none)
            }),
            Self::Q4_1 => groups(blocks, into, |block: &[u8; 20], quants| {
                unpack_nibbles(&block[4..20], 0, 0, quants);
                (bits_at(block, 0), bits_at(block, 2))
            }),
            Self::Q5_0 => groups(blocks, into, |block: &[u8; 22], quants| {
                unpack_nibbles(&block[6..22], word_at(block, 2), 16, quants);
                (bits_at(block, 0), none)
            }),
            Self::Q5_1 => groups(blocks, into, |block: &[u8; 24], quants| {
                unpack_nibbles(&block[8..24], word_at(block, 4), 0, quants);
                (bits_at(block, 0), bits_at(block, 2))
            }),
            Self::Q8_0 | Self::Q2K | Self::Q3K | Self::Q4K | Self::Q5K | Self::Q6K => {
                groups(blocks, into, |block: &[u8; 34], quants| {
                    *quants = each(|at| block[2 + at]);
                    (bits_at(block, 0), none)
                })
            }
        }
    }
}

/// Unpacks up to eight blocks of one group each; `unpack` gives the halves that are a block's scale and offset.
#[inline(always)]
fn groups<const BYTES: usize>(
    blocks: &[u8],
    into: &mut UnpackedBlock,
    unpack: impl Fn(&[u8; BYTES], &mut [i8; GROUP]) -> (u16, u16),
) -> usize {
    let (mut scales, mut offsets) = ([0; BLOCK / GROUP], [0; BLOCK / GROUP]);
    let (blocks, _) = blocks.as_chunks::<BYTES>();
    for (index, (block, quants)) in blocks.iter().zip(into.quants.as_chunks_mut().0).enumerate().take(BLOCK / GROUP) {
        (scales[index], offsets[index]) = unpack(block, quants);
    }
    // All at once: eight conversions take as many instructions as one.
    into.scales = twice(scales.map(half_to_f32));
    into.offsets = twice(offsets.map(half_to_f32));
    blocks.len().min(BLOCK / GROUP) * GROUP
}

/// Each value for both halves of a group.
#[inline(always)]
fn twice(values: [f32; BLOCK / GROUP]) -> [f32; BLOCK / SUBGROUP] {
    let mut pairs = [0.0; BLOCK / SUBGROUP];
    for (pair, value) in pairs.as_chunks_mut::<2>().0.iter_mut().zip(values) {
        *pair = [value; 2];
    }
    pairs
}

/// The f32 value of an IEEE half.
#[inline(always)]
pub fn half_to_f32(half: u16) -> f32 {
    let magnitude = u32::from(half & 0x7fff) << 13;
    let sign = u32::from(half & 0x8000) << 16;
    // Multiplying by 2^112 moves the exponent's bias and normalizes what was subnormal.
    let finite = f32::from_bits(magnitude) * f32::from_bits(0x7780_0000);
    let bits = if magnitude >= 0x0f80_0000 { magnitude | 0x7f80_0000 } else { finite.to_bits() };
    f32::from_bits(bits | sign)
}

/// The f32 value of a bfloat16.
#[inline(always)]
pub fn bfloat_to_f32(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

#[inline(always)]
fn half_at(bytes: &[u8], at: usize) -> f32 {
    half_to_f32(bits_at(bytes, at))
}

#[inline(always)]
fn bits_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

#[inline(always)]
fn word_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Computes in a local array, which the compiler knows to be apart from what is read.
#[inline(always)]
fn each<const N: usize>(value: impl Fn(usize) -> u8) -> [i8; N] {
    let mut values = [0; N];
    for (at, slot) in values.iter_mut().enumerate() {
        *slot = value(at) as i8;
    }
    values
}

/// Low nibbles first, then high ones; `fifth` holds one more bit per weight.
#[inline(always)]
fn unpack_nibbles(bytes: &[u8], fifth: u32, minus: u8, into: &mut [i8; GROUP]) {
    let bytes: [u8; SUBGROUP] = bytes.try_into().expect("16 bytes hold 32 nibbles");
    let (low, high) = into.split_at_mut(SUBGROUP);
    low.copy_from_slice(&each::<SUBGROUP>(|at| (bytes[at] & 15).wrapping_sub(minus)));
    high.copy_from_slice(&each::<SUBGROUP>(|at| (bytes[at] >> 4).wrapping_sub(minus)));
    if fifth != 0 {
        for (index, quant) in into.iter_mut().enumerate() {
            *quant += (((fifth >> index) & 1) << 4) as i8;
        }
    }
}

#[inline(always)]
fn unpack_q2k(block: &[u8], into: &mut UnpackedBlock) {
    let (scales, quants) = (&block[..16], &block[16..80]);
    let (scale, minimum) = (half_at(block, 80), half_at(block, 82));
    for (index, packed) in scales.iter().enumerate() {
        into.scales[index] = scale * f32::from(packed & 15);
        into.offsets[index] = -(minimum * f32::from(packed >> 4));
    }
    for (index, quant) in into.quants.iter_mut().enumerate() {
        let (half, part, at) = (index / 128, index % 128 / 32, index % 32);
        *quant = ((quants[half * 32 + at] >> (2 * part)) & 3) as i8;
    }
}

#[inline(always)]
fn unpack_q3k(block: &[u8], into: &mut UnpackedBlock) {
    let (high, quants, packed) = (&block[..32], &block[32..96], &block[96..108]);
    let scale = half_at(block, 108);
    for index in 0..16 {
        let low = if index < 8 { packed[index] & 15 } else { packed[index - 8] >> 4 };
        let top = (packed[8 + index % 4] >> (2 * (index / 4))) & 3;
        into.scales[index] = scale * f32::from((low | (top << 4)) as i8 - 32);
    }
    into.offsets.fill(0.0);
    for (index, quant) in into.quants.iter_mut().enumerate() {
        let (half, part, at) = (index / 128, index % 128 / 32, index % 32);
        let low = ((quants[half * 32 + at] >> (2 * part)) & 3) as i8;
        let present = (high[at] >> (half * 4 + part)) & 1;
        *quant = low - if present == 1 { 0 } else { 4 };
    }
}

/// The eight 6-bit scales and minima of Q4_K and Q5_K, each for 32 weights: four bytes at a
/// time, the low six bits of the first eight, then four bits of the last four with the top two
/// of the first eight.
#[inline(always)]
fn unpack_six_bit_scales(block: &[u8], into: &mut UnpackedBlock) {
    let (first, second, third) = (word_at(block, 4), word_at(block, 8), word_at(block, 12));
    let (low_six, low_four, low_two) = (0x3f3f_3f3f, 0x0f0f_0f0f, 0x0303_0303);
    let scales = [first & low_six, (third & low_four) | ((first >> 6) & low_two) << 4];
    let minima = [second & low_six, ((third >> 4) & low_four) | ((second >> 6) & low_two) << 4];
    into.scales = spread(scales, half_at(block, 0));
    into.offsets = spread(minima, -half_at(block, 2));
}

/// Eight bytes times a factor, each twice.
#[inline(always)]
fn spread([low, high]: [u32; 2], factor: f32) -> [f32; BLOCK / SUBGROUP] {
    let bytes = (u64::from(low) | u64::from(high) << 32).to_le_bytes();
    twice(bytes.map(|byte| factor * f32::from(byte)))
}

#[inline(always)]
fn unpack_q4k(block: &[u8], into: &mut UnpackedBlock) {
    unpack_six_bit_scales(block, into);
    let (bytes, _) = block[16..144].as_chunks::<32>();
    let (targets, _) = into.quants.as_chunks_mut::<32>();
    for (bytes, target) in bytes.iter().zip(targets.as_chunks_mut::<2>().0) {
        let bytes = *bytes;
        target[0] = each(|at| bytes[at] & 15);
        target[1] = each(|at| bytes[at] >> 4);
    }
}

#[inline(always)]
fn unpack_q5k(block: &[u8], into: &mut UnpackedBlock) {
    unpack_six_bit_scales(block, into);
    let high: [u8; 32] = block[16..48].try_into().expect("a slice of 32 is an array of 32");
    let (bytes, _) = block[48..176].as_chunks::<32>();
    let (targets, _) = into.quants.as_chunks_mut::<32>();
    for (index, (bytes, target)) in bytes.iter().zip(targets.as_chunks_mut::<2>().0).enumerate() {
        let bytes = *bytes;
        target[0] = each(|at| (bytes[at] & 15) | (((high[at] >> (2 * index)) & 1) << 4));
        target[1] = each(|at| (bytes[at] >> 4) | (((high[at] >> (2 * index)) & 2) << 3));
    }
}

#[inline(always)]
fn unpack_q6k(block: &[u8], into: &mut UnpackedBlock) {
    let (low, high, scales) = (block[..128].as_chunks::<32>().0, block[128..192].as_chunks::<32>().0, &block[192..208]);
    let scale = half_at(block, 208);
    for (target, packed) in into.scales.iter_mut().zip(scales) {
        *target = scale * f32::from(*packed as i8);
    }
    into.offsets.fill(0.0);
    let (targets, _) = into.quants.as_chunks_mut::<32>();
    for ((target, low), high) in targets.as_chunks_mut::<4>().0.iter_mut().zip(low.as_chunks::<2>().0).zip(high) {
        let ([first, second], high) = (*low, *high);
        target[0] = each(|at| ((first[at] & 15) | ((high[at] & 3) << 4)).wrapping_sub(32));
        target[1] = each(|at| ((second[at] & 15) | (((high[at] >> 2) & 3) << 4)).wrapping_sub(32));
        target[2] = each(|at| ((first[at] >> 4) | (((high[at] >> 4) & 3) << 4)).wrapping_sub(32));
        target[3] = each(|at| ((second[at] >> 4) | ((high[at] >> 6) << 4)).wrapping_sub(32));
    }
}
