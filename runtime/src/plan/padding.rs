//! Padding: rows that nobody needs, because a mask hides the tokens that they stand for.
//!
//! A prompt fills some of a network's tokens; those behind them are padding, and a mask tells them apart. That a row of
//! padding changes nothing is read from the graph, from its outputs to its inputs, and never assumed: a row is needed if a
//! needed row reads it, but for keys whose mask makes their weight 0 and for inputs that are multiplied by 0. Where anything
//! else reads rows of padding, all rows that lead there are made.
//!
//! Rows are told apart by their number alone: row `r` of a value with one row a token stands for token `r % tokens`.

use std::ops::Range;

use half::f16;

use crate::graph::{Binary, Binding, DType, Graph, Op, ValueId};
use crate::kernel::reference;

use super::need::Need;
use super::task::{Pass, Task, Tasks};
use super::{PlanError, PlanOptions};

/// How far a hidden key's score is moved down, at least. An exponential is 0 from about 104 below the largest score on,
/// so that no score of a few thousand brings it back.
const HIDDEN_BY: f32 = 1e4;

/// What tells padding apart, and what need not be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PaddingMask {
    /// The input `[samples, tokens]` that is 1 for tokens that count and 0 for padding.
    pub mask: ValueId,
    /// Outputs whose rows of padding nobody reads.
    pub outputs: Vec<ValueId>,
}

/// Rows of padding that a network does without.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Padding {
    /// The mask.
    pub mask: ValueId,
    /// Tokens of a sample, padding among them.
    pub tokens: usize,
    /// By slot that holds bytes: nobody needs rows of padding.
    spared: Vec<bool>,
    /// By task: only keys that count are read.
    keys: Vec<bool>,
}

impl Padding {
    /// Finds what is not needed; `None` if the mask is none.
    pub fn new(graph: &Graph, tasks: &Tasks, known: &PaddingMask) -> Option<Self> {
        let &[samples, tokens] = &tasks.layouts[known.mask.index()].shape[..] else { return None };
        let search =
            Search { graph, tasks, samples, tokens, masks: masks(graph, tasks, known.mask) };
        let mut spared: Vec<bool> =
            tasks.layouts.iter().map(|layout| layout.rows == samples * tokens).collect();
        for output in graph.outputs.iter().filter(|&id| !known.outputs.contains(id)) {
            spared[tasks.root(output.index())] = false;
        }
        // Readers come after what they read, so that this way round they are known first.
        for (index, task) in tasks.tasks.iter().enumerate().rev() {
            let made = spared[tasks.root(task.output)];
            for (operand, &slot) in task.inputs.iter().enumerate() {
                let by_token = tasks.layouts[slot].rows == samples * tokens;
                let unread = search.hides_keys(task, operand)
                    || search.multiplies_by_zero(index, operand)
                    || (made && search.row_by_row(task, operand));
                spared[tasks.root(slot)] &= by_token && unread;
            }
        }
        let hides = |task| (1..=2).all(|operand| search.hides_keys(task, operand));
        let keys = tasks.tasks.iter().map(hides).collect();
        Some(Padding { mask: known.mask, tokens, spared, keys })
    }

    /// Whether a slot's rows of padding need not be made. Those of an input must be numbers, whichever.
    pub fn spares(&self, tasks: &Tasks, slot: usize) -> bool {
        self.spared[tasks.root(slot)]
    }

    /// Whether a task, by its index, reads only keys and values of tokens that count.
    pub fn spares_keys(&self, task: usize) -> bool {
        self.keys[task]
    }
}

/// The rows among `rows` that stand for the first `counting` of `tokens` tokens of each sample: one range if all count.
pub fn counting_rows(
    rows: Range<usize>,
    tokens: usize,
    counting: usize,
) -> impl Iterator<Item = Range<usize>> {
    // Where all count, the rows are those of one endless sample.
    let (tokens, counting) =
        if counting < tokens { (tokens, counting) } else { (usize::MAX, usize::MAX) };
    (rows.start / tokens..rows.end.div_ceil(tokens))
        .map(move |sample| {
            let first = sample * tokens;
            rows.start.max(first)..rows.end.min(first + counting)
        })
        .filter(|rows| !rows.is_empty())
}

/// Whether a network ignores rows of padding of an input, which must be numbers.
///
/// # Errors
/// [`PlanError`] as of a plan.
pub fn ignores_padding(
    graph: &Graph,
    binding: Binding,
    mask: ValueId,
    input: ValueId,
) -> Result<bool, PlanError> {
    let tasks = super::tasks(graph, &PlanOptions::new(binding, 1))?;
    let padding = Padding::new(graph, &tasks, &PaddingMask { mask, outputs: Vec::new() });
    Ok(padding.is_some_and(|padding| padding.spares(&tasks, input.index())))
}

