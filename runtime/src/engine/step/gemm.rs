//! What matrix products and convolutions share: tiles of sums and their epilogue.

use std::ops::Range;

use crate::graph::{Epilogue, Unary};
use crate::kernel::{Finish, Residual, Rows, RowsMut};
use crate::pack::panel::PANEL_OUTPUTS;

use crate::engine::context::{Context, View, Work};

/// Most sums that a tile holds on the stack.
pub(super) const TILE_VALUES: usize = 4096;

/// Sums of a tile whose inner loop takes few: a sixth of a small first-level cache.
const TILE_VALUES_SMALL: usize = 1280;

/// Sums on a line of their own, so that none is stored across two.
#[repr(align(64))]
pub(super) struct Sums<T>(pub [T; TILE_VALUES]);

/// Most panels of one tile.
pub(super) const PANELS_MAX: usize = 8;

/// Vectors of one tile beside `panels` panels: whole turns of the inner loop where they fit.
pub(super) fn tile_vectors(panels: usize, turn: usize) -> usize {
    let columns = panels * PANEL_OUTPUTS;
    let fit = (3 * turn * columns).clamp(TILE_VALUES_SMALL, TILE_VALUES) / columns;
    if fit > turn { fit / turn * turn } else { fit.max(1) }
}

/// Panels of one tile.
pub(super) fn tile_panels(turn: usize) -> usize {
    turn.clamp(1, PANELS_MAX)
}

/// The epilogue of a node, for a range of outputs at a time.
pub(super) struct Tail<'a> {
    pub weight_scale: Option<&'a [f32]>,
    pub bias: Option<&'a [f32]>,
    pub epilogue: Epilogue,
    /// The op that follows.
    pub then: Option<Unary>,
    /// The node's last input.
    pub residual: Option<&'a View>,
    pub output: &'a View,
    /// Outputs.
    pub n: usize,
}

impl<'a> Tail<'a> {
    pub fn new(
        work: &'a Work,
        epilogue: Epilogue,
        n: usize,
        weight_scale: Option<&'a [f32]>,
        bias: Option<&'a [f32]>,
    ) -> Self {
        let residual = if epilogue.residual { work.inputs.last() } else { None };
        Tail { weight_scale, bias, epilogue, then: work.then, residual, output: &work.output, n }
    }

    /// Outputs of some panels.
    pub fn outputs(&self, panels: &Range<usize>) -> Range<usize> {
        panels.start * PANEL_OUTPUTS..(panels.end * PANEL_OUTPUTS).min(self.n)
    }

    /// From integer sums `[cells, columns]` to stored outputs; see [`Place`].
    #[allow(clippy::too_many_arguments)]
    pub fn store_i8(
        &self,
        cx: &Context<'_>,
        place: Place,
        outputs: &Range<usize>,
        columns: usize,
        acc: &[i32],
        sums: &[i32],
        scales: &[f32],
    ) {
        let offset = i32::from(cx.kernels.gemm_i8.act_offset);
        self.each_run(cx, place, outputs, columns, |first, tile, out| {
            let scales = &scales[first..first + tile.rows];
            (cx.kernels.finish_i8)(&acc[first * columns..], sums, offset, scales, tile, out);
        });
    }

    /// From float totals `[cells, columns]` to stored outputs; see [`Place`].
    pub fn store_f32(
        &self,
        cx: &Context<'_>,
        place: Place,
        outputs: &Range<usize>,
        columns: usize,
        total: &[f32],
    ) {
        self.each_run(cx, place, outputs, columns, |first, tile, out| {
            (cx.kernels.finish_f32)(&total[first * columns..], tile, out);
        });
    }

    fn row_cells(&self) -> usize {
        self.output.layout.row_len / self.n
    }

    /// How many of some cells, from cell `x` of a row on, lie in one piece.
    fn run(&self, cx: &Context<'_>, row: usize, x: usize, cells: usize) -> usize {
        let end = row + (x + cells).div_ceil(self.row_cells());
        let views = [Some(self.output), self.residual];
        let rows = views.into_iter().flatten().map(|view| cx.unbroken(view, row, end)).min();
        cells.min(rows.unwrap_or(1) * self.row_cells() - x)
    }

    /// Calls `store` with runs of cells whose outputs lie in one piece: single cells where other workers write the
    /// other outputs of a cell, whole rows or more where this one writes all.
    fn each_run(
        &self,
        cx: &Context<'_>,
        place: Place,
        outputs: &Range<usize>,
        columns: usize,
        store: impl Fn(usize, &Finish<'_>, RowsMut<'_>),
    ) {
        let row_cells = self.row_cells();
        let mut done = 0;
        while done < place.cells {
            let cell = place.cell + done;
            let (row, x) = (place.row + cell / row_cells, cell % row_cells);
            let run = if place.alone { self.run(cx, row, x, place.cells - done) } else { 1 };
            let range = x * self.n + outputs.start..(x + run - 1) * self.n + outputs.end;
            // Regions that live together are the same or lie apart.
            let residual = self.residual.map(|view| match view.place == self.output.place {
                true => Residual::Output,
                false => {
                    let data = cx.part(view, row, range.clone());
                    Residual::Apart(Rows { data, stride: self.n })
                }
            });
            let tile = Finish {
                rows: run,
                columns: outputs.len(),
                stride: columns,
                weight_scale: self.weight_scale.map(|scale| &scale[outputs.clone()]),
                bias: self.bias.map(|bias| &bias[outputs.clone()]),
                activation: self.epilogue.activation,
                residual,
                then: self.then,
            };
            let data = cx.part_mut(self.output, row, range);
            store(done, &tile, RowsMut { data, stride: self.n });
            done += run;
        }
    }
}

/// Where a tile's results go.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// Row of the output.
    pub row: usize,
    /// The first cell, counted from the start of that row.
    pub cell: usize,
    /// Cells, which may run on into later rows.
    pub cells: usize,
    /// No other worker writes to these cells.
    pub alone: bool,
}
