//! Elementary functions of our own, so that every CPU gives the same bits.
//!
//! Bounds hold against f64; the tests state and check them.

/// Adding this rounds to a whole number (nearest even) and leaves it in the low bits: 1.5 * 2^23.
const ROUND: f32 = 12_582_912.0;

const LN2_HIGH: f32 = 0.693_359_4;
const LN2_LOW: f32 = -2.121_944_4e-4;
const LOG2_E: f32 = std::f32::consts::LOG2_E;

/// `e^x`, within 2 units in the last place; 0 below -86.6, infinity above 88.72283.
pub fn exp(x: f32) -> f32 {
    // n = round(x / ln 2), r = x - n ln 2 in two parts: the high one has few bits, so n times it is exact.
    let clamped = if x > -86.6 { x } else { -86.6 };
    let clamped = if clamped < 88.722_83 { clamped } else { 88.722_83 };
    let shifted = clamped.mul_add(LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(-LN2_LOW, n.mul_add(-LN2_HIGH, clamped));
    // Cephes' polynomial for (e^r - 1 - r) / r^2 on |r| <= ln 2 / 2.
    let mut p: f32 = 1.987_569_1e-4;
    p = p.mul_add(r, 1.398_199_9e-3);
    p = p.mul_add(r, 8.333_452e-3);
    p = p.mul_add(r, 4.166_579_6e-2);
    p = p.mul_add(r, 1.666_666_5e-1);
    p = p.mul_add(r, 5e-1);
    let y = p.mul_add(r * r, r) + 1.0;
    // 2^n as 2^(n - 1) * 2: n is 128 at the upper end, which no exponent holds.
    let exponent = shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(126) << 23;
    let value = y * f32::from_bits(exponent) * 2.0;
    let value = if x < -86.6 { 0.0 } else { value };
    let value = if x > 88.722_83 { f32::INFINITY } else { value };
    if x.is_nan() { x } else { value }
}

/// Hyperbolic tangent, within 3 units in the last place.
pub fn tanh(x: f32) -> f32 {
    let a = x.abs();
    let e = exp(2.0 * a);
    let far = 1.0 - 2.0 / (e + 1.0);
    // Cephes' polynomial for (tanh x - x) / x^3 on |x| < 0.625.
    let s = x * x;
    let mut p: f32 = -5.704_988_7e-3;
    p = p.mul_add(s, 2.063_909e-2);
    p = p.mul_add(s, -5.373_971_4e-2);
    p = p.mul_add(s, 1.333_144_2e-1);
    p = p.mul_add(s, -3.333_328e-1);
    let near = (p * s).mul_add(x, x);
    if a < 0.625 { near } else { far.copysign(x) }
}

/// Error function, within 2 units in the last place.
pub fn erf(x: f32) -> f32 {
    let t = x.abs();
    let s = x * x;
    // After Juffa: 1 - e^(polynomial of t) far from 0, an odd polynomial near it.
    let mut p: f32 = (-1.728_534_7e-5f32).mul_add(t, 3.831_972e-4);
    let q: f32 = (-3.883_964_4e-3f32).mul_add(t, 2.425_462_2e-2);
    p = p.mul_add(s, q);
    p = p.mul_add(t, -1.067_778_8e-1);
    p = p.mul_add(t, -6.348_468_7e-1);
    p = p.mul_add(t, -1.287_175_1e-1);
    p = p.mul_add(t, -t);
    let far = 1.0 - exp(p);
    let mut q: f32 = -5.967_617e-4;
    q = q.mul_add(s, 4.991_194_2e-3);
    q = q.mul_add(s, -2.676_813_5e-2);
    q = q.mul_add(s, 1.128_199_25e-1);
    q = q.mul_add(s, -3.761_253_4e-1);
    q = q.mul_add(s, 1.283_791_7e-1);
    let near = q.mul_add(x, x);
    // Beyond 4 the result is 1 to the last bit, and the polynomial would turn back.
    let far = if t > 4.0 { 1.0 } else { far };
    let value = if t > 0.927_734_4 { far.copysign(x) } else { near };
    if x.is_nan() { x } else { value }
}

/// Quarter turns in x, and what is left of x: `|r| <= pi / 4`.
fn quarter_turns(x: f32) -> (u32, f32) {
    let shifted = x.mul_add(std::f32::consts::FRAC_2_PI, ROUND);
    let n = shifted - ROUND;
    // pi / 2 in three parts of 24 bits; the fused multiply-adds lose nothing before the last.
    let r = n.mul_add(-1.570_796_4, x);
    let r = n.mul_add(4.371_139e-8, r);
    let r = n.mul_add(1.715_124_2e-15, r);
    (shifted.to_bits(), r)
}

fn sin_and_cos_near_zero(r: f32) -> (f32, f32) {
    let s = r * r;
    let mut p: f32 = -1.951_529_6e-4;
    p = p.mul_add(s, 8.332_161e-3);
    p = p.mul_add(s, -1.666_665_5e-1);
    let sine = (p * s).mul_add(r, r);
    let mut q: f32 = 2.443_315_7e-5;
    q = q.mul_add(s, -1.388_731_6e-3);
    q = q.mul_add(s, 4.166_664_6e-2);
    let cosine = (q * s).mul_add(s, s.mul_add(-0.5, 1.0));
    (sine, cosine)
}

/// Sine, within 1.5e-7 for `|x| <= 65536`; further out the same bits everywhere, but less exact.
pub fn sin(x: f32) -> f32 {
    let (n, r) = quarter_turns(x);
    let (sine, cosine) = sin_and_cos_near_zero(r);
    let value = if n & 1 == 0 { sine } else { cosine };
    f32::from_bits(value.to_bits() ^ ((n & 2) << 30))
}

/// Cosine, within 1.5e-7 for `|x| <= 65536`; further out the same bits everywhere, but less exact.
pub fn cos(x: f32) -> f32 {
    let (n, r) = quarter_turns(x);
    let (sine, cosine) = sin_and_cos_near_zero(r);
    let value = if n & 1 == 0 { cosine } else { sine };
    f32::from_bits(value.to_bits() ^ (((n.wrapping_add(1)) & 2) << 30))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Error in units in the last place of the exact value.
    fn ulps(got: f32, exact: f64) -> f64 {
        let unit = f64::from((exact.abs() as f32).to_bits().max(0x0080_0000));
        let bits = unit as u32;
        let spacing = f64::from(f32::from_bits(bits + 1)) - f64::from(f32::from_bits(bits));
        (f64::from(got) - exact).abs() / spacing
    }

    fn worst(low: f32, high: f32, ours: fn(f32) -> f32, exact: impl Fn(f64) -> f64) -> f64 {
        let steps = 400_000;
        (0..=steps)
            .map(|i| low + (high - low) * (i as f32 / steps as f32))
            .map(|x| ulps(ours(x), exact(f64::from(x))))
            .fold(0.0, f64::max)
    }

    /// By Taylor's series near 0 and by the continued fraction of erfc (Lentz) far from it.
    fn erf_f64(x: f64) -> f64 {
        if x.abs() < 2.5 {
            let (mut term, mut sum) = (x, x);
            for n in 1..100 {
                term *= -x * x / f64::from(n);
                sum += term / f64::from(2 * n + 1);
            }
            return sum * std::f64::consts::FRAC_2_SQRT_PI;
        }
        let a = x.abs();
        let mut f = a;
        for n in (1..200).rev() {
            f = a + f64::from(n) / 2.0 / f;
        }
        (1.0 - (-a * a).exp() / f / std::f64::consts::PI.sqrt()).copysign(x)
    }

    #[test]
    fn exp_is_within_2_ulps() {
        assert!(worst(-86.5, 88.7, exp, f64::exp) <= 2.0);
        assert!(worst(-1.0, 1.0, exp, f64::exp) <= 2.0);
        assert_eq!((exp(0.0), exp(-0.0), exp(-87.0)), (1.0, 1.0, 0.0));
        assert_eq!((exp(f32::INFINITY), exp(f32::NEG_INFINITY)), (f32::INFINITY, 0.0));
        assert_eq!((exp(88.8), exp(f32::MIN), exp(f32::MAX)), (f32::INFINITY, 0.0, f32::INFINITY));
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn tanh_is_within_3_ulps() {
        let got = worst(-10.0, 10.0, tanh, f64::tanh).max(worst(-0.7, 0.7, tanh, f64::tanh));
        assert!(got <= 3.0, "{got}");
        assert_eq!((tanh(f32::INFINITY), tanh(-100.0), tanh(0.0)), (1.0, -1.0, 0.0));
        assert!(tanh(f32::NAN).is_nan());
    }

    #[test]
    fn erf_is_within_2_ulps() {
        let got = worst(-5.0, 5.0, erf, erf_f64).max(worst(-1.0, 1.0, erf, erf_f64));
        assert!(got <= 2.0, "{got}");
        assert_eq!((erf(f32::INFINITY), erf(f32::NEG_INFINITY), erf(0.0)), (1.0, -1.0, 0.0));
        assert!(erf(f32::NAN).is_nan());
    }

    #[test]
    fn sines_are_within_1_5e_7() {
        for limit in [1f32, 10.0, 1000.0, 65536.0] {
            let steps = 200_000;
            for i in 0..=steps {
                let x = limit * (2.0 * (i as f32 / steps as f32) - 1.0);
                let wide = f64::from(x);
                assert!((f64::from(sin(x)) - wide.sin()).abs() <= 1.5e-7, "sin {x} = {}", sin(x));
                assert!((f64::from(cos(x)) - wide.cos()).abs() <= 1.5e-7, "cos {x} = {}", cos(x));
            }
        }
        assert_eq!((sin(0.0), cos(0.0)), (0.0, 1.0));
    }
}
