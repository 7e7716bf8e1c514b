//! Step drivers: how each op walks rows and calls kernels.
//!
//! Enters: a task with its operands, some rows of its result, one worker's context. Leaves: that worker's
//! share of those rows, written. Never: an allocation, a row that belongs to another worker, a result that
//! depends on how work was split.

mod attention;
mod conv;
mod embed;
mod gemm;
mod map;
mod matmul;
mod norm;
mod quantise;
mod shape;
mod window;

use crate::graph::{Graph, Op};
use crate::plan::{Pass, Scale, product_scale};

use super::context::{Context, Portion, Work};
use super::pool::Stopped;

/// Runs this worker's share of a portion; all workers must call it with the same portion.
pub(super) fn run(
    cx: &Context<'_>,
    graph: &Graph,
    work: &Work,
    portion: &Portion,
) -> Result<(), Stopped> {
    let op = &graph.nodes[work.node].op;
    match (work.pass, op) {
        (Pass::Moments, Op::GroupNorm { groups, .. }) => {
            norm::moments(cx, work, portion, *groups as usize);
        }
        (Pass::Combine, Op::GroupNorm { groups, eps, .. }) => {
            let groups = *groups as usize;
            norm::combine(cx, work, portion, groups, *eps, work.number);
        }
        (Pass::Normalise, Op::GroupNorm { activation, .. }) => {
            norm::normalise(cx, work, portion, *activation);
        }
        (Pass::Keys, Op::AttentionI8 { heads, .. }) => {
            attention::keys(cx, work, portion, *heads as usize);
        }
        (Pass::Attend, Op::AttentionI8 { heads, scale, causal }) => {
            attention::attend(cx, work, portion, *heads as usize, *scale, *causal);
        }
        _ => return whole(cx, op, work, portion),
    }
    Ok(())
}

fn whole(cx: &Context<'_>, op: &Op, work: &Work, portion: &Portion) -> Result<(), Stopped> {
    let kernels = cx.kernels;
    match op {
        Op::Constant { .. } => shape::constant(cx, work, portion),
        Op::MatmulI8 { n, epilogue, .. } => {
            return matmul::int8(cx, work, portion, *n as usize, Scale::Vector, *epilogue);
        }
        Op::MatmulF16 { n, epilogue, .. } => {
            return matmul::half(cx, work, portion, *n as usize, *epilogue);
        }
        Op::ConvI8 { n, window, input_scale, epilogue, .. } => {
            let n = *n as usize;
            if let Some(scale) = product_scale(op) {
                return matmul::int8(cx, work, portion, n, scale, *epilogue);
            }
            return conv::int8(cx, work, portion, n, *window, *input_scale, *epilogue);
        }
        Op::ConvF16 { n, window, epilogue, .. } => {
            let n = *n as usize;
            if window.is_one_cell() {
                return matmul::half(cx, work, portion, n, *epilogue);
            }
            return conv::half(cx, work, portion, n, *window, *epilogue);
        }
        Op::Depthwise { window, epilogue, .. } => {
            window::depthwise(cx, work, portion, *window, *epilogue);
        }
        Op::BatchMatmul { transpose_b } => {
            attention::batch_matmul(cx, work, portion, *transpose_b);
        }
        Op::Attention { heads, scale, causal } => {
            attention::attention(cx, work, portion, *heads as usize, *scale, *causal);
        }
        Op::LayerNorm { eps, .. } => {
            let gamma = cx.f32(&work.tensors[0]);
            let beta = work.tensors.get(1).map(|range| cx.f32(range));
            norm::each_cell(cx, work, portion, |cell| {
                (kernels.layer_norm)(cell, gamma, beta, *eps);
            });
        }
        Op::RmsNorm { eps, .. } => {
            let gamma = cx.f32(&work.tensors[0]);
            norm::each_cell(cx, work, portion, |cell| (kernels.rms_norm)(cell, gamma, *eps));
        }
        Op::Softmax => norm::each_cell(cx, work, portion, |cell| (kernels.softmax)(cell)),
        Op::Unary { function } => map::unary(cx, work, portion, *function),
        Op::Binary { function } => map::binary(cx, work, portion, *function),
        Op::Modulate => map::modulate(cx, work, portion),
        Op::Gated { function } => map::gated(cx, work, portion, *function),
        Op::Cast => map::cast(cx, work, portion),
        Op::Resize { factor, mode } => {
            window::resize(cx, work, portion, factor.map(|factor| factor as usize), *mode);
        }
        Op::PixelShuffle { factor, order } => {
            shape::shuffle(cx, work, portion, *factor as usize, *order, false);
        }
        Op::PixelUnshuffle { factor, order } => {
            shape::shuffle(cx, work, portion, *factor as usize, *order, true);
        }
        Op::Concat { axis } => shape::concat(cx, work, portion, *axis as usize),
        Op::Slice { axis, .. } => {
            shape::slice(cx, work, portion, *axis as usize, work.number);
        }
        Op::Transpose { permutation } => shape::transpose(cx, work, portion, permutation),
        Op::Reshape => shape::copy(cx, work, portion),
        Op::Expand => shape::expand(cx, work, portion),
        Op::Pad { pad, value } => shape::pad(cx, work, portion, *pad, *value),
        Op::Gather { scale, rows, .. } => {
            embed::gather(cx, work, portion, scale.is_some(), *rows as usize);
        }
        Op::TimestepEmbedding { sin_first, .. } => {
            embed::timestep(cx, work, portion, *sin_first);
        }
        Op::Pool { kind, window } => window::pool(cx, work, portion, *window, *kind),
        Op::ReduceMean { .. } => embed::reduce(cx, work, portion, true),
        Op::ReduceSum { .. } => embed::reduce(cx, work, portion, false),
        Op::GroupNorm { .. } | Op::AttentionI8 { .. } => {
            unreachable!("a plan cuts group norms and attention in int8 into passes")
        }
    }
    Ok(())
}
