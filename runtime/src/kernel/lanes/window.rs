//! Depthwise convolution, pooling, blending and stretching.

use super::{Lanes, load_blocks, load_f16_part, load_part, store_blocks, store_part};
use crate::graph::{PoolKind, ResizeMode};
use crate::kernel::{LANES, Lines, ResizeRow, Row, RowMut};
use half::f16;

/// See [`crate::kernel::Kernels::depthwise`].
#[inline(always)]
pub fn depthwise<L: Lanes>(
    lines: &Lines<'_>,
    weight: &[f16],
    bias: Option<&[f32]>,
    out: &mut [f32],
) {
    lines.check(out.len());
    let channels = lines.channels;
    let kernel = lines.lines.len() * lines.kernel_columns * channels;
    assert_eq!(weight.len(), kernel, "weights do not fill the window");
    assert!(bias.is_none_or(|bias| bias.len() == channels), "biases do not fill the channels");
    for (x, cell) in out.chunks_exact_mut(channels).enumerate() {
        let mut channel = 0;
        while channel + 4 * LANES <= channels {
            blocks::<L, 4>(lines, weight, bias, x, channel, cell);
            channel += 4 * LANES;
        }
        while channel + LANES <= channels {
            blocks::<L, 1>(lines, weight, bias, x, channel, cell);
            channel += LANES;
        }
        if channel == channels {
            continue;
        }
        let length = channels - channel;
        let mut total = match bias {
            Some(bias) => load_part(&bias[channel..], 0.0),
            None => L::splat(0.0),
        };
        for (ky, line) in lines.lines.iter().enumerate() {
            let Some(line) = line else { continue };
            for kx in lines.columns(x) {
                let at = (x * lines.stride + kx - lines.pad_left) * channels + channel;
                let input = load_part::<L>(&line[at..at + length], 0.0);
                let at = (ky * lines.kernel_columns + kx) * channels + channel;
                total = input.mul_add(load_f16_part(&weight[at..at + length]), total);
            }
        }
        store_part(total, &mut cell[channel..]);
    }
}

/// `N` times 16 channels of cell `x`, from `channel` on.
#[inline(always)]
fn blocks<L: Lanes, const N: usize>(
    lines: &Lines<'_>,
    weight: &[f16],
    bias: Option<&[f32]>,
    x: usize,
    channel: usize,
    cell: &mut [f32],
) {
    let mut totals: [L; N] = match bias {
        Some(bias) => load_blocks(Row::F32(bias), channel),
        None => [L::splat(0.0); N],
    };
    for (ky, line) in lines.lines.iter().enumerate() {
        let Some(line) = line else { continue };
        for kx in lines.columns(x) {
            let at = (x * lines.stride + kx - lines.pad_left) * lines.channels + channel;
            let input: [L; N] = load_blocks(Row::F32(line), at);
            let at = (ky * lines.kernel_columns + kx) * lines.channels + channel;
            let weight: [L; N] = load_blocks(Row::F16(weight), at);
            for ((total, input), weight) in totals.iter_mut().zip(input).zip(weight) {
                *total = input.mul_add(weight, *total);
            }
        }
    }
    store_blocks(totals, &mut RowMut::F32(cell), channel);
}

/// See [`crate::kernel::Kernels::pool`].
#[inline(always)]
pub fn pool<L: Lanes>(kind: PoolKind, lines: &Lines<'_>, out: &mut [f32]) {
    lines.check(out.len());
    let channels = lines.channels;
    let mut rows = 0;
    for line in lines.lines {
        rows += usize::from(line.is_some());
    }
    let first = match kind {
        PoolKind::Average => 0.0,
        PoolKind::Max => f32::NEG_INFINITY,
    };
    for (x, cell) in out.chunks_exact_mut(channels).enumerate() {
        let columns = lines.columns(x);
        let count = L::splat((rows * columns.len()) as f32);
        for (index, out) in cell.chunks_mut(LANES).enumerate() {
            let mut total = L::splat(first);
            for line in lines.lines {
                let Some(line) = line else { continue };
                for kx in columns.clone() {
                    let at = (x * lines.stride + kx - lines.pad_left) * channels + index * LANES;
                    let input = load_part::<L>(&line[at..at + out.len()], 0.0);
                    total = match kind {
                        PoolKind::Average => total.add(input),
                        PoolKind::Max => input.max(total),
                    };
                }
            }
            let value = match kind {
                PoolKind::Average => total.div(count),
                PoolKind::Max => total,
            };
            store_part(value, out);
        }
    }
}

