//! Structured pruning: whole channels, heads and branches leave a model's float networks before they are quantised.
//!
//! Enters: networks, prompts, a share of the multiply-adds. Leaves: smaller networks that draw nearly the same, and what was
//! removed. Never: int8, files, names of layers: what may go is read from the ops.
//!
//! `channels` joins what must go together, `groups` names what can be cut, `eliminate` puts units in order and says what is
//! left of the weights that read them, `choose` measures on pictures what each level costs and takes the cheapest
//! time, `refit` fits all layers anew on many prompts, `apply` cuts, `measure` compares the packed models. `scene`,
//! `stage` and `prompts` are what is drawn meanwhile; `normal` and `solve` the algebra.

mod apply;
mod channels;
mod choose;
mod eliminate;
mod groups;
mod measure;
mod normal;
mod prompts;
mod refit;
mod scene;
mod solve;
mod stage;

use std::collections::{BTreeMap, BTreeSet};

use plantain::graph::DimError;
use plantain::pack::PrunedPart;

pub use measure::{compare, seconds};
pub use scene::Task;

use choose::{Candidate, Member, choose, removed};
use refit::refit;
use scene::{Scene, Shot};
use stage::{check_reach, kept, members, pairs, samples, tasks};

use crate::chain::ChainError;
use crate::evaluate::EvaluateError;
use crate::lower::FloatNetwork;
use crate::packing::Model;

/// Pictures on which every level of every group is tried.
const TRIAL_PICTURES: usize = 10;
/// The network that a picture of the usual size does without.
const SPARE_NETWORK: &str = "enlarger";
/// The network that may be left out where what it reads is all that matters.
const LAST_NETWORK: &str = "refiner";

/// What may be chosen about pruning.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Share of the multiply-adds of one picture that goes, above 0 and below 1.
    pub share: f64,
    /// How close pruned pictures must be to the others: the median of their peak signal to noise ratios. For a lone network:
    /// of its outputs' signal to noise ratios.
    pub db_min: f64,
}

impl Options {
    /// The closeness that is asked for where nobody says another.
    pub const DB_MIN: f64 = 24.0;
}

