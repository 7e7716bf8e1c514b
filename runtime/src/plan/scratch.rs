//! Scratch of each task: what its driver needs besides its operands.
//!
//! The same small structs size a region here and address it in `engine::step`, so that both always agree.
//! Scratch changes how often a weight is read again and never a result.

use crate::arena::align_up;
use crate::graph::{Graph, Op, ResizeMode, Window};
use crate::kernel::{Attention, AttentionI8};
use crate::pack::panel::PANEL_GROUP;

use super::layout::Layout;
use super::quantised::product_scale;
use super::task::{Pass, Task, Tasks};

/// Scratch for lines that are fast: they stay in a second-level cache beside the panels.
pub const SCRATCH_BYTES_FAST: usize = 256 << 10;
/// Queries of one tile of attention.
pub const ATTENTION_QUERIES: usize = 64;
/// Queries of one tile of attention in int8: whole turns of the integer product (12) and of the softmax (16).
pub const ATTENTION_I8_QUERIES: usize = 48;
/// Most groups of a group norm.
pub const GROUPS_MAX: usize = 1024;

/// Fewest cells of one worker for which reading all weights pays.
pub const CELLS_MANY: usize = 96;

/// Input lines of a convolution, prepared for the product: a ring over input rows.
///
/// Where each worker has rows enough to read all weights for them, each has a ring of its own, so that none waits for another's
/// lines; those at a seam are prepared twice. Else they share one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineScratch {
    /// Values of a cell, padded.
    pub cell: usize,
    /// Cells of zeros on the left.
    pub left: usize,
    /// Cells of a line.
    pub cells: usize,
    /// Bytes from one line to the next.
    pub line_bytes: usize,
    /// Lines that a ring keeps.
    pub lines: usize,
    /// One, or one a worker.
    pub rings: usize,
}

impl LineScratch {
    /// Lines for `rows` output rows, or as many as `limit` bytes hold in each ring, but those of one row at least.
    ///
    /// `value_bytes` is 1 for int8 lines (cells padded to groups of four) and 4 for float lines.
    pub fn new(
        window: &Window,
        input: &Layout,
        output: &Layout,
        value_bytes: usize,
        rows: usize,
        limit: usize,
        workers: usize,
    ) -> Self {
        let ([_, _, width, c], [_, _, out_width, _]) = (input.image(), output.image());
        let [kernel_rows, kernel_columns] = window.kernel.map(|k| k as usize);
        let [down, right] = window.stride.map(|s| s as usize);
        let left = window.pad[1] as usize;
        let cell = if value_bytes == 1 { c.next_multiple_of(PANEL_GROUP) } else { c };
        let cells = ((out_width - 1) * right + kernel_columns).max(left + width);
        let line_bytes = align_up(cells * cell * value_bytes);
        let fit = (limit / line_bytes).saturating_sub(kernel_rows) / down + 1;
        let apart = workers > 1
            && rows >= 2 * workers
            && fit.min(rows / workers) * out_width >= CELLS_MANY
            && kernel_rows * line_bytes <= limit;
        // A worker's cells may begin and end within rows.
        let (rings, rows) =
            if apart { (workers, rows.div_ceil(workers) + 1) } else { (1, rows.max(1)) };
        let lines = ((fit.min(rows) - 1) * down + kernel_rows).min(input.rows.max(1));
        LineScratch { cell, left, cells, line_bytes, lines, rings }
    }

    /// Bytes of all rings.
    pub fn bytes(&self) -> usize {
        self.rings * self.ring_bytes()
    }

    /// Bytes of one ring: lines, with one f32 scale each behind them.
    pub fn ring_bytes(&self) -> usize {
        self.scales_at() + align_up(self.lines * size_of::<f32>())
    }

    /// Where a ring's scales begin.
    pub fn scales_at(&self) -> usize {
        self.lines * self.line_bytes
    }
}

/// Rows of a matrix product, prepared for it: in its scratch, or as the value that it reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowScratch {
    /// Vectors of k in one row of the value: the width of an image, 1 of a sequence.
    pub vectors: usize,
    /// Bytes from one vector to the next.
    pub vector_bytes: usize,
    /// Rows of one chunk.
    pub rows: usize,
}

impl RowScratch {
    /// For `rows` rows, or as many as `limit` bytes hold, but one at least.
    pub fn new(input: &Layout, value_bytes: usize, rows: usize, limit: usize) -> Self {
        let k = input.channels();
        let vectors = input.row_len / k;
        let vector_bytes =
            if value_bytes == 1 { k.next_multiple_of(PANEL_GROUP) } else { k * value_bytes };
        let fit = limit / (vectors * (vector_bytes + size_of::<f32>()));
        RowScratch { vectors, vector_bytes, rows: fit.clamp(1, rows.max(1)) }
    }

    /// For all of `rows` rows of a value that is stored quantised.
    pub fn stored(layout: &Layout, rows: usize) -> Self {
        Self::new(layout, 1, rows, usize::MAX)
    }

    /// Bytes of all rows, with one f32 scale a vector behind them.
    pub fn bytes(&self) -> usize {
        self.scales_at() + align_up(self.rows * self.vectors * size_of::<f32>())
    }

    /// Where the scales begin.
    pub fn scales_at(&self) -> usize {
        align_up(self.rows * self.vectors * self.vector_bytes)
    }
}

/// f32 values of scratch that one worker needs for a task; 0 for tasks whose scratch is shared.
pub fn worker_values(graph: &Graph, tasks: &Tasks, task: &Task) -> usize {
    driver_values(graph, tasks, task) + rounded_values(graph, tasks, task).div_ceil(2)
}

