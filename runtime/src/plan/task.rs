//! The work of a graph, cut where a result needs a whole value first.
//!
//! Enters: a graph under a binding. Leaves: [`Tasks`]: tasks over slots. A slot is a value of the graph or a
//! hidden value that only the plan knows. All nodes are one task each but two kinds. Group norms are three: the
//! moments of each row (as rows come), their combination (once all rows are there) and the norm itself (row by
//! row again). Attention in int8 is two: all keys and values go to int8 once, then queries meet them row by row.

use crate::graph::{Binding, DType, Graph, Op, Unary, ValueId, validate_bound};

use super::PlanError;
use super::layout::Layout;
use super::need::{Need, need};
use super::scratch::GROUPS_MAX;
use crate::kernel::{ATTENTION_I8_KEYS, KeyTile};

/// What part of its node a task does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pass {
    /// All of it.
    Whole,
    /// Group norm: mean and sum of squares about it, by row and group.
    Moments,
    /// Group norm: factor and summand, by sample and channel.
    Combine,
    /// Group norm: applies them.
    Normalise,
    /// Attention in int8: keys and values, by tile of keys and head.
    Keys,
    /// Attention in int8: queries by those.
    Attend,
}

/// One node, or one pass of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    /// Index into [`Graph::nodes`].
    pub node: usize,
    /// Which part.
    pub pass: Pass,
    /// Slots that it reads.
    pub inputs: Vec<usize>,
    /// The slot that it writes.
    pub output: usize,
    /// A later node that only this one feeds, done as results are stored: they are rounded as the value between
    /// would be, so that no byte changes.
    pub then: Option<Unary>,
}

/// Where the bytes of a slot come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Computed or fed: it needs a region.
    Computed,
    /// A tensor of the pack, read from the map.
    Tensor(String),
    /// The bytes of another slot in another shape.
    Alias(usize),
    /// Nothing reads or writes it.
    Unused,
}

/// A graph as tasks.
#[derive(Clone, Debug)]
pub struct Tasks {
    /// In an order in which they can run.
    pub tasks: Vec<Task>,
    /// The first tasks, whose results are kept over many runs; see [`PlanOptions::steady`](super::PlanOptions::steady).
    pub prologue: usize,
    /// By slot: the graph's values, then hidden ones.
    pub layouts: Vec<Layout>,
    /// By slot.
    pub sources: Vec<Source>,
}

/// Whether a value ends in the one node that writes `output`, of the same form.
fn ends(graph: &Graph, value: usize, layouts: &[Layout], output: usize) -> bool {
    let is = |id: &ValueId| id.index() == value;
    let readers = graph.nodes.iter().flat_map(|node| &node.inputs).filter(|id| is(id)).count();
    readers == 1 && !graph.outputs.iter().any(is) && layouts[value] == layouts[output]
}

/// Whether a task's driver can apply a function as it stores, and has none yet to apply.
fn stores_in_tiles(graph: &Graph, task: &Task) -> bool {
    let op = &graph.nodes[task.node].op;
    task.pass == Pass::Whole
        && task.then.is_none()
        && matches!(
            op,
            Op::MatmulI8 { .. }
                | Op::MatmulF16 { .. }
                | Op::ConvI8 { .. }
                | Op::ConvF16 { .. }
                | Op::Depthwise { .. }
        )
}

