//! Shapes: what an op makes of its inputs' sizes.
//!
//! Enters: an op, its inputs' sizes, the stated size of its output (which ops such as reshape and slice
//! take as theirs). Leaves: the output's size. Never: values, types.

use super::rules::{check_operands, check_products};
use super::{Binding, Dim, Fault, Op, Window};

/// The shape of a node's output.
///
/// `stated` is what the graph says; it is returned where the op leaves it open (constant, reshape, expand,
/// the length of a slice, the channels of a gather and of a timestep embedding) and fits.
///
/// # Errors
/// [`Fault`] if the inputs do not fit the op or each other, or `stated` is impossible.
pub fn output_shape(
    op: &Op,
    inputs: &[&[usize]],
    stated: &[usize],
    binding: Binding,
) -> Result<Vec<usize>, Fault> {
    let ranks: Vec<usize> = inputs.iter().map(|shape| shape.len()).collect();
    check_operands(op, &ranks)?;
    let x = inputs.first().copied().unwrap_or_default();
    let output = match op {
        Op::Constant { .. } => stated.to_vec(),
        Op::MatmulI8 { k, n, .. } | Op::MatmulF16 { k, n, .. } => {
            equal("last dimension", *k as usize, last(x))?;
            with_last(x, limit(u64::from(*n))?)
        }
        Op::ConvI8 { c, n, window, .. } | Op::ConvF16 { c, n, window, .. } => {
            equal("number of channels", *c as usize, x[3])?;
            windowed(x, window, limit(u64::from(*n))?)?
        }
        Op::Depthwise { window, .. } | Op::Pool { window, .. } => windowed(x, window, x[3])?,
        Op::BatchMatmul { transpose_b } => batch_matmul(x, inputs[1], *transpose_b)?,
        Op::Attention { heads, .. } => attention(inputs, *heads as usize)?,
        Op::AttentionI8 { heads, .. } => {
            let shape = attention(inputs, *heads as usize)?;
            check_products((last(x) as u64 / u64::from(*heads)).next_multiple_of(4))?;
            shape
        }
        Op::LayerNorm { .. } | Op::Unary { .. } | Op::Softmax | Op::Cast => x.to_vec(),
        Op::RmsNorm { size, .. } => {
            divides("last dimension", last(x), *size as usize)?;
            x.to_vec()
        }
        Op::GroupNorm { groups, .. } => {
            divides("number of channels", last(x), *groups as usize)?;
            x.to_vec()
        }
        Op::Binary { .. } => broadcast(x, inputs[1])?,
        Op::Modulate => {
            for other in &inputs[1..] {
                if broadcast(x, other)? != x || last(other) != last(x) {
                    return Err(mismatch(x, other));
                }
            }
            x.to_vec()
        }
        Op::Gated { .. } => {
            divides("last dimension", last(x), 2)?;
            with_last(x, last(x) / 2)
        }
        Op::Resize { factor: [down, right], .. } => {
            vec![x[0], times(x[1], *down)?, times(x[2], *right)?, x[3]]
        }
        Op::PixelShuffle { factor, .. } => {
            let square = times(*factor as usize, *factor)?;
            divides("number of channels", x[3], square)?;
            vec![x[0], times(x[1], *factor)?, times(x[2], *factor)?, x[3] / square]
        }
        Op::PixelUnshuffle { factor, .. } => {
            let r = *factor as usize;
            divides("height", x[1], r)?;
            divides("width", x[2], r)?;
            vec![x[0], x[1] / r, x[2] / r, times(times(x[3], *factor)?, *factor)?]
        }
        Op::Concat { axis } => concat(inputs, *axis as usize)?,
        Op::Slice { axis, start } => slice(x, stated, *axis as usize, start, binding)?,
        Op::Transpose { permutation } => permutation.iter().map(|&axis| x[axis as usize]).collect(),
        Op::Reshape => {
            let count = |shape: &[usize]| {
                shape.iter().try_fold(1u64, |count, &dim| count.checked_mul(dim as u64))
            };
            if count(x).is_none() || count(x) != count(stated) {
                return Err(mismatch(x, stated));
            }
            stated.to_vec()
        }
        Op::Expand => {
            if x.len() != stated.len() || broadcast(x, stated)? != stated {
                return Err(mismatch(x, stated));
            }
            stated.to_vec()
        }
        Op::Pad { pad: [top, left, bottom, right], .. } => {
            let plus = |dim: usize, before: u32, after: u32| {
                limit(dim as u64 + u64::from(before) + u64::from(after))
            };
            vec![x[0], plus(x[1], *top, *bottom)?, plus(x[2], *left, *right)?, x[3]]
        }
        Op::Gather { .. } | Op::TimestepEmbedding { .. } => {
            rank("output", x.len() + 1, stated.len())?;
            if matches!(op, Op::TimestepEmbedding { .. }) {
                divides("output's last dimension", last(stated), 2)?;
            }
            let mut shape = x.to_vec();
            shape.push(last(stated));
            shape
        }
        Op::ReduceMean { axes } | Op::ReduceSum { axes } => {
            let mut shape = x.to_vec();
            axes.iter().for_each(|&axis| shape[axis as usize] = 1);
            shape
        }
    };
    if op.residual() && inputs[1] != output {
        return Err(mismatch(&output, inputs[1]));
    }
    Ok(output)
}

