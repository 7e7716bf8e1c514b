//! The scalar reference: what every kernel computes, one op a file, plainly, in the one order of operations.
//!
//! Enters and leaves: what the table [`Kernels`] says. Never: a vector, an `unsafe`, a shortcut that another
//! kernel shares. Slow (`f32::mul_add` is a call where the target has no fused multiply-add) and exact.

mod attention;
mod attention_i8;
mod binary;
mod convert;
mod depthwise;
mod finish;
mod gemm_f16;
mod gemm_i8;
mod math;
mod norm;
mod pool;
mod quantise;
mod reduce;
mod resize;
mod softmax;
mod unary;

pub use gemm_i8::{gemm_signed, gemm_signed_lines, gemm_unsigned, gemm_unsigned_lines};
pub use math::{cos, erf, exp, sin, tanh};
pub use reduce::tree_sum;

use super::{GemmF16, GemmI8, Kernels};

/// The table of the reference, whose activations are signed.
pub const KERNELS: Kernels = Kernels {
    name: "scalar",
    load_f16: convert::load_f16,
    store_f16: convert::store_f16,
    unary: unary::unary,
    binary: binary::binary,
    binary_scalar: binary::binary_scalar,
    scalar_binary: binary::scalar_binary,
    modulate: binary::modulate,
    scale_shift: binary::scale_shift,
    sum: reduce::sum,
    max_abs: reduce::max_abs,
    max: reduce::max,
    group_moments: reduce::group_moments,
    layer_norm: norm::layer_norm,
    rms_norm: norm::rms_norm,
    softmax: softmax::softmax,
    quantise: quantise::quantise,
    gemm_i8: GemmI8 {
        name: "scalar_gemm_i8_1x1",
        act_offset: 0,
        tile_rows: 1,
        tile_panels: 1,
        macs_alone: 8 << 10,
        run: gemm_i8::gemm_signed,
        run_lines: gemm_i8::gemm_signed_lines,
    },
    accumulate_i8: finish::accumulate_i8,
    finish_i8: finish::finish_i8,
    finish_f32: finish::finish_f32,
    gemm_f16: GemmF16 {
        name: "scalar_gemm_f16_1x1",
        tile_rows: 1,
        tile_panels: 1,
        run: gemm_f16::gemm_f16,
    },
    vector_matrix: gemm_f16::vector_matrix,
    attention: attention::attention,
    quantise_keys: attention_i8::quantise_keys,
    attention_i8: attention_i8::attention_i8,
    depthwise: depthwise::depthwise,
    pool: pool::pool,
    blend: resize::blend,
    resize_row: resize::resize_row,
};