/// Why nothing was pruned.
#[derive(Debug, thiserror::Error)]
pub enum PruneError {
    /// A share that is none.
    #[error(
        "the share to prune is {0} but must be above 0 and below 1; 0.3 removes three tenths of the multiply-adds"
    )]
    Share(f64),
    /// More than there is.
    #[error(
        "{wanted:.3} of the multiply-adds are to be pruned but hidden channels, heads and branches are {most:.3} of them; ask for less"
    )]
    OutOfReach {
        /// Share.
        wanted: f64,
        /// Share.
        most: f64,
    },
    /// Nothing is gained.
    #[error(
        "pruned by {share:.3} it takes {after_ms:.2} ms where it took {before_ms:.2} ms, which saves nothing worth the loss; prune more, or not at all"
    )]
    NoFaster {
        /// Share.
        share: f64,
        /// Milliseconds.
        before_ms: f64,
        /// Milliseconds.
        after_ms: f64,
    },
    /// Too much is lost.
    #[error(
        "pruned by {share:.3} its results are at {found:.1} dB of the unpruned ones, below {least:.1} dB; prune less, or lower db_min under [prune] of the recipe"
    )]
    Quality {
        /// Share.
        share: f64,
        /// Decibels.
        found: f64,
        /// Decibels.
        least: f64,
    },
    /// A float run.
    #[error(transparent)]
    Evaluate(#[from] EvaluateError),
    /// A picture.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// A dimension has no value.
    #[error(transparent)]
    Dim(#[from] DimError),
}

/// What was pruned.
#[derive(Clone, Debug)]
pub struct Pruned {
    /// Multiply-adds of one picture, before and after.
    pub macs: [u64; 2],
    /// What is left of each group that lost something.
    pub parts: Vec<PrunedPart>,
    /// What the model is judged by.
    pub held: Vec<Task>,
}

/// Refuses, with little work, what no pruning of a model can reach.
///
/// # Errors
/// [`PruneError::Share`], [`PruneError::OutOfReach`], or what a run says.
pub fn check(model: &Model, prompts: &[String], options: &Options) -> Result<(), PruneError> {
    let taking: Vec<&FloatNetwork> = model.networks.iter().filter(|n| takes_part(n)).collect();
    look(&Scene::new(model.pipeline.as_ref()), &taking, prompts, options).map(drop)
}

fn takes_part(network: &FloatNetwork) -> bool {
    network.graph.name != SPARE_NETWORK
}

/// Draws one picture, which says how often each network runs, and checks the share. Leaves the networks with their sizes, and all
/// multiply-adds.
fn look<'a>(
    scene: &Scene,
    networks: &[&'a FloatNetwork],
    prompts: &[String],
    options: &Options,
) -> Result<(Vec<Member<'a>>, u64), PruneError> {
    if !(options.share > 0.0 && options.share < 1.0) {
        return Err(PruneError::Share(options.share));
    }
    let [mut first, _] = tasks(scene, networks, prompts, u64::MAX)?;
    first.truncate(1);
    let members = members(networks, &scene.shoot(networks, &first, &[], None)?);
    let whole: u64 = members.iter().map(|m| m.macs(&BTreeSet::new())).sum::<Result<_, _>>()?;
    check_reach(&members, whole, options.share)?;
    Ok((members, whole))
}

/// Prunes a model in place. `seconds` of one run of each network, by name, say what its multiply-adds are worth; those of networks
/// without are worth the same.
///
/// # Errors
/// [`PruneError`], in one sentence; the model is as it was then.
pub fn prune(
    model: &mut Model,
    prompts: &[String],
    options: &Options,
    seconds: &BTreeMap<String, f64>,
    progress: &mut dyn FnMut(&str),
) -> Result<Pruned, PruneError> {
    let Model { networks, pipeline, .. } = model;
    let scene = Scene::new(pipeline.as_ref());
    let mut taking: Vec<&mut FloatNetwork> =
        networks.iter_mut().filter(|network| takes_part(network)).collect();
    let originals: Vec<FloatNetwork> = taking.iter().map(|network| (**network).clone()).collect();
    let originals: Vec<&FloatNetwork> = originals.iter().collect();
    let (members, whole) = look(&scene, &originals, prompts, options)?;
    let wanted = (options.share * whole as f64).ceil() as u64;
    let [calibration, held] = tasks(&scene, &originals, prompts, whole)?;
    let drawn = calibration.iter().filter(|task| !matches!(task, Task::Text(_))).count();
    let texts = calibration.len() - drawn;
    progress(&format!("pruning: drawing {drawn} pictures in float, encoding {texts} texts"));
    let shots = scene.shoot(&originals, &calibration, &[], None)?;
    let mut candidates = choose::candidates(&scene, &members, &shots, seconds, progress)?;
    let trials = drawn.min(TRIAL_PICTURES);
    let trial = |i: usize| i * drawn / trials;
    let tried: Vec<Task> = (0..trials).map(|i| calibration[trial(i)].clone()).collect();
    let known: Vec<Shot> = (0..trials).map(|i| shots[trial(i)].clone()).collect();
    choose::judge(&scene, &members, &mut candidates, &tried, &known, progress)?;
    let (levels, saved) = choose(&members, &candidates, wanted)?;
    let mut now: Vec<FloatNetwork> = originals.iter().map(|network| (*network).clone()).collect();
    let mut moved = false;
    for (index, member) in members.iter().enumerate() {
        let gone = removed(&candidates, &levels, index);
        for (candidate, level) in of_network(&candidates, &levels, index) {
            for (node, weights, bias) in &candidate.levels[level].weights {
                apply::set_layer(&mut now[index], *node, weights, bias);
            }
        }
        // Last, because groups may share a reader, and each one's weights have the other's columns.
        apply::mask(&mut now[index], &member.channels, &gone);
        if gone.is_empty() && !moved {
            continue;
        }
        let layers = kept(member, &gone);
        let own = samples(member, &layers, &shots)?;
        let before: Vec<&Shot> = own.iter().map(|&i| &shots[i]).collect();
        let again;
        let after: Vec<&Shot> = if moved {
            let tasks: Vec<Task> = own.iter().map(|&i| calibration[i].clone()).collect();
            // The network itself is still the original here, and so is what comes after it, as far as a picture needs it.
            let side = |i: usize| if i < index { &now[i] } else { originals[i] };
            let needed = |i: &usize| *i <= index || originals[*i].graph.name != LAST_NETWORK;
            let networks: Vec<&FloatNetwork> = (0..now.len()).filter(needed).map(side).collect();
            again = scene.shoot(&networks, &tasks, &[], None)?;
            again.iter().collect()
        } else {
            before.clone()
        };
        let pairs = pairs(&scene, &member.network.graph.name, &before, &after);
        refit(member.network, &mut now[index], &layers, member.binding, &pairs, progress)?;
        moved = true;
    }
    let mut parts = Vec::new();
    for (index, member) in members.iter().enumerate() {
        let gone = removed(&candidates, &levels, index);
        for (candidate, level) in of_network(&candidates, &levels, index) {
            let node = &member.network.graph.nodes[candidate.group.consumers[0]];
            parts.push(PrunedPart {
                network: member.network.graph.name.clone(),
                node: node.name.clone(),
                kept: candidate.group.kept[level] as u32,
                of: candidate.group.units.len() as u32,
            });
        }
        *taking[index] = apply::cut(&now[index], &member.channels, &gone);
    }
    Ok(Pruned { macs: [whole, whole - saved], parts, held })
}

fn of_network<'a>(
    candidates: &'a [Candidate],
    levels: &'a [Option<usize>],
    network: usize,
) -> impl Iterator<Item = (&'a Candidate, usize)> {
    let chosen = candidates.iter().zip(levels).filter(move |(c, _)| c.network == network);
    chosen.filter_map(|(candidate, level)| Some((candidate, (*level)?)))
}

#[cfg(test)]
mod tests;
