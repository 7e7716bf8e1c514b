//! Moves scale between channels where the float result stays the same.
//!
//! A norm's gamma, a value projection or a gated half gives each channel a scale that its consumers undo, so any
//! factor may go from one side to the other. Rows of activations are quantised with one scale, so channels that
//! stand out cost the others their precision; here they are brought closer together (SmoothQuant, Xiao et al.
//! 2022; cross-layer equalisation, Nagel et al. 2019). Factors are powers of two: the float run does not change
//! by one bit, rounding apart from norms.

use std::collections::BTreeMap;

use plantain::graph::{Graph, InputScale, Op, Unary, ValueId};

use super::calibrate::Runs;
use super::layer::Layer;
use super::weights::Int8Weights;
use crate::evaluate::{Array, EvaluateError, Evaluator, Int8Layer, Precision};
use crate::lower::{FloatNetwork, FloatTensor};
use crate::report::ErrorSums;
use plantain::graph::Binding;

/// How much of the activations' range goes to the weights: 0 none, 1 all.
const SHARES: [f32; 3] = [0.25, 0.5, 0.75];
/// Samples on which a share is judged.
const SAMPLES_MAX: usize = 2;

/// A place where factors can move.
#[derive(Clone, Debug, PartialEq)]
struct Fold {
    /// Node whose outputs are divided.
    producer: usize,
    /// Channels.
    channels: usize,
    /// Layers whose columns are multiplied.
    consumers: Vec<usize>,
}

/// Equalises a network in place. Leaves the names of the producers that changed.
///
/// # Errors
/// [`EvaluateError`]
pub fn equalise(
    network: &mut FloatNetwork,
    binding: Binding,
    runs: &Runs,
) -> Result<Vec<String>, EvaluateError> {
    let mut changed = Vec::new();
    for fold in folds(&network.graph) {
        if let Some(factors) = best_factors(network, binding, runs, &fold)? {
            apply(network, &fold, &factors);
            changed.push(network.graph.nodes[fold.producer].name.clone());
        }
    }
    Ok(changed)
}

fn folds(graph: &Graph) -> Vec<Fold> {
    let mut users = vec![Vec::new(); graph.values.len()];
    for (index, node) in graph.nodes.iter().enumerate() {
        for (operand, id) in node.inputs.iter().enumerate() {
            users[id.index()].push((index, operand));
        }
    }
    let homogeneous =
        |f: Option<Unary>| matches!(f, None | Some(Unary::Relu) | Some(Unary::LeakyRelu(_)));
    let mut folds = Vec::new();
    for (producer, node) in graph.nodes.iter().enumerate() {
        let last = graph.value(node.output).shape.last().and_then(|dim| dim.as_fixed());
        let (Some(channels), linear) = (match &node.op {
            Op::LayerNorm { .. } => (last, false),
            Op::RmsNorm { size, .. } if last == Some(*size as usize) => (last, false),
            Op::GroupNorm { activation: None, .. } => (last, false),
            Op::MatmulF16 { epilogue, n, .. } | Op::ConvF16 { epilogue, n, .. }
                if !epilogue.residual && homogeneous(epilogue.activation) =>
            {
                (Some(*n as usize), epilogue.activation.is_none())
            }
            _ => (None, false),
        }) else {
            continue;
        };
        let mut consumers = Vec::new();
        let mut width = channels;
        let mut walk = Walk { graph, users: &users, linear, consumers: &mut consumers };
        if walk.follow(node.output, &mut width) && !consumers.is_empty() {
            folds.push(Fold { producer, channels: width, consumers });
        }
    }
    folds
}

/// Follows a value to the layers that read it.
struct Walk<'a> {
    graph: &'a Graph,
    users: &'a [Vec<(usize, usize)>],
    linear: bool,
    consumers: &'a mut Vec<usize>,
}

impl Walk<'_> {
    /// Whether every use of the value ends in columns of a layer. `width` halves behind a gate.
    fn follow(&mut self, id: ValueId, width: &mut usize) -> bool {
        if self.graph.outputs.contains(&id) || self.users[id.index()].is_empty() {
            return false;
        }
        let last = |id: ValueId| self.graph.value(id).shape.last().and_then(|dim| dim.as_fixed());
        self.users[id.index()].iter().all(|&(user, operand)| {
            let node = &self.graph.nodes[user];
            match &node.op {
                Op::MatmulF16 { .. } | Op::ConvF16 { .. } => {
                    let fits = Layer::at(self.graph, user).is_some_and(|l| l.c == *width);
                    let free = operand == 0 && !node.inputs[1..].contains(&id);
                    self.consumers.push(user);
                    fits && free
                }
                Op::Reshape if last(node.output) == Some(*width) => self.follow(node.output, width),
                Op::Cast => self.follow(node.output, width),
                Op::Gated { .. }
                    if self.linear
                        && self.users[id.index()].len() == 1
                        && last(id) == Some(*width) =>
                {
                    *width /= 2;
                    self.follow(node.output, width)
                }
                Op::Attention { .. } if self.linear && operand == 2 => {
                    !node.inputs[..2].contains(&id)
                        && !node.inputs[3..].contains(&id)
                        && self.follow(node.output, width)
                }
                _ => false,
            }
        })
    }
}

