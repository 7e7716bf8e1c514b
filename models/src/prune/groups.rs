//! What can be cut: hidden channels between products, heads of attentions, and whole branches where nothing else is left.

use std::collections::{BTreeMap, BTreeSet};

use plantain::graph::{Binding, DimError, Graph, Op, bind_shape};
use plantain::pack::panel::PANEL_OUTPUTS;

use super::channels::Channels;
use crate::quantise::Layer;

/// Channels that go together, as the products that read them see them.
#[derive(Clone, Debug, PartialEq)]
pub struct Unit {
    /// See [`Channels::class`].
    pub class: usize,
    /// For each consumer of its group: channels of its input.
    pub channels: Vec<Vec<usize>>,
}

/// Units that are interchangeable: made by the same products, read by the same products.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// Layers that read them, by node.
    pub consumers: Vec<usize>,
    /// At least two.
    pub units: Vec<Unit>,
    /// What may be kept, most first, in units: what fills whole panels, and nothing where the consumers can do without.
    pub kept: Vec<usize>,
}

/// Layers that make and read a unit.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Ports {
    /// Node, and how many channels of its input are the unit's.
    consumers: Vec<(usize, usize)>,
    producers: BTreeSet<usize>,
}

/// How many numbers of kept units are tried at most, evenly from all to none.
const LEVELS_MAX: usize = 8;

/// Finds what can be cut.
pub fn groups(graph: &Graph, channels: &Channels) -> Vec<Group> {
    let mut producers: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
    let mut consumers: BTreeMap<usize, BTreeMap<usize, Vec<usize>>> = BTreeMap::new();
    for layer in Layer::all(graph) {
        let node = &graph.nodes[layer.node];
        for channel in 0..channels.count(node.output) {
            if let Some(class) = channels.class(node.output, channel) {
                producers.entry(class).or_default().insert(layer.node);
            }
        }
        for channel in 0..channels.count(node.inputs[0]) {
            if let Some(class) = channels.class(node.inputs[0], channel) {
                let ports = consumers.entry(class).or_default();
                ports.entry(layer.node).or_default().push(channel);
            }
        }
    }
    let mut alike: BTreeMap<Ports, Vec<Unit>> = BTreeMap::new();
    for (class, channels) in consumers {
        let Some(producers) = producers.remove(&class) else { continue };
        let consumers = channels.iter().map(|(&node, channels)| (node, channels.len())).collect();
        let unit = Unit { class, channels: channels.into_values().collect() };
        alike.entry(Ports { consumers, producers }).or_default().push(unit);
    }
    let group = |(ports, units): (Ports, Vec<Unit>)| {
        let spare = ports.consumers.iter().all(|&(node, channels)| {
            Layer::at(graph, node)
                .is_some_and(|l| l.epilogue.residual && l.c == channels * units.len())
        });
        let size = ports.consumers.iter().map(|&(_, channels)| channels).max().unwrap_or(1);
        let kept = levels(units.len(), size, spare);
        Group { consumers: ports.consumers.into_iter().map(|(n, _)| n).collect(), units, kept }
    };
    let mut found: Vec<Group> = alike.into_iter().map(group).collect();
    found.retain(|group| !group.kept.is_empty());
    found.sort_by_key(|group| group.consumers.clone());
    found
}

/// Numbers of units to keep of `units` of `size` channels each, so that whole panels remain.
fn levels(units: usize, size: usize, spare: bool) -> Vec<usize> {
    let step = (1..=PANEL_OUTPUTS).find(|n| (n * size).is_multiple_of(PANEL_OUTPUTS)).unwrap_or(1);
    let mut kept: Vec<usize> = (1..=LEVELS_MAX)
        .map(|level| (units * (LEVELS_MAX - level)).div_ceil(LEVELS_MAX * step) * step)
        .map(|kept| if kept == 0 && !spare { step } else { kept })
        .filter(|&kept| kept < units)
        .collect();
    kept.dedup();
    kept
}

/// Multiply-adds of one run, counted by the channels that are kept of each value.
///
/// # Errors
/// [`DimError`] if a shape has no value under the binding.
pub fn macs(
    graph: &Graph,
    binding: Binding,
    channels: &Channels,
    removed: &BTreeSet<usize>,
) -> Result<u64, DimError> {
    let mut sum = 0;
    for node in &graph.nodes {
        let shape = bind_shape(&graph.value(node.output).shape, binding)?;
        let all = shape.last().copied().unwrap_or(1).max(1);
        let cells = (shape.iter().product::<usize>() / all) as u64;
        let kept = |id| match channels.count(id) {
            0 => all as u64,
            _ => channels.kept(id, removed).len() as u64,
        };
        let taps = |kernel: [u32; 2]| u64::from(kernel[0]) * u64::from(kernel[1]);
        sum += match &node.op {
            Op::MatmulF16 { .. } => cells * kept(node.output) * kept(node.inputs[0]),
            Op::ConvF16 { window, .. } => {
                cells * kept(node.output) * kept(node.inputs[0]) * taps(window.kernel)
            }
            Op::Depthwise { window, .. } => cells * kept(node.output) * taps(window.kernel),
            Op::Attention { .. } => {
                let keys = bind_shape(&graph.value(node.inputs[1]).shape, binding)?;
                2 * cells * kept(node.output) * keys.get(1).copied().unwrap_or(1) as u64
            }
            Op::BatchMatmul { .. } => {
                let a = bind_shape(&graph.value(node.inputs[0]).shape, binding)?;
                cells * all as u64 * a.last().copied().unwrap_or(1) as u64
            }
            _ => 0,
        };
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_fills_panels() {
        assert_eq!(levels(1536, 1, false), [1344, 1152, 960, 768, 576, 384, 192, 16]);
        assert_eq!(levels(64, 1, true), [48, 32, 16, 0]);
        assert_eq!(levels(12, 32, true), [11, 9, 8, 6, 5, 3, 2, 0]);
        assert_eq!(levels(32, 10, false), [24, 16, 8]);
        assert_eq!(levels(1, 32, true), [0]);
        assert!(levels(1, 32, false).is_empty() && levels(16, 1, false).is_empty());
    }
}
