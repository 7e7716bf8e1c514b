//! Attention with the scores written out, and as int8 products make it.

use plantain::kernel::{
    ATTENTION_I8_KEYS, AttentionI8, Kernels, KeyRows, KeyTile, Mask, Row, RowMut, Rows, RowsMut,
    reference,
};

use super::linear::gemm;
use super::{Array, Call, EvaluateError};

/// Queries whose scores are held at a time.
const QUERIES: usize = 64;

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
        let mut scores = vec![0.0f32; QUERIES.min(m) * t];
        let mut sums = vec![0.0f32; QUERIES.min(m) * d];
        for (sample, head) in (0..b).flat_map(|sample| (0..heads).map(move |head| (sample, head))) {
            let keys = columns(k, sample, head * d, d);
            let values = columns(v, sample, head * d, d);
            let queries = columns(q, sample, head * d, d);
            for (block, queries) in queries.chunks(QUERIES * d).enumerate() {
                let (first, rows) = (block * QUERIES, queries.len() / d);
                let scores = &mut scores[..rows * t];
                gemm(rows, d, t, queries, &keys, true, scores);
                for (i, scores) in (first..).zip(scores.chunks_mut(t)) {
                    scores.iter_mut().for_each(|score| *score *= scale);
                    if let Some(mask) = mask {
                        let row = sample % mask.shape[0] * mask.shape[1] + i % mask.shape[1];
                        let mask = &mask.values[row * t..][..t];
                        scores.iter_mut().zip(mask).for_each(|(score, m)| *score += m);
                    }
                    if causal {
                        scores.iter_mut().skip(i + 1).for_each(|score| *score = f32::NEG_INFINITY);
                    }
                    softmax(scores);
                }
                gemm(rows, t, d, scores, &values, false, &mut sums);
                for (i, sums) in (first..).zip(sums.chunks(d)).take(rows) {
                    out[(sample * m + i) * width + head * d..][..d].copy_from_slice(sums);
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
        let mut tiles = vec![0.0; t.div_ceil(ATTENTION_I8_KEYS) * words];
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
                    let first = index * ATTENTION_I8_KEYS;
                    let keys = KeyRows {
                        keys: (t - first).min(ATTENTION_I8_KEYS),
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

/// Some channels of every row of a sample of `[b, rows, width]`, close together.
fn columns(array: &Array, sample: usize, first: usize, count: usize) -> Vec<f32> {
    let (rows, width) = (array.shape[1], array.shape[2]);
    let rows = array.values[sample * rows * width..][..rows * width].chunks(width);
    rows.flat_map(|row| &row[first..first + count]).copied().collect()
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
