//! Reshape, concat, slice, gather and the timestep embedding.

use plantain::graph::{DType, Op, ValueId};

use super::arrange::Groups;
use super::elementwise::with_axis;
use super::{Emitter, Result};
use crate::import::flow::{Element, Node, Size};
use crate::lower::view::{Axis, Source, View};
use crate::lower::{FloatTensor, LowerError};

impl Emitter<'_> {
    pub(super) fn reshape(&mut self, node: &Node) -> Result<View> {
        let view = self.operand(node, 0);
        if let Some(view) = view.reshape(&node.shape) {
            return Ok(view);
        }
        let view = self.expanded(&view, |_| true)?;
        if let Some(view) = view.reshape(&node.shape) {
            return Ok(view);
        }
        let view = self.row_major(&view)?;
        let Source::Value(value) = view.source else { return Err(self.shape_error(&node.shape)) };
        let value = self.push_named(".reshaped", Op::Reshape, vec![value], node.shape.clone())?;
        Ok(View::row_major(Source::Value(value), &node.shape, self.flow.bindings))
    }

    pub(super) fn concat(&mut self, node: &Node, axis: usize) -> Result<View> {
        let operands: Vec<View> =
            (0..node.inputs.len()).map(|index| self.operand(node, index)).collect();
        // Where all operands repeat, so does the result.
        let repeats = |other: usize| {
            other != axis && operands.iter().all(|view| view.axes[other].atoms.is_empty())
        };
        let mut views = Vec::new();
        for view in &operands {
            views.push(self.expanded(view, |other| !repeats(other))?);
        }
        let prepared = (0..views.len()).all(|index| views[index].join(axis).is_some())
            && refine_others(&mut views, axis);
        let candidates = (0..views.len()).filter(|&index| {
            matches!(views[index].source, Source::Value(_))
                && !views[index].axes[axis].atoms.is_empty()
        });
        let lead = candidates.min_by_key(|&index| views[index].pieces());
        let (Some(lead), true) = (lead, prepared) else { return self.concat_plain(node, axis) };
        let lead_view = views[lead].clone();
        let Some(&along) = lead_view.axes[axis].atoms.first() else {
            return self.concat_plain(node, axis);
        };
        let Some(base) = self.base(&lead_view) else { return self.concat_plain(node, axis) };
        let groups = Self::uniform(base, |atom| atom == along);
        let Some(dim) = groups.iter().position(|group| group.contains(&along)) else {
            return self.concat_plain(node, axis);
        };
        let mut values = Vec::new();
        for view in &views {
            let translated = translate(&lead_view, view, &groups);
            values.push(self.arrange(view, &translated)?);
        }
        let view = Self::after(&lead_view, &groups, values[lead]);
        let mut shape = self.shapes[values[lead].index()].clone();
        shape[dim] = node.shape[axis].clone();
        let value = self.push(Op::Concat { axis: dim as u32 }, values, shape)?;
        let mut view = View { source: Source::Value(value), ..view };
        let atom = view.axes[axis].atoms[0];
        view.order[atom] = node.shape[axis].clone();
        view.axes[axis].size = node.shape[axis].clone();
        Ok(view)
    }

    /// Concat in the order of the model's axes, when the operands agree on nothing better.
    fn concat_plain(&mut self, node: &Node, axis: usize) -> Result<View> {
        let mut values: Vec<ValueId> = Vec::new();
        for index in 0..node.inputs.len() {
            let view = self.operand(node, index);
            let view = self.row_major(&view)?;
            if let Source::Value(value) = view.source {
                values.push(value);
            }
        }
        let shape = node.shape.clone();
        let value = self.push(Op::Concat { axis: axis as u32 }, values, shape)?;
        Ok(View::row_major(Source::Value(value), &node.shape, self.flow.bindings))
    }

    pub(super) fn slice(&mut self, node: &Node, axis: usize, start: &Size) -> Result<View> {
        let size = node.shape[axis].clone();
        let mut view = self.operand(node, 0);
        if view.axes[axis].atoms.is_empty() {
            view.axes[axis].size = size;
            return Ok(view);
        }
        let (with_value, _) = self.some_value(&view)?;
        view = with_value;
        // A range that is whole in the outermost atom leaves the inner ones alone.
        let atoms = view.axes[axis].atoms.clone();
        let inner = view.product(&atoms[1..]);
        let whole = size.over(&inner).zip(start.over(&inner));
        let (atom, new, from) = match whole {
            Some((new, from)) => (atoms[0], new, from),
            None => {
                if view.join(axis).is_none() {
                    view = self.row_major(&view)?;
                }
                (view.axes[axis].atoms[0], size.clone(), start.clone())
            }
        };
        let Source::Value(value) = view.source else { return Err(self.shape_error(&[size])) };
        let base = self.base(&view);
        let mut groups =
            base.unwrap_or_else(|| (0..view.order.len()).map(|a| vec![a]).collect::<Groups>());
        let outermost = |group: &Vec<usize>| group.first() == Some(&atom);
        if !groups.iter().any(outermost) {
            groups = Self::uniform(groups, |a| a >= atom);
        }
        let value =
            self.arrange(&View { source: Source::Value(value), ..view.clone() }, &groups)?;
        let Some(dim) = groups.iter().position(outermost) else {
            return Err(self.shape_error(&[size]));
        };
        let rest = view.product(&groups[dim][1..]);
        let mut shape = self.shapes[value.index()].clone();
        shape[dim] = new.times(&rest);
        let start = from.times(&rest);
        let start = if start.at().iter().all(|&n| n == 0) {
            plantain::graph::Dim::fixed(0)
        } else {
            self.sampling
                .dim(&start)
                .ok_or_else(|| self.shape_error(std::slice::from_ref(&start)))?
        };
        let op = Op::Slice { axis: dim as u32, start };
        let value = self.push(op, vec![value], shape)?;
        view.source = Source::Value(value);
        view.axes[axis].size = size;
        if new.is_one() {
            view.order.remove(atom);
            for axis in &mut view.axes {
                axis.atoms.retain(|&a| a != atom);
                axis.atoms.iter_mut().filter(|a| **a > atom).for_each(|a| *a -= 1);
            }
        } else {
            view.order[atom] = new;
        }
        Ok(view)
    }

    pub(super) fn gather(&mut self, node: &Node) -> Result<View> {
        let table = self.flow.constant(node.inputs[0]).cloned();
        let ids = self.operand(node, 1);
        let (Some(table), Source::Value(_)) = (table, &ids.source) else {
            return Err(LowerError::unsupported(
                &node.name,
                "Gather from a computed table",
                "rows of a constant table by computed ids are",
            ));
        };
        let (view, value) = self.some_value(&ids)?;
        let rows = table.shape[0];
        let c: usize = table.shape[1..].iter().product();
        let name = self.flow.nodes[node.inputs[0]].name.clone();
        let name = self.store(&name, FloatTensor::new(vec![rows, c], table.data.clone()));
        let mut shape = self.shapes[value.index()].clone();
        shape.push(Size::same(c, self.flow.bindings));
        let op = Op::Gather { table: name, scale: None, rows: rows as u32 };
        let value = self.push(op, vec![value], shape)?;
        let mut view = View { source: Source::Value(value), ..view };
        for &size in &table.shape[1..] {
            let size = Size::same(size, self.flow.bindings);
            let mut axis = Axis { size: size.clone(), atoms: Vec::new() };
            if !size.is_one() {
                axis.atoms.push(view.order.len());
                view.order.push(size);
            }
            view.axes.push(axis);
        }
        Ok(view)
    }

    pub(super) fn timestep(&mut self, node: &Node, sin_first: bool) -> Result<View> {
        let view = self.operand(node, 0);
        let all: Groups = vec![(0..view.order.len()).collect()];
        let mut value = self.arrange(&view, &all)?;
        let mut view = Self::after(&view, &all, value);
        let bindings = self.flow.bindings;
        if self.graph.value(value).dtype == DType::I32 {
            let shape = self.shapes[value.index()].clone();
            value = self.push_named(".float", Op::Cast, vec![value], shape)?;
        }
        debug_assert_eq!(node.element, Element::Float, "embeddings are floats");
        let frequencies = self.store_operand(node, 1)?;
        let last = node.shape.len() - 1;
        let shape = vec![self.shapes[value.index()][0].clone(), node.shape[last].clone()];
        let op = Op::TimestepEmbedding { frequencies, sin_first };
        let value = self.push(op, vec![value], shape)?;
        let one = Size::same(1, bindings);
        view.axes.resize(node.shape.len(), Axis { size: one, atoms: Vec::new() });
        Ok(with_axis(&view, last, &node.shape[last], value))
    }
}

fn refine_others(views: &mut [View], axis: usize) -> bool {
    for _ in 0..2 {
        for a in 0..views.len() {
            for b in a + 1..views.len() {
                let (head, tail) = views.split_at_mut(b);
                for other in (0..head[a].axes.len()).filter(|&other| other != axis) {
                    if head[a].refine(other, &mut tail[0], other).is_none() {
                        return false;
                    }
                }
            }
        }
    }
    true
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
