//! Sums, maxima and moments.

use super::{Lanes, load_blocks, load_part, load_row, store_part, to_array};
use crate::kernel::{LANES, Moments, Row, reference::tree_sum};
use half::f16;

/// See [`crate::kernel::Kernels::sum`].
#[inline(always)]
pub fn sum<L: Lanes>(values: &[f32]) -> f32 {
    let mut lanes = L::splat(0.0);
    for chunk in values.chunks(LANES) {
        lanes = lanes.add(load_part(chunk, 0.0));
    }
    tree_sum(to_array(lanes))
}

/// Chains of squared distances from `center`, and the tree.
#[inline(always)]
pub fn sum_of_squares<L: Lanes>(values: &[f32], center: f32) -> f32 {
    let mut lanes = L::splat(0.0);
    let center_lanes = L::splat(center);
    for chunk in values.chunks(LANES) {
        // A lane without a value is at the center: distance 0.
        let distance = load_part::<L>(chunk, center).sub(center_lanes);
        lanes = distance.mul_add(distance, lanes);
    }
    tree_sum(to_array(lanes))
}

#[inline(always)]
fn largest(lanes: [f32; LANES]) -> f32 {
    let mut largest = lanes[0];
    for value in lanes {
        largest = if value > largest { value } else { largest };
    }
    largest
}

/// See [`crate::kernel::Kernels::max_abs`].
#[inline(always)]
pub fn max_abs<L: Lanes>(values: Row<'_>) -> f32 {
    if let Row::F16(halves) = values
        && let Some(largest) = max_abs_of_bits(halves)
    {
        return largest;
    }
    let mut lanes = [L::splat(0.0); 4];
    let mut start = 0;
    while start + 4 * LANES <= values.len() {
        let blocks: [L; 4] = load_blocks(values, start);
        for (lanes, block) in lanes.iter_mut().zip(blocks) {
            *lanes = block.abs().max(*lanes);
        }
        start += 4 * LANES;
    }
    while start < values.len() {
        let end = (start + LANES).min(values.len());
        lanes[0] = load_row::<L>(values, start, end).abs().max(lanes[0]);
        start = end;
    }
    largest(to_array(lanes[0].max(lanes[1]).max(lanes[2].max(lanes[3]))))
}

/// Without their sign, halves are ordered as their bits are. Nothing if one of them is a not-a-number.
#[inline(always)]
fn max_abs_of_bits(values: &[f16]) -> Option<f32> {
    const SIGN: u16 = 0x8000;
    const INFINITY: u16 = 0x7c00;
    const WIDE: usize = 4 * LANES;
    let bits: &[u16] = bytemuck::cast_slice(values);
    let (blocks, rest) = bits.as_chunks::<WIDE>();
    let mut lanes = [0u16; WIDE];
    for block in blocks {
        for (lane, &bits) in lanes.iter_mut().zip(block) {
            let bits = bits & !SIGN;
            *lane = if bits > *lane { bits } else { *lane };
        }
    }
    for (lane, &bits) in lanes.iter_mut().zip(rest) {
        let bits = bits & !SIGN;
        *lane = if bits > *lane { bits } else { *lane };
    }
    for half in [32, 16, 8, 4, 2, 1] {
        let (low, high) = lanes.split_at_mut(half);
        for (lane, &other) in low.iter_mut().zip(&high[..half]) {
            *lane = if other > *lane { other } else { *lane };
        }
    }
    let largest = lanes[0];
    (largest <= INFINITY).then(|| f16::from_bits(largest).to_f32_const())
}

/// See [`crate::kernel::Kernels::max`].
#[inline(always)]
pub fn max<L: Lanes>(values: &[f32]) -> f32 {
    let mut lanes = L::splat(f32::NEG_INFINITY);
    for chunk in values.chunks(LANES) {
        lanes = load_part::<L>(chunk, f32::NEG_INFINITY).max(lanes);
    }
    largest(to_array(lanes))
}

/// See [`crate::kernel::Kernels::group_moments`].
#[inline(always)]
pub fn group_moments<L: Lanes>(
    row: &[f32],
    channels: usize,
    scratch: &mut [f32],
    out: &mut [Moments],
) {
    let groups = out.len();
    assert!(row.len().is_multiple_of(channels), "the row is not whole cells");
    assert!(channels.is_multiple_of(groups), "groups do not divide {channels} channels");
    assert!(scratch.len() >= channels, "moments need a scratch of {channels} values");
    let (cells, size) = (row.len() / channels, channels / groups);
    let scratch = &mut scratch[..channels];
    let count = (cells * size) as u32;

    scratch.fill(0.0);
    by_channel::<L>(row, channels, scratch, false);
    for (sums, out) in scratch.chunks_exact_mut(size).zip(out.iter_mut()) {
        let mut total = 0f32;
        for &sum in &*sums {
            total += sum;
        }
        let mean = total / (cells * size) as f32;
        *out = Moments { count, mean, m2: 0.0 };
        sums.fill(mean);
    }
    by_channel::<L>(row, channels, scratch, true);
    for (sums, out) in scratch.chunks_exact(size).zip(out) {
        for &sum in sums {
            out.m2 += sum;
        }
    }
}

/// Replaces `centers` (by channel) by the sums over all cells of the values, or of their squared distances.
#[inline(always)]
fn by_channel<L: Lanes>(row: &[f32], channels: usize, centers: &mut [f32], squares: bool) {
    let mut start = 0;
    while start + 4 * LANES <= channels {
        block::<L, 4>(row, channels, start, &mut centers[start..start + 4 * LANES], squares);
        start += 4 * LANES;
    }
    while start < channels {
        let end = (start + LANES).min(channels);
        block::<L, 1>(row, channels, start, &mut centers[start..end], squares);
        start = end;
    }
}

/// `N` times 16 channels (the last may have fewer), so that `N` chains run side by side.
#[inline(always)]
fn block<L: Lanes, const N: usize>(
    row: &[f32],
    channels: usize,
    start: usize,
    centers: &mut [f32],
    squares: bool,
) {
    let mut center = [L::splat(0.0); N];
    for (center, part) in center.iter_mut().zip(centers.chunks(LANES)) {
        *center = load_part(part, 0.0);
    }
    let mut sums = [L::splat(0.0); N];
    for cell in row.chunks_exact(channels) {
        let cell = &cell[start..start + centers.len()];
        for (index, part) in cell.chunks(LANES).enumerate() {
            let value = load_part::<L>(part, 0.0);
            sums[index] = if squares {
                let distance = value.sub(center[index]);
                distance.mul_add(distance, sums[index])
            } else {
                sums[index].add(value)
            };
        }
    }
    for (sum, part) in sums.into_iter().zip(centers.chunks_mut(LANES)) {
        store_part(sum, part);
    }
}
