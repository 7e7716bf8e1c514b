//! Measures this CPU's kernels against its own peak, in one run: `cargo run --release --example kernels [TABLE]`.

use std::hint::black_box;

use rustix::time::{ClockId, clock_gettime};

use half::f16;
use plantain::graph::Unary;
use plantain::kernel::{
    ATTENTION_I8_KEYS, Attention, AttentionI8, Finish, GemmF16Args, GemmI8Args, Kernels, KeyRows,
    KeyTile, Moments, Residual, Row, RowMut, Rows, RowsMut, int8_scale,
};
use plantain::pack::panel::PanelShape;
use plantain::plan::scratch::ATTENTION_I8_QUERIES;

/// Seconds that this thread has run: other work on the machine counts little.
fn now() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

/// Median seconds of one call, over a quarter of a second of calls.
fn seconds(mut call: impl FnMut()) -> f64 {
    call();
    let start = now();
    let mut times = Vec::new();
    while now() - start < 0.25 || times.len() < 5 {
        let before = now();
        call();
        times.push(now() - before);
    }
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Values on a line of their own, as the engine's scratch and a pack's tensors are.
struct Aligned<T>(Vec<T>, usize);

impl<T: Copy> Aligned<T> {
    fn new(value: T, length: usize) -> Self {
        let values = vec![value; length + 64];
        let at = values.as_ptr().align_offset(64);
        Aligned(values, at)
    }

    fn of(values: &[T]) -> Self {
        let mut aligned = Self::new(values[0], values.len());
        aligned[..values.len()].copy_from_slice(values);
        aligned
    }
}

impl<T> std::ops::Deref for Aligned<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        &self.0[self.1..]
    }
}

impl<T> std::ops::DerefMut for Aligned<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.0[self.1..]
    }
}

/// The most multiply-accumulates a second that the int8 kernel reaches: some of its turns on operands that stay in the
/// first-level cache, so that nothing but the multipliers and the loads beside them count.
fn peak_gmacs(kernels: &Kernels) -> f64 {
    let gemm = kernels.gemm_i8;
    let of = |(turns, groups): (usize, usize)| {
        let (rows, panels) = (turns * gemm.tile_rows, gemm.tile_panels);
        let act = Aligned::new(1u8, rows * groups * 4);
        let weights = Aligned::new(1i8, panels * groups * 64);
        let mut acc = Aligned::new(0, rows * panels * 16);
        let time = seconds(|| {
            for _ in 0..1000 {
                (gemm.run)(GemmI8Args {
                    act: black_box(&act),
                    act_stride: groups * 4,
                    rows,
                    weights: &weights,
                    weights_stride: groups * 64,
                    panels,
                    groups,
                    acc: &mut acc,
                    acc_stride: panels * 16,
                    accumulate: false,
                });
            }
        });
        (1000 * rows * panels * 16 * groups * 4) as f64 / time / 1e9
    };
    [(1, 128), (2, 64), (4, 32)].map(of).into_iter().fold(0.0, f64::max)
}

/// Most sums of a tile.
const TILE_VALUES: usize = 4096;

/// Rows of one tile of sums, in whole turns of the inner loop, as the engine has them.
fn tile_rows(kernels: &Kernels) -> usize {
    let gemm = kernels.gemm_i8;
    if gemm.tile_rows == 32 { 64 } else { (36 / gemm.tile_rows).max(1) * gemm.tile_rows }
}

