//! What a step driver sees: rows of its operands, its scratch, its tensors, its place in the crew.

use std::cell::Cell;
use std::ops::Range;

use bytemuck::Pod;
use half::f16;

use crate::arena::Arena;
use crate::graph::{DType, Unary};
use crate::kernel::{Kernels, Row, RowMut};
use crate::plan::{Layout, Pass, scratch};

use super::pool::{Crew, Stopped};
use super::weights::Weights;

/// Where a value's rows lie.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Place {
    /// Byte of the arena; row `r` is at place `r % ring_rows`.
    Arena { offset: usize, ring_rows: usize },
    /// A tensor of the pack.
    Pack(Stored),
}

/// Where bytes of the pack lie.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Stored {
    /// In the window that weights are read into; else in the pack's map.
    pub streamed: bool,
    /// The first one there.
    pub start: usize,
    /// How many.
    pub bytes: usize,
}

/// An operand.
#[derive(Clone, Debug)]
pub(crate) struct View {
    pub place: Place,
    pub layout: Layout,
}

/// A task with its operands resolved.
#[derive(Debug)]
pub(crate) struct Work {
    pub node: usize,
    pub pass: Pass,
    /// Applied to each value as it is stored; see [`crate::plan::Task::then`].
    pub then: Option<Unary>,
    pub inputs: Vec<View>,
    pub output: View,
    /// The node's tensors, in the order of [`crate::graph::tensor_needs`].
    pub tensors: Vec<Stored>,
    /// f32 values of scratch of each worker.
    pub worker_values: usize,
    /// f16 values at their end, in which results are rounded before they are quantised.
    pub rounded_values: usize,
    /// Keys and values of padding are not read.
    pub spares_keys: bool,
    /// Where a slice starts; values of one row in one group, for the moments of a group norm; keys, for attention in
    /// int8.
    pub number: usize,
}

/// Some rows of a task.
#[derive(Clone, Debug)]
pub(crate) struct Portion {
    pub work: usize,
    pub rows: Range<usize>,
    /// Byte of the arena.
    pub scratch: usize,
    /// Multiply-adds of one row.
    pub row_macs: u64,
    /// The scratch holds the operand's rows as an earlier step prepared them.
    pub prepared: bool,
}

/// One worker's view of a running engine.
pub(crate) struct Context<'a> {
    pub kernels: &'static Kernels,
    pub weights: &'a dyn Weights,
    pub arena: &'a Arena,
    /// Where weights are that are streamed.
    pub window: &'a Arena,
    pub crew: &'a Crew<'a>,
    /// Limit that the plan's scratch was sized by.
    pub scratch_bytes: usize,
    /// Tokens of each sample that count, where the network knows its padding.
    pub counting: usize,
    /// Highest byte of the arena that this worker touched.
    pub high_water: Cell<usize>,
}

impl<'a> Context<'a> {
    /// Waits for all workers.
    pub fn barrier(&self) -> Result<(), Stopped> {
        self.crew.barrier(|| {
            self.arena.next_phase();
            self.window.next_phase();
        })
    }

    /// This worker's part of a range: contiguous, in order, equal to one.
    pub fn share(&self, range: Range<usize>) -> Range<usize> {
        let (length, worker, workers) = (range.len(), self.crew.worker, self.crew.workers);
        let at = |worker: usize| range.start + length * worker / workers;
        at(worker)..at(worker + 1)
    }

    /// This worker's part of a grid: a range of rows and of columns. Rows are cut where there are many: what a worker stores lies
    /// in one piece then, and weights are read often enough by each. Else it is cut where that is more even; columns if both
    /// are, because weights are then read by one worker only.
    pub fn share_grid(&self, rows: Range<usize>, columns: usize) -> (Range<usize>, Range<usize>) {
        let workers = self.crew.workers;
        if rows.len() >= scratch::CELLS_MANY * workers {
            return (self.share(rows), 0..columns);
        }
        let largest = |n: usize| n.div_ceil(workers);
        // Largest part of the whole, compared without division.
        if largest(columns) * rows.len() <= largest(rows.len()) * columns {
            (rows, self.share(0..columns))
        } else {
            (self.share(rows), 0..columns)
        }
    }

    fn touch(&self, end: usize) {
        self.high_water.set(self.high_water.get().max(end));
    }

