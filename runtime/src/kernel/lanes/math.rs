//! Elementary functions: the operations of `reference/math.rs`, over lanes.

use super::{Lanes, to_array};
use crate::kernel::{LANES, reference};

/// Adding this rounds to a whole number, nearest even: 1.5 * 2^23.
const ROUND: f32 = 12_582_912.0;

/// `p * x + c`
#[inline(always)]
fn step<L: Lanes>(p: L, x: L, c: f32) -> L {
    p.mul_add(x, L::splat(c))
}

/// `e^x`
#[inline(always)]
pub fn exp<L: Lanes>(x: L) -> L {
    let (low, high) = (L::splat(-86.6), L::splat(88.722_83));
    let clamped = x.max(low).min(high);
    let n = step(clamped, L::splat(std::f32::consts::LOG2_E), ROUND).sub(L::splat(ROUND));
    let r = n.mul_add(L::splat(-0.693_359_4), clamped);
    let r = n.mul_add(L::splat(2.121_944_4e-4), r);
    let p = step(L::splat(1.987_569_1e-4), r, 1.398_199_9e-3);
    let p = step(p, r, 8.333_452e-3);
    let p = step(p, r, 4.166_579_6e-2);
    let p = step(p, r, 1.666_666_5e-1);
    let p = step(p, r, 5e-1);
    let y = p.mul_add(r.mul(r), r).add(L::splat(1.0));
    let value = low.if_greater(x, L::splat(0.0), y.scale_by_power(n));
    let value = x.if_greater(high, L::splat(f32::INFINITY), value);
    x.if_nan(x, value)
}

/// Hyperbolic tangent.
#[inline(always)]
pub fn tanh<L: Lanes>(x: L) -> L {
    let a = x.abs();
    let one = L::splat(1.0);
    let e = exp(a.mul(L::splat(2.0)));
    let far = one.sub(L::splat(2.0).div(e.add(one)));
    let s = x.mul(x);
    let p = step(L::splat(-5.704_988_7e-3), s, 2.063_909e-2);
    let p = step(p, s, -5.373_971_4e-2);
    let p = step(p, s, 1.333_144_2e-1);
    let p = step(p, s, -3.333_328e-1);
    let near = p.mul(s).mul_add(x, x);
    L::splat(0.625).if_greater(a, near, far.copysign(x))
}

/// Error function.
#[inline(always)]
pub fn erf<L: Lanes>(x: L) -> L {
    let t = x.abs();
    let s = x.mul(x);
    let p = step(L::splat(-1.728_534_7e-5), t, 3.831_972e-4);
    let q = step(L::splat(-3.883_964_4e-3), t, 2.425_462_2e-2);
    let p = p.mul_add(s, q);
    let p = step(p, t, -1.067_778_8e-1);
    let p = step(p, t, -6.348_468_7e-1);
    let p = step(p, t, -1.287_175_1e-1);
    let p = p.mul_add(t, t.neg());
    let one = L::splat(1.0);
    let far = one.sub(exp(p));
    let q = step(L::splat(-5.967_617e-4), s, 4.991_194_2e-3);
    let q = step(q, s, -2.676_813_5e-2);
    let q = step(q, s, 1.128_199_25e-1);
    let q = step(q, s, -3.761_253_4e-1);
    let q = step(q, s, 1.283_791_7e-1);
    let near = q.mul_add(x, x);
    let far = t.if_greater(L::splat(4.0), one, far);
    let value = t.if_greater(L::splat(0.927_734_4), far.copysign(x), near);
    x.if_nan(x, value)
}

/// Sine, lane by lane: timestep embeddings take a few hundred a picture.
#[inline(always)]
pub fn sin<L: Lanes>(x: L) -> L {
    let mut values: [f32; LANES] = to_array(x);
    for value in &mut values {
        *value = reference::sin(*value);
    }
    L::load(&values)
}

/// Cosine, lane by lane.
#[inline(always)]
pub fn cos<L: Lanes>(x: L) -> L {
    let mut values: [f32; LANES] = to_array(x);
    for value in &mut values {
        *value = reference::cos(*value);
    }
    L::load(&values)
}
