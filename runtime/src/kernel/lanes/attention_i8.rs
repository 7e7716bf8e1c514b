//! Attention of one head in int8: two integer products with a softmax between them.

use super::math::exp;
use super::reduce::max_abs;
use super::{Lanes, convert, load_part, load_row, store_part, store_row, to_array};
use crate::kernel::{
    ATTENTION_I8_KEYS, AttentionI8, GemmI8, GemmI8Args, KeyRows, KeyTile, KeyTileMut, LANES, Row,
    RowsMut, int8_scale,
};

/// Bytes of one group of a panel.
const LINE: usize = 4 * LANES;
/// Keys whose weights are made at a time.
const BLOCK: usize = 4 * LANES;

/// See [`crate::kernel::Kernels::quantise_keys`].
#[inline(always)]
pub fn quantise_keys<L: Lanes>(rows: &KeyRows<'_>, out: &mut [f32]) {
    rows.check(out);
    let KeyRows { keys, head, k, v, offset } = *rows;
    let tile = KeyTileMut::new(head, out);
    for key in 0..ATTENTION_I8_KEYS {
        let row = if key < keys { k.row(key, head) } else { Row::F32(&[]) };
        let (scale, inverse) = int8_scale(max_abs::<L>(row));
        tile.key_scales[key] = scale;
        let sum = put_key::<L>(row, L::splat(inverse), key, head, tile.keys);
        tile.key_excess[key] = i32::from(offset) * sum;
    }
    for panel in 0..KeyTile::panels(head) {
        let start = (panel * LANES).min(head);
        let end = (start + LANES).min(head);
        let mut largest = L::splat(0.0);
        for key in 0..keys {
            let at = key * v.stride;
            largest = load_row::<L>(v.data, at + start, at + end).abs().max(largest);
        }
        let scales = to_array(largest).map(int8_scale);
        let inverse = L::load(&scales.map(|(_, inverse)| inverse));
        L::load(&scales.map(|(scale, _)| scale))
            .store(&mut tile.value_scales.as_chunks_mut().0[panel]);
        let lines = ATTENTION_I8_KEYS / 4 * LINE;
        put_values::<L>(rows, start..end, inverse, &mut tile.values[panel * lines..][..lines]);
    }
    for key in 0..ATTENTION_I8_KEYS {
        let group = head / LANES * (ATTENTION_I8_KEYS / 4) + key / 4;
        tile.values[(group * LANES + head % LANES) * 4 + key % 4] = 1;
    }
}

/// 16 values as int8.
#[inline(always)]
fn to_int8<L: Lanes>(values: L, inverse: L) -> [u8; LANES] {
    let mut bytes = [0; LANES];
    let (low, high) = (L::splat(-127.0), L::splat(127.0));
    values.mul(inverse).max(low).min(high).store_bytes(0, &mut bytes);
    bytes
}

/// Writes one key to its lane of the panels; zeros behind its values. Returns its sum.
#[inline(always)]
fn put_key<L: Lanes>(row: Row<'_>, inverse: L, key: usize, head: usize, panels: &mut [i8]) -> i32 {
    let groups = KeyTile::groups(head);
    let panel = &mut panels[key / LANES * groups * LINE..][..groups * LINE];
    let mut sum = 0;
    for (first, lines) in panel.chunks_mut(LANES / 4 * LINE).enumerate() {
        let start = (first * LANES).min(row.len());
        let end = (start + LANES).min(row.len());
        let bytes = to_int8::<L>(load_row(row, start, end), inverse).map(|byte| byte as i8);
        sum += bytes.iter().map(|&byte| i32::from(byte)).sum::<i32>();
        for (four, line) in bytes.as_chunks::<4>().0.iter().zip(lines.as_chunks_mut::<LINE>().0) {
            line.as_chunks_mut().0[key % LANES] = *four;
        }
    }
    sum
}

/// Writes up to 16 columns of all values to their panel.
#[inline(always)]
fn put_values<L: Lanes>(
    rows: &KeyRows<'_>,
    columns: std::ops::Range<usize>,
    inverse: L,
    panel: &mut [i8],
) {
    for (group, line) in panel.as_chunks_mut::<LINE>().0.iter_mut().enumerate() {
        let mut four = [[0u8; LANES]; 4];
        for (index, bytes) in four.iter_mut().enumerate() {
            let key = group * 4 + index;
            if key < rows.keys {
                let at = key * rows.v.stride;
                let values = load_row::<L>(rows.v.data, at + columns.start, at + columns.end);
                *bytes = to_int8(values, inverse);
            }
        }
        for (lane, column) in line.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            *column = four.map(|bytes| bytes[lane] as i8);
        }
    }
}

