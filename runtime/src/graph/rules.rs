//! Operands of every op: how many, of how many dimensions, of which stored type; ranges of its numbers.

use super::{DType, Fault, InputScale, Op, ResizeMode, Unary, Window};

/// The most dimensions of a value.
pub const VALUE_RANK_MAX: usize = 6;
/// The most inputs of [`Op::Concat`].
pub const CONCAT_INPUTS_MAX: usize = 64;
/// The most rows, columns and steps of a window, and the largest whole factor of a resize.
pub const WINDOW_MAX: u32 = 256;
/// The most int8 products that one i32 accumulator may sum: `255 * 127 * 65536 < 2^31`, also where a
/// kernel adds 128 to activations.
pub const PRODUCTS_MAX: u64 = 65536;

impl Op {
    /// Whether the last input is added to the result.
    pub fn residual(&self) -> bool {
        match self {
            Op::MatmulI8 { epilogue, .. }
            | Op::MatmulF16 { epilogue, .. }
            | Op::ConvI8 { epilogue, .. }
            | Op::ConvF16 { epilogue, .. }
            | Op::Depthwise { epilogue, .. } => epilogue.residual,
            _ => false,
        }
    }
}

/// Fewest and most inputs.
fn operands(op: &Op) -> (usize, usize) {
    match op {
        Op::Constant { .. } => (0, 0),
        Op::MatmulI8 { .. }
        | Op::MatmulF16 { .. }
        | Op::ConvI8 { .. }
        | Op::ConvF16 { .. }
        | Op::Depthwise { .. } => {
            let count = 1 + usize::from(op.residual());
            (count, count)
        }
        Op::Attention { .. } | Op::AttentionI8 { .. } => (3, 4),
        Op::BatchMatmul { .. } | Op::Binary { .. } => (2, 2),
        Op::Modulate => (3, 3),
        Op::Concat { .. } => (1, CONCAT_INPUTS_MAX),
        _ => (1, 1),
    }
}

/// Fewest and most dimensions of every input (a residual among them).
fn ranks(op: &Op) -> (usize, usize) {
    match op {
        Op::ConvI8 { .. }
        | Op::ConvF16 { .. }
        | Op::Depthwise { .. }
        | Op::Resize { .. }
        | Op::PixelShuffle { .. }
        | Op::PixelUnshuffle { .. }
        | Op::Pad { .. }
        | Op::Pool { .. } => (4, 4),
        Op::Attention { .. } | Op::AttentionI8 { .. } => (3, 3),
        Op::GroupNorm { .. } => (3, 4),
        Op::Gather { .. } => (2, 2),
        Op::TimestepEmbedding { .. } => (1, 1),
        Op::BatchMatmul { .. } | Op::Modulate => (2, VALUE_RANK_MAX),
        Op::Reshape
        | Op::Expand
        | Op::Cast
        | Op::Unary { .. }
        | Op::Binary { .. }
        | Op::Constant { .. } => (0, VALUE_RANK_MAX),
        _ => (1, VALUE_RANK_MAX),
    }
}

fn range(min: usize, max: usize) -> String {
    if min == max { min.to_string() } else { format!("{min} to {max}") }
}

