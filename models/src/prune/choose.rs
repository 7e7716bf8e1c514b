//! How much of each group goes: what every level costs in the result, then the cheapest time first.

use std::collections::{BTreeMap, BTreeSet};

use super::PruneError;
use super::apply::{mask, set_layer};
use super::channels::Channels;
use super::eliminate::{Level, eliminate};
use super::groups::{Group, groups, macs};
use super::normal::{Normal, inputs, pick};
use super::refit::ROWS_PER_COLUMN;
use super::scene::{Scene, Shot, Task, parallel, squared_error};
use crate::evaluate::{Evaluator, Precision};
use crate::lower::FloatNetwork;
use crate::quantise::Layer;
use plantain::graph::{Binding, bind_shape};

/// A group of one network, its levels and what they cost.
pub struct Candidate {
    /// Index of its network.
    pub network: usize,
    /// Its units.
    pub group: Group,
    /// Fewer and fewer units.
    pub levels: Vec<Level>,
    /// Squared error of the results, by level.
    pub errors: Vec<f64>,
    /// What each level saves alone, in all runs on the way to a result: seconds, if its multiply-adds take as long as its
    /// network's do on the whole.
    pub saved: Vec<f64>,
}

impl Candidate {
    /// Classes that a level removes.
    pub fn removed(&self, level: usize) -> impl Iterator<Item = usize> + '_ {
        self.levels[level].removed.iter().map(|&unit| self.group.units[unit].class)
    }
}

/// A network that takes part, and how often it runs on the way to a result.
pub struct Member<'a> {
    /// Its float form.
    pub network: &'a FloatNetwork,
    /// Its channels.
    pub channels: Channels,
    /// Sizes.
    pub binding: Binding,
    /// Runs of one result.
    pub calls: u64,
}

impl Member<'_> {
    /// Multiply-adds on the way to one result.
    ///
    /// # Errors
    /// [`PruneError`] if a shape has no value.
    pub fn macs(&self, removed: &BTreeSet<usize>) -> Result<u64, PruneError> {
        let graph = &self.network.graph;
        Ok(self.calls * macs(graph, self.binding, &self.channels, removed)?)
    }
}

/// Finds every group of every network and the order in which its units go.
///
/// # Errors
/// [`PruneError`] if a run fails.
pub fn candidates(
    scene: &Scene,
    members: &[Member],
    shots: &[Shot],
    seconds: &BTreeMap<String, f64>,
    progress: &mut dyn FnMut(&str),
) -> Result<Vec<Candidate>, PruneError> {
    let mut candidates = Vec::new();
    for (index, member) in members.iter().enumerate() {
        let graph = &member.network.graph;
        let groups = groups(graph, &member.channels);
        progress(&format!("{}: {} groups of channels and heads", graph.name, groups.len()));
        let consumers: BTreeSet<usize> =
            groups.iter().flat_map(|group| group.consumers.iter().copied()).collect();
        let sums = sums(scene, member, &consumers, shots)?;
        let whole = member.macs(&BTreeSet::new())?;
        let worth = seconds
            .get(&graph.name)
            .map_or(1.0, |seconds| seconds * member.calls as f64 / whole.max(1) as f64);
        let found = parallel(&groups, |group| {
            let of = |node: &usize| {
                let known = sums.iter().find(|(index, _)| index == node);
                known.map(|(_, normal)| normal)
            };
            let normals: Vec<&Normal> = group.consumers.iter().filter_map(of).collect();
            let levels = eliminate(member.network, group, &normals);
            let mut candidate = Candidate {
                network: index,
                group: group.clone(),
                levels,
                errors: Vec::new(),
                saved: Vec::new(),
            };
            for level in 0..candidate.levels.len() {
                let left = member.macs(&candidate.removed(level).collect())?;
                candidate.saved.push((whole - left) as f64 * worth);
            }
            Ok::<_, PruneError>(candidate)
        })?;
        candidates.extend(found);
    }
    Ok(candidates)
}

