//! Who takes part in a picture, what is drawn to learn from, and what the fits of a network run on.

use std::collections::{BTreeMap, BTreeSet};

use plantain::graph::DimError;

use super::PruneError;
use super::channels::Channels;
use super::choose::Member;
use super::groups::groups;
use super::prompts;
use super::refit::{Pair, ROWS_PER_COLUMN};
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

/// Tasks to learn from and others to judge by: as many of the first as `picture_macs` allow.
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
        let requests = prompts::requests(&pipeline.spec, prompts, count, HELD_PICTURES);
        return Ok([requests.calibration, requests.held]
            .map(|requests| requests.into_iter().map(Task::Picture).collect()));
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

/// How many samples a network's fits need, of those that there are.
///
/// # Errors
/// [`PruneError`] if a shape has no value.
pub fn samples(
    member: &Member,
    layers: &BTreeMap<usize, Vec<usize>>,
    most: usize,
) -> Result<usize, PruneError> {
    let graph = &member.network.graph;
    let mut count = SAMPLES_MIN;
    for layer in layers.keys().filter_map(|&node| Layer::at(graph, node)) {
        let output = graph.nodes[layer.node].output;
        let out = member.network.shape(output, member.binding)?;
        let rows = out.iter().product::<usize>() / layer.n;
        count = count.max((ROWS_PER_COLUMN * layer.products()).div_ceil(rows.max(1)));
    }
    Ok(count.min(most))
}

/// Runs of a network with both sides' inputs.
pub fn pairs<'a>(
    scene: &Scene,
    network: &str,
    before: &[&'a Shot],
    after: &'a [Shot],
) -> Vec<Pair<'a>> {
    let runs = |shot: &'a Shot| -> Vec<&'a Run> {
        shot.runs.iter().filter(|run| run.network == network).collect()
    };
    let both =
        before.iter().copied().zip(after).flat_map(|(b, a)| runs(b).into_iter().zip(runs(a)));
    both.map(|(b, a)| Pair {
        original: &b.inputs,
        cut: &a.inputs,
        tokens: scene.tokens(network, &b.inputs),
    })
    .collect()
}
