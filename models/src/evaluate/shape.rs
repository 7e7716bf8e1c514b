//! Ops that move values, pool them, or look them up.

use plantain::graph::{PoolKind, ResizeMode, ShuffleOrder, Window};

use super::linear::{output_size, source_cell};
use super::pointwise::broadcast_indices;
use super::{Array, Call, EvaluateError};

impl Call<'_> {
    pub(super) fn resize(
        &self,
        factor: [u32; 2],
        mode: ResizeMode,
    ) -> Result<Array, EvaluateError> {
        let x = self.inputs[0];
        let [fy, fx] = factor.map(|f| f as usize);
        self.require(x.shape.len() == 4 && fy > 0 && fx > 0)?;
        let [b, h, w, c] = x.image();
        let mut out = Array::zeros(&[b, h * fy, w * fx, c]);
        let cell = |image: usize, y: usize, x_in: usize, channel: usize| {
            x.values[((image * h + y) * w + x_in) * c + channel]
        };
        for (index, slot) in out.values.iter_mut().enumerate() {
            let channel = index % c;
            let x_out = index / c % (w * fx);
            let y_out = index / (c * w * fx) % (h * fy);
            let image = index / (c * w * fx * h * fy);
            *slot = match mode {
                ResizeMode::Nearest => cell(image, y_out / fy, x_out / fx, channel),
                ResizeMode::Bilinear => {
                    let (y0, y1, ty) = between(y_out, fy, h);
                    let (x0, x1, tx) = between(x_out, fx, w);
                    let mix = |a: f32, b: f32, t: f32| a + (b - a) * t;
                    mix(
                        mix(cell(image, y0, x0, channel), cell(image, y0, x1, channel), tx),
                        mix(cell(image, y1, x0, channel), cell(image, y1, x1, channel), tx),
                        ty,
                    )
                }
            };
        }
        Ok(out)
    }

    pub(super) fn pixel_shuffle(
        &self,
        r: usize,
        order: ShuffleOrder,
    ) -> Result<Array, EvaluateError> {
        let x = self.inputs[0];
        self.require(x.shape.len() == 4 && r > 0 && x.channels().is_multiple_of(r * r))?;
        let [b, h, w, deep] = x.image();
        let c = deep / (r * r);
        let mut out = Array::zeros(&[b, h * r, w * r, c]);
        for (index, &value) in x.values.iter().enumerate() {
            let (row, column, image) =
                (index / (deep * w) % h, index / deep % w, index / (deep * w * h));
            let (channel, dy, dx) = unshuffle(index % deep, r, c, order);
            out.values[((image * h * r + row * r + dy) * w * r + column * r + dx) * c + channel] =
                value;
        }
        Ok(out)
    }

    pub(super) fn pixel_unshuffle(
        &self,
        r: usize,
        order: ShuffleOrder,
    ) -> Result<Array, EvaluateError> {
        let x = self.inputs[0];
        self.require(x.shape.len() == 4 && r > 0)?;
        let [b, tall, wide, c] = x.image();
        self.require(tall.is_multiple_of(r) && wide.is_multiple_of(r))?;
        let (h, w, deep) = (tall / r, wide / r, c * r * r);
        let mut out = Array::zeros(&[b, h, w, deep]);
        for (index, slot) in out.values.iter_mut().enumerate() {
            let (row, column, image) =
                (index / (deep * w) % h, index / deep % w, index / (deep * w * h));
            let (channel, dy, dx) = unshuffle(index % deep, r, c, order);
            *slot =
                x.values[((image * tall + row * r + dy) * wide + column * r + dx) * c + channel];
        }
        Ok(out)
    }

    pub(super) fn concat(&self, axis: usize) -> Result<Array, EvaluateError> {
        let rank = self.shape.len();
        self.require(axis < rank && self.inputs.iter().all(|a| a.shape.len() == rank))?;
        for input in self.inputs {
            let others = (0..rank).all(|i| i == axis || input.shape[i] == self.shape[i]);
            self.require(others)?;
        }
        let outer: usize = self.shape[..axis].iter().product();
        let mut values = Vec::with_capacity(self.shape.iter().product());
        for index in 0..outer {
            for input in self.inputs {
                let run: usize = input.shape[axis..].iter().product();
                values.extend_from_slice(&input.values[index * run..(index + 1) * run]);
            }
        }
        Ok(Array { shape: self.shape.to_vec(), values })
    }

    pub(super) fn slice(&self, axis: usize, start: usize) -> Result<Array, EvaluateError> {
        let x = self.inputs[0];
        self.require(axis < x.shape.len() && x.shape.len() == self.shape.len())?;
        let length = self.shape[axis];
        self.require(start + length <= x.shape[axis])?;
        let outer: usize = x.shape[..axis].iter().product();
        let inner: usize = x.shape[axis + 1..].iter().product();
        let mut values = Vec::with_capacity(outer * length * inner);
        for index in 0..outer {
            let from = (index * x.shape[axis] + start) * inner;
            values.extend_from_slice(&x.values[from..from + length * inner]);
        }
        Ok(Array { shape: self.shape.to_vec(), values })
    }

    pub(super) fn transpose(&self, permutation: &[u32]) -> Result<Array, EvaluateError> {
        let x = self.inputs[0];
        let rank = x.shape.len();
        let mut seen = vec![false; rank];
        self.require(permutation.len() == rank)?;
        for &axis in permutation {
            self.require((axis as usize) < rank && !seen[axis as usize])?;
            seen[axis as usize] = true;
        }
        let mut strides = vec![1; rank];
        for axis in (0..rank.saturating_sub(1)).rev() {
            strides[axis] = strides[axis + 1] * x.shape[axis + 1];
        }
        let mut indices = vec![0usize];
        for &axis in permutation {
            let (length, stride) = (x.shape[axis as usize], strides[axis as usize]);
            indices = indices
                .iter()
                .flat_map(|&base| (0..length).map(move |i| base + i * stride))
                .collect();
        }
        Ok(Array {
            shape: permutation.iter().map(|&axis| x.shape[axis as usize]).collect(),
            values: indices.into_iter().map(|i| x.values[i]).collect(),
        })
    }

    pub(super) fn expand(&self) -> Result<Array, EvaluateError> {
        let x = self.inputs[0];
        let indices = broadcast_indices(&x.shape, self.shape).ok_or_else(|| self.operands())?;
        let values = indices.into_iter().map(|i| x.values[i]).collect();
        Ok(Array { shape: self.shape.to_vec(), values })
    }

    pub(super) fn pad(&self, pad: [u32; 4], value: f32) -> Result<Array, EvaluateError> {
        let x = self.inputs[0];
        self.require(x.shape.len() == 4)?;
        let [b, h, w, c] = x.image();
        let [top, left, bottom, right] = pad.map(|p| p as usize);
        let (tall, wide) = (h + top + bottom, w + left + right);
        let mut out =
            Array { shape: vec![b, tall, wide, c], values: vec![value; b * tall * wide * c] };
        for (index, row) in x.values.chunks(w * c).enumerate() {
            let start = ((index / h * tall + index % h + top) * wide + left) * c;
            out.values[start..start + w * c].copy_from_slice(row);
        }
        Ok(out)
    }

    pub(super) fn gather(&self, table: &str, rows: usize) -> Result<Array, EvaluateError> {
        let ids = self.inputs[0];
        let c = self.shape.last().copied().unwrap_or(1);
        let table = self.tensor(table, rows * c)?;
        let mut values = Vec::with_capacity(ids.values.len() * c);
        for &id in &ids.values {
            if !(0.0..rows as f32).contains(&id) {
                return Err(EvaluateError::Id { node: self.node.name.clone(), id, rows });
            }
            values.extend_from_slice(&table[id as usize * c..][..c]);
        }
        Ok(Array { shape: self.shape.to_vec(), values })
    }

    pub(super) fn timestep_embedding(
        &self,
        frequencies: &str,
        sin_first: bool,
    ) -> Result<Array, EvaluateError> {
        let d = self.shape.last().copied().unwrap_or(0) / 2;
        let frequencies = self.tensor(frequencies, d)?;
        let mut values = Vec::with_capacity(self.inputs[0].values.len() * 2 * d);
        for &t in &self.inputs[0].values {
            let sines = frequencies.iter().map(|f| (t * f).sin());
            let cosines = frequencies.iter().map(|f| (t * f).cos());
            if sin_first {
                values.extend(sines.chain(cosines));
            } else {
                values.extend(cosines.chain(sines));
            }
        }
        Ok(Array { shape: self.shape.to_vec(), values })
    }

    pub(super) fn pool(&self, kind: PoolKind, window: &Window) -> Result<Array, EvaluateError> {
        let x = self.inputs[0];
        self.require(x.shape.len() == 4)?;
        let [b, h, w, c] = x.image();
        let [out_h, out_w] = output_size(h, w, window).ok_or_else(|| self.operands())?;
        let [kh, kw] = window.kernel.map(|v| v as usize);
        let mut out = Array::zeros(&[b, out_h, out_w, c]);
        for (index, slot) in out.values.iter_mut().enumerate() {
            let (channel, x_out, y) = (index % c, index / c % out_w, index / (c * out_w) % out_h);
            let image = index / (c * out_w * out_h);
            let cells = (0..kh * kw)
                .filter_map(|tap| source_cell(y, x_out, tap / kw, tap % kw, h, w, window))
                .map(|(sy, sx)| x.values[((image * h + sy) * w + sx) * c + channel]);
            *slot = match kind {
                PoolKind::Average => {
                    let (count, sum) = cells.fold((0, 0.0), |(n, s), v| (n + 1, s + v));
                    sum / count.max(1) as f32
                }
                PoolKind::Max => cells.fold(f32::NEG_INFINITY, f32::max),
            };
        }
        Ok(out)
    }

    pub(super) fn reduce(&self, axes: &[u32], mean: bool) -> Result<Array, EvaluateError> {
        let x = self.inputs[0];
        let rank = x.shape.len();
        self.require(axes.iter().all(|&axis| (axis as usize) < rank))?;
        let mut shape = x.shape.clone();
        axes.iter().for_each(|&axis| shape[axis as usize] = 1);
        let indices = broadcast_indices(&shape, &x.shape).ok_or_else(|| self.operands())?;
        let mut sums = vec![0.0f64; shape.iter().product()];
        indices.iter().zip(&x.values).for_each(|(&i, &v)| sums[i] += f64::from(v));
        let count = if mean { x.values.len() as f64 / sums.len() as f64 } else { 1.0 };
        Ok(Array { shape, values: sums.into_iter().map(|s| (s / count) as f32).collect() })
    }
}

/// Cells and weight of half-pixel linear interpolation by a whole factor, clamped at the edges.
fn between(out: usize, factor: usize, size: usize) -> (usize, usize, f32) {
    let position = ((out as f32 + 0.5) / factor as f32 - 0.5).clamp(0.0, (size - 1) as f32);
    let low = position.floor() as usize;
    (low, (low + 1).min(size - 1), position - low as f32)
}

/// Deep channel -> channel, dy, dx.
fn unshuffle(deep: usize, r: usize, c: usize, order: ShuffleOrder) -> (usize, usize, usize) {
    match order {
        ShuffleOrder::ChannelFirst => (deep / (r * r), deep / r % r, deep % r),
        ShuffleOrder::BlockFirst => (deep % c, deep / c / r, deep / c % r),
    }
}
