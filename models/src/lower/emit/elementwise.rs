//! Inputs, casts and functions of one, two and three values.

use plantain::graph::{Binary, DType, Op, Unary, ValueId};

use super::arrange::Groups;
use super::{Emitter, Result};
use crate::import::flow::{Element, Node, Size};
use crate::lower::LowerError;
use crate::lower::view::{Axis, Source, View};

impl Emitter<'_> {
    pub(super) fn input(&mut self, node: &Node) -> Result<View> {
        // The outside feeds images with channels innermost.
        let memory: Vec<usize> = match node.shape.len() {
            4 => vec![0, 2, 3, 1],
            rank if rank < 4 => (0..rank).collect(),
            rank => {
                return Err(LowerError::unsupported(
                    &node.name,
                    format!("an input of {rank} dimensions"),
                    "inputs of up to 4 dimensions are",
                ));
            }
        };
        let mut shape: Vec<Size> = memory.iter().map(|&axis| node.shape[axis].clone()).collect();
        if shape.is_empty() {
            shape.push(Size::same(1, self.flow.bindings));
        }
        let dtype = if node.element == Element::Int { DType::I32 } else { DType::F32 };
        let value = self.value(&node.name, shape, dtype)?;
        self.graph.inputs.push(value);
        Ok(View::in_order(Source::Value(value), &node.shape, &memory, self.flow.bindings))
    }

    /// Hands a value out under the model's name for it.
    pub(super) fn output(&mut self, name: &str, id: usize) -> Result<()> {
        let view = self.views[id].clone().expect("outputs are emitted");
        let view = self.expanded(&view, |_| true)?;
        let memory: Vec<usize> =
            if view.axes.len() == 4 { vec![0, 2, 3, 1] } else { (0..view.axes.len()).collect() };
        let mut groups: Groups = memory.iter().map(|&a| view.axes[a].atoms.clone()).collect();
        if groups.is_empty() {
            groups.push(Vec::new());
        }
        let mut value = self.arrange(&view, &groups)?;
        let taken = self.graph.inputs.contains(&value) || self.graph.outputs.contains(&value);
        if taken {
            let shape = self.shapes[value.index()].clone();
            value = self.push_named(".copied", Op::Reshape, vec![value], shape)?;
        }
        let slot = &mut self.graph.values[value.index()];
        slot.name = name.to_owned();
        self.graph.outputs.push(value);
        let node = &self.flow.nodes[id];
        self.note_origin(node, &Self::after(&view, &groups, value));
        Ok(())
    }

    pub(super) fn unary(&mut self, node: &Node, function: Unary) -> Result<View> {
        let view = self.operand(node, 0);
        let (view, value) = self.some_value(&view)?;
        let shape = self.shapes[value.index()].clone();
        let value = self.push(Op::Unary { function }, vec![value], shape)?;
        Ok(View { source: Source::Value(value), ..view })
    }

    /// The view as a value of the graph, in any shape.
    pub(super) fn some_value(&mut self, view: &View) -> Result<(View, ValueId)> {
        let groups: Groups = match &view.source {
            Source::Value(value) => return Ok((view.clone(), *value)),
            Source::Constant(_) if view.order.is_empty() => vec![Vec::new()],
            Source::Constant(_) => (0..view.order.len()).map(|atom| vec![atom]).collect(),
        };
        let value = self.arrange(view, &groups)?;
        Ok((Self::after(view, &groups, value), value))
    }

    pub(super) fn cast(&mut self, node: &Node) -> Result<View> {
        let view = self.operand(node, 0);
        let from = self.flow.nodes[node.inputs[0]].element;
        if from == node.element || matches!(view.source, Source::Constant(_)) {
            return Ok(view);
        }
        let (view, value) = self.some_value(&view)?;
        let shape = self.shapes[value.index()].clone();
        let value = self.push(Op::Cast, vec![value], shape)?;
        Ok(View { source: Source::Value(value), ..view })
    }

    pub(super) fn binary(&mut self, node: &Node, function: Binary) -> Result<View> {
        let operands = vec![self.operand(node, 0), self.operand(node, 1)];
        let (view, values) = self.align(node, operands)?;
        let shape = self.broadcast(&values);
        let value = self.push(Op::Binary { function }, values, shape)?;
        Ok(View { source: Source::Value(value), ..view })
    }

    pub(super) fn modulate(&mut self, node: &Node) -> Result<View> {
        let operands = (0..3).map(|index| self.operand(node, index)).collect();
        let (view, values) = self.align(node, operands)?;
        let shape = self.broadcast(&values);
        let value = self.push(Op::Modulate, values, shape)?;
        Ok(View { source: Source::Value(value), ..view })
    }

    fn broadcast(&self, values: &[ValueId]) -> Vec<Size> {
        let mut shape = self.shapes[values[0].index()].clone();
        for value in values {
            for (slot, size) in shape.iter_mut().zip(&self.shapes[value.index()]) {
                if slot.is_one() {
                    *slot = size.clone();
                }
            }
        }
        shape
    }

    /// Brings operands of equal rank into shapes that broadcast against each other; the view is
    /// that of the result, but for its source.
    fn align(&mut self, node: &Node, operands: Vec<View>) -> Result<(View, Vec<ValueId>)> {
        let mut views = operands;
        if !refine_all(&mut views) {
            for view in &mut views {
                *view = self.row_major(view)?;
            }
        }
        let rank = node.shape.len();
        let covers = |lead: &View| {
            (0..rank).all(|axis| {
                !lead.axes[axis].atoms.is_empty()
                    || views.iter().all(|view| view.axes[axis].atoms.is_empty())
            })
        };
        let lead = self.lead(&views, covers);
        let (result, groups_by_view) = match lead {
            Some(lead) => {
                let groups = self.lead_groups(&views, lead);
                let by_view: Vec<Groups> =
                    views.iter().map(|view| translate(&views[lead], view, &groups)).collect();
                let result = Self::after(&views[lead], &groups, ValueId(0));
                (result, by_view)
            }
            None => {
                let by_view: Vec<Groups> = views
                    .iter()
                    .map(|view| view.axes.iter().map(|axis| axis.atoms.clone()).collect())
                    .collect();
                let shape: Vec<Size> = (0..rank)
                    .map(|axis| {
                        let sized = views.iter().find(|v| !v.axes[axis].atoms.is_empty());
                        sized.map_or(Size::same(1, self.flow.bindings), |view| {
                            view.product(&view.axes[axis].atoms)
                        })
                    })
                    .collect();
                let source = Source::Value(ValueId(0));
                (View::row_major(source, &shape, self.flow.bindings), by_view)
            }
        };
        let mut values = Vec::new();
        for (view, groups) in views.iter().zip(&groups_by_view) {
            values.push(self.arrange(view, groups)?);
        }
        let axes = result
            .axes
            .into_iter()
            .zip(&node.shape)
            .map(|(axis, size)| Axis { size: size.clone(), atoms: axis.atoms })
            .collect();
        Ok((View { axes, ..result }, values))
    }

    /// The operand whose memory order the result takes: one that has all atoms, computed rather
    /// than constant, with its axes in one piece each, the result of a matmul or convolution rather than
    /// another (so that the sum can become its epilogue).
    fn lead(&self, views: &[View], covers: impl Fn(&View) -> bool) -> Option<usize> {
        let rank = |view: &View| match view.source {
            Source::Constant(_) => (0, 0, false),
            Source::Value(value) => {
                let producer = self.graph.nodes.iter().rev().find(|n| n.output == value);
                let sums = matches!(
                    producer.map(|n| &n.op),
                    Some(Op::MatmulF16 { .. } | Op::ConvF16 { .. })
                );
                (1, usize::MAX - view.pieces(), sums)
            }
        };
        let mut best: Option<usize> = None;
        for (index, view) in views.iter().enumerate() {
            if covers(view) && best.is_none_or(|b| rank(view) > rank(&views[b])) {
                best = Some(index);
            }
        }
        best
    }

    /// The lead's dimensions, cut so that every operand has all atoms of a dimension or none.
    fn lead_groups(&self, views: &[View], lead: usize) -> Groups {
        let view = &views[lead];
        let base = self.base(view).or_else(|| {
            // Another operand with the same atoms in the same order knows the dimensions.
            let all: Groups = vec![(0..view.order.len()).collect()];
            views.iter().enumerate().filter(|&(index, _)| index != lead).find_map(|(_, other)| {
                let same = translate(view, other, &all)[0].iter().copied().eq(0..other.order.len());
                (same && other.order.len() == view.order.len()).then(|| self.base(other)).flatten()
            })
        });
        let base = base.unwrap_or_else(|| view.axes.iter().map(|a| a.atoms.clone()).collect());
        let base = if base.iter().flatten().copied().eq(0..view.order.len()) {
            base
        } else {
            (0..view.order.len()).map(|atom| vec![atom]).collect()
        };
        let presence = |atom: usize| {
            let axis = view.axes.iter().position(|axis| axis.atoms.contains(&atom)).unwrap_or(0);
            views.iter().map(|v| v.axes[axis].atoms.is_empty()).collect::<Vec<bool>>()
        };
        Self::uniform(base, presence)
    }

    pub(super) fn gated(&mut self, node: &Node, axis: usize, function: Unary) -> Result<View> {
        let (view, value) = self.innermost(&self.operand(node, 0), axis)?;
        let mut shape = self.shapes[value.index()].clone();
        if let Some(last) = shape.last_mut() {
            *last = node.shape[axis].clone();
        }
        let value = self.push(Op::Gated { function }, vec![value], shape)?;
        Ok(with_axis(&view, axis, &node.shape[axis], value))
    }

    /// The value with an axis as its last dimension.
    pub(super) fn innermost(&mut self, view: &View, axis: usize) -> Result<(View, ValueId)> {
        let view = self.expanded(view, |a| a == axis)?;
        let groups = self.with_last(&view, &view.axes[axis].atoms.clone());
        let value = self.arrange(&view, &groups)?;
        Ok((Self::after(&view, &groups, value), value))
    }
}

