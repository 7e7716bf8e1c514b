//! Operands of the matrix products and of their epilogue.

use super::{Rows, RowsMut, row::LANES};
use crate::graph::Unary;
use half::f16;

/// The int8 product of one instruction set: int8 activations by int8 panels, summed in i32.
///
/// All read the one layout of [`crate::pack::panel`].
#[derive(Clone, Copy)]
pub struct GemmI8 {
    /// `isa_op_dtype_tile`.
    pub name: &'static str,
    /// What the activation bytes are offset by: 0 (the byte is an i8) or 128 (it is a u8 of value `q + 128`).
    /// With 128, every sum is too large by `128 *` the sum of its weights, which the epilogue takes off.
    pub act_offset: u8,
    /// Rows that one turn of the inner loop shares a panel over: more rows a call run as several turns, and a
    /// rest that is not a multiple runs at less speed.
    pub tile_rows: usize,
    /// Panels that one tile takes together: those of a turn, or a multiple.
    pub tile_panels: usize,
    /// Multiply-adds of some microseconds, an order of magnitude: work of fewer is not worth sharing between threads.
    pub macs_alone: u64,
    /// Computes `acc[r][p * 16 + lane] (+)= sum over group, j of
    /// act[r * act_stride + 4 * group + j] * panel[p][group][lane][j]`.
    pub run: fn(args: GemmI8Args<'_>),
    /// As [`GemmI8::run`], summed over lines: activations of line `i` begin at `act[starts[i]]`, its groups follow
    /// those of the line before in each panel; at least one line. A convolution's kernel rows, one scale for all.
    pub run_lines: fn(args: GemmI8Args<'_>, starts: &[usize]),
}

/// Operands of [`GemmI8::run`].
#[derive(Debug)]
pub struct GemmI8Args<'a> {
    /// Activation bytes; at least `(rows - 1) * act_stride + 4 * groups`.
    pub act: &'a [u8],
    /// Bytes from one row's first activation to the next one's. May be less than a row: a convolution's output
    /// cells overlap in the input line.
    pub act_stride: usize,
    /// Rows, any number.
    pub rows: usize,
    /// Weights of the first panel's first group on; at least `(panels - 1) * weights_stride + 64 * groups`.
    pub weights: &'a [i8],
    /// Bytes from one panel to the next: all groups of a panel, of which a call may use some.
    pub weights_stride: usize,
    /// Panels, any number.
    pub panels: usize,
    /// Groups of four k.
    pub groups: usize,
    /// `[rows, acc_stride]`, of which each row's first `panels * 16` are written.
    pub acc: &'a mut [i32],
    /// Values from one row of sums to the next; at least `panels * 16`.
    pub acc_stride: usize,
    /// Adds to what `acc` holds.
    pub accumulate: bool,
}

impl GemmI8Args<'_> {
    /// Asserts that every access of a product over lines is inside its slice; kernels rely on it.
    ///
    /// # Panics
    /// If one is not.
    pub fn check(&self, starts: &[usize]) {
        let Some(last) = starts.iter().max() else { return };
        if self.rows == 0 || self.panels == 0 {
            return;
        }
        let act = (self.rows - 1)
            .checked_mul(self.act_stride)
            .and_then(|start| start.checked_add(self.groups.checked_mul(4)?))
            .and_then(|end| end.checked_add(*last));
        let groups =
            self.groups.checked_mul(4 * LANES).and_then(|line| line.checked_mul(starts.len()));
        let weights = (self.panels - 1)
            .checked_mul(self.weights_stride)
            .and_then(|start| start.checked_add(groups?));
        let acc = (self.rows - 1)
            .checked_mul(self.acc_stride)
            .and_then(|start| start.checked_add(self.panels.checked_mul(LANES)?));
        assert!(act.is_some_and(|end| end <= self.act.len()), "activations end before their rows");
        assert!(
            weights.is_some_and(|end| end <= self.weights.len()),
            "panels end before their groups"
        );
        assert!(acc.is_some_and(|end| end <= self.acc.len()), "sums end before their rows");
        assert!(self.rows == 1 || self.acc_stride >= self.panels * LANES, "rows of sums overlap");
    }
}

