//! What matrix products and convolutions share: tiles of sums and their epilogue.

use std::ops::Range;

use crate::graph::Epilogue;
use crate::kernel::{Finish, Row};
use crate::pack::panel::PANEL_OUTPUTS;

use crate::engine::context::{Context, View, Work};

/// Sums that a tile holds on the stack: a sixth of a small first-level cache.
pub(super) const TILE_VALUES: usize = 1280;

/// Most panels of one tile.
pub(super) const PANELS_MAX: usize = 8;

/// Vectors of one tile beside `panels` panels: whole turns of the inner loop where they fit.
pub(super) fn tile_vectors(panels: usize, turn: usize) -> usize {
    let fit = TILE_VALUES / (panels * PANEL_OUTPUTS);
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
        Tail { weight_scale, bias, epilogue, residual, output: &work.output, n }
    }

    /// Outputs of some panels.
    pub fn outputs(&self, panels: &Range<usize>) -> Range<usize> {
        panels.start * PANEL_OUTPUTS..(panels.end * PANEL_OUTPUTS).min(self.n)
    }

    /// From integer sums to stored outputs of one cell.
    #[allow(clippy::too_many_arguments)]
    pub fn store_i8(
        &self,
        cx: &Context<'_>,
        row: usize,
        cell: usize,
        outputs: &Range<usize>,
        acc: &[i32],
        sums: &[i32],
        scale: f32,
    ) {
        let range = cell * self.n + outputs.start..cell * self.n + outputs.end;
        let residual = self.residual.map(|view| cx.part(view, row, range.clone()));
        self.with_residual(cx, residual, outputs, |finish| {
            let offset = i32::from(cx.kernels.gemm_i8.act_offset);
            let out = cx.part_mut(self.output, row, range.clone());
            (cx.kernels.finish_i8)(acc, sums, offset, scale, finish, out);
        });
    }

    /// From float totals to stored outputs of one cell.
    pub fn store_f32(
        &self,
        cx: &Context<'_>,
        row: usize,
        cell: usize,
        outputs: &Range<usize>,
        total: &[f32],
    ) {
        let range = cell * self.n + outputs.start..cell * self.n + outputs.end;
        let residual = self.residual.map(|view| cx.part(view, row, range.clone()));
        self.with_residual(cx, residual, outputs, |finish| {
            let out = cx.part_mut(self.output, row, range.clone());
            (cx.kernels.finish_f32)(total, finish, out);
        });
    }

    /// Copies the residual to the stack first: the output may lie over it.
    fn with_residual(
        &self,
        cx: &Context<'_>,
        residual: Option<Row<'_>>,
        outputs: &Range<usize>,
        store: impl Fn(&Finish<'_>),
    ) {
        let mut finish = Finish {
            weight_scale: self.weight_scale.map(|scale| &scale[outputs.clone()]),
            bias: self.bias.map(|bias| &bias[outputs.clone()]),
            activation: self.epilogue.activation,
            residual: None,
        };
        let Some(residual) = residual else { return store(&finish) };
        let mut copy = [0f32; PANELS_MAX * PANEL_OUTPUTS];
        let copy = &mut copy[..residual.len()];
        cx.widen(residual, copy);
        finish.residual = Some(Row::F32(copy));
        store(&finish);
    }
}
