//! The choice of plans for all networks of an engine inside one budget.
//!
//! Networks run in turn in one arena, so that memory is: the process, the arena of the hungriest network, and
//! weights. Weights of all networks stay in memory if that fits; else those of the network that runs; else only
//! a window on those of the steps that run, read from storage as they are needed. Smaller arenas (less scratch, strips) come
//! before streaming for a network that runs many times, after it for one that runs once; of the first one's weights, those
//! that there is room for stay until another network runs. What a network keeps over many runs ([`SteadyInputs`]) lies behind the arena; where that
//! would make its weights stream, or finds no room, it is computed every time.
//!
//! [`SteadyInputs`]: super::SteadyInputs

use std::ops::Range;
use std::sync::Arc;

use crate::graph::{Binding, Graph, Op, tensor_needs};
use crate::plan::{Plan, PlanRecipe, Residency, Storage, TaskStep, Use, task_macs};

use super::process::{MARGIN_BYTES, resident_bytes};
use super::search::{Candidate, Search};
use super::weights::Weights;
use super::{EngineError, EngineOptions};

/// How a network's weights are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Holding {
    /// Never let go.
    Resident,
    /// Let go when another network runs.
    Kept,
    /// Read into a window for the steps that need them, as far as there is no room for them to stay.
    Streamed,
}

/// What an engine takes, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct MemoryReport {
    /// The budget that was given.
    pub budget_bytes: Option<u64>,
    /// Code, heap, stacks as measured, and the margin beside them.
    pub process_bytes: u64,
    /// Kept for the caller.
    pub reserve_bytes: u64,
    /// The arena, with what is kept over many runs behind it.
    pub arena_bytes: u64,
    /// The most bytes of weights at one time.
    pub weight_bytes: u64,
    /// By network: how its weights are held, the most bytes of them at one time, bytes that a run reads.
    pub networks: Vec<NetworkMemory>,
}

/// One network's part of a [`MemoryReport`].
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct NetworkMemory {
    /// Its name.
    pub network: String,
    /// How its weights are held.
    pub holding: Holding,
    /// Bytes of its arena.
    pub arena_bytes: u64,
    /// Bytes that it keeps over many runs, beside the arena.
    pub kept_bytes: u64,
    /// Most bytes of weights at one time.
    pub held_bytes: u64,
    /// Bytes of all its weights.
    pub weight_bytes: u64,
    /// Bytes that each run reads from storage; those of the first one where weights are not streamed.
    pub read_bytes: u64,
    /// The same of a run whose steady inputs are those of the one before.
    pub later_read_bytes: u64,
}

impl MemoryReport {
    /// All together.
    pub fn total_bytes(&self) -> u64 {
        self.process_bytes + self.reserve_bytes + self.arena_bytes + self.weight_bytes
    }
}

/// A planned network.
pub struct Planned {
    /// The graph.
    pub graph: Arc<Graph>,
    /// Its plan.
    pub plan: Plan,
    /// How its weights are held.
    pub holding: Holding,
    /// What is read when, for streamed weights.
    pub residency: Option<Residency>,
    /// Runs of pages that hold its weights in the map.
    pub ranges: Vec<Range<usize>>,
}

/// Plans networks: the fastest that is within the budget.
///
/// # Errors
/// [`EngineError::Budget`] with the smallest budget that works.
pub fn plan_networks(
    weights: &dyn Weights,
    networks: &[(&Graph, Binding)],
    options: &EngineOptions,
) -> Result<(Vec<Planned>, MemoryReport), EngineError> {
    let process_bytes = match options.process_bytes {
        Some(bytes) => bytes,
        None => resident_bytes().unwrap_or(8 << 20) + MARGIN_BYTES,
    };
    let fixed = process_bytes + options.reserve_bytes;
    let limit = options.budget_bytes.unwrap_or(u64::MAX);
    let allowed = usize::try_from(limit.saturating_sub(fixed)).unwrap_or(usize::MAX);
    let mut search = Search::new(weights, networks, options, allowed);
    let mut choice = None;
    for recipe in 0..PlanRecipe::ALL.len() {
        search.extend(recipe, false)?;
        choice = search.choose();
        let streams = |choice: &Vec<Candidate>| choice.iter().any(Candidate::streams_often);
        if choice.as_ref().is_none_or(streams) && search.keeps() {
            search.extend(recipe, true)?;
            choice = search.choose();
        }
        if choice.is_some() {
            break;
        }
    }
    let Some(choice) = choice else {
        let needed = search.smallest();
        return Err(EngineError::Budget {
            budget_bytes: limit,
            needed_bytes: fixed + needed.0 as u64 + needed.1 as u64,
            process_bytes: fixed,
            arena_bytes: needed.0 as u64,
            weight_bytes: needed.1 as u64,
        });
    };
    search.build(&choice, process_bytes)
}

/// By step of a plan: what it reads of the pack.
pub(super) fn uses(
    weights: &dyn Weights,
    graph: &Graph,
    plan: &Plan,
) -> Result<Vec<Vec<Use>>, EngineError> {
    plan.steps
        .iter()
        .map(|step| {
            let mut uses = Vec::new();
            for TaskStep { task, rows: made, .. } in step.task_steps() {
                let task = &plan.tasks.tasks[*task];
                let node = &graph.nodes[task.node];
                let error = |tensor: &str| EngineError::Tensor {
                    network: graph.name.clone(),
                    node: node.name.clone(),
                    tensor: tensor.to_owned(),
                };
                let needs = tensor_needs(graph, node).map_err(|fault| EngineError::Graph {
                    network: graph.name.clone(),
                    node: node.name.clone(),
                    fault,
                })?;
                let rows = matches!(node.op, Op::Gather { .. })
                    .then(|| plan.tasks.layouts[task.output].rows);
                let share = made.len() as u64 * task_macs(graph, &plan.tasks, task);
                let macs = share / plan.tasks.layouts[task.output].rows.max(1) as u64;
                for need in needs {
                    let range = weights.find(need.name).ok_or_else(|| error(need.name))?;
                    uses.push(Use { range, rows, macs });
                }
                for &slot in &task.inputs {
                    if let Storage::Tensor(name) = &plan.storage[slot] {
                        let range = weights.find(name).ok_or_else(|| error(name))?;
                        uses.push(Use { range, rows: None, macs });
                    }
                }
            }
            Ok(uses)
        })
        .collect()
}
