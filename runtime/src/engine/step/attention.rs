//! Attention, and products of two computed matrices.

use crate::engine::context::{Context, Portion, View, Work};
use crate::kernel::{
    ATTENTION_I8_KEYS, Attention, AttentionI8, KeyRows, KeyTile, Mask, Rows, RowsMut,
};
use crate::plan::scratch::{ATTENTION_I8_QUERIES, ATTENTION_QUERIES};

use super::quantise::Sink;

/// Every worker takes queries of all heads; keys and values are read as they lie.
pub(super) fn attention(
    cx: &Context<'_>,
    work: &Work,
    portion: &Portion,
    heads: usize,
    scale: f32,
    causal: bool,
) {
    let [q, k, v] = [&work.inputs[0], &work.inputs[1], &work.inputs[2]];
    let (queries, keys) = (q.layout.shape[1], k.layout.shape[1]);
    let read = if work.spares_keys { cx.counting.min(keys) } else { keys };
    let (q_len, k_len, v_len) = (q.layout.row_len, k.layout.row_len, v.layout.row_len);
    let (head, value_head) = (q_len / heads, v_len / heads);
    let (scratch, mut sink) = Sink::new(cx, work, portion);
    let mine = cx.share(portion.rows.clone());
    let mut first = mine.start;
    while first < mine.end {
        let (sample, query) = (first / queries, first % queries);
        let count = block(cx, work, first, mine.end.min(first + ATTENTION_QUERIES));
        let rows = first..first + count;
        let (q_rows, k_rows, v_rows) = (
            cx.rows(q, rows.clone()),
            cx.flat_row(k, sample * keys * k_len, keys * k_len),
            cx.flat_row(v, sample * keys * v_len, keys * v_len),
        );
        let mask = work.inputs.get(3).map(|view| mask(cx, view, sample, query, count));
        let mut out = sink.rows_mut(rows.clone());
        for index in 0..heads {
            let start = index * head;
            let attention = Attention {
                queries: count,
                keys: read,
                head,
                q: Rows { data: q_rows.slice(start..q_rows.len()), stride: q_len },
                k: Rows { data: k_rows.slice(start..k_rows.len()), stride: k_len },
                v: Rows { data: v_rows.slice(index * value_head..v_rows.len()), stride: v_len },
                scale,
                mask,
                causal: causal.then_some(query),
            };
            let length = out.len();
            let data = out.slice_mut(start..length);
            (cx.kernels.attention)(&attention, scratch, RowsMut { data, stride: q_len });
        }
        sink.finish(rows);
        first += count;
    }
}

/// How many queries from `first` on, up to `end`, are of one sample and lie in one piece, as their results do.
fn block(cx: &Context<'_>, work: &Work, first: usize, end: usize) -> usize {
    let (q, out) = (&work.inputs[0], &work.output);
    let queries = q.layout.shape[1];
    let end = end.min((first / queries + 1) * queries);
    cx.unbroken(q, first, end).min(cx.unbroken(out, first, end))
}

/// The mask of `count` queries of one sample.
fn mask<'a>(cx: &Context<'a>, view: &View, sample: usize, query: usize, count: usize) -> Mask<'a> {
    let [samples, queries, keys] = view.layout.shape[..] else {
        unreachable!("validation gives a mask three dimensions");
    };
    let (shared, sample) = (queries == 1, if samples == 1 { 0 } else { sample });
    let row = sample * queries + if shared { 0 } else { query };
    let rows = if shared { 1 } else { count };
    let data = cx.flat(view, row * keys, rows * keys);
    Mask { data, stride: if shared { 0 } else { keys } }
}