    pub(super) fn read<T: Pod>(&self, offset: usize, len: usize) -> &'a [T] {
        self.touch(offset + len * size_of::<T>());
        self.arena.read(self.crew.worker, offset, len)
    }

    pub(super) fn write<T: Pod>(&self, offset: usize, len: usize) -> &'a mut [T] {
        self.touch(offset + len * size_of::<T>());
        self.arena.write(self.crew.worker, offset, len)
    }

    /// Values `range` of a row, or of those after it that lie in one piece with it ([`Context::unbroken`]).
    pub fn values<T: Pod>(&self, view: &View, row: usize, range: Range<usize>) -> &'a [T] {
        debug_assert!(row * view.layout.row_len + range.end <= view.layout.len());
        let at = |row: usize| (row * view.layout.row_len + range.start) * size_of::<T>();
        match view.place {
            Place::Arena { offset, ring_rows } => {
                self.read(offset + at(row % ring_rows), range.len())
            }
            Place::Pack(stored) => self.part_of(stored, at(row), range.len()),
        }
    }

    /// As [`Context::values`], to write.
    pub fn values_mut<T: Pod>(&self, view: &View, row: usize, range: Range<usize>) -> &'a mut [T] {
        debug_assert!(row * view.layout.row_len + range.end <= view.layout.len());
        let Place::Arena { offset, ring_rows } = view.place else {
            unreachable!("a plan writes to the arena only");
        };
        let start = (row % ring_rows * view.layout.row_len + range.start) * size_of::<T>();
        self.write(offset + start, range.len())
    }

    /// Values `range` of a float row.
    pub fn part(&self, view: &View, row: usize, range: Range<usize>) -> Row<'a> {
        match view.layout.dtype {
            DType::F16 => Row::F16(self.values(view, row, range)),
            DType::F32 => Row::F32(self.values(view, row, range)),
            DType::I32 => unreachable!("validation keeps ids away from float ops"),
        }
    }

    /// A float row.
    pub fn row(&self, view: &View, row: usize) -> Row<'a> {
        self.part(view, row, 0..view.layout.row_len)
    }

    /// Values `range` of a float row, to write.
    pub fn part_mut(&self, view: &View, row: usize, range: Range<usize>) -> RowMut<'a> {
        match view.layout.dtype {
            DType::F16 => RowMut::F16(self.values_mut(view, row, range)),
            DType::F32 => RowMut::F32(self.values_mut(view, row, range)),
            DType::I32 => unreachable!("validation keeps ids away from float ops"),
        }
    }

    /// Bytes of a row's values `range`, whatever their type.
    pub fn raw(&self, view: &View, row: usize, range: Range<usize>) -> &'a [u8] {
        match view.layout.dtype.bytes() {
            2 => bytemuck::cast_slice(self.values::<u16>(view, row, range)),
            _ => bytemuck::cast_slice(self.values::<u32>(view, row, range)),
        }
    }

    /// Bytes of a row's values `range`, to write.
    pub fn raw_mut(&self, view: &View, row: usize, range: Range<usize>) -> &'a mut [u8] {
        match view.layout.dtype.bytes() {
            2 => bytemuck::cast_slice_mut(self.values_mut::<u16>(view, row, range)),
            _ => bytemuck::cast_slice_mut(self.values_mut::<u32>(view, row, range)),
        }
    }

    /// Widens values of a row.
    pub fn load(&self, view: &View, row: usize, range: Range<usize>, out: &mut [f32]) {
        self.widen(self.part(view, row, range), out);
    }

    /// Widens values.
    pub fn widen(&self, row: Row<'_>, out: &mut [f32]) {
        match row {
            Row::F16(values) => (self.kernels.load_f16)(values, out),
            Row::F32(values) => out.copy_from_slice(values),
        }
    }

    /// Stores values of a row, rounded to the value's type.
    pub fn store(&self, view: &View, row: usize, range: Range<usize>, values: &[f32]) {
        match self.part_mut(view, row, range) {
            RowMut::F16(out) => (self.kernels.store_f16)(values, out),
            RowMut::F32(out) => out.copy_from_slice(values),
        }
    }

    /// Scratch that all workers share: `len` values at byte `at`, to read.
    pub fn scratch<T: Pod>(&self, portion: &Portion, at: usize, len: usize) -> &'a [T] {
        self.read(portion.scratch + at, len)
    }

    /// Scratch that all workers share, to write.
    pub fn scratch_mut<T: Pod>(&self, portion: &Portion, at: usize, len: usize) -> &'a mut [T] {
        self.write(portion.scratch + at, len)
    }

    /// This worker's own scratch.
    pub fn own(&self, work: &Work, portion: &Portion) -> &'a mut [f32] {
        let at = self.crew.worker * scratch::worker_bytes(work.worker_values);
        self.write(portion.scratch + at, work.worker_values)
    }

    /// Bytes of the pack.
    pub fn bytes(&self, tensor: Stored) -> &'a [u8] {
        match tensor.streamed {
            true => self.window.read(self.crew.worker, tensor.start, tensor.bytes),
            false => &self.weights.bytes()[tensor.start..tensor.start + tensor.bytes],
        }
    }

    /// `len` values of a tensor, from byte `start` of it on.
    fn part_of<T: Pod>(&self, tensor: Stored, start: usize, len: usize) -> &'a [T] {
        bytemuck::cast_slice(&self.bytes(tensor)[start..start + len * size_of::<T>()])
    }

    /// A tensor of signed bytes.
    pub fn i8(&self, tensor: &Stored) -> &'a [i8] {
        bytemuck::cast_slice(self.bytes(*tensor))
    }

    /// A tensor of half floats.
    pub fn f16(&self, tensor: &Stored) -> &'a [f16] {
        bytemuck::cast_slice(self.bytes(*tensor))
    }

    /// A tensor of floats.
    pub fn f32(&self, tensor: &Stored) -> &'a [f32] {
        bytemuck::cast_slice(self.bytes(*tensor))
    }

    /// A tensor of integers.
    pub fn i32(&self, tensor: &Stored) -> &'a [i32] {
        bytemuck::cast_slice(self.bytes(*tensor))
    }
}

