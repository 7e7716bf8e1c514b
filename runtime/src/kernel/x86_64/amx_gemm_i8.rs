//! The int8 product on AMX: a tile register holds 16 rows of 64 bytes, and sixteen groups of a panel are one such
//! tile as they lie in memory.
//!
//! Activations are u8 of `q + 128`, as for the VNNI product, which takes what fills no tile: few rows, and groups
//! that no whole number of equal tiles covers. Tiles are configured and released within a call, so that nothing
//! depends on who else uses them on this thread, and a thread that waits carries no tile state.

use std::arch::asm;
use std::mem::offset_of;

use super::super::{GemmI8, GemmI8Args, LANES, each_line};
use super::avx512_gemm_i8;

/// Two tiles of rows by 2 panels, or one by 4: four tiles of sums, whose chains hide the multiplier's latency.
pub const GEMM_I8: GemmI8 = GemmI8 {
    name: "amx_gemm_i8_32x2",
    act_offset: avx512_gemm_i8::GEMM_I8.act_offset,
    tile_rows: 2 * TILE_ROWS,
    tile_panels: 4,
    macs_alone: 4 << 20,
    run,
    run_lines,
};

/// Rows of a tile register.
const TILE_ROWS: usize = 16;
/// Groups of a full tile: 64 bytes of each row.
const TILE_GROUPS: usize = 16;
/// Bytes of one group of a panel.
const LINE: usize = 64;
/// With fewer rows VNNI is as fast.
const ROWS_MIN: usize = 4;
/// With fewer products of full tiles in a call, configuring them costs more than they save.
const PRODUCTS_MIN: usize = 4;

/// What `ldtilecfg` reads.
#[repr(C, align(64))]
struct Config {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

/// The shape of a block: rows of its tiles (the second may have none) and groups of a step.
#[derive(Clone, Copy, PartialEq)]
struct Shape {
    rows: [usize; 2],
    groups: usize,
}

impl Config {
    /// Tiles 0..4 hold sums; 4 and, with two tiles of rows, 5 activations; the others weights.
    fn new(shape: &Shape) -> Self {
        let Shape { rows: [first, second], groups } = *shape;
        let two = second > 0;
        let lower = if two { second } else { first };
        let mut rows = [0; 16];
        let mut row_bytes = [0; 16];
        let tiles = [
            (first, LINE),
            (first, LINE),
            (lower, LINE),
            (lower, LINE),
            (first, 4 * groups),
            if two { (second, 4 * groups) } else { (groups, LINE) },
            (groups, LINE),
            (groups, LINE),
        ];
        for (tile, (count, bytes)) in tiles.into_iter().enumerate() {
            (rows[tile], row_bytes[tile]) = (count as u8, bytes as u16);
        }
        Config { palette: 1, start_row: 0, reserved: [0; 14], row_bytes, rows }
    }

    fn load(&self) {
        // SAFETY: this is reached only where the CPU has tiles and the system lets the process use them; the
        // operand is 64 bytes with reserved bytes of 0, 8 tiles of at most 16 rows of at most 64 bytes.
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) self, options(nostack, readonly));
        }
    }
}

/// Frees the tiles, so that the system has none to save when the thread is set aside.
fn release() {
    // SAFETY: the CPU has tiles, and no block is under way.
    unsafe {
        asm!("tilerelease", options(nostack, nomem));
    }
}

/// How to cover the groups of k: equal steps, and what is left for VNNI.
///
/// Returns groups of a step and steps.
fn steps(groups: usize) -> (usize, usize) {
    let least = groups.div_ceil(TILE_GROUPS);
    match (least..=least + least / 2).find(|&steps| groups.is_multiple_of(steps)) {
        Some(steps) => (groups / steps, steps),
        None => (TILE_GROUPS, groups / TILE_GROUPS),
    }
}

fn run(args: GemmI8Args<'_>) {
    run_lines(args, &[0]);
}

