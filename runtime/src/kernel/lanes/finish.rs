//! Epilogues of matrix products, in one pass.
//!
//! Tiles are walked by columns, so that factors stay in registers, four blocks of 16 together where there are as many:
//! what a row's checks and branches cost is then shared by 64 values.

use super::{
    Lanes, load_blocks, load_part, load_row, store_blocks, store_part, store_row, unary::apply,
};
use crate::graph::Unary;
use crate::kernel::{Finish, LANES, Residual, Row, RowMut, RowsMut};

/// Up to 16 values; lanes without one hold 0.
#[inline(always)]
fn part(values: &[i32]) -> [i32; LANES] {
    match values.try_into() {
        Ok(full) => full,
        Err(_) => {
            let mut buffer = [0; LANES];
            buffer[..values.len()].copy_from_slice(values);
            buffer
        }
    }
}

/// What the activations' offset has added to the sums of `N` times 16 outputs, of which there may be fewer; nothing without one.
#[inline(always)]
fn excess<const N: usize>(sums: &[i32], offset: i32) -> Option<[[i32; LANES]; N]> {
    if offset == 0 {
        return None;
    }
    let mut excess = [[0; LANES]; N];
    for (block, sums) in excess.iter_mut().zip(sums.chunks(LANES)) {
        *block = part(sums);
        for sum in block {
            *sum = sum.wrapping_mul(offset);
        }
    }
    Some(excess)
}

/// Freed of the offset, `N` times 16 sums.
#[inline(always)]
fn exact<L: Lanes, const N: usize>(acc: &[i32], excess: &Option<[[i32; LANES]; N]>) -> [L; N] {
    let acc = &acc[..N * LANES].as_chunks().0[..N];
    let mut exact = [L::splat(0.0); N];
    match excess {
        Some(excess) => {
            for ((exact, acc), excess) in exact.iter_mut().zip(acc).zip(excess) {
                *exact = L::load_sums(acc, excess);
            }
        }
        None => {
            for (exact, acc) in exact.iter_mut().zip(acc) {
                *exact = L::load_sums(acc, &[0; LANES]);
            }
        }
    }
    exact
}

/// See [`crate::kernel::Kernels::accumulate_i8`].
#[inline(always)]
pub fn accumulate_i8<L: Lanes>(
    acc: &[i32],
    sums: &[i32],
    offset: i32,
    scale: f32,
    first: bool,
    total: &mut [f32],
) {
    assert!(acc.len() >= total.len(), "sums end before the totals");
    assert!(total.len().is_multiple_of(sums.len()), "totals are not whole rows of sums");
    let columns = sums.len();
    let mut start = 0;
    while start + 4 * LANES <= columns {
        accumulate::<L, 4>(acc, sums, offset, scale, first, total, start);
        start += 4 * LANES;
    }
    while start + LANES <= columns {
        accumulate::<L, 1>(acc, sums, offset, scale, first, total, start);
        start += LANES;
    }
    if start == columns {
        return;
    }
    let excess = excess::<1>(&sums[start..], offset);
    for at in (start..total.len()).step_by(columns) {
        let total = &mut total[at..at + columns - start];
        let [exact] = exact::<L, 1>(&part(&acc[at..at + columns - start]), &excess);
        let before = if first { L::splat(0.0) } else { load_part(total, 0.0) };
        store_part(exact.mul_add(L::splat(scale), before), total);
    }
}

/// `N` times 16 columns from `start` on.
#[inline(always)]
fn accumulate<L: Lanes, const N: usize>(
    acc: &[i32],
    sums: &[i32],
    offset: i32,
    scale: f32,
    first: bool,
    total: &mut [f32],
    start: usize,
) {
    let excess = excess::<N>(&sums[start..start + N * LANES], offset);
    let scale = L::splat(scale);
    for at in (start..total.len()).step_by(sums.len()) {
        let exact: [L; N] = exact(&acc[at..], &excess);
        let total = &mut total[at..at + N * LANES].as_chunks_mut().0[..N];
        for (exact, total) in exact.into_iter().zip(total) {
            let before = if first { L::splat(0.0) } else { L::load(total) };
            exact.mul_add(scale, before).store(total);
        }
    }
}

/// What totals are multiplied by, and what is added, for `N` times 16 outputs, of which there may be fewer.
#[derive(Clone, Copy)]
struct Factors<L, const N: usize> {
    scale: Option<[L; N]>,
    bias: [L; N],
}

