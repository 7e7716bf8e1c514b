//! The int8 product with `sdot`: four registers are one group of a panel.

use std::arch::aarch64::*;
use std::arch::asm;

use super::super::{GemmI8, GemmI8Args, LANES, each_line};

/// Up to 6 rows by 1 panel: 24 sums, 6 activations and a weight or two in 32 registers.
pub const GEMM_I8: GemmI8 = GemmI8 {
    name: "dotprod_gemm_i8_6x1",
    act_offset: 0,
    tile_rows: ROWS,
    tile_panels: 1,
    macs_alone: 256 << 10,
    run,
    run_lines,
};

const ROWS: usize = 6;
/// Bytes of one group of a panel.
const LINE: usize = 64;

fn run(args: GemmI8Args<'_>) {
    // SAFETY: this function is reached only through a table that is offered where the CPU has the features.
    unsafe { enabled(args) }
}

fn run_lines(args: GemmI8Args<'_>, starts: &[usize]) {
    each_line(run, args, starts);
}

#[target_feature(enable = "neon,dotprod")]
fn enabled(mut args: GemmI8Args<'_>) {
    args.check(&[0]);
    // Tiles of nearly equal height.
    let tiles = args.rows.div_ceil(ROWS);
    for panel in 0..args.panels {
        let mut row = 0;
        for tile in 0..tiles {
            let end = args.rows * (tile + 1) / tiles;
            match end - row {
                1 => self::tile::<1>(&mut args, row, panel),
                2 => self::tile::<2>(&mut args, row, panel),
                3 => self::tile::<3>(&mut args, row, panel),
                4 => self::tile::<4>(&mut args, row, panel),
                5 => self::tile::<5>(&mut args, row, panel),
                _ => self::tile::<ROWS>(&mut args, row, panel),
            }
            row = end;
        }
    }
}

/// Adds, for each of four lanes, the products of four weights with group `$index` of the activations.
macro_rules! dot {
    ($acc:expr, $weights:expr, $act:expr, $index:literal) => {
        // SAFETY: `sdot` reads and writes registers; the enclosing function enables it.
        unsafe {
            asm!(
                concat!("sdot {acc:v}.4s, {weights:v}.16b, {act:v}.4b[", $index, "]"),
                acc = inout(vreg) $acc, weights = in(vreg) $weights, act = in(vreg) $act,
                options(pure, nomem, nostack, preserves_flags)
            )
        }
    };
}

/// Group `$index` of the activations by a group of the panel at `$at`.
macro_rules! group {
    ($acc:ident, $at:expr, $act:ident, $index:literal) => {
        for i in 0..4 {
            let at: *const i8 = $at.wrapping_add(16 * i);
            // SAFETY: the group is inside the slice by `check`.
            let weights = unsafe { vld1q_s8(at) };
            for (acc, act) in $acc.iter_mut().zip($act) {
                dot!(acc[i], weights, act, $index);
            }
        }
    };
}

#[target_feature(enable = "neon,dotprod")]
fn tile<const R: usize>(args: &mut GemmI8Args<'_>, row: usize, panel: usize) {
    // `wrapping_add` only computes addresses; every one that is read lies inside its slice, because
    // `check` has asserted that the last group of the last row and panel does.
    let mut act: [*const u8; R] =
        std::array::from_fn(|r| args.act.as_ptr().wrapping_add((row + r) * args.act_stride));
    let mut weights = args.weights.as_ptr().wrapping_add(panel * args.weights_stride);
    let mut acc = [[vdupq_n_s32(0); 4]; R];
    for _ in 0..args.groups / 4 {
        let mut sixteen = [vdupq_n_u8(0); R];
        for (sixteen, at) in sixteen.iter_mut().zip(&mut act) {
            // SAFETY: four groups of the row are inside the slice by `check`; the address moves on behind them.
            unsafe {
                asm!(
                    "ldr {sixteen:q}, [{at}], #16",
                    sixteen = out(vreg) * sixteen,
                    at = inout(reg) * at,
                    options(readonly, nostack, preserves_flags)
                )
            };
        }
        group!(acc, weights, sixteen, 0);
        group!(acc, weights.wrapping_add(LINE), sixteen, 1);
        group!(acc, weights.wrapping_add(2 * LINE), sixteen, 2);
        group!(acc, weights.wrapping_add(3 * LINE), sixteen, 3);
        weights = weights.wrapping_add(4 * LINE);
    }
    for _ in 0..args.groups % 4 {
        let four = act.each_mut().map(|at| {
            // SAFETY: the group of the row is inside the slice by `check`.
            let four = vdupq_n_u32(unsafe { at.cast::<u32>().read_unaligned() });
            *at = at.wrapping_add(4);
            four
        });
        group!(acc, weights, four, 0);
        weights = weights.wrapping_add(LINE);
    }
    for (r, acc) in acc.into_iter().enumerate() {
        let at = (row + r) * args.acc_stride + panel * LANES;
        let sums: &mut [i32] = &mut args.acc[at..at + LANES];
        for (mut sum, four) in acc.into_iter().zip(sums.chunks_exact_mut(4)) {
            if args.accumulate {
                // SAFETY: the chunk holds the 4 values that are read.
                sum = vaddq_s32(sum, unsafe { vld1q_s32(four.as_ptr()) });
            }
            // SAFETY: the chunk holds the 4 values that are written.
            unsafe { vst1q_s32(four.as_mut_ptr(), sum) };
        }
    }
}
