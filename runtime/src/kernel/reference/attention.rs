//! Attention of one head.

use super::math::exp;
use super::reduce::tree_sum;
use crate::kernel::{ATTENTION_KEYS, Attention, LANES, RowsMut};

/// One query after the other.
pub fn attention(attention: &Attention<'_>, scratch: &mut [f32], mut out: RowsMut<'_>) {
    attention.check(scratch, &out);
    let head = attention.head;
    let (scores, total) = scratch[..ATTENTION_KEYS + head].split_at_mut(ATTENTION_KEYS);
    for query in 0..attention.queries {
        total.fill(0.0);
        let (mut max, mut sum) = (f32::NEG_INFINITY, 0f32);
        let visible = attention.visible(query);
        for start in (0..visible).step_by(ATTENTION_KEYS) {
            let scores = &mut scores[..(attention.keys - start).min(ATTENTION_KEYS)];
            let mut tile_max = max;
            for (offset, score) in scores.iter_mut().enumerate() {
                let seen = start + offset < visible;
                *score = if seen {
                    self::score(attention, query, start + offset)
                } else {
                    f32::NEG_INFINITY
                };
                tile_max = if *score > tile_max { *score } else { tile_max };
            }
            if tile_max == f32::NEG_INFINITY {
                continue;
            }
            if tile_max != max {
                let factor = exp(max - tile_max);
                sum *= factor;
                total.iter_mut().for_each(|value| *value *= factor);
                max = tile_max;
            }
            let mut lanes = [0f32; LANES];
            for (offset, score) in scores.iter_mut().enumerate() {
                *score = exp(*score - max);
                lanes[offset % LANES] += *score;
            }
            sum += tree_sum(lanes);
            for (offset, &p) in scores.iter().enumerate() {
                for (column, value) in total.iter_mut().enumerate() {
                    let v = attention.v.data.get((start + offset) * attention.v.stride + column);
                    *value = p.mul_add(v, *value);
                }
            }
        }
        let inverse = if sum > 0.0 { 1.0 / sum } else { 0.0 };
        let mut row = out.row_mut(query, head);
        for (column, value) in total.iter().enumerate() {
            row.set(column, value * inverse);
        }
    }
}

fn score(attention: &Attention<'_>, query: usize, key: usize) -> f32 {
    let mut chain = 0f32;
    for column in 0..attention.head {
        let q = attention.q.data.get(query * attention.q.stride + column);
        let k = attention.k.data.get(key * attention.k.stride + column);
        chain = q.mul_add(k, chain);
    }
    match attention.mask {
        Some(mask) => chain.mul_add(attention.scale, mask.data[query * mask.stride + key]),
        None => chain * attention.scale,
    }
}
