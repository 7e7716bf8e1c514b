//! Proves a plan: no two regions that live together overlap, every access is inside its region, and every
//! row is made before it is read and kept until it was.

use crate::arena::ARENA_ALIGN;
use crate::graph::{DType, Graph, Op};

use super::quantised::{Scale, product_scale, stores_vectors};
use super::task::{Source, Task};
use super::{Buffer, Owner, Padding, Plan, Storage, TaskStep, counting_rows};

/// How a plan is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    /// Two regions share bytes at one time.
    #[error("regions {a} and {b} overlap at byte {byte} in step {step}")]
    Overlap {
        /// Index of a buffer.
        a: usize,
        /// Index of another.
        b: usize,
        /// Where.
        byte: usize,
        /// When.
        step: usize,
    },
    /// A region leaves the arena.
    #[error("region {buffer} ends at {end} in an arena of {arena} bytes")]
    Outside {
        /// Index of the buffer.
        buffer: usize,
        /// Its end.
        end: usize,
        /// Bytes of the arena.
        arena: usize,
    },
    /// A region starts between lines.
    #[error("region {buffer} starts at byte {offset}, not on a line")]
    Crooked {
        /// Index of the buffer.
        buffer: usize,
        /// Its start.
        offset: usize,
    },
    /// A step touches a slot that has no region then.
    #[error("slot {slot} has no region in step {step}")]
    NoRegion {
        /// Slot.
        slot: usize,
        /// When.
        step: usize,
    },
    /// A row is read before it is made or after it is gone.
    #[error("row {row} of slot {slot} does not hold its values when step {step} reads it")]
    Stale {
        /// Row.
        row: usize,
        /// Slot.
        slot: usize,
        /// When.
        step: usize,
    },
    /// A step takes rows as prepared that its scratch does not hold.
    #[error("the scratch of step {step} does not hold the rows of slot {slot}")]
    Unprepared {
        /// Slot.
        slot: usize,
        /// When.
        step: usize,
    },
    /// A region is smaller than the rows that it keeps of a slot.
    #[error("region {buffer} has {bytes} bytes but the rows of slot {slot} take {needed}")]
    Small {
        /// Index of the buffer.
        buffer: usize,
        /// Its size.
        bytes: usize,
        /// Slot.
        slot: usize,
        /// Bytes of the rows that are kept.
        needed: usize,
    },
    /// A slot is stored in a form that its maker does not write or that a reader does not take.
    #[error("task {task} does not work with the form in which slot {slot} is stored")]
    Form {
        /// Slot.
        slot: usize,
        /// Task.
        task: usize,
    },
    /// Rows that nobody makes.
    #[error("slot {slot} has {made} of {rows} rows at the end")]
    Unfinished {
        /// Slot.
        slot: usize,
        /// Rows made.
        made: usize,
        /// Rows in all.
        rows: usize,
    },
}

/// Checks a whole plan.
///
/// # Errors
/// The first [`CheckError`] found.
pub fn check(graph: &Graph, plan: &Plan) -> Result<(), CheckError> {
    disjoint(&plan.buffers, plan.end_bytes())?;
    lives(plan)?;
    sizes(plan)?;
    forms(graph, plan)?;
    prepared(graph, plan)?;
    rows(graph, plan, usize::MAX)?;
    // Where padding is left out, one token is the least that can count.
    if plan.padding.is_some() { rows(graph, plan, 1) } else { Ok(()) }
}

/// Checks that buffers that live together do not overlap and lie in an arena of this size.
///
/// # Errors
/// [`CheckError::Outside`], [`CheckError::Crooked`] or [`CheckError::Overlap`].
pub fn disjoint(buffers: &[Buffer], arena_bytes: usize) -> Result<(), CheckError> {
    for (a, one) in buffers.iter().enumerate() {
        let end = one.offset + one.bytes;
        if end > arena_bytes {
            return Err(CheckError::Outside { buffer: a, end, arena: arena_bytes });
        }
        if !one.offset.is_multiple_of(ARENA_ALIGN) {
            return Err(CheckError::Crooked { buffer: a, offset: one.offset });
        }
        for (b, other) in buffers.iter().enumerate().skip(a + 1) {
            let apart = end <= other.offset || other.offset + other.bytes <= one.offset;
            if one.lives_with(other) && !apart {
                let byte = one.offset.max(other.offset);
                let step = one.first_step.max(other.first_step);
                return Err(CheckError::Overlap { a, b, byte, step });
            }
        }
    }
    Ok(())
}

