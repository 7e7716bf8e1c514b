//! Fusing: patterns of simple ops in a flow become the ops that plantain has.
//!
//! Enters: the imported flow. Leaves: a flow whose nodes emission can place. Each node is rewritten
//! after its operands, so that a pattern only looks at fused operands; what a pattern leaves
//! unused is never emitted. Never: layouts, the plantain graph.

mod attention;
mod linear;
mod norm;
mod pointwise;
mod structure;

use std::sync::Arc;

use plantain::graph::Unary;

use super::FloatTensor;
use crate::import::flow::{Element, Flow, Id, Kind, Node, Size};

/// Rewrites a flow.
pub(super) fn fuse(flow: &Flow) -> Flow {
    let mut fuser = Fuser { flow: Flow { bindings: flow.bindings, ..Flow::default() } };
    let mut ids: Vec<Id> = Vec::with_capacity(flow.nodes.len());
    for node in &flow.nodes {
        let inputs = node.inputs.iter().map(|&input| ids[input]).collect();
        let id = fuser.add(Node { inputs, ..node.clone() });
        ids.push(id);
    }
    fuser.flow.inputs = flow.inputs.iter().map(|&id| ids[id]).collect();
    fuser.flow.outputs = flow.outputs.iter().map(|(name, id)| (name.clone(), ids[*id])).collect();
    fuser.flow
}

struct Fuser {
    flow: Flow,
}

/// A pattern: the fused form of a node, or nothing if the node is not of its kind.
type Pattern = fn(&mut Fuser, &Node) -> Option<Id>;

const PATTERNS: [Pattern; 28] = [
    Fuser::fold_cast,
    Fuser::broadcast_to_itself,
    Fuser::scalar_operand,
    Fuser::affine_chain,
    Fuser::clamps,
    Fuser::mean,
    Fuser::reshape_below_scores,
    Fuser::reshapes_of_scores,
    Fuser::linear,
    Fuser::attention,
    Fuser::sdpa,
    Fuser::computed_bias,
    Fuser::bias,
    Fuser::bias_after_reshape,
    Fuser::channel_scale,
    Fuser::layer_norm,
    Fuser::norm_gamma,
    Fuser::norm_beta,
    Fuser::group_norm,
    Fuser::spelled_group_norm,
    Fuser::grouped_affine,
    Fuser::quick_gelu,
    Fuser::gated,
    Fuser::modulate,
    Fuser::slice_of_concat,
    Fuser::timestep,
    Fuser::flipped_timestep,
    Fuser::plain_division,
];

impl Fuser {
    /// Adds a node in its fused form.
    fn add(&mut self, node: Node) -> Id {
        for pattern in PATTERNS {
            if let Some(id) = pattern(self, &node) {
                return id;
            }
        }
        self.push(node)
    }

    fn push(&mut self, node: Node) -> Id {
        self.flow.nodes.push(node);
        self.flow.nodes.len() - 1
    }

    fn at(&self, id: Id) -> &Node {
        &self.flow.nodes[id]
    }

    fn bindings(&self) -> usize {
        self.flow.bindings
    }

    /// Adds a constant.
    fn constant(&mut self, name: &str, shape: Vec<usize>, data: Vec<f32>) -> Id {
        let sizes = shape.iter().map(|&n| Size::same(n, self.bindings())).collect();
        let tensor = Arc::new(FloatTensor::new(shape, data));
        self.push(Node {
            name: name.to_owned(),
            kind: Kind::Constant(tensor),
            inputs: vec![],
            shape: sizes,
            element: Element::Float,
            traced: false,
        })
    }

    /// Adds a node that stands for no tensor of the imported model.
    fn helper(&mut self, like: &Node, kind: Kind, inputs: Vec<Id>, shape: Vec<Size>) -> Id {
        let node = Node { kind, inputs, shape, traced: false, ..like.clone() };
        self.push(node)
    }

    /// The same shape in the flow, through a reshape only where it differs.
    fn reshaped(&mut self, like: &Node, id: Id, shape: Vec<Size>) -> Id {
        if self.at(id).shape == shape {
            return id;
        }
        self.helper(like, Kind::Reshape, vec![id], shape)
    }

    fn permuted(&mut self, like: &Node, id: Id, permutation: Vec<usize>) -> Id {
        if permutation.iter().enumerate().all(|(i, &p)| i == p) {
            return id;
        }
        let shape = permutation.iter().map(|&axis| self.at(id).shape[axis].clone()).collect();
        self.helper(like, Kind::Permute(permutation), vec![id], shape)
    }

    /// `scale, shift` and operand of an affine function of one value.
    fn affine(&self, id: Id) -> Option<(f32, f32, Id)> {
        match self.at(id).kind {
            Kind::Unary(Unary::Affine { scale, shift }) => {
                Some((scale, shift, self.at(id).inputs[0]))
            }
            _ => None,
        }
    }

    /// A constant that has its only axis larger than one at `axis` (or all axes of one) with
    /// `length` values, as a vector; a single value is repeated.
    fn vector(&self, id: Id, rank: usize, axis: usize, length: usize) -> Option<Vec<f32>> {
        let tensor = self.flow.constant(id)?;
        if let Some(value) = self.flow.scalar(id)
            && (tensor.data.len() == 1 || tensor.data.len() == length)
        {
            return Some(vec![value; length]);
        }
        let fits = tensor.shape.len() == rank
            && tensor.data.len() == length
            && tensor.shape[axis] == length;
        fits.then(|| tensor.data.clone())
    }
}
