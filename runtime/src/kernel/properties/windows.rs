//! Properties of windows and of stretching.

use super::{Draw, oracle, over, same};
use crate::graph::{PoolKind, ResizeMode};
use crate::kernel::{Kernels, Lines, ResizeRow};
use proptest::prelude::any;

pub fn depthwise(table: &Kernels) {
    over!(64, |(width in 1usize..12, channels in 1usize..40, kh in 1usize..5, kw in 1usize..5, stride in 1usize..3,
                out_width in 1usize..9, outside in 0usize..6, biased in any::<bool>(), seed in any::<u64>())| {
        let mut draw = Draw::new(seed);
        let data: Vec<Vec<f32>> = (0..kh).map(|_| draw.floats(width * channels, 3.0)).collect();
        let lines: Vec<Option<&[f32]>> =
            data.iter().enumerate().map(|(y, line)| (y != outside).then_some(&line[..])).collect();
        let lines = Lines {
            lines: &lines, width, channels, kernel_columns: kw, stride, pad_left: kw / 2,
        };
        let weight = draw.halves(kh * kw * channels, 1.0);
        let bias = draw.floats(channels, 1.0);
        let bias = biased.then_some(&bias[..]);
        let (mut got, mut expected) =
            (vec![0.0; out_width * channels], vec![0.0; out_width * channels]);
        (table.depthwise)(&lines, &weight, bias, &mut got);
        (oracle().depthwise)(&lines, &weight, bias, &mut expected);
        same(&got, &expected, "depthwise");
    });
}

pub fn pool(table: &Kernels) {
    over!(64, |(width in 1usize..12, channels in 1usize..40, kh in 1usize..4, kw in 1usize..4, stride in 1usize..3,
                out_width in 1usize..9, outside in 0usize..6, average in any::<bool>(), seed in any::<u64>())| {
        let mut draw = Draw::new(seed);
        let data: Vec<Vec<f32>> = (0..kh).map(|_| draw.floats(width * channels, 3.0)).collect();
        let lines: Vec<Option<&[f32]>> =
            data.iter().enumerate().map(|(y, line)| (y != outside).then_some(&line[..])).collect();
        let lines = Lines {
            lines: &lines, width, channels, kernel_columns: kw, stride, pad_left: kw / 2,
        };
        let kind = if average { PoolKind::Average } else { PoolKind::Max };
        let (mut got, mut expected) =
            (vec![0.0; out_width * channels], vec![0.0; out_width * channels]);
        (table.pool)(kind, &lines, &mut got);
        (oracle().pool)(kind, &lines, &mut expected);
        same(&got, &expected, "pool");
    });
}

pub fn resize(table: &Kernels) {
    over!(64, |(width in 1usize..70, channels in 1usize..40, factor in 1usize..5, bilinear in any::<bool>(),
                seed in any::<u64>())| {
        let mut draw = Draw::new(seed);
        let (a, b) = (draw.floats(width * channels, 3.0), draw.floats(width * channels, 3.0));
        let mode = if bilinear { ResizeMode::Bilinear } else { ResizeMode::Nearest };
        let resize = ResizeRow { channels, factor, mode };
        let (mut got, mut expected) =
            (vec![0.0; a.len() * factor], vec![0.0; a.len() * factor]);
        (table.resize_row)(&resize, &a, &mut got);
        (oracle().resize_row)(&resize, &a, &mut expected);
        same(&got, &expected, "resize_row");
        let weight = draw.float(1.0);
        let (got, expected) = (&mut got[..a.len()], &mut expected[..a.len()]);
        (table.blend)(&a, &b, weight, got);
        (oracle().blend)(&a, &b, weight, expected);
        same(got, expected, "blend");
    });
}