/// Every slot and scratch that a step touches has a region that lives then.
fn lives(plan: &Plan) -> Result<(), CheckError> {
    let alive = |buffer: usize, step: usize| {
        plan.buffers.get(buffer).is_some_and(|b| (b.first_step..=b.last_step).contains(&step))
    };
    for (time, step) in plan.steps.iter().enumerate() {
        for TaskStep { task, scratch, .. } in step.task_steps() {
            let task = &plan.tasks.tasks[*task];
            for &slot in task.inputs.iter().chain([&task.output]) {
                let held = match &plan.storage[slot] {
                    Storage::Arena { buffer, .. } => alive(*buffer, time),
                    Storage::Tensor(_) => slot != task.output,
                    Storage::None => false,
                };
                if !held {
                    return Err(CheckError::NoRegion { slot, step: time });
                }
            }
            if let Some(buffer) = *scratch
                && (!alive(buffer, time) || plan.buffers[buffer].owner != Owner::Scratch)
            {
                return Err(CheckError::NoRegion { slot: task.output, step: time });
            }
        }
    }
    Ok(())
}

/// What is kept of each slot fits its region.
fn sizes(plan: &Plan) -> Result<(), CheckError> {
    for (slot, storage) in plan.storage.iter().enumerate() {
        if let Storage::Arena { buffer, ring_rows } = *storage {
            let (bytes, needed) =
                (plan.buffers[buffer].bytes, plan.tasks.layouts[slot].bytes_of(ring_rows));
            if needed > bytes {
                return Err(CheckError::Small { buffer, bytes, slot, needed });
            }
        }
    }
    Ok(())
}

/// Quantised rows are made by tasks that can, read by products that quantise them so, and seen by nobody else; slots that share
/// bytes have one form.
fn forms(graph: &Graph, plan: &Plan) -> Result<(), CheckError> {
    let tasks = &plan.tasks;
    for (index, task) in tasks.tasks.iter().enumerate() {
        let layout = &tasks.layouts[task.output];
        let made = layout.quantised.is_none()
            || stores_vectors(graph, task)
                && layout.dtype == DType::F16
                && layout.quantised != Some(Scale::Row)
                && tasks.root(task.output) == task.output;
        if !made {
            return Err(CheckError::Form { slot: task.output, task: index });
        }
        for (operand, &slot) in task.inputs.iter().enumerate() {
            let (layout, root) = (&tasks.layouts[slot], &tasks.layouts[tasks.root(slot)]);
            let scale = product_scale(&graph.nodes[task.node].op).filter(|_| operand == 0);
            let taken = layout.quantised.is_none()
                || layout.quantised == scale && layout.channels() == root.channels();
            if !taken || layout.quantised != root.quantised {
                return Err(CheckError::Form { slot, task: index });
            }
        }
    }
    let outside = graph.inputs.iter().chain(&graph.outputs).map(|id| id.index());
    let mut forms = vec![None; plan.buffers.len()];
    let stored = plan.storage.iter().enumerate().filter_map(|(slot, storage)| match storage {
        Storage::Arena { buffer, .. } => Some((slot, *buffer)),
        _ => None,
    });
    for (slot, buffer) in stored {
        let form = tasks.layouts[slot].quantised;
        let task = tasks.tasks.iter().position(|task| task.output == slot).unwrap_or_default();
        if *forms[buffer].get_or_insert(form) != form
            || form.is_some() && outside.clone().any(|id| id == slot)
        {
            return Err(CheckError::Form { slot, task });
        }
    }
    Ok(())
}

/// Whoever takes the rows of its operand as prepared finds them where the step before that used this scratch put them, in the
/// same runs.
fn prepared(graph: &Graph, plan: &Plan) -> Result<(), CheckError> {
    let tasks = &plan.tasks;
    let mut held: Vec<Option<(usize, bool)>> = vec![None; plan.buffers.len()];
    for (time, step) in plan.steps.iter().enumerate() {
        for TaskStep { task, scratch, prepared, .. } in step.task_steps() {
            let Some(buffer) = *scratch else { continue };
            let Task { node, inputs, output, .. } = &tasks.tasks[*task];
            let product = matches!(graph.nodes[*node].op, Op::MatmulI8 { .. });
            let rows = product.then(|| (tasks.root(inputs[0]), *task < tasks.prologue));
            if *prepared && (held[buffer] != rows || !product) {
                let slot = inputs.first().copied().unwrap_or(*output);
                return Err(CheckError::Unprepared { slot, step: time });
            }
            held[buffer] = rows;
        }
    }
    Ok(())
}

