//! Attention with the scores written out.

use super::{Array, Call, EvaluateError};

impl Call<'_> {
    pub(super) fn attention(
        &self,
        heads: usize,
        scale: f32,
        causal: bool,
    ) -> Result<Array, EvaluateError> {
        let (q, k, v) = (self.inputs[0], self.inputs[1], self.inputs[2]);
        let mask = self.inputs.get(3);
        self.require([q, k, v].iter().all(|a| a.shape.len() == 3) && k.shape == v.shape)?;
        let (b, m, width) = (q.shape[0], q.shape[1], q.shape[2]);
        let t = k.shape[1];
        self.require(
            k.shape[0] == b && k.shape[2] == width && heads > 0 && width.is_multiple_of(heads),
        )?;
        if let Some(mask) = mask {
            self.require(
                mask.shape.len() == 3
                    && [1, b].contains(&mask.shape[0])
                    && [1, m].contains(&mask.shape[1])
                    && mask.shape[2] == t,
            )?;
        }
        let d = width / heads;
        let mut out = vec![0.0f32; b * m * width];
        let mut scores = vec![0.0f32; t];
        for (row, out) in out.chunks_mut(width).enumerate() {
            let (sample, i) = (row / m, row % m);
            for head in 0..heads {
                let query = &q.values[row * width + head * d..][..d];
                for (j, score) in scores.iter_mut().enumerate() {
                    let key = &k.values[(sample * t + j) * width + head * d..][..d];
                    *score = query.iter().zip(key).map(|(a, b)| a * b).sum::<f32>() * scale;
                    if let Some(mask) = mask {
                        let mask_sample = sample % mask.shape[0];
                        let mask_row = i % mask.shape[1];
                        *score += mask.values[(mask_sample * mask.shape[1] + mask_row) * t + j];
                    }
                    if causal && j > i {
                        *score = f32::NEG_INFINITY;
                    }
                }
                softmax(&mut scores);
                let out = &mut out[head * d..][..d];
                for (j, &weight) in scores.iter().enumerate() {
                    let value = &v.values[(sample * t + j) * width + head * d..][..d];
                    out.iter_mut().zip(value).for_each(|(o, v)| *o += weight * v);
                }
            }
        }
        Ok(Array { shape: q.shape.clone(), values: out })
    }

    pub(super) fn softmax(&self) -> Result<Array, EvaluateError> {
        let mut out = self.inputs[0].clone();
        let row = out.channels().max(1);
        out.values.chunks_mut(row).for_each(softmax);
        Ok(out)
    }
}

fn softmax(row: &mut [f32]) {
    let max = row.iter().fold(f32::NEG_INFINITY, |m, &x| m.max(x));
    let mut sum = 0.0;
    for x in row.iter_mut() {
        *x = (*x - max).exp();
        sum += *x;
    }
    row.iter_mut().for_each(|x| *x /= sum);
}