/// Access to values that are kept whole.
impl<'a> Context<'a> {
    /// `len` values from the `start`-th on, counted over all rows.
    pub fn flat<T: Pod>(&self, view: &View, start: usize, len: usize) -> &'a [T] {
        let bytes = start * size_of::<T>();
        match view.place {
            Place::Arena { offset, ring_rows } => {
                assert!(ring_rows == view.layout.rows, "a rolling value is read as a whole");
                self.read(offset + bytes, len)
            }
            Place::Pack(stored) => self.part_of(stored, bytes, len),
        }
    }

    /// As [`Context::flat`], for floats.
    pub fn flat_row(&self, view: &View, start: usize, len: usize) -> Row<'a> {
        match view.layout.dtype {
            DType::F16 => Row::F16(self.flat(view, start, len)),
            DType::F32 => Row::F32(self.flat(view, start, len)),
            DType::I32 => unreachable!("validation keeps ids away from float ops"),
        }
    }

    /// The longest run of rows from `first` on, up to `end`, that lies in one piece.
    pub fn unbroken(&self, view: &View, first: usize, end: usize) -> usize {
        match view.place {
            Place::Arena { ring_rows, .. } => (ring_rows - first % ring_rows).min(end - first),
            Place::Pack(_) => end - first,
        }
    }

    /// Rows that lie in one piece, as one run of values.
    pub fn rows(&self, view: &View, rows: Range<usize>) -> Row<'a> {
        let len = rows.len() * view.layout.row_len;
        let Place::Arena { offset, ring_rows } = view.place else {
            return self.flat_row(view, rows.start * view.layout.row_len, len);
        };
        let at = offset + rows.start % ring_rows * view.layout.row_bytes();
        match view.layout.dtype {
            DType::F16 => Row::F16(self.read(at, len)),
            DType::F32 => Row::F32(self.read(at, len)),
            DType::I32 => unreachable!("validation keeps ids away from float ops"),
        }
    }

    /// Rows that lie in one piece, as one run of values to write.
    pub fn rows_mut(&self, view: &View, rows: Range<usize>) -> RowMut<'a> {
        let Place::Arena { offset, ring_rows } = view.place else {
            unreachable!("a plan writes to the arena only");
        };
        let len = rows.len() * view.layout.row_len;
        let at = offset + rows.start % ring_rows * view.layout.row_bytes();
        match view.layout.dtype {
            DType::F16 => RowMut::F16(self.write(at, len)),
            DType::F32 => RowMut::F32(self.write(at, len)),
            DType::I32 => unreachable!("validation keeps ids away from float ops"),
        }
    }
}
