//! Attention of one head.

use super::math::exp;
use super::{Lanes, load_part, load_row, store_part, store_row, to_array};
use crate::kernel::{ATTENTION_KEYS, Attention, LANES, Rows, RowsMut, reference::tree_sum};

/// The parts of the scratch.
struct Parts<'a> {
    /// Keys of the tile by column, `[head, 64]`.
    keys: &'a mut [f32],
    /// Values of the tile by row, `[64, width]`, where width is head padded to 16.
    values: &'a mut [f32],
    /// `[queries, 64]`: scores, then their exponentials.
    scores: &'a mut [f32],
    /// `[queries, width]`
    queries: &'a mut [f32],
    /// `[queries, width]`
    totals: &'a mut [f32],
    /// `[queries]`
    maxima: &'a mut [f32],
    /// `[queries]`
    sums: &'a mut [f32],
}

/// See [`crate::kernel::Kernels::attention`]. `R` by `P` times 16 sums stay in registers.
#[inline(always)]
pub fn attention<L: Lanes, const R: usize, const P: usize>(
    attention: &Attention<'_>,
    scratch: &mut [f32],
    mut out: RowsMut<'_>,
) {
    attention.check(scratch, &out);
    let (rows, head) = (attention.queries, attention.head);
    let width = head.div_ceil(LANES) * LANES;
    let (keys, rest) = scratch.split_at_mut(ATTENTION_KEYS * width);
    let (values, rest) = rest.split_at_mut(ATTENTION_KEYS * width);
    let (scores, rest) = rest.split_at_mut(rows * ATTENTION_KEYS);
    let (queries, rest) = rest.split_at_mut(rows * width);
    let (totals, rest) = rest.split_at_mut(rows * width);
    let (maxima, rest) = rest.split_at_mut(rows);
    let sums = &mut rest[..rows];
    let mut parts = Parts { keys, values, scores, queries, totals, maxima, sums };
    parts.totals.fill(0.0);
    parts.maxima.fill(f32::NEG_INFINITY);
    parts.sums.fill(0.0);
    load_rows::<L>(attention.q, 0, rows, head, width, parts.queries);

    let visible = if rows == 0 { 0 } else { attention.visible(rows - 1) };
    for start in (0..visible).step_by(ATTENTION_KEYS) {
        let count = (attention.keys - start).min(ATTENTION_KEYS);
        load_columns::<L>(attention.k, start, count, head, parts.keys);
        load_rows::<L>(attention.v, start, count, head, width, parts.values);
        let mut row = 0;
        while row < rows {
            if row + R <= rows {
                block::<L, R, P>(attention, &mut parts, row, start, count, width);
                row += R;
            } else {
                block::<L, 1, P>(attention, &mut parts, row, start, count, width);
                row += 1;
            }
        }
    }

    for row in 0..rows {
        let sum = parts.sums[row];
        let inverse = L::splat(if sum > 0.0 { 1.0 / sum } else { 0.0 });
        let mut target = out.row_mut(row, head);
        for start in (0..head).step_by(LANES) {
            let total = load_part::<L>(&parts.totals[row * width + start..][..LANES], 0.0);
            store_row(total.mul(inverse), &mut target, start, (start + LANES).min(head));
        }
    }
}

/// Rows of `head` values to rows of `width`, the rest 0.
#[inline(always)]
fn load_rows<L: Lanes>(
    rows: Rows<'_>,
    first: usize,
    count: usize,
    head: usize,
    width: usize,
    out: &mut [f32],
) {
    for row in 0..count {
        let at = (first + row) * rows.stride;
        for start in (0..width).step_by(LANES) {
            let end = (start + LANES).min(head);
            let value = load_row::<L>(rows.data, at + start, at + end);
            store_part(value, &mut out[row * width + start..][..LANES]);
        }
    }
}

/// Rows of `head` values to columns of 64; columns without a row hold 0.
#[inline(always)]
fn load_columns<L: Lanes>(
    rows: Rows<'_>,
    first: usize,
    count: usize,
    head: usize,
    out: &mut [f32],
) {
    for block in (0..ATTENTION_KEYS).step_by(LANES) {
        for start in (0..head).step_by(LANES) {
            let end = (start + LANES).min(head);
            let mut lanes = [L::splat(0.0); LANES];
            for (index, lanes) in lanes.iter_mut().enumerate() {
                let row = block + index;
                if row < count {
                    let at = (first + row) * rows.stride;
                    *lanes = load_row(rows.data, at + start, at + end);
                }
            }
            L::transpose(&mut lanes);
            for (index, lanes) in lanes.into_iter().enumerate() {
                store_part(lanes, &mut out[(start + index) * ATTENTION_KEYS + block..][..LANES]);
            }
        }
    }
}

/// `R` queries by one tile of keys.
#[inline(always)]
fn block<L: Lanes, const R: usize, const P: usize>(
    attention: &Attention<'_>,
    parts: &mut Parts<'_>,
    row: usize,
    start: usize,
    count: usize,
    width: usize,
) {
    let mut part = 0;
    while part < ATTENTION_KEYS / LANES {
        score::<L, R, P>(attention, parts, row, start, count, width, part * LANES);
        part += P;
    }
    let mut factors = [1f32; R];
    let mut active = [false; R];
    for r in 0..R {
        let seen = attention.visible(row + r).saturating_sub(start).min(count);
        (active[r], factors[r]) = weigh::<L>(parts, row + r, seen);
    }
    let mut column = 0;
    while column + P * LANES <= width {
        add_values::<L, R, P>(parts, row, count, width, column, &factors, &active);
        column += P * LANES;
    }
    while column < width {
        add_values::<L, R, 1>(parts, row, count, width, column, &factors, &active);
        column += LANES;
    }
}

