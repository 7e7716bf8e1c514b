//! Attention of one head in int8.

use super::math::exp;
use super::reduce::max_abs;
use crate::kernel::{
    ATTENTION_I8_KEYS, AttentionI8, GemmI8, KeyRows, KeyTile, KeyTileMut, LANES, RowsMut,
    int8_scale,
};

/// `clamp(round(x * inverse), -127, 127)`; -127 for a not-a-number.
fn quantise(x: f32, inverse: f32) -> i32 {
    let scaled = x * inverse;
    let scaled = if scaled > -127.0 { scaled } else { -127.0 };
    let scaled = if scaled < 127.0 { scaled } else { 127.0 };
    scaled.round_ties_even() as i32
}

/// Key after key, then column after column.
pub fn quantise_keys(rows: &KeyRows<'_>, out: &mut [f32]) {
    rows.check(out);
    let KeyRows { keys, head, k, v, offset } = *rows;
    out.fill(0.0);
    let tile = KeyTileMut::new(head, out);
    tile.key_scales.fill(1.0);
    tile.value_scales.fill(1.0);
    let groups = KeyTile::groups(head);
    for key in 0..keys {
        let (scale, inverse) = int8_scale(max_abs(k.row(key, head)));
        tile.key_scales[key] = scale;
        let mut sum = 0;
        for column in 0..head {
            let value = quantise(k.data.get(key * k.stride + column), inverse);
            sum += value;
            let group = key / LANES * groups + column / 4;
            tile.keys[(group * LANES + key % LANES) * 4 + column % 4] = value as i8;
        }
        tile.key_excess[key] = i32::from(offset) * sum;
    }
    let at = |key: usize, column: usize| {
        let group = column / LANES * (ATTENTION_I8_KEYS / 4) + key / 4;
        (group * LANES + column % LANES) * 4 + key % 4
    };
    for column in 0..head {
        let mut largest = 0f32;
        for key in 0..keys {
            let value = v.data.get(key * v.stride + column).abs();
            largest = if value > largest { value } else { largest };
        }
        let (scale, inverse) = int8_scale(largest);
        tile.value_scales[column] = scale;
        for key in 0..keys {
            let value = quantise(v.data.get(key * v.stride + column), inverse);
            tile.values[at(key, column)] = value as i8;
        }
    }
    for key in 0..ATTENTION_I8_KEYS {
        tile.values[at(key, head)] = 1;
    }
}

/// One query after the other; the products are written out.
pub fn attention_i8(
    attention: &AttentionI8<'_>,
    _gemm: &GemmI8,
    scratch: &mut [f32],
    mut out: RowsMut<'_>,
) {
    attention.check(scratch, &out);
    let head = attention.head;
    let (query, total) = scratch[..2 * head + 1].split_at_mut(head);
    let (sign, halvings) = attention.sign_and_halvings();
    for row in 0..attention.queries {
        let values = attention.q.row(row, head);
        let (scale, inverse) = int8_scale(max_abs(values));
        for (column, query) in query.iter_mut().enumerate() {
            *query = quantise(values.get(column), sign * inverse) as f32;
        }
        let factor = scale * halvings;
        let visible = attention.visible(row);
        total.fill(0.0);
        let mut max = f32::NEG_INFINITY;
        for start in (0..visible).step_by(ATTENTION_I8_KEYS) {
            let tile = attention.tile(start / ATTENTION_I8_KEYS);
            let mut scores = [f32::NEG_INFINITY; ATTENTION_I8_KEYS];
            let mut largest = f32::NEG_INFINITY;
            for (key, score) in scores.iter_mut().enumerate().take(visible - start) {
                let scaled = product(head, &tile, query, key) as f32 * tile.key_scales[key];
                *score = match attention.mask {
                    Some(mask) => {
                        let mask = mask.data[row * mask.stride + start + key];
                        let halvings = mask * std::f32::consts::LOG2_E;
                        let seen = halvings > f32::NEG_INFINITY;
                        scaled.mul_add(factor, if seen { halvings } else { mask })
                    }
                    None => scaled,
                };
                largest = if *score > largest { *score } else { largest };
            }
            let (left, tile_max) = match attention.mask {
                Some(_) => (1.0, largest),
                None if largest > f32::NEG_INFINITY => (factor, raised(largest * factor)),
                None => (factor, largest),
            };
            let weights = scores.map(|score| weight(score.mul_add(left, -tile_max)));
            let new = if tile_max > max { tile_max } else { max };
            let anchor = if new > f32::NEG_INFINITY { new } else { 0.0 };
            let power = |halvings: f32| exp(halvings * std::f32::consts::LN_2);
            let (old_factor, factor) = (power(max - anchor), power(tile_max - anchor));
            max = new;
            for (column, total) in total.iter_mut().enumerate() {
                let mut sum = 0i32;
                for (key, weight) in weights.iter().enumerate() {
                    let group = column / LANES * (ATTENTION_I8_KEYS / 4) + key / 4;
                    let at = (group * LANES + column % LANES) * 4 + key % 4;
                    sum += weight * i32::from(tile.values[at]);
                }
                let scale = tile.value_scales[column] * factor;
                *total = (sum as f32).mul_add(scale, *total * old_factor);
            }
        }
        let sum = total[head];
        let inverse = if sum > 0.0 { 1.0 / sum } else { 0.0 };
        let mut row = out.row_mut(row, head);
        for (column, value) in total[..head].iter().enumerate() {
            row.set(column, value.mul_add(inverse, 0.0));
        }
    }
}

/// A query by one key.
fn product(head: usize, tile: &KeyTile<'_>, query: &[f32], key: usize) -> i32 {
    let groups = KeyTile::groups(head);
    let mut sum = 0;
    for (column, query) in query.iter().enumerate() {
        let group = key / LANES * groups + column / 4;
        let value = tile.keys[(group * LANES + key % LANES) * 4 + column % 4];
        sum += *query as i32 * i32::from(value);
    }
    sum
}

/// A part in four million larger, and never negative infinity.
fn raised(score: f32) -> f32 {
    let raised = score.abs().mul_add(1.0 / 4_194_304.0, score);
    if raised > f32::MIN { raised } else { f32::MIN }
}

/// `round(127 * 2^distance)` of a distance that is 0 or below; 0 for a not-a-number.
fn weight(distance: f32) -> i32 {
    // Adding this rounds to a whole number, nearest even: 1.5 * 2^23.
    const ROUND: f32 = 12_582_912.0;
    let distance = if distance > -24.0 { distance } else { -24.0 };
    let n = distance + ROUND - ROUND;
    let r = distance - n;
    let p = 6.986_134f32.mul_add(r, 30.760_792);
    let p = p.mul_add(r, 88.046_93);
    let p = p.mul_add(r, 127.0);
    let power = f32::from_bits(((n as i32 + 127) as u32) << 23);
    (p * power).round_ties_even() as i32
}
