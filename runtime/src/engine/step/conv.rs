//! Convolutions as implicit matrix products.
//!
//! Input rows become lines with zeros left and right, once; the window of output cell `x` is then one run of
//! bytes of each line, and neighbouring windows overlap, so that no window is ever copied. Lines form a ring
//! over input rows: a chunk of output rows prepares those that it lacks. Where rows are many, each worker walks its own, with
//! a ring of its own; else all prepare the lines of a chunk together and then take their share of its panels (or cells).

use std::ops::Range;

use crate::engine::context::{Context, Portion, Work};
use crate::engine::pool::Stopped;
use crate::graph::{Epilogue, InputScale, Window};
use crate::kernel::{GemmF16Args, GemmI8Args, int8_scale};
use crate::pack::panel::{PANEL_GROUP, PANEL_OUTPUTS};
use crate::plan::scratch::LineScratch;
use crate::plan::window_rows;

use super::gemm::{PANELS_MAX, Place, Sums, TILE_VALUES, Tail, tile_panels, tile_vectors};

/// Most kernel rows, as the graph's rules have it.
const KERNEL_ROWS_MAX: usize = 256;

/// Sizes of one convolution.
struct Shape {
    height: usize,
    width: usize,
    out_height: usize,
    out_width: usize,
    kernel_rows: usize,
    kernel_columns: usize,
    down: usize,
    right: usize,
    top: usize,
    lines: LineScratch,
    /// Byte of the scratch at which this worker's ring begins.
    ring: usize,
    window: Window,
}

impl Shape {
    fn new(cx: &Context<'_>, work: &Work, portion: &Portion, window: Window, bytes: usize) -> Self {
        let (input, output) = (&work.inputs[0].layout, &work.output.layout);
        let ([_, height, width, _], [_, out_height, out_width, _]) =
            (input.image(), output.image());
        let (rows, workers) = (portion.rows.len(), cx.crew.workers);
        let limit = cx.scratch_bytes;
        let lines = LineScratch::new(&window, input, output, bytes, rows, limit, workers);
        Shape {
            height,
            width,
            out_height,
            out_width,
            kernel_rows: window.kernel[0] as usize,
            kernel_columns: window.kernel[1] as usize,
            down: window.stride[0] as usize,
            right: window.stride[1] as usize,
            top: window.pad[0] as usize,
            ring: if lines.rings > 1 { cx.crew.worker * lines.ring_bytes() } else { 0 },
            lines,
            window,
        }
    }

    /// Output rows from `first` on whose input rows the ring holds together.
    fn chunk(&self, work: &Work, first: usize, end: usize) -> (Range<usize>, Range<usize>) {
        let (input, output) = (&work.inputs[0].layout, &work.output.layout);
        let needed = |stop| window_rows(&self.window, input, output, first..stop);
        let mut stop = first + 1;
        while stop < end && needed(stop + 1).len() <= self.lines.lines {
            stop += 1;
        }
        (first..stop, needed(stop))
    }

    /// The kernel rows that lie inside the image for an output row, and the input row of the first of them.
    fn kernel_rows(&self, row: usize) -> (Range<usize>, usize) {
        let (sample, y) = (row / self.out_height, row % self.out_height);
        let start = self.top.saturating_sub(y * self.down).min(self.kernel_rows);
        let end = (self.height + self.top).saturating_sub(y * self.down).min(self.kernel_rows);
        let input = sample * self.height + (y * self.down + start).saturating_sub(self.top);
        (start..end.max(start), input)
    }

    /// Rows that some cells are in, each with the columns that are.
    fn rows_of(&self, cells: &Range<usize>) -> impl Iterator<Item = (usize, Range<usize>)> {
        let (width, cells) = (self.out_width, cells.clone());
        (cells.start / width..cells.end.div_ceil(width)).map(move |row| {
            let start = row * width;
            (row, cells.start.max(start) - start..cells.end.min(start + width) - start)
        })
    }

    /// Byte of the scratch where the line of an input row begins.
    fn line_at(&self, input_row: usize) -> usize {
        self.ring + input_row % self.lines.lines * self.lines.line_bytes
    }

    /// Byte of the scratch where the scale of an input row is.
    fn scale_at(&self, input_row: usize) -> usize {
        let place = input_row % self.lines.lines;
        self.ring + self.lines.scales_at() + place * size_of::<f32>()
    }
}