/// The parts of the scratch.
struct Parts<'a> {
    /// int8 `[queries, groups, 4]`
    queries: &'a mut [u8],
    /// int8 `[queries, 128]`
    weights: &'a mut [u8],
    /// i32 `[queries, 128]` of scores and `[queries, width]` of outputs, in turn.
    sums: &'a mut [i32],
    /// `[queries, width]`
    totals: &'a mut [f32],
    /// `[queries]`: what turns products with keys into halvings.
    scales: &'a mut [f32],
    /// `[queries]`
    maxima: &'a mut [f32],
    /// `[queries]`: what a tile's weights are multiplied by.
    new_factors: &'a mut [f32],
    /// `[queries]`: what totals are multiplied by.
    old_factors: &'a mut [f32],
}

impl<'a> Parts<'a> {
    #[inline(always)]
    fn new(rows: usize, head: usize, scratch: &'a mut [f32]) -> Self {
        let width = KeyTile::panels(head) * LANES;
        let (sums, rest) = scratch.split_at_mut(rows * width.max(ATTENTION_I8_KEYS));
        let (weights, rest) = rest.split_at_mut(rows * ATTENTION_I8_KEYS / 4);
        let (totals, rest) = rest.split_at_mut(rows * width);
        let (queries, rest) = rest.split_at_mut(rows * KeyTile::groups(head));
        let (scales, rest) = rest.split_at_mut(rows);
        let (maxima, rest) = rest.split_at_mut(rows);
        let (new_factors, rest) = rest.split_at_mut(rows);
        Parts {
            queries: bytemuck::cast_slice_mut(queries),
            weights: bytemuck::cast_slice_mut(weights),
            sums: bytemuck::cast_slice_mut(sums),
            totals,
            scales,
            maxima,
            new_factors,
            old_factors: &mut rest[..rows],
        }
    }
}

/// See [`crate::kernel::Kernels::attention_i8`].
#[inline(always)]
pub fn attention_i8<L: Lanes>(
    attention: &AttentionI8<'_>,
    gemm: &GemmI8,
    scratch: &mut [f32],
    mut out: RowsMut<'_>,
) {
    attention.check(scratch, &out);
    let (rows, head) = (attention.queries, attention.head);
    if rows == 0 {
        return;
    }
    let (groups, panels) = (KeyTile::groups(head), KeyTile::panels(head));
    let mut parts = Parts::new(rows, head, scratch);
    parts.totals.fill(0.0);
    parts.maxima.fill(f32::NEG_INFINITY);
    let (sign, halvings) = attention.sign_and_halvings();
    for (row, bytes) in parts.queries.chunks_exact_mut(4 * groups).enumerate() {
        let values = attention.q.row(row, head);
        let (scale, inverse) = int8_scale(max_abs::<L>(values));
        parts.scales[row] = scale * halvings;
        convert::quantise::<L>(values, sign * inverse, gemm.act_offset, &mut bytes[..head]);
        bytes[head..].fill(gemm.act_offset);
    }
    let visible = attention.visible(rows - 1);
    for start in (0..visible).step_by(ATTENTION_I8_KEYS) {
        // Of the last tile no more than holds keys.
        let blocks = (visible - start).min(ATTENTION_I8_KEYS).div_ceil(BLOCK);
        let tile = attention.tile(start / ATTENTION_I8_KEYS);
        (gemm.run)(GemmI8Args {
            act: parts.queries,
            act_stride: 4 * groups,
            rows,
            weights: tile.keys,
            weights_stride: groups * LINE,
            panels: blocks * BLOCK / LANES,
            groups,
            acc: parts.sums,
            acc_stride: ATTENTION_I8_KEYS,
            accumulate: false,
        });
        for first in (0..rows).step_by(LANES) {
            let rows = first..(first + LANES).min(rows);
            weigh::<L>(attention, &tile, &mut parts, start, blocks, rows);
        }
        // Weights are 0..=127: the same byte in either convention, so that nothing is to be taken off.
        (gemm.run)(GemmI8Args {
            act: parts.weights,
            act_stride: ATTENTION_I8_KEYS,
            rows,
            weights: tile.values,
            weights_stride: ATTENTION_I8_KEYS / 4 * LINE,
            panels,
            groups: blocks * BLOCK / 4,
            acc: parts.sums,
            acc_stride: panels * LANES,
            accumulate: false,
        });
        add_values::<L>(&tile, &mut parts, rows, panels);
    }
    for row in 0..rows {
        let totals = &parts.totals[row * panels * LANES..][..panels * LANES];
        let sum = totals[head];
        let inverse = L::splat(if sum > 0.0 { 1.0 / sum } else { 0.0 });
        let mut target = out.row_mut(row, head);
        for start in (0..head).step_by(LANES) {
            let total = load_part::<L>(&totals[start..start + LANES], 0.0);
            let total = total.mul_add(inverse, L::splat(0.0));
            store_row(total, &mut target, start, (start + LANES).min(head));
        }
    }
}