/// [`GemmI8::run_lines`] by one call of [`GemmI8::run`] a line.
pub fn each_line(run: fn(args: GemmI8Args<'_>), args: GemmI8Args<'_>, starts: &[usize]) {
    for (index, &start) in starts.iter().enumerate() {
        run(GemmI8Args {
            act: &args.act[start..],
            weights: &args.weights[index * args.groups * 4 * LANES..],
            acc: args.acc,
            accumulate: args.accumulate || index > 0,
            ..args
        });
    }
}

/// The float product of one instruction set: f32 activations by f16 panels `[panel][k][16]`.
#[derive(Clone, Copy)]
pub struct GemmF16 {
    /// `isa_op_dtype_tile`.
    pub name: &'static str,
    /// Rows that one turn of the inner loop shares a panel over.
    pub tile_rows: usize,
    /// Panels that one turn takes together.
    pub tile_panels: usize,
    /// Computes `acc[r][p * 16 + lane]` as one chain of fused multiply-adds in order of k, from 0 or from
    /// what `acc` holds.
    pub run: fn(args: GemmF16Args<'_>),
}

/// Operands of [`GemmF16::run`].
#[derive(Debug)]
pub struct GemmF16Args<'a> {
    /// Activations; at least `(rows - 1) * act_stride + k`.
    pub act: &'a [f32],
    /// Values from one row's first activation to the next one's; may be less than k.
    pub act_stride: usize,
    /// Rows, any number.
    pub rows: usize,
    /// Weights of the first panel's first k on; at least `(panels - 1) * weights_stride + 16 * k`.
    pub weights: &'a [f16],
    /// Values from one panel to the next.
    pub weights_stride: usize,
    /// Panels, any number.
    pub panels: usize,
    /// Length of the chain.
    pub k: usize,
    /// `[rows, acc_stride]`, of which each row's first `panels * 16` are written.
    pub acc: &'a mut [f32],
    /// Values from one row of sums to the next; at least `panels * 16`.
    pub acc_stride: usize,
    /// Continues the chain that `acc` holds.
    pub accumulate: bool,
}

impl GemmF16Args<'_> {
    /// Asserts that every access is inside its slice; kernels rely on it.
    ///
    /// # Panics
    /// If one is not.
    pub fn check(&self) {
        if self.rows == 0 || self.panels == 0 {
            return;
        }
        let act = (self.rows - 1)
            .checked_mul(self.act_stride)
            .and_then(|start| start.checked_add(self.k));
        let weights = (self.panels - 1)
            .checked_mul(self.weights_stride)
            .and_then(|start| start.checked_add(self.k.checked_mul(LANES)?));
        let acc = (self.rows - 1)
            .checked_mul(self.acc_stride)
            .and_then(|start| start.checked_add(self.panels.checked_mul(LANES)?));
        assert!(act.is_some_and(|end| end <= self.act.len()), "activations end before their rows");
        assert!(weights.is_some_and(|end| end <= self.weights.len()), "panels end before their k");
        assert!(acc.is_some_and(|end| end <= self.acc.len()), "sums end before their rows");
        assert!(self.rows == 1 || self.acc_stride >= self.panels * LANES, "rows of sums overlap");
    }
}

/// What is added to totals.
#[derive(Clone, Copy, Debug)]
pub enum Residual<'a> {
    /// `[rows, columns]`, apart from the output.
    Apart(Rows<'a>),
    /// What the output holds until it is written.
    Output,
}

/// What happens to a tile of totals before it is stored, in this order:
/// `then(activation(total * weight_scale + bias) + residual)`, the first as one fused multiply-add.
///
/// For integer sums `total = (acc - offset * sums) * scale`, where each row has a scale of its own. Without `weight_scale` the first
/// step is `total + bias`, without `bias` the missing summand is 0.
#[derive(Clone, Copy, Debug)]
pub struct Finish<'a> {
    /// Rows of the tile.
    pub rows: usize,
    /// Outputs of each row that are stored.
    pub columns: usize,
    /// Values from one row of sums to the next; at least `columns`.
    pub stride: usize,
    /// By output.
    pub weight_scale: Option<&'a [f32]>,
    /// By output.
    pub bias: Option<&'a [f32]>,
    /// Applied after the bias.
    pub activation: Option<Unary>,
    /// Added.
    pub residual: Option<Residual<'a>>,
    /// The op that follows: applied to what would be stored without it, so that its bits stay.
    pub then: Option<Unary>,
}

impl Finish<'_> {
    /// Asserts that every operand covers the tile.
    ///
    /// # Panics
    /// If one does not.
    pub fn check(&self, sums: usize, out: &RowsMut<'_>) {
        let covers = |length: usize, stride: usize| {
            self.rows == 0
                || (self.rows - 1)
                    .checked_mul(stride)
                    .and_then(|start| start.checked_add(self.columns))
                    .is_some_and(|end| end <= length)
        };
        let columns = self.columns;
        assert!(covers(sums, self.stride), "sums end before the tile");
        assert!(self.weight_scale.is_none_or(|s| s.len() >= columns), "scales end before the row");
        assert!(self.bias.is_none_or(|bias| bias.len() >= columns), "biases end before the row");
        assert!(covers(out.data.len(), out.stride), "the output ends before the tile");
        if let Some(Residual::Apart(residual)) = self.residual {
            assert!(covers(residual.data.len(), residual.stride), "the residual ends early");
        }
    }
}

/// The scale of a symmetric int8 row with this largest `|x|`, and its inverse: `max / 127`, `127 / max`.
///
/// A row of zeros (or below the smallest that has an inverse) has scale 1.
pub fn int8_scale(max_abs: f32) -> (f32, f32) {
    if max_abs >= 1e-35 { (max_abs / 127.0, 127.0 / max_abs) } else { (1.0, 1.0) }
}
