//! Fits the layers of a cut network again, one after another, on what the layers before them make now.
//!
//! Both networks run side by side, node by node over all samples: the one as it was says what a layer should make, the cut one
//! what it reads. What earlier layers got wrong in the residual stream is part of the target, so a layer takes it back
//! as far as it can.

use std::collections::BTreeMap;

use ndarray::Array2;
use plantain::graph::{Binding, Graph, bind_shape};

use super::PruneError;
use super::apply::set_layer;
use super::normal::{Normal, inputs, pick, stacked, unstacked};
use super::scene::parallel;
use crate::evaluate::{Array, Evaluator, Precision, Values};
use crate::lower::FloatNetwork;
use crate::quantise::{Inputs, Layer};

/// Rows for each column of a layer at which more say nothing new.
pub const ROWS_PER_COLUMN: usize = 32;
/// Every so many samples one judges the ridge and nothing else.
const HELD_EVERY: usize = 8;
/// Parts that the samples are summed in, each with a matrix of its own.
const PARTS: usize = 4;

/// What is left of a layer.
pub struct Kept {
    /// Outputs.
    pub rows: Vec<usize>,
    /// Products of one output.
    pub columns: Vec<usize>,
}

/// Inputs of both networks, with the weights of tokens.
pub struct Pair<'a> {
    /// Of the network as it was.
    pub original: &'a Inputs,
    /// Of the cut one.
    pub cut: &'a Inputs,
    /// 0 where a token is padding.
    pub tokens: Option<&'a [f32]>,
}

/// One network over all samples, node by node.
struct Sweep {
    values: Vec<Values>,
    /// By value: the last node that reads it.
    last: Vec<usize>,
}

impl Sweep {
    fn new(graph: &Graph, samples: &[&Inputs]) -> Self {
        let mut last = vec![0; graph.values.len()];
        for (index, node) in graph.nodes.iter().enumerate() {
            node.inputs.iter().for_each(|id| last[id.index()] = index);
        }
        let values = samples.iter().map(|inputs| {
            let mut values: Values = vec![None; graph.values.len()];
            for &id in &graph.inputs {
                values[id.index()] = inputs.get(&graph.value(id).name).cloned();
            }
            values
        });
        Sweep { values: values.collect(), last }
    }

    fn step(
        &mut self,
        network: &FloatNetwork,
        binding: Binding,
        index: usize,
    ) -> Result<(), PruneError> {
        let evaluator = Evaluator::new(&network.graph, &network.weights, binding);
        let made =
            parallel(&self.values, |values| evaluator.node(index, values, Precision::default()))?;
        let node = &network.graph.nodes[index];
        for (values, made) in self.values.iter_mut().zip(made) {
            values[node.output.index()] = Some(made);
            for id in &node.inputs {
                if self.last[id.index()] == index {
                    values[id.index()] = None;
                }
            }
        }
        Ok(())
    }
}

/// Fits layers of `cut` in place, named by node. Both networks have the same graph.
///
/// # Errors
/// [`PruneError`] if a run fails.
pub fn refit(
    original: &FloatNetwork,
    cut: &mut FloatNetwork,
    layers: &BTreeMap<usize, Kept>,
    binding: Binding,
    pairs: &[Pair],
    progress: &mut dyn FnMut(&str),
) -> Result<(), PruneError> {
    let Some(&end) = layers.keys().last() else { return Ok(()) };
    let mut before =
        Sweep::new(&original.graph, &pairs.iter().map(|p| p.original).collect::<Vec<_>>());
    let mut after = Sweep::new(&cut.graph, &pairs.iter().map(|p| p.cut).collect::<Vec<_>>());
    for index in 0..=end {
        if let (Some(kept), Some(layer)) = (layers.get(&index), Layer::at(&original.graph, index)) {
            progress(&format!("fitting {}/{} again", original.graph.name, layer.name));
            let bias = |network: &FloatNetwork, layer: &Layer| {
                let name = layer.weight.bias.as_ref()?;
                Some(network.weight(name).data.clone())
            };
            let weights = &original.weight(&layer.weight.panels).data;
            let target =
                stacked(weights, bias(original, &layer).as_deref(), layer.n).mapv(|x| x as f32);
            let fit = Fit { layer: &layer, graph: &original.graph, binding, target };
            let [train, held] = fit.sums(&before.values, &after.values, pairs)?;
            if let Some(now) = Layer::at(&cut.graph, index) {
                let weights = &cut.weight(&now.weight.panels).data;
                let prior = stacked(weights, bias(cut, &now).as_deref(), now.n);
                let mut columns = kept.columns.clone();
                columns.push(layer.products());
                let mut fitted = train.fit_best(&held, &columns, &prior);
                for row in (0..layer.n).filter(|row| kept.rows.binary_search(row).is_err()) {
                    fitted.column_mut(row).fill(0.0);
                }
                let (weights, bias) = unstacked(&fitted);
                set_layer(cut, index, &weights, &bias);
            }
        }
        before.step(original, binding, index)?;
        after.step(cut, binding, index)?;
    }
    Ok(())
}

/// A layer whose sums are made.
struct Fit<'a> {
    layer: &'a Layer<'a>,
    graph: &'a Graph,
    binding: Binding,
    /// The weights as they were, `[products + 1, n]`.
    target: Array2<f32>,
}

impl Fit<'_> {
    /// Sums to fit on, and sums to judge on.
    fn sums(
        &self,
        before: &[Values],
        after: &[Values],
        pairs: &[Pair],
    ) -> Result<[Normal; 2], PruneError> {
        let (layer, node) = (self.layer, &self.graph.nodes[self.layer.node]);
        let out = bind_shape(&self.graph.value(node.output).shape, self.binding)?;
        let (k, n) = (layer.products() + 1, layer.n);
        let rows = out.iter().product::<usize>() / n;
        let rows_max = (ROWS_PER_COLUMN * k).div_ceil(before.len()).max(1);
        let operand = |values: &Values, index: usize| -> Option<Array> {
            values[node.inputs.get(index)?.index()].clone()
        };
        let stream = layer.epilogue.residual && layer.epilogue.activation.is_none();
        let part = before.len().div_ceil(PARTS).max(1);
        let chunks: Vec<usize> = (0..before.len()).step_by(part).collect();
        let parts = parallel(&chunks, |&start| {
            let mut sums = [Normal::new(k, n), Normal::new(k, n)];
            for sample in start..(start + part).min(before.len()) {
                let (b, a) = (&before[sample], &after[sample]);
                let (Some(was), Some(is)) = (operand(b, 0), operand(a, 0)) else { continue };
                let picked = pick(rows, rows_max, pairs[sample].tokens);
                let mut wanted = inputs(layer, &was, &out, &picked).dot(&self.target);
                if let (true, Some(was), Some(is)) = (stream, operand(b, 1), operand(a, 1)) {
                    for (mut into, &row) in wanted.rows_mut().into_iter().zip(&picked) {
                        let drift = was.values[row * n..].iter().zip(&is.values[row * n..]);
                        into.iter_mut().zip(drift).for_each(|(x, (was, is))| *x += was - is);
                    }
                }
                let held = usize::from(sample % HELD_EVERY == HELD_EVERY - 1);
                sums[held].add(&inputs(layer, &is, &out, &picked), &wanted);
            }
            sums.iter_mut().for_each(Normal::flush);
            Ok::<_, PruneError>(sums)
        })?;
        let mut sums = [Normal::new(k, n), Normal::new(k, n)];
        for part in &parts {
            sums.iter_mut().zip(part).for_each(|(sum, part)| sum.merge(part));
        }
        Ok(sums)
    }
}