impl Tasks {
    /// Lowers a graph; `join` lets a task do a function that follows it.
    ///
    /// # Errors
    /// [`PlanError::Graph`] if shapes do not fit the binding or each other; [`PlanError::Groups`].
    pub fn new(graph: &Graph, binding: Binding, join: bool) -> Result<Self, PlanError> {
        let shapes = validate_bound(graph, binding)?;
        let mut layouts: Vec<Layout> = shapes
            .into_iter()
            .zip(&graph.values)
            .map(|(shape, value)| Layout::new(shape, value.dtype))
            .collect();
        let mut sources = vec![Source::Unused; layouts.len()];
        for input in &graph.inputs {
            sources[input.index()] = Source::Computed;
        }
        let mut tasks = Vec::with_capacity(graph.nodes.len());
        for (index, node) in graph.nodes.iter().enumerate() {
            let inputs: Vec<usize> = node.inputs.iter().map(|id| id.index()).collect();
            let output = node.output.index();
            let read_outside = graph.outputs.contains(&node.output);
            let task =
                |pass, inputs, output| Task { node: index, pass, inputs, output, then: None };
            sources[output] = Source::Computed;
            match &node.op {
                // An output that is a bare tensor is copied, so that outputs always lie in the arena.
                Op::Constant { tensor } if !read_outside => {
                    sources[output] = Source::Tensor(tensor.clone());
                }
                Op::Reshape if !matches!(sources[inputs[0]], Source::Tensor(_)) => {
                    sources[output] = Source::Alias(inputs[0]);
                }
                Op::Reshape if !read_outside => sources[output] = sources[inputs[0]].clone(),
                Op::GroupNorm { groups, .. } => {
                    if *groups as usize > GROUPS_MAX {
                        return Err(PlanError::Groups {
                            network: graph.name.clone(),
                            node: node.name.clone(),
                            groups: *groups,
                        });
                    }
                    let x = &layouts[inputs[0]];
                    let (rows, groups) = (x.rows, *groups as usize);
                    let (samples, channels) = (x.shape[0], x.channels());
                    let moments = layouts.len();
                    layouts.push(Layout::new(vec![rows, 2 * groups], DType::F32));
                    layouts.push(Layout::new(vec![samples, 2 * channels], DType::F32));
                    sources.extend([Source::Computed, Source::Computed]);
                    tasks.push(task(Pass::Moments, inputs.clone(), moments));
                    tasks.push(task(Pass::Combine, vec![moments], moments + 1));
                    tasks.push(task(Pass::Normalise, vec![inputs[0], moments + 1], output));
                }
                Op::AttentionI8 { heads, .. } => {
                    let k = &layouts[inputs[1]];
                    let (samples, heads) = (k.shape[0], *heads as usize);
                    let words = heads * KeyTile::words(k.channels() / heads);
                    let tiles = k.shape[1].div_ceil(ATTENTION_I8_KEYS);
                    let hidden = layouts.len();
                    layouts.push(Layout::new(vec![samples, tiles, words], DType::F32));
                    sources.push(Source::Computed);
                    tasks.push(task(Pass::Keys, inputs[1..3].to_vec(), hidden));
                    let mask = inputs.get(3).copied();
                    let operands = [inputs[0], hidden].into_iter().chain(mask).collect();
                    tasks.push(task(Pass::Attend, operands, output));
                }
                Op::Unary { function } if join && ends(graph, inputs[0], &layouts, output) => {
                    let mut makers =
                        tasks.iter_mut().filter(|task: &&mut Task| task.output == inputs[0]);
                    match makers.next().filter(|task| stores_in_tiles(graph, task)) {
                        Some(task) => {
                            (task.output, task.then) = (output, Some(*function));
                            sources[inputs[0]] = Source::Unused;
                        }
                        None => tasks.push(task(Pass::Whole, inputs, output)),
                    }
                }
                _ => tasks.push(task(Pass::Whole, inputs, output)),
            }
        }
        Ok(Tasks { tasks, prologue: 0, layouts, sources })
    }

    /// The slot that holds a slot's bytes, after all aliases.
    pub fn root(&self, mut slot: usize) -> usize {
        while let Source::Alias(of) = self.sources[slot] {
            slot = of;
        }
        slot
    }

    /// Rows of operand `index` that a task needs to make some rows of its result.
    pub fn need(
        &self,
        graph: &Graph,
        task: &Task,
        index: usize,
        rows: std::ops::Range<usize>,
    ) -> Need {
        let (input, output) = (&self.layouts[task.inputs[index]], &self.layouts[task.output]);
        match (task.pass, index) {
            _ if rows.is_empty() => Need::Rows(0..0),
            (Pass::Whole, _) => need(&graph.nodes[task.node].op, index, input, output, rows),
            (Pass::Moments, _) | (Pass::Normalise | Pass::Attend, 0) => Need::Rows(rows),
            (Pass::Combine | Pass::Keys, _) | (Pass::Normalise | Pass::Attend, _) => Need::All,
        }
    }

    /// True if row `r` of the result reads row `r` of operand `index` and no other, value by value, so that
    /// the result may be written over it.
    pub fn in_place(&self, graph: &Graph, task: &Task, index: usize) -> bool {
        let (input, output) = (&self.layouts[task.inputs[index]], &self.layouts[task.output]);
        let floats = input.quantised.is_none() && output.quantised.is_none();
        let alike = floats && input.shape == output.shape && input.dtype == output.dtype;
        let twice = task.inputs.iter().filter(|&&slot| slot == task.inputs[index]).count() > 1;
        alike
            && match (task.pass, &graph.nodes[task.node].op) {
                (Pass::Normalise, _) => index == 0,
                (
                    Pass::Whole,
                    Op::Unary { .. }
                    | Op::LayerNorm { .. }
                    | Op::RmsNorm { .. }
                    | Op::Softmax
                    | Op::Modulate,
                ) => index == 0,
                (Pass::Whole, Op::Binary { .. }) => true,
                (Pass::Whole, op) => op.residual() && index + 1 == task.inputs.len() && !twice,
                _ => false,
            }
    }
}
