//! The search: strips where values outgrow a cache, operator order by live bytes, then smaller scratch, then strips of
//! fewer and fewer rows everywhere.

use std::ops::Range;

use crate::graph::{Graph, tensor_needs};

use super::layout::Layout;
use super::quantised;
use super::schedule::{Stage, runs, whole};
use super::scratch::SCRATCH_BYTES_FAST;
use super::task::{Source, Tasks};
use super::{Plan, PlanOptions};

/// A run is rolled for speed if one of its values is larger: it would leave the second-level cache before it is read.
const VALUE_BYTES_CACHED: usize = 2 << 20;
/// And if its weights are not, because every strip reads them again.
const WEIGHT_BYTES_CACHED: usize = 2 << 20;
/// Of the widest value of a strip that is made for speed: a few of them fit a second-level cache.
const STRIP_BYTES_CACHED: usize = 1 << 20;

/// Which runs of row-local tasks are rolled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strips {
    /// Those that are faster for it, as high as a cache allows.
    Cached,
    /// None.
    None,
    /// All, so many rows of the last result at a time.
    Height(usize),
}

/// One way to plan a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlanRecipe {
    /// Which runs of row-local tasks are rolled.
    pub strips: Strips,
    /// Bytes that a step's scratch is to stay below where it can.
    pub scratch_bytes: usize,
    /// Values that int8 products alone read are stored quantised.
    pub quantised: bool,
}

impl PlanRecipe {
    /// From the fastest to the smallest.
    pub const ALL: [PlanRecipe; 10] = [
        Self::new(Strips::Cached, SCRATCH_BYTES_FAST),
        Self::new(Strips::None, SCRATCH_BYTES_FAST),
        Self::new(Strips::None, SCRATCH_BYTES_FAST / 4),
        Self::new(Strips::None, SCRATCH_BYTES_FAST / 16),
        Self::new(Strips::Height(32), SCRATCH_BYTES_FAST / 2),
        Self::new(Strips::Height(16), SCRATCH_BYTES_FAST / 2),
        Self::new(Strips::Height(8), SCRATCH_BYTES_FAST / 4),
        Self::new(Strips::Height(4), SCRATCH_BYTES_FAST / 8),
        Self::new(Strips::Height(2), SCRATCH_BYTES_FAST / 16),
        Self::new(Strips::Height(1), 0),
    ];

    const fn new(strips: Strips, scratch_bytes: usize) -> Self {
        PlanRecipe { strips, scratch_bytes, quantised: true }
    }
}

/// The first plan whose arena is within the limit, from the fastest on; the smallest if none is.
pub fn search(graph: &Graph, tasks: &Tasks, options: &PlanOptions) -> Plan {
    let mut best: Option<Plan> = None;
    for recipe in PlanRecipe::ALL {
        let plan = cook(graph, tasks, options, recipe);
        if best.as_ref().is_none_or(|best| plan.arena_bytes < best.arena_bytes) {
            best = Some(plan);
        }
        if best.as_ref().is_some_and(|best| best.arena_bytes <= options.arena_bytes_max) {
            break;
        }
    }
    best.unwrap_or_else(|| cook(graph, tasks, options, PlanRecipe::ALL[0]))
}

/// The smaller of the plans that the orders of tasks give.
pub fn cook(graph: &Graph, tasks: &Tasks, options: &PlanOptions, recipe: PlanRecipe) -> Plan {
    let plan = |tasks: Tasks| {
        let stages = match recipe.strips {
            Strips::Cached => strips(graph, &tasks, |run| cached_height(graph, &tasks, run)),
            Strips::None => whole(&tasks),
            Strips::Height(height) => strips(graph, &tasks, |_| Some(height)),
        };
        let stages = segmented(&tasks, options, stages);
        Plan::of_stages(graph, tasks, &stages, options, recipe.scratch_bytes)
    };
    let mut tasks = tasks.clone();
    // What is handed over together may go to an accelerator, which takes floats.
    if recipe.quantised && options.segments.is_empty() {
        quantised::mark(graph, &mut tasks);
    }
    let other = reordered(graph, &tasks, options).map(plan);
    let own = plan(tasks);
    match other {
        Some(other) if other.arena_bytes < own.arena_bytes => other,
        _ => own,
    }
}

/// The height of a run's strips that is fastest; nothing if that is the whole.
fn cached_height(graph: &Graph, tasks: &Tasks, run: &Range<usize>) -> Option<usize> {
    let made = || tasks.tasks[run.clone()].iter().map(|task| &tasks.layouts[task.output]);
    let widest = made().map(Layout::bytes).max()?;
    let mut weights: Vec<_> = tasks.tasks[run.clone()]
        .iter()
        .filter_map(|task| tensor_needs(graph, &graph.nodes[task.node]).ok())
        .flatten()
        .collect();
    // The passes of a norm share theirs.
    weights.sort_by_key(|need| need.name);
    weights.dedup_by_key(|need| need.name);
    let weight_bytes: usize =
        weights.iter().map(|need| need.elements as usize * need.dtype.bytes()).sum();
    if widest <= VALUE_BYTES_CACHED || weight_bytes > WEIGHT_BYTES_CACHED {
        return None;
    }
    let rows = made().next_back()?.rows;
    let height = STRIP_BYTES_CACHED * rows / widest;
    // Whole tiles of a product where rows are tokens.
    Some(if height > 64 { height / 32 * 32 } else { height.max(1) })
}

