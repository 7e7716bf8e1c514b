//! Norms, softmax and reductions.

use plantain::graph::{Op, Unary};

use super::arrange::Groups;
use super::{Emitter, Result};
use crate::import::flow::{Fold, Node, Size};
use crate::lower::view::{Axis, Source, View};
use crate::lower::{FloatTensor, LowerError};

impl Emitter<'_> {
    pub(super) fn group_norm(&mut self, node: &Node, groups: usize, eps: f32) -> Result<View> {
        let view = self.operand(node, 0);
        let view = self.expanded(&view, |axis| axis > 0)?;
        let atoms = |axis: usize| view.axes[axis].atoms.clone();
        let rank = view.axes.len();
        let dims: Groups = match rank {
            2 => vec![atoms(0), Vec::new(), atoms(1)],
            3 | 4 => std::iter::once(0).chain(2..rank).chain([1]).map(atoms).collect(),
            _ => vec![atoms(0), (2..rank).flat_map(atoms).collect(), atoms(1)],
        };
        let value = self.arrange(&view, &dims)?;
        let view = Self::after(&view, &dims, value);
        let channels = view.axes[1].size.fixed().unwrap_or(1);
        let gamma = self.parameter(node, 1, channels, 1.0)?;
        let beta = self.parameter(node, 2, channels, 0.0)?;
        let op = Op::GroupNorm { groups: groups as u32, eps, gamma, beta, activation: None };
        let shape = self.shapes[value.index()].clone();
        let value = self.push(op, vec![value], shape)?;
        Ok(View { source: Source::Value(value), ..view })
    }

    pub(super) fn layer_norm(&mut self, node: &Node, axis: usize, eps: f32) -> Result<View> {
        let (view, value) = self.innermost(&self.operand(node, 0), axis)?;
        let channels = view.axes[axis].size.fixed().unwrap_or(1);
        let gamma = self.parameter(node, 1, channels, 1.0)?;
        let beta = match node.inputs.len() {
            3 => Some(self.store_operand(node, 2)?),
            _ => None,
        };
        let shape = self.shapes[value.index()].clone();
        let value = self.push(Op::LayerNorm { eps, gamma, beta }, vec![value], shape)?;
        Ok(View { source: Source::Value(value), ..view })
    }

    pub(super) fn rms_norm(&mut self, node: &Node, axis: usize, eps: f32) -> Result<View> {
        let view = self.operand(node, 0);
        let size = view.axes[axis].size.fixed().ok_or_else(|| {
            LowerError::unsupported(
                &node.name,
                "a norm over a free dimension",
                "norms over fixed dimensions are",
            )
        })?;
        // A head's run may end the last dimension without being all of it.
        let axis_atoms = &view.axes[axis].atoms;
        let tail: Vec<usize> = (view.order.len() - axis_atoms.len()..view.order.len()).collect();
        let inside = self
            .base(&view)
            .and_then(|base| base.last().cloned())
            .is_some_and(|last| *axis_atoms == tail && last.len() >= tail.len());
        let (view, value) = match &view.source {
            Source::Value(value) if inside => (view.clone(), *value),
            _ => self.innermost(&view, axis)?,
        };
        let gamma = self.parameter(node, 1, size, 1.0)?;
        let shape = self.shapes[value.index()].clone();
        let op = Op::RmsNorm { eps, size: size as u32, gamma };
        let value = self.push(op, vec![value], shape)?;
        Ok(View { source: Source::Value(value), ..view })
    }

    /// A constant operand's name, or that of a vector of one value where there is none.
    fn parameter(&mut self, node: &Node, index: usize, n: usize, fill: f32) -> Result<String> {
        if node.inputs.len() > index {
            return self.store_operand(node, index);
        }
        Ok(self.store(&format!("fill.{fill}.{n}"), FloatTensor::new(vec![n], vec![fill; n])))
    }

    pub(super) fn softmax(&mut self, node: &Node, axis: usize) -> Result<View> {
        let (view, value) = self.innermost(&self.operand(node, 0), axis)?;
        let shape = self.shapes[value.index()].clone();
        let value = self.push(Op::Softmax, vec![value], shape)?;
        Ok(View { source: Source::Value(value), ..view })
    }

    pub(super) fn reduce(&mut self, node: &Node, fold: Fold, axes: &[usize]) -> Result<View> {
        let view = self.operand(node, 0);
        let view = self.expanded(&view, |axis| axes.contains(&axis))?;
        let (mut view, mut value) = self.some_value(&view)?;
        let reduced: Vec<usize> =
            axes.iter().flat_map(|&axis| view.axes[axis].atoms.iter().copied()).collect();
        let gone = |atom: usize| reduced.contains(&atom);
        let base = self.base(&view);
        let base = base.unwrap_or_else(|| (0..view.order.len()).map(|a| vec![a]).collect());
        let groups = Self::uniform(base, gone);
        value = self.arrange(&View { source: Source::Value(value), ..view.clone() }, &groups)?;
        if fold == Fold::MeanOfSquares {
            let shape = self.shapes[value.index()].clone();
            let square = Op::Unary { function: Unary::Square };
            value = self.push_named(".squared", square, vec![value], shape)?;
        }
        let mut shape = self.shapes[value.index()].clone();
        let mut dims = Vec::new();
        for (index, group) in groups.iter().enumerate() {
            if group.first().is_some_and(|&atom| gone(atom)) {
                dims.push(index as u32);
                shape[index] = Size::same(1, view.bindings);
            }
        }
        let op = match fold {
            Fold::Sum => Op::ReduceSum { axes: dims },
            Fold::Mean | Fold::MeanOfSquares => Op::ReduceMean { axes: dims },
        };
        let value = self.push(op, vec![value], shape)?;
        let left: Vec<usize> = (0..view.order.len()).filter(|&atom| !gone(atom)).collect();
        let place = |atom: &usize| left.iter().position(|l| l == atom);
        view.axes = view
            .axes
            .iter()
            .zip(&node.shape)
            .map(|(axis, size)| Axis {
                size: size.clone(),
                atoms: axis.atoms.iter().filter_map(place).collect(),
            })
            .collect();
        view.order = left.iter().map(|&atom| view.order[atom].clone()).collect();
        view.source = Source::Value(value);
        Ok(view)
    }
}
