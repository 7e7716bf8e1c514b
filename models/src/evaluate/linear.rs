//! Matrix products, convolutions, and what int8 does to their operands.

use half::f16;
use plantain::graph::{Epilogue, InputScale, Weight, Window};

use super::{Array, Call, EvaluateError, pointwise};

/// Input columns that a convolution lays out at a time: each block reads all weights once.
const COLUMN_VALUES_MAX: usize = 1 << 22;

/// Replaces values by what int8 leaves of them: symmetric, `max |x| / 127`, half to even.
///
/// # Shape    `values`: any number of rows of `row` values
pub fn fake_quantise(values: &mut [f32], row: usize, input: InputScale) {
    for row in values.chunks_mut(row.max(1)) {
        let max = match input {
            InputScale::Row => row.iter().fold(0.0f32, |m, x| m.max(x.abs())),
            InputScale::Static(scale) => scale * 127.0,
        };
        if max > 0.0 {
            let (scale, inverse) = (max / 127.0, 127.0 / max);
            for x in row {
                *x = round_ties_even((*x * inverse).clamp(-127.0, 127.0)) * scale;
            }
        }
    }
}

/// The nearest whole number, half to even, of a magnitude below 2^22: without a call, so that loops are vectors.
pub fn round_ties_even(x: f32) -> f32 {
    const WHOLE: f32 = (3 << 22) as f32;
    (x + WHOLE) - WHOLE
}

/// `out [rows, n] = a [rows, k] b^T` with `b [n, k]`, or `b [k, n]` unless `transpose_b`.
pub(super) fn gemm(
    rows: usize,
    k: usize,
    n: usize,
    a: &[f32],
    b: &[f32],
    transpose_b: bool,
    out: &mut [f32],
) {
    assert!(a.len() >= rows * k && b.len() >= n * k && out.len() >= rows * n, "gemm operands");
    let a = ndarray::ArrayView2::from_shape((rows, k), &a[..rows * k]).expect("length checked");
    let b = if transpose_b {
        ndarray::ArrayView2::from_shape((n, k), &b[..n * k])
            .expect("length checked")
            .reversed_axes()
    } else {
        ndarray::ArrayView2::from_shape((k, n), &b[..n * k]).expect("length checked")
    };
    let mut out = ndarray::ArrayViewMut2::from_shape((rows, n), &mut out[..rows * n])
        .expect("length checked");
    ndarray::linalg::general_mat_mul(1.0, &a, &b, 0.0, &mut out);
}

