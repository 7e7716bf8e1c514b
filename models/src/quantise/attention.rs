//! Which attentions have int8 products.

use std::collections::{BTreeMap, BTreeSet};

use plantain::graph::{Binding, Graph, Op};

use super::calibrate::Runs;
use super::{Options, QuantiseError};
use crate::evaluate::{Evaluator, Precision};
use crate::lower::FloatNetwork;
use crate::report::ErrorSums;

/// Fewer keys gain too little: they are made int8 once a run, and then meet too few queries.
const KEYS_MIN: usize = 256;
/// An attention alone may lose this much before it stays float whatever the network says. Stricter than for layers, because it
/// costs no memory to leave it.
const SNR_DB_MIN: f64 = 20.0;

/// The fate of an attention over many keys.
#[derive(Clone, Debug)]
pub struct AttentionChoice {
    /// Keys of one sample.
    pub keys: usize,
    /// Why it stays float; `None` if it is int8.
    pub kept_float: Option<String>,
    /// Its error in int8 on float inputs.
    pub alone: ErrorSums,
}

impl AttentionChoice {
    /// Whether its products are int8.
    pub fn int8(&self) -> bool {
        self.kept_float.is_none()
    }
}

/// Decides for every attention of at least [`KEYS_MIN`] keys, by node.
///
/// # Errors
/// [`QuantiseError`]
pub fn choose(
    network: &FloatNetwork,
    binding: Binding,
    runs: &Runs,
    options: &Options,
) -> Result<BTreeMap<usize, AttentionChoice>, QuantiseError> {
    let graph = &network.graph;
    let evaluator = Evaluator::new(graph, &network.weights, binding);
    let mut choices = BTreeMap::new();
    for (index, node) in graph.nodes.iter().enumerate() {
        let keys = keys(graph, runs, index);
        if keys < KEYS_MIN {
            continue;
        }
        let one = BTreeSet::from([index]);
        let precision = Precision { attentions: Some(&one), ..Precision::default() };
        let mut alone = ErrorSums::default();
        for values in &runs.values {
            let found = evaluator.node(index, values, precision)?;
            if let Some(reference) = &values[node.output.index()] {
                alone.add(&reference.values, &found.values);
            }
        }
        let snr = alone.snr_db();
        let kept_float = match options.keeps(&graph.name, &node.name) {
            Some(pattern) => Some(format!("named by --keep-f16 {pattern}")),
            None if snr < SNR_DB_MIN => {
                Some(format!("alone at {snr:.1} dB, below {SNR_DB_MIN} dB"))
            }
            None => None,
        };
        choices.insert(index, AttentionChoice { keys, kept_float, alone });
    }
    Ok(choices)
}

/// Keys of one sample; 0 if the node is no attention.
fn keys(graph: &Graph, runs: &Runs, node: usize) -> usize {
    let node = &graph.nodes[node];
    match node.op {
        Op::Attention { .. } => runs.of(node.inputs[1]).next().map_or(0, |k| k.shape[1]),
        _ => 0,
    }
}

/// Multiply-adds of an attention in one run.
pub fn work(graph: &Graph, runs: &Runs, node: usize) -> f64 {
    let outputs = runs.of(graph.nodes[node].output).next().map_or(0, |a| a.values.len());
    2.0 * outputs as f64 * keys(graph, runs, node) as f64
}
