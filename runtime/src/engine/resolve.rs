//! Tasks of a plan with every operand resolved, and which steps are worth sharing.

use std::ops::Range;

use crate::graph::{Fault, Graph, Node, Op, tensor_needs};
use crate::kernel::Kernels;
use crate::plan::{Pass, Plan, Residency, Storage, TaskStep, scratch, task_macs};

use super::EngineError;
use super::context::{Place, Portion, Stored, View, Work};
use super::weights::Weights;

/// Values of a step without products that one worker makes in about the time of a meeting.
const VALUES_ALONE: usize = 8 << 10;
/// How much longer a multiply-add takes in float than in int8, an order of magnitude.
const FLOAT_FACTOR: u64 = 8;

/// Whether a step takes one worker less time than all workers take to meet, before and after their shares. What is decided here
/// is no part of a result: shares never are.
pub(super) fn is_short(
    graph: &Graph,
    plan: &Plan,
    kernels: &Kernels,
    portions: &[Portion],
) -> bool {
    let work = |portion: &Portion| {
        let task = &plan.tasks.tasks[portion.work];
        let integer = matches!(
            (&graph.nodes[task.node].op, task.pass),
            (Op::MatmulI8 { .. } | Op::ConvI8 { .. }, _) | (Op::AttentionI8 { .. }, Pass::Attend)
        );
        let macs = portion.row_macs * portion.rows.len() as u64;
        let values = plan.tasks.layouts[task.output].row_len * portion.rows.len();
        [if integer { macs } else { macs * FLOAT_FACTOR }, values as u64]
    };
    let [macs, values] = portions
        .iter()
        .map(work)
        .fold([0, 0], |[macs, values], [more, further]| [macs + more, values + further]);
    macs <= kernels.gemm_i8.macs_alone && values <= VALUES_ALONE as u64
}

/// The rows of a step.
pub(super) fn portion(graph: &Graph, plan: &Plan, step: &TaskStep) -> Portion {
    let task = &plan.tasks.tasks[step.task];
    let macs = task_macs(graph, &plan.tasks, task);
    Portion {
        work: step.task,
        rows: step.rows.clone(),
        scratch: step.scratch.map_or(0, |buffer| plan.buffers[buffer].offset),
        row_macs: macs / plan.tasks.layouts[task.output].rows as u64,
        prepared: step.prepared,
    }
}

/// Where a tensor is while a task runs in some steps, that the pack holds in a range.
pub(super) fn stored(
    residency: Option<&Residency>,
    range: &Range<usize>,
    steps: &Range<usize>,
) -> Stored {
    let place = residency.and_then(|residency| residency.place(range, steps));
    Stored { streamed: place.is_some(), start: place.unwrap_or(range.start), bytes: range.len() }
}

/// A task with its operands' places; it runs in `steps`, and maybe not in all of them.
///
/// # Errors
/// [`EngineError::Tensor`] or [`EngineError::TensorBytes`] if the pack lacks what the graph names.
pub(super) fn work(
    graph: &Graph,
    plan: &Plan,
    weights: &dyn Weights,
    residency: Option<&Residency>,
    index: usize,
    steps: &Range<usize>,
) -> Result<Work, EngineError> {
    let task = &plan.tasks.tasks[index];
    let node = &graph.nodes[task.node];
    let find = |name: &str| {
        weights.find(name).ok_or_else(|| EngineError::Tensor {
            network: graph.name.clone(),
            node: node.name.clone(),
            tensor: name.to_owned(),
        })
    };
    let mut tensors: Vec<Stored> = Vec::new();
    for need in tensor_needs(graph, node).map_err(|fault| graph_error(graph, node, fault))? {
        let range = find(need.name)?;
        let expected = need.elements as usize * need.dtype.bytes();
        if range.len() != expected {
            return Err(EngineError::TensorBytes {
                network: graph.name.clone(),
                node: node.name.clone(),
                tensor: need.name.to_owned(),
                actual: range.len(),
                expected,
            });
        }
        tensors.push(stored(residency, &range, steps));
    }
    let view = |slot: usize| {
        let place = match &plan.storage[slot] {
            Storage::Arena { buffer, ring_rows } => {
                Place::Arena { offset: plan.buffers[*buffer].offset, ring_rows: *ring_rows }
            }
            Storage::Tensor(name) => Place::Pack(stored(residency, &find(name)?, steps)),
            Storage::None => unreachable!("a checked plan stores what its tasks touch"),
        };
        Ok(View { place, layout: plan.tasks.layouts[slot].clone() })
    };
    let x = node.inputs.first().map(|id| &plan.tasks.layouts[id.index()]);
    let number = match (&node.op, task.pass) {
        (Op::Slice { start, .. }, _) => {
            start.bind_index(plan.options.binding).map_err(|error| EngineError::Slice {
                network: graph.name.clone(),
                node: node.name.clone(),
                error,
            })?
        }
        (Op::GroupNorm { groups, .. }, Pass::Combine) => {
            x.map_or(0, |x| x.row_len / *groups as usize)
        }
        (Op::AttentionI8 { .. }, Pass::Attend) => {
            plan.tasks.layouts[node.inputs[1].index()].shape[1]
        }
        _ => 0,
    };
    Ok(Work {
        node: task.node,
        pass: task.pass,
        then: task.then,
        spares_keys: plan.padding.as_ref().is_some_and(|padding| padding.spares_keys(index)),
        inputs: task.inputs.iter().map(|&slot| view(slot)).collect::<Result<_, EngineError>>()?,
        output: view(task.output)?,
        tensors,
        worker_values: scratch::worker_values(graph, &plan.tasks, task),
        rounded_values: scratch::rounded_values(graph, &plan.tasks, task),
        number,
    })
}

/// A fault of a node.
pub(super) fn graph_error(graph: &Graph, node: &Node, fault: Fault) -> EngineError {
    EngineError::Graph { network: graph.name.clone(), node: node.name.clone(), fault }
}
