//! Functions of one value.

use super::math::{cos, erf, exp, sin, tanh};
use super::{Lanes, load_part, store_part};
use crate::graph::Unary;
use crate::kernel::LANES;

/// See [`crate::kernel::Kernels::unary`].
#[inline(always)]
pub fn unary<L: Lanes>(function: Unary, values: &mut [f32]) {
    for chunk in values.chunks_mut(LANES) {
        store_part(apply(function, load_part::<L>(chunk, 0.0)), chunk);
    }
}

/// `x / (1 + e^y)`
#[inline(always)]
fn over_one_plus_exp<L: Lanes>(x: L, y: L) -> L {
    x.div(L::splat(1.0).add(exp(y)))
}

/// Sixteen values. The branch on `function` is the same each time, so it costs next to nothing.
#[inline(always)]
pub fn apply<L: Lanes>(function: Unary, x: L) -> L {
    let zero = L::splat(0.0);
    match function {
        Unary::Relu => x.max(zero),
        Unary::LeakyRelu(alpha) => zero.if_greater(x, L::splat(alpha).mul(x), x),
        Unary::Silu => over_one_plus_exp(x, x.neg()),
        Unary::Gelu => {
            let e = erf(x.mul(L::splat(std::f32::consts::FRAC_1_SQRT_2)));
            L::splat(0.5).mul(x).mul(L::splat(1.0).add(e))
        }
        Unary::GeluTanh => {
            let inner = L::splat(0.044_715).mul(x.mul(x)).mul_add(x, x);
            over_one_plus_exp(x, inner.mul(L::splat(-1.595_769)))
        }
        Unary::QuickGelu => over_one_plus_exp(x, x.mul(L::splat(-1.702))),
        Unary::Sigmoid => over_one_plus_exp(L::splat(1.0), x.neg()),
        Unary::Tanh => tanh(x),
        Unary::Exp => exp(x),
        Unary::Erf => erf(x),
        Unary::Sqrt => x.sqrt(),
        Unary::Rsqrt => L::splat(1.0).div(x.sqrt()),
        Unary::Reciprocal => L::splat(1.0).div(x),
        Unary::Sin => sin(x),
        Unary::Cos => cos(x),
        Unary::Neg => x.neg(),
        Unary::Abs => x.abs(),
        Unary::Square => x.mul(x),
        Unary::Affine { scale, shift } => x.mul_add(L::splat(scale), L::splat(shift)),
        Unary::Clamp { min, max } => {
            let (min, max) = (L::splat(min), L::splat(max));
            let x = min.if_greater(x, min, x);
            x.if_greater(max, max, x)
        }
    }
}