fn mismatch(left: &[usize], right: &[usize]) -> Fault {
    Fault::Mismatch { left: left.to_vec(), right: right.to_vec() }
}

fn last(shape: &[usize]) -> usize {
    shape.last().copied().unwrap_or(1)
}

fn with_last(shape: &[usize], dim: usize) -> Vec<usize> {
    let mut shape = shape.to_vec();
    if let Some(last) = shape.last_mut() {
        *last = dim;
    }
    shape
}

fn equal(what: &'static str, expected: usize, actual: usize) -> Result<(), Fault> {
    let fault = || Fault::Size { what, expected: expected as u64, actual: actual as u64 };
    (expected == actual).then_some(()).ok_or_else(fault)
}

fn rank(operand: &str, expected: usize, actual: usize) -> Result<(), Fault> {
    let fault =
        || Fault::Rank { operand: operand.to_owned(), expected: expected.to_string(), actual };
    (expected == actual).then_some(()).ok_or_else(fault)
}

fn divides(what: &'static str, actual: usize, divisor: usize) -> Result<(), Fault> {
    let fault = || Fault::Divides { what, actual: actual as u64, divisor: divisor as u64 };
    (divisor > 0 && actual.is_multiple_of(divisor)).then_some(()).ok_or_else(fault)
}

/// A computed dimension, if it is one that a graph may have.
fn limit(dim: u64) -> Result<usize, Fault> {
    let fault = || Fault::Parameter {
        what: "output dimension",
        actual: dim.to_string(),
        allowed: "at most 268435456",
    };
    (dim <= Dim::MAX as u64).then_some(dim as usize).ok_or_else(fault)
}

fn times(dim: usize, factor: u32) -> Result<usize, Fault> {
    limit((dim as u64).saturating_mul(u64::from(factor)))
}

fn windowed(x: &[usize], window: &Window, channels: usize) -> Result<Vec<usize>, Fault> {
    let cells = |size: usize, axis: usize| {
        let (kernel, stride) = (u64::from(window.kernel[axis]), u64::from(window.stride[axis]));
        let padded = size as u64 + u64::from(window.pad[axis]) + u64::from(window.pad[axis + 2]);
        if padded < kernel || stride == 0 {
            let what = "padded input";
            let allowed = "at least as large as the window, with a stride of 1 or more";
            return Err(Fault::Parameter { what, actual: padded.to_string(), allowed });
        }
        limit((padded - kernel) / stride + 1)
    };
    Ok(vec![x[0], cells(x[1], 0)?, cells(x[2], 1)?, channels])
}

fn batch_matmul(a: &[usize], b: &[usize], transpose_b: bool) -> Result<Vec<usize>, Fault> {
    let rank = a.len();
    let (k, n) = if transpose_b { (b[rank - 1], b[rank - 2]) } else { (b[rank - 2], b[rank - 1]) };
    if a[..rank - 2] != b[..rank - 2] || a[rank - 1] != k {
        return Err(mismatch(a, b));
    }
    Ok(with_last(a, n))
}

fn attention(inputs: &[&[usize]], heads: usize) -> Result<Vec<usize>, Fault> {
    let (q, k, v) = (inputs[0], inputs[1], inputs[2]);
    divides("number of channels", q[2], heads)?;
    if k != v {
        return Err(mismatch(k, v));
    }
    if q[0] != k[0] || q[2] != k[2] {
        return Err(mismatch(q, k));
    }
    if let Some(mask) = inputs.get(3) {
        let scores = [q[0], q[1], k[1]];
        let fits =
            mask[2] == k[1] && (0..2).all(|axis| mask[axis] == 1 || mask[axis] == scores[axis]);
        if !fits {
            return Err(mismatch(&scores, mask));
        }
    }
    Ok(q.to_vec())
}

/// numpy's broadcast of two shapes of one rank.
fn broadcast(left: &[usize], right: &[usize]) -> Result<Vec<usize>, Fault> {
    let dim = |(&a, &b): (&usize, &usize)| match (a, b) {
        (a, b) if a == b => Some(a),
        (1, b) => Some(b),
        (a, 1) => Some(a),
        _ => None,
    };
    left.iter().zip(right).map(dim).collect::<Option<_>>().ok_or_else(|| mismatch(left, right))
}

fn concat(inputs: &[&[usize]], axis: usize) -> Result<Vec<usize>, Fault> {
    let mut shape = inputs[0].to_vec();
    for other in &inputs[1..] {
        let fits = (0..shape.len()).all(|at| at == axis || shape[at] == other[at]);
        if !fits {
            return Err(mismatch(&shape, other));
        }
        shape[axis] = limit(shape[axis] as u64 + other[axis] as u64)?;
    }
    Ok(shape)
}

fn slice(
    x: &[usize],
    stated: &[usize],
    axis: usize,
    start: &Dim,
    binding: Binding,
) -> Result<Vec<usize>, Fault> {
    rank("output", x.len(), stated.len())?;
    let start = start
        .bind_index(binding)
        .map_err(|error| Fault::Dim { value: "start of the slice".to_owned(), error })?;
    let end = start as u64 + stated[axis] as u64;
    if end > x[axis] as u64 {
        let (actual, allowed) = (end.to_string(), "at most the input's dimension");
        return Err(Fault::Parameter { what: "end of the slice", actual, allowed });
    }
    let mut shape = x.to_vec();
    shape[axis] = stated[axis];
    Ok(shape)
}
