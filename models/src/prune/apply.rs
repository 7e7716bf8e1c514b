//! Cuts channels: first by zeros, which leave the graph as it is, at the end for good.
//!
//! With zeros in the rows that make a channel and in the columns that read it, a network computes what it computes without the
//! channel; so whatever is measured on the way needs no other graph.

use std::collections::{BTreeMap, BTreeSet};

use plantain::graph::{Binary, DType, Dim, Graph, Node, Op, Value, ValueId};

use super::channels::Channels;
use crate::evaluate::unary;
use crate::lower::{FloatNetwork, FloatTensor};
use crate::quantise::{Layer, own_tensor};

/// Puts zeros where removed channels are made and read.
pub fn mask(network: &mut FloatNetwork, channels: &Channels, removed: &BTreeSet<usize>) {
    for node in 0..network.graph.nodes.len() {
        let Some(layer) = Layer::at(&network.graph, node) else { continue };
        let (n, c, k) = (layer.n, layer.c, layer.products());
        let (panels, bias) = (layer.weight.panels.clone(), layer.weight.bias.clone());
        let Node { inputs, output, .. } = &network.graph.nodes[node];
        let gone = |id: ValueId, count: usize| {
            let kept: BTreeSet<usize> = channels.kept(id, removed).into_iter().collect();
            let gone = (0..count).filter(|channel| !kept.contains(channel));
            if kept.is_empty() && channels.count(id) == 0 { Vec::new() } else { gone.collect() }
        };
        let (rows, columns): (Vec<usize>, Vec<usize>) = (gone(*output, n), gone(inputs[0], c));
        if rows.is_empty() && columns.is_empty() {
            continue;
        }
        let weights = own_tensor(network, node, &panels);
        rows.iter().for_each(|&row| weights[row * k..(row + 1) * k].fill(0.0));
        for cell in weights.chunks_mut(c) {
            columns.iter().for_each(|&column| cell[column] = 0.0);
        }
        if let Some(bias) = bias.filter(|_| !rows.is_empty()) {
            let bias = own_tensor(network, node, &bias);
            rows.iter().for_each(|&row| bias[row] = 0.0);
        }
    }
}

/// Gives a layer other weights, `[n, products]`, and another bias, `[n]`.
pub fn set_layer(network: &mut FloatNetwork, node: usize, weights: &[f32], bias: &[f32]) {
    let Some(layer) = Layer::at(&network.graph, node) else { return };
    let (panels, known) = (layer.weight.panels.clone(), layer.weight.bias.clone());
    own_tensor(network, node, &panels).copy_from_slice(weights);
    match known {
        Some(name) => own_tensor(network, node, &name).copy_from_slice(bias),
        None => {
            let name = format!("{}.bias", network.graph.nodes[node].name);
            let tensor = FloatTensor::new(vec![bias.len()], bias.to_vec());
            network.weights.insert(name.clone(), tensor);
            if let Op::MatmulF16 { weight, .. } | Op::ConvF16 { weight, .. } =
                &mut network.graph.nodes[node].op
            {
                weight.bias = Some(name);
            }
        }
    }
}