/// Walks chunks: `prepare` makes the line of an input row, `compute` a range of output cells, counted over all rows, and of panels.
fn walk(
    cx: &Context<'_>,
    work: &Work,
    portion: &Portion,
    shape: &Shape,
    n: usize,
    prepare: impl Fn(usize),
    mut compute: impl FnMut(Range<usize>, Range<usize>),
) -> Result<(), Stopped> {
    let (width, panels) = (shape.out_width, n.div_ceil(PANEL_OUTPUTS));
    let all = portion.rows.start * width..portion.rows.end * width;
    let apart = shape.lines.rings > 1;
    let mine = if apart { cx.share(all) } else { all };
    let end = mine.end.div_ceil(width);
    let (mut first, mut ready) = (mine.start / width, 0);
    while first < end {
        let (rows, needed) = shape.chunk(work, first, end);
        let lacking = ready.max(needed.start)..needed.end.max(ready);
        let cells = mine.start.max(rows.start * width)..mine.end.min(rows.end * width);
        (first, ready) = (rows.end, lacking.end);
        if apart {
            lacking.for_each(&prepare);
            compute(cells, 0..panels);
            continue;
        }
        cx.share(lacking).for_each(&prepare);
        cx.barrier()?;
        let (cells, panels) = cx.share_grid(cells, panels);
        compute(cells, panels);
        if first < end {
            cx.barrier()?;
        }
    }
    Ok(())
}

/// int8 panels; tensors are panels, scale, sums, bias.
pub(super) fn int8(
    cx: &Context<'_>,
    work: &Work,
    portion: &Portion,
    n: usize,
    window: Window,
    input_scale: InputScale,
    epilogue: Epilogue,
) -> Result<(), Stopped> {
    let shape = Shape::new(cx, work, portion, window, 1);
    let bias = work.tensors.get(3).map(|range| cx.f32(range));
    let tail = Tail::new(work, epilogue, n, Some(cx.f32(&work.tensors[1])), bias);
    let mut tile = Int8Tile {
        cx,
        portion,
        shape: &shape,
        panels: cx.i8(&work.tensors[0]),
        sums: cx.i32(&work.tensors[2]),
        tail,
        alone: true,
        acc: Sums([0; TILE_VALUES]),
        total: Sums([0.0; TILE_VALUES]),
    };
    walk(
        cx,
        work,
        portion,
        &shape,
        n,
        |input_row| quantise_line(cx, work, portion, &shape, input_row, input_scale),
        |cells, panels| tile.run(cells, panels, input_scale),
    )
}

/// Makes the line of one input row.
fn quantise_line(
    cx: &Context<'_>,
    work: &Work,
    portion: &Portion,
    shape: &Shape,
    input_row: usize,
    input_scale: InputScale,
) {
    let (x, lines, offset) = (&work.inputs[0], &shape.lines, cx.kernels.gemm_i8.act_offset);
    let c = x.layout.channels();
    let row = cx.row(x, input_row);
    let (scale, inverse) = match input_scale {
        InputScale::Static(scale) => (scale, 1.0 / scale),
        InputScale::Row => int8_scale((cx.kernels.max_abs)(row)),
    };
    cx.scratch_mut::<f32>(portion, shape.scale_at(input_row), 1)[0] = scale;
    let line: &mut [u8] =
        cx.scratch_mut(portion, shape.line_at(input_row), lines.cells * lines.cell);
    let start = lines.left * lines.cell;
    let end = start + shape.width * lines.cell;
    line[..start].fill(offset);
    line[end..].fill(offset);
    if c == lines.cell {
        (cx.kernels.quantise)(row, inverse, offset, &mut line[start..end]);
    } else {
        for (x, cell) in line[start..end].chunks_exact_mut(lines.cell).enumerate() {
            let values = row.slice(x * c..(x + 1) * c);
            (cx.kernels.quantise)(values, inverse, offset, &mut cell[..c]);
            cell[c..].fill(offset);
        }
    }
}

struct Int8Tile<'a> {
    cx: &'a Context<'a>,
    portion: &'a Portion,
    shape: &'a Shape,
    panels: &'a [i8],
    sums: &'a [i32],
    tail: Tail<'a>,
    /// This worker makes all outputs of its rows.
    alone: bool,
    acc: Sums<i32>,
    total: Sums<f32>,
}

