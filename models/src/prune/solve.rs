//! Symmetric systems: Cholesky's factor by blocks, so that the work is matrix products.

use ndarray::linalg::general_mat_mul;
use ndarray::{Array2, s};

/// Columns of a block.
const BLOCK: usize = 64;

/// Turns the lower triangle of a symmetric matrix into its Cholesky factor; `false` if it is not positive definite.
pub fn factorise(a: &mut Array2<f64>) -> bool {
    let n = a.nrows();
    for start in (0..n).step_by(BLOCK) {
        let end = (start + BLOCK).min(n);
        for column in start..end {
            for row in column..n {
                let mut sum = a[[row, column]];
                for k in start..column {
                    sum -= a[[row, k]] * a[[column, k]];
                }
                if row == column {
                    if sum.is_nan() || sum <= 0.0 {
                        return false;
                    }
                    a[[row, column]] = sum.sqrt();
                } else {
                    a[[row, column]] = sum / a[[column, column]];
                }
            }
        }
        let panel = a.slice(s![end.., start..end]).to_owned();
        general_mat_mul(-1.0, &panel, &panel.t(), 1.0, &mut a.slice_mut(s![end.., end..]));
    }
    true
}

/// Replaces `b` by the solution of `a x = b`, given the factor of `a`.
pub fn solve(factor: &Array2<f64>, b: &mut Array2<f64>) {
    let n = factor.nrows();
    for start in (0..n).step_by(BLOCK) {
        let end = (start + BLOCK).min(n);
        for row in start..end {
            for k in start..row {
                let (solved, mut this) = b.multi_slice_mut((s![k, ..], s![row, ..]));
                this.scaled_add(-factor[[row, k]], &solved);
            }
            let diagonal = factor[[row, row]];
            b.row_mut(row).mapv_inplace(|x| x / diagonal);
        }
        let (solved, mut rest) = b.multi_slice_mut((s![start..end, ..], s![end.., ..]));
        general_mat_mul(-1.0, &factor.slice(s![end.., start..end]), &solved, 1.0, &mut rest);
    }
    for start in (0..n).step_by(BLOCK).rev() {
        let end = (start + BLOCK).min(n);
        for row in (start..end).rev() {
            for k in row + 1..end {
                let (mut this, solved) = b.multi_slice_mut((s![row, ..], s![k, ..]));
                this.scaled_add(-factor[[k, row]], &solved);
            }
            let diagonal = factor[[row, row]];
            b.row_mut(row).mapv_inplace(|x| x / diagonal);
        }
        let (mut rest, solved) = b.multi_slice_mut((s![..start, ..], s![start..end, ..]));
        general_mat_mul(-1.0, &factor.slice(s![start..end, ..start]).t(), &solved, 1.0, &mut rest);
    }
}

/// The inverse of a symmetric positive definite matrix; `None` if it is none.
pub fn inverse(mut a: Array2<f64>) -> Option<Array2<f64>> {
    if !factorise(&mut a) {
        return None;
    }
    let mut inverse = Array2::eye(a.nrows());
    solve(&a, &mut inverse);
    Some(inverse)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inverse_of_several_blocks_gives_the_identity() {
        let n = 2 * BLOCK + 7;
        let half = Array2::from_shape_fn((n, n), |(i, j)| ((i * 31 + j * 17) % 23) as f64 / 23.0);
        let a = half.dot(&half.t()) + Array2::<f64>::eye(n);
        let identity = a.dot(&inverse(a.clone()).unwrap());
        let off =
            (&identity - &Array2::<f64>::eye(n)).mapv(f64::abs).fold(0.0, |m: f64, &x| m.max(x));
        assert!(off < 1e-8, "{off}");
        assert_eq!(inverse(-Array2::<f64>::eye(3)), None);
    }
}