/// A view of `value`, which is like `view`'s value but for the length of its innermost axis.
pub(super) fn with_axis(view: &View, axis: usize, size: &Size, value: ValueId) -> View {
    let mut view = view.clone();
    let keep = view.order.len() - view.axes[axis].atoms.len();
    view.order.truncate(keep);
    view.axes[axis] = Axis { size: size.clone(), atoms: Vec::new() };
    if !size.is_one() {
        view.axes[axis].atoms.push(keep);
        view.order.push(size.clone());
    }
    View { source: Source::Value(value), ..view }
}

/// Splits atoms until all views agree on every axis that they share.
fn refine_all(views: &mut [View]) -> bool {
    // Twice, because a late split must reach the views that came before it.
    for _ in 0..2 {
        for a in 0..views.len() {
            for b in a + 1..views.len() {
                let (head, tail) = views.split_at_mut(b);
                if !refine_pair(&mut head[a], &mut tail[0]) {
                    return false;
                }
            }
        }
    }
    true
}

fn refine_pair(a: &mut View, b: &mut View) -> bool {
    (0..a.axes.len()).all(|axis| {
        a.axes[axis].atoms.is_empty()
            || b.axes[axis].atoms.is_empty()
            || a.refine(axis, b, axis).is_some()
    })
}

/// The same groups in another view's atoms; atoms that it lacks are left out.
fn translate(lead: &View, view: &View, groups: &Groups) -> Groups {
    let theirs = |atom: &usize| {
        let (axis, place) = lead.axes.iter().enumerate().find_map(|(axis, a)| {
            a.atoms.iter().position(|mine| mine == atom).map(|place| (axis, place))
        })?;
        view.axes[axis].atoms.get(place).copied()
    };
    groups.iter().map(|group| group.iter().filter_map(theirs).collect()).collect()
}
