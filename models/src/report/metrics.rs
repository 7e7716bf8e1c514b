//! How far one run is from another.

/// Sums over pairs of values, of any number of tensors.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ErrorSums {
    signal: f64,
    noise: f64,
    found: f64,
    product: f64,
    max: f64,
}

impl ErrorSums {
    /// Of one pair of tensors.
    pub fn of(reference: &[f32], found: &[f32]) -> Self {
        let mut sums = ErrorSums::default();
        sums.add(reference, found);
        sums
    }

    /// Adds a pair of tensors. Values that are not finite count as infinitely wrong.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn add(&mut self, reference: &[f32], found: &[f32]) {
        assert_eq!(reference.len(), found.len(), "two runs of one tensor");
        for (&r, &f) in reference.iter().zip(found) {
            let (r, f) = (f64::from(r), f64::from(f));
            let error = if f.is_finite() { (r - f).abs() } else { f64::INFINITY };
            self.signal += r * r;
            self.noise += error * error;
            self.found += f * f;
            self.product += r * f;
            self.max = self.max.max(error);
        }
    }

    /// Adds what another pair summed.
    pub fn merge(&mut self, other: &ErrorSums) {
        self.signal += other.signal;
        self.noise += other.noise;
        self.found += other.found;
        self.product += other.product;
        self.max = self.max.max(other.max);
    }

    /// Signal over noise in decibels; infinite where nothing differs.
    pub fn snr_db(&self) -> f64 {
        if self.noise == 0.0 { f64::INFINITY } else { 10.0 * (self.signal / self.noise).log10() }
    }

    /// Cosine of the angle between the runs; 1 where both are zero.
    pub fn cosine(&self) -> f64 {
        let norm = (self.signal * self.found).sqrt();
        match (norm == 0.0, self.noise == 0.0) {
            (_, true) => 1.0,
            (true, _) => 0.0,
            _ => self.product / norm,
        }
    }

    /// Root of the mean squared error over the root of the mean square.
    pub fn relative(&self) -> f64 {
        if self.noise == 0.0 { 0.0 } else { (self.noise / self.signal).sqrt() }
    }

    /// Largest absolute difference.
    pub fn max(&self) -> f64 {
        self.max
    }

    /// Sum of squared differences.
    pub fn noise(&self) -> f64 {
        self.noise
    }

    /// Sum of squares of the reference.
    pub fn signal(&self) -> f64 {
        self.signal
    }
}

/// Peak signal to noise ratio of two pictures of bytes, in decibels; infinite where they are equal.
///
/// # Panics
/// If the lengths differ.
pub fn psnr_db(reference: &[u8], found: &[u8]) -> f64 {
    assert_eq!(reference.len(), found.len(), "two pictures of one size");
    let squares: f64 =
        reference.iter().zip(found).map(|(&r, &f)| (f64::from(r) - f64::from(f)).powi(2)).sum();
    if squares == 0.0 {
        f64::INFINITY
    } else {
        10.0 * (255.0f64.powi(2) * reference.len() as f64 / squares).log10()
    }
}

/// The middle value, or the mean of the two in the middle. `None` of nothing.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        n if n % 2 == 1 => Some(sorted[middle]),
        _ => Some((sorted[middle - 1] + sorted[middle]) / 2.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenth_of_noise_is_twenty_decibels() {
        let reference = [1.0, -2.0, 3.0, 4.0];
        let found: Vec<f32> = [1.1, -2.2, 3.3, 4.4].to_vec();
        let sums = ErrorSums::of(&reference, &found);
        assert!((sums.snr_db() - 20.0).abs() < 1e-4 && (sums.cosine() - 1.0).abs() < 1e-6);
        assert!((sums.max() - 0.4).abs() < 1e-6 && (sums.relative() - 0.1).abs() < 1e-6);
        assert_eq!(ErrorSums::of(&reference, &reference).snr_db(), f64::INFINITY);
        let broken = ErrorSums::of(&[1.0], &[f32::NAN]);
        assert_eq!(broken.snr_db(), f64::NEG_INFINITY);
    }

    #[test]
    fn one_level_off_everywhere_is_48_decibels() {
        assert!((psnr_db(&[10; 99], &[11; 99]) - 48.13).abs() < 0.01);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(&[]), None);
    }
}
