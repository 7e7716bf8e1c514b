//! Patterns over several values: gates, modulation, slices of concats, timestep embeddings.

use plantain::graph::{Binary, Unary};

use super::Fuser;
use crate::import::flow::{Id, Kind, Node, Size};

impl Fuser {
    /// `a * f(g)` with the two halves of one value.
    pub(super) fn gated(&mut self, node: &Node) -> Option<Id> {
        let Kind::Binary(Binary::Mul) = node.kind else { return None };
        let [a, b] = node.inputs[..] else { return None };
        for (plain, gate) in [(a, b), (b, a)] {
            let Kind::Unary(function) = self.at(gate).kind else { continue };
            let (first, second) = (self.at(plain), self.at(self.at(gate).inputs[0]));
            let (Kind::Slice(axis, from), Kind::Slice(other, middle)) = (&first.kind, &second.kind)
            else {
                continue;
            };
            let x = first.inputs[0];
            let half = &node.shape[*axis];
            let fits = axis == other
                && second.inputs[0] == x
                && from.at().iter().all(|&n| n == 0)
                && middle == half
                && first.shape == second.shape
                && self.at(x).shape[*axis] == half.zip(half, |a, b| a + b);
            if fits && half.fixed().is_some() {
                let kind = Kind::Gated(*axis, function);
                return Some(self.push(Node { kind, inputs: vec![x], ..node.clone() }));
            }
        }
        None
    }

    /// `x * (1 + scale) + shift`.
    pub(super) fn modulate(&mut self, node: &Node) -> Option<Id> {
        let Kind::Binary(Binary::Add) = node.kind else { return None };
        let [a, b] = node.inputs[..] else { return None };
        for (product, shift) in [(a, b), (b, a)] {
            let Kind::Binary(Binary::Mul) = self.at(product).kind else { continue };
            let [p, q] = self.at(product).inputs[..] else { continue };
            for (x, factor) in [(p, q), (q, p)] {
                let Some((1.0, 1.0, scale)) = self.affine(factor) else { continue };
                let spans = |id: Id| self.at(id).shape == node.shape;
                if spans(x) && !spans(shift) && !spans(scale) {
                    let inputs = vec![x, scale, shift];
                    return Some(self.push(Node { kind: Kind::Modulate, inputs, ..node.clone() }));
                }
            }
        }
        None
    }

    /// A slice that lies in one operand of a concat along the same axis.
    pub(super) fn slice_of_concat(&mut self, node: &Node) -> Option<Id> {
        let Kind::Slice(axis, start) = &node.kind else { return None };
        let concat = self.at(node.inputs[0]);
        let Kind::Concat(along) = concat.kind else { return None };
        if along != *axis {
            return None;
        }
        let length = &node.shape[along];
        let mut offset = Size::same(0, self.bindings());
        for &operand in &concat.inputs {
            let size = &self.at(operand).shape[along];
            let end = offset.zip(size, |a, b| a + b);
            let inside = (0..self.bindings()).all(|i| {
                start.at()[i] >= offset.at()[i] && start.at()[i] + length.at()[i] <= end.at()[i]
            });
            if inside {
                let from = start.zip(&offset, |a, b| a - b);
                if from.at().iter().all(|&n| n == 0) && size == length {
                    return Some(operand);
                }
                let kind = Kind::Slice(along, from);
                return Some(self.add(Node { kind, inputs: vec![operand], ..node.clone() }));
            }
            offset = end;
        }
        None
    }

    /// Sines and cosines of `t * frequencies`, joined.
    pub(super) fn timestep(&mut self, node: &Node) -> Option<Id> {
        let Kind::Concat(axis) = node.kind else { return None };
        let [a, b] = node.inputs[..] else { return None };
        let last = node.shape.len() - 1;
        let sin_first = match (&self.at(a).kind, &self.at(b).kind) {
            (Kind::Unary(Unary::Sin), Kind::Unary(Unary::Cos)) => true,
            (Kind::Unary(Unary::Cos), Kind::Unary(Unary::Sin)) => false,
            _ => return None,
        };
        let angle = self.at(a).inputs[0];
        if axis != last || self.at(b).inputs[0] != angle {
            return None;
        }
        let (factor, product) = match self.affine(angle) {
            Some((scale, 0.0, product)) => (scale, product),
            _ => (1.0, angle),
        };
        let Kind::Binary(Binary::Mul) = self.at(product).kind else { return None };
        let [p, q] = self.at(product).inputs[..] else { return None };
        let (t, frequencies) = if self.flow.constant(q).is_some() { (p, q) } else { (q, p) };
        let count = self.at(product).shape[last].fixed()?;
        let vector = self.vector(frequencies, last + 1, last, count)?;
        let t_shape = self.at(t).shape.clone();
        let inner_free = t_shape[1.min(last)..].iter().all(Size::is_one);
        if !inner_free || last == 0 {
            return None;
        }
        let data = vector.iter().map(|v| v * factor).collect();
        let name = self.at(frequencies).name.clone();
        let frequencies = self.constant(&name, vec![count], data);
        let kind = Kind::Timestep { sin_first };
        Some(self.push(Node { kind, inputs: vec![t, frequencies], ..node.clone() }))
    }

    /// The halves of a timestep embedding joined the other way round.
    pub(super) fn flipped_timestep(&mut self, node: &Node) -> Option<Id> {
        let Kind::Concat(axis) = node.kind else { return None };
        let [a, b] = node.inputs[..] else { return None };
        let (second, first) = (self.at(a), self.at(b));
        let (Kind::Slice(p, middle), Kind::Slice(q, start)) = (&second.kind, &first.kind) else {
            return None;
        };
        let whole = self.at(first.inputs[0]).clone();
        let Kind::Timestep { sin_first } = whole.kind else { return None };
        let half = &first.shape[axis];
        let flipped = second.inputs[0] == first.inputs[0]
            && axis + 1 == node.shape.len()
            && (*p, *q) == (axis, axis)
            && start.at().iter().all(|&n| n == 0)
            && middle == half
            && second.shape[axis] == *half
            && node.shape == whole.shape;
        let kind = Kind::Timestep { sin_first: !sin_first };
        flipped.then(|| self.push(Node { kind, inputs: whole.inputs, ..node.clone() }))
    }
}
