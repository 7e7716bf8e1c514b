//! Float products.

use crate::kernel::{GemmF16Args, LANES, Rows};

/// f32 activations by f16 panels.
pub fn gemm_f16(args: GemmF16Args<'_>) {
    args.check();
    for row in 0..args.rows {
        let act = &args.act[row * args.act_stride..];
        for panel in 0..args.panels {
            let weights = &args.weights[panel * args.weights_stride..];
            for lane in 0..LANES {
                let sum = &mut args.acc[row * args.acc_stride + panel * LANES + lane];
                let mut total = if args.accumulate { *sum } else { 0.0 };
                for k in 0..args.k {
                    total = act[k].mul_add(weights[k * LANES + lane].to_f32(), total);
                }
                *sum = total;
            }
        }
    }
}

/// One row by a matrix.
pub fn vector_matrix(a: &[f32], b: Rows<'_>, out: &mut [f32]) {
    for (column, out) in out.iter_mut().enumerate() {
        let mut total = 0f32;
        for (row, &a) in a.iter().enumerate() {
            total = a.mul_add(b.data.get(row * b.stride + column), total);
        }
        *out = total;
    }
}
