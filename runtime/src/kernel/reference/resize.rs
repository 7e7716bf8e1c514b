//! Blending of rows and stretching of one.

use crate::graph::ResizeMode;
use crate::kernel::ResizeRow;

/// `weight * (b - a) + a`.
pub fn blend(a: &[f32], b: &[f32], weight: f32, out: &mut [f32]) {
    assert!(a.len() == out.len() && b.len() == out.len(), "rows to blend differ in length");
    for ((&a, &b), out) in a.iter().zip(b).zip(out) {
        *out = weight.mul_add(b - a, a);
    }
}

/// Cell by cell.
pub fn resize_row(resize: &ResizeRow, row: &[f32], out: &mut [f32]) {
    let channels = resize.channels;
    assert_eq!(out.len(), row.len() * resize.factor, "the output row is not the input's multiple");
    assert!(row.len().is_multiple_of(channels), "the row is not whole cells");
    let width = row.len() / channels;
    for (x, out) in out.chunks_exact_mut(channels).enumerate() {
        for (channel, out) in out.iter_mut().enumerate() {
            *out = match resize.mode {
                ResizeMode::Nearest => row[x / resize.factor * channels + channel],
                ResizeMode::Bilinear => {
                    let (left, right, weight) = ResizeRow::source(x, resize.factor, width);
                    let (a, b) = (row[left * channels + channel], row[right * channels + channel]);
                    weight.mul_add(b - a, a)
                }
            };
        }
    }
}
