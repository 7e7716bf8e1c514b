//! Properties of attention.

use super::{Draw, Stored, oracle, over, same, same_f16};
use crate::kernel::{Attention, Kernels, Mask, RowMut, Rows, RowsMut};
use half::f16;
use proptest::prelude::{any, prop};

/// Kinds of masks: none; one row for all queries; a row a query; the same, hiding a whole tile and some queries' every key.
pub const MASKS: usize = 4;

/// Values for a mask of that kind.
pub fn mask_values(draw: &mut Draw, queries: usize, keys: usize, kind: usize) -> Vec<f32> {
    let mut values = draw.floats(queries * keys, 2.0);
    if kind == 3 {
        for (index, value) in values.iter_mut().enumerate() {
            let (query, key) = (index / keys, index % keys);
            if key < 64 || query % 5 == 4 || draw.bits().is_multiple_of(4) {
                *value = f32::NEG_INFINITY;
            }
        }
    }
    values
}

/// The mask of that kind.
pub fn mask_of(values: &[f32], keys: usize, kind: usize) -> Option<Mask<'_>> {
    match kind {
        0 => None,
        1 => Some(Mask { data: values, stride: 0 }),
        _ => Some(Mask { data: values, stride: keys }),
    }
}

pub fn attention(table: &Kernels) {
    let keys = prop::sample::select(vec![1usize, 7, 16, 63, 64, 65, 77, 130]);
    over!(64, |(queries in 1usize..20, keys in keys, head in 1usize..70, kind in 0..MASKS, causal in any::<bool>(),
                as_f16 in any::<bool>(), gap in 0usize..3, seed in any::<u64>())| {
        let mut draw = Draw::new(seed);
        let stride = head + gap;
        let q = Stored::new(&mut draw, queries * stride, 3.0, as_f16);
        let k = Stored::new(&mut draw, keys * stride, 3.0, as_f16);
        let v = Stored::new(&mut draw, keys * stride, 3.0, as_f16);
        let values = mask_values(&mut draw, queries, keys, kind);
        let mask = mask_of(&values, keys, kind);
        let attention = Attention {
            queries,
            keys,
            head,
            q: Rows { data: q.row(), stride },
            k: Rows { data: k.row(), stride },
            v: Rows { data: v.row(), stride },
            scale: 1.0 / (head as f32).sqrt(),
            mask,
            causal: causal.then_some((seed % 80) as usize),
        };
        let mut scratch = vec![f32::NAN; Attention::scratch(queries, head)];
        let (mut got, mut expected) = (vec![7.0; queries * stride], vec![7.0; queries * stride]);
        let out = RowsMut { data: RowMut::F32(&mut got), stride };
        (table.attention)(&attention, &mut scratch, out);
        let out = RowsMut { data: RowMut::F32(&mut expected), stride };
        (oracle().attention)(&attention, &mut scratch, out);
        same(&got, &expected, "attention");

        let (mut got, mut expected) =
            (vec![f16::ONE; queries * stride], vec![f16::ONE; queries * stride]);
        let out = RowsMut { data: RowMut::F16(&mut got), stride };
        (table.attention)(&attention, &mut scratch, out);
        let out = RowsMut { data: RowMut::F16(&mut expected), stride };
        (oracle().attention)(&attention, &mut scratch, out);
        same_f16(&got, &expected, "attention to f16");
    });
}
