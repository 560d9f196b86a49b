//! Weight matrices and their product with a batch of activations.
//!
//! Invariants: every output element is summed in the order fixed by [`crate::kernel`], whatever
//! the batch size and the number of threads; work is split by weight rows only, and only when
//! the caller runs in a thread pool.
//!
//! Deliberately absent: general tensors. A decoder needs one operation, `Y = X Wᵀ`.

use rayon::prelude::*;

use crate::kernel::{self, BLOCK, GROUP, GroupRange, Instructions, LANES, QuantizedRow, UnpackedBlock, Work};
use crate::quant::{BlockFormat, bfloat_to_f32, half_to_f32};

/// Weight rows computed together.
const TILE_ROWS: usize = 4;
/// Activation rows computed together with f32 weights.
const TILE_COLUMNS: usize = 3;
/// Activation rows computed together with quantized weights.
const QUANTIZED_TILE_COLUMNS: usize = 4;
/// Activations kept in the cache while the weights stream past, in values.
const ACTIVATION_VALUES_CACHED: usize = 64 * 1024;
/// Multiplications below which a second thread costs more than it saves.
const PARALLEL_PRODUCTS_MIN: usize = 1 << 20;
/// Weight rows turned at a time.
const TRANSPOSED_ROWS: usize = 16;
/// Weight rows handed to a thread at a time.
const ROWS_PER_TASK: usize = 32;

/// The weights of a matrix, row by row.
pub enum Storage {
    F32(Vec<f32>),
    Bf16(Vec<u16>),
    F16(Vec<u16>),
    Blocks(BlockFormat, Vec<u8>),
}

/// `rows × columns` weights; `rows` outputs from `columns` inputs.
pub struct Matrix {
    rows: usize,
    columns: usize,
    storage: Storage,
}

/// A batch of activations, with its 8-bit form made once if any matrix needs it.
pub struct Activations<'a> {
    values: &'a [f32],
    width: usize,
    quantized: Vec<QuantizedRow>,
}

impl<'a> Activations<'a> {
    /// `values` holds whole rows of `width`; `quantize` where a quantized matrix will read them.
    pub fn new(values: &'a [f32], width: usize, quantize: Quantize) -> Self {
        let quantized = match quantize {
            Quantize::No => Vec::new(),
            Quantize::Yes => values
                .chunks_exact(width)
                .map(|row| {
                    let mut quantized = QuantizedRow::default();
                    quantized.assign(row);
                    quantized
                })
                .collect(),
        };
        Self { values, width, quantized }
    }

    fn count(&self) -> usize {
        self.values.len() / self.width
    }

    fn row(&self, index: usize) -> &[f32] {
        &self.values[index * self.width..][..self.width]
    }
}

/// Whether activations are also needed in 8 bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Quantize {
    Yes,
    No,
}

