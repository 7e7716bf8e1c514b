//! Ops that move values, and reductions.

use plantain::graph::{ResizeMode, ShuffleOrder};

use plantain_pack::lower::FloatTensor; use super::permuted;

/// The coordinates of a flat index.
fn coordinates(mut index: usize, shape: &[usize]) -> Vec<usize> {
    let mut result = vec![0; shape.len()];
    for axis in (0..shape.len()).rev() {
        result[axis] = index % shape[axis];
        index /= shape[axis];
    }
    result
}

/// The flat index of coordinates; axes of one repeat.
fn flat(coordinates: &[usize], shape: &[usize]) -> usize {
    coordinates
        .iter()
        .zip(shape)
        .fold(0, |index, (&at, &size)| index * size + if size == 1 { 0 } else { at })
}

pub(super) fn broadcast(
    a: &FloatTensor,
    b: &FloatTensor,
    shape: &[usize],
    f: impl Fn(f32, f32) -> f32,
) -> Vec<f32> {
    (0..shape.iter().product())
        .map(|index| {
            let at = coordinates(index, shape);
            f(a.data[flat(&at, &a.shape)], b.data[flat(&at, &b.shape)])
        })
        .collect()
}

pub(super) fn resize(
    x: &FloatTensor,
    factor: [u32; 2],
    mode: ResizeMode,
    shape: &[usize],
) -> Vec<f32> {
    let [fy, fx] = factor.map(|f| f as usize);
    // The two cells around a coordinate and the second one's weight.
    let around = |at: usize, factor: usize, size: usize| {
        let place = (at as f32 + 0.5) / factor as f32 - 0.5;
        let place = place.clamp(0.0, (size - 1) as f32);
        let low = place.floor() as usize;
        (low, (low + 1).min(size - 1), place - low as f32)
    };
    (0..shape.iter().product())
        .map(|index| {
            let at = coordinates(index, shape);
            let value = |y, x_| x.data[flat(&[at[0], y, x_, at[3]], &x.shape)];
            match mode {
                ResizeMode::Nearest => value(at[1] / fy, at[2] / fx),
                ResizeMode::Bilinear => {
                    let (y0, y1, wy) = around(at[1], fy, x.shape[1]);
                    let (x0, x1, wx) = around(at[2], fx, x.shape[2]);
                    let top = value(y0, x0) * (1.0 - wx) + value(y0, x1) * wx;
                    let bottom = value(y1, x0) * (1.0 - wx) + value(y1, x1) * wx;
                    top * (1.0 - wy) + bottom * wy
                }
            }
        })
        .collect()
}

pub(super) fn pixel_shuffle(x: &FloatTensor, r: usize, order: ShuffleOrder) -> Vec<f32> {
    let [b, h, w, channels] = x.shape[..] else { return vec![] };
    let c = channels / (r * r);
    match order {
        ShuffleOrder::ChannelFirst => permuted(&x.data, &[b, h, w, c, r, r], &[0, 1, 4, 2, 5, 3]),
        ShuffleOrder::BlockFirst => permuted(&x.data, &[b, h, w, r, r, c], &[0, 1, 3, 2, 4, 5]),
    }
}

pub(super) fn pixel_unshuffle(x: &FloatTensor, r: usize, order: ShuffleOrder) -> Vec<f32> {
    let [b, h, w, c] = x.shape[..] else { return vec![] };
    let from = [b, h / r, r, w / r, r, c];
    match order {
        ShuffleOrder::ChannelFirst => permuted(&x.data, &from, &[0, 1, 3, 5, 2, 4]),
        ShuffleOrder::BlockFirst => permuted(&x.data, &from, &[0, 1, 3, 2, 4, 5]),
    }
}

pub(super) fn concat(operands: &[&FloatTensor], axis: usize) -> Vec<f32> {
    let outer: usize = operands[0].shape[..axis].iter().product();
    let mut result = Vec::new();
    for index in 0..outer {
        for operand in operands {
            let chunk = operand.data.len() / outer;
            result.extend_from_slice(&operand.data[index * chunk..(index + 1) * chunk]);
        }
    }
    result
}

pub(super) fn slice(x: &FloatTensor, axis: usize, start: usize, shape: &[usize]) -> Vec<f32> {
    (0..shape.iter().product())
        .map(|index| {
            let mut at = coordinates(index, shape);
            at[axis] += start;
            x.data[at.iter().zip(&x.shape).fold(0, |index, (&at, &size)| index * size + at)]
        })
        .collect()
}

pub(super) fn pad(x: &FloatTensor, pad: [u32; 4], value: f32, shape: &[usize]) -> Vec<f32> {
    let (top, left) = (pad[0] as usize, pad[1] as usize);
    (0..shape.iter().product())
        .map(|index| {
            let at = coordinates(index, shape);
            let inside = (top..top + x.shape[1]).contains(&at[1])
                && (left..left + x.shape[2]).contains(&at[2]);
            if !inside {
                return value;
            }
            let row = (at[0] * x.shape[1] + at[1] - top) * x.shape[2] + at[2] - left;
            x.data[row * x.shape[3] + at[3]]
        })
        .collect()
}

pub(super) fn reduce(x: &FloatTensor, axes: &[u32], mean: bool) -> Vec<f32> {
    let mut shape = x.shape.clone();
    axes.iter().for_each(|&axis| shape[axis as usize] = 1);
    let mut sums = vec![0.0f64; shape.iter().product()];
    for (index, &value) in x.data.iter().enumerate() {
        sums[flat(&coordinates(index, &x.shape), &shape)] += f64::from(value);
    }
    let count = (x.data.len() / sums.len()) as f64;
    sums.into_iter().map(|sum| if mean { sum / count } else { sum } as f32).collect()
}