fn run_lines(mut args: GemmI8Args<'_>, starts: &[usize]) {
    args.check(starts);
    let work = args.rows * args.panels * args.groups * starts.len();
    if args.rows < ROWS_MIN || work < PRODUCTS_MIN * TILE_ROWS * TILE_GROUPS {
        return (avx512_gemm_i8::GEMM_I8.run_lines)(args, starts);
    }
    let (groups, steps) = steps(args.groups);
    let done = groups * steps;
    if done < args.groups && starts.len() > 1 {
        return each_line(run, args, starts);
    }
    let blocks = args.rows.div_ceil(2 * TILE_ROWS);
    let mut configured = None;
    let mut row = 0;
    for index in 0..blocks {
        let end = args.rows * (index + 1) / blocks;
        let rows = end - row;
        let first = if rows > TILE_ROWS { rows.div_ceil(2) } else { rows };
        let shape = Shape { rows: [first, rows - first], groups };
        if configured != Some(shape) {
            Config::new(&shape).load();
            configured = Some(shape);
        }
        let mut panel = 0;
        while panel < args.panels {
            let left = args.panels - panel;
            let block = Block::new(&mut args, starts, &shape, steps, row, panel);
            panel += match (shape.rows[1], left) {
                (0, 4..) => block.one_by_four(),
                (0, 2..) => block.one_by_two(),
                (0, _) => block.one_by_one(),
                (_, 2..) => block.two_by_two(),
                (_, _) => block.two_by_one(),
            };
        }
        row = end;
    }
    release();
    if done < args.groups {
        (avx512_gemm_i8::GEMM_I8.run)(GemmI8Args {
            act: &args.act[starts[0] + 4 * done..],
            weights: &args.weights[LINE * done..],
            groups: args.groups - done,
            accumulate: true,
            ..args
        });
    }
}

/// Addresses and strides of one block; its loop reads some of them here.
#[repr(C)]
struct Block<'a> {
    /// The first row's activations, before a line's start is added.
    act: *const u8,
    /// Bytes from there to those of the first row of the second tile; the loop finds it behind `act`.
    act_second: usize,
    /// Bytes that a step moves on in each row.
    act_step: usize,
    /// Bytes that a step moves on in each panel.
    weights_step: usize,
    /// Of each line.
    steps: usize,
    starts_end: *const usize,
    /// Not 0 if tiles of sums are loaded.
    accumulate: usize,
    starts: &'a [usize],
    act_stride: usize,
    weights: *const i8,
    weights_stride: usize,
    /// Sums of the first row, and of the first row of the second tile.
    acc: [*mut i32; 2],
    acc_stride_bytes: usize,
}

