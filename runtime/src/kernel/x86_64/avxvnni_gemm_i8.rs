//! The int8 product on AVX-VNNI: two registers are one group of a panel.

use std::arch::x86_64::*;

use super::super::{GemmI8, GemmI8Args, LANES, each_line};

/// Up to 6 rows by 1 panel: 12 sums, 2 weights and an activation in 16 registers.
pub const GEMM_I8: GemmI8 = GemmI8 {
    name: "avxvnni_gemm_i8_6x1",
    act_offset: 128,
    tile_rows: ROWS,
    tile_panels: 1,
    macs_alone: 1 << 20,
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

#[target_feature(enable = "avx2,avxvnni")]
fn enabled(mut args: GemmI8Args<'_>) {
    args.check(&[0]);
    for panel in 0..args.panels {
        let mut row = 0;
        while row < args.rows {
            match args.rows - row {
                1 => tile::<1>(&mut args, row, panel),
                2 => tile::<2>(&mut args, row, panel),
                3 => tile::<3>(&mut args, row, panel),
                4 => tile::<4>(&mut args, row, panel),
                5 => tile::<5>(&mut args, row, panel),
                _ => tile::<ROWS>(&mut args, row, panel),
            }
            row += ROWS;
        }
    }
}

#[target_feature(enable = "avx2,avxvnni")]
fn tile<const R: usize>(args: &mut GemmI8Args<'_>, row: usize, panel: usize) {
    let acc_start = row * args.acc_stride + panel * LANES;
    let mut acc = [[_mm256_setzero_si256(); 2]; R];
    if args.accumulate {
        for (r, acc) in acc.iter_mut().enumerate() {
            for (half, acc) in acc.iter_mut().enumerate() {
                let at = acc_start + r * args.acc_stride + half * 8;
                let sums: &[i32] = &args.acc[at..at + 8];
                // SAFETY: the slice holds the 8 values that are read.
                *acc = unsafe { _mm256_loadu_si256(sums.as_ptr().cast()) };
            }
        }
    }
    // `wrapping_add` only computes addresses; every one that is read lies inside its slice, because
    // `check` has asserted that the last group of the last row and panel does.
    let act = args.act.as_ptr().wrapping_add(row * args.act_stride);
    let weights = args.weights.as_ptr().wrapping_add(panel * args.weights_stride);
    for group in 0..args.groups {
        let at = weights.wrapping_add(group * LINE);
        // SAFETY: the group is inside the slice by `check`.
        let low = unsafe { _mm256_loadu_si256(at.cast()) };
        // SAFETY: as above; a group has 64 bytes.
        let high = unsafe { _mm256_loadu_si256(at.wrapping_add(32).cast()) };
        for (r, acc) in acc.iter_mut().enumerate() {
            let at = act.wrapping_add(r * args.act_stride + group * 4).cast::<i32>();
            // SAFETY: groups of rows `row..row + R` are inside the slice by `check`.
            let four = unsafe { at.read_unaligned() };
            let act = _mm256_set1_epi32(four);
            for (acc, weight) in acc.iter_mut().zip([low, high]) {
                *acc = _mm256_dpbusd_avx_epi32(*acc, act, weight);
            }
        }
    }
    for (r, acc) in acc.into_iter().enumerate() {
        for (half, acc) in acc.into_iter().enumerate() {
            let at = acc_start + r * args.acc_stride + half * 8;
            let sums: &mut [i32] = &mut args.acc[at..at + 8];
            // SAFETY: the slice holds the 8 values that are written.
            unsafe { _mm256_storeu_si256(sums.as_mut_ptr().cast(), acc) };
        }
    }
}
