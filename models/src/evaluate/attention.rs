//! Attention with the scores written out, and as int8 products make it.

use plantain::kernel::{
    ATTENTION_KEYS, AttentionI8, Kernels, KeyRows, KeyTile, Mask, Row, RowMut, Rows, RowsMut,
    reference,
};

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
        let [b, m, t, width] = self.attention_sizes(heads)?;
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

    /// Batch, queries, keys, channels.
    fn attention_sizes(&self, heads: usize) -> Result<[usize; 4], EvaluateError> {
        let (q, k, v) = (self.inputs[0], self.inputs[1], self.inputs[2]);
        self.require([q, k, v].iter().all(|a| a.shape.len() == 3) && k.shape == v.shape)?;
        let (b, m, width) = (q.shape[0], q.shape[1], q.shape[2]);
        let t = k.shape[1];
        self.require(
            k.shape[0] == b && k.shape[2] == width && heads > 0 && width.is_multiple_of(heads),
        )?;
        if let Some(mask) = self.inputs.get(3) {
            self.require(
                mask.shape.len() == 3
                    && [1, b].contains(&mask.shape[0])
                    && [1, m].contains(&mask.shape[1])
                    && mask.shape[2] == t,
            )?;
        }
        Ok([b, m, t, width])
    }

    /// With the engine's own kernels: what they round is what is to be measured.
    pub(super) fn attention_int8(
        &self,
        heads: usize,
        scale: f32,
        causal: bool,
    ) -> Result<Array, EvaluateError> {
        let [b, m, t, width] = self.attention_sizes(heads)?;
        let kernels = Kernels::chosen().unwrap_or(&reference::KERNELS);
        let d = width / heads;
        let words = KeyTile::words(d);
        let mut tiles = vec![0.0; t.div_ceil(ATTENTION_KEYS) * words];
        let mut scratch = vec![0.0; AttentionI8::scratch(m, d)];
        let mut out = vec![0.0f32; b * m * width];
        // From one head's first value of a sample on.
        let rows = |input: usize, sample: usize, first: usize, head: usize| {
            let array = self.inputs[input];
            let start = (sample * array.shape[1] + first) * width + head * d;
            let end = (sample + 1) * array.shape[1] * width;
            Rows { data: Row::F32(&array.values[start..end]), stride: width }
        };
        for (sample, out) in out.chunks_mut(m * width).enumerate() {
            let mask = self.inputs.get(3).map(|mask| {
                let rows = mask.shape[1];
                let data = &mask.values[sample % mask.shape[0] * rows * t..][..rows * t];
                Mask { data, stride: if rows == 1 { 0 } else { t } }
            });
            for head in 0..heads {
                for (index, tile) in tiles.chunks_exact_mut(words).enumerate() {
                    let first = index * ATTENTION_KEYS;
                    let keys = KeyRows {
                        keys: (t - first).min(ATTENTION_KEYS),
                        head: d,
                        k: rows(1, sample, first, head),
                        v: rows(2, sample, first, head),
                        offset: kernels.gemm_i8.act_offset,
                    };
                    (kernels.quantise_keys)(&keys, tile);
                }
                let attention = AttentionI8 {
                    queries: m,
                    keys: t,
                    head: d,
                    q: rows(0, sample, 0, head),
                    tiles: &tiles,
                    tile_stride: words,
                    scale,
                    mask,
                    causal: causal.then_some(0),
                };
                let data = RowMut::F32(&mut out[head * d..]);
                let out = RowsMut { data, stride: width };
                (kernels.attention_i8)(&attention, &kernels.gemm_i8, &mut scratch, out);
            }
        }
        Ok(Array { shape: self.inputs[0].shape.clone(), values: out })
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
