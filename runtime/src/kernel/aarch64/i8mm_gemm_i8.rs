//! The int8 product with `smmla`: two rows by two outputs by eight k in one instruction.

use std::arch::aarch64::*;
use std::arch::asm;

use super::super::{GemmI8, GemmI8Args, LANES, each_line};

/// Up to 3 pairs of rows by 1 panel: 24 sums, 3 activations, and two groups of weights zipped into one of pairs.
pub const GEMM_I8: GemmI8 = GemmI8 {
    name: "i8mm_gemm_i8_6x1",
    act_offset: 0,
    tile_rows: 6,
    tile_panels: 1,
    run,
    run_lines,
};

/// Bytes of one group of a panel.
const LINE: usize = 64;

fn run(args: GemmI8Args<'_>) {
    // SAFETY: this function is reached only through a table that is offered where the CPU has the features.
    unsafe { enabled(args) }
}

fn run_lines(args: GemmI8Args<'_>, starts: &[usize]) {
    each_line(run, args, starts);
}

#[target_feature(enable = "neon,i8mm")]
fn enabled(mut args: GemmI8Args<'_>) {
    args.check(&[0]);
    for panel in 0..args.panels {
        let mut row = 0;
        while row < args.rows {
            match args.rows - row {
                1 | 2 => tile::<1>(&mut args, row, panel),
                3 | 4 => tile::<2>(&mut args, row, panel),
                _ => tile::<3>(&mut args, row, panel),
            }
            row += 6;
        }
    }
}

/// Eight activations; only the first four are read, the others 0, if one group is left.
///
/// # Safety
/// `at` points to 8 bytes (4 if not `both`) that may be read.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn eight(at: *const u8, both: bool) -> u64 {
    if both {
        // SAFETY: the caller's promise.
        unsafe { at.cast::<u64>().read_unaligned() }
    } else {
        // SAFETY: the caller's promise.
        let four = unsafe { at.cast::<u32>().read_unaligned() };
        u64::from(four)
    }
}

/// `P` pairs of rows; the last pair may lack its second row.
#[target_feature(enable = "neon,i8mm")]
fn tile<const P: usize>(args: &mut GemmI8Args<'_>, row: usize, panel: usize) {
    let rows = (args.rows - row).min(2 * P);
    // `wrapping_add` only computes addresses; every one that is read lies inside its slice, because
    // `check` has asserted that the last group of the last row and panel does.
    let weights = args.weights.as_ptr().wrapping_add(panel * args.weights_stride);
    let mut act = [[std::ptr::null(); 2]; P];
    for (p, act) in act.iter_mut().enumerate() {
        // A row that is missing is read as the one before it, and not stored.
        let second = (2 * p + 1).min(rows - 1);
        act[0] = args.act.as_ptr().wrapping_add((row + 2 * p) * args.act_stride);
        act[1] = args.act.as_ptr().wrapping_add((row + second) * args.act_stride);
    }
    // acc[p][c] holds rows 2 p and 2 p + 1 by lanes 2 c and 2 c + 1.
    let mut acc = [[vdupq_n_s32(0); 8]; P];
    let mut group = 0;
    while group < args.groups {
        let both = group + 2 <= args.groups;
        let mut pairs = [vdupq_n_u64(0); P];
        for (pair, act) in pairs.iter_mut().zip(act) {
            // SAFETY: groups `group` (and the next if `both`) of the row are inside the slice by `check`.
            let first = unsafe { eight(act[0].wrapping_add(4 * group), both) };
            // SAFETY: as above.
            let second = unsafe { eight(act[1].wrapping_add(4 * group), both) };
            *pair = vcombine_u64(vcreate_u64(first), vcreate_u64(second));
        }
        for i in 0..4 {
            let at = weights.wrapping_add(group * LINE + 16 * i);
            // SAFETY: the group is inside the slice by `check`.
            let first = unsafe { vld1q_s8(at) };
            let second = if both {
                // SAFETY: the next group is inside the slice by `check`.
                unsafe { vld1q_s8(at.wrapping_add(LINE)) }
            } else {
                vdupq_n_s8(0)
            };
            let (first, second) = (vreinterpretq_s32_s8(first), vreinterpretq_s32_s8(second));
            let (low, high) = (vzip1q_s32(first, second), vzip2q_s32(first, second));
            for (acc, pair) in acc.iter_mut().zip(pairs) {
                // SAFETY: `smmla` reads and writes registers; the enclosing function enables it.
                unsafe {
                    asm!("smmla {acc:v}.4s, {rows:v}.16b, {outputs:v}.16b",
                        acc = inout(vreg) acc[2 * i], rows = in(vreg) pair, outputs = in(vreg) low,
                        options(pure, nomem, nostack, preserves_flags));
                }
                // SAFETY: as above.
                unsafe {
                    asm!("smmla {acc:v}.4s, {rows:v}.16b, {outputs:v}.16b",
                        acc = inout(vreg) acc[2 * i + 1], rows = in(vreg) pair, outputs = in(vreg) high,
                        options(pure, nomem, nostack, preserves_flags));
                }
            }
        }
        group += 2;
    }
    for (p, acc) in acc.into_iter().enumerate() {
        for half in 0..2 {
            let r = 2 * p + half;
            if r >= rows {
                continue;
            }
            let at = (row + r) * args.acc_stride + panel * LANES;
            let sums: &mut [i32] = &mut args.acc[at..at + LANES];
            for (i, four) in sums.chunks_exact_mut(4).enumerate() {
                let low = vreinterpretq_s64_s32(acc[2 * i]);
                let high = vreinterpretq_s64_s32(acc[2 * i + 1]);
                let pairs = if half == 0 { vtrn1q_s64(low, high) } else { vtrn2q_s64(low, high) };
                let mut sum = vreinterpretq_s32_s64(pairs);
                if args.accumulate {
                    // SAFETY: the chunk holds the 4 values that are read.
                    sum = vaddq_s32(sum, unsafe { vld1q_s32(four.as_ptr()) });
                }
                // SAFETY: the chunk holds the 4 values that are written.
                unsafe { vst1q_s32(four.as_mut_ptr(), sum) };
            }
        }
    }
}
