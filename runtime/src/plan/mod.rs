//! The plan: what this device will do for one network, and where every byte lies.
//!
//! Enters: a graph, a binding of its free dimensions, a thread count, a limit on the arena. Leaves: a
//! [`Plan`]: steps in order, a region for every value and scratch, what each step reads of the pack. Never: a
//! value, an address, a system call. [`check`] proves a plan before an engine runs it.

pub mod check;
mod cost;
mod layout;
mod lifetime;
mod need;
mod order;
mod padding;
mod place;
mod prepared;
mod quantised;
mod report;
mod residency;
mod schedule;
pub mod scratch;
mod steady;
mod svg;
mod task;

use std::ops::Range;

use crate::graph::{Binding, Graph, GraphError, ValueId};

use prepared::PreparedRows;

pub use check::CheckError;
pub use cost::{macs, task_macs};
pub use layout::Layout;
pub use need::{Need, window_rows};
pub use order::{PlanRecipe, Strips};
pub use padding::{Padding, PaddingMask, counting_rows, ignores_padding};
pub use place::live_bytes_max;
pub use quantised::{Scale, product_scale};
pub use report::{PlanReport, StepReport};
pub use residency::{Load, Residency, Use, held_bytes as weight_bytes, ranges as weight_ranges};
pub use schedule::Stage;
pub use svg::svg;
pub use task::{Pass, Source, Task, Tasks};

/// What a plan is made for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanOptions {
    /// Batch, height, width.
    pub binding: Binding,
    /// Workers, the caller counted.
    pub threads: usize,
    /// Most bytes that the arena may have; `usize::MAX` for as many as are fast.
    pub arena_bytes_max: usize,
    /// Runs of nodes that are handed over together; see [`Step::Segment`].
    pub segments: Vec<Range<usize>>,
    /// Inputs that stay the same over many runs: what depends on them alone is done in a prologue, once, and its results
    /// are kept in regions of their own.
    pub steady: Vec<ValueId>,
    /// Steady inputs are known but nothing is kept: every run does all the work.
    pub recompute: bool,
    /// What tells padding from tokens that count, so that runs do without what padding alone needs.
    pub padding: Option<PaddingMask>,
}

impl PlanOptions {
    /// No limit, no segments.
    pub fn new(binding: Binding, threads: usize) -> Self {
        PlanOptions {
            binding,
            threads,
            arena_bytes_max: usize::MAX,
            segments: Vec::new(),
            steady: Vec::new(),
            recompute: false,
            padding: None,
        }
    }
}

/// What is done for one network, in order.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The graph's name.
    pub network: String,
    /// What it was planned for.
    pub options: PlanOptions,
    /// Tasks and slots.
    pub tasks: Tasks,
    /// In order, a barrier after each.
    pub steps: Vec<Step>,
    /// By slot of [`Tasks::layouts`].
    pub storage: Vec<Storage>,
    /// Planned ranges of the arena.
    pub buffers: Vec<Buffer>,
    /// Size of the arena, without what is kept.
    pub arena_bytes: usize,
    /// Where the regions of kept values begin: behind the arena, which other networks may use between runs.
    pub kept_at: usize,
    /// Bytes of the regions of kept values.
    pub kept_bytes: usize,
    /// The first steps, which a run leaves out while the steady inputs are what they were.
    pub prologue_steps: usize,
    /// Multiply-adds that depend on steady inputs alone, whether or not their results are kept.
    pub steady_macs: u64,
    /// What runs do without where tokens are padding.
    pub padding: Option<Padding>,
    /// Bytes that a step's scratch was to stay below where it can.
    pub scratch_bytes: usize,
    /// Rows of a strip, if tasks were rolled.
    pub strip_height: Option<usize>,
}

/// One entry of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Rows of one task.
    Task(TaskStep),
    /// Tasks that an accelerator may take together; what runs on the CPU otherwise.
    Segment {
        /// The first node's name.
        name: String,
        /// The CPU form.
        steps: Vec<TaskStep>,
    },
}

impl Step {
    /// What the CPU does in this step.
    pub fn task_steps(&self) -> &[TaskStep] {
        match self {
            Step::Task(step) => std::slice::from_ref(step),
            Step::Segment { steps, .. } => steps,
        }
    }

    fn task_steps_mut(&mut self) -> &mut [TaskStep] {
        match self {
            Step::Task(step) => std::slice::from_mut(step),
            Step::Segment { steps, .. } => steps,
        }
    }
}

