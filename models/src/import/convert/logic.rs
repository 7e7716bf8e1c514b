//! Truth values as 0 and 1, and choices by them: how exporters write masks.

use std::sync::Arc;

use plantain::graph::{Binary, Unary};
use tract_onnx::tract_core::internal::TypedNode;
use tract_onnx::tract_core::ops::binary::TypedBinOp;
use tract_onnx::tract_core::ops::element_wise::ElementWiseOp;

use super::Converter;
use crate::import::flow::{Element, Id, Kind, Size};
use crate::lower::FloatTensor;

/// A score of this or less hides a key.
const HIDDEN: f32 = -1e4;

type Converted = Option<(Kind, Vec<Id>)>;

fn affine(scale: f32, shift: f32) -> Kind {
    Kind::Unary(Unary::Affine { scale, shift })
}

impl Converter<'_> {
    /// The value as f32.
    pub(super) fn float(&mut self, id: Id) -> Id {
        let node = &self.flow.nodes[id];
        if node.element == Element::Float {
            return id;
        }
        let name = format!("{}.float", node.name);
        let cast = self.like(&name, Kind::Cast, vec![id]);
        self.flow.nodes[cast].element = Element::Float;
        cast
    }

    /// A helper of the same shape as its first operand.
    fn like(&mut self, name: &str, kind: Kind, inputs: Vec<Id>) -> Id {
        let shape: Vec<usize> =
            self.flow.nodes[inputs[0]].shape.iter().filter_map(Size::fixed).collect();
        self.push(name, kind, inputs, &shape)
    }

    /// 1 where an integer is not zero: `clamp(|x|, 0, 1)`; other truth values as they are.
    pub(super) fn truth(&mut self, id: Id) -> Converted {
        let node = &self.flow.nodes[id];
        let name = node.name.clone();
        if node.element == Element::Float {
            return Some((affine(1.0, 0.0), vec![id]));
        }
        let float = self.float(id);
        let absolute = self.like(&format!("{name}.abs"), Kind::Unary(Unary::Abs), vec![float]);
        Some((Kind::Unary(Unary::Clamp { min: 0.0, max: 1.0 }), vec![absolute]))
    }

    /// Not and IsNaN; nothing that a network computes is NaN.
    pub(super) fn logic_of_one(
        &mut self,
        node: &TypedNode,
        op: &ElementWiseOp,
        inputs: &[Id],
    ) -> Converted {
        match &*op.0.name() {
            "Not" => {
                let (kind, operands) = self.truth(inputs[0])?;
                let truth = self.like(&node.name, kind, operands);
                Some((affine(-1.0, 1.0), vec![truth]))
            }
            "IsNan" | "IsNaN" => {
                let rank = self.flow.nodes[inputs[0]].shape.len();
                let zero = Arc::new(FloatTensor::new(vec![1; rank], vec![0.0]));
                let zero = self.push(&node.name, Kind::Constant(zero), vec![], &vec![1; rank]);
                self.flow.nodes[zero].element = Element::Float;
                Some((Kind::Broadcast, vec![zero]))
            }
            _ => None,
        }
    }

    /// And, Or of truth values; comparisons of integers.
    pub(super) fn logic_of_two(
        &mut self,
        node: &TypedNode,
        op: &TypedBinOp,
        inputs: &[Id],
    ) -> Converted {
        let (a, b) = (inputs[0], inputs[1]);
        match op.0.name() {
            "And" => return Some((Kind::Binary(Binary::Mul), vec![a, b])),
            "Or" => return Some((Kind::Binary(Binary::Max), vec![a, b])),
            _ => {}
        }
        let int = |id: Id| self.flow.nodes[id].element == Element::Int;
        if !int(a) || !int(b) {
            return None;
        }
        let (a, b) = (self.float(a), self.float(b));
        let (first, second, shift, equal) = match op.0.name() {
            "Eq" => (a, b, 0.0, Some(true)),
            "NE" => (a, b, 0.0, Some(false)),
            "GT" => (a, b, 0.0, None),
            "GTE" => (a, b, 1.0, None),
            "LT" => (b, a, 0.0, None),
            "LTE" => (b, a, 1.0, None),
            _ => return None,
        };
        let shape: Vec<usize> = node.outputs[0].fact.shape.as_concrete()?.to_vec();
        let name = &node.name;
        let difference = self.push(name, Kind::Binary(Binary::Sub), vec![first, second], &shape);
        let steps = match equal {
            Some(_) => Kind::Unary(Unary::Abs),
            None => affine(1.0, shift),
        };
        let steps = self.push(name, steps, vec![difference], &shape);
        let clamp = Kind::Unary(Unary::Clamp { min: 0.0, max: 1.0 });
        if equal != Some(true) {
            return Some((clamp, vec![steps]));
        }
        let differs = self.push(name, clamp, vec![steps], &shape);
        Some((affine(-1.0, 1.0), vec![differs]))
    }

    /// `condition ? a : b`: of two numbers, or of scores and a number that hides them.
    pub(super) fn choice(&mut self, node: &TypedNode, inputs: &[Id]) -> Converted {
        let &[condition, a, b] = inputs else { return None };
        let shape: Vec<usize> = node.outputs[0].fact.shape.as_concrete()?.to_vec();
        let known = match &self.flow.nodes[condition].kind {
            Kind::Broadcast => self.flow.scalar(self.flow.nodes[condition].inputs[0]),
            _ => self.flow.scalar(condition),
        };
        if let Some(value) = known {
            let chosen = if value == 0.0 { b } else { a };
            return Some((Kind::Broadcast, vec![chosen]));
        }
        let (kind, operands) = self.truth(condition)?;
        let condition = self.like(&node.name, kind, operands);
        let condition_shape: Vec<usize> =
            self.flow.nodes[condition].shape.iter().filter_map(Size::fixed).collect();
        match (self.flow.scalar(a), self.flow.scalar(b)) {
            (Some(yes), Some(no)) => {
                let kind = affine(yes - no, no);
                let number = self.push(&node.name, kind, vec![condition], &condition_shape);
                Some((Kind::Broadcast, vec![number]))
            }
            (Some(hide), None) if hide <= HIDDEN => {
                let mask =
                    self.push(&node.name, affine(hide, 0.0), vec![condition], &condition_shape);
                (self.shape_is(b, &shape)).then_some((Kind::Binary(Binary::Add), vec![b, mask]))
            }
            (None, Some(hide)) if hide <= HIDDEN => {
                let kind = affine(-hide, hide);
                let mask = self.push(&node.name, kind, vec![condition], &condition_shape);
                (self.shape_is(a, &shape)).then_some((Kind::Binary(Binary::Add), vec![a, mask]))
            }
            _ => None,
        }
    }

    fn shape_is(&self, id: Id, shape: &[usize]) -> bool {
        let sizes: Vec<usize> = self.flow.nodes[id].shape.iter().filter_map(Size::fixed).collect();
        sizes == shape
    }
}