impl Matrix {
    /// `None` if the storage does not hold exactly `rows × columns` weights.
    pub fn new(rows: usize, columns: usize, storage: Storage) -> Option<Self> {
        let count = rows.checked_mul(columns)?;
        let fits = match &storage {
            Storage::F32(values) => values.len() == count,
            Storage::Bf16(values) | Storage::F16(values) => values.len() == count,
            Storage::Blocks(format, bytes) => {
                columns.is_multiple_of(format.weights()) && bytes.len() == count / format.weights() * format.bytes()
            }
        };
        fits.then_some(Self { rows, columns, storage })
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Whether products with this matrix read the 8-bit form of activations.
    pub fn quantize(&self) -> Quantize {
        match self.storage {
            Storage::Blocks(..) => Quantize::Yes,
            Storage::F32(_) | Storage::Bf16(_) | Storage::F16(_) => Quantize::No,
        }
    }

    /// Bytes the weights take.
    pub fn bytes(&self) -> usize {
        match &self.storage {
            Storage::F32(values) => values.len() * 4,
            Storage::Bf16(values) | Storage::F16(values) => values.len() * 2,
            Storage::Blocks(_, bytes) => bytes.len(),
        }
    }

    /// Turns 16-bit weights into f32: twice the memory, less work per product.
    #[must_use]
    pub fn widened(self) -> Self {
        let storage = match self.storage {
            Storage::Bf16(values) => Storage::F32(values.into_iter().map(bfloat_to_f32).collect()),
            Storage::F16(values) => Storage::F32(values.into_iter().map(half_to_f32).collect()),
            storage @ (Storage::F32(_) | Storage::Blocks(..)) => storage,
        };
        Self { storage, ..self }
    }

    /// Writes row `index` as f32, as an embedding look-up does. `into` has `columns` values.
    pub fn copy_row(&self, index: usize, into: &mut [f32]) {
        let range = index * self.columns..(index + 1) * self.columns;
        match &self.storage {
            Storage::F32(values) => into.copy_from_slice(&values[range]),
            Storage::Bf16(values) => widen(&values[range], bfloat_to_f32, into),
            Storage::F16(values) => widen(&values[range], half_to_f32, into),
            Storage::Blocks(format, bytes) => {
                let mut block = UnpackedBlock::new();
                let row = self.row_bytes(*format);
                let mut done = 0;
                for part in bytes[index * row..][..row].chunks(BLOCK / format.weights() * format.bytes()) {
                    let count = format.unpack(part, &mut block);
                    for (at, value) in into[done..done + count].iter_mut().enumerate() {
                        let sub = at / kernel::SUBGROUP;
                        *value = block.scales[sub].mul_add(f32::from(block.quants[at]), block.offsets[sub]);
                    }
                    done += count;
                }
            }
        }
    }

    fn row_bytes(&self, format: BlockFormat) -> usize {
        self.columns / format.weights() * format.bytes()
    }

    /// `output[n][r] = Σ input[n][c] · weight[r][c]`; `output` has one row of `rows` per input row.
    pub fn multiply(&self, input: &Activations<'_>, output: &mut [f32]) {
        let count = input.count();
        assert_eq!(input.width, self.columns, "the activations' width is the matrix's");
        assert_eq!(output.len(), count * self.rows, "one output row per activation row");
        if count == 1 {
            return self.multiply_transposed(input, output);
        }
        let mut transposed = vec![0.0; output.len()];
        self.multiply_transposed(input, &mut transposed);
        // Blocks of rows keep what is read and written in the cache.
        for (index, rows) in transposed.chunks(TRANSPOSED_ROWS * count).enumerate() {
            for (column, output) in output.chunks_exact_mut(self.rows).enumerate() {
                for (value, row) in output[index * TRANSPOSED_ROWS..].iter_mut().zip(rows.chunks_exact(count)) {
                    *value = row[column];
                }
            }
        }
    }

    /// As [`Self::multiply`] with `output[r][n]`, so that threads write apart.
    fn multiply_transposed(&self, input: &Activations<'_>, output: &mut [f32]) {
        let count = input.count();
        let task = |(index, part): (usize, &mut [f32])| self.multiply_rows(index * ROWS_PER_TASK, input, part);
        if self.rows * self.columns * count < PARALLEL_PRODUCTS_MIN || rayon::current_thread_index().is_none() {
            output.chunks_mut(ROWS_PER_TASK * count).enumerate().for_each(task);
        } else {
            output.par_chunks_mut(ROWS_PER_TASK * count).enumerate().for_each(task);
        }
    }

    fn multiply_rows(&self, first: usize, input: &Activations<'_>, output: &mut [f32]) {
        let count = input.count();
        let rows = output.len() / count;
        let range = first * self.columns..(first + rows) * self.columns;
        match &self.storage {
            Storage::F32(values) => multiply_f32(&values[range], input, output),
            Storage::Bf16(values) => {
                let mut wide = vec![0.0; rows * self.columns];
                widen(&values[range], bfloat_to_f32, &mut wide);
                multiply_f32(&wide, input, output);
            }
            Storage::F16(values) => {
                let mut wide = vec![0.0; rows * self.columns];
                widen(&values[range], half_to_f32, &mut wide);
                multiply_f32(&wide, input, output);
            }
            Storage::Blocks(format, bytes) => {
                let row_bytes = self.row_bytes(*format);
                let weights = &bytes[first * row_bytes..][..rows * row_bytes];
                kernel::specialized(QuantizedProduct { format: *format, weights, row_bytes, rows: &input.quantized, output });
            }
        }
    }
}

/// 16-bit weights to f32.
struct Widening<'a, F> {
    from: &'a [u16],
    convert: F,
    into: &'a mut [f32],
}

