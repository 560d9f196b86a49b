//! Weight matrices and their product with a batch of activations.
//!
//! Invariants: every output element is summed in the order fixed by [`crate::kernel`], whatever
//! the batch size and the number of threads; work is split by weight rows only, and only when
//! the caller runs in a thread pool.
//!
//! Deliberately absent: general tensors. A decoder needs one operation, `Y = X Wᵀ`.

use std::ops::Range;

use rayon::prelude::*;

use crate::kernel::{self, BLOCK, Half, Instructions, RoundedRows, UnpackedBlock, Work};
use crate::quant::BlockFormat;

/// Weight rows computed together.
const TILE_ROWS: usize = 4;
/// Activation rows computed together with f32 weights.
const TILE_COLUMNS: usize = 3;
/// Quantized weight rows computed together.
const QUANTIZED_TILE_ROWS: usize = 3;
/// Activation rows computed together with quantized weights.
const QUANTIZED_TILE_COLUMNS: usize = 2;
/// Activations kept in the cache while the weights stream past, in values.
const ACTIVATION_VALUES_CACHED: usize = 64 * 1024;
/// The same for activations in 8 bits.
const ROUNDED_VALUES_CACHED: usize = 192 * 1024;
/// Values below which a second thread takes longer to wake than to help.
pub const PARALLEL_VALUES_MIN: usize = 1 << 15;
/// Multiplications below which a second thread costs more than it saves.
const PARALLEL_PRODUCTS_MIN: usize = 1 << 20;
/// Rows and columns turned at a time: as many values as a line of the cache has.
const TURNED: usize = 16;
/// Weight rows handed to a thread at a time: whole tiles of both kinds.
const ROWS_PER_TASK: usize = 48;

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
    rounded: Rounded,
}

/// Activations in 8 bits: as many as can be in whole tiles, the rest alone.
#[derive(Default)]
struct Rounded {
    tiles: Vec<RoundedRows<QUANTIZED_TILE_COLUMNS>>,
    rest: Vec<RoundedRows<1>>,
}

impl Rounded {
    fn new(values: &[f32], width: usize) -> Self {
        let whole = values.len() / width / QUANTIZED_TILE_COLUMNS * QUANTIZED_TILE_COLUMNS;
        let row = |index: usize| &values[index * width..][..width];
        let tile = |first: usize| RoundedRows::new(std::array::from_fn(|n| row(first * QUANTIZED_TILE_COLUMNS + n)));
        let tiles = whole / QUANTIZED_TILE_COLUMNS;
        let tiles = if values.len() < PARALLEL_VALUES_MIN || rayon::current_thread_index().is_none() {
            (0..tiles).map(tile).collect()
        } else {
            (0..tiles).into_par_iter().map(tile).collect()
        };
        Self { tiles, rest: (whole..values.len() / width).map(|index| RoundedRows::new([row(index)])).collect() }
    }
}

