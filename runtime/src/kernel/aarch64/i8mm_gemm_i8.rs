//! The int8 product with `smmla`: two rows by two outputs by eight k in one instruction.

use std::arch::aarch64::*;
use std::arch::asm;
use std::mem::MaybeUninit;

use super::super::{GemmI8, GemmI8Args, LANES, each_line};
use super::dotprod_gemm_i8;

/// Up to 3 pairs of rows by 1 panel: 24 sums, 3 activations and some weights in 32 registers.
///
/// `smmla` wants eight k of an output together, a panel has four: two groups at a time are zipped once for all rows of a call.
pub const GEMM_I8: GemmI8 = GemmI8 {
    name: "i8mm_gemm_i8_6x1",
    act_offset: 0,
    tile_rows: 2 * PAIRS,
    tile_panels: 1,
    macs_alone: 512 << 10,
    run,
    run_lines,
};

/// Most pairs of rows of a turn.
const PAIRS: usize = 3;
/// Bytes of one group of a panel.
const LINE: usize = 64;
/// Groups that are zipped at a time: 8 KiB of weights, which stay in the first-level cache.
const GROUPS: usize = 128;

fn run(args: GemmI8Args<'_>) {
    if args.rows == 1 {
        // Half of what `smmla` does would be lost.
        return (dotprod_gemm_i8::GEMM_I8.run)(args);
    }
    // SAFETY: this function is reached only through a table that is offered where the CPU has the features.
    unsafe { enabled(args) }
}

fn run_lines(args: GemmI8Args<'_>, starts: &[usize]) {
    each_line(run, args, starts);
}

#[target_feature(enable = "neon,i8mm")]
fn enabled(mut args: GemmI8Args<'_>) {
    args.check(&[0]);
    let mut zipped = Zipped(MaybeUninit::uninit());
    let pairs = args.rows.div_ceil(2);
    // Turns of nearly equal height.
    let turns = pairs.div_ceil(PAIRS);
    for panel in 0..args.panels {
        let mut group = 0;
        // Without any groups there is one turn too: it writes the zeros.
        while group == 0 || group < args.groups {
            let groups = group..args.groups.min(group + GROUPS);
            let weights = &args.weights[panel * args.weights_stride + group * LINE..];
            zipped.fill(&weights[..groups.len() * LINE]);
            let mut pair = 0;
            for turn in 0..turns {
                let end = pairs * (turn + 1) / turns;
                let part = Part { row: 2 * pair, panel, groups: groups.clone() };
                match end - pair {
                    1 => tile::<1>(&mut args, &part, &zipped),
                    2 => tile::<2>(&mut args, &part, &zipped),
                    _ => tile::<PAIRS>(&mut args, &part, &zipped),
                }
                pair = end;
            }
            group += GROUPS;
        }
    }
}

/// Weights of some groups of a panel, eight k of an output together.
#[repr(align(64))]
struct Zipped(MaybeUninit<[i8; GROUPS * LINE]>);

impl Zipped {
    /// Zips pairs of groups; behind the last one, if it has none beside it, come zeros.
    #[target_feature(enable = "neon")]
    fn fill(&mut self, weights: &[i8]) {
        assert!(weights.len() <= GROUPS * LINE, "more groups than are zipped at a time");
        let out = self.0.as_mut_ptr().cast::<i8>();
        for (pair, groups) in weights.chunks(2 * LINE).enumerate() {
            let (first, second) = groups.split_at(LINE);
            for i in 0..4 {
                let at = first.as_ptr().wrapping_add(16 * i);
                // SAFETY: a group has 64 bytes.
                let first = vreinterpretq_s32_s8(unsafe { vld1q_s8(at) });
                let second = if second.is_empty() {
                    vdupq_n_s32(0)
                } else {
                    let at = second.as_ptr().wrapping_add(16 * i);
                    // SAFETY: as above.
                    vreinterpretq_s32_s8(unsafe { vld1q_s8(at) })
                };
                let low = vreinterpretq_s8_s32(vzip1q_s32(first, second));
                let high = vreinterpretq_s8_s32(vzip2q_s32(first, second));
                let at = out.wrapping_add(2 * LINE * pair + 32 * i);
                // SAFETY: pairs of groups, rounded up, have room, because their number is even.
                unsafe { vst1q_s8(at, low) };
                // SAFETY: as above.
                unsafe { vst1q_s8(at.wrapping_add(16), high) };
            }
        }
    }
}

/// Where a turn is.
struct Part {
    row: usize,
    panel: usize,
    groups: std::ops::Range<usize>,
}

