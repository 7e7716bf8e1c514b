//! Einsums with constant weights, biases and channel scales.

use std::sync::Arc;

use plantain::graph::{Binary, Unary};

use super::Fuser;
use crate::import::flow::{Element, Fold, Id, Kind, LinearAxis, Node, Size};
use crate::lower::rearranged;

impl Fuser {
    /// An einsum of one computed and one constant operand.
    pub(super) fn linear(&mut self, node: &Node) -> Option<Id> {
        let Kind::Einsum(einsum) = &node.kind else { return None };
        if let ([x], [labels]) = (&node.inputs[..], &einsum.inputs[..]) {
            return self.single_einsum(node, *x, labels, &einsum.output);
        }
        let [a, b] = node.inputs[..] else { return None };
        let constants = (self.flow.constant(a).is_some(), self.flow.constant(b).is_some());
        let (x, w) = match constants {
            (false, true) => (0, 1),
            (true, false) => (1, 0),
            _ => return None,
        };
        let (x_id, w_id) = (node.inputs[x], node.inputs[w]);
        let one = |id: Id, axis: usize| self.at(id).shape[axis].is_one();
        let keep = |id: Id, labels: &[char]| -> Vec<usize> {
            (0..labels.len()).filter(|&axis| !one(id, axis)).collect()
        };
        let (x_axes, w_axes) = (keep(x_id, &einsum.inputs[x]), keep(w_id, &einsum.inputs[w]));
        let x_labels: Vec<char> = x_axes.iter().map(|&axis| einsum.inputs[x][axis]).collect();
        let w_labels: Vec<char> = w_axes.iter().map(|&axis| einsum.inputs[w][axis]).collect();
        let output: Vec<Option<char>> = einsum
            .output
            .iter()
            .zip(&node.shape)
            .map(|(&label, size)| (!size.is_one()).then_some(label))
            .collect();
        let in_output = |label: &char| output.contains(&Some(*label));
        let shared = |label: &char| x_labels.contains(label) && w_labels.contains(label);
        // Weights by batch, and sums over x alone, are another matter.
        if w_labels.iter().any(|l| shared(l) && in_output(l))
            || x_labels.iter().any(|l| !shared(l) && !in_output(l))
            || w_labels.iter().any(|l| !shared(l) && !in_output(l))
        {
            return None;
        }
        let made: Vec<usize> =
            (0..w_labels.len()).filter(|&axis| !shared(&w_labels[axis])).collect();
        let inner: Vec<usize> =
            (0..w_labels.len()).filter(|&axis| shared(&w_labels[axis])).collect();
        let place = |labels: &[char], label: char| labels.iter().position(|&l| l == label);
        let output: Option<Vec<LinearAxis>> = output
            .iter()
            .map(|label| match *label {
                None => Some(LinearAxis::One),
                Some(l) => match place(&x_labels, l) {
                    Some(axis) => Some(LinearAxis::Kept(axis)),
                    None => made.iter().position(|&axis| w_labels[axis] == l).map(LinearAxis::Made),
                },
            })
            .collect();
        let x_inner: Option<Vec<usize>> =
            inner.iter().map(|&axis| place(&x_labels, w_labels[axis])).collect();
        let (output, x_inner) = (output?, x_inner?);

        let tensor = self.flow.constant(w_id)?;
        let squeezed: Vec<usize> = w_axes.iter().map(|&axis| tensor.shape[axis]).collect();
        let flat = crate::lower::FloatTensor::new(squeezed, tensor.data.clone());
        let order: Vec<usize> = made.iter().chain(&inner).copied().collect();
        let weights = rearranged(&flat, &order);
        let name = self.at(w_id).name.clone();
        let weights = self.constant(&name, weights.shape, weights.data);
        let x_shape = x_axes.iter().map(|&axis| self.at(x_id).shape[axis].clone()).collect();
        let x_id = self.reshaped(node, x_id, x_shape);
        let kind = Kind::Linear { inner: x_inner, output };
        Some(self.push(Node { kind, inputs: vec![x_id, weights], ..node.clone() }))
    }