impl<F: Fn(u16) -> f32> Work for Widening<'_, F> {
    #[inline(always)]
    fn run(self, _: Instructions) {
        for (target, source) in self.into.iter_mut().zip(self.from) {
            *target = (self.convert)(*source);
        }
    }
}

fn widen(from: &[u16], convert: impl Fn(u16) -> f32, into: &mut [f32]) {
    kernel::specialized(Widening { from, convert, into });
}

/// `output[r][n]` for whole rows of f32 `weights`.
fn multiply_f32(weights: &[f32], input: &Activations<'_>, output: &mut [f32]) {
    let (width, count) = (input.width, input.count());
    let columns_cached = (ACTIVATION_VALUES_CACHED / width).max(TILE_COLUMNS).next_multiple_of(TILE_COLUMNS);
    for from in (0..count).step_by(columns_cached) {
        let to = (from + columns_cached).min(count);
        for (weights, output) in weights.chunks(TILE_ROWS * width).zip(output.chunks_mut(TILE_ROWS * count)) {
            if weights.len() == TILE_ROWS * width {
                tile_rows::<TILE_ROWS>(weights, input, from..to, output);
            } else {
                for (weights, output) in weights.chunks_exact(width).zip(output.chunks_exact_mut(count)) {
                    tile_rows::<1>(weights, input, from..to, output);
                }
            }
        }
    }
}

fn tile_rows<const M: usize>(weights: &[f32], input: &Activations<'_>, columns: std::ops::Range<usize>, output: &mut [f32]) {
    let count = input.count();
    let left: [&[f32]; M] = std::array::from_fn(|m| &weights[m * input.width..][..input.width]);
    let mut at = columns.start;
    while at + TILE_COLUMNS <= columns.end {
        let tile = kernel::dots(left, [input.row(at), input.row(at + 1), input.row(at + 2)]);
        for (m, sums) in tile.iter().enumerate() {
            output[m * count + at..][..TILE_COLUMNS].copy_from_slice(sums);
        }
        at += TILE_COLUMNS;
    }
    for at in at..columns.end {
        for (m, sums) in kernel::dots(left, [input.row(at)]).iter().enumerate() {
            output[m * count + at] = sums[0];
        }
    }
}

/// `output[r][n]` for whole rows of quantized `weights`.
struct QuantizedProduct<'a> {
    format: BlockFormat,
    weights: &'a [u8],
    row_bytes: usize,
    rows: &'a [QuantizedRow],
    output: &'a mut [f32],
}

impl Work for QuantizedProduct<'_> {
    #[inline(always)]
    fn run(self, with: Instructions) {
        let mut sums = vec![[0.0_f32; LANES]; self.rows.len()];
        let mut block = UnpackedBlock::new();
        let (row_tiles, row_rest) = self.rows.as_chunks::<QUANTIZED_TILE_COLUMNS>();
        for (weights, output) in self.weights.chunks_exact(self.row_bytes).zip(self.output.chunks_exact_mut(self.rows.len())) {
            sums.fill([0.0; LANES]);
            let mut first_group = 0;
            for part in weights.chunks(BLOCK / self.format.weights() * self.format.bytes()) {
                let groups = self.format.unpack(part, &mut block) / GROUP;
                let range = GroupRange { first_group, groups };
                let (sum_tiles, sum_rest) = sums.as_chunks_mut::<QUANTIZED_TILE_COLUMNS>();
                for (rows, sums) in row_tiles.iter().zip(sum_tiles) {
                    kernel::add_block(with, &block, rows.each_ref(), range, sums);
                }
                for (row, sums) in row_rest.iter().zip(sum_rest) {
                    kernel::add_block(with, &block, [row], range, std::array::from_mut(sums));
                }
                first_group += groups;
            }
            for (output, sums) in output.iter_mut().zip(&sums) {
                *output = kernel::reduce(*sums);
            }
        }
    }
}
