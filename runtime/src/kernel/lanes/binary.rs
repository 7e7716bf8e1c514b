//! Functions of two values, and of a value with two that repeat.

use super::{Lanes, load_part, store_part};
use crate::graph::Binary;
use crate::kernel::LANES;

#[inline(always)]
fn apply<L: Lanes>(function: Binary, a: L, b: L) -> L {
    match function {
        Binary::Add => a.add(b),
        Binary::Sub => a.sub(b),
        Binary::Mul => a.mul(b),
        Binary::Div => a.div(b),
        Binary::Min => a.min(b),
        Binary::Max => a.max(b),
    }
}

/// See [`crate::kernel::Kernels::binary`].
#[inline(always)]
pub fn binary<L: Lanes>(function: Binary, a: &[f32], b: &[f32], out: &mut [f32]) {
    assert!(a.len() == out.len() && b.len() == out.len(), "operands differ in length");
    let operands = a.chunks(LANES).zip(b.chunks(LANES));
    for (out, (a, b)) in out.chunks_mut(LANES).zip(operands) {
        store_part(apply(function, load_part::<L>(a, 0.0), load_part(b, 0.0)), out);
    }
}

/// See [`crate::kernel::Kernels::binary_scalar`].
#[inline(always)]
pub fn binary_scalar<L: Lanes>(function: Binary, values: &mut [f32], b: f32) {
    let b = L::splat(b);
    for chunk in values.chunks_mut(LANES) {
        store_part(apply(function, load_part(chunk, 0.0), b), chunk);
    }
}

/// See [`crate::kernel::Kernels::scalar_binary`].
#[inline(always)]
pub fn scalar_binary<L: Lanes>(function: Binary, a: f32, values: &mut [f32]) {
    let a = L::splat(a);
    for chunk in values.chunks_mut(LANES) {
        store_part(apply(function, a, load_part(chunk, 0.0)), chunk);
    }
}

/// See [`crate::kernel::Kernels::modulate`].
#[inline(always)]
pub fn modulate<L: Lanes>(values: &mut [f32], scale: &[f32], shift: &[f32]) {
    multiply_add::<L>(values, scale, shift, true);
}

/// See [`crate::kernel::Kernels::scale_shift`].
#[inline(always)]
pub fn scale_shift<L: Lanes>(values: &mut [f32], scale: &[f32], shift: &[f32]) {
    multiply_add::<L>(values, scale, shift, false);
}

#[inline(always)]
fn multiply_add<L: Lanes>(values: &mut [f32], scale: &[f32], shift: &[f32], plus_one: bool) {
    assert_eq!(scale.len(), shift.len(), "scale and shift differ in length");
    assert!(values.len().is_multiple_of(scale.len()), "scale does not divide the row");
    let one = L::splat(1.0);
    for run in values.chunks_exact_mut(scale.len()) {
        let factors = scale.chunks(LANES).zip(shift.chunks(LANES));
        for (chunk, (scale, shift)) in run.chunks_mut(LANES).zip(factors) {
            let scale = load_part::<L>(scale, 0.0);
            let scale = if plus_one { one.add(scale) } else { scale };
            store_part(load_part::<L>(chunk, 0.0).mul_add(scale, load_part(shift, 0.0)), chunk);
        }
    }
}
