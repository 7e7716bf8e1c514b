//! Hot loops alone, on the shapes of one tile.

use std::hint::black_box;

use half::f16;
use plantain::graph::Unary;
use plantain::kernel::{
    ATTENTION_I8_KEYS, Attention, AttentionI8, Finish, GemmF16Args, GemmI8Args, Kernels, KeyRows,
    KeyTile, Lines, Moments, Residual, ResizeRow, Row, RowMut, Rows, RowsMut,
};
use plantain::pack::panel::PanelShape;
use tract_data::internal::DatumType;
use tract_linalg::MmmDispatch;

use super::Work::{Macs, Values};
use super::count;
use super::tract::Product;

/// Values of a pointwise case.
const VALUES: usize = 4096;
/// Channels of a cell.
const CHANNELS: usize = 64;

/// Rows, inner length and outputs of products.
const PRODUCTS: [(usize, usize, usize); 3] = [(36, 320, 64), (12, 1280, 16), (1, 320, 64)];

/// Counts every function of the table that a network's time may depend on.
pub fn count_all(kernels: &Kernels) {
    for (rows, k, outputs) in PRODUCTS {
        product_i8(kernels, rows, k, outputs);
    }
    for (rows, k, outputs) in PRODUCTS {
        product_of_tract(rows, k, outputs);
    }
    kernel_rows_i8(kernels);
    product_f16(kernels, 36, 320, 64);
    attention(kernels, 48, 128, 40);
    attention_i8(kernels, 48, 128, 40);
    functions(kernels);
    norms(kernels);
    conversions(kernels);
    epilogues(kernels);
    windows(kernels);
}

fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i * 31 % 255) as u8).collect()
}

fn floats(length: usize) -> Vec<f32> {
    (0..length).map(|i| (i * 37 % 101) as f32 / 50.0 - 1.0).collect()
}

fn halves(length: usize) -> Vec<f16> {
    floats(length).into_iter().map(f16::from_f32).collect()
}

fn product_i8(kernels: &Kernels, rows: usize, k: usize, outputs: usize) {
    let shape = PanelShape::matmul(outputs, k);
    let weights = shape.pack_i8(&vec![3; outputs * k]);
    let act = bytes(rows * k);
    let mut acc = vec![0; rows * outputs];
    count(&format!("gemm_i8 {rows} x {k} x {outputs}"), Macs(rows * k * outputs), || {
        (kernels.gemm_i8.run)(GemmI8Args {
            act: &act,
            act_stride: k,
            rows,
            weights: &weights,
            weights_stride: shape.groups() * 64,
            panels: shape.panels(),
            groups: shape.groups(),
            acc: &mut acc,
            acc_stride: outputs,
            accumulate: false,
        });
    });
}

/// The same product by the kernel that tract-linalg takes on this processor: alone, and with its activations packed first.
fn product_of_tract(rows: usize, k: usize, outputs: usize) {
    let kernel = MmmDispatch::native()
        .preferred_kernel(DatumType::I32, Some(outputs), Some(k), Some(rows))
        .expect("tract-linalg has int8 kernels for this processor");
    let act: Vec<i8> = bytes(rows * k).into_iter().map(|byte| byte as i8).collect();
    let mut product = Product::new(kernel, &act, &vec![3; outputs * k], [rows, k, outputs])
        .expect("tract-linalg packs any matrices");
    let (name, work) =
        (format!("gemm_i8 {rows} x {k} x {outputs}, tract"), Macs(rows * k * outputs));
    count(&name, work, || product.run().expect("the product is whole"));
    count(&format!("{name} with packing"), work, || {
        product.pack_and_run().expect("the product is whole");
    });
    let first: i32 = act[..k].iter().map(|&value| 3 * i32::from(value)).sum();
    assert_eq!(product.sums().expect("sums are integers")[0], first, "{name}");
}