/// See [`crate::kernel::Kernels::blend`].
#[inline(always)]
pub fn blend<L: Lanes>(a: &[f32], b: &[f32], weight: f32, out: &mut [f32]) {
    assert!(a.len() == out.len() && b.len() == out.len(), "rows to blend differ in length");
    let weight = L::splat(weight);
    let operands = a.chunks(LANES).zip(b.chunks(LANES));
    for (out, (a, b)) in out.chunks_mut(LANES).zip(operands) {
        let a = load_part::<L>(a, 0.0);
        store_part(weight.mul_add(load_part::<L>(b, 0.0).sub(a), a), out);
    }
}

/// See [`crate::kernel::Kernels::resize_row`].
#[inline(always)]
pub fn resize_row<L: Lanes>(resize: &ResizeRow, row: &[f32], out: &mut [f32]) {
    let channels = resize.channels;
    assert_eq!(out.len(), row.len() * resize.factor, "the output row is not the input's multiple");
    assert!(row.len().is_multiple_of(channels), "the row is not whole cells");
    let width = row.len() / channels;
    match resize.mode {
        ResizeMode::Nearest => {
            for (x, out) in out.chunks_exact_mut(channels).enumerate() {
                let start = x / resize.factor * channels;
                out.copy_from_slice(&row[start..start + channels]);
            }
        }
        ResizeMode::Bilinear if channels >= LANES => {
            let sources = ResizeRow::sources(resize.factor, width);
            for (out, (left, right, weight)) in out.chunks_exact_mut(channels).zip(sources) {
                let a = &row[left * channels..(left + 1) * channels];
                let b = &row[right * channels..(right + 1) * channels];
                blend::<L>(a, b, weight, out);
            }
        }
        // The copies of a cell are of known length where a picture's channels are.
        ResizeMode::Bilinear => match channels {
            1 => stretch_narrow::<L>(1, resize.factor, row, out),
            3 => stretch_narrow::<L>(3, resize.factor, row, out),
            _ => stretch_narrow::<L>(channels, resize.factor, row, out),
        },
    }
}

/// Bilinear, for cells of less than a vector: one place between two cells after the other, so that all neighbours of a row are
/// blended as one, with the same weight.
#[inline(always)]
fn stretch_narrow<L: Lanes>(channels: usize, factor: usize, row: &[f32], out: &mut [f32]) {
    let mut blended = [0.0; 8 * LANES];
    let (width, cells) = (row.len() / channels, blended.len() / channels);
    for place in 0..factor.min(out.len()) {
        let (_, _, weight) = ResizeRow::source(place, factor, width);
        // The first places of a cell lie before its middle: behind the cell to the left.
        let shift = usize::from(2 * place + 1 < factor);
        let edge = (1 - shift) * (width - 1);
        for (out, a) in out[(edge * factor + place) * channels..]
            .iter_mut()
            .zip(&row[edge * channels..][..channels])
        {
            // Behind the edge there is the edge again, and an infinity there is to give what it gives in the reference.
            let b = a;
            *out = weight.mul_add(b - a, *a);
        }
        for start in (0..width - 1).step_by(cells) {
            let length = cells.min(width - 1 - start) * channels;
            let (a, b) =
                (&row[start * channels..][..length], &row[(start + 1) * channels..][..length]);
            blend::<L>(a, b, weight, &mut blended[..length]);
            for (index, values) in blended[..length].chunks_exact(channels).enumerate() {
                let at = ((start + index + shift) * factor + place) * channels;
                out[at..at + channels].copy_from_slice(values);
            }
        }
    }
}
