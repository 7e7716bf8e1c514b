//! Epilogues of matrix products.

use super::unary::apply;
use crate::kernel::{Finish, RowMut};
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
    assert!(acc.len() >= total.len() && sums.len() >= total.len(), "sums end before the totals");
    for (index, total) in total.iter_mut().enumerate() {
        let exact = acc[index].wrapping_sub(offset.wrapping_mul(sums[index]));
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
        RowMut::F16(out) => out[index] = f16::from_f32_const(value),
        RowMut::F32(out) => out[index] = value,
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
