//! Rows that several products take alike and that are stored as floats, because others read them too: queries, keys and values of
//! one attention come from the same rows.
//!
//! The first product quantises them; those that follow soon find them in its scratch, which lives on for them.

use crate::graph::{Graph, Op};

use super::padding::Padding;
use super::scratch::RowScratch;
use super::task::Tasks;

/// Steps that prepared rows are kept for after each use: a norm may stand between two products.
const KEPT_STEPS: usize = 3;

/// The products so far, and where their rows lie.
pub struct PreparedRows<'a> {
    pub graph: &'a Graph,
    pub tasks: &'a Tasks,
    pub padding: Option<&'a Padding>,
    /// Limit of a scratch.
    pub scratch_bytes: usize,
    uses: Vec<Use>,
}

struct Use {
    task: usize,
    /// The step that used them last.
    step: usize,
    buffer: usize,
}

impl<'a> PreparedRows<'a> {
    /// None yet.
    pub fn new(
        graph: &'a Graph,
        tasks: &'a Tasks,
        padding: Option<&'a Padding>,
        scratch_bytes: usize,
    ) -> Self {
        PreparedRows { graph, tasks, padding, scratch_bytes, uses: Vec::new() }
    }

    /// The buffer in which the rows of a task that runs whole at a step are prepared.
    pub fn find(&mut self, task: usize, step: usize) -> Option<usize> {
        let alike = |used: &Use| used.step + KEPT_STEPS >= step && self.alike(used.task, task);
        let found = self.uses.iter().rposition(alike)?;
        self.uses[found].step = step;
        Some(self.uses[found].buffer)
    }

    /// Takes note of a task that runs whole at a step and of its scratch.
    pub fn add(&mut self, task: usize, step: usize, buffer: usize) {
        if self.product(task) {
            self.uses.push(Use { task, step, buffer });
        }
    }

    fn product(&self, task: usize) -> bool {
        matches!(self.graph.nodes[self.tasks.tasks[task].node].op, Op::MatmulI8 { .. })
    }

    /// Whether two tasks take the same rows, all of them at once, in the same runs.
    fn alike(&self, one: usize, other: usize) -> bool {
        let tasks = self.tasks;
        let slot = |task: usize| tasks.tasks[task].inputs[0];
        let spares = |task: usize| {
            self.padding.is_some_and(|padding| padding.spares(tasks, tasks.tasks[task].output))
        };
        let layout = &tasks.layouts[slot(one)];
        self.product(other)
            && tasks.root(slot(one)) == tasks.root(slot(other))
            && *layout == tasks.layouts[slot(other)]
            && RowScratch::new(layout, 1, layout.rows, self.scratch_bytes).rows == layout.rows
            && (one < tasks.prologue) == (other < tasks.prologue)
            && spares(one) == spares(other)
    }
}
