//! Epilogues of matrix products, in one pass.

use super::{Lanes, load_part, load_row, store_part, store_row, unary::apply};
use crate::kernel::{Finish, LANES, RowMut};

/// `acc - offset * sums` of up to 16 values from `start` on.
#[inline(always)]
fn load_sums<L: Lanes>(acc: &[i32], sums: &[i32], offset: i32, start: usize, end: usize) -> L {
    let (acc, sums) = (&acc[start..end], &sums[start..end]);
    match (acc.try_into(), sums.try_into()) {
        (Ok(acc), Ok(sums)) => L::load_sums(acc, sums, offset),
        _ => {
            let (mut acc_buffer, mut sums_buffer) = ([0; LANES], [0; LANES]);
            acc_buffer[..acc.len()].copy_from_slice(acc);
            sums_buffer[..sums.len()].copy_from_slice(sums);
            L::load_sums(&acc_buffer, &sums_buffer, offset)
        }
    }
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
    assert!(acc.len() >= total.len() && sums.len() >= total.len(), "sums end before the totals");
    let scale = L::splat(scale);
    for (index, total) in total.chunks_mut(LANES).enumerate() {
        let start = index * LANES;
        let exact = load_sums::<L>(acc, sums, offset, start, start + total.len());
        let before = if first { L::splat(0.0) } else { load_part(total, 0.0) };
        store_part(exact.mul_add(scale, before), total);
    }
}

/// What follows the totals, for values `start..end` (at most 16).
#[inline(always)]
fn finish<L: Lanes>(total: L, finish: &Finish<'_>, start: usize, end: usize, out: &mut RowMut<'_>) {
    let bias = match finish.bias {
        Some(bias) => load_part(&bias[start..end], 0.0),
        None => L::splat(0.0),
    };
    let mut value = match finish.weight_scale {
        Some(scale) => total.mul_add(load_part(&scale[start..end], 0.0), bias),
        None => total.add(bias),
    };
    if let Some(function) = finish.activation {
        value = apply(function, value);
    }
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
        let total = load_sums::<L>(acc, sums, offset, start, end).mul(scale);
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