/// Number of inputs, their ranks, and numbers that count axes.
pub(super) fn check_operands(op: &Op, input_ranks: &[usize]) -> Result<(), Fault> {
    let (min, max) = operands(op);
    let actual = input_ranks.len();
    if !(min..=max).contains(&actual) {
        return Err(Fault::Operands { expected: range(min, max), actual });
    }
    let (min, max) = ranks(op);
    for (index, &actual) in input_ranks.iter().enumerate() {
        if !(min..=max).contains(&actual) {
            let (operand, expected) = (format!("input {index}"), range(min, max));
            return Err(Fault::Rank { operand, expected, actual });
        }
        // Concat, the two-operand ops and residuals: all of one rank.
        let first = input_ranks[0];
        if actual != first {
            let (operand, expected) = (format!("input {index}"), first.to_string());
            return Err(Fault::Rank { operand, expected, actual });
        }
    }
    let rank = input_ranks.first().copied().unwrap_or(0);
    let axis = |axis: u32| {
        let fault = || Fault::Parameter {
            what: "axis",
            actual: axis.to_string(),
            allowed: "below the number of dimensions",
        };
        ((axis as usize) < rank).then_some(()).ok_or_else(fault)
    };
    let once = |axes: &[u32], allowed| {
        let twice = axes.iter().enumerate().any(|(index, axis)| axes[..index].contains(axis));
        let fault = || Fault::Parameter { what: "axes", actual: format!("{axes:?}"), allowed };
        (!twice).then_some(()).ok_or_else(fault)
    };
    match op {
        Op::Concat { axis: at } | Op::Slice { axis: at, .. } => axis(*at),
        Op::Transpose { permutation } => {
            if permutation.len() != rank {
                let (expected, actual) = (rank as u64, permutation.len() as u64);
                return Err(Fault::Size { what: "permutation's length", expected, actual });
            }
            permutation.iter().try_for_each(|&at| axis(at))?;
            once(permutation, "a permutation")
        }
        Op::ReduceMean { axes } | Op::ReduceSum { axes } => {
            if axes.is_empty() {
                let (what, actual) = ("axes", "[]".to_owned());
                return Err(Fault::Parameter { what, actual, allowed: "at least one" });
            }
            axes.iter().try_for_each(|&at| axis(at))?;
            once(axes, "different from each other")
        }
        _ => Ok(()),
    }
}

/// Stored types of inputs and output.
pub(super) fn check_dtypes(op: &Op, inputs: &[DType], output: DType) -> Result<(), Fault> {
    let fault = |index: usize, expected, actual| {
        Err(Fault::DType { operand: format!("input {index}"), expected, actual })
    };
    let float_out = || match output {
        DType::I32 => Err(Fault::DType {
            operand: "output".to_owned(),
            expected: "F16 or F32",
            actual: output,
        }),
        _ => Ok(()),
    };
    let floats_in = || match inputs.iter().position(|&dtype| dtype == DType::I32) {
        Some(index) => fault(index, "F16 or F32", DType::I32),
        None => Ok(()),
    };
    let as_output = || match inputs.iter().position(|&dtype| dtype != output) {
        Some(index) => fault(index, "of the output's type; cast it first", inputs[index]),
        None => Ok(()),
    };
    match op {
        Op::Constant { .. } | Op::Cast => Ok(()),
        Op::Concat { .. }
        | Op::Slice { .. }
        | Op::Transpose { .. }
        | Op::Reshape
        | Op::Expand
        | Op::PixelShuffle { .. }
        | Op::PixelUnshuffle { .. }
        | Op::Resize { mode: ResizeMode::Nearest, .. } => as_output(),
        Op::Resize { .. } | Op::Pad { .. } => float_out().and_then(|()| as_output()),
        Op::Gather { .. } => match inputs[0] {
            DType::I32 => float_out(),
            other => fault(0, "I32", other),
        },
        Op::Attention { .. } | Op::AttentionI8 { .. }
            if inputs.len() == 4 && inputs[3] != DType::F32 =>
        {
            fault(3, "F32, as masks are", inputs[3])
        }
        _ => floats_in().and_then(|()| float_out()),
    }
}

fn finite(what: &'static str, value: f32) -> Result<(), Fault> {
    let fault = || Fault::Parameter { what, actual: value.to_string(), allowed: "finite" };
    value.is_finite().then_some(()).ok_or_else(fault)
}

fn check_unary(function: &Unary) -> Result<(), Fault> {
    match *function {
        Unary::LeakyRelu(alpha) => finite("alpha", alpha),
        Unary::Affine { scale, shift } => {
            finite("scale", scale).and_then(|()| finite("shift", shift))
        }
        Unary::Clamp { min, max } => {
            finite("lower bound", min)?;
            finite("upper bound", max)?;
            let fault = || Fault::Parameter {
                what: "lower bound",
                actual: min.to_string(),
                allowed: "at most the upper bound",
            };
            (min <= max).then_some(()).ok_or_else(fault)
        }
        _ => Ok(()),
    }
}

