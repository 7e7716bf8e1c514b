//! Kernels: one op on a row or a tile, written for one instruction set.
//!
//! Enters: slices of numbers that the engine has already bounded. Leaves: slices of numbers.
//! Never: a plan, a graph, an allocation, a thread, a tensor's name.
//!
//! A [`Kernels`] is one table of functions for one instruction set; [`Kernels::chosen`] picks it once, by
//! what the CPU can do. Every table gives the same bits as [`reference`](mod@reference), the plain scalar code that
//! says what each kernel computes, in which order. That order is part of the pack's promise (same pack,
//! prompt and seed, same bytes on every CPU): sums run over 16 lanes, element `i` in lane `i % 16`, and end
//! in one fixed tree ([`reference::tree_sum`]); every product that is added is one fused multiply-add; nothing
//! is contracted or reordered. Not-a-numbers stay not-a-numbers, but their bits differ between CPUs.
//!
//! Functions assert the lengths of their slices: a wrong length is a bug of the engine, not bad input.

#[cfg(target_arch = "aarch64")]
#[allow(unsafe_code, reason = "the instruction sets of aarch64")]
mod aarch64;
mod attention;
mod attention_i8;
mod cpu;
mod gemm;
#[cfg(any(target_arch = "aarch64", target_arch = "x86_64"))]
mod lanes;
mod moments;
#[cfg(test)]
mod properties;
pub mod reference;
mod row;
mod window;
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code, reason = "the instruction sets of x86-64")]
mod x86_64;

pub use attention::{ATTENTION_KEYS, Attention, Mask};
pub use attention_i8::{ATTENTION_I8_KEYS, AttentionI8, KeyRows, KeyTile, KeyTileMut};
pub use cpu::{KernelError, OVERRIDE};
pub use gemm::{Finish, GemmF16, GemmF16Args, GemmI8, GemmI8Args, Residual, each_line, int8_scale};
pub use moments::{Moments, group_scale_shift};
pub use row::{LANES, Row, RowMut, Rows, RowsMut};
pub use window::{Lines, ResizeRow};

use crate::graph::{Binary, PoolKind, Unary};
use half::f16;

/// The functions of one instruction set.
///
/// Slices hold rows: one image row `[width, channels]` or one token `[channels]`, or any part of one
/// where nothing but single values matters.
#[expect(clippy::type_complexity, reason = "the parameters' names say what each one is")]
pub struct Kernels {
    /// `scalar`, `avx2`, `avxvnni`, `avx512`, `amx`, `neon`, `dotprod` or `i8mm`.
    pub name: &'static str,

    /// Widens f16 to f32, exactly. Lengths must be equal.
    pub load_f16: fn(src: &[f16], dst: &mut [f32]),
    /// Rounds f32 to f16, to nearest even; beyond 65504 to infinity. Lengths must be equal.
    pub store_f16: fn(src: &[f32], dst: &mut [f16]),

    /// Applies a function to every value, in place.
    pub unary: fn(function: Unary, values: &mut [f32]),
    /// `out = function(a, b)`, all of one length.
    pub binary: fn(function: Binary, a: &[f32], b: &[f32], out: &mut [f32]),
    /// `values = function(values, b)`.
    pub binary_scalar: fn(function: Binary, values: &mut [f32], b: f32),
    /// `values = function(a, values)`.
    pub scalar_binary: fn(function: Binary, a: f32, values: &mut [f32]),
    /// `values = values * (1 + scale) + shift`; scale and shift repeat along the row, so their common
    /// length must divide the row's.
    pub modulate: fn(values: &mut [f32], scale: &[f32], shift: &[f32]),
    /// `values = values * scale + shift`; scale and shift (by channel) repeat along the row, so their
    /// common length must divide the row's. The second half of a group norm.
    pub scale_shift: fn(values: &mut [f32], scale: &[f32], shift: &[f32]),

