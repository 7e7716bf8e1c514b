//! Means, layer norms, RMS norms with gamma, group norms.

use plantain::graph::{Binary, Unary};

use super::Fuser;
use crate::import::flow::{Fold, Id, Kind, Node, Size};

impl Fuser {
    /// A sum divided by its count.
    pub(super) fn mean(&mut self, node: &Node) -> Option<Id> {
        let (sum, scales) = match node.kind {
            Kind::Unary(Unary::Affine { scale, shift: 0.0 }) => {
                (node.inputs[0], vec![scale; self.bindings()])
            }
            Kind::Binary(function @ (Binary::Mul | Binary::Div)) => {
                let [a, b] = node.inputs[..] else { return None };
                let (sum, factor) = match self.at(a).kind {
                    Kind::Varying(_) if function == Binary::Mul => (b, a),
                    _ => (a, b),
                };
                let Kind::Varying(values) = &self.at(factor).kind else { return None };
                let inverse = |v: &f32| if function == Binary::Div { 1.0 / v } else { *v };
                (sum, values.iter().map(inverse).collect())
            }
            _ => return None,
        };
        let sum = self.at(sum).clone();
        let Kind::Reduce(Fold::Sum, axes) = &sum.kind else { return None };
        let shape = &self.at(sum.inputs[0]).shape;
        let count = Size::product(axes.iter().map(|&axis| &shape[axis]), self.bindings());
        let is_mean = scales.len() == self.bindings()
            && count.at().iter().zip(&scales).all(|(&n, s)| (s * n as f32 - 1.0).abs() < 1e-5);
        let kind = Kind::Reduce(Fold::Mean, axes.clone());
        is_mean.then(|| self.push(Node { kind, inputs: sum.inputs.clone(), ..node.clone() }))
    }

    /// The RMS norm of `x - mean(x)`; gamma and beta join later.
    pub(super) fn layer_norm(&mut self, node: &Node) -> Option<Id> {
        let Kind::RmsNorm(axis, eps) = node.kind else { return None };
        let difference = self.at(node.inputs[0]);
        let Kind::Binary(Binary::Sub) = difference.kind else { return None };
        let [x, mean] = difference.inputs[..] else { return None };
        let mean = self.at(mean);
        let Kind::Reduce(Fold::Mean, axes) = &mean.kind else { return None };
        if axes != &[axis] || mean.inputs[0] != x {
            return None;
        }
        let kind = Kind::LayerNorm { axis, eps };
        Some(self.push(Node { kind, inputs: vec![x], ..node.clone() }))
    }

    /// `norm(x) * gamma`.
    pub(super) fn norm_gamma(&mut self, node: &Node) -> Option<Id> {
        let (x, factor) = self.with_constant(node, Binary::Mul)?;
        let norm = self.at(x).clone();
        let (axis, kind) = match norm.kind {
            Kind::RmsNorm(axis, eps) => (axis, Kind::ScaledRmsNorm { axis, eps }),
            Kind::LayerNorm { axis, .. } if norm.inputs.len() == 1 => (axis, norm.kind.clone()),
            Kind::GroupNorm { .. } if norm.inputs.len() == 1 => (1, norm.kind.clone()),
            _ => return None,
        };
        let gamma = self.parameter(node, factor, axis)?;
        let gamma = self.constant(&format!("{}.gamma", norm.name), vec![gamma.len()], gamma);
        Some(self.push(Node { kind, inputs: vec![norm.inputs[0], gamma], ..node.clone() }))
    }

    /// `norm(x) + beta`.
    pub(super) fn norm_beta(&mut self, node: &Node) -> Option<Id> {
        let (x, summand) = self.with_constant(node, Binary::Add)?;
        let norm = self.at(x).clone();
        let axis = match norm.kind {
            Kind::LayerNorm { axis, .. } => axis,
            Kind::GroupNorm { .. } => 1,
            _ => return None,
        };
        if norm.inputs.len() > 2 {
            return None;
        }
        let beta = self.parameter(node, summand, axis)?;
        let beta = self.constant(&format!("{}.beta", norm.name), vec![beta.len()], beta);
        let mut inputs = norm.inputs.clone();
        if inputs.len() == 1 {
            let length = self.at(beta).shape[0].fixed()?;
            inputs.push(self.constant(&format!("ones.{length}"), vec![length], vec![1.0; length]));
        }
        inputs.push(beta);
        Some(self.push(Node { kind: norm.kind, inputs, ..node.clone() }))
    }

    /// A layer norm over the rest of `[n, groups, rest]`, back in the shape of its operand.
    pub(super) fn group_norm(&mut self, node: &Node) -> Option<Id> {
        let Kind::Reshape = node.kind else { return None };
        let norm = self.at(node.inputs[0]).clone();
        let Kind::LayerNorm { axis: 2, eps } = norm.kind else { return None };
        let flat = self.at(norm.inputs[0]);
        let Kind::Reshape = flat.kind else { return None };
        let x = flat.inputs[0];
        let shape = &self.at(x).shape;
        let [samples, groups, _] = &norm.shape[..] else { return None };
        let fits = norm.inputs.len() == 1
            && *shape == node.shape
            && shape.len() >= 3
            && shape[0] == *samples;
        let groups = groups.fixed()?;
        if !fits || shape[1].fixed()? % groups != 0 {
            return None;
        }
        let kind = Kind::GroupNorm { groups, eps };
        Some(self.push(Node { kind, inputs: vec![x], ..node.clone() }))
    }

    /// The computed and the constant operand of a sum or product; an affine function counts.
    fn with_constant(&mut self, node: &Node, wanted: Binary) -> Option<(Id, Constant)> {
        match node.kind {
            Kind::Binary(function) if function == wanted => {
                let [a, b] = node.inputs[..] else { return None };
                if self.flow.constant(b).is_some() {
                    Some((a, Constant::Tensor(b)))
                } else {
                    self.flow.constant(a)?;
                    Some((b, Constant::Tensor(a)))
                }
            }
            Kind::Unary(Unary::Affine { scale, shift: 0.0 }) if wanted == Binary::Mul => {
                Some((node.inputs[0], Constant::Number(scale)))
            }
            Kind::Unary(Unary::Affine { scale: 1.0, shift }) if wanted == Binary::Add => {
                Some((node.inputs[0], Constant::Number(shift)))
            }
            _ => None,
        }
    }

    fn parameter(&self, node: &Node, constant: Constant, axis: usize) -> Option<Vec<f32>> {
        let length = node.shape[axis].fixed()?;
        match constant {
            Constant::Number(value) => Some(vec![value; length]),
            Constant::Tensor(id) => self.vector(id, node.shape.len(), axis, length),
        }
    }
}

#[derive(Clone, Copy)]
enum Constant {
    Tensor(Id),
    Number(f32),
}
