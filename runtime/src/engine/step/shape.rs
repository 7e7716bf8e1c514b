//! Ops that only move values: shuffles, concat, slice, transpose, expand, pad, copies.

use std::ops::Range;

use bytemuck::Pod;
use half::f16;

use crate::engine::context::{Context, Portion, Work};
use crate::graph::{DType, ShuffleOrder};

/// Most dimensions of a value.
const RANK_MAX: usize = 8;

/// Rows of a block of cells side by side, or the inverse.
pub(super) fn shuffle(
    cx: &Context<'_>,
    work: &Work,
    portion: &Portion,
    factor: usize,
    order: ShuffleOrder,
    inverse: bool,
) {
    match work.output.layout.dtype.bytes() {
        2 => shuffle_as::<u16>(cx, work, portion, factor, order, inverse),
        _ => shuffle_as::<u32>(cx, work, portion, factor, order, inverse),
    }
}

fn shuffle_as<T: Pod>(
    cx: &Context<'_>,
    work: &Work,
    portion: &Portion,
    factor: usize,
    order: ShuffleOrder,
    inverse: bool,
) {
    let (x, row_len) = (&work.inputs[0], work.inputs[0].layout.row_len);
    let out_len = work.output.layout.row_len;
    // Channels of the wide image, which has a block of cells for each cell of the deep one.
    let c = if inverse { x.layout.channels() } else { work.output.layout.channels() };
    let deep = c * factor * factor;
    let place = |channel: usize, dy: usize, dx: usize| match order {
        ShuffleOrder::ChannelFirst => (channel * factor + dy) * factor + dx,
        ShuffleOrder::BlockFirst => (dy * factor + dx) * c + channel,
    };
    for row in cx.share(portion.rows.clone()) {
        let out: &mut [T] = cx.values_mut(&work.output, row, 0..out_len);
        if inverse {
            for dy in 0..factor {
                let wide: &[T] = cx.values(x, row * factor + dy, 0..row_len);
                for (deep, wide) in out.chunks_exact_mut(deep).zip(wide.chunks_exact(factor * c)) {
                    for (dx, cell) in wide.chunks_exact(c).enumerate() {
                        for (channel, &value) in cell.iter().enumerate() {
                            deep[place(channel, dy, dx)] = value;
                        }
                    }
                }
            }
        } else {
            let (values, dy): (&[T], _) = (cx.values(x, row / factor, 0..row_len), row % factor);
            for (deep, wide) in values.chunks_exact(deep).zip(out.chunks_exact_mut(factor * c)) {
                for (dx, cell) in wide.chunks_exact_mut(c).enumerate() {
                    for (channel, out) in cell.iter_mut().enumerate() {
                        *out = deep[place(channel, dy, dx)];
                    }
                }
            }
        }
    }
}

/// Joins inputs along an axis.
pub(super) fn concat(cx: &Context<'_>, work: &Work, portion: &Portion, axis: usize) {
    let output = &work.output.layout;
    let outer = output.shape.len() - inner_rank(&output.shape);
    let inner: usize = output.shape[axis + 1..].iter().product();
    for row in cx.share(portion.rows.clone()) {
        if axis >= outer {
            // Inside the row: `[before, axis, inner]`.
            let before: usize = output.shape[outer..axis].iter().product();
            let mut start = 0;
            for index in 0..before {
                for view in &work.inputs {
                    let length = view.layout.shape[axis] * inner;
                    let from = cx.raw(view, row, index * length..(index + 1) * length);
                    cx.raw_mut(&work.output, row, start..start + length).copy_from_slice(from);
                    start += length;
                }
            }
        } else {
            let after: usize = output.shape[axis + 1..outer].iter().product();
            let (mut index, before) =
                (row / after % output.shape[axis], row / after / output.shape[axis]);
            for view in &work.inputs {
                let length = view.layout.shape[axis];
                if index < length {
                    let from = (before * length + index) * after + row % after;
                    let all = 0..output.row_len;
                    let values = cx.raw(view, from, all.clone());
                    cx.raw_mut(&work.output, row, all).copy_from_slice(values);
                    break;
                }
                index -= length;
            }
        }
    }
}

/// Takes a range of an axis, from `start` on.
pub(super) fn slice(cx: &Context<'_>, work: &Work, portion: &Portion, axis: usize, start: usize) {
    let (x, output) = (&work.inputs[0], &work.output.layout);
    let outer = output.shape.len() - inner_rank(&output.shape);
    let (taken, length) = (output.shape[axis], x.layout.shape[axis]);
    for row in cx.share(portion.rows.clone()) {
        if axis >= outer {
            let inner: usize = output.shape[axis + 1..].iter().product();
            let before: usize = output.shape[outer..axis].iter().product();
            for index in 0..before {
                let from = (index * length + start) * inner;
                let values = cx.raw(x, row, from..from + taken * inner);
                let to = index * taken * inner..(index + 1) * taken * inner;
                cx.raw_mut(&work.output, row, to).copy_from_slice(values);
            }
        } else {
            let after: usize = output.shape[axis + 1..outer].iter().product();
            let (index, before) = (row / after % taken, row / after / taken);
            let from = (before * length + start + index) * after + row % after;
            let all = 0..output.row_len;
            let values = cx.raw(x, from, all.clone());
            cx.raw_mut(&work.output, row, all).copy_from_slice(values);
        }
    }
}