    /// Sum over 16 lanes and the tree.
    pub sum: fn(values: &[f32]) -> f32,
    /// Largest `|x|`; 0 for an empty row.
    pub max_abs: fn(values: Row<'_>) -> f32,
    /// Largest value; negative infinity for an empty row.
    pub max: fn(values: &[f32]) -> f32,
    /// Count, mean and sum of squared distances from the mean, of each group of channels in
    /// `row [width, channels]`: the first half of a group norm. `out` has one entry a group; its length must
    /// divide `channels`. `scratch`: `channels` values.
    pub group_moments: fn(row: &[f32], channels: usize, scratch: &mut [f32], out: &mut [Moments]),

    /// `(x - mean) / sqrt(var + eps) * gamma + beta` over the whole slice, in place. An absent beta is 0.
    pub layer_norm: fn(values: &mut [f32], gamma: &[f32], beta: Option<&[f32]>, eps: f32),
    /// `x / sqrt(mean(x^2) + eps) * gamma` over each run of `gamma.len()` values, in place.
    pub rms_norm: fn(values: &mut [f32], gamma: &[f32], eps: f32),
    /// `exp(x - max) / sum(exp(x - max))` over the whole slice, in place.
    pub softmax: fn(values: &mut [f32]),

    /// `out = clamp(round_half_even(x * inverse), -127, 127) + offset`, as bytes; `offset` is 0 or 128
    /// ([`GemmI8::act_offset`]). A not-a-number gives -127.
    pub quantise: fn(values: Row<'_>, inverse: f32, offset: u8, out: &mut [u8]),
    /// The integer hot loop.
    pub gemm_i8: GemmI8,
    /// `total = acc * scale + total`, one fused multiply-add, where acc is first freed of the activation
    /// offset: `acc - offset * sums`. `first` takes total as 0. For convolutions with one scale a kernel row.
    ///
    /// `acc`, `total`: `[rows, sums.len()]`; the sums repeat from row to row.
    pub accumulate_i8:
        fn(acc: &[i32], sums: &[i32], offset: i32, scale: f32, first: bool, total: &mut [f32]),
    /// The epilogue of a tile of integer accumulators `[rows, stride]`; see [`Finish`]. `sums` by output, `scales` by row.
    pub finish_i8: fn(
        acc: &[i32],
        sums: &[i32],
        offset: i32,
        scales: &[f32],
        finish: &Finish<'_>,
        out: RowsMut<'_>,
    ),
    /// The epilogue of a tile of float totals `[rows, stride]`; see [`Finish`].
    pub finish_f32: fn(total: &[f32], finish: &Finish<'_>, out: RowsMut<'_>),

    /// f32 activations by f16 panels.
    pub gemm_f16: GemmF16,
    /// `out[j] = sum over i of a[i] * b[i][j]`, one fused chain in order of i, from 0. `b` has `a.len()` rows
    /// of `out.len()`.
    pub vector_matrix: fn(a: &[f32], b: Rows<'_>, out: &mut [f32]),

    /// One head of attention over a tile of queries; see [`Attention`].
    pub attention: fn(attention: &Attention<'_>, scratch: &mut [f32], out: RowsMut<'_>),
    /// Quantises one tile of keys and values of one head into its [`KeyTile`].
    pub quantise_keys: fn(rows: &KeyRows<'_>, out: &mut [f32]),
    /// One head of attention over a tile of queries, in int8; see [`AttentionI8`]. `gemm` is the table's own.
    pub attention_i8:
        fn(attention: &AttentionI8<'_>, gemm: &GemmI8, scratch: &mut [f32], out: RowsMut<'_>),

    /// One output row of a depthwise convolution: each output cell is
    /// `bias + sum over ky, kx of line[ky][x * stride + kx] * weight[ky][kx]` by channel, one fused chain in that
    /// order. `weight`: f16 `[kernel_rows, kernel_columns, channels]`; see [`Lines`] for the input.
    pub depthwise: fn(lines: &Lines<'_>, weight: &[f16], bias: Option<&[f32]>, out: &mut [f32]),
    /// One output row of a pooling; cells outside the image are left out. See [`Lines`].
    pub pool: fn(kind: PoolKind, lines: &Lines<'_>, out: &mut [f32]),
    /// `out = weight * (b - a) + a`, one fused multiply-add.
    pub blend: fn(a: &[f32], b: &[f32], weight: f32, out: &mut [f32]),
    /// Stretches one row to the right; see [`ResizeRow`].
    pub resize_row: fn(resize: &ResizeRow, row: &[f32], out: &mut [f32]),
}

/// Registers tables, best first, each with the test of the CPU features that it needs, and with a test of every
/// one of its functions against the reference.
#[cfg(any(target_arch = "aarch64", target_arch = "x86_64"))]
macro_rules! tables {
    ($($name:ident: $table:expr, $runs:path;)*) => {
        /// The tables of this architecture, best first.
        pub(super) const TABLES: &[$crate::kernel::cpu::Native] = &[$((&$table, $runs)),*];

        #[cfg(test)]
        mod tests {
            $(
                mod $name {
                    $crate::kernel::properties::of_table!(stringify!($name));
                }
            )*
        }
    };
}
#[cfg(any(target_arch = "aarch64", target_arch = "x86_64"))]
use tables;

impl std::fmt::Debug for Kernels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kernels")
            .field("name", &self.name)
            .field("gemm_i8", &self.gemm_i8.name)
            .field("gemm_f16", &self.gemm_f16.name)
            .finish_non_exhaustive()
    }
}