/// Some rows of one task's result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskStep {
    /// Index into [`Tasks::tasks`].
    pub task: usize,
    /// Rows of its result.
    pub rows: Range<usize>,
    /// The buffer that it needs besides.
    pub scratch: Option<usize>,
    /// An earlier step has prepared the operand's rows there.
    pub prepared: bool,
}

/// Where a slot's bytes lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Storage {
    /// In a buffer; row `r` at place `r % ring_rows`.
    Arena {
        /// Index into [`Plan::buffers`].
        buffer: usize,
        /// Rows that the buffer keeps.
        ring_rows: usize,
    },
    /// In the pack.
    Tensor(String),
    /// Nowhere.
    None,
}

/// What a buffer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// A slot, and those that share its bytes.
    Slot(usize),
    /// Scratch of the steps in which it lives.
    Scratch,
}

/// A planned range of the arena: a region with a life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Buffer {
    /// What for.
    pub owner: Owner,
    /// Size.
    pub bytes: usize,
    /// Byte of the arena, a multiple of 64.
    pub offset: usize,
    /// The first step that touches it.
    pub first_step: usize,
    /// The last one.
    pub last_step: usize,
    /// It holds values from one run to the next.
    pub kept: bool,
}

impl Buffer {
    /// True if there is a step at which both hold something.
    pub fn lives_with(&self, other: &Buffer) -> bool {
        self.first_step <= other.last_step && other.first_step <= self.last_step
    }
}

/// Why there is no plan.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum PlanError {
    /// The size does not fit the network, or the graph breaks a rule.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// A group norm of too many groups.
    #[error("network {network:?}, node {node:?} has {groups} groups but at most {max} are run", max = scratch::GROUPS_MAX)]
    Groups {
        /// Network.
        network: String,
        /// Node.
        node: String,
        /// Its groups.
        groups: u32,
    },
    /// No plan is small enough.
    #[error(
        "network {network:?} needs {needed} bytes of arena but {allowed} are allowed; raise the budget by {} bytes or choose a smaller size",
        needed - allowed
    )]
    Arena {
        /// Network.
        network: String,
        /// The smallest arena that was found.
        needed: usize,
        /// The limit.
        allowed: usize,
    },
    /// A segment that is not a run of the graph's nodes.
    #[error(
        "nodes {start}..{end} are not a segment of network {network:?}, which has {nodes} nodes"
    )]
    Segment {
        /// Network.
        network: String,
        /// First node.
        start: usize,
        /// Node after the last.
        end: usize,
        /// Nodes.
        nodes: usize,
    },
    /// The planner broke its own rules.
    #[error(
        "network {network:?}: the plan is wrong ({error}); this is a defect of the runtime, report it"
    )]
    Check {
        /// Network.
        network: String,
        /// How.
        error: CheckError,
    },
}

impl Plan {
    /// Plans a network: the fastest plan whose arena is within the limit.
    ///
    /// # Errors
    /// [`PlanError`]; [`PlanError::Arena`] names the smallest arena that works.
    pub fn new(graph: &Graph, options: &PlanOptions) -> Result<Self, PlanError> {
        let tasks = tasks(graph, options)?;
        for segment in &options.segments {
            if segment.is_empty() || segment.end > graph.nodes.len() {
                return Err(PlanError::Segment {
                    network: graph.name.clone(),
                    start: segment.start,
                    end: segment.end,
                    nodes: graph.nodes.len(),
                });
            }
        }
        let plan = order::search(graph, &tasks, options);
        check::check(graph, &plan)
            .map_err(|error| PlanError::Check { network: graph.name.clone(), error })?;
        if plan.arena_bytes + plan.kept_bytes > options.arena_bytes_max {
            return Err(PlanError::Arena {
                network: graph.name.clone(),
                needed: plan.arena_bytes + plan.kept_bytes,
                allowed: options.arena_bytes_max,
            });
        }
        Ok(plan)
    }

    /// Plans a network in one way, whatever the limit.
    ///
    /// # Errors
    /// [`PlanError::Graph`], [`PlanError::Groups`], [`PlanError::Check`].
    pub fn of_recipe(
        graph: &Graph,
        options: &PlanOptions,
        recipe: PlanRecipe,
    ) -> Result<Self, PlanError> {
        let tasks = tasks(graph, options)?;
        let plan = order::cook(graph, &tasks, options, recipe);
        check::check(graph, &plan)
            .map_err(|error| PlanError::Check { network: graph.name.clone(), error })?;
        Ok(plan)
    }

