//! int8 weights: one symmetric scale per output, its range found by squared error.

use crate::evaluate::round_ties_even;

/// int8 weights of one matrix, in the float form's order.
#[derive(Clone, Debug, PartialEq)]
pub struct Int8Weights {
    /// `[n, taps, c]`, each -127..=127.
    pub values: Vec<i8>,
    /// `[n]`
    pub scale: Vec<f32>,
}

/// Shares of the largest weight that are tried as the end of the range.
const CLIPS: [f32; 8] = [1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65];

impl Int8Weights {
    /// Quantises `[n, taps, c]`. `energy` is the mean square of the input by channel `[c]`: an error in a weight
    /// counts by what it multiplies. Without clipping nothing is lost at the largest weight; with it the others
    /// are finer; the better of a few clips is taken for each output.
    ///
    /// # Panics
    /// If `weights` is not `n` rows of a multiple of `energy.len()` values.
    pub fn quantise(weights: &[f32], n: usize, energy: &[f32]) -> Self {
        let row = weights.len() / n;
        assert!(
            row * n == weights.len() && row.is_multiple_of(energy.len()),
            "{n} rows of {} channels do not make {} weights",
            energy.len(),
            weights.len()
        );
        let mut values = Vec::with_capacity(weights.len());
        let mut scale = Vec::with_capacity(n);
        for row in weights.chunks(row) {
            let max = row.iter().fold(0.0f32, |m, w| m.max(w.abs()));
            if max == 0.0 {
                scale.push(1.0);
                values.resize(values.len() + row.len(), 0);
                continue;
            }
            let best = CLIPS
                .into_iter()
                .map(|clip| (clip, error(row, energy, max * clip / 127.0)))
                .reduce(|best, next| if next.1 < best.1 { next } else { best })
                .map_or(1.0, |(clip, _)| clip);
            let step = max * best / 127.0;
            scale.push(step);
            values.extend(row.iter().map(|&w| level(w, step) as i8));
        }
        Int8Weights { values, scale }
    }

    /// The weights that the kernels will see.
    pub fn dequantise(&self) -> Vec<f32> {
        let row = self.values.len() / self.scale.len();
        self.values
            .chunks(row)
            .zip(&self.scale)
            .flat_map(|(row, scale)| row.iter().map(move |&w| f32::from(w) * scale))
            .collect()
    }
}

/// Squared error of a row, weighted by its input's energy; summed in lanes, so that it is computed in vectors.
fn error(row: &[f32], energy: &[f32], step: f32) -> f64 {
    const LANES: usize = 8;
    let mut sums = [0.0f64; LANES];
    for tap in row.chunks(energy.len()) {
        for (weights, energies) in tap.chunks(LANES).zip(energy.chunks(LANES)) {
            for (sum, (&w, &e)) in sums.iter_mut().zip(weights.iter().zip(energies)) {
                let off = f64::from(w - step * level(w, step));
                *sum += f64::from(e) * off * off;
            }
        }
    }
    sums.iter().sum()
}

fn level(w: f32, step: f32) -> f32 {
    round_ties_even((w / step).clamp(-127.0, 127.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn even_weights_keep_their_whole_range_and_zero_rows_stay_zero() {
        let weights = [1.27, -0.64, 0.01, 0.0, 0.0, 0.0];
        let q = Int8Weights::quantise(&weights, 2, &[1.0; 3]);
        assert_eq!(q.values, [127, -64, 1, 0, 0, 0]);
        assert!((q.scale[0] - 0.01).abs() < 1e-6 && q.scale[1] == 1.0);
    }

    #[test]
    fn an_outlier_is_clipped_only_where_its_input_is_weak() {
        let mut weights: Vec<f32> =
            (0..256).map(|i| ((i * 29 % 97) as f32 - 48.0) / 50.0).collect();
        weights[7] = 4.0;
        let mut energy = vec![1.0; 256];
        let kept = Int8Weights::quantise(&weights, 1, &energy);
        energy[7] = 1e-6;
        let clipped = Int8Weights::quantise(&weights, 1, &energy);
        assert!((kept.scale[0] - 4.0 / 127.0).abs() < 1e-6);
        assert!(clipped.scale[0] < 0.7 * kept.scale[0] && clipped.values[7] == 127);
    }
}
