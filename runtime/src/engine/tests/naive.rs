//! What each op means, in plain loops over f32: the oracle of the engine's tests.

use super::functions::{binary, unary};
use crate::graph::{InputScale, Op, PoolKind, ResizeMode, ShuffleOrder, Unary, Window};

/// A value in full.
#[derive(Clone, Debug)]
pub struct Full {
    pub shape: Vec<usize>,
    pub data: Vec<f32>,
}

impl Full {
    pub fn new(shape: &[usize], data: Vec<f32>) -> Self {
        assert_eq!(shape.iter().product::<usize>(), data.len());
        Full { shape: shape.to_vec(), data }
    }

    fn of(shape: &[usize], value: impl Fn(&[usize]) -> f32) -> Self {
        let count: usize = shape.iter().product();
        let data = (0..count).map(|flat| value(&unflatten(flat, shape))).collect();
        Full::new(shape, data)
    }

    fn at(&self, index: &[usize]) -> f32 {
        self.data[index.iter().zip(&self.shape).fold(0, |flat, (&i, &n)| flat * n + i)]
    }

    /// With broadcasting.
    fn at_wide(&self, index: &[usize]) -> f32 {
        let clipped: Vec<usize> =
            index.iter().zip(&self.shape).map(|(&i, &n)| i.min(n - 1)).collect();
        self.at(&clipped)
    }

    fn last(&self) -> usize {
        *self.shape.last().unwrap()
    }
}

fn unflatten(mut flat: usize, shape: &[usize]) -> Vec<usize> {
    let mut index = vec![0; shape.len()];
    for (slot, &n) in index.iter_mut().zip(shape).rev() {
        *slot = flat % n;
        flat /= n;
    }
    index
}

/// Rounds values as int8 of this scale would hold them.
fn quantised(values: &[f32], scale: Option<f32>) -> Vec<f32> {
    let most = values.iter().fold(0f32, |most, x| most.max(x.abs()));
    let scale = scale.unwrap_or(if most > 0.0 { most / 127.0 } else { 1.0 });
    values.iter().map(|x| (x / scale).round_ties_even().clamp(-127.0, 127.0) * scale).collect()
}

/// An int8 or f16 product: `weights` is `[n, rows, columns, c]`, already as stored.
pub fn conv(
    x: &Full,
    weights: &[f32],
    bias: Option<&[f32]>,
    n: usize,
    window: &Window,
    int8: Option<InputScale>,
) -> Full {
    let [b, h, w, c] = x.shape[..] else { panic!("not an image") };
    let mut x = x.clone();
    if let Some(scale) = int8 {
        let scale = if let InputScale::Static(scale) = scale { Some(scale) } else { None };
        let rows: Vec<f32> = x.data.chunks(w * c).flat_map(|row| quantised(row, scale)).collect();
        x.data = rows;
    }
    let [kh, kw] = window.kernel.map(|k| k as usize);
    windowed([b, h, w], n, window, |s, channel, cells| {
        let mut sum = bias.map_or(0.0, |bias| f64::from(bias[channel]));
        for (ky, kx, y, xx) in cells {
            for i in 0..c {
                let weight = weights[((channel * kh + ky) * kw + kx) * c + i];
                sum += f64::from(x.at(&[s, *y, *xx, i])) * f64::from(weight);
            }
        }
        sum as f32
    })
}

/// Calls `value(sample, channel, cells inside the image: kernel row, column, y, x)`.
fn windowed(
    [b, h, w]: [usize; 3],
    n: usize,
    window: &Window,
    value: impl Fn(usize, usize, &[(usize, usize, usize, usize)]) -> f32,
) -> Full {
    let [kh, kw] = window.kernel.map(|k| k as usize);
    let [sy, sx] = window.stride.map(|s| s as usize);
    let [top, left, bottom, right] = window.pad.map(|p| p as usize);
    let out = [b, (h + top + bottom - kh) / sy + 1, (w + left + right - kw) / sx + 1, n];
    Full::of(&out, |index| {
        let mut cells = Vec::new();
        for ky in 0..kh {
            for kx in 0..kw {
                let (y, x) = (index[1] * sy + ky, index[2] * sx + kx);
                if (top..h + top).contains(&y) && (left..w + left).contains(&x) {
                    cells.push((ky, kx, y - top, x - left));
                }
            }
        }
        value(index[0], index[3], &cells)
    })
}

