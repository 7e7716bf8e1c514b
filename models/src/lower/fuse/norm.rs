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
            Kind::LayerNorm { axis, .. } if norm.inputs.len() == 1 => {
                match self.per_channel(&norm, factor) {
                    Some(kind) => (1, kind),
                    None => (axis, norm.kind.clone()),
                }
            }
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
        let (axis, norm) = match self.per_channel(&norm, summand) {
            Some(kind) => (1, Node { kind, ..norm }),
            None => (axis, norm),
        };
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

    /// `(y - mean(y)) * rsqrt(var(y) + eps)` with `y` being `x` as `[n, groups, channels, spatial..]`,
    /// as newer opsets' GroupNormalization is written out.
    pub(super) fn spelled_group_norm(&mut self, node: &Node) -> Option<Id> {
        let Kind::Binary(Binary::Mul) = node.kind else { return None };
        let [a, b] = node.inputs[..] else { return None };
        [(a, b), (b, a)].into_iter().find_map(|(diff, root)| {
            let Kind::Unary(Unary::Rsqrt) = self.at(root).kind else { return None };
            let (1.0, eps, squares) = self.affine(self.at(root).inputs[0])? else { return None };
            let Kind::Reduce(Fold::MeanOfSquares, axes) = &self.at(squares).kind else {
                return None;
            };
            let difference = self.at(diff);
            let Kind::Binary(Binary::Sub) = difference.kind else { return None };
            let [grouped, mean] = difference.inputs[..] else { return None };
            let Kind::Reduce(Fold::Mean, mean_axes) = &self.at(mean).kind else { return None };
            let same = self.at(squares).inputs[0] == diff
                && self.at(mean).inputs[0] == grouped
                && mean_axes == axes
                && axes.iter().copied().eq(2..node.shape.len());
            let Kind::Reshape = self.at(grouped).kind else { return None };
            let x = self.at(grouped).inputs[0];
            let (shape, split) = (self.at(x).shape.clone(), &self.at(grouped).shape);
            let groups = split[1].fixed()?;
            let fits = same
                && shape.len() + 1 == split.len()
                && shape[0] == split[0]
                && shape[1] == split[1].times(&split[2])
                && shape[2..] == split[3..];
            if !fits {
                return None;
            }
            let norm = self.helper(node, Kind::GroupNorm { groups, eps }, vec![x], shape);
            Some(self.push(Node { kind: Kind::Reshape, inputs: vec![norm], ..node.clone() }))
        })
    }

    /// A gamma or beta `[1, groups, channels, 1..]` on a group norm's result in groups.
    pub(super) fn grouped_affine(&mut self, node: &Node) -> Option<Id> {
        let Kind::Binary(function @ (Binary::Mul | Binary::Add)) = node.kind else { return None };
        let (x, Constant::Tensor(parameter)) = self.with_constant(node, function)? else {
            return None;
        };
        let Kind::Reshape = self.at(x).kind else { return None };
        let norm = self.at(x).inputs[0];
        let Kind::GroupNorm { .. } = self.at(norm).kind else { return None };
        let (shape, tensor) = (self.at(norm).shape.clone(), self.flow.constant(parameter)?);
        let channels = shape[1].fixed()?;
        let by_channel = tensor.shape.len() == shape.len() + 1
            && tensor.data.len() == channels
            && tensor.shape[1] * tensor.shape[2] == channels;
        if !by_channel {
            return None;
        }
        let data = tensor.data.clone();
        let mut one = vec![1; shape.len()];
        one[1] = channels;
        let name = self.at(parameter).name.clone();
        let parameter = self.constant(&name, one, data);
        let inner = Node { inputs: vec![norm, parameter], shape, traced: false, ..node.clone() };
        let inner = self.add(inner);
        Some(self.push(Node { kind: Kind::Reshape, inputs: vec![inner], ..node.clone() }))
    }

    /// A layer norm over the cells of `[n, c, cells]` whose parameter is one value a channel is a
    /// group norm with as many groups as channels.
    fn per_channel(&self, norm: &Node, parameter: Constant) -> Option<Kind> {
        let (Kind::LayerNorm { axis: 2, eps }, [_, channels, _]) = (&norm.kind, &norm.shape[..])
        else {
            return None;
        };
        let Constant::Tensor(id) = parameter else { return None };
        let groups = channels.fixed()?;
        let by_channel =
            groups > 1 && norm.inputs.len() == 1 && self.flow.constant(id)?.shape == [1, groups, 1];
        by_channel.then_some(Kind::GroupNorm { groups, eps: *eps })
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
