//! Emission: from a fused flow to plantain nodes, op by op.
//!
//! Enters: the flow after `fuse`. Leaves: graph, weights and origins. Every flow value is a
//! [`View`]; a transpose is emitted only where an op needs another memory order. Never: numbers changed,
//! other than the order of constants.

mod arrange;
mod attention;
mod elementwise;
mod image;
mod linear;
mod norm;
mod structure;

pub(crate) use arrange::permuted;
pub(crate) use linear::rearranged;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use plantain::graph::{DType, Graph, Node as GraphNode, Op, Value, ValueId};

use super::fit::Sampling;
use super::view::{Source, View};
use super::{FloatTensor, LowerError, Origin};
use crate::import::flow::{Element, Flow, Id, Kind, Node, Size};

/// The longest name given to a value or node, without the number that makes it unique.
const NAME_BYTES_MAX: usize = 240;

/// State of emission.
pub(super) struct Emitter<'a> {
    flow: &'a Flow,
    sampling: &'a Sampling,
    graph: Graph,
    /// Dimensions of each value, as numbers.
    shapes: Vec<Vec<Size>>,
    weights: BTreeMap<String, FloatTensor>,
    origins: BTreeMap<ValueId, Origin>,
    views: Vec<Option<View>>,
    names: HashSet<String>,
    arranged: HashMap<(ValueId, Vec<usize>, Vec<Size>), ValueId>,
    constants: HashMap<(usize, Vec<Size>), ValueId>,
    /// The flow node that is being emitted.
    current: Id,
}

/// What emission yields.
pub(super) struct Emitted {
    pub graph: Graph,
    pub weights: BTreeMap<String, FloatTensor>,
    pub origins: BTreeMap<ValueId, Origin>,
}

pub(super) type Result<T> = std::result::Result<T, LowerError>;

/// Emits all nodes that the outputs need.
pub(super) fn emit(flow: &Flow, sampling: &Sampling, name: &str) -> Result<Emitted> {
    let mut emitter = Emitter {
        flow,
        sampling,
        graph: Graph {
            name: name.to_owned(),
            values: Vec::new(),
            nodes: Vec::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
        },
        shapes: Vec::new(),
        weights: BTreeMap::new(),
        origins: BTreeMap::new(),
        views: vec![None; flow.nodes.len()],
        names: HashSet::new(),
        arranged: HashMap::new(),
        constants: HashMap::new(),
        current: 0,
    };
    // An output's name is what the outside knows; no inner value may take it.
    emitter.names.extend(flow.outputs.iter().map(|(name, _)| name.clone()));
    let needed = needed(flow);
    for (id, node) in flow.nodes.iter().enumerate() {
        if needed[id] || matches!(node.kind, Kind::Input) {
            emitter.current = id;
            let view = emitter.node(node)?;
            emitter.note_origin(node, &view);
            emitter.views[id] = Some(view);
        }
    }
    for (name, id) in &flow.outputs {
        emitter.current = *id;
        emitter.output(name, *id)?;
    }
    Ok(Emitted { graph: emitter.graph, weights: emitter.weights, origins: emitter.origins })
}

fn needed(flow: &Flow) -> Vec<bool> {
    let mut needed = vec![false; flow.nodes.len()];
    for &(_, id) in &flow.outputs {
        needed[id] = true;
    }
    for id in (0..flow.nodes.len()).rev() {
        if needed[id] {
            flow.nodes[id].inputs.iter().for_each(|&input| needed[input] = true);
        }
    }
    needed
}