/// A 3x3 convolution of one scale: three lines in which windows of three cells overlap.
fn kernel_rows_i8(kernels: &Kernels) {
    let (cells, outputs) = (36, 64);
    let shape = PanelShape { outputs, kernel_rows: 3, kernel_columns: 3, channels: CHANNELS };
    let weights = shape.pack_i8(&vec![3; outputs * 9 * CHANNELS]);
    let line = (cells + 2) * CHANNELS;
    let act = bytes(3 * line);
    let mut acc = vec![0; cells * outputs];
    let macs = Macs(cells * 9 * CHANNELS * outputs);
    count(&format!("gemm_i8 3 lines of {cells} cells, {CHANNELS} to {outputs}"), macs, || {
        let args = GemmI8Args {
            act: &act,
            act_stride: CHANNELS,
            rows: cells,
            weights: &weights,
            weights_stride: shape.groups() * 64,
            panels: shape.panels(),
            groups: shape.groups_per_row(),
            acc: &mut acc,
            acc_stride: outputs,
            accumulate: false,
        };
        (kernels.gemm_i8.run_lines)(args, &[0, line, 2 * line]);
    });
}

fn product_f16(kernels: &Kernels, rows: usize, k: usize, outputs: usize) {
    let (act, weights) = (floats(rows * k), halves(outputs * k));
    let mut acc = vec![0.0; rows * outputs];
    count(&format!("gemm_f16 {rows} x {k} x {outputs}"), Macs(rows * k * outputs), || {
        (kernels.gemm_f16.run)(GemmF16Args {
            act: &act,
            act_stride: k,
            rows,
            weights: &weights,
            weights_stride: 16 * k,
            panels: outputs / 16,
            k,
            acc: &mut acc,
            acc_stride: outputs,
            accumulate: false,
        });
    });
}

fn attention(kernels: &Kernels, queries: usize, keys: usize, head: usize) {
    let values = halves(keys * head);
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
    let case = format!("attention {queries} by {keys}, head {head}");
    count(&case, Macs(2 * queries * keys * head), || {
        let out = RowsMut { data: RowMut::F16(&mut out), stride: head };
        (kernels.attention)(&attention, &mut scratch, out);
    });
}

fn attention_i8(kernels: &Kernels, queries: usize, keys: usize, head: usize) {
    let values = halves(keys * head);
    let rows = Rows { data: Row::F16(&values), stride: head };
    let tile_stride = KeyTile::words(head);
    let mut tiles = vec![0.0; keys.div_ceil(ATTENTION_I8_KEYS) * tile_stride];
    count(&format!("quantise_keys {keys}, head {head}"), Values(2 * keys * head), || {
        for (index, tile) in tiles.chunks_exact_mut(tile_stride).enumerate() {
            let first = index * ATTENTION_I8_KEYS;
            let data = rows.data.slice(first * head..keys * head);
            let (k, v) = (Rows { data, ..rows }, Rows { data, ..rows });
            let keys = (keys - first).min(ATTENTION_I8_KEYS);
            let offset = kernels.gemm_i8.act_offset;
            (kernels.quantise_keys)(&KeyRows { keys, head, k, v, offset }, tile);
        }
    });
    let attention = AttentionI8 {
        queries,
        keys,
        head,
        q: rows,
        tiles: &tiles,
        tile_stride,
        scale: 0.1,
        mask: None,
        causal: None,
    };
    let mut scratch = vec![0.0; AttentionI8::scratch(queries, head)];
    let mut out = vec![f16::ZERO; queries * head];
    let case = format!("attention_i8 {queries} by {keys}, head {head}");
    count(&case, Macs(2 * queries * keys * head), || {
        let out = RowsMut { data: RowMut::F16(&mut out), stride: head };
        (kernels.attention_i8)(&attention, &kernels.gemm_i8, &mut scratch, out);
    });
}

fn functions(kernels: &Kernels) {
    let source = floats(VALUES);
    let mut values = source.clone();
    for function in [Unary::Silu, Unary::Gelu, Unary::GeluTanh, Unary::Exp] {
        let name = format!("{function:?}").to_lowercase();
        count(&name, Values(VALUES), || {
            values.copy_from_slice(&source);
            (kernels.unary)(function, black_box(&mut values));
        });
    }
    count("softmax", Values(VALUES), || (kernels.softmax)(black_box(&mut values)));
}

