//! Epilogues of matrix products, in one pass.

use super::{Lanes, load_part, load_row, store_part, store_row, unary::apply};
use crate::graph::Unary;
use crate::kernel::{Finish, FinishTile, LANES, RowMut, RowsMut};

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

/// What the activations' offset has added to up to 16 sums.
#[inline(always)]
fn excess(sums: &[i32], offset: i32) -> [i32; LANES] {
    let mut excess = part(sums);
    for sum in &mut excess {
        *sum = sum.wrapping_mul(offset);
    }
    excess
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
    let (columns, rows) = (sums.len(), total.len() / sums.len());
    let scale = L::splat(scale);
    for start in (0..columns).step_by(LANES) {
        let length = (columns - start).min(LANES);
        let excess = excess(&sums[start..start + length], offset);
        for row in 0..rows {
            let at = row * columns + start;
            let total = &mut total[at..at + length];
            let exact = L::load_sums(&part(&acc[at..at + length]), &excess);
            let before = if first { L::splat(0.0) } else { load_part(total, 0.0) };
            store_part(exact.mul_add(scale, before), total);
        }
    }
}

/// What the totals are multiplied by, and what is added, for values `start..end` (at most 16).
#[inline(always)]
fn factors<L: Lanes>(
    weight_scale: Option<&[f32]>,
    bias: Option<&[f32]>,
    start: usize,
    end: usize,
) -> (Option<L>, L) {
    #[expect(clippy::manual_map, reason = "a closure is not compiled for the kernel's ISA")]
    let scale = match weight_scale {
        Some(scale) => Some(load_part(&scale[start..end], 0.0)),
        None => None,
    };
    let bias = match bias {
        Some(bias) => load_part(&bias[start..end], 0.0),
        None => L::splat(0.0),
    };
    (scale, bias)
}

/// What follows the totals, but for the residual.
#[inline(always)]
fn affine<L: Lanes>(total: L, (scale, bias): (Option<L>, L), activation: Option<Unary>) -> L {
    let value = match scale {
        Some(scale) => total.mul_add(scale, bias),
        None => total.add(bias),
    };
    match activation {
        Some(function) => apply(function, value),
        None => value,
    }
}

/// What follows the totals, for values `start..end` (at most 16) of a row.
#[inline(always)]
fn finish<L: Lanes>(total: L, finish: &Finish<'_>, start: usize, end: usize, out: &mut RowMut<'_>) {
    let factors = factors(finish.weight_scale, finish.bias, start, end);
    let mut value = affine(total, factors, finish.activation);
    if let Some(residual) = finish.residual {
        value = value.add(load_row(residual, start, end));
    }
    store_row(value, out, start, end);
}

/// See [`crate::kernel::Kernels::finish_i8`].
#[inline(always)]
pub fn finish_i8<L: Lanes>(
    acc: &[i32],
    sums: &[i32],
    offset: i32,
    scale: f32,
    operands: &Finish<'_>,
    mut out: RowMut<'_>,
) {
    let length = out.len();
    assert!(acc.len() >= length && sums.len() >= length, "sums end before the row");
    operands.check(length);
    let scale = L::splat(scale);
    for start in (0..length).step_by(LANES) {
        let end = (start + LANES).min(length);
        let excess = excess(&sums[start..end], offset);
        let total = L::load_sums(&part(&acc[start..end]), &excess).mul(scale);
        finish(total, operands, start, end, &mut out);
    }
}

/// See [`crate::kernel::Kernels::finish_f32`].
#[inline(always)]
pub fn finish_f32<L: Lanes>(total: &[f32], operands: &Finish<'_>, mut out: RowMut<'_>) {
    let length = out.len();
    assert!(total.len() >= length, "totals end before the row");
    operands.check(length);
    for start in (0..length).step_by(LANES) {
        let end = (start + LANES).min(length);
        finish(load_part::<L>(&total[start..end], 0.0), operands, start, end, &mut out);
    }
}

/// See [`crate::kernel::Kernels::finish_tile_i8`].
#[inline(always)]
pub fn finish_tile_i8<L: Lanes>(
    acc: &[i32],
    sums: &[i32],
    offset: i32,
    scales: &[f32],
    tile: &FinishTile<'_>,
    mut out: RowsMut<'_>,
) {
    assert_eq!(scales.len(), tile.rows, "a scale is missing or too many");
    assert!(sums.len() >= tile.columns && tile.stride >= tile.columns, "sums end before the row");
    tile.check(acc.len(), &out);
    for start in (0..tile.columns).step_by(LANES) {
        let end = (start + LANES).min(tile.columns);
        let excess = excess(&sums[start..end], offset);
        let factors = factors(tile.weight_scale, tile.bias, start, end);
        for (row, &scale) in scales.iter().enumerate() {
            let at = row * tile.stride;
            let exact = L::load_sums(&part(&acc[at + start..at + end]), &excess);
            let value = affine(exact.mul(L::splat(scale)), factors, tile.activation);
            finish_cell(value, tile, row, start, end, &mut out);
        }
    }
}

/// See [`crate::kernel::Kernels::finish_tile_f32`].
#[inline(always)]
pub fn finish_tile_f32<L: Lanes>(total: &[f32], tile: &FinishTile<'_>, mut out: RowsMut<'_>) {
    tile.check(total.len(), &out);
    for start in (0..tile.columns).step_by(LANES) {
        let end = (start + LANES).min(tile.columns);
        let factors = factors::<L>(tile.weight_scale, tile.bias, start, end);
        for row in 0..tile.rows {
            let at = row * tile.stride;
            let total = load_part(&total[at + start..at + end], 0.0);
            let value = affine(total, factors, tile.activation);
            finish_cell(value, tile, row, start, end, &mut out);
        }
    }
}

/// Adds the residual and stores.
#[inline(always)]
fn finish_cell<L: Lanes>(
    mut value: L,
    tile: &FinishTile<'_>,
    row: usize,
    start: usize,
    end: usize,
    out: &mut RowsMut<'_>,
) {
    if let Some(residual) = &tile.residual {
        let at = row * residual.stride;
        value = value.add(load_row(residual.data, at + start, at + end));
    }
    let at = row * out.stride;
    store_row(value, &mut out.data, at + start, at + end);
}
