//! Which layers run in int8, with which input scale, and which stay f16; which attentions have int8 products.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use plantain::graph::{Binding, Graph, InputScale};

use super::attention::{self, AttentionChoice};
use super::calibrate::Runs;
use super::layer::Layer;
use super::weights::Int8Weights;
use super::{Options, QuantiseError};
use crate::evaluate::{Array, Evaluator, Int8Layer, Int8Layers, Precision, Values};
use crate::lower::FloatNetwork;
use crate::report::ErrorSums;

/// A layer alone may lose this much before it stays f16 whatever the network says.
const LAYER_SNR_DB_MIN: f64 = 12.0;
/// A calibrated scale is taken if it costs at most this much against scales by row: one scale is faster.
const STATIC_LOSS_DB_MAX: f64 = 0.5;
/// Shares of the largest value that are tried as the end of a calibrated range.
const STATIC_CLIPS: [f32; 5] = [1.0, 0.9, 0.8, 0.7, 0.6];
/// The most int8 products that one accumulator may sum, as the pack's reader states.
const PRODUCTS_MAX: usize = 65536;
/// Samples on which the effect of one layer on a network above [`MEASURED_WORK_MAX`] is measured; all below.
const SENSITIVITY_SAMPLES_MAX: usize = 2;
/// Products of one run below which the network is measured again after every layer that moves; above, what single
/// layers explain is trusted until it promises enough.
const MEASURED_WORK_MAX: f64 = 4e9;

/// A layer's fate.
#[derive(Clone, Debug)]
pub struct Choice {
    /// int8 weights and the scale of the input; `None` if it stays f16.
    pub int8: Option<(Int8Weights, InputScale)>,
    /// Why it stays f16.
    pub kept_f16: Option<String>,
    /// Error of the layer alone, on float inputs, without its residual.
    pub alone: ErrorSums,
    /// Signal to noise with a scale by row and, for convolutions, with a calibrated one.
    pub row_snr_db: f64,
    /// See `row_snr_db`.
    pub static_snr_db: Option<f64>,
}

/// Every decision about a network, by node.
#[derive(Clone, Debug, Default)]
pub struct Choices {
    /// Matmuls and convolutions.
    pub layers: BTreeMap<usize, Choice>,
    /// Attentions that could be int8.
    pub attentions: BTreeMap<usize, AttentionChoice>,
    /// What they cost together.
    pub measured: Measured,
}

/// Errors of a network under all its choices, values stored as their types say.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// Of the network's outputs.
    pub outputs: ErrorSums,
    /// Of each node's output.
    pub inside: BTreeMap<usize, ErrorSums>,
}

impl Choices {
    /// The attentions in int8.
    pub fn int8_attentions(&self) -> BTreeSet<usize> {
        let int8 = |(&node, choice): (&usize, &AttentionChoice)| choice.int8().then_some(node);
        self.attentions.iter().filter_map(int8).collect()
    }
}

/// The layers in int8, dequantised as the evaluator comes to them: a whole network in float may be gigabytes.
impl Int8Layers for Choices {
    fn layer(&self, node: usize) -> Option<Int8Layer<'_>> {
        let (weights, input) = self.layers.get(&node)?.int8.as_ref()?;
        Some(Int8Layer { weight: weights.dequantise().into(), input: *input })
    }
}

/// Decides for every layer and attention of a network.
///
/// # Errors
/// [`QuantiseError`]
pub fn choose(
    network: &FloatNetwork,
    binding: Binding,
    runs: &Runs,
    options: &Options,
) -> Result<Choices, QuantiseError> {
    let mut choices = Choices::default();
    for layer in Layer::all(&network.graph) {
        choices.layers.insert(layer.node, alone(network, binding, runs, &layer, options)?);
    }
    choices.attentions = attention::choose(network, binding, runs, options)?;
    choices.measured = measure(network, binding, runs, &choices)?;
    if choices.measured.outputs.snr_db() < options.snr_db_min {
        keep_worst(network, binding, runs, &mut choices, options)?;
    }
    Ok(choices)
}

