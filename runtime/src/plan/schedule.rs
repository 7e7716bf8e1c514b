//! From stages to steps: which rows of which task run when.
//!
//! A stage is one task on all of its rows, or a strip: a run of row-local tasks that a few rows at a time pass
//! through together. Rows are produced when they are first needed and never twice.

use std::ops::Range;

use crate::graph::Graph;

use super::need::Need;
use super::task::{Source, Tasks};
use super::{Step, TaskStep};

/// A part of the order of tasks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    /// One task, whole.
    Whole(usize),
    /// Consecutive tasks, `height` rows of the last one's result at a time.
    Strip {
        /// Of [`Tasks::tasks`].
        tasks: Range<usize>,
        /// Rows.
        height: usize,
    },
    /// Consecutive tasks that an accelerator may take.
    Segment(Range<usize>),
}

/// All tasks, each whole.
pub fn whole(tasks: &Tasks) -> Vec<Stage> {
    (0..tasks.tasks.len()).map(Stage::Whole).collect()
}

/// Expands stages; the second list has the steps of each.
pub fn steps(graph: &Graph, tasks: &Tasks, stages: &[Stage]) -> (Vec<Step>, Vec<Range<usize>>) {
    let (mut steps, mut spans) = (Vec::new(), Vec::new());
    for stage in stages {
        let start = steps.len();
        match stage {
            Stage::Whole(task) => steps.push(Step::Task(whole_step(tasks, *task))),
            Stage::Segment(range) => steps.push(Step::Segment {
                name: graph.nodes[tasks.tasks[range.start].node].name.clone(),
                steps: range.clone().map(|task| whole_step(tasks, task)).collect(),
            }),
            Stage::Strip { tasks: range, height } => {
                strip(graph, tasks, range.clone(), *height, &mut steps)
            }
        }
        spans.push(start..steps.len());
    }
    (steps, spans)
}

fn whole_step(tasks: &Tasks, task: usize) -> TaskStep {
    let rows = tasks.layouts[tasks.tasks[task].output].rows;
    TaskStep { task, rows: 0..rows, scratch: None, prepared: false }
}

/// Rolls a run of tasks: for each strip of the last result, every task catches up with what is needed.
fn strip(graph: &Graph, tasks: &Tasks, range: Range<usize>, height: usize, steps: &mut Vec<Step>) {
    let last = range.end - 1;
    let rows_of = |task: usize| tasks.layouts[tasks.tasks[task].output].rows;
    let mut done = vec![0usize; range.len()];
    let mut wanted = vec![0usize; range.len()];
    let mut reached = 0;
    while done.iter().zip(range.clone()).any(|(&done, task)| done < rows_of(task)) {
        reached = (reached + height).min(rows_of(last));
        wanted[last - range.start] = reached;
        if reached == rows_of(last) {
            // What nothing in the run reads to its end is finished with the last strip.
            for (wanted, task) in wanted.iter_mut().zip(range.clone()) {
                *wanted = rows_of(task);
            }
        }
        demand(graph, tasks, &range, &done, &mut wanted);
        for task in range.clone() {
            let (done, wanted) = (&mut done[task - range.start], wanted[task - range.start]);
            if wanted > *done {
                let rows = *done..wanted;
                steps.push(Step::Task(TaskStep { task, rows, scratch: None, prepared: false }));
                *done = wanted;
            }
        }
    }
}

/// Raises what every task of a run must have produced so that its readers can produce theirs.
fn demand(
    graph: &Graph,
    tasks: &Tasks,
    range: &Range<usize>,
    done: &[usize],
    wanted: &mut [usize],
) {
    for reader in range.clone().rev() {
        let rows = done[reader - range.start]..wanted[reader - range.start];
        if rows.is_empty() {
            continue;
        }
        let task = &tasks.tasks[reader];
        for index in 0..task.inputs.len() {
            let slot = task.inputs[index];
            let end = match tasks.need(graph, task, index, rows.clone()) {
                Need::Rows(rows) => rows.end * tasks.layouts[slot].row_len,
                Need::All => tasks.layouts[slot].len(),
            };
            let root = tasks.root(slot);
            for producer in range.start..reader {
                let output = tasks.tasks[producer].output;
                if tasks.root(output) == root {
                    let needed = end.div_ceil(tasks.layouts[output].row_len);
                    let wanted = &mut wanted[producer - range.start];
                    *wanted = (*wanted).max(needed);
                }
            }
        }
    }
}

/// The longest runs of tasks that can be rolled: every result is row-local, and no task needs the whole of
/// what the run makes.
pub fn runs(graph: &Graph, tasks: &Tasks) -> Vec<Range<usize>> {
    let mut runs = Vec::new();
    let mut start = 0;
    for reader in 0..tasks.tasks.len() {
        let task = &tasks.tasks[reader];
        let breaks = reader == tasks.prologue && reader > 0
            || (0..task.inputs.len()).any(|index| {
                let root = tasks.root(task.inputs[index]);
                let made_here =
                    tasks.tasks[start..reader].iter().any(|made| tasks.root(made.output) == root);
                made_here
                    && matches!(tasks.sources[root], Source::Computed)
                    && tasks.need(graph, task, index, 0..1) == Need::All
            });
        if breaks {
            runs.push(start..reader);
            start = reader;
        }
    }
    runs.push(start..tasks.tasks.len());
    runs.retain(|run| run.len() > 1);
    runs
}
