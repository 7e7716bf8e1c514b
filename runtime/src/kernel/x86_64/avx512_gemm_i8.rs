//! The int8 product on AVX-512 VNNI: one register is one group of a panel.

use std::arch::x86_64::*;

use super::super::{GemmI8, GemmI8Args, LANES};

/// Up to 12 rows by 2 panels: 24 sums, 2 weights and an activation in 32 registers. Two such turns make a tile, because
/// epilogues take four panels together.
pub const GEMM_I8: GemmI8 = GemmI8 {
    name: "avx512_gemm_i8_12x2",
    act_offset: 128,
    tile_rows: ROWS,
    tile_panels: 4,
    macs_alone: 2 << 20,
    run,
    run_lines,
};

const ROWS: usize = 12;
/// Longest panels of one turn whose successors are fetched while they are used: half of a first-level cache.
const NEXT_BYTES_MAX: usize = 24 << 10;
/// How far ahead longer panels are fetched.
const SOON_BYTES: usize = 4 << 10;
/// Bytes of one group of a panel.
const LINE: usize = 64;

fn run(args: GemmI8Args<'_>) {
    // SAFETY: this function is reached only through a table that is offered where the CPU has the features.
    unsafe { enabled(args, &[0]) }
}

fn run_lines(args: GemmI8Args<'_>, starts: &[usize]) {
    // SAFETY: as above.
    unsafe { enabled(args, starts) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn enabled(mut args: GemmI8Args<'_>, starts: &[usize]) {
    args.check(starts);
    // Tiles of nearly equal height: a last tile of one row would leave the multipliers idle.
    let tiles = args.rows.div_ceil(ROWS);
    let mut panel = 0;
    while panel < args.panels {
        let wide = panel + 2 <= args.panels;
        let mut row = 0;
        for tile in 0..tiles {
            let end = args.rows * (tile + 1) / tiles;
            if wide {
                tile_of::<2>(&mut args, starts, row, end - row, panel);
            } else {
                tile_of::<1>(&mut args, starts, row, end - row, panel);
            }
            row = end;
        }
        panel += if wide { 2 } else { 1 };
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn tile_of<const P: usize>(
    args: &mut GemmI8Args<'_>,
    starts: &[usize],
    row: usize,
    rows: usize,
    panel: usize,
) {
    match rows {
        1 => tile::<1, P>(args, starts, row, panel),
        2 => tile::<2, P>(args, starts, row, panel),
        3 => tile::<3, P>(args, starts, row, panel),
        4 => tile::<4, P>(args, starts, row, panel),
        5 => tile::<5, P>(args, starts, row, panel),
        6 => tile::<6, P>(args, starts, row, panel),
        7 => tile::<7, P>(args, starts, row, panel),
        8 => tile::<8, P>(args, starts, row, panel),
        9 => tile::<9, P>(args, starts, row, panel),
        10 => tile::<10, P>(args, starts, row, panel),
        11 => tile::<11, P>(args, starts, row, panel),
        _ => tile::<ROWS, P>(args, starts, row, panel),
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn tile<const R: usize, const P: usize>(
    args: &mut GemmI8Args<'_>,
    starts: &[usize],
    row: usize,
    panel: usize,
) {
    let groups = args.groups;
    let acc_start = row * args.acc_stride + panel * LANES;
    let mut acc = [[_mm512_setzero_si512(); P]; R];
    if args.accumulate {
        for (r, acc) in acc.iter_mut().enumerate() {
            for (p, acc) in acc.iter_mut().enumerate() {
                let at = acc_start + r * args.acc_stride + p * LANES;
                let sums: &[i32] = &args.acc[at..at + LANES];
                // SAFETY: the slice holds the 16 values that are read.
                *acc = unsafe { _mm512_loadu_epi32(sums.as_ptr()) };
            }
        }
    }
    // `wrapping_add` only computes addresses; every one that is read lies inside its slice, because
    // `check` has asserted that the last group of the last row, line and panel does.
    // Weights are read once: what comes next is on its way while these are used. The CPU looks ahead by itself only to the
    // end of a page.
    let ahead = match P * args.weights_stride {
        next if next <= NEXT_BYTES_MAX => next,
        _ => SOON_BYTES,
    };
    let mut weights = args.weights.as_ptr().wrapping_add(panel * args.weights_stride);
    for start in starts {
        let act = args.act.as_ptr().wrapping_add(start + row * args.act_stride);
        for group in 0..groups {
            let mut weight = [_mm512_setzero_si512(); P];
            for (p, weight) in weight.iter_mut().enumerate() {
                let at = weights.wrapping_add(p * args.weights_stride + group * LINE);
                // SAFETY: groups of panels `panel..panel + P` are inside the slice by `check`.
                *weight = unsafe { _mm512_loadu_epi8(at) };
                _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(ahead));
            }
            for (r, acc) in acc.iter_mut().enumerate() {
                let at = act.wrapping_add(r * args.act_stride + group * 4).cast::<i32>();
                // SAFETY: groups of rows `row..row + R` are inside the slice by `check`.
                let four = unsafe { at.read_unaligned() };
                let act = _mm512_set1_epi32(four);
                for (acc, weight) in acc.iter_mut().zip(weight) {
                    *acc = _mm512_dpbusd_epi32(*acc, act, weight);
                }
            }
        }
        weights = weights.wrapping_add(groups * LINE);
    }
    for (r, acc) in acc.into_iter().enumerate() {
        for (p, acc) in acc.into_iter().enumerate() {
            let at = acc_start + r * args.acc_stride + p * LANES;
            let sums: &mut [i32] = &mut args.acc[at..at + LANES];
            // SAFETY: the slice holds the 16 values that are written.
            unsafe { _mm512_storeu_epi32(sums.as_mut_ptr(), acc) };
        }
    }
}