impl<'a> Activations<'a> {
    /// `values` holds whole rows of `width`; `quantize` where a quantized matrix will read them.
    pub fn new(values: &'a [f32], width: usize, quantize: Quantize) -> Self {
        let rounded = match quantize {
            Quantize::No => Rounded::default(),
            Quantize::Yes => Rounded::new(values, width),
        };
        Self { values, width, rounded }
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
            Storage::Bf16(values) => Storage::F32(values.into_iter().map(|bits| Half::Brain.value(bits)).collect()),
            Storage::F16(values) => Storage::F32(values.into_iter().map(|bits| Half::Ieee.value(bits)).collect()),
            storage @ (Storage::F32(_) | Storage::Blocks(..)) => storage,
        };
        Self { storage, ..self }
    }

    /// Writes row `index` as f32, as an embedding look-up does. `into` has `columns` values.
    pub fn copy_row(&self, index: usize, into: &mut [f32]) {
        let range = index * self.columns..(index + 1) * self.columns;
        match &self.storage {
            Storage::F32(values) => into.copy_from_slice(&values[range]),
            Storage::Bf16(values) => kernel::widen(Half::Brain, &values[range], into),
            Storage::F16(values) => kernel::widen(Half::Ieee, &values[range], into),
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
        let turn = |(index, output): (usize, &mut [f32])| turn(&transposed, count, index * TURNED, output, self.rows);
        if transposed.len() < PARALLEL_VALUES_MIN || rayon::current_thread_index().is_none() {
            output.chunks_mut(TURNED * self.rows).enumerate().for_each(turn);
        } else {
            output.par_chunks_mut(TURNED * self.rows).enumerate().for_each(turn);
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
            Storage::F32(values) => multiply_f32(&values[range], input, 0..count, output),
            Storage::Bf16(values) => multiply_halves(Half::Brain, &values[range], input, output),
            Storage::F16(values) => multiply_halves(Half::Ieee, &values[range], input, output),
            Storage::Blocks(format, bytes) => {
                let row_bytes = self.row_bytes(*format);
                let weights = &bytes[first * row_bytes..][..rows * row_bytes];
                let product = QuantizedProduct { format: *format, weights, row_bytes, rows: &input.rounded, output };
                kernel::specialized(product);
            }
        }
    }
}

/// `output[n][r]` from `transposed[r][n]`, for the columns from `first` on; in squares, whose lines of the cache are
/// read and written whole.
fn turn(transposed: &[f32], count: usize, first: usize, output: &mut [f32], rows: usize) {
    for (index, square) in transposed.chunks(TURNED * count).enumerate() {
        for (column, output) in output.chunks_exact_mut(rows).enumerate() {
            for (value, row) in output[index * TURNED..].iter_mut().zip(square.chunks_exact(count)) {
                *value = row[first + column];
            }
        }
    }
}

/// Activation rows that stay in the cache while weights stream past.
fn columns_cached(width: usize) -> usize {
    (ACTIVATION_VALUES_CACHED / width).max(TILE_COLUMNS).next_multiple_of(TILE_COLUMNS)
}

/// `output[r][n]` for whole rows of 16-bit `weights`. Few activation rows take the weights as they are; many share
/// what is widened once.
fn multiply_halves(half: Half, weights: &[u16], input: &Activations<'_>, output: &mut [f32]) {
    let (width, count) = (input.width, input.count());
    let mut wide = vec![0.0; if count > TILE_COLUMNS { TILE_ROWS * width } else { 0 }];
    for from in (0..count).step_by(columns_cached(width)) {
        let columns = from..(from + columns_cached(width)).min(count);
        for (weights, output) in weights.chunks(TILE_ROWS * width).zip(output.chunks_mut(TILE_ROWS * count)) {
            if count > TILE_COLUMNS {
                let wide = &mut wide[..weights.len()];
                kernel::widen(half, weights, wide);
                multiply_f32(wide, input, columns.clone(), output);
            } else if weights.len() == TILE_ROWS * width {
                half_rows::<TILE_ROWS>(half, weights, input, output);
            } else {
                for (weights, output) in weights.chunks_exact(width).zip(output.chunks_exact_mut(count)) {
                    half_rows::<1>(half, weights, input, output);
                }
            }
        }
    }
}

/// As [`tile_rows`] with at most [`TILE_COLUMNS`] activation rows.
fn half_rows<const M: usize>(half: Half, weights: &[u16], input: &Activations<'_>, output: &mut [f32]) {
    let left: [&[u16]; M] = std::array::from_fn(|m| &weights[m * input.width..][..input.width]);
    match input.count() {
        1 => scatter(kernel::half_dots(half, left, [input.row(0)]), output),
        2 => scatter(kernel::half_dots(half, left, [input.row(0), input.row(1)]), output),
        _ => scatter(kernel::half_dots(half, left, [input.row(0), input.row(1), input.row(2)]), output),
    }
}

fn scatter<const M: usize, const N: usize>(tile: [[f32; N]; M], output: &mut [f32]) {
    for (output, sums) in output.chunks_exact_mut(N).zip(tile) {
        output.copy_from_slice(&sums);
    }
}