/// Runs the network with these choices.
fn measure(
    network: &FloatNetwork,
    binding: Binding,
    runs: &Runs,
    choices: &Choices,
) -> Result<Measured, QuantiseError> {
    let attentions = choices.int8_attentions();
    let precision =
        Precision { int8: Some(choices), attentions: Some(&attentions), round_f16: true };
    let nodes: Vec<usize> = (0..network.graph.nodes.len()).collect();
    let evaluator = Evaluator::new(&network.graph, &network.weights, binding);
    let mut measured = Measured::default();
    for values in &runs.values {
        let found = evaluator.rerun(values, &nodes, precision, |node, found| {
            let output = network.graph.nodes[node].output;
            if let Some(reference) = &values[output.index()] {
                measured.inside.entry(node).or_default().add(&reference.values, &found.values);
            }
        })?;
        measured.outputs.merge(&outputs_error(&network.graph, values, &found));
    }
    Ok(measured)
}

fn outputs_error(graph: &Graph, reference: &Values, found: &[Array]) -> ErrorSums {
    let mut sums = ErrorSums::default();
    for (id, found) in graph.outputs.iter().zip(found) {
        if let Some(reference) = &reference[id.index()] {
            sums.add(&reference.values, &found.values);
        }
    }
    sums
}

fn alone(
    network: &FloatNetwork,
    binding: Binding,
    runs: &Runs,
    layer: &Layer,
    options: &Options,
) -> Result<Choice, QuantiseError> {
    let input = network.graph.nodes[layer.node].inputs[0];
    let weights = &network.weight(&layer.weight.panels).data;
    let weights = Int8Weights::quantise(weights, layer.n, &runs.energy(input, layer.c));
    let dequantised = weights.dequantise();
    let error = |scale: InputScale, samples: &[Values]| -> Result<ErrorSums, QuantiseError> {
        let int8 = Int8Layer { weight: Cow::Borrowed(&dequantised), input: scale };
        layer_error(network, binding, layer, int8, samples)
    };
    let row = error(InputScale::Row, &runs.values)?;
    let mut choice = Choice {
        int8: None,
        kept_f16: None,
        alone: row,
        row_snr_db: row.snr_db(),
        static_snr_db: None,
    };
    let mut scale = InputScale::Row;
    // One half of the samples finds the scale, the other half says what it costs; a single sample does both.
    let (found_on, judged_on) = match runs.values.as_slice() {
        [_] => (&runs.values[..], &runs.values[..]),
        values => values.split_at(values.len() / 2),
    };
    if layer.window.is_some() {
        let peak = runs.peak(input);
        let mut best: Option<(f64, f32)> = None;
        for clip in STATIC_CLIPS.into_iter().filter(|_| peak > 0.0) {
            let candidate = peak * clip / 127.0;
            let snr = error(InputScale::Static(candidate), found_on)?.snr_db();
            if best.is_none_or(|(most, _)| snr > most) {
                best = Some((snr, candidate));
            }
        }
        if let Some((_, candidate)) = best {
            let judged = error(InputScale::Static(candidate), judged_on)?;
            let by_row = error(InputScale::Row, judged_on)?;
            choice.static_snr_db = Some(judged.snr_db());
            if judged.snr_db() >= by_row.snr_db() - STATIC_LOSS_DB_MAX {
                scale = InputScale::Static(candidate);
                choice.alone = judged;
            }
        }
    }
    choice.kept_f16 = if let Some(pattern) = options.keeps(&network.graph.name, layer.name) {
        Some(format!("named by --keep-f16 {pattern}"))
    } else if layer.products() > PRODUCTS_MAX {
        let products = layer.products();
        Some(format!("{products} products of one output; int8 sums at most {PRODUCTS_MAX}"))
    } else if choice.alone.snr_db() < LAYER_SNR_DB_MIN {
        let snr = choice.alone.snr_db();
        Some(format!("alone at {snr:.1} dB, below {LAYER_SNR_DB_MIN} dB"))
    } else {
        choice.int8 = Some((weights, scale));
        None
    };
    Ok(choice)
}

/// Error of one layer on float inputs; its residual counts neither as signal nor as noise.
fn layer_error(
    network: &FloatNetwork,
    binding: Binding,
    layer: &Layer,
    int8: Int8Layer<'_>,
    samples: &[Values],
) -> Result<ErrorSums, QuantiseError> {
    let node = &network.graph.nodes[layer.node];
    let layers = BTreeMap::from([(layer.node, int8)]);
    let precision = Precision { int8: Some(&layers), ..Precision::default() };
    let evaluator = Evaluator::new(&network.graph, &network.weights, binding);
    let mut sums = ErrorSums::default();
    for values in samples {
        let mut found = evaluator.node(layer.node, values, precision)?.values;
        let Some(mut reference) = values[node.output.index()].clone() else { continue };
        if layer.epilogue.residual
            && let Some(residual) = &values[node.inputs[1].index()]
        {
            let take = |from: &mut [f32]| {
                from.iter_mut().zip(&residual.values).for_each(|(x, r)| *x -= r);
            };
            take(&mut found);
            take(&mut reference.values);
        }
        sums.add(&reference.values, &found);
    }
    Ok(sums)
}

