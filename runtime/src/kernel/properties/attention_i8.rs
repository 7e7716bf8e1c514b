//! Properties of attention in int8.

use super::attention::{MASKS, mask_of, mask_values};
use super::{Draw, Stored, oracle, over, same, same_f16};
use crate::kernel::{
    ATTENTION_I8_KEYS, Attention, AttentionI8, Kernels, KeyRows, KeyTile, Mask, RowMut, Rows,
    RowsMut,
};
use half::f16;
use proptest::prelude::{any, prop};

/// Largest distance from float attention, as a share of the largest value: queries and keys of one sign and half are uniform
/// up to 3, so that scores have a standard deviation of about 3 and an error of about a hundredth of it.
const TOLERANCE: f32 = 0.08;

/// All keys and values of one head as a table quantises them.
fn tiles(
    table: &Kernels,
    keys: usize,
    head: usize,
    offset: u8,
    k: Rows<'_>,
    v: Rows<'_>,
) -> Vec<f32> {
    let words = KeyTile::words(head);
    let mut tiles = vec![f32::NAN; keys.div_ceil(ATTENTION_I8_KEYS) * words];
    for (index, tile) in tiles.chunks_mut(words).enumerate() {
        let first = index * ATTENTION_I8_KEYS;
        let from = |rows: Rows<'_>| rows.data.len().min(first * rows.stride)..rows.data.len();
        let rows = KeyRows {
            keys: (keys - first).min(ATTENTION_I8_KEYS),
            head,
            k: Rows { data: k.data.slice(from(k)), ..k },
            v: Rows { data: v.data.slice(from(v)), ..v },
            offset,
        };
        (table.quantise_keys)(&rows, tile);
    }
    tiles
}

pub fn attention_i8(table: &Kernels) {
    let keys = prop::sample::select(vec![1usize, 7, 16, 63, 64, 65, 77, 130, 200]);
    over!(96, |(queries in 1usize..70, keys in keys, head in 1usize..70, kind in 0..MASKS, causal in any::<bool>(),
                as_f16 in any::<bool>(), gap in 0usize..3, seed in any::<u64>())| {
        let mut draw = Draw::new(seed);
        let stride = head + gap;
        let q = Stored::new(&mut draw, queries * stride, 3.0, as_f16);
        let k = Stored::new(&mut draw, keys * stride, 3.0, as_f16);
        let v = Stored::new(&mut draw, keys * stride, 3.0, as_f16);
        let values = mask_values(&mut draw, queries, keys, kind);
        let mask = mask_of(&values, keys, kind);
        let rows = |stored| Rows { data: stored, stride };
        let (q, k, v) = (rows(q.row()), rows(k.row()), rows(v.row()));
        let offset = table.gemm_i8.act_offset;
        let got_tiles = tiles(table, keys, head, offset, k, v);
        let expected_tiles = tiles(oracle(), keys, head, offset, k, v);
        let bytes = |tiles: &[f32]| bytemuck::cast_slice::<f32, u8>(tiles).to_vec();
        assert!(bytes(&got_tiles) == bytes(&expected_tiles), "tiles differ from the reference's");

        let causal = causal.then_some((seed % 80) as usize);
        let (scale, tile_stride) = (1.0 / (head as f32).sqrt(), KeyTile::words(head));
        let attention =
            AttentionI8 { queries, keys, head, q, tiles: &got_tiles, tile_stride, scale, mask, causal };
        let mut scratch = vec![f32::NAN; AttentionI8::scratch(queries, head)];
        let (mut got, mut expected) = (vec![7.0; queries * stride], vec![7.0; queries * stride]);
        let out = RowsMut { data: RowMut::F32(&mut expected), stride };
        (oracle().attention_i8)(&attention, &oracle().gemm_i8, &mut scratch, out);
        let out = RowsMut { data: RowMut::F32(&mut got), stride };
        (table.attention_i8)(&attention, &table.gemm_i8, &mut scratch, out);
        same(&got, &expected, "attention in int8");

        // In two pieces: where the block of queries ends changes nothing.
        got.fill(7.0);
        let cut = (seed % queries as u64) as usize;
        for (first, queries) in [(0, cut), (cut, queries - cut)] {
            let part = AttentionI8 {
                queries,
                q: Rows { data: q.data.slice(first * stride..q.data.len()), stride },
                mask: mask.map(|mask| Mask { data: &mask.data[first * mask.stride..], ..mask }),
                causal: causal.map(|at| at + first),
                ..attention
            };
            let out = RowsMut { data: RowMut::F32(&mut got[first * stride..]), stride };
            (table.attention_i8)(&part, &table.gemm_i8, &mut scratch, out);
        }
        same(&got, &expected, "attention in int8 in two pieces");

        let mut halves = vec![f16::ONE; queries * stride];
        let out = RowsMut { data: RowMut::F16(&mut halves), stride };
        (table.attention_i8)(&attention, &table.gemm_i8, &mut scratch, out);
        let mut rounded = vec![f16::ONE; queries * stride];
        (oracle().store_f16)(&expected, &mut rounded);
        for row in 0..queries {
            let range = row * stride..row * stride + head;
            same_f16(&halves[range.clone()], &rounded[range], "attention in int8 to f16");
        }

        let float = Attention { queries, keys, head, q, k, v, scale, mask, causal };
        let mut scratch = vec![f32::NAN; Attention::scratch(queries, head)];
        let mut close = vec![7.0; queries * stride];
        let out = RowsMut { data: RowMut::F32(&mut close), stride };
        (oracle().attention)(&float, &mut scratch, out);
        for (index, (got, close)) in expected.iter().zip(&close).enumerate() {
            assert!((got - close).abs() <= TOLERANCE * 3.0, "{index}: {got} in int8, {close} in float");
        }
    });
}

/// Values that are not numbers, or too large for them, give the same bits everywhere too.
pub fn attention_i8_wild(table: &Kernels) {
    over!(64, |(queries in 1usize..20, keys in 1usize..100, head in 1usize..40, seed in any::<u64>())| {
        let mut draw = Draw::new(seed);
        let [q, k, v] = [queries, keys, keys].map(|rows| draw.wilds(rows * head));
        let rows = |data| Rows { data: super::Row::F32(data), stride: head };
        let (q, k, v) = (rows(&q), rows(&k), rows(&v));
        let offset = table.gemm_i8.act_offset;
        let got_tiles = tiles(table, keys, head, offset, k, v);
        let expected_tiles = tiles(oracle(), keys, head, offset, k, v);
        let (got, expected): (&[u8], &[u8]) =
            (bytemuck::cast_slice(&got_tiles), bytemuck::cast_slice(&expected_tiles));
        assert!(got == expected, "tiles differ from the reference's");
        let tile_stride = KeyTile::words(head);
        let attention = AttentionI8 {
            queries, keys, head, q, tiles: &got_tiles, tile_stride, scale: 0.5, mask: None, causal: None,
        };
        let mut scratch = vec![f32::NAN; AttentionI8::scratch(queries, head)];
        let (mut got, mut expected) = (vec![7.0; queries * head], vec![7.0; queries * head]);
        let out = RowsMut { data: RowMut::F32(&mut expected), stride: head };
        (oracle().attention_i8)(&attention, &oracle().gemm_i8, &mut scratch, out);
        let out = RowsMut { data: RowMut::F32(&mut got), stride: head };
        (table.attention_i8)(&attention, &table.gemm_i8, &mut scratch, out);
        same(&got, &expected, "attention in int8 of wild values");
    });
}
