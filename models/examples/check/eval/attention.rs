//! Attention, matmuls of computed values, norms and softmax.

use plantain_pack::lower::FloatTensor;

pub(super) fn attention(
    operands: &[&FloatTensor],
    heads: usize,
    scale: f32,
    causal: bool,
) -> Vec<f32> {
    let (q, k, v) = (operands[0], operands[1], operands[2]);
    let mask = operands.get(3);
    let [samples, m, width] = q.shape[..] else { return vec![] };
    let t = k.shape[1];
    let d = width / heads;
    let mut result = vec![0.0; q.data.len()];
    let mut scores = vec![0.0f32; t];
    for b in 0..samples {
        for head in 0..heads {
            for i in 0..m {
                let query = &q.data[((b * m + i) * width + head * d)..][..d];
                for (j, score) in scores.iter_mut().enumerate() {
                    let key = &k.data[((b * t + j) * width + head * d)..][..d];
                    let dot: f32 = query.iter().zip(key).map(|(a, b)| a * b).sum();
                    let added = mask.map_or(0.0, |mask| {
                        let (mb, mi) = (b % mask.shape[0], i % mask.shape[1]);
                        mask.data[(mb * mask.shape[1] + mi) * t + j]
                    });
                    let hidden = causal && j > i;
                    *score = if hidden { f32::NEG_INFINITY } else { scale * dot + added };
                }
                softmax_row(&mut scores);
                let out = &mut result[((b * m + i) * width + head * d)..][..d];
                for (j, &score) in scores.iter().enumerate() {
                    let value = &v.data[((b * t + j) * width + head * d)..][..d];
                    out.iter_mut().zip(value).for_each(|(o, v)| *o += score * v);
                }
            }
        }
    }
    result
}

pub(super) fn batch_matmul(a: &FloatTensor, b: &FloatTensor, transpose_b: bool) -> Vec<f32> {
    let rank = a.shape.len();
    let (m, k) = (a.shape[rank - 2], a.shape[rank - 1]);
    let n = if transpose_b { b.shape[rank - 2] } else { b.shape[rank - 1] };
    let batches: usize = a.shape[..rank - 2].iter().product();
    let mut result = Vec::with_capacity(batches * m * n);
    for batch in 0..batches {
        for i in 0..m {
            for j in 0..n {
                let mut sum = 0.0;
                for inner in 0..k {
                    let at = if transpose_b { j * k + inner } else { inner * n + j };
                    sum += a.data[(batch * m + i) * k + inner] * b.data[batch * k * n + at];
                }
                result.push(sum);
            }
        }
    }
    result
}

pub(super) fn softmax(x: &FloatTensor) -> Vec<f32> {
    let mut result = x.data.clone();
    result.chunks_exact_mut(x.shape[x.shape.len() - 1]).for_each(softmax_row);
    result
}

fn softmax_row(row: &mut [f32]) {
    let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    row.iter_mut().for_each(|v| *v = (*v - max).exp());
    let sum: f32 = row.iter().sum();
    row.iter_mut().for_each(|v| *v /= sum);
}

fn mean_and_variance(values: impl Iterator<Item = f32> + Clone) -> (f64, f64) {
    let count = values.clone().count() as f64;
    let mean = values.clone().map(f64::from).sum::<f64>() / count;
    let variance = values.map(|v| (f64::from(v) - mean).powi(2)).sum::<f64>() / count;
    (mean, variance)
}

pub(super) fn layer_norm(
    x: &FloatTensor,
    eps: f32,
    gamma: &[f32],
    beta: Option<&[f32]>,
) -> Vec<f32> {
    let mut result = x.data.clone();
    for row in result.chunks_exact_mut(gamma.len()) {
        let (mean, variance) = mean_and_variance(row.iter().copied());
        let factor = 1.0 / (variance + f64::from(eps)).sqrt();
        for (i, value) in row.iter_mut().enumerate() {
            let normed = ((f64::from(*value) - mean) * factor) as f32;
            *value = normed * gamma[i] + beta.map_or(0.0, |beta| beta[i]);
        }
    }
    result
}

pub(super) fn rms_norm(x: &FloatTensor, eps: f32, size: usize, gamma: &[f32]) -> Vec<f32> {
    let mut result = x.data.clone();
    for row in result.chunks_exact_mut(size) {
        let squares: f64 = row.iter().map(|&v| f64::from(v).powi(2)).sum();
        let factor = 1.0 / (squares / size as f64 + f64::from(eps)).sqrt();
        row.iter_mut().zip(gamma).for_each(|(v, g)| *v = (f64::from(*v) * factor) as f32 * g);
    }
    result
}

pub(super) fn group_norm(
    x: &FloatTensor,
    groups: usize,
    eps: f32,
    gamma: &[f32],
    beta: &[f32],
) -> Vec<f32> {
    let c = gamma.len();
    let per_group = c / groups;
    let mut result = x.data.clone();
    for sample in result.chunks_exact_mut(x.data.len() / x.shape[0]) {
        for group in 0..groups {
            let range = group * per_group..(group + 1) * per_group;
            let cells = sample.chunks_exact(c).flat_map(|cell| cell[range.clone()].iter().copied());
            let (mean, variance) = mean_and_variance(cells);
            let factor = 1.0 / (variance + f64::from(eps)).sqrt();
            for cell in sample.chunks_exact_mut(c) {
                for channel in range.clone() {
                    let normed = ((f64::from(cell[channel]) - mean) * factor) as f32;
                    cell[channel] = normed * gamma[channel] + beta[channel];
                }
            }
        }
    }
    result
}