/// An `m x k` by `k x n` product: rows quantised in blocks, then tile by tile with its epilogue.
///
/// GMAC/s of the product alone, and of the whole.
fn matmul(kernels: &Kernels, m: usize, k: usize, n: usize) -> (f64, f64) {
    let gemm = kernels.gemm_i8;
    let shape = PanelShape::matmul(n, k);
    let weights = Aligned::of(&shape.pack_i8(&vec![3; n * k]));
    let sums = shape.sums(&weights[..shape.bytes()]);
    let source = vec![f16::ONE; m * k];
    let scale = vec![0.01; shape.panels() * 16];
    let panel_bytes = shape.groups() * 64;
    let block = 192.min(m);
    let mut act = Aligned::new(0u8, block * k);
    let mut out = vec![f16::ZERO; m * n];
    let run = |only_product: bool, out: &mut [f16], act: &mut [u8]| {
        let mut acc = Aligned::new(0i32, TILE_VALUES);
        for first in (0..m).step_by(block) {
            let rows = block.min(m - first);
            for row in 0..if only_product { 0 } else { rows } {
                let source = Row::F16(&source[(first + row) * k..(first + row + 1) * k]);
                let (_, inverse) = int8_scale((kernels.max_abs)(source));
                let out = &mut act[row * k..(row + 1) * k];
                (kernels.quantise)(source, inverse, gemm.act_offset, out);
            }
            for panel in (0..shape.panels()).step_by(gemm.tile_panels) {
                let panels = gemm.tile_panels.min(shape.panels() - panel);
                let columns = panels * 16;
                for row in (0..rows).step_by(tile_rows(kernels)) {
                    let rows = tile_rows(kernels).min(rows - row);
                    (gemm.run)(GemmI8Args {
                        act: &act[row * k..],
                        act_stride: k,
                        rows,
                        weights: &weights[panel * panel_bytes..],
                        weights_stride: panel_bytes,
                        panels,
                        groups: shape.groups(),
                        acc: &mut acc,
                        acc_stride: columns,
                        accumulate: false,
                    });
                    if only_product {
                        continue;
                    }
                    let outputs = columns.min(n - panel * 16);
                    let tile = Finish {
                        rows,
                        columns: outputs,
                        stride: columns,
                        weight_scale: Some(&scale[panel * 16..]),
                        bias: Some(&scale[panel * 16..]),
                        activation: None,
                        residual: None,
                        then: None,
                    };
                    let at = (first + row) * n + panel * 16;
                    let out = RowsMut { data: RowMut::F16(&mut out[at..]), stride: n };
                    let sums = &sums[panel * 16..];
                    let offset = i32::from(gemm.act_offset);
                    (kernels.finish_i8)(&acc, sums, offset, &[0.1; 64][..rows], &tile, out);
                }
            }
        }
    };
    let macs = (m * k * n) as f64 / 1e9;
    let product = seconds(|| run(true, &mut out, &mut act));
    let whole = seconds(|| run(false, &mut out, &mut act));
    (macs / product, macs / whole)
}

/// A 3x3 convolution of `rows` output rows, windows overlapping in padded lines, one scale a kernel row.
///
/// GMAC/s of the product alone, and of the whole.
fn convolution(kernels: &Kernels, rows: usize, width: usize, channels: usize) -> (f64, f64) {
    let gemm = kernels.gemm_i8;
    let shape = PanelShape { outputs: channels, kernel_rows: 3, kernel_columns: 3, channels };
    let weights = Aligned::of(&shape.pack_i8(&vec![3; channels * 9 * channels]));
    let sums = shape.sums(&weights[..shape.bytes()]);
    let padded = shape.panels() * 16;
    let source = vec![f16::ONE; width * channels];
    let scale = vec![0.01; padded];
    let (row_bytes, panel_bytes) = (shape.groups_per_row() * 64, shape.groups() * 64);
    let line = (width + 2) * channels;
    let mut lines: Vec<_> = (0..rows + 2).map(|_| Aligned::new(gemm.act_offset, line)).collect();
    let mut out = vec![f16::ZERO; rows * width * channels];
    let run = |only_product: bool, lines: &mut [Aligned<u8>], out: &mut [f16]| {
        let mut acc = Aligned::new(0i32, TILE_VALUES);
        let mut total = Aligned::new(0f32, TILE_VALUES);
        for line in lines.iter_mut().take(if only_product { 0 } else { rows }) {
            let (_, inverse) = int8_scale((kernels.max_abs)(Row::F16(&source)));
            let line = &mut line[channels..(width + 1) * channels];
            (kernels.quantise)(Row::F16(&source), inverse, gemm.act_offset, line);
        }
        for panel in (0..shape.panels()).step_by(gemm.tile_panels) {
            let panels = gemm.tile_panels.min(shape.panels() - panel);
            let columns = panels * 16;
            for (y, x) in
                (0..rows).flat_map(|y| (0..width).step_by(tile_rows(kernels)).map(move |x| (y, x)))
            {
                let cells = tile_rows(kernels).min(width - x);
                for ky in 0..3 {
                    (gemm.run)(GemmI8Args {
                        act: &lines[y + ky][x * channels..],
                        act_stride: channels,
                        rows: cells,
                        weights: &weights[panel * panel_bytes + ky * row_bytes..],
                        weights_stride: panel_bytes,
                        panels,
                        groups: shape.groups_per_row(),
                        acc: &mut acc,
                        acc_stride: columns,
                        accumulate: false,
                    });
                    if only_product {
                        continue;
                    }
                    let sums = &sums[ky * padded + panel * 16..][..columns];
                    let offset = i32::from(gemm.act_offset);
                    let total = &mut total[..cells * columns];
                    (kernels.accumulate_i8)(&acc, sums, offset, 0.1, ky == 0, total);
                }
                if only_product {
                    continue;
                }
                let tile = Finish {
                    rows: cells,
                    columns: columns.min(channels - panel * 16),
                    stride: columns,
                    weight_scale: Some(&scale[panel * 16..]),
                    bias: Some(&scale[panel * 16..]),
                    activation: None,
                    residual: None,
                    then: None,
                };
                let at = (y * width + x) * channels + panel * 16;
                let out = RowsMut { data: RowMut::F16(&mut out[at..]), stride: channels };
                (kernels.finish_f32)(&total, &tile, out);
            }
        }
    };
    let macs = (rows * width * channels * 9 * channels) as f64 / 1e9;
    let product = seconds(|| run(true, &mut lines, &mut out));
    let whole = seconds(|| run(false, &mut lines, &mut out));
    (macs / product, macs / whole)
}