pub fn depthwise(x: &Full, weights: &[f32], bias: Option<&[f32]>, window: &Window) -> Full {
    let [b, h, w, c] = x.shape[..] else { panic!("not an image") };
    let columns = window.kernel[1] as usize;
    windowed([b, h, w], c, window, |s, i, cells| {
        cells.iter().fold(bias.map_or(0.0, |bias| bias[i]), |sum, &(ky, kx, y, xx)| {
            sum + x.at(&[s, y, xx, i]) * weights[(ky * columns + kx) * c + i]
        })
    })
}

pub fn matmul(x: &Full, weights: &[f32], bias: Option<&[f32]>, n: usize, int8: bool) -> Full {
    let k = x.last();
    let mut shape = x.shape.clone();
    *shape.last_mut().unwrap() = n;
    let mut data = Vec::new();
    for row in x.data.chunks(k) {
        let row = if int8 { quantised(row, None) } else { row.to_vec() };
        for (channel, weights) in weights.chunks(k).enumerate() {
            let sum: f64 =
                row.iter().zip(weights).map(|(&x, &w)| f64::from(x) * f64::from(w)).sum();
            data.push(sum as f32 + bias.map_or(0.0, |bias| bias[channel]));
        }
    }
    Full::new(&shape, data)
}

pub fn attention(inputs: &[&Full], heads: usize, scale: f32, causal: bool) -> Full {
    let [q, k, v] = [inputs[0], inputs[1], inputs[2]];
    let (t, d) = (k.shape[1], q.last() / heads);
    Full::of(&q.shape, |index| {
        let [s, i, channel] = index[..] else { panic!("not a sequence") };
        let start = channel / d * d;
        let scores: Vec<f64> = (0..t)
            .map(|j| {
                if causal && j > i {
                    return f64::NEG_INFINITY;
                }
                let dot: f64 = (start..start + d)
                    .map(|c| f64::from(q.at(&[s, i, c])) * f64::from(k.at(&[s, j, c])))
                    .sum();
                let mask = inputs.get(3).map_or(0.0, |mask| mask.at_wide(&[s, i, j]));
                dot * f64::from(scale) + f64::from(mask)
            })
            .collect();
        let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = scores.iter().map(|score| (score - most).exp()).collect();
        let total: f64 = weights.iter().sum();
        let sum: f64 = (0..t).map(|j| weights[j] * f64::from(v.at(&[s, j, channel]))).sum();
        (sum / total) as f32
    })
}

fn normed(values: &[f32], mean: bool, eps: f32) -> Vec<f32> {
    let n = values.len() as f64;
    let centre = if mean { values.iter().map(|&x| f64::from(x)).sum::<f64>() / n } else { 0.0 };
    let spread = values.iter().map(|&x| (f64::from(x) - centre).powi(2)).sum::<f64>() / n;
    let root = (spread + f64::from(eps)).sqrt();
    values.iter().map(|&x| ((f64::from(x) - centre) / root) as f32).collect()
}

pub fn cell_norm(x: &Full, size: usize, gamma: &[f32], beta: Option<&[f32]>, eps: f32) -> Full {
    let mean = beta.is_some();
    let data = x.data.chunks(size).flat_map(|cell| {
        let normed = normed(cell, mean, eps);
        (0..size).map(move |i| normed[i] * gamma[i] + beta.map_or(0.0, |beta| beta[i]))
    });
    Full::new(&x.shape, data.collect())
}