/// Plays the steps row by row, so many tokens of each sample counting, and watches what each place of each buffer holds.
fn rows(graph: &Graph, plan: &Plan, counting: usize) -> Result<(), CheckError> {
    let tasks = &plan.tasks;
    // By buffer, by place of its smallest row: the values (root slot, index of the first one) it holds.
    let mut unit = vec![0; plan.buffers.len()];
    let mut kept = vec![0; plan.buffers.len()];
    for (slot, storage) in plan.storage.iter().enumerate() {
        if let Storage::Arena { buffer, ring_rows } = *storage {
            let row_len = tasks.layouts[slot].row_len;
            unit[buffer] = gcd(unit[buffer], row_len);
            kept[buffer] = kept[buffer].max(ring_rows * row_len);
        }
    }
    let mut held: Vec<Vec<Option<(usize, usize)>>> =
        kept.iter().zip(&unit).map(|(kept, unit)| vec![None; kept / (*unit).max(1)]).collect();
    let places = |slot: usize, row: usize| {
        let Storage::Arena { buffer, ring_rows } = plan.storage[slot] else { return None };
        let row_len = tasks.layouts[slot].row_len;
        let parts = row_len / unit[buffer];
        Some((buffer, row % ring_rows * parts, row * parts, parts))
    };
    let write = |held: &mut Vec<Vec<Option<(usize, usize)>>>, slot: usize, row: usize| {
        if let Some((buffer, place, first, parts)) = places(slot, row) {
            let root = tasks.root(slot);
            for part in 0..parts {
                held[buffer][place + part] = Some((root, first + part));
            }
        }
    };
    let stale = |held: &Vec<Vec<Option<(usize, usize)>>>, slot: usize, row: usize| {
        places(slot, row).is_some_and(|(buffer, place, first, parts)| {
            let root = tasks.root(slot);
            (0..parts).any(|part| held[buffer][place + part] != Some((root, first + part)))
        })
    };
    let feed = |held: &mut Vec<Vec<Option<(usize, usize)>>>| {
        for input in &graph.inputs {
            for row in 0..tasks.layouts[input.index()].rows {
                write(held, input.index(), row);
            }
        }
    };
    feed(&mut held);
    // The second time without the prologue, after other networks had the arena.
    let first = plan.steps.iter().enumerate();
    let again =
        first.clone().skip(if plan.kept_bytes > 0 { plan.prologue_steps } else { usize::MAX });
    for (place, (time, step)) in first.chain(again).enumerate() {
        if place == plan.steps.len() {
            let lost = plan.buffers.iter().zip(&mut held).filter(|(buffer, _)| !buffer.kept);
            lost.for_each(|(_, held)| held.fill(None));
            feed(&mut held);
        }
        let made = |step: &TaskStep| {
            let output = tasks.tasks[step.task].output;
            let index = step.task;
            plan.rows_made(output, step.rows.clone(), counting).map(move |rows| (index, rows))
        };
        for (index, rows) in step.task_steps().iter().flat_map(made) {
            let task = &tasks.tasks[index];
            for (operand, &slot) in task.inputs.iter().enumerate() {
                let needed = tasks.need(graph, task, operand, rows.clone());
                let needed = needed.range(&tasks.layouts[slot]);
                let hides =
                    |padding: &&Padding| (1..=2).contains(&operand) && padding.spares_keys(index);
                let tokens = plan.padding.as_ref().filter(hides).map(|padding| padding.tokens);
                let mut needed =
                    counting_rows(needed, tokens.unwrap_or(counting), counting).flatten();
                if let Some(row) = needed.find(|&row| stale(&held, slot, row)) {
                    return Err(CheckError::Stale { row, slot, step: time });
                }
            }
            for row in rows {
                write(&mut held, task.output, row);
            }
        }
    }
    for output in &graph.outputs {
        let slot = output.index();
        if tasks.sources[tasks.root(slot)] == Source::Unused {
            continue;
        }
        let all = || plan.rows_made(slot, 0..tasks.layouts[slot].rows, counting).flatten();
        let (made, rows) = (all().filter(|&row| !stale(&held, slot, row)).count(), all().count());
        if made != rows {
            return Err(CheckError::Unfinished { slot, made, rows });
        }
    }
    Ok(())
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}
