//! Quantised rows: values that int8 products alone read, stored as those take them.
//!
//! Whoever makes such a value rounds it to its type and quantises it at once, while a row is in the first-level cache;
//! its readers neither quantise nor wait for each other. It takes about half the bytes.

use crate::graph::{DType, Graph, InputScale, Op};

use super::lifetime::crosses_no_run;
use super::scratch::ATTENTION_QUERIES;
use super::task::{Pass, Source, Task, Tasks};

/// Where the int8 scale of a vector comes from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scale {
    /// Each vector's own largest value.
    Vector,
    /// The largest value of its row.
    Row,
    /// The packer.
    Static(f32),
}

/// How an int8 product on vectors quantises its first operand; nothing for any other op.
pub fn product_scale(op: &Op) -> Option<Scale> {
    match op {
        Op::MatmulI8 { .. } => Some(Scale::Vector),
        Op::ConvI8 { window, input_scale, .. } if window.is_one_cell() => Some(match input_scale {
            InputScale::Row => Scale::Row,
            InputScale::Static(scale) => Scale::Static(*scale),
        }),
        _ => None,
    }
}

/// Rows of an attention's result from which on what is saved is more than the tiles that workers round it in.
const ATTENTION_ROWS: usize = 8 * ATTENTION_QUERIES;

/// Whether a task's driver holds whole vectors of its result and can store them quantised.
pub fn stores_vectors(graph: &Graph, task: &Task) -> bool {
    match task.pass {
        Pass::Normalise => true,
        Pass::Whole => matches!(
            graph.nodes[task.node].op,
            Op::LayerNorm { .. }
                | Op::RmsNorm { .. }
                | Op::Softmax
                | Op::Unary { .. }
                | Op::Cast
                | Op::Binary { .. }
                | Op::Modulate
                | Op::Gated { .. }
                | Op::Attention { .. }
        ),
        _ => false,
    }
}

/// What the readers of a slot want.
#[derive(Clone, Copy, PartialEq)]
enum Readers {
    None,
    Alike(Scale),
    Mixed,
}

/// Marks the values that are stored quantised.
pub fn mark(graph: &Graph, tasks: &mut Tasks) {
    let roots: Vec<usize> = (0..tasks.layouts.len()).map(|slot| tasks.root(slot)).collect();
    let readers = readers(graph, tasks, &roots);
    let mut scales = vec![None; roots.len()];
    for (index, task) in tasks.tasks.iter().enumerate() {
        let layout = &tasks.layouts[task.output];
        let attends = matches!(graph.nodes[task.node].op, Op::Attention { .. });
        if let Readers::Alike(scale) = readers[task.output]
            && layout.dtype == DType::F16
            && stores_vectors(graph, task)
            && (!attends || layout.rows >= ATTENTION_ROWS)
            && !takes_over(graph, tasks, &roots, index)
        {
            scales[task.output] = Some(scale);
        }
    }
    for (layout, &root) in tasks.layouts.iter_mut().zip(&roots) {
        layout.quantised = scales[root];
    }
}

/// By slot that holds bytes.
fn readers(graph: &Graph, tasks: &Tasks, roots: &[usize]) -> Vec<Readers> {
    let mut readers = vec![Readers::None; roots.len()];
    for task in &tasks.tasks {
        for (operand, &slot) in task.inputs.iter().enumerate() {
            // A row's scale needs the whole row, which most drivers do not hold.
            let scale = product_scale(&graph.nodes[task.node].op)
                .filter(|&scale| operand == 0 && scale != Scale::Row);
            let readers = &mut readers[roots[slot]];
            *readers = match (*readers, scale) {
                (Readers::None, Some(scale)) => Readers::Alike(scale),
                (Readers::Alike(other), Some(scale)) if other == scale => Readers::Alike(scale),
                _ => Readers::Mixed,
            };
        }
    }
    for (layout, &root) in tasks.layouts.iter().zip(roots) {
        // In another shape, vectors must be the same.
        if layout.channels() != tasks.layouts[root].channels() {
            readers[root] = Readers::Mixed;
        }
    }
    for id in &graph.outputs {
        readers[roots[id.index()]] = Readers::Mixed;
    }
    readers
}

/// Whether a task may write over an operand that nobody else reads: its result takes no bytes of its own then, and would if it
/// were quantised.
fn takes_over(graph: &Graph, tasks: &Tasks, roots: &[usize], index: usize) -> bool {
    let task = &tasks.tasks[index];
    task.inputs.iter().enumerate().any(|(operand, &slot)| {
        let root = roots[slot];
        let read = |task: &Task| task.inputs.iter().any(|&slot| roots[slot] == root);
        tasks.sources[root] == Source::Computed
            && tasks.in_place(graph, task, operand)
            && crosses_no_run(graph, tasks, roots, index, root)
            && !graph.outputs.iter().any(|id| roots[id.index()] == root)
            && tasks.tasks.iter().filter(|task| read(task)).count() == 1
    })
}