fn norms(kernels: &Kernels) {
    let gamma = floats(VALUES);
    let mut values = floats(VALUES);
    count("layer_norm", Values(VALUES), || {
        (kernels.layer_norm)(black_box(&mut values), &gamma, Some(&gamma), 1e-5);
    });
    count("rms_norm", Values(VALUES), || {
        (kernels.rms_norm)(black_box(&mut values), &gamma, 1e-5);
    });
    let mut scratch = [0.0; CHANNELS];
    let mut moments = [Moments::default(); 8];
    count("group_moments", Values(VALUES), || {
        (kernels.group_moments)(&values, CHANNELS, &mut scratch, black_box(&mut moments));
    });
    count("scale_shift", Values(VALUES), || {
        let by_channel = &gamma[..CHANNELS];
        (kernels.scale_shift)(black_box(&mut values), by_channel, by_channel);
    });
}

fn conversions(kernels: &Kernels) {
    let mut stored = halves(VALUES);
    let mut values = floats(VALUES);
    let mut out = vec![0; VALUES];
    count("load_f16", Values(VALUES), || (kernels.load_f16)(&stored, black_box(&mut values)));
    count("store_f16", Values(VALUES), || (kernels.store_f16)(&values, black_box(&mut stored)));
    count("max_abs of f16", Values(VALUES), || {
        black_box((kernels.max_abs)(Row::F16(&stored)));
    });
    count("quantise of f16", Values(VALUES), || {
        let offset = kernels.gemm_i8.act_offset;
        (kernels.quantise)(Row::F16(&stored), 99.0, offset, black_box(&mut out));
    });
}

fn epilogues(kernels: &Kernels) {
    let (rows, columns) = (36, 64);
    let length = rows * columns;
    let acc: Vec<i32> = (0..length as i32).map(|i| i * 7 % 1000).collect();
    let (sums, scales) = ([3; 64], [0.01; 64]);
    let by_output = floats(columns);
    let residual = halves(length);
    let mut total = floats(length);
    let mut out = vec![f16::ZERO; length];
    count("accumulate_i8", Values(length), || {
        (kernels.accumulate_i8)(&acc, &sums, 0, 0.01, false, black_box(&mut total));
    });
    let plain = Finish {
        rows,
        columns,
        stride: columns,
        weight_scale: Some(&by_output),
        bias: Some(&by_output),
        activation: None,
        residual: None,
        then: None,
    };
    let rich = Finish {
        activation: Some(Unary::Silu),
        residual: Some(Residual::Apart(Rows { data: Row::F16(&residual), stride: columns })),
        ..plain
    };
    for (name, tile) in [("", plain), (", silu, residual", rich)] {
        count(&format!("finish_i8{name}"), Values(length), || {
            let out = RowsMut { data: RowMut::F16(black_box(&mut out)), stride: columns };
            (kernels.finish_i8)(&acc, &sums, 0, &scales[..rows], &tile, out);
        });
    }
    count("finish_f32", Values(length), || {
        let out = RowsMut { data: RowMut::F16(black_box(&mut out)), stride: columns };
        (kernels.finish_f32)(&total, &plain, out);
    });
}

fn windows(kernels: &Kernels) {
    let cells = VALUES / CHANNELS;
    let (row, weight) = (floats(VALUES), halves(9 * CHANNELS));
    let mut out = vec![0.0; VALUES];
    count("depthwise 3x3", Macs(9 * VALUES), || {
        let lines = Lines {
            lines: &[Some(&row[..]); 3],
            width: cells,
            channels: CHANNELS,
            kernel_columns: 3,
            stride: 1,
            pad_left: 1,
        };
        (kernels.depthwise)(&lines, &weight, Some(&row[..CHANNELS]), black_box(&mut out));
    });
    let mut wide = vec![0.0; 2 * VALUES];
    for mode in [plantain::graph::ResizeMode::Nearest, plantain::graph::ResizeMode::Bilinear] {
        let name = format!("resize_row {mode:?}").to_lowercase();
        count(&name, Values(2 * VALUES), || {
            let resize = ResizeRow { channels: CHANNELS, factor: 2, mode };
            (kernels.resize_row)(&resize, &row, black_box(&mut wide));
        });
    }
}
