//! Functions of single values: constants folded into affine functions, clamps, QuickGELU.

use plantain::graph::{Binary, Unary};

use super::Fuser;
use crate::import::flow::{Element, Id, Kind, Node};

impl Fuser {
    /// Casts between floats, and of constants, change nothing in f32.
    pub(super) fn fold_cast(&mut self, node: &Node) -> Option<Id> {
        let Kind::Cast = node.kind else { return None };
        let operand = node.inputs[0];
        let from = self.at(operand).element;
        if from == node.element {
            return Some(operand);
        }
        let tensor = self.flow.constant(operand)?.clone();
        let whole = node.element == Element::Float;
        let kind = Kind::Constant(tensor);
        whole.then(|| self.push(Node { kind, inputs: vec![], ..node.clone() }))
    }

    /// A broadcast that repeats nothing.
    pub(super) fn broadcast_to_itself(&mut self, node: &Node) -> Option<Id> {
        let same =
            matches!(node.kind, Kind::Broadcast) && self.at(node.inputs[0]).shape == node.shape;
        same.then(|| node.inputs[0])
    }

    /// A binary op with a single number.
    pub(super) fn scalar_operand(&mut self, node: &Node) -> Option<Id> {
        let Kind::Binary(function) = node.kind else { return None };
        let [a, b] = node.inputs[..] else { return None };
        if node.element != Element::Float {
            return None;
        }
        let spans = |id: Id| self.at(id).shape == node.shape && self.flow.constant(id).is_none();
        let (x, c, swapped) = match (self.flow.scalar(a), self.flow.scalar(b)) {
            (_, Some(c)) if spans(a) => (a, c, false),
            (Some(c), _) if spans(b) => (b, c, true),
            _ => return None,
        };
        let affine = |scale, shift| Unary::Affine { scale, shift };
        let unary = match (function, swapped) {
            (Binary::Add, _) => affine(1.0, c),
            (Binary::Mul, _) => affine(c, 0.0),
            (Binary::Sub, false) => affine(1.0, -c),
            (Binary::Sub, true) => affine(-1.0, c),
            (Binary::Div, false) => affine(1.0 / c, 0.0),
            (Binary::Div, true) => {
                let kind = Kind::Unary(Unary::Reciprocal);
                let reciprocal = self.helper(node, kind, vec![x], node.shape.clone());
                let kind = Kind::Unary(affine(c, 0.0));
                return Some(self.add(Node { kind, inputs: vec![reciprocal], ..node.clone() }));
            }
            (Binary::Max, _) if c == 0.0 => Unary::Relu,
            (Binary::Max, _) => Unary::Clamp { min: c, max: f32::MAX },
            (Binary::Min, _) => Unary::Clamp { min: f32::MIN, max: c },
        };
        Some(self.add(Node { kind: Kind::Unary(unary), inputs: vec![x], ..node.clone() }))
    }

    /// Affine functions of affine functions; those that change nothing go.
    pub(super) fn affine_chain(&mut self, node: &Node) -> Option<Id> {
        let Kind::Unary(Unary::Affine { scale, shift }) = node.kind else { return None };
        let operand = node.inputs[0];
        if scale == 1.0 && shift == 0.0 {
            return Some(operand);
        }
        let (inner_scale, inner_shift, x) = self.affine(operand)?;
        let function =
            Unary::Affine { scale: scale * inner_scale, shift: scale.mul_add(inner_shift, shift) };
        Some(self.add(Node { kind: Kind::Unary(function), inputs: vec![x], ..node.clone() }))
    }

    /// Clamps of clamps.
    pub(super) fn clamps(&mut self, node: &Node) -> Option<Id> {
        let Kind::Unary(Unary::Clamp { min, max }) = node.kind else { return None };
        let operand = self.at(node.inputs[0]);
        let (low, high) = match operand.kind {
            Kind::Unary(Unary::Clamp { min, max }) => (min, max),
            Kind::Unary(Unary::Relu) => (0.0, f32::MAX),
            _ => return None,
        };
        let function = Unary::Clamp { min: low.clamp(min, max), max: high.clamp(min, max) };
        let inputs = operand.inputs.clone();
        Some(self.push(Node { kind: Kind::Unary(function), inputs, ..node.clone() }))
    }

    /// `x * sigmoid(1.702 x)`, and `x * sigmoid(x)` where it is still in parts.
    pub(super) fn quick_gelu(&mut self, node: &Node) -> Option<Id> {
        let Kind::Binary(Binary::Mul) = node.kind else { return None };
        let [a, b] = node.inputs[..] else { return None };
        for (x, gate) in [(a, b), (b, a)] {
            let Kind::Unary(Unary::Sigmoid) = self.at(gate).kind else { continue };
            let inner = self.at(gate).inputs[0];
            let function = match self.affine(inner) {
                _ if inner == x => Unary::Silu,
                Some((scale, 0.0, y)) if y == x && (scale - 1.702).abs() < 1e-4 => Unary::QuickGelu,
                _ => continue,
            };
            let kind = Kind::Unary(function);
            return Some(self.push(Node { kind, inputs: vec![x], ..node.clone() }));
        }
        None
    }

    /// Division by a constant tensor is multiplication.
    pub(super) fn plain_division(&mut self, node: &Node) -> Option<Id> {
        let Kind::Binary(Binary::Div) = node.kind else { return None };
        let [a, b] = node.inputs[..] else { return None };
        let tensor = self.flow.constant(b)?.clone();
        let data = tensor.data.iter().map(|v| 1.0 / v).collect();
        let name = format!("{}.reciprocal", self.at(b).name);
        let reciprocal = self.constant(&name, tensor.shape.clone(), data);
        let kind = Kind::Binary(Binary::Mul);
        Some(self.add(Node { kind, inputs: vec![a, reciprocal], ..node.clone() }))
    }
}
