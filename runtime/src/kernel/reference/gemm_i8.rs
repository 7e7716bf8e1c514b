//! The integer product.

use crate::kernel::{GemmI8Args, LANES};

/// Activation bytes are i8.
pub fn gemm_signed(args: GemmI8Args<'_>) {
    gemm(args, &[0], |byte| i32::from(byte as i8));
}

/// Activation bytes are u8.
pub fn gemm_unsigned(args: GemmI8Args<'_>) {
    gemm(args, &[0], i32::from);
}

/// Activation bytes are i8, lines are summed.
pub fn gemm_signed_lines(args: GemmI8Args<'_>, starts: &[usize]) {
    gemm(args, starts, |byte| i32::from(byte as i8));
}

/// Activation bytes are u8, lines are summed.
pub fn gemm_unsigned_lines(args: GemmI8Args<'_>, starts: &[usize]) {
    gemm(args, starts, i32::from);
}

fn gemm(args: GemmI8Args<'_>, starts: &[usize], widen: fn(u8) -> i32) {
    args.check(starts);
    for row in 0..args.rows {
        for panel in 0..args.panels {
            let weights = &args.weights[panel * args.weights_stride..];
            for lane in 0..LANES {
                let sum = &mut args.acc[row * args.acc_stride + panel * LANES + lane];
                let mut total = if args.accumulate { *sum } else { 0 };
                for (line, start) in starts.iter().enumerate() {
                    let act = &args.act[start + row * args.act_stride..];
                    for k in 0..4 * args.groups {
                        let group = line * args.groups + k / 4;
                        let weight = i32::from(weights[(group * LANES + lane) * 4 + k % 4]);
                        total = total.wrapping_add(widen(act[k]) * weight);
                    }
                }
                *sum = total;
            }
        }
    }
}