impl Int8Tile<'_> {
    fn run(&mut self, cells: Range<usize>, panels: Range<usize>, input_scale: InputScale) {
        let turn = tile_panels(self.cx.kernels.gemm_i8.tile_panels);
        self.alone = panels.len() == self.tail.n.div_ceil(PANEL_OUTPUTS);
        for panel in panels.clone().step_by(turn) {
            let tile = panel..(panel + turn).min(panels.end);
            let vectors = tile_vectors(tile.len(), self.cx.kernels.gemm_i8.tile_rows);
            for (row, columns) in self.shape.rows_of(&cells) {
                for x in columns.clone().step_by(vectors) {
                    let cells = x..(x + vectors).min(columns.end);
                    match input_scale {
                        InputScale::Row => self.by_row(row, cells, &tile),
                        InputScale::Static(scale) => self.by_tensor(row, cells, &tile, scale),
                    }
                }
            }
        }
    }

    /// Sums of some kernel rows into `acc`, the first of them on `input_row`.
    fn multiply(
        &mut self,
        input_row: usize,
        kernel_rows: Range<usize>,
        cells: &Range<usize>,
        panels: &Range<usize>,
    ) {
        let (lines, shape) = (&self.shape.lines, self.shape);
        let groups = shape.kernel_columns * lines.cell / PANEL_GROUP;
        let group_bytes = PANEL_OUTPUTS * PANEL_GROUP;
        let panel_bytes = shape.kernel_rows * groups * group_bytes;
        let act_stride = shape.right * lines.cell;
        let mut starts = [0; KERNEL_ROWS_MAX];
        for (index, start) in starts[..kernel_rows.len()].iter_mut().enumerate() {
            *start = shape.line_at(input_row + index) - shape.ring + cells.start * act_stride;
        }
        let weights = panels.start * panel_bytes + kernel_rows.start * groups * group_bytes;
        let args = GemmI8Args {
            act: self.cx.scratch(self.portion, shape.ring, lines.scales_at()),
            act_stride,
            rows: cells.len(),
            weights: &self.panels[weights..],
            weights_stride: panel_bytes,
            panels: panels.len(),
            groups,
            acc: &mut self.acc.0,
            acc_stride: panels.len() * PANEL_OUTPUTS,
            accumulate: false,
        };
        (self.cx.kernels.gemm_i8.run_lines)(args, &starts[..kernel_rows.len()]);
    }

    /// One scale a line: kernel rows are summed in f32.
    fn by_row(&mut self, row: usize, cells: Range<usize>, panels: &Range<usize>) {
        let columns = panels.len() * PANEL_OUTPUTS;
        let offset = i32::from(self.cx.kernels.gemm_i8.act_offset);
        let (kernel_rows, input_row) = self.shape.kernel_rows(row);
        if kernel_rows.is_empty() {
            self.total.0[..cells.len() * columns].fill(0.0);
        }
        for (index, kernel_row) in kernel_rows.enumerate() {
            let input_row = input_row + index;
            self.multiply(input_row, kernel_row..kernel_row + 1, &cells, panels);
            let scale = self.cx.scratch::<f32>(self.portion, self.shape.scale_at(input_row), 1)[0];
            let sums = panel_sums(self.sums, self.tail.n, kernel_row, panels);
            let (values, first) = (cells.len() * columns, index == 0);
            let (acc, total) = (&self.acc.0[..values], &mut self.total.0[..values]);
            (self.cx.kernels.accumulate_i8)(acc, sums, offset, scale, first, total);
        }
        let outputs = self.tail.outputs(panels);
        let place = Place { row, cell: cells.start, cells: cells.len(), alone: self.alone };
        self.tail.store_f32(self.cx, place, &outputs, columns, &self.total.0);
    }

    /// One scale for all: kernel rows are summed in i32.
    fn by_tensor(&mut self, row: usize, cells: Range<usize>, panels: &Range<usize>, scale: f32) {
        let columns = panels.len() * PANEL_OUTPUTS;
        let (kernel_rows, input_row) = self.shape.kernel_rows(row);
        let mut sums = [0i32; PANELS_MAX * PANEL_OUTPUTS];
        for kernel_row in kernel_rows.clone() {
            let part = panel_sums(self.sums, self.tail.n, kernel_row, panels);
            for (sum, part) in sums.iter_mut().zip(part) {
                *sum += part;
            }
        }
        if kernel_rows.is_empty() {
            self.acc.0[..cells.len() * columns].fill(0);
        } else {
            self.multiply(input_row, kernel_rows, &cells, panels);
        }
        let outputs = self.tail.outputs(panels);
        let scales = [scale; TILE_VALUES / PANEL_OUTPUTS];
        let place = Place { row, cell: cells.start, cells: cells.len(), alone: self.alone };
        self.tail.store_i8(self.cx, place, &outputs, columns, &self.acc.0, &sums, &scales);
    }
}