    /// An einsum of one operand: a sum over what the output lacks, then a transpose.
    fn single_einsum(
        &mut self,
        node: &Node,
        x: Id,
        labels: &[char],
        output: &[char],
    ) -> Option<Id> {
        let repeats = |l: &char| labels.iter().filter(|&other| other == l).count() > 1;
        if labels.iter().any(repeats) || output.iter().any(|l| !labels.contains(l)) {
            return None;
        }
        let summed: Vec<usize> =
            (0..labels.len()).filter(|&axis| !output.contains(&labels[axis])).collect();
        let mut id = x;
        if !summed.is_empty() {
            let mut shape = self.at(x).shape.clone();
            summed.iter().for_each(|&axis| shape[axis] = Size::same(1, self.bindings()));
            let kind = Kind::Reduce(Fold::Sum, summed.clone());
            let kept: Vec<Size> = (0..labels.len())
                .filter(|axis| !summed.contains(axis))
                .map(|axis| shape[axis].clone())
                .collect();
            let sum = self.helper(node, kind, vec![x], shape);
            id = self.reshaped(node, sum, kept);
        }
        let kept: Vec<char> = labels.iter().copied().filter(|l| output.contains(l)).collect();
        let permutation =
            output.iter().map(|l| kept.iter().position(|k| k == l)).collect::<Option<Vec<_>>>()?;
        let kind = Kind::Permute(permutation);
        Some(self.push(Node { kind, inputs: vec![id], ..node.clone() }))
    }

    /// A convolution whose bias is computed (tract folds a timestep's projection into it, for one sample): an addition.
    pub(super) fn computed_bias(&mut self, node: &Node) -> Option<Id> {
        let Kind::Conv(conv) = &node.kind else { return None };
        let [x, kernel, bias] = node.inputs[..] else { return None };
        if self.flow.constant(bias).is_some() {
            return None;
        }
        let mut shape = vec![Size::same(1, self.bindings()); node.shape.len()];
        shape[conv.channel_axis] = node.shape[conv.channel_axis].clone();
        let bias = self.reshaped(node, bias, shape);
        let plain = self.helper(node, node.kind.clone(), vec![x, kernel], node.shape.clone());
        let kind = Kind::Binary(Binary::Add);
        Some(self.push(Node { kind, inputs: vec![plain, bias], ..node.clone() }))
    }

    /// A constant along the made axes (or channels) added to a matmul or convolution.
    pub(super) fn bias(&mut self, node: &Node) -> Option<Id> {
        let (x, constant) = match node.kind {
            Kind::Binary(Binary::Add) => {
                let [a, b] = node.inputs[..] else { return None };
                if self.flow.constant(b).is_some() { (a, Some(b)) } else { (b, Some(a)) }
            }
            Kind::Unary(Unary::Affine { scale: 1.0, .. }) => (node.inputs[0], None),
            _ => return None,
        };
        let target = self.at(x).clone();
        if target.shape != node.shape || target.inputs.len() > 2 {
            return None;
        }
        let axes = made_axes(&target)?;
        let bias = match (constant, &node.kind) {
            (Some(id), _) => self.along(id, node, &axes)?,
            (None, Kind::Unary(Unary::Affine { shift, .. })) => {
                vec![*shift; axes.iter().filter_map(|&a| node.shape[a].fixed()).product()]
            }
            _ => return None,
        };
        let name = match constant {
            Some(id) => self.at(id).name.clone(),
            None => format!("{}.bias", node.name),
        };
        let bias = self.constant(&name, vec![bias.len()], bias);
        let mut inputs = target.inputs.clone();
        inputs.push(bias);
        Some(self.push(Node { kind: target.kind, inputs, ..node.clone() }))
    }