/// Output axis `i` is input axis `permutation[i]`.
pub(super) fn transpose(cx: &Context<'_>, work: &Work, portion: &Portion, permutation: &[u32]) {
    let input = strides(&work.inputs[0].layout.shape);
    let mut steps = [0; RANK_MAX];
    for (step, &axis) in steps.iter_mut().zip(permutation) {
        *step = input[axis as usize];
    }
    strided(cx, work, portion, &steps);
}

/// Repeats dimensions of 1.
pub(super) fn expand(cx: &Context<'_>, work: &Work, portion: &Portion) {
    let from = &work.inputs[0].layout.shape;
    let mut steps = strides(from);
    // Trailing dimensions correspond; an operand of lower rank lacks leading ones.
    let rank = work.output.layout.shape.len();
    let missing = rank - from.len();
    for axis in (0..rank).rev() {
        steps[axis] = match axis.checked_sub(missing) {
            Some(axis) if from[axis] > 1 => steps[axis],
            _ => 0,
        };
    }
    strided(cx, work, portion, &steps);
}

/// Copies values, row by row, from the same places of an operand kept whole.
pub(super) fn copy(cx: &Context<'_>, work: &Work, portion: &Portion) {
    strided(cx, work, portion, &strides(&work.output.layout.shape));
}

/// Copies a tensor of the pack.
pub(super) fn constant(cx: &Context<'_>, work: &Work, portion: &Portion) {
    let row_bytes = work.output.layout.row_bytes();
    let bytes = cx.bytes(work.tensors[0]);
    for row in cx.share(portion.rows.clone()) {
        cx.raw_mut(&work.output, row, 0..work.output.layout.row_len)
            .copy_from_slice(&bytes[row * row_bytes..(row + 1) * row_bytes]);
    }
}

fn strides(shape: &[usize]) -> [usize; RANK_MAX] {
    let mut steps = [0; RANK_MAX];
    let mut step = 1;
    for (axis, &length) in shape.iter().enumerate().rev() {
        steps[axis] = step;
        step *= length;
    }
    steps
}

fn strided(cx: &Context<'_>, work: &Work, portion: &Portion, steps: &[usize; RANK_MAX]) {
    match work.output.layout.dtype.bytes() {
        2 => strided_as::<u16>(cx, work, portion, steps),
        _ => strided_as::<u32>(cx, work, portion, steps),
    }
}

/// Output index `i` reads input value `sum of i[axis] * steps[axis]`.
fn strided_as<T: Pod>(cx: &Context<'_>, work: &Work, portion: &Portion, steps: &[usize; RANK_MAX]) {
    let output = &work.output.layout;
    let values: &[T] = cx.flat(&work.inputs[0], 0, work.inputs[0].layout.len());
    let rank = output.shape.len();
    let (c, step) = match rank {
        0 => (1, 1),
        _ => (output.shape[rank - 1], steps[rank - 1]),
    };
    for row in cx.share(portion.rows.clone()) {
        let out: &mut [T] = cx.values_mut(&work.output, row, 0..output.row_len);
        for (cell, out) in out.chunks_exact_mut(c).enumerate() {
            let mut rest = row * (output.row_len / c) + cell;
            let mut from = 0;
            for axis in (0..rank.saturating_sub(1)).rev() {
                from += rest % output.shape[axis] * steps[axis];
                rest /= output.shape[axis];
            }
            if step == 1 {
                out.copy_from_slice(&values[from..from + c]);
            } else {
                for (index, out) in out.iter_mut().enumerate() {
                    *out = values[from + index * step];
                }
            }
        }
    }
}

/// Cells of one value around an image.
pub(super) fn pad(cx: &Context<'_>, work: &Work, portion: &Portion, pad: [u32; 4], value: f32) {
    match work.output.layout.dtype {
        DType::F16 => pad_as(cx, work, portion, pad, f16::from_f32(value)),
        DType::F32 => pad_as(cx, work, portion, pad, value),
        DType::I32 => pad_as(cx, work, portion, pad, value as i32),
    }
}

fn pad_as<T: Pod>(cx: &Context<'_>, work: &Work, portion: &Portion, pad: [u32; 4], value: T) {
    let x = &work.inputs[0];
    let [_, height, _, c] = x.layout.image();
    let out_height = work.output.layout.image()[1];
    let (top, left) = (pad[0] as usize, pad[1] as usize * c);
    let inside: Range<usize> = left..left + x.layout.row_len;
    for row in cx.share(portion.rows.clone()) {
        let (sample, y) = (row / out_height, row % out_height);
        let out: &mut [T] = cx.values_mut(&work.output, row, 0..work.output.layout.row_len);
        match y.checked_sub(top).filter(|&y| y < height) {
            Some(y) => {
                let values = cx.values(x, sample * height + y, 0..x.layout.row_len);
                out[..inside.start].fill(value);
                out[inside.clone()].copy_from_slice(values);
                out[inside.end..].fill(value);
            }
            None => out.fill(value),
        }
    }
}

/// Dimensions inside a row.
fn inner_rank(shape: &[usize]) -> usize {
    if shape.len() >= 4 { 2 } else { shape.len().min(1) }
}
