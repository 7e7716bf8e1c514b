//! The quantised model with and without pruning, side by side: seconds, bytes, likeness.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use plantain::graph::Graph;
use plantain::pack::PruningReport;
use plantain::pipeline::cpu_time;

use super::scene::{Outcome, chain};
use super::{Options, PruneError, Pruned, SPARE_NETWORK};
use crate::chain::{ChainError, EngineRun, NetworkRun};
use crate::packing::{Pipeline, memory_weights};
use crate::quantise::{Quantised, Samples};
use crate::report::{ErrorSums, median, psnr_db};

/// At most this share of the time must be left, or pruning is refused.
const SECONDS_SHARE_MAX: f64 = 0.98;
/// Decibels of results that are equal.
const DB_MAX: f64 = 99.0;

/// Runs of a network whose median counts.
const RUNS: usize = 9;

/// Processor seconds of one run of each quantised network, by name, with the engine on one thread.
///
/// # Errors
/// [`PruneError`] if a run fails.
pub fn seconds(
    quantised: &[Quantised],
    samples: &[Samples],
) -> Result<BTreeMap<String, f64>, PruneError> {
    let graphs: Vec<Graph> = quantised.iter().map(|network| network.graph.clone()).collect();
    let engine = EngineRun::new(Arc::new(memory_weights(quantised)), &graphs, 1);
    let clock = Instant::now();
    let mut found = BTreeMap::new();
    for (graph, samples) in graphs.iter().zip(samples) {
        let Some(inputs) = samples.inputs.first() else { continue };
        let network = graph.name.clone();
        let mut all = Vec::new();
        // The first loads the engine.
        for run in 0..=RUNS {
            let start = seconds_now(clock);
            engine
                .run(&network, samples.binding, inputs)
                .map_err(|source| ChainError::Network { network: network.clone(), source })?;
            all.extend((run > 0).then(|| seconds_now(clock) - start));
        }
        found.insert(network, median(&all).unwrap_or(0.0));
    }
    Ok(found)
}

/// Draws everything that pruning is judged by with both, in turns, with the engine on one thread.
///
/// # Errors
/// [`PruneError`] if a run fails, if nothing is faster, or if the results are less alike than `options` allow.
pub fn compare(
    pipeline: Option<&Pipeline>,
    sides: [&[Quantised]; 2],
    pruned: &Pruned,
    options: &Options,
    progress: &mut dyn FnMut(&str),
) -> Result<PruningReport, PruneError> {
    let graphs = sides.map(|side| -> Vec<Graph> {
        let taking = side.iter().filter(|network| network.graph.name != SPARE_NETWORK);
        taking.map(|network| network.graph.clone()).collect()
    });
    let engines = [0, 1].map(|i| EngineRun::new(Arc::new(memory_weights(sides[i])), &graphs[i], 1));
    let chains = [chain(pipeline, &engines[0])?, chain(pipeline, &engines[1])?];
    let lone = graphs[0].first().map_or("", |graph| &graph.name);
    let clock = Instant::now();
    let mut seconds: [Vec<f64>; 2] = Default::default();
    let mut likeness = Vec::new();
    progress(&format!("pruning: drawing {} pictures with and without", pruned.held.len()));
    // The first is not counted: engines are loaded by it.
    let tasks = pruned.held.iter().take(1).chain(&pruned.held).enumerate();
    for (index, task) in tasks {
        let mut results: [Option<Outcome>; 2] = [None, None];
        for side in if index % 2 == 0 { [0, 1] } else { [1, 0] } {
            let start = seconds_now(clock);
            let result = task.run(chains[side].as_ref(), &engines[side], lone)?;
            if index > 0 {
                seconds[side].push(seconds_now(clock) - start);
            }
            results[side] = Some(result);
        }
        if let ([Some(before), Some(after)], true) = (results, index > 0) {
            likeness.push(before.likeness_db(&after));
        }
    }
    let [before, after] = seconds.map(|all| median(&all).unwrap_or(0.0));
    let share = 1.0 - pruned.macs[1] as f64 / pruned.macs[0].max(1) as f64;
    let found = median(&likeness).unwrap_or(DB_MAX);
    verdict([before, after], found, share, options.db_min)?;
    let bytes = sides.map(|side| {
        let tensors = side.iter().flat_map(|network| &network.tensors);
        tensors.map(|tensor| tensor.data.bytes() as u64).sum()
    });
    Ok(PruningReport {
        macs: pruned.macs,
        bytes,
        seconds: [before as f32, after as f32],
        pictures: likeness.len() as u32,
        db_median: found as f32,
        db_min: likeness.iter().copied().fold(DB_MAX, f64::min) as f32,
        parts: pruned.parts.clone(),
    })
}

/// Of processor time, which other programs do not add to; of the clock where the system does not tell.
fn seconds_now(clock: Instant) -> f64 {
    cpu_time().unwrap_or_else(|| clock.elapsed()).as_secs_f64()
}

/// Refuses what is not worth it.
pub(super) fn verdict(
    [before, after]: [f64; 2],
    found: f64,
    share: f64,
    least: f64,
) -> Result<(), PruneError> {
    if after > SECONDS_SHARE_MAX * before {
        let [before_ms, after_ms] = [before * 1e3, after * 1e3];
        return Err(PruneError::NoFaster { share, before_ms, after_ms });
    }
    if found < least {
        return Err(PruneError::Quality { share, found, least });
    }
    Ok(())
}

impl Outcome {
    fn likeness_db(&self, other: &Outcome) -> f64 {
        let db = match (self, other) {
            (Outcome::Picture(a), Outcome::Picture(b)) => psnr_db(a, b),
            (Outcome::Values(a), Outcome::Values(b)) => ErrorSums::of(a, b).snr_db(),
            _ => 0.0,
        };
        db.min(DB_MAX)
    }
}
