//! Softmax of one row.

use super::{math::exp, reduce};

/// `exp(x - max) * (1 / sum)`.
pub fn softmax(values: &mut [f32]) {
    let max = reduce::max(values);
    for value in values.iter_mut() {
        *value = exp(*value - max);
    }
    let inverse = 1.0 / reduce::sum(values);
    for value in values {
        *value *= inverse;
    }
}