/// Takes removed channels out of a network, and then everything that nothing reads.
pub fn cut(network: &FloatNetwork, channels: &Channels, removed: &BTreeSet<usize>) -> FloatNetwork {
    let ids = (0..network.graph.values.len() as u32).map(ValueId);
    let kept: Vec<Vec<usize>> = ids.map(|id| channels.kept(id, removed)).collect();
    let mut cutter = Cutter { network, channels, kept, weights: BTreeMap::new() };
    let mut graph = network.graph.clone();
    for (index, value) in graph.values.iter_mut().enumerate() {
        if let Some(last) = value.shape.last_mut().filter(|last| last.as_fixed().is_some()) {
            *last = Dim::fixed(cutter.kept[index].len());
        }
    }
    let mut nodes = Vec::with_capacity(graph.nodes.len());
    for (index, node) in network.graph.nodes.iter().enumerate() {
        match Layer::at(&network.graph, index) {
            Some(layer) if cutter.is_empty(node.inputs[0]) => {
                if layer.epilogue.residual {
                    let [constant, sum] = cutter.without_branch(&mut graph, node, &layer);
                    nodes.extend([constant, sum]);
                } else {
                    // What it makes is not read any more either.
                    nodes.push(node.clone());
                }
            }
            _ => nodes.push(cutter.node(node)),
        }
    }
    graph.nodes = nodes;
    let weights = cutter.weights;
    let (graph, ids) = without_dead(graph);
    let moved = |(id, origin): (&ValueId, &crate::lower::Origin)| {
        let same = cut_nothing(&network.graph, *id, removed, channels);
        ids.get(id).filter(|_| same).map(|&id| (id, origin.clone()))
    };
    let origins = network.origins.iter().filter_map(moved).collect();
    FloatNetwork { graph, weights, origins, ..network.clone() }
}

fn cut_nothing(graph: &Graph, id: ValueId, removed: &BTreeSet<usize>, channels: &Channels) -> bool {
    graph.values.len() > id.index() && channels.kept(id, removed).len() == channels.count(id)
}

struct Cutter<'a> {
    network: &'a FloatNetwork,
    channels: &'a Channels,
    /// Of each value.
    kept: Vec<Vec<usize>>,
    weights: BTreeMap<String, FloatTensor>,
}

impl Cutter<'_> {
    fn is_empty(&self, id: ValueId) -> bool {
        self.channels.count(id) > 0 && self.kept[id.index()].is_empty()
    }

    /// A tensor whose last axis is channels of a value, or, `[n, taps.., c]`, whose first and last are.
    fn put(
        &mut self,
        node: &Node,
        name: &mut String,
        change: impl Fn(&FloatTensor) -> FloatTensor,
    ) {
        let tensor = change(self.network.weight(name));
        if self.weights.get(name).is_some_and(|known| *known != tensor) {
            *name = format!("{}/{name}", node.name);
        }
        self.weights.insert(name.clone(), tensor);
    }

    fn node(&mut self, node: &Node) -> Node {
        let mut cut = node.clone();
        let all = self.channels.count(node.output);
        let out = self.kept[node.output.index()].clone();
        let input = node.inputs.first().map(|id| self.kept[id.index()].clone()).unwrap_or_default();
        let by_channel = |tensor: &FloatTensor| last_axis(tensor, &out);
        match &mut cut.op {
            Op::MatmulF16 { weight, n, k: c, .. } | Op::ConvF16 { weight, n, c, .. } => {
                (*n, *c) = (out.len() as u32, input.len() as u32);
                self.put(node, &mut weight.panels, |t| last_axis(&first_axis(t, &out), &input));
                if let Some(bias) = &mut weight.bias {
                    self.put(node, bias, by_channel);
                }
            }
            Op::Depthwise { weight, bias, .. } => {
                self.put(node, weight, by_channel);
                if let Some(bias) = bias {
                    self.put(node, bias, by_channel);
                }
            }
            Op::Constant { tensor } if out.len() < all => self.put(node, tensor, by_channel),
            Op::RmsNorm { size, gamma, eps } if out.len() < all && *size as usize == all => {
                // The mean is over fewer values now.
                let share = all as f32 / out.len().max(1) as f32;
                (*size, *eps) = (out.len() as u32, *eps * share);
                self.put(node, gamma, |tensor| {
                    let mut tensor = last_axis(tensor, &out);
                    tensor.data.iter_mut().for_each(|g| *g *= share.sqrt());
                    tensor
                });
            }
            Op::GroupNorm { groups, gamma, beta, .. } => {
                *groups = (*groups as usize * out.len() / all.max(1)) as u32;
                self.put(node, gamma, by_channel);
                self.put(node, beta, by_channel);
            }
            Op::Attention { heads, .. } => {
                *heads = (*heads as usize * out.len() / all.max(1)) as u32;
            }
            Op::Slice { axis, start }
                if *axis as usize + 1 == self.network.graph.value(node.output).shape.len() =>
            {
                if let Some(first) = start.as_fixed() {
                    *start = Dim::fixed(input.iter().filter(|&&channel| channel < first).count());
                }
            }
            op => {
                for name in crate::quantise::tensor_names(op) {
                    self.put(node, name, FloatTensor::clone);
                }
            }
        }
        cut
    }

    /// A layer that reads nothing any more: what it adds to its residual is the same everywhere.
    fn without_branch(&mut self, graph: &mut Graph, node: &Node, layer: &Layer) -> [Node; 2] {
        let bias = layer.weight.bias.as_ref();
        let mut data =
            bias.map_or(vec![0.0; layer.n], |name| self.network.weight(name).data.clone());
        if let Some(function) = layer.epilogue.activation {
            data.iter_mut().for_each(|x| *x = unary(function, *x));
        }
        let rank = graph.value(node.output).shape.len();
        let mut shape = vec![1; rank - 1];
        shape.push(layer.n);
        let name = format!("{}.mean", node.name);
        let dims = shape.iter().map(|&size| Dim::fixed(size)).collect();
        self.weights.insert(name.clone(), FloatTensor::new(shape, data));
        let id = ValueId(graph.values.len() as u32);
        graph.values.push(Value { name: name.clone(), shape: dims, dtype: DType::F32 });
        let constant = Op::Constant { tensor: name.clone() };
        [
            Node { name, op: constant, inputs: Vec::new(), output: id },
            Node {
                name: node.name.clone(),
                op: Op::Binary { function: Binary::Add },
                inputs: vec![node.inputs[1], id],
                output: node.output,
            },
        ]
    }
}