fn check_window(window: &Window) -> Result<(), Fault> {
    let within = |what, value: u32| {
        let fault = || Fault::Parameter { what, actual: value.to_string(), allowed: "1 to 256" };
        (1..=WINDOW_MAX).contains(&value).then_some(()).ok_or_else(fault)
    };
    window.kernel.iter().try_for_each(|&size| within("window", size))?;
    window.stride.iter().try_for_each(|&step| within("stride", step))?;
    for (index, &pad) in window.pad.iter().enumerate() {
        if pad >= window.kernel[index % 2] {
            return Err(Fault::Parameter {
                what: "padding",
                actual: pad.to_string(),
                allowed: "less than the window, so that every window holds a cell",
            });
        }
    }
    Ok(())
}

fn positive(what: &'static str, value: u32) -> Result<(), Fault> {
    let fault = || Fault::Parameter { what, actual: value.to_string(), allowed: "1 or more" };
    (value > 0).then_some(()).ok_or_else(fault)
}

fn check_eps(eps: f32) -> Result<(), Fault> {
    let fault =
        || Fault::Parameter { what: "eps", actual: eps.to_string(), allowed: "finite, 0 or more" };
    (eps.is_finite() && eps >= 0.0).then_some(()).ok_or_else(fault)
}

pub(super) fn check_products(k: u64) -> Result<(), Fault> {
    let fault = || Fault::TooManyProducts { k, max: PRODUCTS_MAX };
    (k <= PRODUCTS_MAX).then_some(()).ok_or_else(fault)
}

/// Numbers that an op carries.
pub(super) fn check_parameters(op: &Op) -> Result<(), Fault> {
    if let Op::MatmulI8 { epilogue, .. }
    | Op::MatmulF16 { epilogue, .. }
    | Op::ConvI8 { epilogue, .. }
    | Op::ConvF16 { epilogue, .. }
    | Op::Depthwise { epilogue, .. } = op
        && let Some(activation) = &epilogue.activation
    {
        check_unary(activation)?;
    }
    match op {
        Op::MatmulI8 { k, n, .. } => {
            positive("k", *k)?;
            positive("n", *n)?;
            check_products(u64::from(*k).next_multiple_of(4))
        }
        Op::MatmulF16 { k, n, .. } => positive("k", *k).and_then(|()| positive("n", *n)),
        Op::ConvI8 { c, n, window, input_scale, .. } => {
            positive("c", *c)?;
            positive("n", *n)?;
            check_window(window)?;
            if let InputScale::Static(scale) = *input_scale
                && !(scale.is_finite() && scale > 0.0)
            {
                let (what, actual) = ("input scale", scale.to_string());
                return Err(Fault::Parameter { what, actual, allowed: "finite and above 0" });
            }
            let taps = u64::from(window.kernel[0]) * u64::from(window.kernel[1]);
            check_products(taps * u64::from(*c).next_multiple_of(4))
        }
        Op::ConvF16 { c, n, window, .. } => {
            positive("c", *c)?;
            positive("n", *n)?;
            check_window(window)
        }
        Op::Depthwise { window, .. } | Op::Pool { window, .. } => check_window(window),
        Op::Attention { heads, scale, .. } | Op::AttentionI8 { heads, scale, .. } => {
            positive("heads", *heads).and_then(|()| finite("scale", *scale))
        }
        Op::LayerNorm { eps, .. } => check_eps(*eps),
        Op::RmsNorm { eps, size, .. } => check_eps(*eps).and_then(|()| positive("size", *size)),
        Op::GroupNorm { groups, eps, activation, .. } => {
            check_eps(*eps)?;
            positive("groups", *groups)?;
            activation.as_ref().map_or(Ok(()), check_unary)
        }
        Op::Unary { function } | Op::Gated { function } => check_unary(function),
        Op::Resize { factor, .. } => factor.iter().try_for_each(|&factor| {
            let fault = || Fault::Parameter {
                what: "factor",
                actual: factor.to_string(),
                allowed: "1 to 256",
            };
            (1..=WINDOW_MAX).contains(&factor).then_some(()).ok_or_else(fault)
        }),
        Op::PixelShuffle { factor, .. } | Op::PixelUnshuffle { factor, .. } => {
            let fault = || Fault::Parameter {
                what: "factor",
                actual: factor.to_string(),
                allowed: "1 to 256",
            };
            (1..=WINDOW_MAX).contains(factor).then_some(()).ok_or_else(fault)
        }
        Op::Pad { value, .. } => finite("value", *value),
        Op::Gather { rows, .. } => positive("rows", *rows),
        _ => Ok(()),
    }
}
