//! Matrix products on vectors: matmuls, and convolutions that look at one cell.
//!
//! A chunk of rows is prepared together (quantised, or widened to f32), unless the value is stored as quantised rows; then the
//! panels are split between the workers, or the rows where that is more even.

use std::ops::Range;

use crate::engine::context::{Context, Portion, Work};
use crate::engine::pool::Stopped;
use crate::graph::Epilogue;
use crate::kernel::{GemmF16Args, GemmI8Args};
use crate::pack::panel::{PANEL_GROUP, PANEL_OUTPUTS};
use crate::plan::Scale;
use crate::plan::scratch::{RowScratch, SCRATCH_BYTES_FAST};

use super::gemm::{Place, Sums, TILE_VALUES, Tail, tile_panels, tile_vectors};
use super::quantise::{Vectors, quantise};

/// int8 panels; tensors are panels, scale, sums, bias.
pub(super) fn int8(
    cx: &Context<'_>,
    work: &Work,
    portion: &Portion,
    n: usize,
    scale: Scale,
    epilogue: Epilogue,
) -> Result<(), Stopped> {
    let x = &work.inputs[0];
    let bias = work.tensors.get(3).map(|range| cx.f32(range));
    let mut product = Product {
        cx,
        k_bytes: x.layout.channels().next_multiple_of(PANEL_GROUP),
        panels: cx.i8(&work.tensors[0]),
        sums: cx.i32(&work.tensors[2]),
        tail: Tail::new(work, epilogue, n, Some(cx.f32(&work.tensors[1])), bias),
        acc: Sums([0; TILE_VALUES]),
    };
    let all = portion.rows.clone();
    let mut first = all.start;
    if x.layout.quantised.is_some() {
        let stored = Vectors::of_value(x);
        while first < all.end {
            let rows = cx.unbroken(x, first, all.end);
            product.run(first, stored.read(cx, stored.places(first, rows)));
            first += rows;
        }
        return Ok(());
    }
    let scratch = RowScratch::new(&x.layout, 1, all.len(), cx.scratch_bytes);
    let prepared = Vectors::of_scratch(portion, scratch);
    while first < all.end {
        let rows = first..(first + scratch.rows).min(all.end);
        if !portion.prepared {
            for row in cx.share(rows.clone()) {
                let out = prepared.write(cx, prepared.places(row - first, 1));
                quantise(cx, cx.row(x, row), x.layout.channels(), scale, out);
            }
            cx.barrier()?;
        }
        product.run(first, prepared.read(cx, prepared.places(0, rows.len())));
        first = rows.end;
        if first < all.end {
            cx.barrier()?;
        }
    }
    Ok(())
}

/// An int8 product.
struct Product<'a> {
    cx: &'a Context<'a>,
    /// Bytes of a vector.
    k_bytes: usize,
    panels: &'a [i8],
    sums: &'a [i32],
    tail: Tail<'a>,
    acc: Sums<i32>,
}

