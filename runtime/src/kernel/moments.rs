//! Means and variances that are gathered row by row.

/// Count, mean and spread of a set of values.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Moments {
    /// Values.
    pub count: u32,
    /// Their mean.
    pub mean: f32,
    /// Sum of squared distances from the mean.
    pub m2: f32,
}

impl Moments {
    /// The moments of both sets together, by Chan's formula. Rows are merged in their order: the result
    /// depends on it.
    pub fn merge(self, other: Moments) -> Moments {
        if self.count == 0 {
            return other;
        }
        if other.count == 0 {
            return self;
        }
        // f64 costs nothing here: there is one merge a row and a group.
        let (a, b) = (f64::from(self.count), f64::from(other.count));
        let distance = f64::from(other.mean) - f64::from(self.mean);
        let part = b / (a + b);
        let mean = f64::from(self.mean) + distance * part;
        let m2 = f64::from(self.m2) + f64::from(other.m2) + distance * distance * (a * part);
        Moments { count: self.count + other.count, mean: mean as f32, m2: m2 as f32 }
    }
}

/// What a group norm applies to each channel: `scale = gamma / sqrt(var + eps)`,
/// `shift = beta - mean * scale`.
///
/// # Shape
/// `gamma`, `beta`, `scale`, `shift`: `[channels]`; `moments`: `[groups]`.
///
/// # Panics
/// If lengths differ or groups do not divide channels.
pub fn group_scale_shift(
    moments: &[Moments],
    gamma: &[f32],
    beta: &[f32],
    eps: f32,
    scale: &mut [f32],
    shift: &mut [f32],
) {
    let channels = gamma.len();
    assert!(
        beta.len() == channels && scale.len() == channels && shift.len() == channels,
        "a group norm's operands differ in length"
    );
    assert!(channels.is_multiple_of(moments.len()), "groups do not divide {channels} channels");
    let size = channels / moments.len();
    for (channel, (scale, shift)) in scale.iter_mut().zip(shift).enumerate() {
        let group = moments[channel / size];
        let inverse = 1.0 / (group.m2 / group.count as f32 + eps).sqrt();
        *scale = gamma[channel] * inverse;
        *shift = (-group.mean).mul_add(*scale, beta[channel]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moments(values: &[f32]) -> Moments {
        let mean = values.iter().sum::<f32>() / values.len() as f32;
        let m2 = values.iter().map(|x| (x - mean) * (x - mean)).sum();
        Moments { count: values.len() as u32, mean, m2 }
    }

    #[test]
    fn merged_rows_have_the_moments_of_the_whole() {
        let values: Vec<f32> = (0..60).map(|i| (i * i % 17) as f32 + 100.0).collect();
        let whole = moments(&values);
        let merged = values.chunks(7).map(moments).fold(Moments::default(), Moments::merge);
        assert_eq!(merged.count, 60);
        assert!((merged.mean - whole.mean).abs() < 1e-4, "{merged:?} {whole:?}");
        assert!((merged.m2 - whole.m2).abs() < 1e-2 * whole.m2, "{merged:?} {whole:?}");
    }

    #[test]
    fn a_group_is_scaled_to_mean_beta() {
        let group = moments(&[1.0, 3.0, 5.0, 7.0]);
        let (mut scale, mut shift) = ([0.0; 2], [0.0; 2]);
        group_scale_shift(&[group], &[2.0, 1.0], &[0.5, 0.0], 0.0, &mut scale, &mut shift);
        assert!((group.mean.mul_add(scale[0], shift[0]) - 0.5).abs() < 1e-6);
        assert!((scale[1] - 1.0 / 5f32.sqrt()).abs() < 1e-6);
    }
}
