//! Matrix products on vectors: matmuls, and convolutions that look at one cell.
//!
//! A chunk of rows is prepared together (quantised, or widened to f32), then the panels are split between the
//! workers, or the rows where that is more even.

use crate::engine::context::{Context, Portion, Work};
use crate::engine::pool::Stopped;
use crate::graph::Epilogue;
use crate::kernel::{GemmF16Args, GemmI8Args, int8_scale};
use crate::pack::panel::{PANEL_GROUP, PANEL_OUTPUTS};
use crate::plan::scratch::RowScratch;

use super::gemm::{Place, Sums, TILE_VALUES, Tail, tile_panels, tile_vectors};

/// Where the int8 scale of a vector comes from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Scale {
    /// Each vector's own largest value.
    Vector,
    /// The largest value of its row.
    Row,
    /// The packer.
    Static(f32),
}

/// int8 panels; tensors are panels, scale, sums, bias.
pub(super) fn int8(
    cx: &Context<'_>,
    work: &Work,
    portion: &Portion,
    n: usize,
    scale: Scale,
    epilogue: Epilogue,
) -> Result<(), Stopped> {
    let gemm = &cx.kernels.gemm_i8;
    let k_bytes = work.inputs[0].layout.channels().next_multiple_of(PANEL_GROUP);
    let scratch = RowScratch::new(&work.inputs[0].layout, 1, portion.rows.len(), cx.scratch_bytes);
    let panels = cx.i8(&work.tensors[0]);
    let weight_scale = cx.f32(&work.tensors[1]);
    let sums = cx.i32(&work.tensors[2]);
    let bias = work.tensors.get(3).map(|range| cx.f32(range));
    let tail = Tail::new(work, epilogue, n, Some(weight_scale), bias);
    let (turn, panel_bytes) = (tile_panels(gemm.tile_panels), k_bytes * PANEL_OUTPUTS);

    let mut acc = Sums([0i32; TILE_VALUES]);
    let mut first = portion.rows.start;
    while first < portion.rows.end {
        let rows = first..(first + scratch.rows).min(portion.rows.end);
        if !portion.prepared {
            for row in cx.share(rows.clone()) {
                quantise_row(cx, work, portion, &scratch, row - first, row, scale);
            }
            cx.barrier()?;
        }
        let vectors = rows.len() * scratch.vectors;
        let act: &[u8] = cx.scratch(portion, 0, vectors * k_bytes);
        let scales: &[f32] = cx.scratch(portion, scratch.scales_at(), vectors);
        let (mine, my_panels) = cx.share_grid(0..vectors, n.div_ceil(PANEL_OUTPUTS));
        let alone = my_panels.len() == n.div_ceil(PANEL_OUTPUTS);
        for panel in my_panels.clone().step_by(turn) {
            let tile = panel..(panel + turn).min(my_panels.end);
            let (columns, outputs) = (tile.len() * PANEL_OUTPUTS, tail.outputs(&tile));
            let tile_rows = tile_vectors(tile.len(), gemm.tile_rows);
            for vector in mine.clone().step_by(tile_rows) {
                let count = tile_rows.min(mine.end - vector);
                (gemm.run)(GemmI8Args {
                    act: &act[vector * k_bytes..(vector + count) * k_bytes],
                    act_stride: k_bytes,
                    rows: count,
                    weights: &panels[panel * panel_bytes..tile.end * panel_bytes],
                    weights_stride: panel_bytes,
                    panels: tile.len(),
                    groups: k_bytes / PANEL_GROUP,
                    acc: &mut acc.0,
                    acc_stride: columns,
                    accumulate: false,
                });
                let place = Place { row: first, cell: vector, cells: count, alone };
                let (sums, scales) = (&sums[panel * PANEL_OUTPUTS..], &scales[vector..]);
                tail.store_i8(cx, place, &outputs, columns, &acc.0, sums, scales);
            }
        }
        first = rows.end;
        if first < portion.rows.end {
            cx.barrier()?;
        }
    }
    Ok(())
}

/// Quantises the vectors of one row into place `slot` of a chunk.
fn quantise_row(
    cx: &Context<'_>,
    work: &Work,
    portion: &Portion,
    scratch: &RowScratch,
    slot: usize,
    row: usize,
    scale: Scale,
) {
    let (x, k) = (&work.inputs[0], work.inputs[0].layout.channels());
    let (vectors, k_bytes) = (scratch.vectors, k.next_multiple_of(PANEL_GROUP));
    let offset = cx.kernels.gemm_i8.act_offset;
    let whole = cx.row(x, row);
    let at = slot * vectors;
    let scales: &mut [f32] =
        cx.scratch_mut(portion, scratch.scales_at() + at * size_of::<f32>(), vectors);
    let out: &mut [u8] = cx.scratch_mut(portion, at * k_bytes, vectors * k_bytes);
    let shared = match scale {
        Scale::Static(scale) => Some((scale, 1.0 / scale)),
        Scale::Row => Some(int8_scale((cx.kernels.max_abs)(whole))),
        Scale::Vector => None,
    };
    if let Some((scale, inverse)) = shared
        && k == k_bytes
    {
        scales.fill(scale);
        return (cx.kernels.quantise)(whole, inverse, offset, out);
    }
    for (vector, out) in out.chunks_exact_mut(k_bytes).enumerate() {
        let values = whole.slice(vector * k..(vector + 1) * k);
        let (scale, inverse) = shared.unwrap_or_else(|| int8_scale((cx.kernels.max_abs)(values)));
        scales[vector] = scale;
        (cx.kernels.quantise)(values, inverse, offset, &mut out[..k]);
        out[k..].fill(offset);
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