/// A value that holds one number for each token that counts and another for each of padding.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Mask {
    /// The axis that counts tokens.
    axis: usize,
    /// Of padding.
    hidden: f32,
    /// Of the rest.
    shown: f32,
}

/// By value of a graph: whether it is the mask, or comes from it value by value.
fn masks(graph: &Graph, tasks: &Tasks, mask: ValueId) -> Vec<Option<Mask>> {
    let mut masks = vec![None; graph.values.len()];
    masks[mask.index()] = Some(Mask { axis: 1, hidden: 0.0, shown: 1.0 });
    for node in &graph.nodes {
        let Some(input) = node.inputs.first() else { continue };
        let Some(Mask { axis, hidden, shown }) = masks[input.index()] else { continue };
        let (from, to) = (&tasks.layouts[input.index()], &tasks.layouts[node.output.index()]);
        let mut values = [hidden, shown];
        let axis = match &node.op {
            Op::Cast => Some(axis),
            Op::Unary { function } => {
                (reference::KERNELS.unary)(*function, &mut values);
                Some(axis)
            }
            Op::Reshape => {
                let inner =
                    |shape: &[usize], axis: usize| shape[axis + 1..].iter().product::<usize>();
                let same = |&to_axis: &usize| {
                    to.shape[to_axis] == from.shape[axis]
                        && inner(&to.shape, to_axis) == inner(&from.shape, axis)
                };
                (0..to.shape.len()).find(same)
            }
            _ => None,
        };
        let [hidden, shown] = values.map(|value| match to.dtype {
            DType::F16 => f16::from_f32(value).to_f32(),
            DType::F32 => value,
            DType::I32 => value as i32 as f32,
        });
        masks[node.output.index()] = axis.map(|axis| Mask { axis, hidden, shown });
    }
    masks
}

struct Search<'a> {
    graph: &'a Graph,
    tasks: &'a Tasks,
    samples: usize,
    tokens: usize,
    masks: Vec<Option<Mask>>,
}

impl Search<'_> {
    fn mask(&self, slot: usize) -> Option<Mask> {
        self.masks.get(slot).copied().flatten()
    }

    /// Whether a task makes rows of its result from the same rows of an operand.
    fn row_by_row(&self, task: &Task, operand: usize) -> bool {
        (0..self.samples).map(|sample| sample * self.tokens).all(|first| {
            (first + 1..=first + self.tokens).all(|end| {
                match self.tasks.need(self.graph, task, operand, first..end) {
                    Need::Rows(rows) => rows.is_empty() || (first <= rows.start && rows.end <= end),
                    Need::All => false,
                }
            })
        })
    }

    /// Whether an operand is keys or values of an attention whose mask gives those of padding the weight 0.
    fn hides_keys(&self, task: &Task, operand: usize) -> bool {
        let attends = matches!(self.graph.nodes[task.node].op, Op::Attention { .. });
        if !attends || task.pass != Pass::Whole || !(1..=2).contains(&operand) {
            return false;
        }
        let keys = &self.tasks.layouts[task.inputs[operand]];
        let mask = task.inputs.get(3).and_then(|&slot| self.mask(slot));
        keys.shape[1] == self.tokens
            && mask.is_some_and(|mask| mask.axis == 2 && mask.shown - mask.hidden >= HIDDEN_BY)
    }

    /// Whether an operand is an input that is multiplied by a mask that is 0 for its rows of padding.
    fn multiplies_by_zero(&self, index: usize, operand: usize) -> bool {
        let task = &self.tasks.tasks[index];
        let op = &self.graph.nodes[task.node].op;
        if !matches!(op, Op::Binary { function: Binary::Mul }) {
            return false;
        }
        let (slot, other) = (task.inputs[operand], task.inputs[1 - operand]);
        let root = self.tasks.root(slot);
        let fed = self.graph.inputs.iter().any(|id| id.index() == root);
        let layout = &self.tasks.layouts[slot];
        // With three dimensions, a row is an index of the first two.
        let by_row = layout.shape.len() == 3 && layout.shape[1] == self.tokens;
        let shown_whole = layout.shape == self.tasks.layouts[task.output].shape;
        fed && by_row
            && shown_whole
            && self
                .mask(other)
                .is_some_and(|mask| mask.axis == 1 && mask.hidden == 0.0 && mask.shown.is_finite())
    }
}