/// Keys and values to int8: every worker takes some heads of some tiles.
pub(super) fn keys(cx: &Context<'_>, work: &Work, portion: &Portion, heads: usize) {
    let [k, v] = [&work.inputs[0], &work.inputs[1]];
    let (keys, length) = (k.layout.shape[1], k.layout.row_len);
    let (head, tiles) = (length / heads, keys.div_ceil(ATTENTION_I8_KEYS));
    let words = KeyTile::words(head);
    for part in cx.share(portion.rows.start * heads..portion.rows.end * heads) {
        let (row, index) = (part / heads, part % heads);
        let (sample, first) = (row / tiles, row % tiles * ATTENTION_I8_KEYS);
        let count = (keys - first).min(ATTENTION_I8_KEYS);
        let rows = |view: &View| {
            let all = cx.flat_row(view, (sample * keys + first) * length, count * length);
            Rows { data: all.slice(index * head..all.len()), stride: length }
        };
        let offset = cx.kernels.gemm_i8.act_offset;
        let rows = KeyRows { keys: count, head, k: rows(k), v: rows(v), offset };
        let tile = cx.values_mut(&work.output, row, index * words..(index + 1) * words);
        (cx.kernels.quantise_keys)(&rows, tile);
    }
}

/// Every worker takes queries of all heads, one head after the other, so that its keys stay near.
pub(super) fn attend(
    cx: &Context<'_>,
    work: &Work,
    portion: &Portion,
    heads: usize,
    scale: f32,
    causal: bool,
) {
    let ([q, tiles], keys) = ([&work.inputs[0], &work.inputs[1]], work.number);
    let (queries, length, tile_stride) =
        (q.layout.shape[1], q.layout.row_len, tiles.layout.row_len);
    let sample_words = tiles.layout.shape[1] * tile_stride;
    let (head, words) = (length / heads, tile_stride / heads);
    let scratch = cx.own(work, portion);
    let mine = cx.share(portion.rows.clone());
    for index in 0..heads {
        let mut first = mine.start;
        while first < mine.end {
            let (sample, query) = (first / queries, first % queries);
            let count = block(cx, work, first, mine.end.min(first + ATTENTION_I8_QUERIES));
            let rows = first..first + count;
            let q_rows = cx.rows(q, rows.clone());
            let tiles: &[f32] = cx.flat(tiles, sample * sample_words, sample_words);
            let attention = AttentionI8 {
                queries: count,
                keys,
                head,
                q: Rows { data: q_rows.slice(index * head..q_rows.len()), stride: length },
                tiles: &tiles[index * words..],
                tile_stride,
                scale,
                mask: work.inputs.get(2).map(|view| mask(cx, view, sample, query, count)),
                causal: causal.then_some(query),
            };
            let mut out = cx.rows_mut(&work.output, rows);
            let all = out.len();
            let data = out.slice_mut(index * head..all);
            let out = RowsMut { data, stride: length };
            (cx.kernels.attention_i8)(&attention, &cx.kernels.gemm_i8, scratch, out);
            first += count;
        }
    }
}

/// `a b` or `a b^T`, matrix by matrix.
pub(super) fn batch_matmul(cx: &Context<'_>, work: &Work, portion: &Portion, transpose_b: bool) {
    let [a, b] = [&work.inputs[0], &work.inputs[1]];
    let (k, n) = (a.layout.channels(), work.output.layout.channels());
    let m = a.layout.shape[a.layout.shape.len() - 2];
    let (a_row, rest) = cx.own(work, portion).split_at_mut(k);
    let (out, matrix) = rest.split_at_mut(n);
    let vectors = work.output.layout.row_len / n;
    let mut transposed = None;
    for row in cx.share(portion.rows.clone()) {
        for vector in 0..vectors {
            let sample = (row * vectors + vector) / m;
            let values = cx.flat_row(b, sample * k * n, k * n);
            if transpose_b && transposed != Some(sample) {
                for (index, value) in matrix[..k * n].iter_mut().enumerate() {
                    *value = values.get(index % n * k + index / n);
                }
                transposed = Some(sample);
            }
            let data = if transpose_b { crate::kernel::Row::F32(&matrix[..k * n]) } else { values };
            cx.load(a, row, vector * k..(vector + 1) * k, a_row);
            (cx.kernels.vector_matrix)(a_row, Rows { data, stride: n }, out);
            cx.store(&work.output, row, vector * n..(vector + 1) * n, out);
        }
    }
}
