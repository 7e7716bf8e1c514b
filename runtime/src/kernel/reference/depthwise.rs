//! Depthwise convolution of one output row.

use crate::kernel::Lines;
use half::f16;

/// A chain over kernel row and column from the bias; cells outside the image are left out.
pub fn depthwise(lines: &Lines<'_>, weight: &[f16], bias: Option<&[f32]>, out: &mut [f32]) {
    lines.check(out.len());
    let channels = lines.channels;
    let kernel = lines.lines.len() * lines.kernel_columns * channels;
    assert_eq!(weight.len(), kernel, "weights do not fill the window");
    assert!(bias.is_none_or(|bias| bias.len() == channels), "biases do not fill the channels");
    for (x, cell) in out.chunks_exact_mut(channels).enumerate() {
        for (channel, out) in cell.iter_mut().enumerate() {
            let mut total = bias.map_or(0.0, |bias| bias[channel]);
            for (ky, line) in lines.lines.iter().enumerate() {
                let Some(line) = line else { continue };
                for kx in lines.columns(x) {
                    let input = line[(x * lines.stride + kx - lines.pad_left) * channels + channel];
                    let weight = weight[(ky * lines.kernel_columns + kx) * channels + channel];
                    total = input.mul_add(f16::to_f32_const(weight), total);
                }
            }
            *out = total;
        }
    }
}