/// Turns the sums of up to 16 queries into scores and those into weights, and takes up the maxima and the factors.
#[inline(always)]
fn weigh<L: Lanes>(
    attention: &AttentionI8<'_>,
    tile: &KeyTile<'_>,
    parts: &mut Parts<'_>,
    start: usize,
    blocks: usize,
    rows: std::ops::Range<usize>,
) {
    let scores = &mut parts.sums.as_chunks_mut::<ATTENTION_I8_KEYS>().0[rows.clone()];
    let mut lanes = [L::splat(f32::NEG_INFINITY); LANES];
    for (index, (scores, lanes)) in scores.iter_mut().zip(&mut lanes).enumerate() {
        let row = rows.start + index;
        let seen = attention.visible(row).saturating_sub(start).min(ATTENTION_I8_KEYS);
        let scores = &mut scores.as_chunks_mut().0[..blocks];
        *lanes = match attention.mask {
            None if seen >= blocks * BLOCK => score_blocks(tile, scores),
            mask => {
                let mask = mask.map(|mask| &mask.data[row * mask.stride..][..attention.keys]);
                let mask = mask.map(|mask| &mask[start.min(mask.len())..]);
                score_part(tile, L::splat(parts.scales[row]), mask, seen, scores)
            }
        };
    }
    L::transpose(&mut lanes);
    let mut largest = lanes[0];
    for lanes in &lanes[1..] {
        largest = lanes.max(largest);
    }
    let nothing = L::splat(f32::NEG_INFINITY);
    let scales = load_part::<L>(&parts.scales[rows.clone()], 0.0);
    let (factors, tile_max) = match attention.mask {
        Some(_) => (L::splat(1.0), largest),
        None => (scales, largest.if_greater(nothing, raised(largest.mul(scales)), nothing)),
    };
    let old = load_part::<L>(&parts.maxima[rows.clone()], f32::NEG_INFINITY);
    let new = tile_max.max(old);
    let anchor = new.if_greater(nothing, new, L::splat(0.0));
    store_part(new, &mut parts.maxima[rows.clone()]);
    store_part(power::<L>(old.sub(anchor)), &mut parts.old_factors[rows.clone()]);
    store_part(power::<L>(tile_max.sub(anchor)), &mut parts.new_factors[rows.clone()]);

    let (factors, tile_max) = (to_array(factors), to_array(tile_max.neg()));
    let weights = &mut parts.weights.as_chunks_mut::<ATTENTION_I8_KEYS>().0[rows];
    for (index, (scores, weights)) in scores.iter().zip(weights).enumerate() {
        let (factor, max) = (L::splat(factors[index]), L::splat(tile_max[index]));
        let scores: &[[f32; BLOCK]] = bytemuck::cast_slice(&scores[..blocks * BLOCK]);
        for (scores, weights) in scores.iter().zip(weights.as_chunks_mut::<BLOCK>().0) {
            let mut block = [L::splat(0.0); BLOCK / LANES];
            for (weight, score) in block.iter_mut().zip(scores.as_chunks().0) {
                *weight = self::weight(L::load(score).mul_add(factor, max));
            }
            let weights: &mut [[u8; LANES]; BLOCK / LANES] = bytemuck::cast_mut(weights);
            L::store_bytes_four(block, weights);
        }
    }
}

/// `2^x`
#[inline(always)]
fn power<L: Lanes>(x: L) -> L {
    exp(x.mul(L::splat(std::f32::consts::LN_2)))
}

