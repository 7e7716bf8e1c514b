//! After emission: activations and residual sums join the op before them.

use plantain::graph::{Binary, Epilogue, Graph, Node, Op, ValueId};

use super::emit::Emitted;

/// Fuses what can be fused and drops nodes that nothing needs.
pub(super) fn fuse(emitted: &mut Emitted) {
    let graph = &mut emitted.graph;
    // From the end, so that of two matmuls whose results are summed the later one takes the sum.
    for index in (0..graph.nodes.len()).rev() {
        while let Some(user) = only_user(graph, index) {
            if !join(graph, index, user) {
                break;
            }
            if matches!(graph.nodes[index].op, Op::Reshape) {
                break;
            }
        }
    }
    drop_unused(graph);
    let used: std::collections::HashSet<ValueId> = values_in_use(graph);
    emitted.origins.retain(|id, _| used.contains(id));
    renumber(emitted);
}

/// The one node that reads a node's result, if no output is that result.
fn only_user(graph: &Graph, index: usize) -> Option<usize> {
    let value = graph.nodes[index].output;
    if graph.outputs.contains(&value) || dead(&graph.nodes[index]) {
        return None;
    }
    let mut users = graph.nodes.iter().enumerate().flat_map(|(i, node)| {
        node.inputs.iter().filter(move |&&input| input == value).map(move |_| i)
    });
    let user = users.next()?;
    users.next().is_none().then_some(user)
}

/// Nodes that were joined stay as reshapes without inputs until they are dropped.
fn dead(node: &Node) -> bool {
    matches!(node.op, Op::Reshape) && node.inputs.is_empty()
}

fn bury(node: &mut Node) {
    node.op = Op::Reshape;
    node.inputs.clear();
}

fn epilogue(op: &mut Op) -> Option<&mut Epilogue> {
    match op {
        Op::MatmulF16 { epilogue, .. }
        | Op::ConvF16 { epilogue, .. }
        | Op::Depthwise { epilogue, .. } => Some(epilogue),
        _ => None,
    }
}

/// Joins `user` to the node at `index`; true if something changed.
fn join(graph: &mut Graph, index: usize, user: usize) -> bool {
    let result = graph.nodes[index].output;
    let user_output = graph.nodes[user].output;
    let user_op = graph.nodes[user].op.clone();
    match user_op {
        Op::Unary { function } => {
            let node = &mut graph.nodes[index];
            let slot = match &mut node.op {
                Op::GroupNorm { activation, .. } => activation,
                op => match epilogue(op) {
                    Some(epilogue) if !epilogue.residual => &mut epilogue.activation,
                    _ => return false,
                },
            };
            if slot.is_some() {
                return false;
            }
            *slot = Some(function);
            node.output = user_output;
            bury(&mut graph.nodes[user]);
            true
        }
        Op::Binary { function: Binary::Add } => {
            let inputs = &graph.nodes[user].inputs;
            let Some(&other) = inputs.iter().find(|&&input| input != result) else { return false };
            let shape = |id: ValueId| &graph.value(id).shape;
            if shape(other) != shape(result) || shape(user_output) != shape(result) {
                return false;
            }
            let mut node = graph.nodes[index].clone();
            match epilogue(&mut node.op) {
                Some(epilogue) if !epilogue.residual => epilogue.residual = true,
                _ => return false,
            }
            node.inputs.push(other);
            node.output = user_output;
            // The sum's place: there the other operand is known.
            graph.nodes[user] = node;
            bury(&mut graph.nodes[index]);
            true
        }
        _ => false,
    }
}

fn values_in_use(graph: &Graph) -> std::collections::HashSet<ValueId> {
    let read = graph.nodes.iter().flat_map(|node| node.inputs.iter().chain([&node.output]));
    read.chain(&graph.inputs).chain(&graph.outputs).copied().collect()
}

fn drop_unused(graph: &mut Graph) {
    graph.nodes.retain(|node| !dead(node));
    let mut needed: std::collections::HashSet<ValueId> = graph.outputs.iter().copied().collect();
    let mut keep = vec![false; graph.nodes.len()];
    for (index, node) in graph.nodes.iter().enumerate().rev() {
        if needed.contains(&node.output) {
            keep[index] = true;
            needed.extend(&node.inputs);
        }
    }
    let mut keep = keep.into_iter();
    graph.nodes.retain(|_| keep.next().unwrap_or(false));
}

/// Gives the values that are left consecutive ids, in the order in which they appear, and drops
/// weights without a user.
fn renumber(emitted: &mut Emitted) {
    let graph = &mut emitted.graph;
    let used = values_in_use(graph);
    let mut ids = vec![None; graph.values.len()];
    let mut values = Vec::new();
    for (index, value) in graph.values.drain(..).enumerate() {
        if used.contains(&ValueId(index as u32)) {
            ids[index] = Some(ValueId(values.len() as u32));
            values.push(value);
        }
    }
    graph.values = values;
    let map = |id: &mut ValueId| *id = ids[id.index()].unwrap_or(*id);
    for node in &mut graph.nodes {
        node.inputs.iter_mut().for_each(map);
        map(&mut node.output);
    }
    graph.inputs.iter_mut().for_each(map);
    graph.outputs.iter_mut().for_each(map);
    emitted.origins = std::mem::take(&mut emitted.origins)
        .into_iter()
        .filter_map(|(id, origin)| Some((ids[id.index()]?, origin)))
        .collect();
    let names: std::collections::HashSet<&str> =
        graph.nodes.iter().flat_map(|node| tensors(&node.op)).collect();
    emitted.weights.retain(|name, _| names.contains(name.as_str()));
}

/// Names of the stored tensors that an op reads.
fn tensors(op: &Op) -> Vec<&str> {
    match op {
        Op::Constant { tensor } => vec![tensor],
        Op::MatmulI8 { weight, .. }
        | Op::MatmulF16 { weight, .. }
        | Op::ConvI8 { weight, .. }
        | Op::ConvF16 { weight, .. } => [
            Some(&weight.panels),
            weight.scale.as_ref(),
            weight.sums.as_ref(),
            weight.bias.as_ref(),
        ]
        .into_iter()
        .flatten()
        .map(String::as_str)
        .collect(),
        Op::Depthwise { weight, bias, .. } => {
            [Some(weight), bias.as_ref()].into_iter().flatten().map(String::as_str).collect()
        }
        Op::LayerNorm { gamma, beta, .. } => {
            [Some(gamma), beta.as_ref()].into_iter().flatten().map(String::as_str).collect()
        }
        Op::RmsNorm { gamma, .. } => vec![gamma],
        Op::GroupNorm { gamma, beta, .. } => vec![gamma, beta],
        Op::Gather { table, scale, .. } => {
            [Some(table), scale.as_ref()].into_iter().flatten().map(String::as_str).collect()
        }
        Op::TimestepEmbedding { frequencies, .. } => vec![frequencies],
        _ => vec![],
    }
}