/// `output[r][n]` for whole rows of f32 `weights` and some of the `columns`.
fn multiply_f32(weights: &[f32], input: &Activations<'_>, columns: Range<usize>, output: &mut [f32]) {
    let (width, count) = (input.width, input.count());
    for from in columns.clone().step_by(columns_cached(width)) {
        let to = (from + columns_cached(width)).min(columns.end);
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

fn tile_rows<const M: usize>(weights: &[f32], input: &Activations<'_>, columns: Range<usize>, output: &mut [f32]) {
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
    rows: &'a Rounded,
    output: &'a mut [f32],
}

impl Work for QuantizedProduct<'_> {
    #[inline(always)]
    fn run(self, with: Instructions) {
        let count = self.rows.tiles.len() * QUANTIZED_TILE_COLUMNS + self.rows.rest.len();
        let blocks = (self.row_bytes / self.format.bytes() * self.format.weights()).div_ceil(BLOCK);
        let mut unpacked: [Vec<UnpackedBlock>; QUANTIZED_TILE_ROWS] = std::array::from_fn(|_| vec![UnpackedBlock::new(); blocks]);
        let tiles_cached = (ROUNDED_VALUES_CACHED / (blocks * BLOCK * QUANTIZED_TILE_COLUMNS)).max(1);
        // The rest goes with the last tiles; where there are none, there is one round for it.
        let rounds = self.rows.tiles.len().div_ceil(tiles_cached).max(1);
        for round in 0..rounds {
            let first = round * tiles_cached;
            let tiles = &self.rows.tiles[first..self.rows.tiles.len().min(first + tiles_cached)];
            let rest = if round + 1 == rounds { &self.rows.rest[..] } else { &[] };
            let column = first * QUANTIZED_TILE_COLUMNS;
            let mut rows = self.weights.chunks(QUANTIZED_TILE_ROWS * self.row_bytes).peekable();
            for output in self.output.chunks_mut(QUANTIZED_TILE_ROWS * count) {
                let weights = rows.next().unwrap_or_default();
                for (weights, unpacked) in weights.chunks_exact(self.row_bytes).zip(&mut unpacked) {
                    for (part, block) in weights.chunks(BLOCK / self.format.weights() * self.format.bytes()).zip(unpacked) {
                        self.format.unpack(part, block);
                    }
                }
                kernel::prefetch(rows.peek().copied().unwrap_or_default());
                if weights.len() == QUANTIZED_TILE_ROWS * self.row_bytes {
                    multiply_unpacked(with, unpacked.each_ref().map(Vec::as_slice), (tiles, rest), (column, output));
                } else {
                    for (row, output) in unpacked.iter().zip(output.chunks_exact_mut(count)) {
                        multiply_unpacked(with, [row.as_slice()], (tiles, rest), (column, output));
                    }
                }
            }
        }
    }
}

/// `output[m][n]` from the column on.
#[inline(always)]
fn multiply_unpacked<const M: usize>(
    with: Instructions,
    weights: [&[UnpackedBlock]; M],
    (tiles, rest): (&[RoundedRows<QUANTIZED_TILE_COLUMNS>], &[RoundedRows<1>]),
    (column, output): (usize, &mut [f32]),
) {
    let count = output.len() / M;
    for (index, tile) in tiles.iter().enumerate() {
        let at = column + index * QUANTIZED_TILE_COLUMNS;
        for (output, sums) in output.chunks_exact_mut(count).zip(kernel::block_products(with, weights, tile)) {
            output[at..at + QUANTIZED_TILE_COLUMNS].copy_from_slice(&sums);
        }
    }
    for (index, row) in rest.iter().enumerate() {
        let at = column + tiles.len() * QUANTIZED_TILE_COLUMNS + index;
        for (output, [sum]) in output.chunks_exact_mut(count).zip(kernel::block_products(with, weights, row)) {
            output[at] = sum;
        }
    }
}