/// f16 values at the end of them: results, rounded, on their way to int8.
pub fn rounded_values(graph: &Graph, tasks: &Tasks, task: &Task) -> usize {
    let output = &tasks.layouts[task.output];
    match &graph.nodes[task.node].op {
        _ if output.quantised.is_none() => 0,
        Op::Attention { .. } => ATTENTION_QUERIES * output.row_len,
        Op::LayerNorm { .. } | Op::RmsNorm { .. } | Op::Softmax | Op::Gated { .. } => {
            output.channels()
        }
        _ => piece(output),
    }
}

fn driver_values(graph: &Graph, tasks: &Tasks, task: &Task) -> usize {
    let output = &tasks.layouts[task.output];
    let input = |index: usize| &tasks.layouts[task.inputs[index]];
    match (task.pass, &graph.nodes[task.node].op) {
        (Pass::Moments, _) => input(0).row_len + input(0).channels(),
        (Pass::Combine | Pass::Keys, _) => 0,
        (Pass::Normalise, _) => piece(output),
        (_, op) => match op {
            Op::LayerNorm { .. } | Op::RmsNorm { .. } | Op::Softmax => output.channels(),
            Op::Unary { .. } | Op::Cast => piece(output),
            Op::Gather { .. } => output.channels(),
            Op::Binary { .. } | Op::Modulate => 3 * piece(output),
            Op::Gated { .. } => 3 * output.channels(),
            Op::Attention { heads, .. } => {
                let head = output.channels() / *heads as usize;
                Attention::scratch(ATTENTION_QUERIES, head)
            }
            Op::AttentionI8 { heads, .. } => {
                let head = output.channels() / *heads as usize;
                AttentionI8::scratch(ATTENTION_I8_QUERIES, head)
            }
            Op::BatchMatmul { transpose_b } => {
                let matrix = if *transpose_b { input(1).channels() * output.channels() } else { 0 };
                input(0).channels() + output.channels() + matrix
            }
            Op::Depthwise { window, .. } | Op::Pool { window, .. } => {
                window.kernel[0] as usize * input(0).row_len + 2 * output.row_len
            }
            Op::Resize { mode: ResizeMode::Nearest, .. } if input(0).dtype == output.dtype => 0,
            Op::Resize { .. } => 3 * input(0).row_len + output.row_len,
            Op::ReduceMean { .. } | Op::ReduceSum { .. } => 3 * input(0).channels(),
            Op::TimestepEmbedding { .. } => output.channels(),
            _ => 0,
        },
    }
}

/// Values that an op which works value by value takes at a time: whole cells, some thousands.
pub fn piece(layout: &Layout) -> usize {
    let c = layout.channels();
    (4096 / c).max(1) * c
}

/// Bytes of the buffer that a task needs for `rows` rows of its result.
pub fn bytes(
    graph: &Graph,
    tasks: &Tasks,
    task: &Task,
    rows: usize,
    threads: usize,
    limit: usize,
) -> usize {
    let input = |index: usize| &tasks.layouts[task.inputs[index]];
    let output = &tasks.layouts[task.output];
    // One worker may make a short step alone, with all lines in one ring.
    let lines = |window: &Window, value_bytes: usize| {
        let by = |workers| {
            LineScratch::new(window, input(0), output, value_bytes, rows, limit, workers).bytes()
        };
        by(1).max(by(threads))
    };
    match &graph.nodes[task.node].op {
        op if product_scale(op).is_some() => match input(0).quantised {
            Some(_) => 0,
            None => RowScratch::new(input(0), 1, rows, limit).bytes(),
        },
        Op::ConvF16 { window, .. } if window.is_one_cell() => {
            RowScratch::new(input(0), 4, rows, limit).bytes()
        }
        Op::ConvI8 { window, .. } => lines(window, 1),
        Op::ConvF16 { window, .. } => lines(window, 4),
        Op::MatmulF16 { .. } => RowScratch::new(input(0), 4, rows, limit).bytes(),
        _ => threads * worker_bytes(worker_values(graph, tasks, task)),
    }
}

/// Bytes of one worker's part of a step's scratch.
pub fn worker_bytes(values: usize) -> usize {
    align_up(values * size_of::<f32>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::DType;

    #[test]
    fn lines_cover_the_last_window_and_both_pads() {
        let input = Layout::new(vec![1, 9, 9, 3], DType::F16);
        let output = Layout::new(vec![1, 5, 5, 8], DType::F16);
        let window = Window { kernel: [3, 3], stride: [2, 2], pad: [1, 1, 1, 1] };
        let lines = LineScratch::new(&window, &input, &output, 1, 5, usize::MAX, 1);
        assert_eq!((lines.cell, lines.cells, lines.line_bytes), (4, 11, 64));
        assert_eq!(lines.lines, 9);
        let tight = LineScratch::new(&window, &input, &output, 1, 5, 0, 1);
        assert_eq!(tight.lines, 3);
    }

    #[test]
    fn each_worker_has_a_ring_where_rows_are_many_and_lines_fit() {
        let image = |height| Layout::new(vec![1, height, 64, 16], DType::F16);
        let window = Window { kernel: [3, 3], stride: [1, 1], pad: [1, 1, 1, 1] };
        let lines = |rows: usize, limit, workers| {
            let image = image(rows);
            let lines = LineScratch::new(&window, &image, &image, 1, rows, limit, workers);
            (lines.rings, lines.lines)
        };
        assert_eq!(lines(16, usize::MAX, 1), (1, 16));
        assert_eq!(lines(16, usize::MAX, 4), (4, 7));
        // A row is too few cells, and three lines are 3,264 bytes.
        assert_eq!(lines(4, usize::MAX, 4), (1, 4));
        assert_eq!(lines(16, 4 * 1088, 4), (4, 4));
        assert_eq!(lines(16, 3 * 1088, 4), (1, 3));
    }
}