    /// Moves the regions of kept values, so that they lie behind the arena of all networks.
    pub fn move_kept(&mut self, kept_at: usize) {
        for buffer in self.buffers.iter_mut().filter(|buffer| buffer.kept) {
            buffer.offset = buffer.offset - self.kept_at + kept_at;
        }
        self.kept_at = kept_at;
    }

    /// The byte after the last one that a run may touch.
    pub fn end_bytes(&self) -> usize {
        if self.kept_bytes == 0 { self.arena_bytes } else { self.kept_at + self.kept_bytes }
    }

    /// The rows of a slot among `rows` that a run makes where the first `counting` tokens of each sample count.
    pub fn rows_made(
        &self,
        slot: usize,
        rows: Range<usize>,
        counting: usize,
    ) -> impl Iterator<Item = Range<usize>> + use<> {
        let spares = |padding: &&Padding| padding.spares(&self.tasks, slot);
        let tokens = self.padding.as_ref().filter(spares).map(|padding| padding.tokens);
        counting_rows(rows, tokens.unwrap_or(counting), counting)
    }

    /// Builds the plan of given stages.
    fn of_stages(
        graph: &Graph,
        tasks: Tasks,
        stages: &[Stage],
        options: &PlanOptions,
        scratch_bytes: usize,
    ) -> Self {
        let (mut steps, spans) = schedule::steps(graph, &tasks, stages);
        let (mut buffers, storage) = lifetime::buffers(graph, &tasks, &steps);
        let padding = options.padding.as_ref().and_then(|known| Padding::new(graph, &tasks, known));
        let mut prepared = PreparedRows::new(graph, &tasks, padding.as_ref(), scratch_bytes);
        for span in spans {
            if let Step::Task(step) = &mut steps[span.start]
                && span.len() == 1
                && let Some(buffer) = prepared.find(step.task, span.start)
            {
                (step.scratch, step.prepared) = (Some(buffer), true);
                buffers[buffer].last_step = span.start;
                continue;
            }
            // One region serves a whole strip: its steps are many and alike.
            let mut bytes = 0;
            for step in &mut steps[span.clone()] {
                for step in step.task_steps_mut() {
                    let task = &tasks.tasks[step.task];
                    let rows = step.rows.len();
                    let needed =
                        scratch::bytes(graph, &tasks, task, rows, options.threads, scratch_bytes);
                    step.scratch = (needed > 0).then_some(buffers.len());
                    bytes = bytes.max(needed);
                }
            }
            if bytes > 0 {
                if let Step::Task(step) = &steps[span.start]
                    && span.len() == 1
                {
                    prepared.add(step.task, span.start, buffers.len());
                }
                buffers.push(Buffer {
                    owner: Owner::Scratch,
                    bytes,
                    offset: 0,
                    first_step: span.start,
                    last_step: span.end - 1,
                    kept: false,
                });
            }
        }
        let arena_bytes = place::place(&mut buffers);
        let kept_bytes = place::place_kept(&mut buffers, arena_bytes);
        let prologue_steps = steps
            .iter()
            .take_while(|step| step.task_steps().iter().all(|step| step.task < tasks.prologue))
            .count();
        let flags = steady::steady_tasks(graph, &tasks, &options.steady);
        let steady = tasks.tasks.iter().zip(flags).filter(|(_, steady)| *steady);
        let steady_macs = steady.map(|(task, _)| task_macs(graph, &tasks, task)).sum();
        Plan {
            network: graph.name.clone(),
            options: options.clone(),
            tasks,
            steps,
            storage,
            buffers,
            arena_bytes,
            kept_at: arena_bytes,
            kept_bytes,
            prologue_steps,
            steady_macs,
            padding,
            scratch_bytes,
            strip_height: stages.iter().find_map(|stage| match stage {
                Stage::Strip { height, .. } => Some(*height),
                _ => None,
            }),
        }
    }
}

/// The tasks of a graph, those whose results are kept first.
fn tasks(graph: &Graph, options: &PlanOptions) -> Result<Tasks, PlanError> {
    let mut tasks = Tasks::new(graph, options.binding, options.segments.is_empty())?;
    if !options.recompute {
        let steady = steady::steady_tasks(graph, &tasks, &options.steady);
        steady::divide(&mut tasks, &steady);
    }
    Ok(tasks)
}
