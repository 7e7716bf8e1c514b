//! Norms and softmax.

use crate::engine::context::{Context, Portion, Work};
use crate::graph::Unary;
use crate::kernel::{Moments, group_scale_shift};
use crate::plan::scratch::GROUPS_MAX;

use super::map::each_piece;
use super::quantise::Sink;

/// Applies a function to each cell, in place, and stores it.
pub(super) fn each_cell(
    cx: &Context<'_>,
    work: &Work,
    portion: &Portion,
    function: impl Fn(&mut [f32]),
) {
    let c = work.output.layout.channels();
    let (cell, mut sink) = Sink::new(cx, work, portion);
    for row in cx.share(portion.rows.clone()) {
        for start in (0..work.output.layout.row_len).step_by(c) {
            cx.load(&work.inputs[0], row, start..start + c, cell);
            function(cell);
            sink.store(row, start..start + c, cell);
        }
    }
}

/// Mean and sum of squares about it of each group in each row: `[mean, m2]` by group.
pub(super) fn moments(cx: &Context<'_>, work: &Work, portion: &Portion, groups: usize) {
    let x = &work.inputs[0];
    let (row_len, c) = (x.layout.row_len, x.layout.channels());
    let (values, scratch) = cx.own(work, portion).split_at_mut(row_len);
    let mut moments = [Moments::default(); GROUPS_MAX];
    let moments = &mut moments[..groups];
    for row in cx.share(portion.rows.clone()) {
        cx.load(x, row, 0..row_len, values);
        (cx.kernels.group_moments)(values, c, scratch, moments);
        let out: &mut [f32] = cx.values_mut(&work.output, row, 0..2 * groups);
        for (out, moments) in out.chunks_exact_mut(2).zip(&*moments) {
            out.copy_from_slice(&[moments.mean, moments.m2]);
        }
    }
}

/// Factor and summand of each channel, from the moments of all rows of its sample, in their order.
///
/// `count` is the values of one row in one group.
pub(super) fn combine(
    cx: &Context<'_>,
    work: &Work,
    portion: &Portion,
    groups: usize,
    eps: f32,
    count: usize,
) {
    let (gamma, beta) = (cx.f32(&work.tensors[0]), cx.f32(&work.tensors[1]));
    let c = gamma.len();
    let size = c / groups;
    let rows = work.inputs[0].layout.rows / work.output.layout.rows;
    let items = portion.rows.start * groups..portion.rows.end * groups;
    for item in cx.share(items) {
        let (sample, group) = (item / groups, item % groups);
        let mut total = Moments::default();
        for row in sample * rows..(sample + 1) * rows {
            let part: &[f32] = cx.values(&work.inputs[0], row, 2 * group..2 * group + 2);
            total = total.merge(Moments { count: count as u32, mean: part[0], m2: part[1] });
        }
        let channels = group * size..(group + 1) * size;
        let scale = cx.values_mut(&work.output, sample, channels.clone());
        let shift = cx.values_mut(&work.output, sample, c + channels.start..c + channels.end);
        group_scale_shift(&[total], &gamma[channels.clone()], &beta[channels], eps, scale, shift);
    }
}

/// `x * scale + shift`, then the activation.
pub(super) fn normalise(
    cx: &Context<'_>,
    work: &Work,
    portion: &Portion,
    activation: Option<Unary>,
) {
    let (c, samples) = (work.output.layout.channels(), work.inputs[1].layout.rows);
    let rows = work.output.layout.rows / samples;
    each_piece(cx, work, portion, |row, range, values| {
        let scale: &[f32] = cx.values(&work.inputs[1], row / rows, 0..c);
        let shift: &[f32] = cx.values(&work.inputs[1], row / rows, c..2 * c);
        cx.load(&work.inputs[0], row, range, values);
        (cx.kernels.scale_shift)(values, scale, shift);
        if let Some(function) = activation {
            (cx.kernels.unary)(function, values);
        }
    });
}
