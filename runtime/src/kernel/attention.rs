//! Operands of attention.

use super::{Rows, RowsMut};

/// Keys of one tile: fixed, because it sets the order of the sums.
pub const ATTENTION_KEYS: usize = 64;

/// One head over a tile of queries: `softmax(scale * q k^T + mask) v`, with an online softmax over tiles of
/// [`ATTENTION_KEYS`] keys.
///
/// For each tile and query: scores are one fused chain over `head` from 0, times `scale` (with a mask:
/// `fma(chain, scale, mask)`); `m' = max(m, scores)`; `p = exp(score - m')`; the sum of p runs over 16 lanes and
/// the tree; where m' changed, the running sum and the output are multiplied by `exp(m - m')`; the output is
/// one fused chain of `p * v` in order of keys. A key of the tile that the query may not see has score negative
/// infinity; a tile that has no other score is skipped. A query that sees no key gives zeros.
#[derive(Clone, Copy, Debug)]
pub struct Attention<'a> {
    /// Rows of this tile, any number. Keys are prepared once a call, so 32 and more pay.
    pub queries: usize,
    /// Rows of keys and values.
    pub keys: usize,
    /// Values of each row.
    pub head: usize,
    /// `[queries, head]`
    pub q: Rows<'a>,
    /// `[keys, head]`
    pub k: Rows<'a>,
    /// `[keys, head]`
    pub v: Rows<'a>,
    /// Factor on the scores.
    pub scale: f32,
    /// Added to the scores.
    pub mask: Option<Mask<'a>>,
    /// Index of the tile's first query if key `j` is seen by query `i` only for `j <= i`.
    pub causal: Option<usize>,
}

/// An additive mask `[queries, keys]`.
#[derive(Clone, Copy, Debug)]
pub struct Mask<'a> {
    /// Starts with the first query of the tile.
    pub data: &'a [f32],
    /// Values from one query's row to the next; 0 if all queries share one.
    pub stride: usize,
}

impl Attention<'_> {
    /// Values of scratch that a call needs.
    pub const fn scratch(queries: usize, head: usize) -> usize {
        let head = head.div_ceil(16) * 16;
        // Keys by column, values by row, scores, queries, outputs, maxima and sums.
        2 * ATTENTION_KEYS * head + queries * (ATTENTION_KEYS + 2 * head + 2)
    }

    /// Keys that query `i` of the tile may see.
    pub fn visible(&self, query: usize) -> usize {
        match self.causal {
            Some(first) => self.keys.min(first + query + 1),
            None => self.keys,
        }
    }

    /// Asserts that every access is inside its slice.
    ///
    /// # Panics
    /// If one is not.
    pub fn check(&self, scratch: &[f32], out: &RowsMut<'_>) {
        assert!(
            covers(self.q.data.len(), self.q.stride, self.queries, self.head),
            "queries end early"
        );
        assert!(covers(self.k.data.len(), self.k.stride, self.keys, self.head), "keys end early");
        assert!(covers(self.v.data.len(), self.v.stride, self.keys, self.head), "values end early");
        assert!(covers(out.data.len(), out.stride, self.queries, self.head), "outputs end early");
        if let Some(mask) = self.mask {
            assert!(
                covers(mask.data.len(), mask.stride, self.queries, self.keys),
                "the mask ends early"
            );
        }
        assert!(
            scratch.len() >= Self::scratch(self.queries, self.head),
            "attention's scratch is too small"
        );
    }
}

/// Whether a slice holds `rows` rows of `columns` values, each `stride` after the one before.
pub(super) fn covers(length: usize, stride: usize, rows: usize, columns: usize) -> bool {
    rows == 0
        || (rows - 1)
            .checked_mul(stride)
            .and_then(|start| start.checked_add(columns))
            .is_some_and(|end| end <= length)
}