#[inline(always)]
fn factors<L: Lanes, const N: usize>(tile: &Finish<'_>, start: usize, end: usize) -> Factors<L, N> {
    let mut factors = Factors { scale: None, bias: [L::splat(0.0); N] };
    if let Some(values) = tile.weight_scale {
        let mut scale = [L::splat(0.0); N];
        for (scale, values) in scale.iter_mut().zip(values[start..end].chunks(LANES)) {
            *scale = load_part(values, 0.0);
        }
        factors.scale = Some(scale);
    }
    if let Some(values) = tile.bias {
        for (bias, values) in factors.bias.iter_mut().zip(values[start..end].chunks(LANES)) {
            *bias = load_part(values, 0.0);
        }
    }
    factors
}

/// Scales and biases.
#[inline(always)]
fn affine<L: Lanes, const N: usize>(mut values: [L; N], factors: &Factors<L, N>) -> [L; N] {
    match &factors.scale {
        Some(scale) => {
            for ((value, scale), bias) in values.iter_mut().zip(scale).zip(&factors.bias) {
                *value = value.mul_add(*scale, *bias);
            }
        }
        None => {
            for (value, bias) in values.iter_mut().zip(&factors.bias) {
                *value = value.add(*bias);
            }
        }
    }
    values
}

#[inline(always)]
fn activate<L: Lanes, const N: usize, const KIND: u8>(
    mut values: [L; N],
    activation: Option<Unary>,
) -> [L; N] {
    match activation {
        None => {}
        _ if KIND == PLAIN => {}
        // So short that a branch for each block would show.
        Some(Unary::Relu) => {
            for value in &mut values {
                *value = value.max(L::splat(0.0));
            }
        }
        _ if KIND == RELU => {}
        Some(function) => {
            for value in &mut values {
                *value = apply(function, *value);
            }
        }
    }
    values
}

/// A tile without functions.
const PLAIN: u8 = 0;
/// A tile whose only function is the shortest.
const RELU: u8 = 1;
/// A tile with any functions.
const ANY: u8 = 2;

fn kind(tile: &Finish<'_>) -> u8 {
    match (tile.activation, tile.then) {
        (None, None) => PLAIN,
        (None | Some(Unary::Relu), None | Some(Unary::Relu)) => RELU,
        _ => ANY,
    }
}

/// The columns of a tile in blocks: `N` times 16 outputs from `start` on, or fewer.
///
/// Each kind of tile is compiled apart: the compiler would load the constants of all functions for every row, and keep values in
/// memory between them.
macro_rules! by_columns {
    ($tile:expr, $blocks:ident, $rest:ident, $args:tt) => {
        match kind($tile) {
            PLAIN => by_columns!(@ PLAIN, $tile, $blocks, $rest, $args),
            RELU => by_columns!(@ RELU, $tile, $blocks, $rest, $args),
            _ => by_columns!(@ ANY, $tile, $blocks, $rest, $args),
        }
    };
    (@ $kind:ident, $tile:expr, $blocks:ident, $rest:ident, ($($arg:expr),*)) => {{
        let columns = $tile.columns;
        let mut start = 0;
        while start + 4 * LANES <= columns {
            $blocks::<L, 4, $kind>($($arg,)* start);
            start += 4 * LANES;
        }
        while start + LANES <= columns {
            $blocks::<L, 1, $kind>($($arg,)* start);
            start += LANES;
        }
        if start < columns {
            $rest::<L>($($arg,)* start);
        }
    }};
}

/// See [`crate::kernel::Kernels::finish_i8`].
#[inline(always)]
pub fn finish_i8<L: Lanes>(
    acc: &[i32],
    sums: &[i32],
    offset: i32,
    scales: &[f32],
    tile: &Finish<'_>,
    mut out: RowsMut<'_>,
) {
    assert_eq!(scales.len(), tile.rows, "a scale is missing or too many");
    assert!(sums.len() >= tile.columns && tile.stride >= tile.columns, "sums end before the row");
    tile.check(acc.len(), &out);
    by_columns!(tile, blocks_i8, rest_i8, (acc, sums, offset, scales, tile, &mut out));
}

#[inline(always)]
fn blocks_i8<L: Lanes, const N: usize, const KIND: u8>(
    acc: &[i32],
    sums: &[i32],
    offset: i32,
    scales: &[f32],
    tile: &Finish<'_>,
    out: &mut RowsMut<'_>,
    start: usize,
) {
    let end = start + N * LANES;
    let excess = excess::<N>(&sums[start..end], offset);
    let factors = factors::<L, N>(tile, start, end);
    for (row, &scale) in scales.iter().enumerate() {
        let mut values: [L; N] = exact(&acc[row * tile.stride + start..], &excess);
        for value in &mut values {
            *value = value.mul(L::splat(scale));
        }
        finish_blocks::<L, N, KIND>(affine(values, &factors), tile, row, start, out);
    }
}

