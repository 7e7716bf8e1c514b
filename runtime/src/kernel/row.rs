//! Rows of values as kernels take them.

use half::f16;

/// Lanes of every float reduction.
pub const LANES: usize = 16;

/// Values to read.
#[derive(Clone, Copy, Debug)]
pub enum Row<'a> {
    /// Stored as f16.
    F16(&'a [f16]),
    /// Stored as f32.
    F32(&'a [f32]),
}

/// Values to write.
#[derive(Debug)]
pub enum RowMut<'a> {
    /// Rounded to f16, to nearest even.
    F16(&'a mut [f16]),
    /// As computed.
    F32(&'a mut [f32]),
}

/// Rows to read, each `stride` values after the one before; what lies between rows is not touched.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    /// Starts with the first value of the first row.
    pub data: Row<'a>,
    /// Values from one row's start to the next one's.
    pub stride: usize,
}

/// Rows to write, each `stride` values after the one before.
#[derive(Debug)]
pub struct RowsMut<'a> {
    /// Starts with the first value of the first row.
    pub data: RowMut<'a>,
    /// Values from one row's start to the next one's.
    pub stride: usize,
}

impl<'a> Row<'a> {
    /// Values.
    pub fn len(&self) -> usize {
        match self {
            Row::F16(values) => values.len(),
            Row::F32(values) => values.len(),
        }
    }

    /// Whether there are no values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A part of the row.
    ///
    /// # Panics
    /// If the range is not inside the row.
    pub fn slice(&self, range: std::ops::Range<usize>) -> Row<'a> {
        match self {
            Row::F16(values) => Row::F16(&values[range]),
            Row::F32(values) => Row::F32(&values[range]),
        }
    }

    /// One value, widened.
    ///
    /// # Panics
    /// If the index is not inside the row.
    pub fn get(&self, index: usize) -> f32 {
        match self {
            Row::F16(values) => values[index].to_f32(),
            Row::F32(values) => values[index],
        }
    }
}

impl RowMut<'_> {
    /// Values.
    pub fn len(&self) -> usize {
        match self {
            RowMut::F16(values) => values.len(),
            RowMut::F32(values) => values.len(),
        }
    }

    /// Whether there are no values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The same values, to read.
    pub fn as_row(&self) -> Row<'_> {
        match self {
            RowMut::F16(values) => Row::F16(values),
            RowMut::F32(values) => Row::F32(values),
        }
    }

    /// Writes one value.
    ///
    /// # Panics
    /// If the index is not inside the row.
    pub fn set(&mut self, index: usize, value: f32) {
        match self {
            RowMut::F16(values) => values[index] = f16::from_f32(value),
            RowMut::F32(values) => values[index] = value,
        }
    }

    /// The same row, borrowed again.
    pub fn reborrow(&mut self) -> RowMut<'_> {
        match self {
            RowMut::F16(values) => RowMut::F16(values),
            RowMut::F32(values) => RowMut::F32(values),
        }
    }

    /// A part of the row.
    ///
    /// # Panics
    /// If the range is not inside the row.
    pub fn slice_mut(&mut self, range: std::ops::Range<usize>) -> RowMut<'_> {
        match self {
            RowMut::F16(values) => RowMut::F16(&mut values[range]),
            RowMut::F32(values) => RowMut::F32(&mut values[range]),
        }
    }
}

impl<'a> Rows<'a> {
    /// The first `length` values of one row.
    ///
    /// # Panics
    /// If they are not inside the data.
    pub fn row(&self, index: usize, length: usize) -> Row<'a> {
        self.data.slice(index * self.stride..index * self.stride + length)
    }
}

impl RowsMut<'_> {
    /// The first `length` values of one row.
    ///
    /// # Panics
    /// If they are not inside the data.
    pub fn row_mut(&mut self, index: usize, length: usize) -> RowMut<'_> {
        self.data.slice_mut(index * self.stride..index * self.stride + length)
    }
}
