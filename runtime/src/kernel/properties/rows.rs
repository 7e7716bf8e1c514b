//! Properties of functions of whole rows.

use super::{Draw, Stored, oracle, over, same};
use crate::kernel::{Kernels, Moments, Row};
use proptest::prelude::any;

pub fn reductions(table: &Kernels) {
    over!(128, |(length in 0usize..300, seed in any::<u64>(), as_f16 in any::<bool>())| {
        let mut draw = Draw::new(seed);
        let values = draw.floats(length, 10.0);
        same(&[(table.sum)(&values)], &[(oracle().sum)(&values)], "sum");
        let wild = draw.wilds(length);
        same(&[(table.sum)(&wild)], &[(oracle().sum)(&wild)], "sum");
        // A maximum of zeros may have either sign.
        let pair = ((table.max)(&wild), (oracle().max)(&wild));
        assert!(pair.0 == pair.1, "max {pair:?}");
        let stored = Stored::new(&mut draw, length, 9.0, as_f16);
        for row in [stored.row(), Row::F32(&wild)] {
            same(&[(table.max_abs)(row)], &[(oracle().max_abs)(row)], "max_abs");
        }
    });
}

pub fn moments(table: &Kernels) {
    over!(64, |(groups in 1usize..9, size in 1usize..30, cells in 1usize..7, seed in any::<u64>())| {
        let channels = groups * size;
        let row = Draw::new(seed).floats(channels * cells, 3.0);
        let mut scratch = vec![f32::NAN; channels];
        let mut got = vec![Moments::default(); groups];
        let mut expected = got.clone();
        (table.group_moments)(&row, channels, &mut scratch, &mut got);
        (oracle().group_moments)(&row, channels, &mut scratch, &mut expected);
        let flat = |moments: &[Moments]| {
            moments.iter().flat_map(|m| [m.count as f32, m.mean, m.m2]).collect::<Vec<_>>()
        };
        same(&flat(&got), &flat(&expected), "group_moments");
    });
}

pub fn norms(table: &Kernels) {
    over!(96, |(length in 1usize..200, runs in 1usize..4, seed in any::<u64>())| {
        let mut draw = Draw::new(seed);
        let (gamma, beta) = (draw.floats(length, 2.0), draw.floats(length, 1.0));
        let row = draw.floats(length * runs, 5.0);
        for beta in [None, Some(&beta[..])] {
            let (mut got, mut expected) = (row[..length].to_vec(), row[..length].to_vec());
            (table.layer_norm)(&mut got, &gamma, beta, 1e-5);
            (oracle().layer_norm)(&mut expected, &gamma, beta, 1e-5);
            same(&got, &expected, "layer_norm");
        }
        let (mut got, mut expected) = (row.clone(), row.clone());
        (table.rms_norm)(&mut got, &gamma, 1e-6);
        (oracle().rms_norm)(&mut expected, &gamma, 1e-6);
        same(&got, &expected, "rms_norm");
        let (mut got, mut expected) = (row.clone(), row);
        (table.softmax)(&mut got);
        (oracle().softmax)(&mut expected);
        same(&got, &expected, "softmax");
    });
}
