//! Block formats of quantized weights as they stand in GGUF files, and their unpacking.
//!
//! Source of the layouts: the block structures of the ggml project's public header and the
//! reference decoder of its `gguf` Python package, against which the tests compare.
//!
//! Invariants: weights stay in memory as they are in the file; unpacking is exact (integers,
//! one scale and one offset per 16 weights, both formed in f32).
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

    fn unpack_groups(self, blocks: &[u8], into: &mut UnpackedBlock) -> usize {
        let mut unpacked = 0;
        for (index, block) in blocks.chunks_exact(self.bytes()).take(BLOCK / GROUP).enumerate() {
            let quants: &mut [i8; GROUP] =
                (&mut into.quants[index * GROUP..][..GROUP]).try_into().expect("a slice of 32 is an array of 32");
            let scale = half_at(block, 0);
            let mut offset = 0.0;
            match self {
                Self::Q4_0 => unpack_nibbles(&block[2..18], 0, 8, quants),
                Self::Q4_1 => {
                    offset = half_at(block, 2);
                    unpack_nibbles(&block[4..20], 0, 0, quants);
                }
                Self::Q5_0 => unpack_nibbles(&block[6..22], word_at(block, 2), 16, quants),
                Self::Q5_1 => {
                    offset = half_at(block, 2);
                    unpack_nibbles(&block[8..24], word_at(block, 4), 0, quants);
                }
                Self::Q8_0 | Self::Q2K | Self::Q3K | Self::Q4K | Self::Q5K | Self::Q6K => {
                    for (quant, byte) in quants.iter_mut().zip(&block[2..34]) {
                        *quant = *byte as i8;
                    }
                }
            }
            into.scales[index * 2..index * 2 + 2].fill(scale);
            into.offsets[index * 2..index * 2 + 2].fill(offset);
            unpacked += GROUP;
        }
        unpacked
    }
}

/// The f32 value of an IEEE half.
pub fn half_to_f32(half: u16) -> f32 {
    let magnitude = u32::from(half & 0x7fff) << 13;
    let sign = u32::from(half & 0x8000) << 16;
    // Multiplying by 2^112 moves the exponent's bias and normalizes what was subnormal.
    let finite = f32::from_bits(magnitude) * f32::from_bits(0x7780_0000);
    let bits = if magnitude >= 0x0f80_0000 { magnitude | 0x7f80_0000 } else { finite.to_bits() };
    f32::from_bits(bits | sign)
}

/// The f32 value of a bfloat16.
pub fn bfloat_to_f32(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

fn half_at(bytes: &[u8], at: usize) -> f32 {
    half_to_f32(u16::from_le_bytes([bytes[at], bytes[at + 1]]))
}

fn word_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Low nibbles first, then high ones; `fifth` holds one more bit per weight.
fn unpack_nibbles(bytes: &[u8], fifth: u32, minus: i8, into: &mut [i8; GROUP]) {
    let (low, high) = into.split_at_mut(SUBGROUP);
    for (byte, (low, high)) in bytes.iter().zip(low.iter_mut().zip(high.iter_mut())) {
        *low = (byte & 15) as i8 - minus;
        *high = (byte >> 4) as i8 - minus;
    }
    if fifth != 0 {
        for (index, quant) in into.iter_mut().enumerate() {
            *quant += (((fifth >> index) & 1) << 4) as i8;
        }
    }
}

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

/// The eight 6-bit scales and minima of Q4_K and Q5_K, each for 32 weights.
fn unpack_six_bit_scales(block: &[u8], into: &mut UnpackedBlock) {
    let (scale, minimum) = (half_at(block, 0), half_at(block, 2));
    let packed = &block[4..16];
    for index in 0..8 {
        let (six_scale, six_minimum) = if index < 4 {
            (packed[index] & 63, packed[index + 4] & 63)
        } else {
            ((packed[index + 4] & 15) | ((packed[index - 4] >> 6) << 4), (packed[index + 4] >> 4) | ((packed[index] >> 6) << 4))
        };
        into.scales[index * 2..index * 2 + 2].fill(scale * f32::from(six_scale));
        into.offsets[index * 2..index * 2 + 2].fill(-(minimum * f32::from(six_minimum)));
    }
}

fn unpack_q4k(block: &[u8], into: &mut UnpackedBlock) {
    unpack_six_bit_scales(block, into);
    let (bytes, _) = block[16..144].as_chunks::<32>();
    let (targets, _) = into.quants.as_chunks_mut::<64>();
    for (bytes, target) in bytes.iter().zip(targets) {
        for at in 0..32 {
            target[at] = (bytes[at] & 15) as i8;
            target[at + 32] = (bytes[at] >> 4) as i8;
        }
    }
}

fn unpack_q5k(block: &[u8], into: &mut UnpackedBlock) {
    unpack_six_bit_scales(block, into);
    let high = &block[16..48];
    let (bytes, _) = block[48..176].as_chunks::<32>();
    let (targets, _) = into.quants.as_chunks_mut::<64>();
    for (index, (bytes, target)) in bytes.iter().zip(targets).enumerate() {
        for at in 0..32 {
            let bits = high[at] >> (2 * index);
            target[at] = ((bytes[at] & 15) | ((bits & 1) << 4)) as i8;
            target[at + 32] = ((bytes[at] >> 4) | ((bits & 2) << 3)) as i8;
        }
    }
}

fn unpack_q6k(block: &[u8], into: &mut UnpackedBlock) {
    let (low, high, scales) = (&block[..128], &block[128..192], &block[192..208]);
    let scale = half_at(block, 208);
    for (target, packed) in into.scales.iter_mut().zip(scales) {
        *target = scale * f32::from(*packed as i8);
    }
    into.offsets.fill(0.0);
    let (targets, _) = into.quants.as_chunks_mut::<128>();
    for ((target, low), high) in targets.iter_mut().zip(low.chunks_exact(64)).zip(high.chunks_exact(32)) {
        for at in 0..32 {
            let bits = high[at];
            target[at] = ((low[at] & 15) | ((bits & 3) << 4)) as i8 - 32;
            target[at + 32] = ((low[at + 32] & 15) | (((bits >> 2) & 3) << 4)) as i8 - 32;
            target[at + 64] = ((low[at] >> 4) | (((bits >> 4) & 3) << 4)) as i8 - 32;
            target[at + 96] = ((low[at + 32] >> 4) | ((bits >> 6) << 4)) as i8 - 32;
        }
    }
}