/// Eight activations of two rows; both addresses move on to the next eight.
macro_rules! two_rows {
    ($act:expr) => {{
        let pair: int8x16_t;
        let [first, second] = $act;
        // SAFETY: the caller says why eight bytes may be read at both; the loads write registers only.
        unsafe {
            asm!("ldr {pair:d}, [{first}], #8", "ld1 {{{pair:v}.d}}[1], [{second}], #8",
                pair = out(vreg) pair, first = inout(reg) *first, second = inout(reg) *second,
                options(readonly, nostack, preserves_flags))
        };
        pair
    }};
}

/// Adds two rows by two outputs of eight k.
macro_rules! products {
    ($acc:expr, $rows:expr, $outputs:expr) => {
        // SAFETY: `smmla` reads and writes registers; the enclosing function enables it.
        unsafe {
            asm!("smmla {acc:v}.4s, {rows:v}.16b, {outputs:v}.16b",
                acc = inout(vreg) $acc, rows = in(vreg) $rows, outputs = in(vreg) $outputs,
                options(pure, nomem, nostack, preserves_flags))
        }
    };
}

/// `P` pairs of rows; the last pair may lack its second row.
#[target_feature(enable = "neon,i8mm")]
fn tile<const P: usize>(args: &mut GemmI8Args<'_>, part: &Part, zipped: &Zipped) {
    let Part { row, panel, groups } = part;
    let rows = (args.rows - row).min(2 * P);
    // `wrapping_add` only computes addresses; every one that is read lies inside its slice, because
    // `check` has asserted that the last group of the last row does.
    let mut act: [[*const u8; 2]; P] = std::array::from_fn(|p| {
        // A row that is missing is read as the one before it, and not stored.
        [2 * p, (2 * p + 1).min(rows - 1)]
            .map(|r| args.act.as_ptr().wrapping_add((row + r) * args.act_stride + 4 * groups.start))
    });
    let mut weights = zipped.0.as_ptr().cast::<i8>();
    // acc[p][c] holds rows 2 p and 2 p + 1 by lanes 2 c and 2 c + 1.
    let mut acc = [[vdupq_n_s32(0); 8]; P];
    for _ in 0..groups.len() / 2 {
        let mut pairs = [vdupq_n_s8(0); P];
        for (pair, act) in pairs.iter_mut().zip(&mut act) {
            // Two groups of both rows are inside the slice by `check`.
            let [first, second] = act;
            *pair = two_rows!([first, second]);
        }
        for c in 0..8 {
            // SAFETY: `fill` has written this pair of groups.
            let outputs = unsafe { vld1q_s8(weights.wrapping_add(16 * c)) };
            for (acc, pair) in acc.iter_mut().zip(pairs) {
                products!(acc[c], pair, outputs);
            }
        }
        weights = weights.wrapping_add(2 * LINE);
    }
    if groups.len() % 2 == 1 {
        for (acc, act) in acc.iter_mut().zip(act) {
            let last = act.map(|at| {
                // SAFETY: the last group of both rows is inside the slice by `check`.
                u64::from(unsafe { at.cast::<u32>().read_unaligned() })
            });
            let pair = vcombine_u64(vcreate_u64(last[0]), vcreate_u64(last[1]));
            for (c, acc) in acc.iter_mut().enumerate() {
                // SAFETY: `fill` has written the last group, with zeros beside it.
                let outputs = unsafe { vld1q_s8(weights.wrapping_add(16 * c)) };
                products!(*acc, pair, outputs);
            }
        }
    }
    let accumulate = args.accumulate || groups.start > 0;
    for (p, acc) in acc.into_iter().enumerate() {
        for half in 0..2.min(rows - 2 * p) {
            let at = (row + 2 * p + half) * args.acc_stride + panel * LANES;
            let sums: &mut [i32] = &mut args.acc[at..at + LANES];
            for (i, four) in sums.chunks_exact_mut(4).enumerate() {
                let low = vreinterpretq_s64_s32(acc[2 * i]);
                let high = vreinterpretq_s64_s32(acc[2 * i + 1]);
                let pairs = if half == 0 { vtrn1q_s64(low, high) } else { vtrn2q_s64(low, high) };
                let mut sum = vreinterpretq_s32_s64(pairs);
                if accumulate {
                    // SAFETY: the chunk holds the 4 values that are read.
                    sum = vaddq_s32(sum, unsafe { vld1q_s32(four.as_ptr()) });
                }
                // SAFETY: the chunk holds the 4 values that are written.
                unsafe { vst1q_s32(four.as_mut_ptr(), sum) };
            }
        }
    }
}