fn gemm_f16(kernels: &Kernels, m: usize, k: usize, n: usize) -> f64 {
    let act = vec![0.5f32; m * k];
    let weights = vec![f16::ONE; n * k];
    let mut acc = vec![0f32; m * n];
    let time = seconds(|| {
        (kernels.gemm_f16.run)(GemmF16Args {
            act: &act,
            act_stride: k,
            rows: m,
            weights: &weights,
            weights_stride: 16 * k,
            panels: n / 16,
            k,
            acc: &mut acc,
            acc_stride: n,
            accumulate: false,
        });
    });
    (m * k * n) as f64 / time / 1e9
}

fn attention(kernels: &Kernels, queries: usize, keys: usize, head: usize) -> f64 {
    let values: Vec<f16> =
        (0..keys.max(queries) * head).map(|i| f16::from_f32((i % 97) as f32 / 97.0)).collect();
    let rows = Rows { data: Row::F16(&values), stride: head };
    let attention = Attention {
        queries,
        keys,
        head,
        q: rows,
        k: rows,
        v: rows,
        scale: 0.1,
        mask: None,
        causal: None,
    };
    let mut scratch = vec![0.0; Attention::scratch(queries, head)];
    let mut out = vec![f16::ZERO; queries * head];
    let time = seconds(|| {
        let out = RowsMut { data: RowMut::F16(&mut out), stride: head };
        (kernels.attention)(&attention, &mut scratch, out);
    });
    (2 * queries * keys * head) as f64 / time / 1e9
}

/// With both products in int8, and the same with the quantising of keys and values.
fn attention_i8(kernels: &Kernels, queries: usize, keys: usize, head: usize) -> (f64, f64) {
    let length = keys.max(queries) * head;
    let values: Vec<f16> = (0..length).map(|i| f16::from_f32((i % 97) as f32 / 97.0)).collect();
    let rows = Rows { data: Row::F16(&values), stride: head };
    let tile_stride = KeyTile::words(head);
    let mut tiles = vec![0.0; keys.div_ceil(ATTENTION_I8_KEYS) * tile_stride];
    let quantising = seconds(|| {
        for (index, tile) in tiles.chunks_exact_mut(tile_stride).enumerate() {
            let first = index * ATTENTION_I8_KEYS;
            let data = rows.data.slice(first * head..length);
            let (k, v) = (Rows { data, ..rows }, Rows { data, ..rows });
            let keys = (keys - first).min(ATTENTION_I8_KEYS);
            let offset = kernels.gemm_i8.act_offset;
            (kernels.quantise_keys)(&KeyRows { keys, head, k, v, offset }, tile);
        }
    });
    let mut scratch = vec![0.0; AttentionI8::scratch(ATTENTION_I8_QUERIES, head)];
    let mut out = vec![f16::ZERO; queries * head];
    let time = seconds(|| {
        for first in (0..queries).step_by(ATTENTION_I8_QUERIES) {
            let attention = AttentionI8 {
                queries: (queries - first).min(ATTENTION_I8_QUERIES),
                keys,
                head,
                q: Rows { data: rows.data.slice(first * head..length), ..rows },
                tiles: &tiles,
                tile_stride,
                scale: 0.1,
                mask: None,
                causal: None,
            };
            let out = RowsMut { data: RowMut::F16(&mut out[first * head..]), stride: head };
            (kernels.attention_i8)(&attention, &kernels.gemm_i8, &mut scratch, out);
        }
    });
    let macs = (2 * queries * keys * head) as f64 / 1e9;
    (macs / time, macs / (time + quantising))
}

