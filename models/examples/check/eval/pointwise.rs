//! Functions of single values.

use plantain::graph::{Binary, Unary};

use plantain_pack::lower::FloatTensor;

pub(super) fn unary(function: Unary, x: f32) -> f32 {
    match function {
        Unary::Relu => x.max(0.0),
        Unary::LeakyRelu(alpha) => {
            if x < 0.0 {
                alpha * x
            } else {
                x
            }
        }
        Unary::Silu => x / (1.0 + (-x).exp()),
        Unary::Gelu => x / 2.0 * (1.0 + erf(x / std::f32::consts::SQRT_2)),
        Unary::GeluTanh => {
            let inner = (2.0 / std::f32::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
            x / 2.0 * (1.0 + inner.tanh())
        }
        Unary::QuickGelu => x / (1.0 + (-1.702 * x).exp()),
        Unary::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        Unary::Tanh => x.tanh(),
        Unary::Exp => x.exp(),
        Unary::Erf => erf(x),
        Unary::Sqrt => x.sqrt(),
        Unary::Rsqrt => 1.0 / x.sqrt(),
        Unary::Reciprocal => 1.0 / x,
        Unary::Sin => x.sin(),
        Unary::Cos => x.cos(),
        Unary::Neg => -x,
        Unary::Abs => x.abs(),
        Unary::Square => x * x,
        Unary::Affine { scale, shift } => scale.mul_add(x, shift),
        Unary::Clamp { min, max } => x.clamp(min, max),
    }
}

/// By its series for small and its continued fraction for large arguments, in f64.
fn erf(x: f32) -> f32 {
    let x = f64::from(x);
    let a = x.abs();
    let value = if a < 3.0 {
        let (mut term, mut sum) = (a, a);
        for n in 1..80 {
            let n = f64::from(n);
            term *= -a * a / n;
            sum += term / (2.0 * n + 1.0);
        }
        sum * 2.0 / std::f64::consts::PI.sqrt()
    } else {
        let fraction = (1..60).rev().fold(a, |f, n| a + f64::from(n) / 2.0 / f);
        1.0 - (-a * a).exp() / fraction / std::f64::consts::PI.sqrt()
    };
    value.copysign(x) as f32
}

pub(super) fn binary(function: Binary, a: f32, b: f32) -> f32 {
    match function {
        Binary::Add => a + b,
        Binary::Sub => a - b,
        Binary::Mul => a * b,
        Binary::Div => a / b,
        Binary::Min => a.min(b),
        Binary::Max => a.max(b),
    }
}

pub(super) fn gated(x: &FloatTensor, function: Unary) -> Vec<f32> {
    let half = x.shape[x.shape.len() - 1] / 2;
    let rows = x.data.chunks_exact(2 * half);
    rows.flat_map(|row| (0..half).map(move |i| row[i] * unary(function, row[half + i]))).collect()
}

pub(super) fn timestep(t: &[f32], frequencies: &[f32], sin_first: bool) -> Vec<f32> {
    let mut result = Vec::with_capacity(t.len() * frequencies.len() * 2);
    for &t in t {
        for sines in [sin_first, !sin_first] {
            let f = if sines { f32::sin } else { f32::cos };
            result.extend(frequencies.iter().map(|frequency| f(t * frequency)));
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn erf_agrees_with_tables() {
        for (x, expected) in [(0.5, 0.520_499_9), (1.0, 0.842_700_8), (2.9, 0.999_958_9)] {
            assert!((erf(x) - expected).abs() < 2e-7, "erf({x}) = {}", erf(x));
            assert_eq!(erf(-x), -erf(x));
        }
        assert!((erf(3.1) - 0.999_988_35).abs() < 2e-7);
        assert_eq!(erf(9.0), 1.0);
    }
}
