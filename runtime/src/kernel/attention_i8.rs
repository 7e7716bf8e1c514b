//! Operands of attention in int8.

use super::attention::covers;
use super::{LANES, Mask, Rows, RowsMut};

/// Keys of one tile.
pub const ATTENTION_I8_KEYS: usize = 128;

/// Groups of four keys of one tile.
const KEY_GROUPS: usize = ATTENTION_I8_KEYS / 4;

/// One tile of [`ATTENTION_I8_KEYS`] keys and values of one head on their way to int8.
///
/// Each key has a scale of its own ([`int8_scale`](super::int8_scale) of its largest `|x|`), and so has each column of the tile's values.
/// What the tile lacks in keys, and the head in columns, is filled with zeros of scale 1. Behind the values' last column comes one of
/// ones of scale 1: its product is the sum of the weights.
#[derive(Clone, Copy, Debug)]
pub struct KeyRows<'a> {
    /// Keys, at most [`ATTENTION_I8_KEYS`].
    pub keys: usize,
    /// Values of each row.
    pub head: usize,
    /// `[keys, head]`
    pub k: Rows<'a>,
    /// `[keys, head]`
    pub v: Rows<'a>,
    /// [`GemmI8::act_offset`](super::GemmI8::act_offset).
    pub offset: u8,
}

impl KeyRows<'_> {
    /// Asserts that every access is inside its slice.
    ///
    /// # Panics
    /// If one is not.
    pub fn check(&self, out: &[f32]) {
        let KeyRows { keys, head, k, v, .. } = *self;
        assert!(keys <= ATTENTION_I8_KEYS, "{keys} keys are more than a tile");
        assert!(covers(k.data.len(), k.stride, keys, head), "keys end early");
        assert!(covers(v.data.len(), v.stride, keys, head), "values end early");
        assert!(out.len() == KeyTile::words(head), "the tile has another size");
    }
}

/// A tile in int8, to read.
#[derive(Clone, Copy, Debug)]
pub struct KeyTile<'a> {
    /// Panels of the product `q k^T`: `[8, ceil(head / 4), 16, 4]`.
    pub keys: &'a [i8],
    /// Panels of the product `p v`: `[panels, 32, 16, 4]`, where panels is `ceil((head + 1) / 16)`.
    pub values: &'a [i8],
    /// `[128]`
    pub key_scales: &'a [f32],
    /// `[128]`: what every product with this key is too large by, the offset times the sum of the key.
    pub key_excess: &'a [i32],
    /// `[panels * 16]`
    pub value_scales: &'a [f32],
}

/// A tile in int8, to write; see [`KeyTile`].
#[derive(Debug)]
pub struct KeyTileMut<'a> {
    /// See [`KeyTile::keys`].
    pub keys: &'a mut [i8],
    /// See [`KeyTile::values`].
    pub values: &'a mut [i8],
    /// See [`KeyTile::key_scales`].
    pub key_scales: &'a mut [f32],
    /// See [`KeyTile::key_excess`].
    pub key_excess: &'a mut [i32],
    /// See [`KeyTile::value_scales`].
    pub value_scales: &'a mut [f32],
}

impl<'a> KeyTile<'a> {
    /// Groups of four columns of a key.
    pub const fn groups(head: usize) -> usize {
        head.div_ceil(4)
    }

    /// Panels of values, with the column of ones.
    pub const fn panels(head: usize) -> usize {
        (head + 1).div_ceil(LANES)
    }

    /// Lengths of the parts in words of four bytes, in the order of the fields.
    const fn parts(head: usize) -> [usize; 5] {
        let (groups, panels) = (KeyTile::groups(head), KeyTile::panels(head));
        let keys = ATTENTION_I8_KEYS * groups;
        [keys, panels * KEY_GROUPS * LANES, ATTENTION_I8_KEYS, ATTENTION_I8_KEYS, panels * LANES]
    }

    /// Words of four bytes of a tile: a multiple of 16.
    pub const fn words(head: usize) -> usize {
        let [keys, values, scales, excess, value_scales] = KeyTile::parts(head);
        keys + values + scales + excess + value_scales
    }

    /// The tile in [`KeyTile::words`] words.
    pub fn new(head: usize, words: &'a [f32]) -> Self {
        let [keys, values, scales, excess, value_scales] = KeyTile::parts(head);
        let (keys, rest) = words.split_at(keys);
        let (values, rest) = rest.split_at(values);
        let (key_scales, rest) = rest.split_at(scales);
        let (key_excess, rest) = rest.split_at(excess);
        KeyTile {
            keys: bytemuck::cast_slice(keys),
            values: bytemuck::cast_slice(values),
            key_scales,
            key_excess: bytemuck::cast_slice(key_excess),
            value_scales: &rest[..value_scales],
        }
    }
}