/// Nanoseconds a value.
fn pointwise(mut call: impl FnMut(&mut [f32])) -> f64 {
    let mut values: Vec<f32> = (0..4096).map(|i| (i % 101) as f32 / 50.0 - 1.0).collect();
    seconds(|| call(black_box(&mut values))) / 4096.0 * 1e9
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let name = std::env::args().nth(1);
    let kernels = match &name {
        Some(name) => Kernels::by_name(name)?,
        None => Kernels::chosen()?,
    };
    println!("{kernels:?}");
    let peak = peak_gmacs(kernels);
    println!("int8 peak of this core          {peak:8.1} GMAC/s");
    println!("int8 (product alone; with quantising and epilogue)");
    for (m, k, n) in [
        (4096, 320, 320),
        (4096, 320, 2560),
        (4096, 1280, 320),
        (1024, 640, 640),
        (256, 1280, 1280),
        (256, 11520, 1280),
        (16, 1280, 1280),
    ] {
        let (product, whole) = matmul(kernels, m, k, n);
        println!(
            "  matmul {m:5} x {k:5} x {n:5}    {product:8.1} GMAC/s {:3.0}%  {whole:8.1} {:3.0}%",
            100.0 * product / peak,
            100.0 * whole / peak
        );
    }
    for (rows, width, channels) in
        [(4, 64, 320), (8, 32, 640), (16, 16, 1280), (8, 8, 1280), (1, 512, 64), (4, 64, 64)]
    {
        let (product, whole) = convolution(kernels, rows, width, channels);
        println!(
            "  conv 3x3 {rows:2} rows of {width:3}, {channels:4} ch {product:7.1} GMAC/s {:3.0}%  {whole:8.1} {:3.0}%",
            100.0 * product / peak,
            100.0 * whole / peak
        );
    }
    println!("float");
    for (m, k, n) in [(96, 320, 320), (96, 2880, 320), (1, 1280, 1280)] {
        println!("  gemm_f16 {m:4} x {k:4} x {n:4}    {:8.1} GMAC/s", gemm_f16(kernels, m, k, n));
    }
    for (queries, keys, head) in [
        (64, 4096, 40),
        (128, 4096, 40),
        (128, 1024, 80),
        (64, 77, 40),
        (64, 256, 160),
        (64, 64, 64),
    ] {
        let (int8, whole) = attention_i8(kernels, queries, keys, head);
        println!(
            "  attention {queries:4} by {keys:4}, head {head:3} {:8.1} GMAC/s; in int8 {int8:8.1}, {whole:8.1} with quantising",
            attention(kernels, queries, keys, head)
        );
    }
    for function in [Unary::Silu, Unary::Gelu, Unary::GeluTanh, Unary::Exp, Unary::Tanh] {
        println!(
            "  {function:?} {:.3} ns a value",
            pointwise(|values| (kernels.unary)(function, values))
        );
    }
    let (gamma, mut scratch, mut moments) =
        (vec![0.5; 4096], vec![0.0; 320], [Moments::default(); 32]);
    println!("  softmax {:.3} ns a value", pointwise(|values| (kernels.softmax)(values)));
    println!(
        "  layer_norm {:.3} ns a value",
        pointwise(|values| (kernels.layer_norm)(values, &gamma, None, 1e-5))
    );
    println!(
        "  group_moments {:.3} ns a value",
        pointwise(|values| (kernels.group_moments)(
            &values[..3840],
            320,
            &mut scratch,
            &mut moments
        ))
    );
    println!(
        "  scale_shift {:.3} ns a value",
        pointwise(|values| (kernels.scale_shift)(
            &mut values[..3840],
            &gamma[..320],
            &gamma[..320]
        ))
    );
    let halves = vec![f16::ONE; 4096];
    let mut bytes = vec![0u8; 4096];
    println!(
        "  max_abs of f16 {:.3} ns a value",
        pointwise(|_| _ = black_box((kernels.max_abs)(Row::F16(black_box(&halves)))))
    );
    println!(
        "  quantise of f16 {:.3} ns a value",
        pointwise(|_| (kernels.quantise)(Row::F16(&halves), 0.5, 128, black_box(&mut bytes)))
    );
    let (acc, sums) = (vec![7; 4096], vec![3; 4096]);
    let mut target = vec![f16::ONE; 4096];
    for activation in [None, Some(Unary::Silu)] {
        let apart = Residual::Apart(Rows { data: Row::F16(&halves), stride: 64 });
        for residual in [None, Some(apart), Some(Residual::Output)] {
            let finish = Finish {
                rows: 64,
                columns: 64,
                stride: 64,
                weight_scale: Some(&gamma),
                bias: Some(&gamma),
                activation,
                residual,
                then: None,
            };
            let time = pointwise(|_| {
                let out = RowsMut { data: RowMut::F16(black_box(&mut target)), stride: 64 };
                (kernels.finish_i8)(&acc, &sums, 128, &[0.5; 64], &finish, out);
            });
            let residual = match residual {
                None => "no residual",
                Some(Residual::Apart(_)) => "residual",
                Some(Residual::Output) => "residual in the output",
            };
            println!("  finish_i8 {activation:?}, {residual}: {time:.3} ns a value");
        }
    }
    println!(
        "  accumulate_i8 {:.3} ns a value",
        pointwise(|values| (kernels.accumulate_i8)(&acc, &sums, 128, 0.5, false, values))
    );
    println!(
        "  load_f16 {:.3} ns a value",
        pointwise(|values| (kernels.load_f16)(&halves, values))
    );
    Ok(())
}
