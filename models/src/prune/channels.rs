//! Which channels of which values must go together, read from the ops alone.
//!
//! Every channel of every value is an element; ops that pass a channel on join the elements on both sides, heads of an attention
//! and groups of a norm are joined whole. What cannot lose a channel (inputs, outputs, residual streams, norms over all
//! channels with a mean) is frozen. What is left are classes that can be cut out of a network.

use std::collections::BTreeSet;

use plantain::graph::{Binary, Dim, Graph, Node, Op, Unary, ValueId};

use crate::quantise::Layer;

/// Classes of the channels of a graph.
pub struct Channels {
    /// First element of each value.
    starts: Vec<usize>,
    /// Channels of each value; 0 where they are not known.
    counts: Vec<usize>,
    parents: Vec<usize>,
    frozen: Vec<bool>,
}

impl Channels {
    /// Reads a float network's graph.
    pub fn of(graph: &Graph) -> Self {
        let last = |index: usize| graph.values[index].shape.last().and_then(Dim::as_fixed);
        let counts: Vec<usize> =
            (0..graph.values.len()).map(|index| last(index).unwrap_or(0)).collect();
        let mut starts = Vec::with_capacity(counts.len());
        let mut elements = 0;
        for count in &counts {
            starts.push(elements);
            elements += count;
        }
        let mut channels = Channels {
            starts,
            counts,
            parents: (0..elements).collect(),
            frozen: vec![false; elements],
        };
        for &id in graph.inputs.iter().chain(&graph.outputs) {
            channels.freeze(id);
        }
        for node in &graph.nodes {
            channels.join_node(graph, node);
        }
        channels
    }

    /// Channels of a value.
    pub fn count(&self, id: ValueId) -> usize {
        self.counts[id.index()]
    }

    /// The class of a channel, named by one of its elements; `None` if it is frozen.
    pub fn class(&self, id: ValueId, channel: usize) -> Option<usize> {
        let root = self.root(self.starts[id.index()] + channel);
        (!self.frozen[root]).then_some(root)
    }

    /// Channels of a value that stay if classes are removed.
    pub fn kept(&self, id: ValueId, removed: &BTreeSet<usize>) -> Vec<usize> {
        let stays = |&c: &usize| self.class(id, c).is_none_or(|class| !removed.contains(&class));
        (0..self.count(id)).filter(stays).collect()
    }

    fn root(&self, mut element: usize) -> usize {
        while self.parents[element] != element {
            element = self.parents[element];
        }
        element
    }

    fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.root(a), self.root(b));
        // The older element stays the root, which keeps chains short: values are numbered as they are made.
        let (root, child) = (a.min(b), a.max(b));
        self.parents[child] = root;
        self.frozen[root] |= self.frozen[child];
    }

    fn freeze(&mut self, id: ValueId) {
        for element in self.range(id) {
            let root = self.root(element);
            self.frozen[root] = true;
        }
    }

    fn range(&self, id: ValueId) -> std::ops::Range<usize> {
        let start = self.starts[id.index()];
        start..start + self.counts[id.index()]
    }

    /// Channel `i` of one is channel `i` of the other; frozen if they have different numbers.
    fn same(&mut self, a: ValueId, b: ValueId) {
        if self.count(a) != self.count(b) {
            self.freeze(a);
            self.freeze(b);
        }
        let pairs = self.range(a).zip(self.range(b));
        pairs.for_each(|(a, b)| self.join(a, b));
    }

    /// All of a run of a value's channels go together.
    fn whole(&mut self, id: ValueId, size: usize) {
        let start = self.starts[id.index()];
        for channel in 0..self.count(id) {
            self.join(start + channel / size.max(1) * size.max(1), start + channel);
        }
    }

    fn freeze_node(&mut self, node: &Node) {
        for &id in node.inputs.iter().chain([&node.output]) {
            self.freeze(id);
        }
    }

    fn join_node(&mut self, graph: &Graph, node: &Node) {
        let rank = |id: ValueId| graph.value(id).shape.len();
        let output = node.output;
        let innermost = |axis: u32| axis as usize + 1 == rank(output);
        match &node.op {
            Op::MatmulF16 { epilogue, .. } | Op::ConvF16 { epilogue, .. } => {
                if epilogue.residual {
                    self.freeze(output);
                    self.freeze(node.inputs[1]);
                }
            }
            Op::Depthwise { epilogue, .. } => {
                self.same(node.inputs[0], output);
                if epilogue.residual {
                    self.freeze_node(node);
                }
            }
            Op::Constant { .. } => {}
            Op::Unary { .. } | Op::Cast | Op::Modulate => {
                node.inputs.iter().for_each(|&id| self.same_or_spread(id, output));
            }
            Op::Binary { function } => {
                node.inputs.iter().for_each(|&id| self.same_or_spread(id, output));
                let full = |id: &ValueId| graph.value(*id).shape == graph.value(output).shape;
                let stored = |id: &ValueId| {
                    let maker = graph.nodes.iter().find(|maker| maker.output == *id);
                    maker.is_some_and(|maker| matches!(maker.op, Op::Constant { .. }))
                };
                let sum = matches!(function, Binary::Add | Binary::Sub);
                if sum && node.inputs.iter().all(|id| full(id) && !stored(id)) {
                    self.freeze_node(node);
                }
            }
            Op::Gated { .. } => {
                let (from, to) = (self.range(node.inputs[0]), self.range(output));
                for (channel, element) in to.clone().enumerate() {
                    self.join(element, from.start + channel);
                    self.join(element, from.start + to.len() + channel);
                }
            }
            Op::Attention { heads, .. } => {
                let heads = *heads as usize;
                for &id in node.inputs.iter().take(3).chain([&output]) {
                    self.whole(id, self.count(id) / heads.max(1));
                    self.same(id, output);
                }
            }
            Op::RmsNorm { size, .. } => {
                self.same(node.inputs[0], output);
                if *size as usize != self.count(output) {
                    self.whole(output, *size as usize);
                } else if !zero_stays(graph, node.inputs[0]) {
                    self.freeze_node(node);
                }
            }
            Op::GroupNorm { groups, .. } => {
                self.same(node.inputs[0], output);
                self.whole(output, self.count(output) / (*groups as usize).max(1));
            }
            Op::Resize { .. } | Op::Pool { .. } | Op::Pad { .. } | Op::Reshape => {
                self.same(node.inputs[0], output);
            }
            Op::Concat { axis } if innermost(*axis) => {
                let mut at = self.range(output).start;
                for &id in &node.inputs {
                    for element in self.range(id) {
                        self.join(at, element);
                        at += 1;
                    }
                }
            }
            Op::Slice { axis, start } if innermost(*axis) => match start.as_fixed() {
                Some(start) => {
                    let from = self.range(node.inputs[0]).start + start;
                    let pairs = self.range(output).enumerate();
                    pairs.for_each(|(channel, element)| self.join(element, from + channel));
                }
                None => self.freeze_node(node),
            },
            Op::Concat { .. } | Op::Slice { .. } => {
                node.inputs.iter().for_each(|&id| self.same(id, output));
            }
            Op::Transpose { permutation }
                if permutation.last().is_some_and(|&axis| innermost(axis)) =>
            {
                self.same(node.inputs[0], output);
            }
            Op::ReduceMean { axes } | Op::ReduceSum { axes }
                if axes.iter().all(|&axis| !innermost(axis)) =>
            {
                self.same(node.inputs[0], output);
            }
            _ => self.freeze_node(node),
        }
    }

    /// As [`Channels::same`], or an operand of one channel that meets all.
    fn same_or_spread(&mut self, id: ValueId, output: ValueId) {
        if self.count(id) == 1 && self.count(output) != 1 {
            self.freeze(id);
        } else {
            self.same(id, output);
        }
    }
}

/// Whether a channel without weights is zero in a value, so that a norm that divides by the sum of squares misses nothing.
fn zero_stays(graph: &Graph, id: ValueId) -> bool {
    let maker = graph.nodes.iter().position(|node| node.output == id);
    let Some(layer) = maker.and_then(|maker| Layer::at(graph, maker)) else { return false };
    let kept = |function: Unary| {
        !matches!(
            function,
            Unary::Sigmoid | Unary::Exp | Unary::Rsqrt | Unary::Reciprocal | Unary::Cos
        ) && !matches!(function, Unary::Affine { .. } | Unary::Clamp { .. })
    };
    !layer.epilogue.residual && layer.epilogue.activation.is_none_or(kept)
}
