//! Norms, with sums in f64.

use plantain::graph::Unary;

use super::{Array, Call, EvaluateError, pointwise};

impl Call<'_> {
    pub(super) fn layer_norm(
        &self,
        eps: f32,
        gamma: &str,
        beta: Option<&str>,
    ) -> Result<Array, EvaluateError> {
        let mut out = self.inputs[0].clone();
        let c = out.channels().max(1);
        let gamma = self.tensor(gamma, c)?;
        let beta = beta.map(|name| self.tensor(name, c)).transpose()?;
        for row in out.values.chunks_mut(c) {
            let (mean, variance) = moments(row.iter().copied());
            let inverse = 1.0 / (variance + f64::from(eps)).sqrt();
            for (i, x) in row.iter_mut().enumerate() {
                *x = ((f64::from(*x) - mean) * inverse) as f32 * gamma[i]
                    + beta.map_or(0.0, |b| b[i]);
            }
        }
        Ok(out)
    }

    pub(super) fn rms_norm(
        &self,
        eps: f32,
        size: usize,
        gamma: &str,
    ) -> Result<Array, EvaluateError> {
        let mut out = self.inputs[0].clone();
        self.require(size > 0 && out.channels().is_multiple_of(size))?;
        let gamma = self.tensor(gamma, size)?;
        for run in out.values.chunks_mut(size) {
            let square = run.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / size as f64;
            let inverse = 1.0 / (square + f64::from(eps)).sqrt();
            for (x, g) in run.iter_mut().zip(gamma) {
                *x = (f64::from(*x) * inverse) as f32 * g;
            }
        }
        Ok(out)
    }

    pub(super) fn group_norm(
        &self,
        groups: usize,
        eps: f32,
        gamma: &str,
        beta: &str,
        activation: Option<Unary>,
    ) -> Result<Array, EvaluateError> {
        let mut out = self.inputs[0].clone();
        let c = out.channels();
        self.require(groups > 0 && c > 0 && c.is_multiple_of(groups) && out.shape.len() >= 3)?;
        let (gamma, beta) = (self.tensor(gamma, c)?, self.tensor(beta, c)?);
        let per_group = c / groups;
        let sample = out.values.len() / out.shape[0];
        for sample in out.values.chunks_mut(sample) {
            for group in 0..groups {
                let channels = group * per_group..(group + 1) * per_group;
                let cells =
                    sample.chunks(c).flat_map(|cell| cell[channels.clone()].iter().copied());
                let (mean, variance) = moments(cells);
                let inverse = 1.0 / (variance + f64::from(eps)).sqrt();
                for cell in sample.chunks_mut(c) {
                    for i in channels.clone() {
                        let y = ((f64::from(cell[i]) - mean) * inverse) as f32 * gamma[i] + beta[i];
                        cell[i] = activation.map_or(y, |function| pointwise::unary(function, y));
                    }
                }
            }
        }
        Ok(out)
    }
}

/// Mean and variance.
fn moments(values: impl Iterator<Item = f32> + Clone) -> (f64, f64) {
    let (count, sum) = values.clone().fold((0usize, 0.0f64), |(n, s), x| (n + 1, s + f64::from(x)));
    let mean = sum / count.max(1) as f64;
    let squares = values.map(|x| (f64::from(x) - mean).powi(2)).sum::<f64>();
    (mean, squares / count.max(1) as f64)
}
