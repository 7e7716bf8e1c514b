//! Vectors on their way to int8 products: where they lie, how they are rounded, and how other ops store their results so.

use std::ops::Range;

use half::f16;

use crate::engine::context::{Context, Place, Portion, View, Work};
use crate::kernel::{Row, RowMut, int8_scale};
use crate::pack::panel::PANEL_GROUP;
use crate::plan::Scale;
use crate::plan::scratch::RowScratch;

/// Where quantised vectors lie, one behind the other, and behind them their scales.
#[derive(Clone, Copy)]
pub(super) struct Vectors {
    /// Byte of the arena.
    offset: usize,
    rows: RowScratch,
}

impl Vectors {
    /// In a step's scratch.
    pub fn of_scratch(portion: &Portion, rows: RowScratch) -> Self {
        Vectors { offset: portion.scratch, rows }
    }

    /// As a value; the place of its rows is counted modulo those that its region keeps.
    pub fn of_value(view: &View) -> Self {
        let Place::Arena { offset, ring_rows } = view.place else {
            unreachable!("a checked plan keeps quantised rows in the arena");
        };
        Vectors { offset, rows: RowScratch::stored(&view.layout, ring_rows) }
    }

    /// Places of all vectors of so many rows from `row` on, which lie in one piece ([`Context::unbroken`]).
    pub fn places(&self, row: usize, rows: usize) -> Range<usize> {
        let first = row % self.rows.rows * self.rows.vectors;
        first..first + rows * self.rows.vectors
    }

    /// Vectors and their scales.
    pub fn read<'a>(&self, cx: &Context<'a>, places: Range<usize>) -> (&'a [u8], &'a [f32]) {
        let (at, scales_at, bytes) = self.locate(&places);
        (cx.read(at, bytes), cx.read(scales_at, places.len()))
    }

    /// As [`Vectors::read`], to write.
    pub fn write<'a>(
        &self,
        cx: &Context<'a>,
        places: Range<usize>,
    ) -> (&'a mut [u8], &'a mut [f32]) {
        let (at, scales_at, bytes) = self.locate(&places);
        (cx.write(at, bytes), cx.write(scales_at, places.len()))
    }

    fn locate(&self, places: &Range<usize>) -> (usize, usize, usize) {
        let vector_bytes = self.rows.vector_bytes;
        let scales = self.offset + self.rows.scales_at() + places.start * size_of::<f32>();
        (self.offset + places.start * vector_bytes, scales, places.len() * vector_bytes)
    }
}

/// Quantises vectors of `k` values, of one row if the scale is a row's.
pub(super) fn quantise(
    cx: &Context<'_>,
    values: Row<'_>,
    k: usize,
    scale: Scale,
    (out, scales): (&mut [u8], &mut [f32]),
) {
    let (offset, k_bytes) = (cx.kernels.gemm_i8.act_offset, k.next_multiple_of(PANEL_GROUP));
    let shared = match scale {
        Scale::Static(scale) => Some((scale, 1.0 / scale)),
        Scale::Row => Some(int8_scale((cx.kernels.max_abs)(values))),
        Scale::Vector => None,
    };
    if let Some((scale, inverse)) = shared
        && k == k_bytes
    {
        scales.fill(scale);
        return (cx.kernels.quantise)(values, inverse, offset, out);
    }
    for (vector, out) in out.chunks_exact_mut(k_bytes).enumerate() {
        let values = values.slice(vector * k..(vector + 1) * k);
        let (scale, inverse) = shared.unwrap_or_else(|| int8_scale((cx.kernels.max_abs)(values)));
        scales[vector] = scale;
        (cx.kernels.quantise)(values, inverse, offset, &mut out[..k]);
        out[k..].fill(offset);
    }
}

/// Stores results as their value lies in memory: as numbers of its type, or rounded to it and quantised.
pub(super) struct Sink<'a> {
    cx: &'a Context<'a>,
    output: &'a View,
    rounded: &'a mut [f16],
}

impl<'a> Sink<'a> {
    /// This worker's scratch, as far as it is the driver's, and the sink.
    pub fn new(cx: &'a Context<'a>, work: &'a Work, portion: &Portion) -> (&'a mut [f32], Self) {
        let own = cx.own(work, portion);
        let (own, rest) = own.split_at_mut(own.len() - work.rounded_values.div_ceil(2));
        let rounded = &mut bytemuck::cast_slice_mut(rest)[..work.rounded_values];
        (own, Sink { cx, output: &work.output, rounded })
    }

    /// Stores values `range` of a row: whole cells.
    pub fn store(&mut self, row: usize, range: Range<usize>, values: &[f32]) {
        if self.output.layout.quantised.is_none() {
            return self.cx.store(self.output, row, range, values);
        }
        (self.cx.kernels.store_f16)(values, &mut self.rounded[..values.len()]);
        let (k, vectors) = (self.output.layout.channels(), Vectors::of_value(self.output));
        let first = vectors.places(row, 1).start + range.start / k;
        self.quantise(&vectors, first..first + values.len() / k);
    }

    /// Rows that lie in one piece, to write; [`Sink::finish`] follows.
    pub fn rows_mut(&mut self, rows: Range<usize>) -> RowMut<'_> {
        match self.output.layout.quantised {
            Some(_) => RowMut::F16(&mut self.rounded[..rows.len() * self.output.layout.row_len]),
            None => self.cx.rows_mut(self.output, rows),
        }
    }

    /// Stores what was written to the rows of [`Sink::rows_mut`].
    pub fn finish(&mut self, rows: Range<usize>) {
        if self.output.layout.quantised.is_some() {
            let vectors = Vectors::of_value(self.output);
            self.quantise(&vectors, vectors.places(rows.start, rows.len()));
        }
    }

    fn quantise(&self, vectors: &Vectors, places: Range<usize>) {
        let k = self.output.layout.channels();
        if let Some(scale) = self.output.layout.quantised {
            let values = Row::F16(&self.rounded[..places.len() * k]);
            quantise(self.cx, values, k, scale, vectors.write(self.cx, places));
        }
    }
}
