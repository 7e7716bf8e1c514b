//! Normal equations of a layer: sums over rows of what it reads and of what it should make.

use ndarray::linalg::general_mat_mul;
use ndarray::{Array2, s};

use super::solve::{factorise, solve};
use crate::evaluate::{Array, window_columns};
use crate::quantise::Layer;

/// Ridges that are tried, as shares of the mean square of the inputs.
const RIDGES: [f64; 6] = [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1];

/// Which rows of an array of `rows` are taken: at most `max`, evenly, those with a weight of zero left out.
pub fn pick(rows: usize, max: usize, weights: Option<&[f32]>) -> Vec<usize> {
    let used = |row: &usize| weights.is_none_or(|w| w.len() != rows || w[*row] > 0.0);
    let all: Vec<usize> = (0..rows).filter(used).collect();
    let count = all.len().min(max);
    (0..count).map(|i| all[i * all.len() / count]).collect()
}

/// What a layer reads in some of its output's rows, `[rows, products + 1]`: the last column is one, for the bias.
pub fn inputs(layer: &Layer, x: &Array, out: &[usize], rows: &[usize]) -> Array2<f32> {
    let k = layer.products();
    let mut read = Array2::ones((rows.len(), k + 1));
    for (mut into, &row) in read.rows_mut().into_iter().zip(rows) {
        let into = into.as_slice_mut().expect("rows are contiguous");
        match layer.window {
            None => into[..k].copy_from_slice(&x.values[row * k..(row + 1) * k]),
            Some(window) => window_columns(x, window, [out[1], out[2]], row, &mut into[..k]),
        }
    }
    read
}

/// Sums of a layer's least squares.
#[derive(Clone, Debug)]
pub struct Normal {
    /// `[k, k]` with `k = products + 1`.
    pub gram: Array2<f64>,
    /// `[k, n]`
    pub cross: Array2<f64>,
    /// Rows that wait to be summed together.
    waiting: [Vec<f32>; 2],
}

/// Rows that are summed together.
const ROWS_TOGETHER: usize = 1024;

impl Normal {
    /// Of no rows. `n` may be 0 where only the inputs matter.
    pub fn new(k: usize, n: usize) -> Self {
        Normal {
            gram: Array2::zeros((k, k)),
            cross: Array2::zeros((k, n)),
            waiting: Default::default(),
        }
    }

    /// Adds rows of inputs `[rows, k]` and targets `[rows, n]`.
    pub fn add(&mut self, x: &Array2<f32>, y: &Array2<f32>) {
        self.waiting[0].extend(x.iter());
        self.waiting[1].extend(y.iter());
        if self.waiting[0].len() >= ROWS_TOGETHER * self.gram.nrows() {
            self.flush();
        }
    }

    /// Sums what waits; to be called after the last [`Normal::add`].
    pub fn flush(&mut self) {
        let [x, y] = std::mem::take(&mut self.waiting);
        let (k, n) = self.cross.dim();
        let rows = x.len() / k.max(1);
        let (Ok(x), Ok(y)) =
            (Array2::from_shape_vec((rows, k), x), Array2::from_shape_vec((rows, n), y))
        else {
            return;
        };
        let mut sums = Array2::<f32>::zeros(self.gram.raw_dim());
        general_mat_mul(1.0, &x.t(), &x, 0.0, &mut sums);
        self.gram.zip_mut_with(&sums, |sum, &x| *sum += f64::from(x));
        let mut sums = Array2::<f32>::zeros(self.cross.raw_dim());
        general_mat_mul(1.0, &x.t(), &y, 0.0, &mut sums);
        self.cross.zip_mut_with(&sums, |sum, &x| *sum += f64::from(x));
    }

    /// Adds another's sums.
    pub fn merge(&mut self, other: &Normal) {
        self.gram += &other.gram;
        self.cross += &other.cross;
    }

    /// Squared error of weights `[k, n]`, but for a summand that does not depend on them.
    fn error(&self, weights: &Array2<f64>) -> f64 {
        let product = self.gram.dot(weights);
        (weights * &(&product - &(&self.cross * 2.0))).sum()
    }

