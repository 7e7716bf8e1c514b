//! Ops that work value by value: unary, cast, binary, modulate, gated.

use std::ops::Range;

use crate::engine::context::{Context, Portion, View, Work};
use crate::graph::{Binary, DType, Unary};
use crate::kernel::Row;
use crate::plan::{Layout, scratch::piece};

use super::quantise::Sink;

/// `function(x)`.
pub(super) fn unary(cx: &Context<'_>, work: &Work, portion: &Portion, function: Unary) {
    each_piece(cx, work, portion, |row, range, values| {
        cx.load(&work.inputs[0], row, range, values);
        (cx.kernels.unary)(function, values);
    });
}

/// To the output's type; ids become floats of their value, floats become ids towards zero.
pub(super) fn cast(cx: &Context<'_>, work: &Work, portion: &Portion) {
    let (from, to) = (work.inputs[0].layout.dtype, work.output.layout.dtype);
    match (from, to) {
        (DType::I32, DType::I32) => {
            for row in cx.share(portion.rows.clone()) {
                let all = 0..work.output.layout.row_len;
                let values: &[i32] = cx.values(&work.inputs[0], row, all.clone());
                cx.values_mut::<i32>(&work.output, row, all).copy_from_slice(values);
            }
        }
        (DType::I32, _) => each_piece(cx, work, portion, |row, range, out| {
            let values: &[i32] = cx.values(&work.inputs[0], row, range);
            for (out, &value) in out.iter_mut().zip(values) {
                *out = value as f32;
            }
        }),
        (_, DType::I32) => {
            for row in cx.share(portion.rows.clone()) {
                let values = cx.row(&work.inputs[0], row);
                let out = cx.values_mut::<i32>(&work.output, row, 0..work.output.layout.row_len);
                for (index, out) in out.iter_mut().enumerate() {
                    *out = values.get(index) as i32;
                }
            }
        }
        _ => each_piece(cx, work, portion, |row, range, out| {
            cx.load(&work.inputs[0], row, range, out);
        }),
    }
}

/// `function(a, b)` with broadcasting.
pub(super) fn binary(cx: &Context<'_>, work: &Work, portion: &Portion, function: Binary) {
    let length = piece(&work.output.layout);
    let (own, mut sink) = Sink::new(cx, work, portion);
    let (a, rest) = own.split_at_mut(length);
    let (b, out) = rest.split_at_mut(length);
    for (row, range) in pieces(cx, &work.output.layout, portion.rows.clone()) {
        let length = range.len();
        broadcast(cx, &work.inputs[0], &work.output.layout, row, range.clone(), &mut a[..length]);
        broadcast(cx, &work.inputs[1], &work.output.layout, row, range.clone(), &mut b[..length]);
        (cx.kernels.binary)(function, &a[..length], &b[..length], &mut out[..length]);
        sink.store(row, range, &out[..length]);
    }
}

/// `x * (1 + scale) + shift`.
pub(super) fn modulate(cx: &Context<'_>, work: &Work, portion: &Portion) {
    let length = piece(&work.output.layout);
    let (own, mut sink) = Sink::new(cx, work, portion);
    let (x, rest) = own.split_at_mut(length);
    let (scale, shift) = rest.split_at_mut(length);
    for (row, range) in pieces(cx, &work.output.layout, portion.rows.clone()) {
        let length = range.len();
        for (view, out) in work.inputs.iter().zip([&mut *x, &mut *scale, &mut *shift]) {
            let out = &mut out[..length];
            broadcast(cx, view, &work.output.layout, row, range.clone(), out);
        }
        (cx.kernels.modulate)(&mut x[..length], &scale[..length], &shift[..length]);
        sink.store(row, range, &x[..length]);
    }
}

/// `a * function(g)`, a and g the halves of each cell.
pub(super) fn gated(cx: &Context<'_>, work: &Work, portion: &Portion, function: Unary) {
    let c = work.output.layout.channels();
    let (own, mut sink) = Sink::new(cx, work, portion);
    let (a, rest) = own.split_at_mut(c);
    let (gate, out) = rest.split_at_mut(c);
    let out = &mut out[..c];
    for row in cx.share(portion.rows.clone()) {
        for cell in 0..work.output.layout.row_len / c {
            let start = 2 * c * cell;
            cx.load(&work.inputs[0], row, start..start + c, a);
            cx.load(&work.inputs[0], row, start + c..start + 2 * c, gate);
            (cx.kernels.unary)(function, gate);
            (cx.kernels.binary)(Binary::Mul, a, gate, out);
            sink.store(row, c * cell..c * (cell + 1), out);
        }
    }
}

/// Makes each piece of this worker's rows in scratch and stores it.
pub(super) fn each_piece(
    cx: &Context<'_>,
    work: &Work,
    portion: &Portion,
    mut make: impl FnMut(usize, Range<usize>, &mut [f32]),
) {
    let (values, mut sink) = Sink::new(cx, work, portion);
    for (row, range) in pieces(cx, &work.output.layout, portion.rows.clone()) {
        let values = &mut values[..range.len()];
        make(row, range.clone(), values);
        sink.store(row, range, values);
    }
}

/// Pieces of this worker's rows: whole cells.
fn pieces<'a>(
    cx: &Context<'_>,
    layout: &'a Layout,
    rows: Range<usize>,
) -> impl Iterator<Item = (usize, Range<usize>)> + 'a {
    let length = piece(layout);
    cx.share(rows).flat_map(move |row| {
        (0..layout.row_len)
            .step_by(length)
            .map(move |start| (row, start..(start + length).min(layout.row_len)))
    })
}

/// Widens the values of an operand that stand at `range` of row `row` of a result, repeating dimensions of 1.
fn broadcast(
    cx: &Context<'_>,
    view: &View,
    result: &Layout,
    row: usize,
    range: Range<usize>,
    out: &mut [f32],
) {
    let from = &view.layout;
    if from.shape == result.shape {
        return cx.load(view, row, range, out);
    }
    // The operand's row: outer dimensions of 1 count nothing.
    let inner = result.shape.len() - outer_rank(&result.shape);
    let outer = result.shape.len() - inner;
    let (mut rest, mut source, mut step) = (row, 0, 1);
    for axis in (0..outer).rev() {
        let index = rest % result.shape[axis];
        rest /= result.shape[axis];
        source += index.min(from.shape[axis] - 1) * step;
        step *= from.shape[axis];
    }
    let c = result.channels();
    let (from_c, one_cell) = (from.channels(), from.row_len == from.channels());
    let values = cx.row(view, source);
    for (index, out) in out.chunks_exact_mut(c).enumerate() {
        let cell = if one_cell { 0 } else { range.start / c + index };
        let values: Row<'_> = values.slice(cell * from_c..(cell + 1) * from_c);
        if from_c == c { cx.widen(values, out) } else { out.fill(values.get(0)) }
    }
}

/// Dimensions outside a row.
fn outer_rank(shape: &[usize]) -> usize {
    shape.len() - if shape.len() >= 4 { 2 } else { shape.len().min(1) }
}
