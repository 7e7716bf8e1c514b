//! Epilogues of matrix products.

use super::unary::apply;
use crate::kernel::{Finish, Residual, RowMut, RowsMut};
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

/// Output `index` of a row.
fn store(
    index: usize,
    total: f32,
    finish: &Finish<'_>,
    residual: Option<f32>,
    out: &mut RowMut<'_>,
) {
    let bias = finish.bias.map_or(0.0, |bias| bias[index]);
    let mut value = match finish.weight_scale {
        Some(scale) => total.mul_add(scale[index], bias),
        None => total + bias,
    };
    if let Some(function) = finish.activation {
        value = apply(function, value);
    }
    if let Some(residual) = residual {
        value += residual;
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

/// Output after output; `total` by row and output.
fn store_all(finish: &Finish<'_>, mut out: RowsMut<'_>, total: impl Fn(usize, usize) -> f32) {
    for row in 0..finish.rows {
        let mut out = out.row_mut(row, finish.columns);
        for index in 0..finish.columns {
            let residual = finish.residual.map(|residual| match residual {
                Residual::Apart(rows) => rows.row(row, finish.columns).get(index),
                Residual::Output => out.as_row().get(index),
            });
            store(index, total(row, index), finish, residual, &mut out);
        }
    }
}

/// From integer sums.
pub fn finish_i8(
    acc: &[i32],
    sums: &[i32],
    offset: i32,
    scales: &[f32],
    finish: &Finish<'_>,
    out: RowsMut<'_>,
) {
    assert_eq!(scales.len(), finish.rows, "a scale is missing or too many");
    assert!(
        sums.len() >= finish.columns && finish.stride >= finish.columns,
        "sums end before the row"
    );
    finish.check(acc.len(), &out);
    store_all(finish, out, |row, index| {
        let acc = acc[row * finish.stride + index];
        acc.wrapping_sub(offset.wrapping_mul(sums[index])) as f32 * scales[row]
    });
}

/// From float totals.
pub fn finish_f32(total: &[f32], finish: &Finish<'_>, out: RowsMut<'_>) {
    finish.check(total.len(), &out);
    store_all(finish, out, |row, index| total[row * finish.stride + index]);
}