/// Scores of `R` queries by `P` times 16 keys from `first` on.
#[inline(always)]
fn score<L: Lanes, const R: usize, const P: usize>(
    attention: &Attention<'_>,
    parts: &mut Parts<'_>,
    row: usize,
    start: usize,
    count: usize,
    width: usize,
    first: usize,
) {
    let head = attention.head;
    let queries: [&[f32]; R] =
        std::array::from_fn(|r| &parts.queries[(row + r) * width..(row + r) * width + head]);
    let keys = &parts.keys.as_chunks::<ATTENTION_KEYS>().0[..head];
    let mut acc = [[L::splat(0.0); P]; R];
    for column in 0..head {
        let mut key = [L::splat(0.0); P];
        for (key, lanes) in key.iter_mut().zip(keys[column][first..].as_chunks().0) {
            *key = L::load(lanes);
        }
        for (acc, query) in acc.iter_mut().zip(queries) {
            let query = L::splat(query[column]);
            for (acc, key) in acc.iter_mut().zip(key) {
                *acc = query.mul_add(key, *acc);
            }
        }
    }
    let scale = L::splat(attention.scale);
    for (r, acc) in acc.into_iter().enumerate() {
        for (p, acc) in acc.into_iter().enumerate() {
            let key = first + p * LANES;
            let value = match attention.mask {
                Some(mask) => {
                    let (from, to) = (start + key.min(count), start + (key + LANES).min(count));
                    let at = (row + r) * mask.stride;
                    acc.mul_add(scale, load_part(&mask.data[at + from..at + to], 0.0))
                }
                None => acc.mul(scale),
            };
            store_part(value, &mut parts.scores[(row + r) * ATTENTION_KEYS + key..][..LANES]);
        }
    }
}

/// Turns one query's scores into exponentials, 0 from `seen` on, and takes up the maximum and the sum. Says
/// whether the tile counts for this query, and what its totals are to be multiplied by.
#[inline(always)]
fn weigh<L: Lanes>(parts: &mut Parts<'_>, row: usize, seen: usize) -> (bool, f32) {
    let scores = &mut parts.scores[row * ATTENTION_KEYS..(row + 1) * ATTENTION_KEYS];
    scores[seen..].fill(f32::NEG_INFINITY);
    let mut lanes = L::splat(parts.maxima[row]);
    for chunk in scores.chunks(LANES) {
        lanes = load_part::<L>(chunk, 0.0).max(lanes);
    }
    let mut tile_max = f32::NEG_INFINITY;
    for value in to_array(lanes) {
        tile_max = if value > tile_max { value } else { tile_max };
    }
    if seen == 0 || tile_max == f32::NEG_INFINITY {
        return (false, 1.0);
    }
    let mut factor = 1.0;
    if tile_max != parts.maxima[row] {
        factor = to_array(exp(L::splat(parts.maxima[row] - tile_max)))[0];
        parts.maxima[row] = tile_max;
    }
    let max = L::splat(tile_max);
    let mut lanes = L::splat(0.0);
    for chunk in scores.chunks_mut(LANES) {
        let p = exp(load_part::<L>(chunk, 0.0).sub(max));
        lanes = lanes.add(p);
        store_part(p, chunk);
    }
    parts.sums[row] = parts.sums[row] * factor + tree_sum(to_array(lanes));
    (true, factor)
}

/// Adds exponentials times values to `P` times 16 columns of `R` queries' totals.
#[inline(always)]
fn add_values<L: Lanes, const R: usize, const P: usize>(
    parts: &mut Parts<'_>,
    row: usize,
    count: usize,
    width: usize,
    column: usize,
    factors: &[f32; R],
    active: &[bool; R],
) {
    let mut acc = [[L::splat(0.0); P]; R];
    for (r, acc) in acc.iter_mut().enumerate() {
        let factor = L::splat(factors[r]);
        for (p, acc) in acc.iter_mut().enumerate() {
            let at = (row + r) * width + column + p * LANES;
            *acc = load_part::<L>(&parts.totals[at..at + LANES], 0.0).mul(factor);
        }
    }
    let scores: [&[f32]; R] = std::array::from_fn(|r| {
        let start = (row + r) * ATTENTION_KEYS;
        &parts.scores[start..start + count]
    });
    for (key, values) in parts.values.chunks_exact(width).take(count).enumerate() {
        let mut value = [L::splat(0.0); P];
        for (value, lanes) in value.iter_mut().zip(values[column..].as_chunks().0) {
            *value = L::load(lanes);
        }
        for (acc, scores) in acc.iter_mut().zip(scores) {
            let p = L::splat(scores[key]);
            for (acc, value) in acc.iter_mut().zip(value) {
                *acc = p.mul_add(value, *acc);
            }
        }
    }
    for (r, acc) in acc.into_iter().enumerate() {
        if !active[r] {
            continue;
        }
        for (p, acc) in acc.into_iter().enumerate() {
            let at = (row + r) * width + column + p * LANES;
            store_part(acc, &mut parts.totals[at..at + LANES]);
        }
    }
}
