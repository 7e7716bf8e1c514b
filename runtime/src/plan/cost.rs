//! What a task costs: multiply-adds.

use crate::graph::{Graph, Op};

use super::task::{Pass, Task, Tasks};

/// Multiply-adds of matrix products, convolutions and attention in one run of a network.
pub fn macs(graph: &Graph, tasks: &Tasks) -> u64 {
    tasks.tasks.iter().map(|task| task_macs(graph, tasks, task)).sum()
}

/// Multiply-adds of one task; ops that work value by value count none.
pub fn task_macs(graph: &Graph, tasks: &Tasks, task: &Task) -> u64 {
    let output = &tasks.layouts[task.output];
    let values = output.len() as u64;
    let input = |index: usize| &tasks.layouts[task.inputs[index]];
    match task.pass {
        Pass::Whole => {}
        Pass::Attend => {
            let keys = graph.nodes[task.node].inputs[1].index();
            return 2 * values * tasks.layouts[keys].shape[1] as u64;
        }
        _ => return 0,
    }
    match &graph.nodes[task.node].op {
        Op::MatmulI8 { k, .. } | Op::MatmulF16 { k, .. } => values * u64::from(*k),
        Op::ConvI8 { c, window, .. } | Op::ConvF16 { c, window, .. } => {
            values * u64::from(*c) * u64::from(window.kernel[0]) * u64::from(window.kernel[1])
        }
        Op::Depthwise { window, .. } => {
            values * u64::from(window.kernel[0]) * u64::from(window.kernel[1])
        }
        // Scores and weighted sum: every output channel meets every key twice.
        Op::Attention { .. } => 2 * values * input(1).shape.get(1).copied().unwrap_or(1) as u64,
        Op::BatchMatmul { .. } => values * input(0).channels() as u64,
        _ => 0,
    }
}