#[inline(always)]
fn rest_i8<L: Lanes>(
    acc: &[i32],
    sums: &[i32],
    offset: i32,
    scales: &[f32],
    tile: &Finish<'_>,
    out: &mut RowsMut<'_>,
    start: usize,
) {
    let end = tile.columns;
    let excess = excess::<1>(&sums[start..end], offset);
    let factors = factors::<L, 1>(tile, start, end);
    for (row, &scale) in scales.iter().enumerate() {
        let at = row * tile.stride;
        let [exact] = exact::<L, 1>(&part(&acc[at + start..at + end]), &excess);
        let [value] = affine([exact.mul(L::splat(scale))], &factors);
        finish_rest(value, tile, row, start, out);
    }
}

/// See [`crate::kernel::Kernels::finish_f32`].
#[inline(always)]
pub fn finish_f32<L: Lanes>(total: &[f32], tile: &Finish<'_>, mut out: RowsMut<'_>) {
    tile.check(total.len(), &out);
    by_columns!(tile, blocks_f32, rest_f32, (total, tile, &mut out));
}

#[inline(always)]
fn blocks_f32<L: Lanes, const N: usize, const KIND: u8>(
    total: &[f32],
    tile: &Finish<'_>,
    out: &mut RowsMut<'_>,
    start: usize,
) {
    let factors = factors::<L, N>(tile, start, start + N * LANES);
    for row in 0..tile.rows {
        let values = load_blocks(Row::F32(total), row * tile.stride + start);
        finish_blocks::<L, N, KIND>(affine(values, &factors), tile, row, start, out);
    }
}

#[inline(always)]
fn rest_f32<L: Lanes>(total: &[f32], tile: &Finish<'_>, out: &mut RowsMut<'_>, start: usize) {
    let end = tile.columns;
    let factors = factors::<L, 1>(tile, start, end);
    for row in 0..tile.rows {
        let at = row * tile.stride;
        let total = load_part(&total[at + start..at + end], 0.0);
        let [value] = affine([total], &factors);
        finish_rest(value, tile, row, start, out);
    }
}

/// Applies the activation, adds the residual, applies what follows it and stores.
#[inline(always)]
fn finish_blocks<L: Lanes, const N: usize, const KIND: u8>(
    mut values: [L; N],
    tile: &Finish<'_>,
    row: usize,
    start: usize,
    out: &mut RowsMut<'_>,
) {
    values = activate::<L, N, KIND>(values, tile.activation);
    if let Some(residual) = &tile.residual {
        let residual: [L; N] = match residual {
            Residual::Apart(rows) => load_blocks(rows.data, row * rows.stride + start),
            Residual::Output => load_blocks(out.data.as_row(), row * out.stride + start),
        };
        for (value, residual) in values.iter_mut().zip(residual) {
            *value = value.add(residual);
        }
    }
    // Rounding and cutting off what is negative may change places.
    if KIND == ANY
        && !matches!(tile.then, None | Some(Unary::Relu))
        && let RowMut::F16(_) = out.data
    {
        for value in &mut values {
            *value = value.round_f16();
        }
    }
    values = activate::<L, N, KIND>(values, tile.then);
    store_blocks(values, &mut out.data, row * out.stride + start);
}

#[inline(always)]
fn finish_rest<L: Lanes>(
    mut value: L,
    tile: &Finish<'_>,
    row: usize,
    start: usize,
    out: &mut RowsMut<'_>,
) {
    let end = tile.columns;
    [value] = activate::<L, 1, ANY>([value], tile.activation);
    if let Some(residual) = &tile.residual {
        let (data, stride) = match residual {
            Residual::Apart(rows) => (rows.data, rows.stride),
            Residual::Output => (out.data.as_row(), out.stride),
        };
        value = value.add(load_row(data, row * stride + start, row * stride + end));
    }
    if tile.then.is_some() {
        if let RowMut::F16(_) = out.data {
            value = value.round_f16();
        }
        [value] = activate::<L, 1, ANY>([value], tile.then);
    }
    let at = row * out.stride;
    store_row(value, &mut out.data, at + start, at + end);
}