/// The factors that lessen the consumers' error most; `None` if leaving all as it is is best.
fn best_factors(
    network: &FloatNetwork,
    binding: Binding,
    runs: &Runs,
    fold: &Fold,
) -> Result<Option<Vec<f32>>, EvaluateError> {
    let graph = &network.graph;
    let mut peaks = vec![0.0f32; fold.channels];
    let mut columns = vec![0.0f32; fold.channels];
    for layer in fold.consumers.iter().filter_map(|&node| Layer::at(graph, node)) {
        let input = graph.nodes[layer.node].inputs[0];
        let maximum = |into: &mut [f32], cells: &[f32]| {
            for cell in cells.chunks(fold.channels) {
                into.iter_mut().zip(cell).for_each(|(m, x)| *m = m.max(x.abs()));
            }
        };
        maximum(&mut peaks, &runs.peaks(input, fold.channels));
        maximum(&mut columns, &network.weight(&layer.weight.panels).data);
    }
    let mut best = (noise(network, binding, runs, fold, None)?, None);
    for share in SHARES {
        let factors = factors(&peaks, &columns, share);
        let noise = noise(network, binding, runs, fold, Some(&factors))?;
        // Less than a tenth is not worth other weights.
        if noise < 0.9 * best.0 {
            best = (noise, Some(factors));
        }
    }
    Ok(best.1)
}

/// `peak^share / column^(1 - share)`, to the nearest power of two, one in the geometric mean.
fn factors(peaks: &[f32], columns: &[f32], share: f32) -> Vec<f32> {
    let raw: Vec<Option<f32>> = peaks
        .iter()
        .zip(columns)
        .map(|(&peak, &column)| {
            (peak > 0.0 && column > 0.0)
                .then(|| share * peak.log2() - (1.0 - share) * column.log2())
        })
        .collect();
    let known: Vec<f32> = raw.iter().flatten().copied().collect();
    let mean = known.iter().sum::<f32>() / known.len().max(1) as f32;
    raw.into_iter()
        .map(|log| log.map_or(1.0, |log| (log - mean).round().clamp(-8.0, 8.0).exp2()))
        .collect()
}

/// Squared error of the consumers' products with factors moved into their columns.
fn noise(
    network: &FloatNetwork,
    binding: Binding,
    runs: &Runs,
    fold: &Fold,
    factors: Option<&[f32]>,
) -> Result<f64, EvaluateError> {
    let graph = &network.graph;
    let mut sums = ErrorSums::default();
    for layer in fold.consumers.iter().filter_map(|&node| Layer::at(graph, node)) {
        let node = &graph.nodes[layer.node];
        let input = node.inputs[0];
        let mut weights = network.weight(&layer.weight.panels).data.clone();
        let mut energy = runs.energy(input, layer.c);
        if let Some(factors) = factors {
            weights.chunks_mut(layer.c).for_each(|cell| multiply(cell, factors));
            energy.iter_mut().zip(factors).for_each(|(e, f)| *e /= f * f);
        }
        let weight = Int8Weights::quantise(&weights, layer.n, &energy).dequantise();
        let int8 = Int8Layer { weight: weight.into(), input: InputScale::Row };
        let layers = BTreeMap::from([(layer.node, int8)]);
        let precision = Precision { int8: Some(&layers), ..Precision::default() };
        let evaluator = Evaluator::new(graph, &network.weights, binding);
        for values in runs.values.iter().take(SAMPLES_MAX) {
            let mut overlay: Vec<Option<Array>> = Vec::new();
            if let (Some(factors), Some(array)) = (factors, &values[input.index()]) {
                let mut array = array.clone();
                for cell in array.values.chunks_mut(layer.c) {
                    cell.iter_mut().zip(factors).for_each(|(x, f)| *x /= f);
                }
                overlay.resize(values.len(), None);
                overlay[input.index()] = Some(array);
            }
            let found = evaluator.node_over(layer.node, &overlay, values, precision)?;
            if let Some(reference) = &values[node.output.index()] {
                sums.add(&reference.values, &found.values);
            }
        }
    }
    Ok(sums.noise())
}