pub fn group_norm(
    x: &Full,
    groups: usize,
    gamma: &[f32],
    beta: &[f32],
    eps: f32,
    activation: Option<Unary>,
) -> Full {
    let (c, samples) = (x.last(), x.shape[0]);
    let size = c / groups;
    let sample = x.data.len() / samples;
    let mut out = x.clone();
    for s in 0..samples {
        for group in 0..groups {
            let places: Vec<usize> =
                (s * sample..(s + 1) * sample).filter(|place| place % c / size == group).collect();
            let values: Vec<f32> = places.iter().map(|&place| x.data[place]).collect();
            for (&place, value) in places.iter().zip(normed(&values, true, eps)) {
                let value = value * gamma[place % c] + beta[place % c];
                out.data[place] = activation.map_or(value, |function| unary(function, value));
            }
        }
    }
    out
}

/// Ops without tensors. `stated` is the result's shape where the op does not say it.
pub fn plain(op: &Op, inputs: &[&Full], stated: Option<&[usize]>) -> Full {
    let x = inputs[0];
    let each = |function: &dyn Fn(f32) -> f32| {
        Full::new(&x.shape, x.data.iter().map(|&x| function(x)).collect())
    };
    match op {
        Op::Unary { function } => each(&|x| unary(*function, x)),
        Op::Cast => x.clone(),
        Op::Reshape => Full::new(stated.unwrap(), x.data.clone()),
        Op::Binary { function } => {
            let shape: Vec<usize> =
                x.shape.iter().zip(&inputs[1].shape).map(|(&a, &b)| a.max(b)).collect();
            Full::of(&shape, |i| binary(*function, x.at_wide(i), inputs[1].at_wide(i)))
        }
        Op::Modulate => {
            Full::of(&x.shape, |i| x.at(i) * (1.0 + inputs[1].at_wide(i)) + inputs[2].at_wide(i))
        }
        Op::Gated { function } => {
            let mut shape = x.shape.clone();
            let c = x.last() / 2;
            *shape.last_mut().unwrap() = c;
            Full::of(&shape, |i| {
                let mut gate = i.to_vec();
                *gate.last_mut().unwrap() += c;
                x.at(i) * unary(*function, x.at(&gate))
            })
        }
        Op::Softmax => {
            let rows = x.data.chunks(x.last()).flat_map(|row| {
                let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let total: f64 = row.iter().map(|x| f64::from(x - most).exp()).sum();
                row.iter().map(move |x| (f64::from(x - most).exp() / total) as f32)
            });
            Full::new(&x.shape, rows.collect())
        }
        Op::Resize { factor, mode } => {
            let [fy, fx] = factor.map(|f| f as usize);
            let [b, h, w, c] = x.shape[..] else { panic!("not an image") };
            let between = |i: usize, f: usize, n: usize| {
                let place = ((i as f64 + 0.5) / f as f64 - 0.5).max(0.0);
                let low = (place.floor() as usize).min(n - 1);
                (low, (low + 1).min(n - 1), (place - place.floor()) as f32)
            };
            Full::of(&[b, h * fy, w * fx, c], |i| match mode {
                ResizeMode::Nearest => x.at(&[i[0], i[1] / fy, i[2] / fx, i[3]]),
                ResizeMode::Bilinear => {
                    let ((y0, y1, wy), (x0, x1, wx)) = (between(i[1], fy, h), between(i[2], fx, w));
                    let line = |y| {
                        x.at(&[i[0], y, x0, i[3]]) * (1.0 - wx) + x.at(&[i[0], y, x1, i[3]]) * wx
                    };
                    line(y0) * (1.0 - wy) + line(y1) * wy
                }
            })
        }
        Op::PixelShuffle { factor, order } => {
            let [b, h, w, deep] = x.shape[..] else { panic!("not an image") };
            let r = *factor as usize;
            let c = deep / r / r;
            Full::of(&[b, h * r, w * r, c], |i| {
                let (dy, dx) = (i[1] % r, i[2] % r);
                let channel = match order {
                    ShuffleOrder::ChannelFirst => i[3] * r * r + dy * r + dx,
                    ShuffleOrder::BlockFirst => (dy * r + dx) * c + i[3],
                };
                x.at(&[i[0], i[1] / r, i[2] / r, channel])
            })
        }
        Op::PixelUnshuffle { factor, order } => {
            let [b, h, w, c] = x.shape[..] else { panic!("not an image") };
            let r = *factor as usize;
            Full::of(&[b, h / r, w / r, c * r * r], |i| {
                let (channel, dy, dx) = match order {
                    ShuffleOrder::ChannelFirst => (i[3] / r / r, i[3] / r % r, i[3] % r),
                    ShuffleOrder::BlockFirst => (i[3] % c, i[3] / c / r, i[3] / c % r),
                };
                x.at(&[i[0], i[1] * r + dy, i[2] * r + dx, channel])
            })
        }
        Op::Concat { axis } => {
            let axis = *axis as usize;
            let mut shape = x.shape.clone();
            shape[axis] = inputs.iter().map(|input| input.shape[axis]).sum();
            Full::of(&shape, |i| {
                let mut i = i.to_vec();
                for input in inputs {
                    if i[axis] < input.shape[axis] {
                        return input.at(&i);
                    }
                    i[axis] -= input.shape[axis];
                }
                unreachable!()
            })
        }
        Op::Slice { axis, start } => Full::of(stated.unwrap(), |i| {
            let mut i = i.to_vec();
            i[*axis as usize] += start.as_fixed().unwrap();
            x.at(&i)
        }),
        Op::Transpose { permutation } => {
            let shape: Vec<usize> = permutation.iter().map(|&p| x.shape[p as usize]).collect();
            Full::of(&shape, |i| {
                let mut from = vec![0; i.len()];
                for (&i, &p) in i.iter().zip(permutation) {
                    from[p as usize] = i;
                }
                x.at(&from)
            })
        }
        Op::Expand => Full::of(stated.unwrap(), |i| x.at_wide(i)),
        Op::Pad { pad, value } => {
            let [b, h, w, c] = x.shape[..] else { panic!("not an image") };
            let [top, left, bottom, right] = pad.map(|p| p as usize);
            Full::of(&[b, h + top + bottom, w + left + right, c], |i| {
                let inside = (top..h + top).contains(&i[1]) && (left..w + left).contains(&i[2]);
                if inside { x.at(&[i[0], i[1] - top, i[2] - left, i[3]]) } else { *value }
            })
        }
        Op::Pool { kind, window } => {
            let [b, h, w, c] = x.shape[..] else { panic!("not an image") };
            windowed([b, h, w], c, window, |s, i, cells| {
                let values = cells.iter().map(|&(_, _, y, xx)| x.at(&[s, y, xx, i]));
                match kind {
                    PoolKind::Average => values.sum::<f32>() / cells.len() as f32,
                    PoolKind::Max => values.fold(f32::NEG_INFINITY, f32::max),
                }
            })
        }
        Op::ReduceMean { axes } | Op::ReduceSum { axes } => {
            let mut shape = x.shape.clone();
            axes.iter().for_each(|&axis| shape[axis as usize] = 1);
            let count = (x.data.len() / shape.iter().product::<usize>()) as f32;
            let mut out = Full::of(&shape, |_| 0.0);
            for (flat, value) in x.data.iter().enumerate() {
                let index = unflatten(flat, &x.shape);
                let to = index.iter().zip(&shape).fold(0, |at, (&i, &n)| at * n + i.min(n - 1));
                out.data[to] +=
                    value / if matches!(op, Op::ReduceMean { .. }) { count } else { 1.0 };
            }
            out
        }
        Op::BatchMatmul { transpose_b } => {
            let (b, rank) = (inputs[1], x.shape.len());
            let mut shape = x.shape.clone();
            shape[rank - 1] = b.shape[if *transpose_b { rank - 2 } else { rank - 1 }];
            Full::of(&shape, |i| {
                (0..x.last())
                    .map(|k| {
                        let (mut left, mut right) = (i.to_vec(), i.to_vec());
                        left[rank - 1] = k;
                        right[rank - 2] = if *transpose_b { i[rank - 1] } else { k };
                        right[rank - 1] = if *transpose_b { k } else { i[rank - 1] };
                        x.at(&left) * b.at(&right)
                    })
                    .sum()
            })
        }
        _ => panic!("{} reads tensors", op.name()),
    }
}