impl<'a> KeyTileMut<'a> {
    /// The tile in [`KeyTile::words`] words.
    pub fn new(head: usize, words: &'a mut [f32]) -> Self {
        let [keys, values, scales, excess, value_scales] = KeyTile::parts(head);
        let (keys, rest) = words.split_at_mut(keys);
        let (values, rest) = rest.split_at_mut(values);
        let (key_scales, rest) = rest.split_at_mut(scales);
        let (key_excess, rest) = rest.split_at_mut(excess);
        KeyTileMut {
            keys: bytemuck::cast_slice_mut(keys),
            values: bytemuck::cast_slice_mut(values),
            key_scales,
            key_excess: bytemuck::cast_slice_mut(key_excess),
            value_scales: &mut rest[..value_scales],
        }
    }
}

/// One head over a tile of queries, as [`Attention`](super::Attention), with both products in int8.
///
/// Each query has a scale of its own, and is turned round if `scale` is negative. Scores are in halvings: with `f = query_scale * (|scale| log2 e)`
/// the score is `(acc * key_scale) * f`, with a mask `fma(acc * key_scale, f, mask * log2 e)`, or negative infinity where the query may not see the
/// key. The factor `f`, which keeps the order, is multiplied into the tile's largest `acc * key_scale` and not into each: `t` is that product, raised
/// by a part in four million, so that no rounding leaves a distance `fma(acc * key_scale, f, -t)` above 0. The weight is a whole number,
/// `round_half_even(127 2^distance)`: `2^r 2^n` with `n` the nearest whole number and a polynomial of third degree, off by one in ten thousand. With
/// `m' = max(m, t)` (0 if that is negative infinity), `f = 2^(m - m')` and `g = 2^(t - m')`, each column becomes
/// `fma(acc, value_scale * g, column * f)`; the column of ones is the running sum. The result is
/// `fma(column, inverse, 0)` with the inverse of that sum (so that a tile without weight changes not even the sign of a zero), or zeros where no key
/// is seen.
#[derive(Clone, Copy, Debug)]
pub struct AttentionI8<'a> {
    /// Rows of this tile, any number.
    pub queries: usize,
    /// Keys and values of all tiles.
    pub keys: usize,
    /// Values of each row.
    pub head: usize,
    /// `[queries, head]`
    pub q: Rows<'a>,
    /// Tiles of keys and values ([`KeyTile`]), each [`AttentionI8::tile_stride`] words after the one before.
    pub tiles: &'a [f32],
    /// At least [`KeyTile::words`].
    pub tile_stride: usize,
    /// Factor on the scores.
    pub scale: f32,
    /// Added to the scores.
    pub mask: Option<Mask<'a>>,
    /// Index of the tile's first query if key `j` is seen by query `i` only for `j <= i`.
    pub causal: Option<usize>,
}

impl<'a> AttentionI8<'a> {
    /// Values of scratch that a call needs.
    pub const fn scratch(queries: usize, head: usize) -> usize {
        let width = KeyTile::panels(head) * LANES;
        let sums = if width > ATTENTION_I8_KEYS { width } else { ATTENTION_I8_KEYS };
        // int8 queries, int8 weights, sums of either product, outputs; scales, maxima and two factors.
        queries * (KeyTile::groups(head) + ATTENTION_I8_KEYS / 4 + sums + width + 4)
    }

    /// Keys that query `i` of the tile may see.
    pub fn visible(&self, query: usize) -> usize {
        match self.causal {
            Some(first) => self.keys.min(first + query + 1),
            None => self.keys,
        }
    }

    /// One tile of keys.
    pub fn tile(&self, index: usize) -> KeyTile<'a> {
        let start = index * self.tile_stride;
        KeyTile::new(self.head, &self.tiles[start..start + KeyTile::words(self.head)])
    }

    /// Of [`AttentionI8::scale`]: what queries are multiplied by before they are rounded (1 or -1), and what turns scores into halvings.
    pub fn sign_and_halvings(&self) -> (f32, f32) {
        (1f32.copysign(self.scale), self.scale.abs() * std::f32::consts::LOG2_E)
    }

    /// Asserts that every access is inside its slice.
    ///
    /// # Panics
    /// If one is not.
    pub fn check(&self, scratch: &[f32], out: &RowsMut<'_>) {
        let AttentionI8 { queries, keys, head, q, .. } = *self;
        assert!(covers(q.data.len(), q.stride, queries, head), "queries end early");
        let (tiles, words) = (keys.div_ceil(ATTENTION_I8_KEYS), KeyTile::words(head));
        assert!(covers(self.tiles.len(), self.tile_stride, tiles, words), "tiles end early");
        assert!(covers(out.data.len(), out.stride, queries, head), "outputs end early");
        if let Some(mask) = self.mask {
            assert!(covers(mask.data.len(), mask.stride, queries, keys), "the mask ends early");
        }
        assert!(scratch.len() >= Self::scratch(queries, head), "attention's scratch is too small");
    }
}
