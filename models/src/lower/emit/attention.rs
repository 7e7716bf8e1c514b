//! Fused attention: which batch axes are heads follows from where they lie in memory.

use plantain::graph::Op;

use super::arrange::Groups;
use super::{Emitter, Result};
use crate::import::flow::{Node, Size};
use crate::lower::LowerError;
use crate::lower::view::{Axis, Source, View};

impl Emitter<'_> {
    pub(super) fn attention(&mut self, node: &Node, scale: f32, causal: bool) -> Result<View> {
        let rank = node.shape.len();
        let (rows, inner) = (rank - 2, rank - 1);
        let mut views: Vec<View> = Vec::new();
        for index in 0..3 {
            let view = self.operand(node, index);
            views.push(self.expanded(&view, |_| true)?);
        }
        for _ in 0..2 {
            for (a, b) in [(0, 1), (1, 2), (0, 2)] {
                let (head, tail) = views.split_at_mut(b);
                for axis in 0..rows {
                    head[a].refine(axis, &mut tail[0], axis).ok_or_else(|| batch_error(node))?;
                }
                if a == 1 {
                    head[a].refine(rows, &mut tail[0], rows).ok_or_else(|| batch_error(node))?;
                }
            }
        }
        let batch = |view: &View| -> Vec<usize> {
            (0..rows).flat_map(|axis| view.axes[axis].atoms.clone()).collect()
        };
        // Heads are the batch atoms that lie inside the tokens.
        let heads = views.iter().map(|view| heads_inside(view, &batch(view), rows)).max();
        let heads = heads.unwrap_or(0);
        let mut values = Vec::new();
        let mut count = Size::same(1, self.flow.bindings);
        for view in &views {
            let batch = batch(view);
            let (samples, heads) = batch.split_at(batch.len() - heads);
            let mut channels = heads.to_vec();
            channels.extend(&view.axes[inner].atoms);
            let groups: Groups = vec![samples.to_vec(), view.axes[rows].atoms.clone(), channels];
            count = view.product(heads);
            values.push(self.arrange(view, &groups)?);
        }
        if node.inputs.len() > 3 {
            let mask = self.operand(node, 3);
            values.push(self.mask(node, mask, &mut views, heads)?);
        }
        let heads_count = count.fixed().ok_or_else(|| self.shape_error(&[count.clone()]))?;
        let shape = vec![
            self.shapes[values[0].index()][0].clone(),
            self.shapes[values[0].index()][1].clone(),
            self.shapes[values[2].index()][2].clone(),
        ];
        let op = Op::Attention { heads: heads_count as u32, scale, causal };
        let value = self.push(op, values, shape)?;

        let q = &views[0];
        let q_batch = batch(q);
        let (samples, head_atoms) = q_batch.split_at(q_batch.len() - heads);
        let mut memory = samples.to_vec();
        memory.extend(&q.axes[rows].atoms);
        memory.extend(head_atoms);
        let mut order: Vec<Size> = memory.iter().map(|&atom| q.order[atom].clone()).collect();
        let place = |atom: &usize| memory.iter().position(|m| m == atom).unwrap_or(usize::MAX);
        let mut axes: Vec<Axis> = (0..=rows)
            .map(|axis| Axis {
                size: node.shape[axis].clone(),
                atoms: q.axes[axis].atoms.iter().map(place).collect(),
            })
            .collect();
        let mut last = Axis { size: node.shape[inner].clone(), atoms: Vec::new() };
        if !last.size.is_one() {
            last.atoms.push(order.len());
            order.push(last.size.clone());
        }
        axes.push(last);
        Ok(View { source: Source::Value(value), order, axes, bindings: self.flow.bindings })
    }

    /// The mask as `[samples or 1, queries or 1, keys]`.
    fn mask(
        &mut self,
        node: &Node,
        mut mask: View,
        views: &mut [View],
        heads: usize,
    ) -> Result<plantain::graph::ValueId> {
        let rank = node.shape.len();
        let (rows, keys) = (rank - 2, rank - 1);
        let mut samples: Vec<usize> = Vec::new();
        let total: usize = (0..rows).map(|axis| views[0].axes[axis].atoms.len()).sum();
        let mut seen = 0;
        for axis in 0..rows {
            let (have, want) = (mask.axes[axis].atoms.len(), views[0].axes[axis].atoms.len());
            if have > 0 {
                mask.refine(axis, &mut views[0].clone(), axis).ok_or_else(|| batch_error(node))?;
                if mask.axes[axis].atoms.len() != want || seen + want > total - heads {
                    return Err(LowerError::unsupported(
                        &node.name,
                        "an attention mask that differs by head",
                        "masks that are the same for all heads are",
                    ));
                }
                samples.extend(&mask.axes[axis].atoms);
            }
            seen += want;
        }
        if !samples.is_empty() && samples.len() != total - heads {
            mask = self.expanded(&mask, |axis| axis < rows)?;
            samples = (0..rows).flat_map(|axis| mask.axes[axis].atoms.clone()).collect();
        }
        mask = self.expanded(&mask, |axis| axis == keys)?;
        let groups: Groups =
            vec![samples, mask.axes[rows].atoms.clone(), mask.axes[keys].atoms.clone()];
        self.arrange(&mask, &groups)
    }
}

fn batch_error(node: &Node) -> LowerError {
    LowerError::unsupported(
        &node.name,
        "attention between tensors whose batch and heads are split differently",
        "queries, keys and values with the same batch and heads are",
    )
}

/// How many of the last batch atoms lie inside (after) the tokens in memory.
fn heads_inside(view: &View, batch: &[usize], rows: usize) -> usize {
    let Some(&last_row) = view.axes[rows].atoms.iter().max() else { return 0 };
    batch.iter().rev().take_while(|&&atom| atom > last_row).count()
}
