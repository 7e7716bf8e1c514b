//! Tables and embeddings, and reductions.

use crate::engine::context::{Context, Portion, Work};
use crate::graph::{Binary, Unary};

/// Rows of a table; tensors are the table and, for an int8 table, scales. An id outside the table, which a
/// tokenizer does not make, reads as zeros.
pub(super) fn gather(
    cx: &Context<'_>,
    work: &Work,
    portion: &Portion,
    quantised: bool,
    rows: usize,
) {
    let c = work.output.layout.row_len;
    let out = cx.own(work, portion);
    for row in cx.share(portion.rows.clone()) {
        let id = cx.flat::<i32>(&work.inputs[0], row, 1)[0];
        match usize::try_from(id).ok().filter(|&id| id < rows) {
            Some(id) if quantised => {
                let scale = cx.f32(&work.tensors[1])[id];
                let values = &cx.i8(&work.tensors[0])[id * c..(id + 1) * c];
                for (out, &value) in out.iter_mut().zip(values) {
                    *out = f32::from(value) * scale;
                }
            }
            Some(id) => {
                let values = &cx.f16(&work.tensors[0])[id * c..(id + 1) * c];
                (cx.kernels.load_f16)(values, out);
            }
            None => out.fill(0.0),
        }
        cx.store(&work.output, row, 0..c, out);
    }
}

/// Cosines and sines of `t * frequencies`.
pub(super) fn timestep(cx: &Context<'_>, work: &Work, portion: &Portion, sin_first: bool) {
    let frequencies = cx.f32(&work.tensors[0]);
    let d = frequencies.len();
    let functions = if sin_first { [Unary::Sin, Unary::Cos] } else { [Unary::Cos, Unary::Sin] };
    let out = cx.own(work, portion);
    for row in cx.share(portion.rows.clone()) {
        let t = cx.flat_row(&work.inputs[0], row, 1).get(0);
        for (half, function) in out.chunks_exact_mut(d).zip(functions) {
            for (out, frequency) in half.iter_mut().zip(frequencies) {
                *out = t * frequency;
            }
            (cx.kernels.unary)(function, half);
        }
        cx.store(&work.output, row, 0..2 * d, out);
    }
}

/// Sum or mean over some axes. Where the last axis stays, cells are added in order; where it is reduced, each
/// cell is summed by the lanes' tree first.
pub(super) fn reduce(cx: &Context<'_>, work: &Work, portion: &Portion, mean: bool) {
    let (x, output) = (&work.inputs[0], &work.output.layout);
    let (from, to) = (&x.layout.shape, &output.shape);
    let (c, out_c) = (x.layout.channels(), output.channels());
    let (total, rest) = cx.own(work, portion).split_at_mut(c);
    let (cell, sum) = rest.split_at_mut(c);
    let cells_in_row = output.row_len / out_c;
    let outer = from.len().saturating_sub(1);
    // Cells of the input that one cell of the output sums.
    let depth: usize = (0..outer).map(|axis| if to[axis] == 1 { from[axis] } else { 1 }).product();
    let count = (x.layout.len() / output.len()) as f32;
    for row in cx.share(portion.rows.clone()) {
        for out_cell in 0..cells_in_row {
            let index = row * cells_in_row + out_cell;
            total.fill(0.0);
            let mut single = 0f32;
            for step in 0..depth {
                let at = source_cell(&from[..outer], &to[..outer], index, step);
                cx.widen(cx.flat_row(x, at * c, c), cell);
                if out_c == c {
                    (cx.kernels.binary)(Binary::Add, total, cell, sum);
                    total.copy_from_slice(sum);
                } else {
                    single += (cx.kernels.sum)(cell);
                }
            }
            if out_c != c {
                total[0] = single;
            }
            let result = &mut total[..out_c];
            if mean {
                (cx.kernels.binary_scalar)(Binary::Div, result, count);
            }
            cx.store(&work.output, row, out_cell * out_c..(out_cell + 1) * out_c, result);
        }
    }
}

/// The `step`-th cell, in order, that cell `index` of a reduction reads.
fn source_cell(from: &[usize], to: &[usize], index: usize, step: usize) -> usize {
    let (mut index, mut step, mut at, mut stride) = (index, step, 0, 1);
    for axis in (0..from.len()).rev() {
        let place = if to[axis] == 1 {
            let place = step % from[axis];
            step /= from[axis];
            place
        } else {
            let place = index % to[axis];
            index /= to[axis];
            place
        };
        at += place * stride;
        stride *= from[axis];
    }
    at
}
