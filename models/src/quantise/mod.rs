//! From a float network to an int8 one: equalise, choose, convert, measure.
//!
//! Enters: a [`FloatNetwork`] and sample inputs. Leaves: the graph that the engine runs, its tensors in execution
//! order, and what it cost, layer by layer. Never: files, ONNX, prompts.
//!
//! Weights are symmetric int8 by output channel, activations dynamic int8 by row, or calibrated by tensor where
//! a convolution loses nothing by it. Layers stay f16 by measurement only, or because the user named them. Attentions over many
//! keys have int8 products on the same terms; the others stay float.

mod attention;
pub mod calibrate;
mod choose;
mod emit;
mod equalise;
mod layer;
mod types;
mod weights;

use plantain::graph::{Binding, DimError, Graph, InputScale, Op};

pub use calibrate::{Inputs, Samples};
pub use emit::{StoredData, StoredTensor};
pub(crate) use equalise::{names as tensor_names, own as own_tensor};
pub use layer::Layer;
pub use weights::Int8Weights;

use crate::evaluate::EvaluateError;
use crate::lower::FloatNetwork;
use crate::report::{AttentionRow, LayerRow, NetworkReport};

/// What may be chosen about quantising.
#[derive(Clone, Debug)]
pub struct Options {
    /// Layers whose `network/node` name matches one of these stay f16, and attentions float; `*` stands for anything.
    pub keep_f16: Vec<String>,
    /// Layers move to f16 until the network's outputs are at least this good.
    pub snr_db_min: f64,
    /// At most this share of a network's work or weights moves to f16 for that.
    pub f16_share_max: f64,
    /// Move scale between channels first.
    pub equalise: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options { keep_f16: Vec::new(), snr_db_min: 22.0, f16_share_max: 0.2, equalise: true }
    }
}

impl Options {
    /// The pattern that a layer matches.
    fn keeps(&self, network: &str, node: &str) -> Option<&str> {
        let name = format!("{network}/{node}");
        self.keep_f16.iter().map(String::as_str).find(|p| matches(p, &name) || matches(p, node))
    }
}

/// Whether a name fits a pattern in which `*` stands for any characters.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((start, rest)) => name.strip_prefix(start).is_some_and(|name| {
            (0..=name.len())
                .filter(|&at| name.is_char_boundary(at))
                .any(|at| matches(rest, &name[at..]))
        }),
    }
}

/// Why a network cannot be quantised.
#[derive(Debug, thiserror::Error)]
pub enum QuantiseError {
    /// The float run failed.
    #[error(transparent)]
    Evaluate(#[from] EvaluateError),
    /// A dimension has no value.
    #[error(transparent)]
    Dim(#[from] DimError),
    /// Nothing to calibrate on.
    #[error("there are no samples to calibrate {network:?} on; give at least one")]
    NoSamples {
        /// Network.
        network: String,
    },
    /// A float value that is not a number.
    #[error(
        "value {value:?} of {network:?} is not finite in the float run; the network overflows on its calibration inputs"
    )]
    NotFinite {
        /// Network.
        network: String,
        /// Value.
        value: String,
    },
}

/// A quantised network.
#[derive(Clone, Debug)]
pub struct Quantised {
    /// What the engine runs.
    pub graph: Graph,
    /// In execution order.
    pub tensors: Vec<StoredTensor>,
    /// What it cost.
    pub report: NetworkReport,
}

/// Quantises one network.
///
/// # Errors
/// [`QuantiseError`]
pub fn quantise(
    mut network: FloatNetwork,
    samples: &Samples,
    options: &Options,
) -> Result<Quantised, QuantiseError> {
    let binding = samples.binding;
    let graph_name = network.graph.name.clone();
    if samples.inputs.is_empty() {
        return Err(QuantiseError::NoSamples { network: graph_name });
    }
    let mut runs = calibrate::Runs::new(&network.graph, &network.weights, samples)?;
    for (value, index) in network.graph.values.iter().zip(0..) {
        if !runs.peak(plantain::graph::ValueId(index)).is_finite() {
            let value = value.name.clone();
            return Err(QuantiseError::NotFinite { network: graph_name, value });
        }
    }
    let mut equalised = Vec::new();
    if options.equalise {
        equalised = equalise::equalise(&mut network, binding, &runs)?;
        if !equalised.is_empty() {
            runs = calibrate::Runs::new(&network.graph, &network.weights, samples)?;
        }
    }
    types::assign(&mut network.graph, binding, &runs)?;
    let choices = choose::choose(&network, binding, &runs, options)?;
    let runs = (runs.values.len(), binding);
    let (graph, tensors) = emit::emit(&network, &choices);
    let report = report(&network, runs, &choices, (options, equalised, &tensors));
    Ok(Quantised { graph, tensors, report })
}

fn report(
    network: &FloatNetwork,
    (samples, binding): (usize, Binding),
    choices: &choose::Choices,
    (options, equalised, tensors): (&Options, Vec<String>, &[StoredTensor]),
) -> NetworkReport {
    let graph = &network.graph;
    let choose::Measured { outputs, inside } = &choices.measured;
    let layers = Layer::all(graph)
        .iter()
        .map(|layer| {
            let choice = &choices.layers[&layer.node];
            let input = choice.int8.as_ref().map(|(_, input)| *input);
            LayerRow {
                node: layer.name.to_owned(),
                kind: if layer.window.is_some() { "convolution" } else { "matmul" },
                weights: layer.len(),
                precision: match input {
                    None => "f16",
                    Some(InputScale::Static(_)) if layer.window.is_some() => {
                        "int8, input by tensor"
                    }
                    Some(_) => "int8, input by row",
                },
                alone: choice.alone.into(),
                inside: inside.get(&layer.node).copied().unwrap_or_default().into(),
                row_snr_db: choice.row_snr_db,
                static_snr_db: choice.static_snr_db,
                kept_f16: choice.kept_f16.clone(),
            }
        })
        .collect();
    let attention = |(node, choice): (&usize, &attention::AttentionChoice)| AttentionRow {
        node: graph.nodes[*node].name.clone(),
        keys: choice.keys,
        precision: if choice.int8() { "int8" } else { "float" },
        alone: choice.alone.into(),
        inside: inside.get(node).copied().unwrap_or_default().into(),
        kept_float: choice.kept_float.clone(),
    };
    let tables = graph.nodes.iter().filter(|node| matches!(node.op, Op::Gather { .. })).count();
    NetworkReport {
        network: graph.name.clone(),
        samples,
        binding: binding.into(),
        outputs: (*outputs).into(),
        snr_db_min: options.snr_db_min,
        equalised,
        int8_tables: tables,
        tensor_bytes: tensors.iter().map(|tensor| tensor.data.bytes()).sum(),
        layers,
        attentions: choices.attentions.iter().map(attention).collect(),
    }
}

#[cfg(test)]
pub(crate) mod tests;