impl Emitter<'_> {
    fn node(&mut self, node: &Node) -> Result<View> {
        let bindings = self.flow.bindings;
        match &node.kind {
            Kind::Input => self.input(node),
            Kind::Constant(tensor) => {
                Ok(View::row_major(Source::Constant(Arc::clone(tensor)), &node.shape, bindings))
            }
            Kind::Varying(_) => Err(LowerError::Varying { node: node.name.clone() }),
            Kind::Unsupported(what) => Err(LowerError::unsupported(
                &node.name,
                format!("the op {what}"),
                "export the network without it or express it with arithmetic, MatMul, Conv, Softmax, norms and shape ops",
            )),
            Kind::Unary(function) => self.unary(node, *function),
            Kind::Binary(function) => self.binary(node, *function),
            Kind::Modulate => self.modulate(node),
            Kind::Gated(axis, function) => self.gated(node, *axis, *function),
            Kind::Einsum(einsum) => self.batch_matmul(node, einsum),
            Kind::Linear { inner, output } => self.linear(node, inner, output),
            Kind::Conv(conv) => self.convolution(node, conv),
            Kind::Pool(conv, kind) => self.pool(node, conv, *kind),
            Kind::Resize(factors, mode) => self.resize(node, factors, *mode),
            Kind::Pad(pads, value) => self.pad(node, pads, *value),
            Kind::GroupNorm { groups, eps } => self.group_norm(node, *groups, *eps),
            Kind::LayerNorm { axis, eps } => self.layer_norm(node, *axis, *eps),
            Kind::RmsNorm(axis, eps) | Kind::ScaledRmsNorm { axis, eps } => {
                self.rms_norm(node, *axis, *eps)
            }
            Kind::Softmax(axis) => self.softmax(node, *axis),
            Kind::Reduce(fold, axes) => self.reduce(node, *fold, axes),
            Kind::Attention { scale, causal } => self.attention(node, *scale, *causal),
            Kind::Permute(permutation) => Ok(self.operand(node, 0).permute(permutation)),
            Kind::Reshape => self.reshape(node),
            Kind::Broadcast => {
                let mut view = self.operand(node, 0);
                for (axis, size) in view.axes.iter_mut().zip(&node.shape) {
                    axis.size = size.clone();
                }
                Ok(view)
            }
            Kind::Concat(axis) => self.concat(node, *axis),
            Kind::Slice(axis, start) => self.slice(node, *axis, start),
            Kind::Gather => self.gather(node),
            Kind::Timestep { sin_first } => self.timestep(node, *sin_first),
            Kind::Cast => self.cast(node),
            Kind::Power(exponent) => Err(LowerError::unsupported(
                &node.name,
                format!("Pow with exponent {exponent}"),
                "exponents 2, 1/2, -1/2 and -1 are",
            )),
            Kind::Sdpa { .. } => Err(LowerError::unsupported(
                &node.name,
                "this form of attention",
                "queries, keys and values of equal head size with an additive mask that is the same for all heads are",
            )),
        }
    }

    /// The view of an operand.
    ///
    /// # Panics
    /// If the flow is not in order.
    fn operand(&self, node: &Node, index: usize) -> View {
        self.views[node.inputs[index]].clone().expect("operands come before their users")
    }

    fn dims(&self, shape: &[Size]) -> Result<Vec<plantain::graph::Dim>> {
        shape.iter().map(|size| self.sampling.dim(size)).collect::<Option<Vec<_>>>().ok_or_else(
            || LowerError::Shape {
                node: self.flow.nodes[self.current].name.clone(),
                shape: format!("{shape:?}"),
            },
        )
    }

    fn unique(&mut self, wanted: &str) -> String {
        // The end tells nodes of deep modules apart; a pack takes names of up to 256 bytes.
        let cut = wanted.len().saturating_sub(NAME_BYTES_MAX);
        let cut = (cut..=wanted.len()).find(|&at| wanted.is_char_boundary(at)).unwrap_or(0);
        let wanted = &wanted[cut..];
        let mut name = wanted.to_owned();
        let mut count = 1;
        while !self.names.insert(name.clone()) {
            count += 1;
            name = format!("{wanted}.{count}");
        }
        name
    }

    fn value(&mut self, name: &str, shape: Vec<Size>, dtype: DType) -> Result<ValueId> {
        let name = self.unique(name);
        let dims = self.dims(&shape)?;
        self.graph.values.push(Value { name, shape: dims, dtype });
        self.shapes.push(shape);
        Ok(ValueId(self.graph.values.len() as u32 - 1))
    }

    /// Adds a node and its result, both named after the flow node that is being emitted.
    fn push(&mut self, op: Op, inputs: Vec<ValueId>, shape: Vec<Size>) -> Result<ValueId> {
        self.push_named("", op, inputs, shape)
    }

    fn push_named(
        &mut self,
        suffix: &str,
        op: Op,
        inputs: Vec<ValueId>,
        shape: Vec<Size>,
    ) -> Result<ValueId> {
        let node = &self.flow.nodes[self.current];
        let int = node.element == Element::Int && !matches!(op, Op::Constant { .. });
        let name = format!("{}{suffix}", node.name);
        let dtype = match op {
            Op::Reshape | Op::Transpose { .. } | Op::Slice { .. } | Op::Expand => {
                self.graph.value(inputs[0]).dtype
            }
            _ if int => DType::I32,
            _ => DType::F32,
        };
        let output = self.value(&name, shape, dtype)?;
        let name = self.graph.value(output).name.clone();
        self.graph.nodes.push(GraphNode { name, op, inputs, output });
        Ok(output)
    }

    /// Stores a tensor under a name like this one.
    fn store(&mut self, wanted: &str, tensor: FloatTensor) -> String {
        if self.weights.get(wanted) == Some(&tensor) {
            return wanted.to_owned();
        }
        let mut name = wanted.to_owned();
        let mut count = 1;
        while self.weights.contains_key(&name) {
            count += 1;
            name = format!("{wanted}.{count}");
        }
        self.weights.insert(name.clone(), tensor);
        name
    }

    /// Stores a constant operand's data as it is, under the operand's name.
    fn store_operand(&mut self, node: &Node, index: usize) -> Result<String> {
        let id = node.inputs[index];
        let tensor = self.flow.constant(id).ok_or_else(|| {
            LowerError::unsupported(
                &node.name,
                "a computed parameter",
                "weights, biases and gammas must be constants",
            )
        })?;
        let flat = FloatTensor::new(vec![tensor.data.len()], tensor.data.clone());
        Ok(self.store(&self.flow.nodes[id].name, flat))
    }

    fn note_origin(&mut self, node: &Node, view: &View) {
        let Source::Value(value) = view.source else { return };
        if !node.traced || view.any_stretched() || self.origins.contains_key(&value) {
            return;
        }
        let logical = view.logical();
        let split: Option<Vec<_>> =
            logical.iter().map(|&atom| self.sampling.dim(&view.order[atom])).collect();
        let permutation = (0..view.order.len())
            .map(|atom| logical.iter().position(|&a| a == atom))
            .collect::<Option<Vec<_>>>();
        if let (Some(split), Some(permutation)) = (split, permutation) {
            let outlet = node.name.clone();
            self.origins.insert(value, Origin { outlet, split, permutation });
        }
    }
}
