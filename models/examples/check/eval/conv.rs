//! Convolutions and pooling over `[b, h, w, c]`.

use plantain::graph::{PoolKind, Window};

use plantain_pack::lower::FloatTensor;

/// Calls `visit(output cell, kernel tap, input cell)` for every tap that lies inside the image.
fn taps(
    input: &[usize],
    output: &[usize],
    window: &Window,
    mut visit: impl FnMut(usize, usize, usize),
) {
    let [kh, kw] = window.kernel.map(|k| k as usize);
    let [sy, sx] = window.stride.map(|s| s as usize);
    let (top, left) = (window.pad[0] as usize, window.pad[1] as usize);
    for b in 0..output[0] {
        for y in 0..output[1] {
            for x in 0..output[2] {
                let cell = (b * output[1] + y) * output[2] + x;
                for ky in 0..kh {
                    for kx in 0..kw {
                        let (iy, ix) = (y * sy + ky, x * sx + kx);
                        let inside = (top..top + input[1]).contains(&iy)
                            && (left..left + input[2]).contains(&ix);
                        if inside {
                            let from = (b * input[1] + iy - top) * input[2] + ix - left;
                            visit(cell, ky * kw + kx, from);
                        }
                    }
                }
            }
        }
    }
}

pub(super) fn convolution(
    x: &FloatTensor,
    kernel: &FloatTensor,
    bias: Option<&[f32]>,
    window: &Window,
    shape: &[usize],
) -> Vec<f32> {
    let (n, c) = (shape[3], x.shape[3]);
    let per_output = kernel.data.len() / n;
    let mut result = filled(shape, bias);
    taps(&x.shape, shape, window, |cell, tap, from| {
        let row = &x.data[from * c..(from + 1) * c];
        for output in 0..n {
            let at = output * per_output + tap * c;
            let weights = &kernel.data[at..at + c];
            let sum: f32 = row.iter().zip(weights).map(|(a, b)| a * b).sum();
            result[cell * n + output] += sum;
        }
    });
    result
}

pub(super) fn depthwise(
    x: &FloatTensor,
    kernel: &FloatTensor,
    bias: Option<&[f32]>,
    window: &Window,
    shape: &[usize],
) -> Vec<f32> {
    let c = shape[3];
    let mut result = filled(shape, bias);
    taps(&x.shape, shape, window, |cell, tap, from| {
        for channel in 0..c {
            result[cell * c + channel] +=
                x.data[from * c + channel] * kernel.data[tap * c + channel];
        }
    });
    result
}

pub(super) fn pool(x: &FloatTensor, kind: PoolKind, window: &Window, shape: &[usize]) -> Vec<f32> {
    let c = shape[3];
    let start = if kind == PoolKind::Max { f32::NEG_INFINITY } else { 0.0 };
    let mut result = vec![start; shape.iter().product()];
    let mut counts = vec![0usize; result.len() / c];
    taps(&x.shape, shape, window, |cell, _, from| {
        counts[cell] += 1;
        for channel in 0..c {
            let (slot, value) = (&mut result[cell * c + channel], x.data[from * c + channel]);
            *slot = if kind == PoolKind::Max { slot.max(value) } else { *slot + value };
        }
    });
    if kind == PoolKind::Average {
        for (cell, count) in result.chunks_exact_mut(c).zip(counts) {
            cell.iter_mut().for_each(|v| *v /= count as f32);
        }
    }
    result
}

fn filled(shape: &[usize], bias: Option<&[f32]>) -> Vec<f32> {
    let cells = shape[..3].iter().product();
    match bias {
        Some(bias) => bias.repeat(cells),
        None => vec![0.0; cells * shape[3]],
    }
}