/// Sums of squares of what layers read.
fn sums(
    scene: &Scene,
    member: &Member,
    consumers: &BTreeSet<usize>,
    shots: &[Shot],
) -> Result<Vec<(usize, Normal)>, PruneError> {
    let graph = &member.network.graph;
    let runs: Vec<_> =
        shots.iter().flat_map(|s| &s.runs).filter(|run| run.network == graph.name).collect();
    let layers: Vec<Layer> = consumers.iter().filter_map(|&node| Layer::at(graph, node)).collect();
    let mut shapes = Vec::new();
    let mut runs_needed = 64;
    for layer in &layers {
        let out = bind_shape(&graph.value(graph.nodes[layer.node].output).shape, member.binding)?;
        let (rows, k) = (out.iter().product::<usize>() / layer.n, layer.products() + 1);
        runs_needed = runs_needed.max((ROWS_PER_COLUMN * k).div_ceil(rows.max(1)));
        shapes.push((out, rows, k));
    }
    let count = runs.len().min(runs_needed);
    let runs: Vec<_> = (0..count).map(|i| runs[i * runs.len() / count]).collect();
    let evaluator = Evaluator::new(graph, &member.network.weights, member.binding);
    let part = runs.len().div_ceil(2).max(1);
    let parts: Vec<_> = runs.chunks(part).collect();
    let parts = parallel(&parts, |runs| {
        let mut sums: Vec<Normal> = shapes.iter().map(|(_, _, k)| Normal::new(*k, 0)).collect();
        for run in runs.iter() {
            let values = evaluator.run(&run.inputs, Precision::default())?;
            let tokens = scene.tokens(&graph.name, &run.inputs);
            for ((layer, sum), (out, rows, k)) in layers.iter().zip(&mut sums).zip(&shapes) {
                let x = &values[graph.nodes[layer.node].inputs[0].index()];
                let Some(x) = x else { continue };
                let rows = pick(*rows, (ROWS_PER_COLUMN * k).div_ceil(count).max(1), tokens);
                let read = inputs(layer, x, out, &rows);
                sum.add(&read, &ndarray::Array2::zeros((rows.len(), 0)));
            }
        }
        sums.iter_mut().for_each(Normal::flush);
        Ok::<_, PruneError>(sums)
    })?;
    let mut whole: Vec<(usize, Normal)> =
        layers.iter().zip(&shapes).map(|(l, (_, _, k))| (l.node, Normal::new(*k, 0))).collect();
    for part in parts {
        whole.iter_mut().zip(part).for_each(|((_, sum), part)| sum.merge(&part));
    }
    Ok(whole)
}

/// Measures what each level of each group costs in the results, everything else as it was.
///
/// # Errors
/// [`PruneError`] if a run fails.
pub fn judge(
    scene: &Scene,
    members: &[Member],
    candidates: &mut [Candidate],
    tasks: &[Task],
    known: &[Shot],
    progress: &mut dyn FnMut(&str),
) -> Result<(), PruneError> {
    let count = candidates.len();
    for (index, candidate) in candidates.iter_mut().enumerate() {
        let member = &members[candidate.network];
        let name = member.network.graph.name.as_str();
        let node = &member.network.graph.nodes[candidate.group.consumers[0]].name;
        let mut errors: Vec<f64> = Vec::new();
        for level in 0..candidate.levels.len() {
            let mut changed = member.network.clone();
            mask(&mut changed, &member.channels, &candidate.removed(level).collect());
            for (node, weights, bias) in &candidate.levels[level].weights {
                set_layer(&mut changed, *node, weights, bias);
            }
            let networks: Vec<&FloatNetwork> = members
                .iter()
                .enumerate()
                .map(|(i, m)| if i == candidate.network { &changed } else { m.network })
                .collect();
            let found = scene.shoot(&networks, tasks, known, Some(name))?;
            errors.push(squared_error(known, &found));
        }
        progress(&format!(
            "group {} of {count}, {name}/{node}: {}",
            index + 1,
            text(candidate, &errors)
        ));
        candidate.errors = errors;
    }
    Ok(())
}

fn text(candidate: &Candidate, errors: &[f64]) -> String {
    let one = |(kept, error): (&usize, &f64)| format!("{kept} left {error:.2}");
    let units = candidate.group.units.len();
    let levels: Vec<String> = candidate.group.kept.iter().zip(errors).map(one).collect();
    format!("{units} units, squared error with {}", levels.join(", "))
}

/// The levels that together save at least `wanted` multiply-adds and cost least, as far as costs add up: from none, always the
/// step whose time is cheapest. `None` for a group that stays whole. Leaves what is saved too.
///
/// # Errors
/// [`PruneError`] if a shape has no value.
pub fn choose(
    members: &[Member],
    candidates: &[Candidate],
    wanted: u64,
) -> Result<(Vec<Option<usize>>, u64), PruneError> {
    let mut levels: Vec<Option<usize>> = vec![None; candidates.len()];
    let whole: u64 = members.iter().map(|m| m.macs(&BTreeSet::new())).sum::<Result<_, _>>()?;
    loop {
        let mut left = 0;
        for (index, member) in members.iter().enumerate() {
            left += member.macs(&removed(candidates, &levels, index))?;
        }
        let saved = whole - left;
        let mut best: Option<(f64, usize, usize)> = None;
        for (index, (candidate, level)) in candidates.iter().zip(&levels).enumerate() {
            let at = level.map_or((0.0, 0.0), |l| (candidate.errors[l], candidate.saved[l]));
            for next in level.map_or(0, |l| l + 1)..candidate.errors.len() {
                let more = candidate.saved[next] - at.1;
                let price = (candidate.errors[next] - at.0).max(0.0) / more;
                if more > 0.0 && best.is_none_or(|(known, _, _)| price < known) {
                    best = Some((price, index, next));
                }
            }
        }
        match best {
            Some((_, index, next)) if saved < wanted => levels[index] = Some(next),
            _ => return Ok((levels, saved)),
        }
    }
}

/// Classes that chosen levels remove from a network.
pub fn removed(
    candidates: &[Candidate],
    levels: &[Option<usize>],
    network: usize,
) -> BTreeSet<usize> {
    let chosen = candidates.iter().zip(levels).filter(|(c, _)| c.network == network);
    chosen.filter_map(|(candidate, level)| Some(candidate.removed((*level)?))).flatten().collect()
}
