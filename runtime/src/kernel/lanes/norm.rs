//! Norms over channels, and softmax.

use super::math::exp;
use super::reduce::{max, sum_of_squares};
use super::{Lanes, load_part, store_part, sum, to_array};
use crate::kernel::{LANES, reference::tree_sum};

/// See [`crate::kernel::Kernels::layer_norm`].
#[inline(always)]
pub fn layer_norm<L: Lanes>(values: &mut [f32], gamma: &[f32], beta: Option<&[f32]>, eps: f32) {
    assert_eq!(values.len(), gamma.len(), "gamma has another length than the row");
    assert!(
        beta.is_none_or(|beta| beta.len() == values.len()),
        "beta has another length than the row"
    );
    let count = values.len() as f32;
    let mean = sum::<L>(values) / count;
    let variance = sum_of_squares::<L>(values, mean) / count;
    let inverse = L::splat(1.0 / (variance + eps).sqrt());
    let mean = L::splat(mean);
    for (index, (chunk, gamma)) in values.chunks_mut(LANES).zip(gamma.chunks(LANES)).enumerate() {
        let shift = match beta {
            Some(beta) => load_part(&beta[index * LANES..index * LANES + chunk.len()], 0.0),
            None => L::splat(0.0),
        };
        let normed = load_part::<L>(chunk, 0.0).sub(mean).mul(inverse);
        store_part(normed.mul_add(load_part(gamma, 0.0), shift), chunk);
    }
}

/// See [`crate::kernel::Kernels::rms_norm`].
#[inline(always)]
pub fn rms_norm<L: Lanes>(values: &mut [f32], gamma: &[f32], eps: f32) {
    assert!(values.len().is_multiple_of(gamma.len()), "gamma does not divide the row");
    for run in values.chunks_exact_mut(gamma.len()) {
        let mean = sum_of_squares::<L>(run, 0.0) / gamma.len() as f32;
        let inverse = L::splat(1.0 / (mean + eps).sqrt());
        for (chunk, gamma) in run.chunks_mut(LANES).zip(gamma.chunks(LANES)) {
            store_part(load_part::<L>(chunk, 0.0).mul(inverse).mul(load_part(gamma, 0.0)), chunk);
        }
    }
}

/// See [`crate::kernel::Kernels::softmax`].
#[inline(always)]
pub fn softmax<L: Lanes>(values: &mut [f32]) {
    let max = L::splat(max::<L>(values));
    let mut lanes = L::splat(0.0);
    for chunk in values.chunks_mut(LANES) {
        // Lanes without a value become 0.
        let value = exp(load_part::<L>(chunk, f32::NEG_INFINITY).sub(max));
        store_part(value, chunk);
        lanes = lanes.add(value);
    }
    let inverse = L::splat(1.0 / tree_sum(to_array(lanes)));
    for chunk in values.chunks_mut(LANES) {
        store_part(load_part::<L>(chunk, 0.0).mul(inverse), chunk);
    }
}