/// Keeps some of the innermost indices.
fn last_axis(tensor: &FloatTensor, kept: &[usize]) -> FloatTensor {
    let all = tensor.shape.last().copied().unwrap_or(1).max(1);
    let mut shape = tensor.shape.clone();
    if let Some(last) = shape.last_mut() {
        *last = kept.len();
    }
    let cells = tensor.data.chunks(all);
    FloatTensor::new(shape, cells.flat_map(|cell| kept.iter().map(|&i| cell[i])).collect())
}

/// Keeps some of the outermost indices.
fn first_axis(tensor: &FloatTensor, kept: &[usize]) -> FloatTensor {
    let mut shape = tensor.shape.clone();
    let row = tensor.data.len() / shape.first().copied().unwrap_or(1).max(1);
    if let Some(first) = shape.first_mut() {
        *first = kept.len();
    }
    let rows = kept.iter().flat_map(|&i| &tensor.data[i * row..(i + 1) * row]);
    FloatTensor::new(shape, rows.copied().collect())
}

/// Drops nodes that no output needs, and values that no node has. Leaves the new ids.
fn without_dead(mut graph: Graph) -> (Graph, BTreeMap<ValueId, ValueId>) {
    let mut needed: BTreeSet<ValueId> = graph.outputs.iter().copied().collect();
    let mut nodes: Vec<Node> = Vec::new();
    for node in graph.nodes.drain(..).rev() {
        if needed.contains(&node.output) {
            needed.extend(&node.inputs);
            nodes.push(node);
        }
    }
    nodes.reverse();
    needed.extend(&graph.inputs);
    let ids: BTreeMap<ValueId, ValueId> =
        needed.iter().enumerate().map(|(new, &old)| (old, ValueId(new as u32))).collect();
    for node in &mut nodes {
        node.inputs.iter_mut().chain([&mut node.output]).for_each(|id| *id = ids[id]);
    }
    graph.inputs.iter_mut().chain(&mut graph.outputs).for_each(|id| *id = ids[id]);
    graph.values = needed.iter().map(|id| graph.values[id.index()].clone()).collect();
    graph.nodes = nodes;
    (graph, ids)
}
