//! The int8 product on plain NEON: two groups' products summed in 16 bits, then pairs in 32.

use std::arch::aarch64::*;

use super::super::{GemmI8, GemmI8Args, LANES, each_line};

/// Up to 2 rows by 1 panel: 16 sums of pairs in 32 registers.
///
/// Values are at most 127, so two products are at most 32258 and 16 bits hold them.
pub const GEMM_I8: GemmI8 = GemmI8 {
    name: "neon_gemm_i8_2x1",
    act_offset: 0,
    tile_rows: 2,
    tile_panels: 1,
    run,
    run_lines,
};

/// Bytes of one group of a panel.
const LINE: usize = 64;

fn run(args: GemmI8Args<'_>) {
    // SAFETY: this function is reached only through a table that is offered where the CPU has the feature.
    unsafe { enabled(args) }
}

fn run_lines(args: GemmI8Args<'_>, starts: &[usize]) {
    each_line(run, args, starts);
}

#[target_feature(enable = "neon")]
fn enabled(mut args: GemmI8Args<'_>) {
    args.check(&[0]);
    for panel in 0..args.panels {
        let mut row = 0;
        while row + 2 <= args.rows {
            tile::<2>(&mut args, row, panel);
            row += 2;
        }
        if row < args.rows {
            tile::<1>(&mut args, row, panel);
        }
    }
}

/// Sixteen bytes of weights.
///
/// # Safety
/// `at` points to 16 bytes that may be read.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn load(at: *const i8) -> int8x16_t {
    // SAFETY: the caller's promise.
    unsafe { vld1q_s8(at) }
}

/// Four activations, four times.
///
/// # Safety
/// `at` points to 4 bytes that may be read.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn four(at: *const u8) -> int8x16_t {
    // SAFETY: the caller's promise.
    let four = unsafe { at.cast::<i32>().read_unaligned() };
    vreinterpretq_s8_s32(vdupq_n_s32(four))
}

#[target_feature(enable = "neon")]
fn tile<const R: usize>(args: &mut GemmI8Args<'_>, row: usize, panel: usize) {
    // `wrapping_add` only computes addresses; every one that is read lies inside its slice, because
    // `check` has asserted that the last group of the last row and panel does.
    let act = args.act.as_ptr().wrapping_add(row * args.act_stride);
    let weights = args.weights.as_ptr().wrapping_add(panel * args.weights_stride);
    // acc[r][2 i] holds pairs of lanes 4 i and 4 i + 1, acc[r][2 i + 1] of the next two.
    let mut acc = [[vdupq_n_s32(0); 8]; R];
    let mut group = 0;
    while group + 2 <= args.groups {
        let mut first = [vdupq_n_s8(0); R];
        let mut second = first;
        for r in 0..R {
            let at = act.wrapping_add(r * args.act_stride + group * 4);
            // SAFETY: group `group` of row `row + r` is inside the slice by `check`.
            first[r] = unsafe { four(at) };
            // SAFETY: as above, for the next group.
            second[r] = unsafe { four(at.wrapping_add(4)) };
        }
        for i in 0..4 {
            let at = weights.wrapping_add(group * LINE + 16 * i);
            // SAFETY: group `group` of the panel is inside the slice by `check`.
            let a = unsafe { load(at) };
            // SAFETY: as above, for the next group.
            let b = unsafe { load(at.wrapping_add(LINE)) };
            for r in 0..R {
                let low = vmull_s8(vget_low_s8(a), vget_low_s8(first[r]));
                let low = vmlal_s8(low, vget_low_s8(b), vget_low_s8(second[r]));
                let high = vmull_high_s8(a, first[r]);
                let high = vmlal_high_s8(high, b, second[r]);
                acc[r][2 * i] = vpadalq_s16(acc[r][2 * i], low);
                acc[r][2 * i + 1] = vpadalq_s16(acc[r][2 * i + 1], high);
            }
        }
        group += 2;
    }
    if group < args.groups {
        for (r, acc) in acc.iter_mut().enumerate() {
            let at = act.wrapping_add(r * args.act_stride + group * 4);
            // SAFETY: the last group of row `row + r` is inside the slice by `check`.
            let act = unsafe { four(at) };
            for i in 0..4 {
                // SAFETY: the last group of the panel is inside the slice by `check`.
                let a = unsafe { load(weights.wrapping_add(group * LINE + 16 * i)) };
                acc[2 * i] = vpadalq_s16(acc[2 * i], vmull_s8(vget_low_s8(a), vget_low_s8(act)));
                acc[2 * i + 1] = vpadalq_s16(acc[2 * i + 1], vmull_high_s8(a, act));
            }
        }
    }
    for (r, acc) in acc.into_iter().enumerate() {
        let at = (row + r) * args.acc_stride + panel * LANES;
        let sums: &mut [i32] = &mut args.acc[at..at + LANES];
        for (i, four) in sums.chunks_exact_mut(4).enumerate() {
            let mut sum = vpaddq_s32(acc[2 * i], acc[2 * i + 1]);
            if args.accumulate {
                // SAFETY: the chunk holds the 4 values that are read.
                sum = vaddq_s32(sum, unsafe { vld1q_s32(four.as_ptr()) });
            }
            // SAFETY: the chunk holds the 4 values that are written.
            unsafe { vst1q_s32(four.as_mut_ptr(), sum) };
        }
    }
}
