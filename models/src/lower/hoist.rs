//! After emission: reshapes move up through ops that only look at the last dimension, so that
//! queries, keys and values share one reshape of their common operand.

use std::collections::HashMap;

use plantain::graph::{Dim, Graph, Node, Op, Value, ValueId};

use super::emit::Emitted;

/// Moves reshapes up as far as they go.
pub(super) fn hoist(emitted: &mut Emitted) {
    let mut known: HashMap<(ValueId, Vec<Dim>), ValueId> = HashMap::new();
    // Users come after producers: from the end, a reshape that moves up is met again.
    let mut index = emitted.graph.nodes.len();
    while index > 0 {
        index -= 1;
        if let Some(producer) = movable(&emitted.graph, index) {
            move_up(emitted, index, producer, &mut known);
            // A reshape that moved up pushed the nodes between one place down.
            index = (index + 1).min(emitted.graph.nodes.len());
        }
    }
}

/// The node whose result this reshape regroups, if the reshape can go before it.
fn movable(graph: &Graph, index: usize) -> Option<usize> {
    let node = &graph.nodes[index];
    if !matches!(node.op, Op::Reshape) {
        return None;
    }
    let [input] = node.inputs[..] else { return None };
    let (from, to) = (&graph.value(input).shape, &graph.value(node.output).shape);
    let users = graph.nodes.iter().flat_map(|n| &n.inputs).filter(|&&id| id == input).count();
    if users != 1 || graph.outputs.contains(&input) || from.last() != to.last() || to.len() < 2 {
        return None;
    }
    let producer = graph.nodes.iter().position(|n| n.output == input)?;
    let by_row = match &graph.nodes[producer].op {
        Op::MatmulF16 { epilogue, .. } => !epilogue.residual,
        Op::Slice { axis, .. } => *axis as usize + 1 == from.len(),
        Op::LayerNorm { .. } | Op::RmsNorm { .. } | Op::Gated { .. } | Op::Unary { .. } => true,
        _ => false,
    };
    by_row.then_some(producer)
}

fn move_up(
    emitted: &mut Emitted,
    index: usize,
    producer: usize,
    known: &mut HashMap<(ValueId, Vec<Dim>), ValueId>,
) {
    let graph = &mut emitted.graph;
    let reshape = graph.nodes[index].clone();
    let x = graph.nodes[producer].inputs[0];
    let mut shape = graph.value(reshape.output).shape.clone();
    if let (Some(last), Some(from)) = (shape.last_mut(), graph.value(x).shape.last()) {
        *last = *from;
    }
    if let Op::Slice { axis, .. } = &mut graph.nodes[producer].op {
        *axis = shape.len() as u32 - 1;
    }
    // The result keeps the producer's name and origin under the reshape's value.
    let old = graph.nodes[producer].output;
    let name = std::mem::take(&mut graph.values[old.index()].name);
    let spare = std::mem::replace(&mut graph.values[reshape.output.index()].name, name);
    graph.values[old.index()].name = spare;
    if let Some(origin) = emitted.origins.remove(&old) {
        emitted.origins.entry(reshape.output).or_insert(origin);
    }
    graph.nodes[producer].output = reshape.output;
    graph.nodes.remove(index);
    if graph.value(x).shape == shape {
        return;
    }
    let key = (x, shape.clone());
    if let Some(&shared) = known.get(&key) {
        // It may stand later than this producer: then it moves up to it.
        if let Some(at) = graph.nodes.iter().position(|n| n.output == shared) {
            graph.nodes[producer].inputs[0] = shared;
            if at > producer {
                let node = graph.nodes.remove(at);
                graph.nodes.insert(producer, node);
            }
            return;
        }
    }
    let output = ValueId(graph.values.len() as u32);
    let name = format!("{}.reshaped.{}", graph.value(x).name, output.0);
    graph.values.push(Value { name: name.clone(), shape, dtype: graph.value(x).dtype });
    graph.nodes[producer].inputs[0] = output;
    graph.nodes.insert(producer, Node { name, op: Op::Reshape, inputs: vec![x], output });
    known.insert(key, output);
}
