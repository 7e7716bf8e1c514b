//! Attention, and products of two computed matrices.

use crate::engine::context::{Context, Portion, Work};
use crate::kernel::{Attention, Mask, Rows, RowsMut};
use crate::plan::scratch::ATTENTION_QUERIES;

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
    let (q_len, k_len, v_len) = (q.layout.row_len, k.layout.row_len, v.layout.row_len);
    let (head, value_head) = (q_len / heads, v_len / heads);
    let scratch = cx.own(work, portion);
    let mine = cx.share(portion.rows.clone());
    let mut first = mine.start;
    while first < mine.end {
        let (sample, query) = (first / queries, first % queries);
        let end = mine.end.min((sample + 1) * queries).min(first + ATTENTION_QUERIES);
        let count = cx.unbroken(q, first, end).min(cx.unbroken(&work.output, first, end));
        let rows = first..first + count;
        let (q_rows, k_rows, v_rows) = (
            cx.rows(q, rows.clone()),
            cx.flat_row(k, sample * keys * k_len, keys * k_len),
            cx.flat_row(v, sample * keys * v_len, keys * v_len),
        );
        let mask = work.inputs.get(3).map(|view| {
            let [samples, mask_queries, _] = view.layout.shape[..] else {
                unreachable!("validation gives a mask three dimensions");
            };
            let (shared, sample) = (mask_queries == 1, if samples == 1 { 0 } else { sample });
            let row = sample * mask_queries + if shared { 0 } else { query };
            let rows = if shared { 1 } else { count };
            Mask {
                data: cx.flat(view, row * keys, rows * keys),
                stride: if shared { 0 } else { keys },
            }
        });
        let mut out = cx.rows_mut(&work.output, rows);
        for index in 0..heads {
            let start = index * head;
            let attention = Attention {
                queries: count,
                keys,
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
        first += count;
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
