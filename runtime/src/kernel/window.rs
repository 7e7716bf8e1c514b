//! Input lines of ops that look at a window, and how a row is stretched.

use crate::graph::ResizeMode;

/// The input rows that one output row of a depthwise convolution or pooling reads, each
/// `[width, channels]`, not padded; `None` is a row outside the image.
#[derive(Clone, Copy, Debug)]
pub struct Lines<'a> {
    /// One a kernel row.
    pub lines: &'a [Option<&'a [f32]>],
    /// Cells of each line.
    pub width: usize,
    /// Values of each cell.
    pub channels: usize,
    /// Kernel columns.
    pub kernel_columns: usize,
    /// Step right between output cells.
    pub stride: usize,
    /// Cells of padding to the left.
    pub pad_left: usize,
}

impl Lines<'_> {
    /// Asserts that every line has `width * channels` values and that `out` is whole cells.
    ///
    /// # Panics
    /// If not.
    pub fn check(&self, out: usize) {
        assert!(
            self.channels > 0 && out.is_multiple_of(self.channels),
            "the output row is not whole cells"
        );
        let length = self.width * self.channels;
        for line in self.lines.iter().flatten() {
            assert_eq!(line.len(), length, "a line has another length than its cells");
        }
    }

    /// The kernel columns whose cell is inside the image for output cell `x`.
    pub fn columns(&self, x: usize) -> std::ops::Range<usize> {
        let start = x * self.stride;
        let first = self.pad_left.saturating_sub(start).min(self.kernel_columns);
        let end = (self.width + self.pad_left).saturating_sub(start).min(self.kernel_columns);
        first..end.max(first)
    }
}

/// How a row `[width, channels]` becomes `[factor * width, channels]`.
#[derive(Clone, Copy, Debug)]
pub struct ResizeRow {
    /// Values of each cell.
    pub channels: usize,
    /// Output cells an input cell.
    pub factor: usize,
    /// Nearest: cell `x / factor`. Bilinear: [`ResizeRow::source`].
    pub mode: ResizeMode,
}

/// [`ResizeRow::source`] of `x = 0, 1, ..`, one after the other, without a division of whole numbers each.
#[derive(Clone, Debug)]
pub(super) struct Sources {
    last: isize,
    /// Twice the factor: position `cell * unit + rest` lies `rest / unit` behind a cell.
    unit: isize,
    cell: isize,
    rest: isize,
}

impl Iterator for Sources {
    type Item = (usize, usize, f32);

    #[inline(always)]
    fn next(&mut self) -> Option<Self::Item> {
        let (cell, weight) = (self.cell, self.rest as f32 / self.unit as f32);
        self.rest += 2;
        if self.rest >= self.unit {
            self.rest -= self.unit;
            self.cell += 1;
        }
        let within = |cell: isize| cell.clamp(0, self.last) as usize;
        Some((within(cell), within(cell + 1), weight))
    }
}

impl ResizeRow {
    /// The sources of all cells of `factor * length` and on, in order; the length is at least 1.
    pub(super) fn sources(factor: usize, length: usize) -> Sources {
        let (position, unit) = (1 - factor as isize, 2 * factor as isize);
        Sources {
            last: length as isize - 1,
            unit,
            cell: position.div_euclid(unit),
            rest: position.rem_euclid(unit),
        }
    }

    /// The two cells (or rows) that output cell `x` of `factor * length` lies between, and the weight of
    /// the second: ONNX half_pixel, `(x + 0.5) / factor - 0.5`, cut off at the ends.
    pub fn source(x: usize, factor: usize, length: usize) -> (usize, usize, f32) {
        // In units of half an output cell, so that nothing is rounded before the one division.
        let position = (2 * x + 1) as isize - factor as isize;
        let unit = 2 * factor as isize;
        let cell = position.div_euclid(unit);
        let weight = position.rem_euclid(unit) as f32 / unit as f32;
        let last = length as isize - 1;
        (cell.clamp(0, last) as usize, (cell + 1).clamp(0, last) as usize, weight)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_lie_half_a_cell_apart_and_stop_at_the_ends() {
        assert_eq!(ResizeRow::source(0, 2, 4), (0, 0, 0.75));
        assert_eq!(ResizeRow::source(1, 2, 4), (0, 1, 0.25));
        assert_eq!(ResizeRow::source(2, 2, 4), (0, 1, 0.75));
        assert_eq!(ResizeRow::source(7, 2, 4), (3, 3, 0.25));
        assert_eq!(ResizeRow::source(5, 1, 9), (5, 6, 0.0));
    }

    #[test]
    fn sources_in_order_are_each_cells_source() {
        for (factor, length) in [(1, 1), (1, 5), (2, 1), (2, 7), (3, 4), (4, 3), (5, 2)] {
            for (x, source) in ResizeRow::sources(factor, length).take(factor * length).enumerate()
            {
                assert_eq!(
                    source,
                    ResizeRow::source(x, factor, length),
                    "{factor}x{length} at {x}"
                );
            }
        }
    }

    #[test]
    fn columns_outside_the_image_are_left_out() {
        let lines =
            Lines { lines: &[], width: 3, channels: 1, kernel_columns: 3, stride: 2, pad_left: 1 };
        assert_eq!(lines.columns(0), 1..3);
        assert_eq!(lines.columns(1), 0..2);
        assert_eq!(lines.columns(3), 0..0);
    }
}