/// Sums of weights of some panels' outputs in one kernel row.
fn panel_sums<'a>(sums: &'a [i32], n: usize, row: usize, panels: &Range<usize>) -> &'a [i32] {
    let start = row * n.next_multiple_of(PANEL_OUTPUTS) + panels.start * PANEL_OUTPUTS;
    &sums[start..start + panels.len() * PANEL_OUTPUTS]
}

/// f16 panels; tensors are panels and, if there is one, bias.
pub(super) fn half(
    cx: &Context<'_>,
    work: &Work,
    portion: &Portion,
    n: usize,
    window: Window,
    epilogue: Epilogue,
) -> Result<(), Stopped> {
    let shape = Shape::new(cx, work, portion, window, size_of::<f32>());
    let (lines, gemm) = (&shape.lines, &cx.kernels.gemm_f16);
    let bias = work.tensors.get(1).map(|range| cx.f32(range));
    let tail = Tail::new(work, epilogue, n, None, bias);
    let weights = cx.f16(&work.tensors[0]);
    let k = shape.kernel_columns * lines.cell;
    let (turn, panel_values) =
        (tile_panels(gemm.tile_panels), shape.kernel_rows * k * PANEL_OUTPUTS);
    let act_stride = shape.right * lines.cell;
    let mut acc = Sums([0f32; TILE_VALUES]);
    let prepare = |input_row: usize| {
        let line: &mut [f32] =
            cx.scratch_mut(portion, shape.line_at(input_row), lines.cells * lines.cell);
        let start = lines.left * lines.cell;
        let end = start + shape.width * lines.cell;
        line[..start].fill(0.0);
        line[end..].fill(0.0);
        cx.load(&work.inputs[0], input_row, 0..end - start, &mut line[start..end]);
    };
    let compute = |cells: Range<usize>, panels: Range<usize>| {
        let alone = panels.len() == n.div_ceil(PANEL_OUTPUTS);
        for panel in panels.clone().step_by(turn) {
            let tile = panel..(panel + turn).min(panels.end);
            let (columns, outputs) = (tile.len() * PANEL_OUTPUTS, tail.outputs(&tile));
            let vectors = tile_vectors(tile.len(), gemm.tile_rows);
            let pieces = shape.rows_of(&cells).flat_map(|(row, columns)| {
                columns
                    .clone()
                    .step_by(vectors)
                    .map(move |x| (row, x..(x + vectors).min(columns.end)))
            });
            for (row, cells) in pieces {
                let x = cells.start;
                let (kernel_rows, input_row) = shape.kernel_rows(row);
                if kernel_rows.is_empty() {
                    acc.0[..cells.len() * columns].fill(0.0);
                }
                for (index, kernel_row) in kernel_rows.enumerate() {
                    let at = shape.line_at(input_row + index) + x * act_stride * size_of::<f32>();
                    let start = panel * panel_values + kernel_row * k * PANEL_OUTPUTS;
                    let end = start + (tile.len() - 1) * panel_values + k * PANEL_OUTPUTS;
                    (gemm.run)(GemmF16Args {
                        act: cx.scratch(portion, at, (cells.len() - 1) * act_stride + k),
                        act_stride,
                        rows: cells.len(),
                        weights: &weights[start..end],
                        weights_stride: panel_values,
                        panels: tile.len(),
                        k,
                        acc: &mut acc.0,
                        acc_stride: columns,
                        accumulate: index > 0,
                    });
                }
                let place = Place { row, cell: cells.start, cells: cells.len(), alone };
                tail.store_f32(cx, place, &outputs, columns, &acc.0);
            }
        }
    };
    walk(cx, work, portion, &shape, n, prepare, compute)
}
