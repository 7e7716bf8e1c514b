//! Attention of one head.

use super::math::exp;
use super::{Lanes, load_part, load_row, store_part, store_row, to_array};
use crate::kernel::{ATTENTION_KEYS, Attention, LANES, Rows, RowsMut};

/// The parts of the scratch.
struct Parts<'a> {
    /// Keys of the tile by column, `[head, 64]`.
    keys: &'a mut [f32],
    /// Values of the tile by 16 columns, `[width / 16, 64, 16]`, where width is head padded to 16.
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

/// Calls a function for rows `first..end`: `R` at a time, then four, then one.
macro_rules! by_rows {
    ($function:ident($($arg:expr),*), $first:expr, $end:expr, $row:ident) => {
        let mut $row = $first;
        while $row < $end {
            if $row + R <= $end {
                $function::<L, R, P>($($arg),*);
                $row += R;
            } else if $row + 4 <= $end {
                $function::<L, 4, P>($($arg),*);
                $row += 4;
            } else {
                $function::<L, 1, P>($($arg),*);
                $row += 1;
            }
        }
    };
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
    load_rows::<L>(attention.q, 0, rows, head, (width, 1), parts.queries);

    let visible = if rows == 0 { 0 } else { attention.visible(rows - 1) };
    for start in (0..visible).step_by(ATTENTION_KEYS) {
        let count = (attention.keys - start).min(ATTENTION_KEYS);
        load_columns::<L>(attention.k, start, count, head, parts.keys);
        let blocks = (LANES, ATTENTION_KEYS);
        load_rows::<L>(attention.v, start, count, head, blocks, parts.values);
        for first in (0..rows).step_by(LANES) {
            let end = (first + LANES).min(rows);
            by_rows!(score_rows(attention, &mut parts, row, start, count, width), first, end, row);
            let (active, factors) = weigh::<L>(attention, &mut parts, first, end, start, count);
            by_rows!(
                add_rows(
                    &mut parts,
                    row,
                    count,
                    width,
                    &factors[row - first..],
                    &active[row - first..]
                ),
                first,
                end,
                row
            );
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

/// Rows of `head` values, padded with 0 to whole vectors: column `c` of row `r`, where `c` begins a vector, goes to
/// `r * row_stride + c * column_stride`.
#[inline(always)]
fn load_rows<L: Lanes>(
    rows: Rows<'_>,
    first: usize,
    count: usize,
    head: usize,
    (row_stride, column_stride): (usize, usize),
    out: &mut [f32],
) {
    for row in 0..count {
        let at = (first + row) * rows.stride;
        for start in (0..head).step_by(LANES) {
            let end = (start + LANES).min(head);
            let value = load_row::<L>(rows.data, at + start, at + end);
            let to = row * row_stride + start * column_stride;
            store_part(value, &mut out[to..to + LANES]);
        }
    }
}

/// Rows of `head` values to columns of 64. Whole vectors of columns are written; those without a row hold 0.
#[inline(always)]
fn load_columns<L: Lanes>(
    rows: Rows<'_>,
    first: usize,
    count: usize,
    head: usize,
    out: &mut [f32],
) {
    for block in (0..count).step_by(LANES) {
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

/// Scores of `R` queries by one tile of keys.
#[inline(always)]
fn score_rows<L: Lanes, const R: usize, const P: usize>(
    attention: &Attention<'_>,
    parts: &mut Parts<'_>,
    row: usize,
    start: usize,
    count: usize,
    width: usize,
) {
    let mut first = 0;
    while first < count {
        if first + P * LANES <= count.next_multiple_of(LANES) {
            score::<L, R, P>(attention, parts, row, start, count, width, first);
            first += P * LANES;
        } else {
            score::<L, R, 1>(attention, parts, row, start, count, width, first);
            first += LANES;
        }
    }
}

/// Adds a tile's values to the totals of `R` queries.
#[inline(always)]
fn add_rows<L: Lanes, const R: usize, const P: usize>(
    parts: &mut Parts<'_>,
    row: usize,
    count: usize,
    width: usize,
    factors: &[f32],
    active: &[bool],
) {
    let mut column = 0;
    while column + P * LANES <= width {
        add_values::<L, R, P>(parts, row, count, width, column, factors, active);
        column += P * LANES;
    }
    while column < width {
        add_values::<L, R, 1>(parts, row, count, width, column, factors, active);
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

/// Turns the scores of up to 16 queries into exponentials, 0 from what a query may not see on, and takes up the
/// maxima and the sums. Vectors behind the last key have no part in either. Says which queries the tile counts for, and
/// what their totals are to be multiplied by.
#[inline(always)]
fn weigh<L: Lanes>(
    attention: &Attention<'_>,
    parts: &mut Parts<'_>,
    first: usize,
    end: usize,
    start: usize,
    count: usize,
) -> ([bool; LANES], [f32; LANES]) {
    let rows = end - first;
    let filled = count.next_multiple_of(LANES);
    let scores = &mut parts.scores.as_chunks_mut::<ATTENTION_KEYS>().0[first..end];
    let mut active = [false; LANES];
    let mut lanes = [L::splat(f32::NEG_INFINITY); LANES];
    for (index, scores) in scores.iter_mut().enumerate() {
        let seen = attention.visible(first + index).saturating_sub(start).min(count);
        active[index] = seen > 0;
        scores[seen..filled].fill(f32::NEG_INFINITY);
        for chunk in scores[..filled].as_chunks::<LANES>().0 {
            lanes[index] = L::load(chunk).max(lanes[index]);
        }
    }
    L::transpose(&mut lanes);
    let old = load_part::<L>(&parts.maxima[first..end], f32::NEG_INFINITY);
    let new = lanes.into_iter().fold(old, |largest, lanes| lanes.max(largest));
    let (maxima, mut factors) = (to_array(new), to_array(exp(old.sub(new))));

    let mut lanes = [L::splat(0.0); LANES];
    for (index, scores) in scores.iter_mut().enumerate() {
        active[index] &= maxima[index] != f32::NEG_INFINITY;
        if !active[index] {
            factors[index] = 1.0;
            continue;
        }
        parts.maxima[first + index] = maxima[index];
        let max = L::splat(maxima[index]);
        for chunk in scores[..filled].as_chunks_mut::<LANES>().0 {
            let p = exp(L::load(chunk).sub(max));
            lanes[index] = lanes[index].add(p);
            p.store(chunk);
        }
    }
    L::transpose(&mut lanes);
    let sums = &mut parts.sums[first..first + rows];
    let sum = load_part::<L>(sums, 0.0).mul(load_part(&factors, 0.0)).add(tree(lanes));
    store_part(sum, sums);
    (active, factors)
}

/// [`reference::tree_sum`](crate::kernel::reference::tree_sum) of 16 rows at once: `lanes[i]` holds lane `i` of each.
#[inline(always)]
fn tree<L: Lanes>(mut lanes: [L; LANES]) -> L {
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            lanes[i] = lanes[i].add(lanes[i + half]);
        }
    }
    lanes[0]
}

/// Adds exponentials times values to `P` times 16 columns of `R` queries' totals.
#[inline(always)]
fn add_values<L: Lanes, const R: usize, const P: usize>(
    parts: &mut Parts<'_>,
    row: usize,
    count: usize,
    width: usize,
    column: usize,
    factors: &[f32],
    active: &[bool],
) {
    let mut acc = [[L::splat(0.0); P]; R];
    for (r, acc) in acc.iter_mut().enumerate() {
        let factor = L::splat(factors[r]);
        for (p, acc) in acc.iter_mut().enumerate() {
            let at = (row + r) * width + column + p * LANES;
            *acc = load_part::<L>(&parts.totals[at..at + LANES], 0.0).mul(factor);
        }
    }
    // Arrays of one known length, so that the loop has no bounds to check.
    let scores: &[[f32; ATTENTION_KEYS]] =
        &parts.scores.as_chunks::<ATTENTION_KEYS>().0[row..row + R];
    let lines: [&[[f32; LANES]; ATTENTION_KEYS]; P] = std::array::from_fn(|p| {
        let blocks = parts.values.as_chunks::<LANES>().0.as_chunks::<ATTENTION_KEYS>().0;
        &blocks[column / LANES + p]
    });
    for key in 0..count.min(ATTENTION_KEYS) {
        let value = lines.map(|lines| L::load(&lines[key]));
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