/// Moves layers to f16 and attentions to float, most noise for the least work first, until the network's error is small
/// enough.
fn keep_worst(
    network: &FloatNetwork,
    binding: Binding,
    runs: &Runs,
    choices: &mut Choices,
    options: &Options,
) -> Result<(), QuantiseError> {
    let graph = &network.graph;
    let work = |layer: &Layer| -> f64 {
        let outputs = runs.of(graph.nodes[layer.node].output).next().map_or(0, |a| a.values.len());
        outputs as f64 * layer.products() as f64
    };
    let layers = Layer::all(graph);
    let attentions = choices.int8_attentions();
    let attention_work = |node: usize| attention::work(graph, runs, node);
    let total_work: f64 = layers.iter().map(work).sum::<f64>()
        + attentions.iter().map(|&node| attention_work(node)).sum::<f64>();
    let total_bytes: f64 = layers.iter().map(|layer| layer.len() as f64).sum();
    let evaluator = Evaluator::new(graph, &network.weights, binding);
    // An outlier that one prompt in ten meets must not be missed.
    let count = if total_work < MEASURED_WORK_MAX { usize::MAX } else { SENSITIVITY_SAMPLES_MAX };
    let noise_of = |node: usize, precision: Precision| -> Result<ErrorSums, QuantiseError> {
        let mut noise = ErrorSums::default();
        for values in runs.values.iter().take(count) {
            let found = evaluator.rerun(values, &[node], precision, |_, _| ())?;
            noise.merge(&outputs_error(graph, values, &found));
        }
        Ok(noise)
    };
    let mut ranked = Vec::new();
    for layer in &layers {
        let Some((weights, input)) = choices.layers[&layer.node].int8.as_ref() else { continue };
        let int8 = Int8Layer { weight: weights.dequantise().into(), input: *input };
        let one = BTreeMap::from([(layer.node, int8)]);
        let precision = Precision { int8: Some(&one), ..Precision::default() };
        let noise = noise_of(layer.node, precision)?;
        let share = (work(layer) / total_work).max(layer.len() as f64 / total_bytes);
        ranked.push((layer.node, noise, share));
    }
    for &node in &attentions {
        let one = BTreeSet::from([node]);
        let precision = Precision { attentions: Some(&one), ..Precision::default() };
        ranked.push((node, noise_of(node, precision)?, attention_work(node) / total_work));
    }
    ranked.sort_by(|a, b| (b.1.noise() / b.2).total_cmp(&(a.1.noise() / a.2)));
    // What single layers explain of the whole noise scales what is left without them.
    let mut share_sum = 0.0;
    let mut left: f64 = ranked.iter().map(|(_, noise, _)| noise.noise()).sum();
    let mut queue = ranked.into_iter().peekable();
    while choices.measured.outputs.snr_db() < options.snr_db_min && queue.peek().is_some() {
        let signal = choices.measured.outputs.signal();
        let allowed = signal / 10f64.powf(options.snr_db_min / 10.0);
        let mut kept_any = false;
        let mut estimate = choices.measured.outputs.noise();
        while let Some((node, noise, share)) = queue.peek().copied() {
            let measure_now = kept_any && total_work < MEASURED_WORK_MAX;
            if measure_now || estimate <= allowed || share_sum + share > options.f16_share_max {
                break;
            }
            queue.next();
            estimate *= 1.0 - (noise.noise() / left).min(1.0);
            left -= noise.noise();
            share_sum += share;
            kept_any = true;
            let reason = format!("alone it brings the network to {:.1} dB", noise.snr_db());
            if let Some(choice) = choices.layers.get_mut(&node) {
                choice.int8 = None;
                choice.kept_f16 = Some(reason);
            } else if let Some(choice) = choices.attentions.get_mut(&node) {
                choice.kept_float = Some(reason);
            }
        }
        if !kept_any {
            // The next one is too large for the share; a smaller one behind it may not be.
            queue.next();
            continue;
        }
        choices.measured = measure(network, binding, runs, choices)?;
    }
    Ok(())
}