/// See [`AttentionI8`]: raised by a part in four million, and never negative infinity.
#[inline(always)]
fn raised<L: Lanes>(score: L) -> L {
    score.abs().mul_add(L::splat(1.0 / 4_194_304.0), score).max(L::splat(f32::MIN))
}

/// Products with keys in place of their sums, not yet scaled by the query; the largest by lane.
#[inline(always)]
fn score_blocks<L: Lanes>(tile: &KeyTile<'_>, scores: &mut [[i32; BLOCK]]) -> L {
    let mut largest = L::splat(f32::NEG_INFINITY);
    let excess = tile.key_excess.as_chunks::<BLOCK>().0.iter();
    let key_scales = tile.key_scales.as_chunks::<BLOCK>().0.iter();
    for ((scores, excess), key_scales) in scores.iter_mut().zip(excess).zip(key_scales) {
        let (excess, key_scales) = (excess.as_chunks().0, key_scales.as_chunks().0);
        for (part, sums) in scores.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
            let value = L::load_sums(sums, &excess[part]).mul(L::load(&key_scales[part]));
            value.store(bytemuck::cast_mut(sums));
            largest = value.max(largest);
        }
    }
    largest
}

/// As [`score_blocks`], for the first `seen` keys; with a mask, the scores in halvings.
#[inline(always)]
fn score_part<L: Lanes>(
    tile: &KeyTile<'_>,
    scale: L,
    mask: Option<&[f32]>,
    seen: usize,
    scores: &mut [[i32; BLOCK]],
) -> L {
    let nothing = L::splat(f32::NEG_INFINITY);
    let mut largest = nothing;
    let (excess, key_scales) = (tile.key_excess.as_chunks().0, tile.key_scales.as_chunks().0);
    let scores = scores.as_flattened_mut().as_chunks_mut::<LANES>().0;
    for (part, sums) in scores.iter_mut().enumerate() {
        let first = part * LANES;
        let product = L::load_sums(sums, &excess[part]).mul(L::load(&key_scales[part]));
        let value = match mask {
            Some(mask) => {
                let range = first.min(mask.len())..(first + LANES).min(mask.len());
                let mask = load_part::<L>(&mask[range], 0.0);
                let halvings = mask.mul(L::splat(std::f32::consts::LOG2_E));
                // The least finite mask stays finite.
                product.mul_add(scale, halvings.if_greater(nothing, halvings, mask))
            }
            None => product,
        };
        let sums: &mut [f32; LANES] = bytemuck::cast_mut(sums);
        value.store(sums);
        sums[seen.saturating_sub(first).min(LANES)..].fill(f32::NEG_INFINITY);
        largest = L::load(sums).max(largest);
    }
    largest
}

/// `127 * 2^distance`, not yet rounded, of distances that are 0 or below; 0 or near it for a not-a-number.
#[inline(always)]
fn weight<L: Lanes>(distance: L) -> L {
    // Adding this rounds to a whole number, nearest even: 1.5 * 2^23.
    let round = L::splat(12_582_912.0);
    let distance = distance.max(L::splat(-24.0));
    let n = distance.add(round).sub(round);
    let r = distance.sub(n);
    let p = L::splat(6.986_134).mul_add(r, L::splat(30.760_792));
    let p = p.mul_add(r, L::splat(88.046_93));
    p.mul_add(r, L::splat(127.0)).scale_by_power(n)
}

/// Adds a tile's values to the totals of all queries.
#[inline(always)]
fn add_values<L: Lanes>(tile: &KeyTile<'_>, parts: &mut Parts<'_>, rows: usize, panels: usize) {
    let sums = parts.sums.as_chunks::<LANES>().0.chunks_exact(panels);
    let totals = parts.totals.as_chunks_mut::<LANES>().0.chunks_exact_mut(panels);
    let scales = &tile.value_scales.as_chunks::<LANES>().0[..panels];
    for (row, (sums, totals)) in sums.zip(totals).take(rows).enumerate() {
        let new = L::splat(parts.new_factors[row]);
        let old = L::splat(parts.old_factors[row]);
        for ((sum, total), scale) in sums.iter().zip(totals).zip(scales) {
            let factor = L::load(scale).mul(new);
            let sum = L::load_sums(sum, &[0; LANES]);
            sum.mul_add(factor, L::load(total).mul(old)).store(total);
        }
    }
}
