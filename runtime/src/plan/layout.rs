//! How values lie in memory: shapes under a binding, seen as rows.

use crate::graph::DType;

use super::quantised::Scale;
use super::scratch::RowScratch;

/// A value under a binding.
///
/// A row is one image row (`w * c` values) of a value with four dimensions or more, and one token (`c`
/// values) of any other. Rows are counted over all samples.
#[derive(Clone, Debug, PartialEq)]
pub struct Layout {
    /// Outermost first.
    pub shape: Vec<usize>,
    /// Stored type.
    pub dtype: DType,
    /// Rows of all samples.
    pub rows: usize,
    /// Values in a row.
    pub row_len: usize,
    /// Stored as int8 vectors of [`Layout::channels`] values instead, scaled so.
    pub quantised: Option<Scale>,
}

impl Layout {
    /// The layout of a shape.
    pub fn new(shape: Vec<usize>, dtype: DType) -> Self {
        let inner = if shape.len() >= 4 { 2 } else { 1 }.min(shape.len());
        let (outer, row) = shape.split_at(shape.len() - inner);
        let (rows, row_len) = (outer.iter().product(), row.iter().product());
        Layout { shape, dtype, rows, row_len, quantised: None }
    }

    /// Values in all.
    pub fn len(&self) -> usize {
        self.rows * self.row_len
    }

    /// True if there are none, which a checked graph rules out.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of one row that is not quantised.
    pub fn row_bytes(&self) -> usize {
        self.row_len * self.dtype.bytes()
    }

    /// Bytes of all rows.
    pub fn bytes(&self) -> usize {
        self.bytes_of(self.rows)
    }

    /// Bytes of so many rows, as they are stored.
    pub fn bytes_of(&self, rows: usize) -> usize {
        match self.quantised {
            Some(_) => RowScratch::stored(self, rows).bytes(),
            None => rows * self.row_bytes(),
        }
    }

    /// Length of the last dimension.
    pub fn channels(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// `[b, h, w, c]` of an image; a sequence counts as one column wide: `[b, t, 1, c]`.
    pub fn image(&self) -> [usize; 4] {
        match self.shape[..] {
            [b, h, w, c] => [b, h, w, c],
            [b, t, c] => [b, t, 1, c],
            _ => [1, self.rows, self.row_len / self.channels(), self.channels()],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_image_rows_or_tokens() {
        let image = Layout::new(vec![2, 8, 6, 5], DType::F16);
        assert_eq!((image.rows, image.row_len, image.bytes()), (16, 30, 960));
        let tokens = Layout::new(vec![2, 7, 5], DType::F32);
        assert_eq!((tokens.rows, tokens.row_len, tokens.image()), (14, 5, [2, 7, 1, 5]));
        let timestep = Layout::new(vec![2], DType::F32);
        assert_eq!((timestep.rows, timestep.row_len), (1, 2));
    }
}
