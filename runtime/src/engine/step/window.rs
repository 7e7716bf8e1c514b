//! Ops that look at a window of each channel, and resizing.

use crate::engine::context::{Context, Portion, Work};
use crate::graph::{Epilogue, PoolKind, ResizeMode, Window};
use crate::kernel::{Finish, Lines, Residual, ResizeRow, Row, Rows, RowsMut};

/// Most kernel rows, as the graph's rules have it.
const KERNEL_ROWS_MAX: usize = 256;

/// Depthwise convolution; tensors are weights and, if there is one, bias.
pub(super) fn depthwise(
    cx: &Context<'_>,
    work: &Work,
    portion: &Portion,
    window: Window,
    epilogue: Epilogue,
) {
    let weight = cx.f16(&work.tensors[0]);
    let bias = work.tensors.get(1).map(|range| cx.f32(range));
    each_row(cx, work, portion, window, |row, lines, out, copy| {
        (cx.kernels.depthwise)(lines, weight, bias, out);
        let residual = epilogue.residual.then(|| {
            if let Some(view) = work.inputs.last() {
                cx.load(view, row, 0..copy.len(), copy);
            }
            Residual::Apart(Rows { data: Row::F32(copy), stride: out.len() })
        });
        let finish = Finish {
            rows: 1,
            columns: out.len(),
            stride: out.len(),
            weight_scale: None,
            bias: None,
            activation: epilogue.activation,
            residual,
            then: work.then,
        };
        let all = 0..work.output.layout.row_len;
        let target = RowsMut { data: cx.part_mut(&work.output, row, all), stride: out.len() };
        (cx.kernels.finish_f32)(out, &finish, target);
    });
}

/// Pooling.
pub(super) fn pool(
    cx: &Context<'_>,
    work: &Work,
    portion: &Portion,
    window: Window,
    kind: PoolKind,
) {
    each_row(cx, work, portion, window, |row, lines, out, _| {
        (cx.kernels.pool)(kind, lines, out);
        cx.store(&work.output, row, 0..out.len(), out);
    });
}

/// Calls `make` with the lines of each of this worker's rows, a row of results and one for copies.
fn each_row(
    cx: &Context<'_>,
    work: &Work,
    portion: &Portion,
    window: Window,
    make: impl Fn(usize, &Lines<'_>, &mut [f32], &mut [f32]),
) {
    let (x, row_len) = (&work.inputs[0], work.inputs[0].layout.row_len);
    let [_, height, width, channels] = x.layout.image();
    let out_height = work.output.layout.image()[1];
    let (kernel_rows, down, top) =
        (window.kernel[0] as usize, window.stride[0] as usize, window.pad[0] as usize);
    let (ring, rest) = cx.own(work, portion).split_at_mut(kernel_rows * row_len);
    let (out, copy) = rest.split_at_mut(work.output.layout.row_len);
    let copy = &mut copy[..out.len()];
    let mut held = [usize::MAX; KERNEL_ROWS_MAX];
    for row in cx.share(portion.rows.clone()) {
        let (sample, y) = (row / out_height, row % out_height);
        let inside =
            |kernel_row: usize| (y * down + kernel_row).checked_sub(top).filter(|&y| y < height);
        for input_row in (0..kernel_rows).filter_map(inside).map(|y| sample * height + y) {
            let place = input_row % kernel_rows;
            if held[place] != input_row {
                let line = &mut ring[place * row_len..(place + 1) * row_len];
                cx.load(x, input_row, 0..row_len, line);
                held[place] = input_row;
            }
        }
        let mut lines = [None; KERNEL_ROWS_MAX];
        for (kernel_row, line) in lines.iter_mut().take(kernel_rows).enumerate() {
            *line = inside(kernel_row).map(|y| {
                let place = (sample * height + y) % kernel_rows;
                &ring[place * row_len..(place + 1) * row_len]
            });
        }
        let lines = Lines {
            lines: &lines[..kernel_rows],
            width,
            channels,
            kernel_columns: window.kernel[1] as usize,
            stride: window.stride[1] as usize,
            pad_left: window.pad[1] as usize,
        };
        make(row, &lines, out, copy);
    }
}

/// Stretches by whole factors.
pub(super) fn resize(
    cx: &Context<'_>,
    work: &Work,
    portion: &Portion,
    factor: [usize; 2],
    mode: ResizeMode,
) {
    let (x, row_len) = (&work.inputs[0], work.inputs[0].layout.row_len);
    let [_, height, _, channels] = x.layout.image();
    if mode == ResizeMode::Nearest && x.layout.dtype == work.output.layout.dtype {
        return repeat(cx, work, portion, factor);
    }
    let (above, rest) = cx.own(work, portion).split_at_mut(row_len);
    let (below, rest) = rest.split_at_mut(row_len);
    let (between, out) = rest.split_at_mut(row_len);
    let stretch = ResizeRow { channels, factor: factor[1], mode };
    for row in cx.share(portion.rows.clone()) {
        let (sample, y) = (row / (height * factor[0]), row % (height * factor[0]));
        let first = sample * height;
        let line = match mode {
            ResizeMode::Nearest => {
                cx.load(x, first + y / factor[0], 0..row_len, above);
                &*above
            }
            ResizeMode::Bilinear => {
                let (a, b, weight) = ResizeRow::source(y, factor[0], height);
                cx.load(x, first + a, 0..row_len, above);
                cx.load(x, first + b, 0..row_len, below);
                (cx.kernels.blend)(above, below, weight, between);
                &*between
            }
        };
        let out = &mut out[..row_len * factor[1]];
        (cx.kernels.resize_row)(&stretch, line, out);
        cx.store(&work.output, row, 0..out.len(), out);
    }
}

/// Repeats cells as they are.
fn repeat(cx: &Context<'_>, work: &Work, portion: &Portion, [down, right]: [usize; 2]) {
    let x = &work.inputs[0];
    let cell = x.layout.channels() * x.layout.dtype.bytes();
    for row in cx.share(portion.rows.clone()) {
        // Rows of all samples have the same factor, so that no sample needs to be told apart.
        let values = cx.raw(x, row / down, 0..x.layout.row_len);
        let out = cx.raw_mut(&work.output, row, 0..work.output.layout.row_len);
        for (out, cell) in out.chunks_exact_mut(cell * right).zip(values.chunks_exact(cell)) {
            out.chunks_exact_mut(cell.len()).for_each(|out| out.copy_from_slice(cell));
        }
    }
}
