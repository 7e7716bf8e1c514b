//! Pooling of one output row.

use crate::graph::PoolKind;
use crate::kernel::Lines;

/// Over the cells inside the image, in order of kernel row and column.
pub fn pool(kind: PoolKind, lines: &Lines<'_>, out: &mut [f32]) {
    lines.check(out.len());
    let channels = lines.channels;
    for (x, cell) in out.chunks_exact_mut(channels).enumerate() {
        let rows = lines.lines.iter().flatten().count();
        let count = (rows * lines.columns(x).len()) as f32;
        for (channel, out) in cell.iter_mut().enumerate() {
            let inside = lines.lines.iter().flatten().flat_map(|line| {
                lines
                    .columns(x)
                    .map(|kx| line[(x * lines.stride + kx - lines.pad_left) * channels + channel])
            });
            *out = match kind {
                PoolKind::Average => inside.fold(0.0, |sum, value| sum + value) / count,
                PoolKind::Max => inside
                    .fold(f32::NEG_INFINITY, |most, value| if value > most { value } else { most }),
            };
        }
    }
}
