//! Which slots share a buffer, how many rows it keeps and when it lives.

use std::ops::Range;

use crate::graph::Graph;

use super::task::{Source, Tasks};
use super::{Buffer, Owner, Step, Storage, TaskStep};

/// A range of values of one slot at one time.
struct Touch {
    time: usize,
    slot: usize,
    values: Range<usize>,
}

/// Buffers of all slots, unplaced, and where each slot lies.
pub fn buffers(graph: &Graph, tasks: &Tasks, steps: &[Step]) -> (Vec<Buffer>, Vec<Storage>) {
    let end = steps.len().saturating_sub(1);
    let (reads, writes) = touches(graph, tasks, steps);
    let mut class: Vec<usize> = (0..tasks.layouts.len()).map(|slot| tasks.root(slot)).collect();
    share(graph, tasks, steps, &reads, &mut class);

    let mut buffers = Vec::new();
    let mut storage = vec![Storage::None; tasks.layouts.len()];
    for head in 0..tasks.layouts.len() {
        let members: Vec<usize> = (0..class.len())
            .filter(|&slot| {
                class[slot] == head && tasks.sources[tasks.root(slot)] == Source::Computed
            })
            .collect();
        if members.is_empty() {
            continue;
        }
        let whole = tasks.layouts[head].len();
        let kept = is_kept(tasks, &class, head);
        let fed = graph.inputs.iter().any(|id| class[id.index()] == head);
        let read_after = graph.outputs.iter().any(|id| class[id.index()] == head);
        let of_class = |touch: &&Touch| class[touch.slot] == head;
        let keep = if fed || read_after || kept {
            whole
        } else {
            ring(
                whole,
                steps.len(),
                reads.iter().filter(of_class),
                writes.iter().filter(of_class),
                members.iter().map(|&slot| tasks.layouts[slot].row_len),
            )
        };
        let times = reads.iter().chain(&writes).filter(of_class).map(|touch| touch.time);
        let first = if fed { 0 } else { times.clone().min().unwrap_or(0) };
        let last = if read_after || kept { end } else { times.max().unwrap_or(0) };
        for &slot in &members {
            let layout = &tasks.layouts[slot];
            storage[slot] =
                Storage::Arena { buffer: buffers.len(), ring_rows: keep / layout.row_len };
        }
        buffers.push(Buffer {
            owner: Owner::Slot(head),
            bytes: tasks.layouts[head].bytes_of(keep / tasks.layouts[head].row_len),
            offset: 0,
            first_step: first,
            last_step: last,
            kept,
        });
    }
    for (slot, place) in storage.iter_mut().enumerate() {
        if let Source::Tensor(name) = &tasks.sources[tasks.root(slot)] {
            *place = Storage::Tensor(name.clone());
        }
    }
    (buffers, storage)
}

fn touches(graph: &Graph, tasks: &Tasks, steps: &[Step]) -> (Vec<Touch>, Vec<Touch>) {
    let (mut reads, mut writes) = (Vec::new(), Vec::new());
    for (time, step) in steps.iter().enumerate() {
        for TaskStep { task, rows, .. } in step.task_steps() {
            let task = &tasks.tasks[*task];
            let values = |slot: usize, rows: Range<usize>| {
                let length = tasks.layouts[slot].row_len;
                rows.start * length..rows.end * length
            };
            for (index, &slot) in task.inputs.iter().enumerate() {
                let rows = tasks.need(graph, task, index, rows.clone()).range(&tasks.layouts[slot]);
                if !rows.is_empty() {
                    reads.push(Touch { time, slot, values: values(slot, rows) });
                }
            }
            let slot = task.output;
            writes.push(Touch { time, slot, values: values(slot, rows.clone()) });
        }
    }
    (reads, writes)
}

/// Lets a result take over the buffer of an operand that nobody reads afterwards.
fn share(graph: &Graph, tasks: &Tasks, steps: &[Step], reads: &[Touch], class: &mut [usize]) {
    for (position, task) in tasks.tasks.iter().enumerate() {
        let times: Vec<(usize, &TaskStep)> = steps
            .iter()
            .enumerate()
            .filter_map(|(time, step)| match step {
                Step::Task(step) if step.task == position => Some((time, step)),
                _ => None,
            })
            .collect();
        let output = class[task.output];
        for (index, &slot) in task.inputs.iter().enumerate() {
            let head = class[slot];
            let takes_over = !times.is_empty()
                && output != head
                && tasks.in_place(graph, task, index)
                && tasks.sources[tasks.root(slot)] == Source::Computed
                && crosses_no_run(graph, tasks, class, position, head)
                && !graph.outputs.iter().any(|id| class[id.index()] == head)
                && times.iter().all(|&(time, step)| {
                    let end = step.rows.end * tasks.layouts[slot].row_len;
                    reads.iter().all(|read| {
                        class[read.slot] != head || read.time <= time || read.values.start >= end
                    })
                });
            if takes_over {
                for member in class.iter_mut().filter(|member| **member == output) {
                    *member = head;
                }
                break;
            }
        }
    }
}

/// True if a prologue task makes what some task of the body reads.
fn is_kept(tasks: &Tasks, class: &[usize], head: usize) -> bool {
    let (prologue, body) = tasks.tasks.split_at(tasks.prologue);
    prologue.iter().any(|task| class[task.output] == head)
        && body.iter().any(|task| task.inputs.iter().any(|&slot| class[slot] == head))
}

/// Whether a task may write over an operand without harm to the next run: the body must not write over what the prologue
/// made, and what the prologue made must not lie where inputs are set anew.
pub(super) fn crosses_no_run(
    graph: &Graph,
    tasks: &Tasks,
    class: &[usize],
    position: usize,
    head: usize,
) -> bool {
    let (prologue, _) = tasks.tasks.split_at(tasks.prologue);
    if position < tasks.prologue {
        return !graph.inputs.iter().any(|id| class[id.index()] == head);
    }
    !prologue.iter().any(|task| class[task.output] == head)
}

/// Values that a rolling buffer must keep so that nothing is overwritten before its last reader.
fn ring<'a>(
    whole: usize,
    times: usize,
    reads: impl Iterator<Item = &'a Touch>,
    writes: impl Iterator<Item = &'a Touch> + Clone,
    row_lens: impl Iterator<Item = usize>,
) -> usize {
    // The lowest value that is touched at a time or later.
    let mut low = vec![whole; times + 1];
    for touch in reads.chain(writes.clone()) {
        low[touch.time] = low[touch.time].min(touch.values.start);
    }
    for time in (0..times).rev() {
        low[time] = low[time].min(low[time + 1]);
    }
    let (mut high, mut keep) = (0, 0);
    for write in writes {
        high = high.max(write.values.end);
        keep = keep.max(high - low[write.time].min(high));
    }
    let unit = row_lens.fold(1, lcm);
    let keep = keep.div_ceil(unit) * unit;
    if whole.is_multiple_of(unit) { keep.min(whole) } else { whole }
}

fn lcm(a: usize, b: usize) -> usize {
    let gcd = |mut a: usize, mut b: usize| {
        while b != 0 {
            (a, b) = (b, a % b);
        }
        a
    };
    a / gcd(a, b) * b
}