impl Product<'_> {
    /// This worker's share of the products of quantised vectors, the first of them that of row `row`.
    fn run(&mut self, row: usize, (act, scales): (&[u8], &[f32])) {
        let all = self.tail.n.div_ceil(PANEL_OUTPUTS);
        let (mine, panels) = self.cx.share_grid(0..scales.len(), all);
        let alone = panels.len() == all;
        // As many at a time as stay in a second-level cache beside the panels.
        let fit = SCRATCH_BYTES_FAST / (self.k_bytes + size_of::<f32>());
        let turn = self.cx.kernels.gemm_i8.tile_rows;
        let even = mine.len().div_ceil(mine.len().div_ceil(fit.max(1)).max(1));
        let step = even.next_multiple_of(turn).max(1);
        for start in mine.clone().step_by(step) {
            let vectors = start..(start + step).min(mine.end);
            self.chunk(row, (act, scales), vectors, &panels, alone);
        }
    }

    fn chunk(
        &mut self,
        row: usize,
        (act, scales): (&[u8], &[f32]),
        vectors: Range<usize>,
        panels: &Range<usize>,
        alone: bool,
    ) {
        let (gemm, k_bytes) = (&self.cx.kernels.gemm_i8, self.k_bytes);
        let panel_bytes = k_bytes * PANEL_OUTPUTS;
        let turn = tile_panels(gemm.tile_panels);
        for panel in panels.clone().step_by(turn) {
            let tile = panel..(panel + turn).min(panels.end);
            let (columns, outputs) = (tile.len() * PANEL_OUTPUTS, self.tail.outputs(&tile));
            let tile_rows = tile_vectors(tile.len(), gemm.tile_rows);
            for vector in vectors.clone().step_by(tile_rows) {
                let count = tile_rows.min(vectors.end - vector);
                (gemm.run)(GemmI8Args {
                    act: &act[vector * k_bytes..(vector + count) * k_bytes],
                    act_stride: k_bytes,
                    rows: count,
                    weights: &self.panels[panel * panel_bytes..tile.end * panel_bytes],
                    weights_stride: panel_bytes,
                    panels: tile.len(),
                    groups: k_bytes / PANEL_GROUP,
                    acc: &mut self.acc.0,
                    acc_stride: columns,
                    accumulate: false,
                });
                let place = Place { row, cell: vector, cells: count, alone };
                let (sums, scales) = (&self.sums[panel * PANEL_OUTPUTS..], &scales[vector..]);
                self.tail.store_i8(self.cx, place, &outputs, columns, &self.acc.0, sums, scales);
            }
        }
    }
}

/// f16 panels; tensors are panels and, if there is one, bias.
pub(super) fn half(
    cx: &Context<'_>,
    work: &Work,
    portion: &Portion,
    n: usize,
    epilogue: Epilogue,
) -> Result<(), Stopped> {
    let (gemm, x) = (&cx.kernels.gemm_f16, &work.inputs[0]);
    let k = x.layout.channels();
    let scratch = RowScratch::new(&x.layout, 4, portion.rows.len(), cx.scratch_bytes);
    let panels = cx.f16(&work.tensors[0]);
    let bias = work.tensors.get(1).map(|range| cx.f32(range));
    let tail = Tail::new(work, epilogue, n, None, bias);
    let (turn, panel_values) = (tile_panels(gemm.tile_panels), k * PANEL_OUTPUTS);

    let mut acc = Sums([0f32; TILE_VALUES]);
    let mut first = portion.rows.start;
    while first < portion.rows.end {
        let rows = first..(first + scratch.rows).min(portion.rows.end);
        for row in cx.share(rows.clone()) {
            let values = scratch.vectors * k;
            let at = (row - first) * values * size_of::<f32>();
            cx.load(x, row, 0..values, cx.scratch_mut(portion, at, values));
        }
        cx.barrier()?;
        let vectors = rows.len() * scratch.vectors;
        let act: &[f32] = cx.scratch(portion, 0, vectors * k);
        let (mine, my_panels) = cx.share_grid(0..vectors, n.div_ceil(PANEL_OUTPUTS));
        let alone = my_panels.len() == n.div_ceil(PANEL_OUTPUTS);
        for panel in my_panels.clone().step_by(turn) {
            let tile = panel..(panel + turn).min(my_panels.end);
            let (columns, outputs) = (tile.len() * PANEL_OUTPUTS, tail.outputs(&tile));
            let tile_rows = tile_vectors(tile.len(), gemm.tile_rows);
            for vector in mine.clone().step_by(tile_rows) {
                let count = tile_rows.min(mine.end - vector);
                (gemm.run)(GemmF16Args {
                    act: &act[vector * k..(vector + count) * k],
                    act_stride: k,
                    rows: count,
                    weights: &panels[panel * panel_values..tile.end * panel_values],
                    weights_stride: panel_values,
                    panels: tile.len(),
                    k,
                    acc: &mut acc.0,
                    acc_stride: columns,
                    accumulate: false,
                });
                let place = Place { row: first, cell: vector, cells: count, alone };
                tail.store_f32(cx, place, &outputs, columns, &acc.0);
            }
        }
        first = rows.end;
        if first < portion.rows.end {
            cx.barrier()?;
        }
    }
    Ok(())
}
