//! Float products.

use super::{Lanes, load_part, load_row, store_part};
use crate::kernel::{GemmF16Args, LANES, Rows};
use half::f16;

/// See [`crate::kernel::GemmF16::run`]. `R` rows by `P` panels stay in registers.
#[inline(always)]
pub fn gemm_f16<L: Lanes, const R: usize, const P: usize>(mut args: GemmF16Args<'_>) {
    args.check();
    let mut panel = 0;
    while panel < args.panels {
        let wide = panel + P <= args.panels;
        let mut row = 0;
        while row < args.rows {
            let rest = args.rows - row;
            row += if rest >= R {
                rows::<L, R, P>(&mut args, row, panel, wide)
            } else if rest >= 4 {
                rows::<L, 4, P>(&mut args, row, panel, wide)
            } else {
                rows::<L, 1, P>(&mut args, row, panel, wide)
            };
        }
        panel += if wide { P } else { 1 };
    }
}

/// `R` rows by `P` panels, or by one.
#[inline(always)]
fn rows<L: Lanes, const R: usize, const P: usize>(
    args: &mut GemmF16Args<'_>,
    row: usize,
    panel: usize,
    wide: bool,
) -> usize {
    if wide {
        tile::<L, R, P>(args, row, panel);
    } else {
        tile::<L, R, 1>(args, row, panel);
    }
    R
}

#[inline(always)]
fn tile<L: Lanes, const R: usize, const P: usize>(
    args: &mut GemmF16Args<'_>,
    row: usize,
    panel: usize,
) {
    let (k, acc_stride) = (args.k, args.acc_stride);
    let acc_start = row * acc_stride + panel * LANES;
    let mut acc = [[L::splat(0.0); P]; R];
    if args.accumulate {
        for (r, acc) in acc.iter_mut().enumerate() {
            for (p, acc) in acc.iter_mut().enumerate() {
                let start = acc_start + r * acc_stride + p * LANES;
                *acc = load_part(&args.acc[start..start + LANES], 0.0);
            }
        }
    }
    // Slices of one known length, so that the loop has no bounds to check.
    let act: [&[f32]; R] = std::array::from_fn(|r| {
        let start = (row + r) * args.act_stride;
        &args.act[start..start + k]
    });
    let weights: [&[[f16; LANES]]; P] = std::array::from_fn(|p| {
        let start = (panel + p) * args.weights_stride;
        &args.weights[start..start + k * LANES].as_chunks().0[..k]
    });
    for i in 0..k {
        let mut weight = [L::splat(0.0); P];
        for (weight, lines) in weight.iter_mut().zip(weights) {
            *weight = L::load_f16(&lines[i]);
        }
        for (acc, act) in acc.iter_mut().zip(act) {
            let act = L::splat(act[i]);
            for (acc, weight) in acc.iter_mut().zip(weight) {
                *acc = act.mul_add(weight, *acc);
            }
        }
    }
    for (r, acc) in acc.into_iter().enumerate() {
        for (p, acc) in acc.into_iter().enumerate() {
            let start = acc_start + r * acc_stride + p * LANES;
            store_part(acc, &mut args.acc[start..start + LANES]);
        }
    }
}

/// See [`crate::kernel::Kernels::vector_matrix`].
#[inline(always)]
pub fn vector_matrix<L: Lanes>(a: &[f32], b: Rows<'_>, out: &mut [f32]) {
    let columns = out.len();
    let mut start = 0;
    while start + 4 * LANES <= columns {
        let mut acc = [L::splat(0.0); 4];
        for (row, &a) in a.iter().enumerate() {
            let a = L::splat(a);
            for (part, acc) in acc.iter_mut().enumerate() {
                let at = row * b.stride + start + part * LANES;
                *acc = a.mul_add(load_row(b.data, at, at + LANES), *acc);
            }
        }
        for (acc, out) in acc.into_iter().zip(out[start..].chunks_mut(LANES)) {
            store_part(acc, out);
        }
        start += 4 * LANES;
    }
    for start in (start..columns).step_by(LANES) {
        let end = (start + LANES).min(columns);
        let mut acc = L::splat(0.0);
        for (row, &a) in a.iter().enumerate() {
            let at = row * b.stride;
            acc = L::splat(a).mul_add(load_row(b.data, at + start, at + end), acc);
        }
        store_part(acc, &mut out[start..end]);
    }
}