fn multiply(cell: &mut [f32], factors: &[f32]) {
    cell.iter_mut().zip(factors).for_each(|(w, f)| *w *= f);
}

/// Moves the factors: divides the producer's channels, multiplies the consumers' columns. Tensors that other
/// nodes read too are copied first.
fn apply(network: &mut FloatNetwork, fold: &Fold, factors: &[f32]) {
    let divide = |data: &mut [f32], row: usize| {
        for (channel, values) in data.chunks_mut(row).take(factors.len()).enumerate() {
            values.iter_mut().for_each(|w| *w /= factors[channel]);
        }
    };
    match network.graph.nodes[fold.producer].op.clone() {
        Op::LayerNorm { gamma, beta, .. } => {
            divide(own(network, fold.producer, &gamma), 1);
            if let Some(beta) = beta {
                divide(own(network, fold.producer, &beta), 1);
            }
        }
        Op::GroupNorm { gamma, beta, .. } => {
            divide(own(network, fold.producer, &gamma), 1);
            divide(own(network, fold.producer, &beta), 1);
        }
        Op::RmsNorm { gamma, .. } => divide(own(network, fold.producer, &gamma), 1),
        Op::MatmulF16 { weight, n, .. } | Op::ConvF16 { weight, n, .. } => {
            let data = own(network, fold.producer, &weight.panels);
            let row = data.len() / n as usize;
            divide(data, row);
            if let Some(bias) = weight.bias {
                divide(own(network, fold.producer, &bias), 1);
            }
        }
        _ => {}
    }
    for &consumer in &fold.consumers {
        if let Some(layer) = Layer::at(&network.graph, consumer) {
            let (name, c) = (layer.weight.panels.clone(), layer.c);
            own(network, consumer, &name).chunks_mut(c).for_each(|cell| multiply(cell, factors));
        }
    }
}

/// A tensor of a node that no other node reads; copied under the node's name if one does.
pub(crate) fn own<'a>(network: &'a mut FloatNetwork, node: usize, name: &str) -> &'a mut [f32] {
    let readers = network.graph.nodes.iter().filter(|n| reads(&n.op, name)).count();
    let mut name = name.to_owned();
    if readers > 1 {
        let copy = format!("{}/{name}", network.graph.nodes[node].name);
        let tensor: FloatTensor = network.weight(&name).clone();
        network.weights.insert(copy.clone(), tensor);
        rename(&mut network.graph.nodes[node].op, &name, &copy);
        name = copy;
    }
    match network.weights.get_mut(&name) {
        Some(tensor) => &mut tensor.data,
        None => &mut [],
    }
}

fn reads(op: &Op, name: &str) -> bool {
    let mut op = op.clone();
    names(&mut op).into_iter().any(|n| n == name)
}

fn rename(op: &mut Op, from: &str, to: &str) {
    for name in names(op) {
        if name == from {
            to.clone_into(name);
        }
    }
}

/// The tensors of a float op.
pub(crate) fn names(op: &mut Op) -> Vec<&mut String> {
    match op {
        Op::Constant { tensor } => vec![tensor],
        Op::MatmulF16 { weight, .. }
        | Op::ConvF16 { weight, .. }
        | Op::MatmulI8 { weight, .. }
        | Op::ConvI8 { weight, .. } => {
            let rest = [&mut weight.scale, &mut weight.sums, &mut weight.bias];
            std::iter::once(&mut weight.panels).chain(rest.into_iter().flatten()).collect()
        }
        Op::Depthwise { weight, bias, .. } => {
            std::iter::once(weight).chain(bias.as_mut()).collect()
        }
        Op::LayerNorm { gamma, beta, .. } => std::iter::once(gamma).chain(beta.as_mut()).collect(),
        Op::RmsNorm { gamma, .. } => vec![gamma],
        Op::GroupNorm { gamma, beta, .. } => vec![gamma, beta],
        Op::Gather { table, scale, .. } => std::iter::once(table).chain(scale.as_mut()).collect(),
        Op::TimestepEmbedding { frequencies, .. } => vec![frequencies],
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peak_of_thirty_goes_to_the_columns() {
        let mut peaks = vec![1.0; 64];
        let mut columns = vec![0.1; 64];
        (peaks[5], columns[5]) = (32.0, 0.1 / 32.0);
        let factors = factors(&peaks, &columns, 0.5);
        assert_eq!(factors[5], 32.0);
        assert!(factors.iter().enumerate().all(|(i, &f)| i == 5 || f == 1.0));
    }
}
