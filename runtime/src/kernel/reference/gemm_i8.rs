//! The integer product.

use crate::kernel::{GemmI8Args, LANES};

/// Activation bytes are i8.
pub fn gemm_signed(args: GemmI8Args<'_>) {
    gemm(args, |byte| i32::from(byte as i8));
}

/// Activation bytes are u8.
pub fn gemm_unsigned(args: GemmI8Args<'_>) {
    gemm(args, i32::from);
}

fn gemm(args: GemmI8Args<'_>, widen: fn(u8) -> i32) {
    args.check();
    for row in 0..args.rows {
        let act = &args.act[row * args.act_stride..];
        for panel in 0..args.panels {
            let weights = &args.weights[panel * args.weights_stride..];
            for lane in 0..LANES {
                let sum = &mut args.acc[row * args.acc_stride + panel * LANES + lane];
                let mut total = if args.accumulate { *sum } else { 0 };
                for k in 0..4 * args.groups {
                    let weight = i32::from(weights[(k / 4 * LANES + lane) * 4 + k % 4]);
                    total = total.wrapping_add(widen(act[k]) * weight);
                }
                *sum = total;
            }
        }
    }
}