    /// Weights `[k, n]`, zero but in the columns `kept`, that come closest to the targets and, by a ridge, to `prior`.
    fn fit(&self, kept: &[usize], prior: &Array2<f64>, ridge: f64) -> Option<Array2<f64>> {
        let mut gram = self.gram.select(ndarray::Axis(0), kept).select(ndarray::Axis(1), kept);
        let mut right = self.cross.select(ndarray::Axis(0), kept);
        let mean = gram.diag().sum() / kept.len().max(1) as f64;
        let ridge = ridge * mean.max(f64::MIN_POSITIVE);
        gram.diag_mut().mapv_inplace(|x| x + ridge);
        right.scaled_add(ridge, &prior.select(ndarray::Axis(0), kept));
        if !factorise(&mut gram) {
            return None;
        }
        solve(&gram, &mut right);
        let mut weights = Array2::zeros(prior.raw_dim());
        for (row, &column) in right.rows().into_iter().zip(kept) {
            weights.slice_mut(s![column, ..]).assign(&row);
        }
        Some(weights)
    }

    /// [`Normal::fit`] with the ridge that does best on rows of other samples. The prior stays where nothing fits better.
    pub fn fit_best(&self, held: &Normal, kept: &[usize], prior: &Array2<f64>) -> Array2<f64> {
        let mut best = (held.error(prior), None);
        for ridge in RIDGES {
            if let Some(weights) = self.fit(kept, prior, ridge) {
                let error = held.error(&weights);
                if error < best.0 {
                    best = (error, Some(ridge));
                }
            }
        }
        let mut all = self.clone();
        all.merge(held);
        best.1.and_then(|ridge| all.fit(kept, prior, ridge)).unwrap_or_else(|| prior.clone())
    }
}

/// A layer's weights and bias as `[products + 1, n]`.
pub fn stacked(weights: &[f32], bias: Option<&[f32]>, n: usize) -> Array2<f64> {
    let k = weights.len() / n;
    Array2::from_shape_fn((k + 1, n), |(column, row)| match column == k {
        true => bias.map_or(0.0, |bias| f64::from(bias[row])),
        false => f64::from(weights[row * k + column]),
    })
}

/// The inverse of [`stacked`].
pub fn unstacked(stacked: &Array2<f64>) -> (Vec<f32>, Vec<f32>) {
    let (k, n) = (stacked.nrows() - 1, stacked.ncols());
    let weights = (0..n * k).map(|i| stacked[[i % k, i / k]] as f32).collect();
    (weights, stacked.row(k).iter().map(|&x| x as f32).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_that_repeats_another_is_made_up_for() {
        let x = Array2::from_shape_fn((200, 4), |(row, column)| match column {
            3 => 1.0,
            2 => ((row * 7) % 13) as f32 * 2.0 + 1.0,
            column => ((row * (column * 12 + 7)) % 13) as f32,
        });
        let y = x.dot(&ndarray::array![[1.0f32], [-2.0], [0.5], [3.0]]);
        let mut normal = Normal::new(4, 1);
        normal.add(&x.slice(s![..150, ..]).to_owned(), &y.slice(s![..150, ..]).to_owned());
        normal.flush();
        let mut held = Normal::new(4, 1);
        held.add(&x.slice(s![150.., ..]).to_owned(), &y.slice(s![150.., ..]).to_owned());
        held.flush();
        let prior = ndarray::array![[1.0], [-2.0], [0.0], [3.0]];
        let found = normal.fit_best(&held, &[0, 1, 3], &prior);
        // Column 2 was twice column 0 and one.
        let wanted = ndarray::array![[2.0], [-2.0], [0.0], [3.5]];
        assert!((&found - &wanted).iter().all(|x| x.abs() < 1e-2), "{found}");
        let (weights, bias) = unstacked(&found);
        let again = stacked(&weights, Some(&bias), 1);
        assert!((&again - &found).iter().all(|x| x.abs() < 1e-6));
    }

    #[test]
    fn rows_are_picked_evenly_and_without_padding() {
        assert_eq!(pick(6, 3, None), [0, 2, 4]);
        assert_eq!(pick(4, 9, Some(&[1.0, 0.0, 1.0, 0.0])), [0, 2]);
        assert_eq!(pick(4, 2, Some(&[1.0])), [0, 2]);
    }
}
