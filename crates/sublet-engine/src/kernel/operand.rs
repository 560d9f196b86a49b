//! What integer products read: weights as they are unpacked, activations as they are rounded.

use super::{BLOCK, GROUP, Instructions, LANES, SUBGROUP, Work, specialized};

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
