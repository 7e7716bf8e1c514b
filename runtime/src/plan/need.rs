//! Which rows of its operands an op reads to make some rows of its result.
//!
//! This is what makes row tiling exact: a plan that produces every row before it is read, and keeps it until
//! its last reader, gives the same bytes at any height of strip.

use std::ops::Range;

use crate::graph::{Op, ResizeMode, Window};

use super::layout::Layout;

/// Rows of one operand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Need {
    /// These, which may be none.
    Rows(Range<usize>),
    /// All of them, whatever rows of the result are asked for.
    All,
}

impl Need {
    /// As a range of the operand's rows.
    pub fn range(&self, layout: &Layout) -> Range<usize> {
        match self {
            Need::Rows(rows) => rows.clone(),
            Need::All => 0..layout.rows,
        }
    }
}

/// The rows of operand `index` (of layout `input`) that rows `rows` of the result (of layout `output`) need.
pub fn need(op: &Op, index: usize, input: &Layout, output: &Layout, rows: Range<usize>) -> Need {
    if rows.is_empty() {
        return Need::Rows(0..0);
    }
    match op {
        Op::ConvI8 { window, .. }
        | Op::ConvF16 { window, .. }
        | Op::Depthwise { window, .. }
        | Op::Pool { window, .. } => {
            if index == 0 {
                Need::Rows(window_rows(window, input, output, rows))
            } else {
                Need::Rows(rows)
            }
        }
        Op::MatmulI8 { .. }
        | Op::MatmulF16 { .. }
        | Op::LayerNorm { .. }
        | Op::RmsNorm { .. }
        | Op::Unary { .. }
        | Op::Gated { .. }
        | Op::Softmax
        | Op::Cast => same(input, output, rows),
        Op::Gather { .. } => all(),
        Op::Binary { .. } | Op::Modulate => broadcast(input, output, rows),
        Op::Attention { .. } | Op::AttentionI8 { .. } | Op::BatchMatmul { .. } => {
            if index == 0 {
                same(input, output, rows)
            } else {
                all()
            }
        }
        Op::Resize { factor, mode } => {
            let factor = factor[0] as usize;
            per_image(input, output, rows, |first, last, height| match mode {
                ResizeMode::Nearest => first / factor..last / factor + 1,
                ResizeMode::Bilinear => {
                    // Cell centres: source row (y + 1/2) / factor - 1/2 lies between two rows.
                    let above = |y: usize| (2 * y + 1).saturating_sub(factor) / (2 * factor);
                    above(first)..(above(last) + 2).min(height)
                }
            })
        }
        Op::PixelShuffle { factor, .. } => {
            let factor = *factor as usize;
            per_image(input, output, rows, |first, last, _| first / factor..last / factor + 1)
        }
        Op::PixelUnshuffle { factor, .. } => {
            let factor = *factor as usize;
            per_image(input, output, rows, |first, last, _| first * factor..(last + 1) * factor)
        }
        Op::Pad { pad, .. } => {
            let top = pad[0] as usize;
            per_image(input, output, rows, |first, last, height| {
                first.saturating_sub(top).min(height)..(last + 1).saturating_sub(top).min(height)
            })
        }
        Op::Concat { axis } | Op::Slice { axis, .. } => {
            let inner = input.shape.len() - if input.shape.len() >= 4 { 2 } else { 1 };
            if *axis as usize >= inner { same(input, output, rows) } else { all() }
        }
        Op::Constant { .. }
        | Op::GroupNorm { .. }
        | Op::Transpose { .. }
        | Op::Expand
        | Op::Reshape
        | Op::TimestepEmbedding { .. }
        | Op::ReduceMean { .. }
        | Op::ReduceSum { .. } => all(),
    }
}

fn all() -> Need {
    Need::All
}

fn same(input: &Layout, output: &Layout, rows: Range<usize>) -> Need {
    if input.rows == output.rows { Need::Rows(rows) } else { Need::All }
}