    /// A constant along the last axis added to a matmul's result whose other axes were reshaped.
    pub(super) fn bias_after_reshape(&mut self, node: &Node) -> Option<Id> {
        let Kind::Binary(Binary::Add) = node.kind else { return None };
        let [a, b] = node.inputs[..] else { return None };
        let (x, constant) = if self.flow.constant(b).is_some() { (a, b) } else { (b, a) };
        let reshape = self.at(x);
        let Kind::Reshape = reshape.kind else { return None };
        let target = self.at(reshape.inputs[0]).clone();
        let last = node.shape.len().checked_sub(1)?;
        let made = matches!(target.kind, Kind::Linear { .. })
            && target.inputs.len() == 2
            && made_axes(&target)? == [target.shape.len() - 1]
            && target.shape.last() == node.shape.last()
            && reshape.shape == node.shape;
        let length = node.shape[last].fixed().filter(|_| made)?;
        let bias = self.vector(constant, node.shape.len(), last, length)?;
        let name = self.at(constant).name.clone();
        let bias = self.constant(&name, vec![length], bias);
        let mut inputs = target.inputs.clone();
        inputs.push(bias);
        let biased = self.helper(node, target.kind, inputs, target.shape);
        Some(self.push(Node { kind: Kind::Reshape, inputs: vec![biased], ..node.clone() }))
    }

    /// A constant along the made axes (or channels) that multiplies a convolution, as a folded batch
    /// norm does.
    pub(super) fn channel_scale(&mut self, node: &Node) -> Option<Id> {
        let Kind::Binary(Binary::Mul) = node.kind else { return None };
        let [a, b] = node.inputs[..] else { return None };
        let (x, factor) = if self.flow.constant(b).is_some() { (a, b) } else { (b, a) };
        let target = self.at(x).clone();
        if target.shape != node.shape || node.element != Element::Float {
            return None;
        }
        let axes = made_axes(&target)?;
        let factors = self.along(factor, node, &axes)?;
        let scaled = |tensor: &crate::lower::FloatTensor| {
            let chunk = tensor.data.len() / factors.len();
            let data = tensor.data.chunks(chunk).zip(&factors);
            let data: Vec<f32> = data.flat_map(|(c, &f)| c.iter().map(move |v| v * f)).collect();
            (tensor.shape.clone(), data)
        };
        let mut inputs = vec![target.inputs[0]];
        for &parameter in &target.inputs[1..] {
            let tensor = Arc::clone(self.flow.constant(parameter)?);
            let (shape, data) = scaled(&tensor);
            let name = format!("{}.scaled", self.at(parameter).name);
            inputs.push(self.constant(&name, shape, data));
        }
        Some(self.push(Node { kind: target.kind, inputs, ..node.clone() }))
    }

    /// A constant that varies along these axes only, as a vector over their product in order.
    fn along(&self, id: Id, node: &Node, axes: &[usize]) -> Option<Vec<f32>> {
        let tensor = self.flow.constant(id)?;
        let sizes: Vec<usize> =
            axes.iter().map(|&axis| node.shape[axis].fixed()).collect::<Option<_>>()?;
        let length: usize = sizes.iter().product();
        if let (Some(value), true) = (self.flow.scalar(id), tensor.data.len() <= length) {
            return Some(vec![value; length]);
        }
        if tensor.shape.len() != node.shape.len() || tensor.data.len() != length {
            return None;
        }
        let inside = (0..tensor.shape.len()).all(|axis| {
            tensor.shape[axis] == 1
                || axes.contains(&axis) && { node.shape[axis].fixed() == Some(tensor.shape[axis]) }
        });
        if !inside {
            return None;
        }
        let mut order: Vec<usize> = axes.to_vec();
        order.extend((0..tensor.shape.len()).filter(|axis| !axes.contains(axis)));
        Some(rearranged(tensor, &order).data)
    }
}

/// Axes of a matmul's or convolution's output that its weights make, in the weights' order.
fn made_axes(node: &Node) -> Option<Vec<usize>> {
    match &node.kind {
        Kind::Linear { output, .. } => {
            let mut axes: Vec<(usize, usize)> = output
                .iter()
                .enumerate()
                .filter_map(|(axis, from)| match from {
                    LinearAxis::Made(made) => Some((*made, axis)),
                    _ => None,
                })
                .collect();
            axes.sort_unstable();
            Some(axes.into_iter().map(|(_, axis)| axis).collect())
        }
        Kind::Conv(conv) => Some(vec![conv.channel_axis]),
        _ => None,
    }
}
