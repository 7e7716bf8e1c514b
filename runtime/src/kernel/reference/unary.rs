//! Functions of one value.

use super::math::{cos, erf, exp, sin, tanh};
use crate::graph::Unary;

/// Applies a function to every value.
pub fn unary(function: Unary, values: &mut [f32]) {
    for value in values {
        *value = apply(function, *value);
    }
}

/// One value.
pub fn apply(function: Unary, x: f32) -> f32 {
    match function {
        Unary::Relu => {
            if x > 0.0 {
                x
            } else {
                0.0
            }
        }
        Unary::LeakyRelu(alpha) => {
            if x < 0.0 {
                alpha * x
            } else {
                x
            }
        }
        Unary::Silu => x / (1.0 + exp(-x)),
        Unary::Gelu => 0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2)),
        // (1 + tanh u) / 2 is 1 / (1 + e^(-2u)); 2 * sqrt(2 / pi) is the factor.
        Unary::GeluTanh => {
            let inner = (0.044_715 * (x * x)).mul_add(x, x);
            x / (1.0 + exp(inner * -1.595_769))
        }
        Unary::QuickGelu => x / (1.0 + exp(x * -1.702)),
        Unary::Sigmoid => 1.0 / (1.0 + exp(-x)),
        Unary::Tanh => tanh(x),
        Unary::Exp => exp(x),
        Unary::Erf => erf(x),
        Unary::Sqrt => x.sqrt(),
        Unary::Rsqrt => 1.0 / x.sqrt(),
        Unary::Reciprocal => 1.0 / x,
        Unary::Sin => sin(x),
        Unary::Cos => cos(x),
        Unary::Neg => -x,
        Unary::Abs => x.abs(),
        Unary::Square => x * x,
        Unary::Affine { scale, shift } => x.mul_add(scale, shift),
        Unary::Clamp { min, max } => {
            let x = if x < min { min } else { x };
            if x > max { max } else { x }
        }
    }
}