/// Rolls the runs that have a height, so many rows of their last result at a time.
pub fn strips(
    graph: &Graph,
    tasks: &Tasks,
    height: impl Fn(&Range<usize>) -> Option<usize>,
) -> Vec<Stage> {
    let mut stages = Vec::new();
    let mut next = 0;
    for run in runs(graph, tasks) {
        let Some(height) = height(&run) else { continue };
        stages.extend((next..run.start).map(Stage::Whole));
        next = run.end;
        stages.push(Stage::Strip { tasks: run, height });
    }
    stages.extend((next..tasks.tasks.len()).map(Stage::Whole));
    stages
}

/// Replaces the stages of nodes that a segment holds by that segment, where their tasks lie together.
fn segmented(tasks: &Tasks, options: &PlanOptions, stages: Vec<Stage>) -> Vec<Stage> {
    if options.segments.is_empty() {
        return stages;
    }
    // Segments are asked for by node; strips that meet one are taken apart.
    let segment_of = |task: usize| {
        options.segments.iter().position(|nodes| nodes.contains(&tasks.tasks[task].node))
    };
    let mut out: Vec<Stage> = Vec::new();
    for task in stages.into_iter().flat_map(|stage| match stage {
        Stage::Whole(task) => task..task + 1,
        Stage::Strip { tasks, .. } | Stage::Segment(tasks) => tasks,
    }) {
        match (segment_of(task), out.last_mut()) {
            (Some(segment), Some(Stage::Segment(range)))
                if segment_of(range.start) == Some(segment)
                    && range.end == task
                    && task != tasks.prologue =>
            {
                range.end = task + 1;
            }
            (Some(_), _) => out.push(Stage::Segment(task..task + 1)),
            (None, _) => out.push(Stage::Whole(task)),
        }
    }
    out
}

/// The tasks in the order that a greedy choice by live bytes gives, unless it is their own or there are segments.
fn reordered(graph: &Graph, tasks: &Tasks, options: &PlanOptions) -> Option<Tasks> {
    if !options.segments.is_empty() {
        return None;
    }
    let order = greedy(graph, tasks);
    let differs = order.iter().enumerate().any(|(position, &task)| position != task);
    differs.then(|| {
        let mut other = tasks.clone();
        other.tasks = order.iter().map(|&task| tasks.tasks[task].clone()).collect();
        other
    })
}

/// Always runs the task that leaves the fewest bytes alive.
fn greedy(graph: &Graph, tasks: &Tasks) -> Vec<usize> {
    let count = tasks.tasks.len();
    let mut readers = vec![0usize; tasks.layouts.len()];
    let mut maker: Vec<Option<usize>> = vec![None; tasks.layouts.len()];
    for (index, task) in tasks.tasks.iter().enumerate() {
        for root in roots(tasks, &task.inputs) {
            readers[root] += 1;
        }
        maker[tasks.root(task.output)] = Some(index);
    }
    for id in &graph.outputs {
        readers[tasks.root(id.index())] += 1;
    }
    let mut done = vec![false; count];
    let mut order = Vec::with_capacity(count);
    while order.len() < count {
        let ready = (0..count).filter(|&index| {
            !done[index]
                && (index < tasks.prologue || order.len() >= tasks.prologue)
                && tasks.tasks[index]
                    .inputs
                    .iter()
                    .all(|&slot| maker[tasks.root(slot)].is_none_or(|maker| done[maker]))
        });
        let growth = |index: usize| {
            let task = &tasks.tasks[index];
            let freed: usize = roots(tasks, &task.inputs)
                .filter(|&root| readers[root] == 1 && tasks.sources[root] == Source::Computed)
                .map(|root| tasks.layouts[root].bytes())
                .sum();
            tasks.layouts[task.output].bytes() as i64 - freed as i64
        };
        // A graph is in a runnable order, so that something is always ready.
        let Some(next) = ready.min_by_key(|&index| (growth(index), index)) else { break };
        for root in roots(tasks, &tasks.tasks[next].inputs) {
            readers[root] -= 1;
        }
        done[next] = true;
        order.push(next);
    }
    order
}

/// The distinct slots that hold the bytes of some slots.
fn roots<'a>(tasks: &'a Tasks, slots: &'a [usize]) -> impl Iterator<Item = usize> + 'a {
    slots.iter().enumerate().filter_map(|(index, &slot)| {
        let root = tasks.root(slot);
        let seen = slots[..index].iter().any(|&other| tasks.root(other) == root);
        (!seen).then_some(root)
    })
}
