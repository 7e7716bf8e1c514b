//! Norms over channels.

use super::reduce::{sum, tree_sum};
use crate::kernel::LANES;

/// Lane `i % 16` is a chain of squared distances from `center`.
fn sum_of_squares(values: &[f32], center: f32) -> f32 {
    let mut lanes = [0f32; LANES];
    for (index, &value) in values.iter().enumerate() {
        let distance = value - center;
        lanes[index % LANES] = distance.mul_add(distance, lanes[index % LANES]);
    }
    tree_sum(lanes)
}

/// `(x - mean) / sqrt(var + eps) * gamma + beta`.
pub fn layer_norm(values: &mut [f32], gamma: &[f32], beta: Option<&[f32]>, eps: f32) {
    assert_eq!(values.len(), gamma.len(), "gamma has another length than the row");
    assert!(
        beta.is_none_or(|beta| beta.len() == values.len()),
        "beta has another length than the row"
    );
    let count = values.len() as f32;
    let mean = sum(values) / count;
    let variance = sum_of_squares(values, mean) / count;
    let inverse = 1.0 / (variance + eps).sqrt();
    for (index, value) in values.iter_mut().enumerate() {
        let shift = beta.map_or(0.0, |beta| beta[index]);
        *value = ((*value - mean) * inverse).mul_add(gamma[index], shift);
    }
}

/// `x / sqrt(mean(x^2) + eps) * gamma` over each run of `gamma.len()` values.
pub fn rms_norm(values: &mut [f32], gamma: &[f32], eps: f32) {
    assert!(values.len().is_multiple_of(gamma.len()), "gamma does not divide the row");
    for run in values.chunks_exact_mut(gamma.len()) {
        let inverse = 1.0 / (sum_of_squares(run, 0.0) / gamma.len() as f32 + eps).sqrt();
        for (value, gamma) in run.iter_mut().zip(gamma) {
            *value = *value * inverse * gamma;
        }
    }
}
