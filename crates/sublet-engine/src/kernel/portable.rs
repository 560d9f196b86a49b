//! The loops for any processor, with the sums of the others in their order.

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
