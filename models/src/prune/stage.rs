//! Who takes part in a picture, what is drawn to learn from, and what the fits of a network run on.

use std::collections::{BTreeMap, BTreeSet};

use plantain::graph::DimError;

use super::PruneError;
use super::channels::Channels;
use super::choose::Member;
use super::groups::groups;
use super::prompts;
use super::refit::{Kept, Pair, ROWS_PER_COLUMN};
use super::scene::{Run, Scene, Shot, Task};
use crate::chain::random_inputs;
use crate::lower::FloatNetwork;
use crate::quantise::Layer;

/// Multiply-adds that calibration draws at most.
const CALIBRATION_MACS_MAX: u64 = 600_000_000_000;
/// Pictures that it draws at least and at most.
const CALIBRATION_PICTURES: [u64; 2] = [16, 1000];
/// Pictures that the pruned model is judged by.
const HELD_PICTURES: usize = 32;
/// Samples that a network's fits have at least, if there are as many.
const SAMPLES_MIN: usize = 64;

/// Tasks to learn from, pictures first, and others to judge by: as many pictures as `picture_macs` allow.
///
/// # Errors
/// [`PruneError`] if a shape has no value.
pub fn tasks(
    scene: &Scene,
    networks: &[&FloatNetwork],
    prompts: &[String],
    picture_macs: u64,
) -> Result<[Vec<Task>; 2], PruneError> {
    let [least, most] = CALIBRATION_PICTURES;
    let count = (CALIBRATION_MACS_MAX / picture_macs.max(1)).clamp(least, most) as usize;
    if let Some(pipeline) = scene.pipeline {
        let found = prompts::requests(&pipeline.spec, prompts, count, HELD_PICTURES);
        let pictures = found.calibration.into_iter().map(Task::Picture);
        let held = found.held.into_iter().map(Task::Picture).collect();
        return Ok([pictures.chain(found.texts.into_iter().map(Task::Text)).collect(), held]);
    }
    let Some(network) = networks.first() else { return Ok([Vec::new(), Vec::new()]) };
    let make = |seed: usize| {
        let inputs = random_inputs(&network.graph, network.binding, seed as u64)?;
        Ok(Task::Network(network.binding, inputs))
    };
    let tasks: Vec<Task> = (0..count + HELD_PICTURES).map(make).collect::<Result<_, DimError>>()?;
    let (calibration, held) = tasks.split_at(count);
    Ok([calibration.to_vec(), held.to_vec()])
}

/// Networks with the sizes and the number of their runs.
pub fn members<'a>(networks: &[&'a FloatNetwork], shots: &[Shot]) -> Vec<Member<'a>> {
    let runs = shots.first().map_or(&[][..], |shot| &shot.runs);
    let member = |network: &&'a FloatNetwork| {
        let own = runs.iter().filter(|run| run.network == network.graph.name);
        Member {
            network,
            channels: Channels::of(&network.graph),
            binding: own.clone().next().map_or(network.binding, |run| run.binding),
            calls: own.count() as u64,
        }
    };
    networks.iter().map(member).collect()
}

/// Refuses a share that all groups together do not have.
///
/// # Errors
/// [`PruneError::OutOfReach`]
pub fn check_reach(members: &[Member], whole: u64, wanted: f64) -> Result<(), PruneError> {
    let mut left = 0;
    for member in members {
        let mut gone = BTreeSet::new();
        for group in groups(&member.network.graph, &member.channels) {
            let kept = group.kept.last().copied().unwrap_or(group.units.len());
            gone.extend(group.units.iter().skip(kept).map(|unit| unit.class));
        }
        left += member.macs(&gone)?;
    }
    let most = (whole - left) as f64 / whole.max(1) as f64;
    if most < wanted { Err(PruneError::OutOfReach { wanted, most }) } else { Ok(()) }
}

/// What is left of every layer without classes, by node; layers that nothing is left of are not named.
pub fn kept(member: &Member, gone: &BTreeSet<usize>) -> BTreeMap<usize, Kept> {
    let graph = &member.network.graph;
    let one = |layer: Layer| {
        let node = &graph.nodes[layer.node];
        let columns = member.channels.kept(node.inputs[0], gone);
        let taps = layer.products() / layer.c;
        let columns = (0..taps).flat_map(|tap| columns.iter().map(move |c| tap * layer.c + c));
        let kept =
            Kept { rows: member.channels.kept(node.output, gone), columns: columns.collect() };
        (!kept.rows.is_empty()).then_some((layer.node, kept))
    };
    Layer::all(graph).into_iter().filter_map(one).collect()
}

/// Indices of the shots that a network's fits run on, evenly chosen of those in which it runs.
///
/// # Errors
/// [`PruneError`] if a shape has no value.
pub fn samples(
    member: &Member,
    layers: &BTreeMap<usize, Kept>,
    shots: &[Shot],
) -> Result<Vec<usize>, PruneError> {
    let graph = &member.network.graph;
    let mut count = SAMPLES_MIN;
    for layer in layers.keys().filter_map(|&node| Layer::at(graph, node)) {
        let output = graph.nodes[layer.node].output;
        let out = member.network.shape(output, member.binding)?;
        let rows = out.iter().product::<usize>() / layer.n;
        count = count.max((ROWS_PER_COLUMN * layer.products()).div_ceil(rows.max(1)));
    }
    let runs = |shot: &Shot| shot.runs.iter().any(|run| run.network == graph.name);
    let own: Vec<usize> = (0..shots.len()).filter(|&index| runs(&shots[index])).collect();
    let count = count.min(own.len());
    Ok((0..count).map(|i| own[i * own.len() / count]).collect())
}

/// Runs of a network with both sides' inputs.
pub fn pairs<'a>(
    scene: &Scene,
    network: &str,
    before: &[&'a Shot],
    after: &[&'a Shot],
) -> Vec<Pair<'a>> {
    let runs = |shot: &'a Shot| -> Vec<&'a Run> {
        shot.runs.iter().filter(|run| run.network == network).collect()
    };
    let both = before.iter().zip(after).flat_map(|(b, a)| runs(b).into_iter().zip(runs(a)));
    both.map(|(b, a)| Pair {
        original: &b.inputs,
        cut: &a.inputs,
        tokens: scene.tokens(network, &b.inputs),
    })
    .collect()
}
