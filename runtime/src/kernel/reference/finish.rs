//! Epilogues of matrix products.

use super::unary::apply;
use crate::kernel::{Finish, FinishTile, RowMut, RowsMut};
use half::f16;

/// `total = (acc - offset * sums) * scale + total`.
pub fn accumulate_i8(
    acc: &[i32],
    sums: &[i32],
    offset: i32,
    scale: f32,
    first: bool,
    total: &mut [f32],
) {
    assert!(acc.len() >= total.len(), "sums end before the totals");
    assert!(total.len().is_multiple_of(sums.len()), "totals are not whole rows of sums");
    for (index, total) in total.iter_mut().enumerate() {
        let sum = sums[index % sums.len()];
        let exact = acc[index].wrapping_sub(offset.wrapping_mul(sum));
        let before = if first { 0.0 } else { *total };
        *total = (exact as f32).mul_add(scale, before);
    }
}

fn store(index: usize, total: f32, finish: &Finish<'_>, out: &mut RowMut<'_>) {
    let bias = finish.bias.map_or(0.0, |bias| bias[index]);
    let mut value = match finish.weight_scale {
        Some(scale) => total.mul_add(scale[index], bias),
        None => total + bias,
    };
    if let Some(function) = finish.activation {
        value = apply(function, value);
    }
    if let Some(residual) = finish.residual {
        value += residual.get(index);
    }
    match out {
        RowMut::F16(out) => {
            let mut stored = f16::from_f32_const(value);
            if let Some(function) = finish.then {
                stored = f16::from_f32_const(apply(function, stored.to_f32_const()));
            }
            out[index] = stored;
        }
        RowMut::F32(out) => {
            out[index] = finish.then.map_or(value, |function| apply(function, value))
        }
    }
}

/// From integer sums.
pub fn finish_i8(
    acc: &[i32],
    sums: &[i32],
    offset: i32,
    scale: f32,
    finish: &Finish<'_>,
    mut out: RowMut<'_>,
) {
    assert!(acc.len() >= out.len() && sums.len() >= out.len(), "sums end before the row");
    finish.check(out.len());
    for index in 0..out.len() {
        let exact = acc[index].wrapping_sub(offset.wrapping_mul(sums[index]));
        store(index, exact as f32 * scale, finish, &mut out);
    }
}

/// From float totals.
pub fn finish_f32(total: &[f32], finish: &Finish<'_>, mut out: RowMut<'_>) {
    assert!(total.len() >= out.len(), "totals end before the row");
    finish.check(out.len());
    for (index, &total) in total.iter().enumerate().take(out.len()) {
        store(index, total, finish, &mut out);
    }
}

/// The row's part of a tile's epilogue.
fn row_of<'a>(tile: &FinishTile<'a>, row: usize) -> Finish<'a> {
    Finish {
        weight_scale: tile.weight_scale,
        bias: tile.bias,
        activation: tile.activation,
        residual: tile.residual.map(|residual| residual.row(row, tile.columns)),
        then: tile.then,
    }
}

/// Row by row, from integer sums.
pub fn finish_tile_i8(
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
    for (row, &scale) in scales.iter().enumerate() {
        let acc = &acc[row * tile.stride..];
        let out = out.row_mut(row, tile.columns);
        finish_i8(acc, sums, offset, scale, &row_of(tile, row), out);
    }
}

/// Row by row, from float totals.
pub fn finish_tile_f32(total: &[f32], tile: &FinishTile<'_>, mut out: RowsMut<'_>) {
    tile.check(total.len(), &out);
    for row in 0..tile.rows {
        let out = out.row_mut(row, tile.columns);
        finish_f32(&total[row * tile.stride..], &row_of(tile, row), out);
    }
}