/// The loop of a block: clears or loads its tiles of sums, adds all steps of all lines to them, stores them.
///
/// Operands: `a0`, `a1` rows of activations, `b0`.. panels, `c0`, `c1` rows of sums; the sums of a row's next panel
/// are 64 bytes on.
macro_rules! block {
    (
        $block:expr;
        load $($load:literal)*;
        line $($line:literal)*;
        step $($step:literal)*;
        store $($store:literal)*;
        $($name:ident = $value:expr),*
    ) => {{
        let block: &Block<'_> = $block;
        // SAFETY: the tiles are configured for the block's shape, there is a line at least and a step in each, and
        // `GemmI8Args::check` has asserted that every row of activations, group of a panel and row of sums that they
        // cover lies inside its slice, of which the sums' is borrowed exclusively.
        unsafe {
            asm!(
                "tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3",
                "cmp qword ptr [{block} + {accumulate}], 0",
                "je 2f",
                $($load,)*
                "2:",
                "mov {a0}, [{starts}]",
                "add {a0}, [{block} + {act}]",
                $($line,)*
                "mov {steps}, [{block} + {steps_of_line}]",
                "3:",
                $($step,)*
                "add {a0}, [{block} + {act_step}]",
                "dec {steps}",
                "jnz 3b",
                "add {starts}, 8",
                "cmp {starts}, [{block} + {starts_end}]",
                "jne 2b",
                $($store,)*
                block = in(reg) block,
                act = const offset_of!(Block<'_>, act),
                act_step = const offset_of!(Block<'_>, act_step),
                weights_step = const offset_of!(Block<'_>, weights_step),
                steps_of_line = const offset_of!(Block<'_>, steps),
                starts_end = const offset_of!(Block<'_>, starts_end),
                accumulate = const offset_of!(Block<'_>, accumulate),
                starts = inout(reg) block.starts.as_ptr() => _,
                a0 = out(reg) _,
                act_stride = in(reg) block.act_stride,
                line = in(reg) LINE,
                c0 = in(reg) block.acc[0],
                acc_stride = in(reg) block.acc_stride_bytes,
                steps = out(reg) _,
                $($name = inout(reg) $value => _,)*
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack),
            );
        }
    }};
}

impl<'a> Block<'a> {
    fn new(
        args: &mut GemmI8Args<'_>,
        starts: &'a [usize],
        shape: &Shape,
        steps: usize,
        row: usize,
        panel: usize,
    ) -> Self {
        // `wrapping_add` only computes addresses.
        let acc = args.acc.as_mut_ptr().wrapping_add(row * args.acc_stride + panel * LANES);
        Block {
            act: args.act.as_ptr().wrapping_add(row * args.act_stride),
            act_second: shape.rows[0] * args.act_stride,
            act_step: 4 * shape.groups,
            weights_step: LINE * shape.groups,
            steps,
            starts_end: starts.as_ptr_range().end,
            accumulate: args.accumulate.into(),
            starts,
            act_stride: args.act_stride,
            weights: args.weights.as_ptr().wrapping_add(panel * args.weights_stride),
            weights_stride: args.weights_stride,
            acc: [acc, acc.wrapping_add(shape.rows[0] * args.acc_stride)],
            acc_stride_bytes: args.acc_stride * size_of::<i32>(),
        }
    }

    fn panel(&self, index: usize) -> *const i8 {
        self.weights.wrapping_add(index * self.weights_stride)
    }

    fn two_by_two(&self) -> usize {
        block!(
            self;
            load "tileloadd tmm0, [{c0} + {acc_stride}]" "tileloadd tmm1, [{c0} + {acc_stride} + 64]"
                "tileloadd tmm2, [{c1} + {acc_stride}]" "tileloadd tmm3, [{c1} + {acc_stride} + 64]";
            line "mov {a1}, {a0}" "add {a1}, [{block} + {act} + 8]";
            step "tileloadd tmm4, [{a0} + {act_stride}]" "tileloadd tmm6, [{b0} + {line}]"
                "tileloadd tmm7, [{b1} + {line}]" "tileloadd tmm5, [{a1} + {act_stride}]"
                "tdpbusd tmm0, tmm4, tmm6" "tdpbusd tmm1, tmm4, tmm7"
                "tdpbusd tmm2, tmm5, tmm6" "tdpbusd tmm3, tmm5, tmm7"
                "add {a1}, [{block} + {act_step}]" "add {b0}, [{block} + {weights_step}]" "add {b1}, [{block} + {weights_step}]";
            store "tilestored [{c0} + {acc_stride}], tmm0" "tilestored [{c0} + {acc_stride} + 64], tmm1"
                "tilestored [{c1} + {acc_stride}], tmm2" "tilestored [{c1} + {acc_stride} + 64], tmm3";
            a1 = self.act, b0 = self.panel(0), b1 = self.panel(1), c1 = self.acc[1]
        );
        2
    }

    fn two_by_one(&self) -> usize {
        block!(
            self;
            load "tileloadd tmm0, [{c0} + {acc_stride}]" "tileloadd tmm2, [{c1} + {acc_stride}]";
            line "mov {a1}, {a0}" "add {a1}, [{block} + {act} + 8]";
            step "tileloadd tmm4, [{a0} + {act_stride}]" "tileloadd tmm6, [{b0} + {line}]"
                "tileloadd tmm5, [{a1} + {act_stride}]"
                "tdpbusd tmm0, tmm4, tmm6" "tdpbusd tmm2, tmm5, tmm6"
                "add {a1}, [{block} + {act_step}]" "add {b0}, [{block} + {weights_step}]";
            store "tilestored [{c0} + {acc_stride}], tmm0" "tilestored [{c1} + {acc_stride}], tmm2";
            a1 = self.act, b0 = self.panel(0), c1 = self.acc[1]
        );
        1
    }

    fn one_by_four(&self) -> usize {
        block!(
            self;
            load "tileloadd tmm0, [{c0} + {acc_stride}]" "tileloadd tmm1, [{c0} + {acc_stride} + 64]"
                "tileloadd tmm2, [{c0} + {acc_stride} + 128]" "tileloadd tmm3, [{c0} + {acc_stride} + 192]";
            line;
            step "tileloadd tmm4, [{a0} + {act_stride}]"
                "tileloadd tmm5, [{b0} + {line}]" "tdpbusd tmm0, tmm4, tmm5"
                "tileloadd tmm6, [{b1} + {line}]" "tdpbusd tmm1, tmm4, tmm6"
                "tileloadd tmm7, [{b2} + {line}]" "tdpbusd tmm2, tmm4, tmm7"
                "tileloadd tmm5, [{b3} + {line}]" "tdpbusd tmm3, tmm4, tmm5"
                "add {b0}, [{block} + {weights_step}]" "add {b1}, [{block} + {weights_step}]"
                "add {b2}, [{block} + {weights_step}]" "add {b3}, [{block} + {weights_step}]";
            store "tilestored [{c0} + {acc_stride}], tmm0" "tilestored [{c0} + {acc_stride} + 64], tmm1"
                "tilestored [{c0} + {acc_stride} + 128], tmm2" "tilestored [{c0} + {acc_stride} + 192], tmm3";
            b0 = self.panel(0), b1 = self.panel(1), b2 = self.panel(2), b3 = self.panel(3)
        );
        4
    }

    fn one_by_two(&self) -> usize {
        block!(
            self;
            load "tileloadd tmm0, [{c0} + {acc_stride}]" "tileloadd tmm1, [{c0} + {acc_stride} + 64]";
            line;
            step "tileloadd tmm4, [{a0} + {act_stride}]" "tileloadd tmm6, [{b0} + {line}]"
                "tileloadd tmm7, [{b1} + {line}]"
                "tdpbusd tmm0, tmm4, tmm6" "tdpbusd tmm1, tmm4, tmm7"
                "add {b0}, [{block} + {weights_step}]" "add {b1}, [{block} + {weights_step}]";
            store "tilestored [{c0} + {acc_stride}], tmm0" "tilestored [{c0} + {acc_stride} + 64], tmm1";
            b0 = self.panel(0), b1 = self.panel(1)
        );
        2
    }

    fn one_by_one(&self) -> usize {
        block!(
            self;
            load "tileloadd tmm0, [{c0} + {acc_stride}]";
            line;
            step "tileloadd tmm4, [{a0} + {act_stride}]" "tileloadd tmm6, [{b0} + {line}]"
                "tdpbusd tmm0, tmm4, tmm6" "add {b0}, [{block} + {weights_step}]";
            store "tilestored [{c0} + {acc_stride}], tmm0";
            b0 = self.panel(0)
        );
        1
    }
}

/// Whether the system lets this process use tiles; asking once grants it to all of its threads.
#[cfg(target_os = "linux")]
pub fn granted() -> bool {
    const ARCH_PRCTL: usize = 158;
    const ARCH_REQ_XCOMP_PERM: usize = 0x1023;
    const XFEATURE_XTILEDATA: usize = 18;
    let result: isize;
    // SAFETY: the call takes numbers only; it allows the process to use tiles, and a system that does not know it
    // answers with an error. The kernel clobbers rcx and r11.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") ARCH_PRCTL => result,
            in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") XFEATURE_XTILEDATA,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result == 0
}

/// Whether the system lets this process use tiles: none but Linux is asked.
#[cfg(not(target_os = "linux"))]
pub fn granted() -> bool {
    false
}