/// A broadcast operand is small as a rule; only where it has every row is it read row by row.
fn broadcast(input: &Layout, output: &Layout, rows: Range<usize>) -> Need {
    same(input, output, rows)
}

/// The input rows that a window reads for some rows of its result.
pub fn window_rows(
    window: &Window,
    input: &Layout,
    output: &Layout,
    rows: Range<usize>,
) -> Range<usize> {
    let (kernel, stride, top) =
        (window.kernel[0] as usize, window.stride[0] as usize, window.pad[0] as usize);
    image_rows(input, output, rows, |first, last, height| {
        (first * stride).saturating_sub(top).min(height)
            ..(last * stride + kernel).saturating_sub(top).min(height)
    })
}

/// Turns a rule for rows of one image (first, last, input height -> input rows) into one for rows of all.
fn per_image(
    input: &Layout,
    output: &Layout,
    rows: Range<usize>,
    rule: impl Fn(usize, usize, usize) -> Range<usize>,
) -> Need {
    Need::Rows(image_rows(input, output, rows, rule))
}

fn image_rows(
    input: &Layout,
    output: &Layout,
    rows: Range<usize>,
    rule: impl Fn(usize, usize, usize) -> Range<usize>,
) -> Range<usize> {
    let (in_height, out_height) = (input.image()[1], output.image()[1]);
    let (first, last) = (rows.start, rows.end - 1);
    let (first_sample, last_sample) = (first / out_height, last / out_height);
    if first_sample == last_sample {
        let base = first_sample * in_height;
        let range = rule(first % out_height, last % out_height, in_height);
        return base + range.start..base + range.end.max(range.start);
    }
    let start =
        first_sample * in_height + rule(first % out_height, out_height - 1, in_height).start;
    let end = last_sample * in_height + rule(0, last % out_height, in_height).end;
    start..end.max(start)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::DType;

    fn image(shape: [usize; 4]) -> Layout {
        Layout::new(shape.to_vec(), DType::F16)
    }

    #[test]
    fn a_window_reads_around_its_row_and_stays_in_its_image() {
        let pool = Op::Pool {
            kind: crate::graph::PoolKind::Max,
            window: Window { kernel: [3, 3], stride: [1, 1], pad: [1, 1, 1, 1] },
        };
        let layout = image([2, 8, 8, 4]);
        let rows = |range| need(&pool, 0, &layout, &layout, range);
        assert_eq!(rows(0..1), Need::Rows(0..2));
        assert_eq!(rows(3..5), Need::Rows(2..6));
        assert_eq!(rows(7..8), Need::Rows(6..8));
        assert_eq!(rows(8..9), Need::Rows(8..10));
        assert_eq!(rows(7..9), Need::Rows(6..10));
        assert_eq!(rows(3..3), Need::Rows(0..0));
    }

    #[test]
    fn bilinear_rows_lie_between_two() {
        let resize = Op::Resize { factor: [2, 2], mode: ResizeMode::Bilinear };
        let (input, output) = (image([1, 4, 4, 1]), image([1, 8, 8, 1]));
        let rows = |y| need(&resize, 0, &input, &output, y..y + 1);
        assert_eq!(rows(0), Need::Rows(0..2));
        assert_eq!(rows(1), Need::Rows(0..2));
        assert_eq!(rows(2), Need::Rows(0..2));
        assert_eq!(rows(3), Need::Rows(1..3));
        assert_eq!(rows(7), Need::Rows(3..4));
    }

    #[test]
    fn padding_needs_nothing() {
        let pad = Op::Pad { pad: [2, 0, 2, 0], value: 0.0 };
        let (input, output) = (image([1, 4, 4, 1]), image([1, 8, 4, 1]));
        assert_eq!(need(&pad, 0, &input, &output, 0..2), Need::Rows(0..0));
        assert_eq!(need(&pad, 0, &input, &output, 1..4), Need::Rows(0..2));
        assert_eq!(need(&pad, 0, &input, &output, 6..8), Need::Rows(4..4));
    }
}
