//! Which tasks depend on nothing that changes between runs: they are done once and their results kept.
//!
//! A denoiser is run many times for one prompt, and its cross-attention keys and values come from the text states
//! alone. Tasks are divided by dataflow from the inputs that the caller names as steady: a task that reads only
//! those, tensors of the pack and results of such tasks is a prologue task. Only what multiplies, and what leads to or comes from
//! that, is worth a region that lives across runs; cheap preparations (a mask, a table of positions) stay in the body.
//!
//! What depends on the timestep alone (its embedding) changes with every step of a schedule and comes again only with the
//! next picture. It is not kept: in Stable Diffusion's UNet it is below 0.01% of a step's multiply-adds.

use crate::graph::{Graph, ValueId};

use super::cost::task_macs;
use super::task::{Source, Tasks};

/// By task: true if it needs to run only when a steady input changes.
pub fn steady_tasks(graph: &Graph, tasks: &Tasks, steady: &[ValueId]) -> Vec<bool> {
    if steady.is_empty() {
        return vec![false; tasks.tasks.len()];
    }
    let mut still: Vec<bool> =
        tasks.sources.iter().map(|source| matches!(source, Source::Tensor(_))).collect();
    steady.iter().for_each(|id| still[id.index()] = true);
    let mut found = Vec::with_capacity(tasks.tasks.len());
    for task in &tasks.tasks {
        // An output lies where its reader looks for it after every run.
        let read_outside =
            graph.outputs.iter().any(|id| tasks.root(id.index()) == tasks.root(task.output));
        let steady = !read_outside && task.inputs.iter().all(|&slot| still[tasks.root(slot)]);
        still[task.output] = steady;
        found.push(steady);
    }
    worth(graph, tasks, &found)
}

/// By task: whether it is found and multiplies, or is before or behind a found task that does.
fn worth(graph: &Graph, tasks: &Tasks, found: &[bool]) -> Vec<bool> {
    let slots = tasks.layouts.len();
    let multiplies: Vec<bool> =
        tasks.tasks.iter().map(|task| task_macs(graph, tasks, task) > 0).collect();
    let (mut behind, mut before) = (vec![false; slots], vec![false; slots]);
    let mut works = vec![false; tasks.tasks.len()];
    for (index, task) in tasks.tasks.iter().enumerate().filter(|&(index, _)| found[index]) {
        works[index] =
            multiplies[index] || task.inputs.iter().any(|&slot| behind[tasks.root(slot)]);
        behind[tasks.root(task.output)] |= works[index];
    }
    for (index, task) in tasks.tasks.iter().enumerate().rev().filter(|&(index, _)| found[index]) {
        works[index] |= before[tasks.root(task.output)];
        if works[index] {
            task.inputs.iter().for_each(|&slot| before[tasks.root(slot)] = true);
        }
    }
    works
}

/// Moves the prologue before the body, each in its own order.
pub fn divide(tasks: &mut Tasks, steady: &[bool]) {
    let mut flags = steady.iter();
    let (prologue, body): (Vec<_>, Vec<_>) =
        std::mem::take(&mut tasks.tasks).into_iter().partition(|_| flags.next() == Some(&true));
    tasks.prologue = prologue.len();
    tasks.tasks = prologue;
    tasks.tasks.extend(body);
}
