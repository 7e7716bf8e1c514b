//! Functions of single values and resizes, by tract's names.

use plantain::graph::{Binary, ResizeMode, Unary};
use tract_onnx::tract_core::ops::binary::TypedBinOp;
use tract_onnx::tract_core::ops::element_wise::ElementWiseOp;
use tract_onnx::tract_core::ops::math::PowConst;
use tract_onnx::tract_core::ops::nn::gelu_approximate::GeluApproximate;
use tract_onnx::tract_core::ops::nn::{CoordTransformer, Interpolator, LeakyRelu, Nearest, Resize};

use crate::import::flow::Kind;

pub(super) fn elementwise(op: &ElementWiseOp) -> Option<Kind> {
    let mini = &op.0;
    if let Some(op) = mini.downcast_ref::<LeakyRelu>() {
        return Some(Kind::Unary(Unary::LeakyRelu(op.alpha)));
    }
    if let Some(op) = mini.downcast_ref::<GeluApproximate>() {
        return (!op.fast_impl).then_some(Kind::Unary(Unary::GeluTanh));
    }
    if let Some(op) = mini.downcast_ref::<PowConst>() {
        return Some(power(op.exponent));
    }
    let unary = match &*mini.name() {
        "Silu" => Unary::Silu,
        "GeluExact" => Unary::Gelu,
        "Sigmoid" => Unary::Sigmoid,
        "Tanh" => Unary::Tanh,
        "Exp" => Unary::Exp,
        "Erf" => Unary::Erf,
        "Sqrt" => Unary::Sqrt,
        "Rsqrt" => Unary::Rsqrt,
        "Recip" => Unary::Reciprocal,
        "Sin" => Unary::Sin,
        "Cos" => Unary::Cos,
        "Neg" => Unary::Neg,
        "Abs" => Unary::Abs,
        "Square" => Unary::Square,
        _ => return None,
    };
    Some(Kind::Unary(unary))
}

/// `x ^ exponent`.
pub(super) fn power(exponent: f32) -> Kind {
    match exponent {
        2.0 => Kind::Unary(Unary::Square),
        0.5 => Kind::Unary(Unary::Sqrt),
        -0.5 => Kind::Unary(Unary::Rsqrt),
        -1.0 => Kind::Unary(Unary::Reciprocal),
        other => Kind::Power(other),
    }
}

pub(super) fn binary(op: &TypedBinOp) -> Option<Binary> {
    Some(match op.0.name() {
        "Add" => Binary::Add,
        "Sub" => Binary::Sub,
        "Mul" => Binary::Mul,
        "Div" => Binary::Div,
        "Min" => Binary::Min,
        "Max" => Binary::Max,
        _ => return None,
    })
}

pub(super) fn resize(op: &Resize, from: &[usize], to: &[usize]) -> Option<Kind> {
    let whole = from.iter().zip(to).all(|(&f, &t)| t % f == 0);
    let mode = match (&op.interpolator, &op.coord_transformer, &op.nearest) {
        (Interpolator::Nearest, CoordTransformer::Asymmetric, Nearest::Floor) => {
            ResizeMode::Nearest
        }
        (Interpolator::Linear, CoordTransformer::HalfPixel, _) => ResizeMode::Bilinear,
        _ => return None,
    };
    let factors = from.iter().zip(to).map(|(&f, &t)| t / f).collect();
    whole.then_some(Kind::Resize(factors, mode))
}
