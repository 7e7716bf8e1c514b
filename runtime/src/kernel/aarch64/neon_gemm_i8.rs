//! The int8 product on plain NEON: two groups' products summed in 16 bits, then pairs in 32.

use std::arch::aarch64::*;
use std::arch::asm;

use super::super::{GemmI8, GemmI8Args, LANES, each_line};

/// Up to 2 rows by 1 panel: 16 sums of pairs in 32 registers.
///
/// Values are at most 127, so two products are at most 32258 and 16 bits hold them.
pub const GEMM_I8: GemmI8 = GemmI8 {
    name: "neon_gemm_i8_2x1",
    act_offset: 0,
    tile_rows: 2,
    tile_panels: 1,
    macs_alone: 64 << 10,
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

/// Four activations, four times; `$at` moves on to the next four.
macro_rules! four {
    ($at:expr) => {{
        let four: int8x16_t;
        // SAFETY: the caller says why four bytes may be read at `$at`; `ld1r` writes registers only.
        unsafe {
            asm!("ld1r {{{four:v}.4s}}, [{at}], #4", four = out(vreg) four, at = inout(reg) $at,
                options(readonly, nostack, preserves_flags))
        };
        four
    }};
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

/// Adds the products of two registers of weights with the activations of one row. The compiler would take the upper halves out of
/// the weights first, and move sums about between the turns.
macro_rules! one_row {
    ($a:expr, $b:expr, $acc:expr, $first:expr, $second:expr) => {{
        let [low, high] = $acc;
        // SAFETY: registers are read and written; every aarch64 has the instructions.
        unsafe {
            asm!(
                "smull {p:v}.8h, {a:v}.8b, {x:v}.8b",
                "smull2 {q:v}.8h, {a:v}.16b, {x:v}.16b",
                "smlal {p:v}.8h, {b:v}.8b, {y:v}.8b",
                "smlal2 {q:v}.8h, {b:v}.16b, {y:v}.16b",
                "sadalp {low:v}.4s, {p:v}.8h",
                "sadalp {high:v}.4s, {q:v}.8h",
                p = out(vreg) _, q = out(vreg) _, low = inout(vreg) *low, high = inout(vreg) *high,
                a = in(vreg) $a, b = in(vreg) $b, x = in(vreg) $first, y = in(vreg) $second,
                options(pure, nomem, nostack, preserves_flags)
            )
        }
    }};
}

/// As `one_row` for two rows, so that no instruction waits for the one before it.
macro_rules! two_rows {
    ($a:expr, $b:expr, $acc:expr, $first:expr, $second:expr) => {{
        let ([low0, high0], [low1, high1]) = $acc;
        // SAFETY: registers are read and written; every aarch64 has the instructions.
        unsafe {
            asm!(
                "smull {p:v}.8h, {a:v}.8b, {x0:v}.8b",
                "smull2 {q:v}.8h, {a:v}.16b, {x0:v}.16b",
                "smull {r:v}.8h, {a:v}.8b, {x1:v}.8b",
                "smull2 {s:v}.8h, {a:v}.16b, {x1:v}.16b",
                "smlal {p:v}.8h, {b:v}.8b, {y0:v}.8b",
                "smlal2 {q:v}.8h, {b:v}.16b, {y0:v}.16b",
                "smlal {r:v}.8h, {b:v}.8b, {y1:v}.8b",
                "smlal2 {s:v}.8h, {b:v}.16b, {y1:v}.16b",
                "sadalp {low0:v}.4s, {p:v}.8h",
                "sadalp {high0:v}.4s, {q:v}.8h",
                "sadalp {low1:v}.4s, {r:v}.8h",
                "sadalp {high1:v}.4s, {s:v}.8h",
                p = out(vreg) _, q = out(vreg) _, r = out(vreg) _, s = out(vreg) _,
                low0 = inout(vreg) *low0, high0 = inout(vreg) *high0,
                low1 = inout(vreg) *low1, high1 = inout(vreg) *high1,
                a = in(vreg) $a, b = in(vreg) $b,
                x0 = in(vreg) $first[0], y0 = in(vreg) $second[0],
                x1 = in(vreg) $first[1], y1 = in(vreg) $second[1],
                options(pure, nomem, nostack, preserves_flags)
            )
        }
    }};
}

#[target_feature(enable = "neon")]
fn tile<const R: usize>(args: &mut GemmI8Args<'_>, row: usize, panel: usize) {
    // `wrapping_add` only computes addresses; every one that is read lies inside its slice, because
    // `check` has asserted that the last group of the last row and panel does.
    let mut act: [*const u8; R] =
        std::array::from_fn(|r| args.act.as_ptr().wrapping_add((row + r) * args.act_stride));
    let mut weights = args.weights.as_ptr().wrapping_add(panel * args.weights_stride);
    // acc[i][r][0] holds pairs of lanes 4 i and 4 i + 1 of row r, acc[i][r][1] of the next two.
    let mut acc = [[[vdupq_n_s32(0); 2]; R]; 4];
    for _ in 0..args.groups / 2 {
        let mut first = [vdupq_n_s8(0); R];
        let mut second = first;
        for r in 0..R {
            // Two groups of row `row + r` are inside the slice by `check`.
            first[r] = four!(act[r]);
            second[r] = four!(act[r]);
        }
        for (i, acc) in acc.iter_mut().enumerate() {
            // SAFETY: two groups of the panel are inside the slice by `check`.
            let a = unsafe { load(weights.wrapping_add(16 * i)) };
            // SAFETY: as above.
            let b = unsafe { load(weights.wrapping_add(LINE + 16 * i)) };
            match &mut acc[..] {
                [one] => one_row!(a, b, one, first[0], second[0]),
                [one, two] => two_rows!(a, b, (one, two), first, second),
                _ => unreachable!("tiles have one row or two"),
            }
        }
        weights = weights.wrapping_add(2 * LINE);
    }
    if args.groups % 2 == 1 {
        let none = vdupq_n_s8(0);
        for (r, at) in act.iter_mut().enumerate() {
            // The last group of row `row + r` is inside the slice by `check`.
            let act = four!(*at);
            for (i, acc) in acc.iter_mut().enumerate() {
                // SAFETY: the last group of the panel is inside the slice by `check`.
                let a = unsafe { load(weights.wrapping_add(16 * i)) };
                one_row!(a, none, &mut acc[r], act, none);
            }
        }
    }
    for r in 0..R {
        let at = (row + r) * args.acc_stride + panel * LANES;
        let sums: &mut [i32] = &mut args.acc[at..at + LANES];
        for (acc, four) in acc.iter().zip(sums.chunks_exact_mut(4)) {
            let mut sum = vpaddq_s32(acc[r][0], acc[r][1]);
            if args.accumulate {
                // SAFETY: the chunk holds the 4 values that are read.
                sum = vaddq_s32(sum, unsafe { vld1q_s32(four.as_ptr()) });
            }
            // SAFETY: the chunk holds the 4 values that are written.
            unsafe { vst1q_s32(four.as_mut_ptr(), sum) };
        }
    }
}