impl Call<'_> {
    /// Weights as they will be stored: int8 where the layer is, rounded to f16 elsewhere if asked.
    fn linear_weight(&self, name: &str, size: usize) -> Result<&[f32], EvaluateError> {
        match &self.int8 {
            Some(layer) if layer.weight.len() == size => Ok(&layer.weight),
            _ => self.tensor(name, size),
        }
    }

    fn epilogue(
        &self,
        values: &mut [f32],
        n: usize,
        bias: Option<&str>,
        epilogue: &Epilogue,
    ) -> Result<(), EvaluateError> {
        let bias = bias.map(|name| self.tensor(name, n)).transpose()?;
        let residual = epilogue.residual.then(|| self.inputs[1]);
        if let Some(residual) = residual {
            self.require(residual.values.len() == values.len())?;
        }
        for (row_index, row) in values.chunks_mut(n).enumerate() {
            if let Some(bias) = bias {
                row.iter_mut().zip(bias).for_each(|(x, b)| *x += b);
            }
            if let Some(function) = epilogue.activation {
                row.iter_mut().for_each(|x| *x = pointwise::unary(function, *x));
            }
            if let Some(residual) = residual {
                let from = &residual.values[row_index * n..(row_index + 1) * n];
                row.iter_mut().zip(from).for_each(|(x, r)| *x += r);
            }
        }
        Ok(())
    }

    pub(super) fn matmul(
        &self,
        weight: &Weight,
        k: usize,
        n: usize,
        epilogue: &Epilogue,
    ) -> Result<Array, EvaluateError> {
        let x = self.inputs[0];
        self.require(k > 0 && x.channels() == k && self.shape.last() == Some(&n))?;
        let rows = x.values.len() / k;
        let matrix = self.linear_weight(&weight.panels, n * k)?;
        let mut out = vec![0.0; rows * n];
        match &self.int8 {
            Some(layer) => {
                let mut quantised = x.values.clone();
                fake_quantise(&mut quantised, k, layer.input);
                gemm(rows, k, n, &quantised, matrix, true, &mut out);
            }
            None => gemm(rows, k, n, &x.values, matrix, true, &mut out),
        }
        self.epilogue(&mut out, n, weight.bias.as_deref(), epilogue)?;
        let mut shape = x.shape.clone();
        *shape.last_mut().expect("k is its last dimension") = n;
        Ok(Array { shape, values: out })
    }

    pub(super) fn convolution(
        &self,
        weight: &Weight,
        c: usize,
        n: usize,
        window: &Window,
        epilogue: &Epilogue,
    ) -> Result<Array, EvaluateError> {
        let x = self.inputs[0];
        self.require(x.shape.len() == 4 && self.shape.len() == 4 && x.channels() == c)?;
        let [b, h, w, _] = x.image();
        let [kh, kw] = window.kernel.map(|v| v as usize);
        let [out_h, out_w] = output_size(h, w, window).ok_or_else(|| self.operands())?;
        let k = kh * kw * c;
        let matrix = self.linear_weight(&weight.panels, n * k)?;
        let mut source = x.clone();
        if let Some(layer) = &self.int8 {
            fake_quantise(&mut source.values, w * c, layer.input);
        }
        let mut out = vec![0.0; b * out_h * out_w * n];
        let block_cells = (COLUMN_VALUES_MAX / k).clamp(1, b * out_h * out_w);
        let mut columns = vec![0.0f32; block_cells * k];
        for (block, out) in out.chunks_mut(block_cells * n).enumerate() {
            let cells = out.len() / n;
            for (cell, column) in (block * block_cells..).zip(columns.chunks_mut(k)).take(cells) {
                window_columns(&source, window, [out_h, out_w], cell, column);
            }
            gemm(cells, k, n, &columns, matrix, true, out);
        }
        self.epilogue(&mut out, n, weight.bias.as_deref(), epilogue)?;
        Ok(Array { shape: vec![b, out_h, out_w, n], values: out })
    }

    pub(super) fn depthwise(
        &self,
        weight: &str,
        bias: Option<&str>,
        window: &Window,
        epilogue: &Epilogue,
    ) -> Result<Array, EvaluateError> {
        let x = self.inputs[0];
        self.require(x.shape.len() == 4)?;
        let [b, h, w, c] = x.image();
        let [kh, kw] = window.kernel.map(|v| v as usize);
        let [out_h, out_w] = output_size(h, w, window).ok_or_else(|| self.operands())?;
        let taps: Vec<f32> =
            self.tensor(weight, kh * kw * c)?.iter().map(|&v| f16::from_f32(v).to_f32()).collect();
        let mut out = vec![0.0; b * out_h * out_w * c];
        for (index, cell) in out.chunks_mut(c).enumerate() {
            let (image, y, x_out) = (index / (out_h * out_w), index / out_w % out_h, index % out_w);
            for tap in 0..kh * kw {
                if let Some((sy, sx)) = source_cell(y, x_out, tap / kw, tap % kw, h, w, window) {
                    let from = &x.values[((image * h + sy) * w + sx) * c..][..c];
                    let by = &taps[tap * c..(tap + 1) * c];
                    for ((o, v), t) in cell.iter_mut().zip(from).zip(by) {
                        *o += v * t;
                    }
                }
            }
        }
        self.epilogue(&mut out, c, bias, epilogue)?;
        Ok(Array { shape: vec![b, out_h, out_w, c], values: out })
    }

    pub(super) fn batch_matmul(&self, transpose_b: bool) -> Result<Array, EvaluateError> {
        let (a, b) = (self.inputs[0], self.inputs[1]);
        let rank = a.shape.len();
        self.require(rank >= 2 && b.shape.len() == rank && self.shape.len() == rank)?;
        let (m, k) = (a.shape[rank - 2], a.shape[rank - 1]);
        let (bk, n) = match transpose_b {
            true => (b.shape[rank - 1], b.shape[rank - 2]),
            false => (b.shape[rank - 2], b.shape[rank - 1]),
        };
        self.require(bk == k && a.shape[..rank - 2] == b.shape[..rank - 2])?;
        let batch: usize = a.shape[..rank - 2].iter().product();
        let mut out = vec![0.0; batch * m * n];
        for index in 0..batch {
            gemm(
                m,
                k,
                n,
                &a.values[index * m * k..],
                &b.values[index * k * n..],
                transpose_b,
                &mut out[index * m * n..],
            );
        }
        let mut shape = a.shape.clone();
        shape[rank - 1] = n;
        Ok(Array { shape, values: out })
    }
}

/// What a window reads at a cell of its output, `[kernel_rows, kernel_columns, c]`; zeros in the padding. Cells are counted
/// over all images.
pub(crate) fn window_columns(
    x: &Array,
    window: &Window,
    [out_h, out_w]: [usize; 2],
    cell: usize,
    columns: &mut [f32],
) {
    let [_, h, w, c] = x.image();
    let (image, y, x_out) = (cell / (out_h * out_w), cell / out_w % out_h, cell % out_w);
    let kernel_columns = window.kernel[1] as usize;
    for (tap, into) in columns.chunks_mut(c).enumerate() {
        let (row, column) = (tap / kernel_columns, tap % kernel_columns);
        match source_cell(y, x_out, row, column, h, w, window) {
            Some((sy, sx)) => {
                let start = ((image * h + sy) * w + sx) * c;
                into.copy_from_slice(&x.values[start..start + c]);
            }
            None => into.fill(0.0),
        }
    }
}

/// Rows and columns after a window has passed; `None` if it does not fit.
pub(super) fn output_size(h: usize, w: usize, window: &Window) -> Option<[usize; 2]> {
    let along = |size: usize, before: u32, after: u32, kernel: u32, stride: u32| {
        let padded = size + before as usize + after as usize;
        (stride > 0 && kernel > 0)
            .then(|| padded.checked_sub(kernel as usize))?
            .map(|rest| rest / stride as usize + 1)
    };
    let [top, left, bottom, right] = window.pad;
    Some([
        along(h, top, bottom, window.kernel[0], window.stride[0])?,
        along(w, left, right, window.kernel[1], window.stride[1])?,
    ])
}

/// The input cell under a tap of the window at an output cell; `None` in the padding.
pub(super) fn source_cell(
    y: usize,
    x: usize,
    tap_row: usize,
    tap_column: usize,
    h: usize,
    w: usize,
    window: &Window,
) -> Option<(usize, usize)> {
    let sy = (y * window.stride[0] as usize + tap_row).checked_sub(window.pad[0] as usize)?;
    let sx = (x * window.stride[1] as usize + tap_column).checked_sub(window.pad[1] as usize)?;
    (sy < h && sx < w).then_some((sy, sx))
}
