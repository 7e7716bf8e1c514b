//! A plan with every operand resolved: what the crew walks.

use std::cell::Cell;
use std::ops::{ControlFlow, Range};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use crate::arena::Arena;
use crate::graph::{DType, Graph, Op, ValueId, tensor_needs};
use crate::kernel::Kernels;
use crate::pack::TENSOR_ALIGN_BYTES;
use crate::plan::{Load, Padding, Plan, Residency, Storage, TaskStep};

use super::EngineError;
use super::context::{Context, Place, Portion, Stored, Work};
use super::memory::{Holding, Planned};
use super::pool::{Crew, Job, Stopped};
use super::resolve::{graph_error, is_short, portion, work};
use super::step;
use super::stream::Stream;
use super::weights::Weights;

/// One step: portions that run one after another, a barrier after each.
pub(super) struct Entry {
    portions: Vec<Portion>,
    /// Too short to be shared: worker 0 makes it.
    alone: bool,
    /// Tensors that the step reads.
    tensors: Vec<Needed>,
    /// Tables among weights that stay: the step reads some rows of them, and their hash all, but their pages need no place in
    /// this process.
    tables: Vec<Range<usize>>,
    /// Tables that are let go after the step.
    passing: Vec<Range<usize>>,
    /// Loads of streamed weights that the step waits for: so many.
    loads: usize,
    /// Set once tensors were compared with their hashes.
    verified: AtomicBool,
    /// Multiply-adds, all runs together.
    pub macs: AtomicU64,
    /// Nanoseconds that worker 0 spent here, all runs together.
    pub nanoseconds: AtomicU64,
}

/// A tensor that a step reads.
struct Needed {
    name: String,
    /// A table, most of which is let go at once.
    table: bool,
    place: Stored,
}

/// One network, ready to run.
pub(super) struct Program {
    pub graph: Arc<Graph>,
    pub plan: Plan,
    /// How the weights are held.
    pub holding: Holding,
    /// Pages of all weights that are read in the map.
    ranges: Vec<Range<usize>>,
    /// What is read when, if weights are streamed, and by whom.
    pub residency: Option<Residency>,
    loads: Arc<[Load]>,
    stream: Option<Arc<Stream>>,
    /// What the prologue made for these steady inputs is still there.
    kept: AtomicBool,
    /// Tokens of each sample that count in the next run.
    counting: AtomicUsize,
    pub entries: Vec<Entry>,
    works: Vec<Work>,
    kernels: &'static Kernels,
    weights: Arc<dyn Weights>,
    arena: Arc<Arena>,
    window: Arc<Arena>,
    cancelled: AtomicBool,
    damaged: AtomicBool,
    /// What the last meeting saw of these two, so that all workers leave at the same one.
    stopped: AtomicBool,
    damage: Mutex<Option<String>>,
    pub high_water: AtomicUsize,
}

impl Program {
    /// Resolves a plan.
    ///
    /// # Errors
    /// [`EngineError::Tensor`] or [`EngineError::TensorBytes`] if the pack lacks what the graph names.
    pub fn new(
        planned: Planned,
        kernels: &'static Kernels,
        weights: Arc<dyn Weights>,
        arena: Arc<Arena>,
        (window, stream): (Arc<Arena>, Option<Arc<Stream>>),
    ) -> Result<Self, EngineError> {
        let Planned { graph, plan, holding, residency, ranges } = planned;
        let mut runs = vec![(usize::MAX, 0); plan.tasks.tasks.len()];
        for (index, step) in plan.steps.iter().enumerate() {
            for TaskStep { task, .. } in step.task_steps() {
                runs[*task] = (runs[*task].0.min(index), index + 1);
            }
        }
        let works = (0..plan.tasks.tasks.len())
            .map(|index| {
                let steps = runs[index].0..runs[index].1;
                work(&graph, &plan, &*weights, residency.as_ref(), index, &steps)
            })
            .collect::<Result<Vec<_>, _>>()?;
        let mut entries = Vec::with_capacity(plan.steps.len());
        for (index, step) in plan.steps.iter().enumerate() {
            let (mut tensors, mut tables): (Vec<Needed>, Vec<_>) = Default::default();
            for TaskStep { task, .. } in step.task_steps() {
                let node = &graph.nodes[plan.tasks.tasks[*task].node];
                let needs =
                    tensor_needs(&graph, node).map_err(|fault| graph_error(&graph, node, fault))?;
                let (table, stays) =
                    (matches!(node.op, Op::Gather { .. }), holding == Holding::Resident);
                let places = &works[*task].tensors;
                tensors.extend(needs.iter().zip(places).map(|(need, &place)| Needed {
                    name: need.name.to_owned(),
                    table: table && !stays,
                    place,
                }));
                if table && stays {
                    tables.extend(places.iter().map(|at| at.start..at.start + at.bytes));
                }
                for (slot, view) in plan.tasks.tasks[*task].inputs.iter().zip(&works[*task].inputs)
                {
                    if let (Storage::Tensor(name), Place::Pack(place)) =
                        (&plan.storage[*slot], view.place)
                    {
                        tensors.push(Needed { name: name.clone(), table: false, place });
                    }
                }
            }
            let portions: Vec<Portion> =
                step.task_steps().iter().map(|step| portion(&graph, &plan, step)).collect();
            entries.push(Entry {
                alone: is_short(&graph, &plan, kernels, &portions),
                portions,
                tensors,
                tables,
                passing: passing(residency.as_ref(), index),
                loads: residency.as_ref().map_or(0, |residency| residency.loads_before(index)),
                verified: AtomicBool::new(false),
                macs: AtomicU64::new(0),
                nanoseconds: AtomicU64::new(0),
            });
        }
        Ok(Program {
            graph,
            plan,
            holding,
            ranges,
            loads: residency.iter().flat_map(|residency| residency.loads.iter().cloned()).collect(),
            residency,
            stream,
            kept: AtomicBool::new(false),
            counting: AtomicUsize::new(usize::MAX),
            entries,
            works,
            kernels,
            weights,
            arena,
            window,
            cancelled: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            damaged: AtomicBool::new(false),
            damage: Mutex::new(None),
            high_water: AtomicUsize::new(0),
        })
    }

    /// Before a run.
    pub fn reset(&self) {
        self.cancelled.store(false, Ordering::Release);
        self.stopped.store(false, Ordering::Release);
        self.damaged.store(false, Ordering::Release);
    }

    /// The first step of the next run: behind the prologue if what it makes is there.
    pub fn first_step(&self) -> usize {
        if self.kept.load(Ordering::Acquire) { self.plan.prologue_steps } else { 0 }
    }

    /// After a run that came to its end.
    pub fn keep(&self) {
        self.kept.store(self.plan.kept_bytes > 0, Ordering::Release);
    }

    /// The prologue must run again.
    pub fn forget(&self) {
        self.kept.store(false, Ordering::Release);
    }

    /// Takes note of an input: the mask of padding says how many tokens count.
    pub fn see(&self, input: &str, values: &[f32]) {
        let is_mask = |padding: &&Padding| self.graph.value(padding.mask).name == input;
        let Some(padding) = self.plan.padding.as_ref().filter(is_mask) else { return };
        let counting = counting(values, padding.tokens).unwrap_or(padding.tokens);
        if self.counting.swap(counting, Ordering::AcqRel) != counting {
            self.forget();
        }
    }

    /// Zeros for the rows of padding of an output.
    pub fn blank(&self, output: ValueId, values: &mut [f32]) {
        let (slot, layout) = (output.index(), &self.plan.tasks.layouts[output.index()]);
        let mut from = 0;
        for rows in self.plan.rows_made(slot, 0..layout.rows, self.counting.load(Ordering::Acquire))
        {
            values[from..rows.start * layout.row_len].fill(0.0);
            from = rows.end * layout.row_len;
        }
        values[from..].fill(0.0);
    }

    /// Before a run: what is streamed may be read. `anew` says that another network ran before.
    pub fn start(&self, anew: bool) {
        if let Some(stream) = &self.stream {
            stream.start(&self.loads, self.first_step(), anew);
        }
    }

    /// Asks for all weights in the map, before the first of some runs.
    pub fn fetch(&self) {
        self.ranges.iter().for_each(|range| self.weights.prefetch(range.clone()));
    }

    /// Whether weights are in memory after a run, to be let go when another network runs.
    pub fn keeps_weights(&self) -> bool {
        self.holding == Holding::Kept
    }

    /// Lets go of all weights.
    pub fn let_go(&self) {
        self.ranges.iter().for_each(|range| self.weights.release(range.clone()));
    }

    /// After a run: whether it was stopped, and by what.
    pub fn outcome(&self) -> Result<(), EngineError> {
        if let Some(sentence) = self.stream.as_ref().and_then(|stream| stream.finish()) {
            return Err(EngineError::Weights(sentence));
        }
        let damage = self.damage.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
        match damage {
            Some(sentence) => Err(EngineError::Weights(sentence)),
            None if self.cancelled.load(Ordering::Acquire) => Err(EngineError::Cancelled),
            None => Ok(()),
        }
    }

    /// Where a value lies in the arena: first byte, values, stored type.
    pub fn place(&self, value: ValueId) -> Option<(usize, usize, DType)> {
        let layout = &self.plan.tasks.layouts[value.index()];
        match self.plan.storage[value.index()] {
            Storage::Arena { buffer, .. } => {
                Some((self.plan.buffers[buffer].offset, layout.len(), layout.dtype))
            }
            _ => None,
        }
    }

    /// Multiply-adds of a portion as it is run now.
    fn macs(&self, work: &Work, portion: &Portion) -> u64 {
        let all = portion.row_macs * portion.rows.len() as u64;
        match &self.plan.padding {
            Some(padding) if work.spares_keys => {
                let counting = self.counting.load(Ordering::Relaxed).min(padding.tokens);
                all * counting as u64 / padding.tokens as u64
            }
            _ => all,
        }
    }

    /// Compares the tensors of a step with their hashes, shared out between the workers.
    fn verify(&self, cx: &Context<'_>, entry: &Entry) -> Result<(), Stopped> {
        for index in (0..entry.tensors.len()).skip(cx.crew.worker).step_by(cx.crew.workers) {
            let Needed { name, table, place } = &entry.tensors[index];
            let verified = match place.streamed {
                true => {
                    let bytes = place.bytes.next_multiple_of(TENSOR_ALIGN_BYTES);
                    self.weights.verify_bytes(name, cx.bytes(Stored { bytes, ..*place }))
                }
                false => self.weights.verify(name, *table),
            };
            if let Err(sentence) = verified {
                let mut damage =
                    self.damage.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                *damage = Some(sentence);
                self.damaged.store(true, Ordering::Release);
            }
        }
        self.meet(cx)?;
        if !self.stopped.load(Ordering::Acquire) {
            entry.verified.store(true, Ordering::Release);
        }
        Ok(())
    }

    /// This worker's share of a step.
    fn make(&self, cx: &Context<'_>, entry: &Entry) -> Result<(), Stopped> {
        for planned in &entry.portions {
            let work = &self.works[planned.work];
            let slot = self.plan.tasks.tasks[planned.work].output;
            let parts = || self.plan.rows_made(slot, planned.rows.clone(), cx.counting);
            // Several parts prepare their rows in one place, one after the other.
            let prepared = planned.prepared && parts().nth(1).is_none();
            for rows in parts() {
                let portion = Portion { rows, prepared, ..planned.clone() };
                step::run(cx, &self.graph, work, &portion)?;
                self.meet(cx)?;
                if cx.crew.worker == 0 {
                    entry.macs.fetch_add(self.macs(work, &portion), Ordering::Relaxed);
                }
            }
        }
        Ok(())
    }

    fn is_stopped(&self) -> bool {
        [&self.cancelled, &self.damaged].iter().any(|flag| flag.load(Ordering::Acquire))
    }

    /// Waits for all workers, who then agree on whether the run goes on.
    fn meet(&self, cx: &Context<'_>) -> Result<(), Stopped> {
        cx.crew.barrier(|| {
            self.arena.next_phase();
            self.window.next_phase();
            self.stopped.store(self.is_stopped(), Ordering::Release);
        })
    }
}

impl Job for Program {
    fn run(&self, crew: &Crew<'_>) -> Result<(), Stopped> {
        let cx = Context {
            kernels: self.kernels,
            weights: &*self.weights,
            arena: &self.arena,
            window: &self.window,
            crew,
            scratch_bytes: self.plan.scratch_bytes,
            counting: self.counting.load(Ordering::Acquire),
            high_water: Cell::new(0),
        };
        let one = crew.alone();
        let solo = Context { crew: &one, high_water: Cell::new(0), ..cx };
        let mut begun = Instant::now();
        for (index, entry) in self.entries.iter().enumerate().skip(self.first_step()) {
            // Between two steps of worker 0 nobody waits; it leaves later ones out when the run is stopped, and meets the others.
            let alone = entry.alone && crew.workers > 1;
            let verified = entry.verified.load(Ordering::Acquire);
            let mut left = alone && (crew.worker > 0 || self.is_stopped());
            if let Some(stream) = &self.stream {
                if crew.worker == 0 {
                    stream.begin(index);
                }
                if !(left && verified) && stream.wait(entry.loads).is_err() {
                    self.damaged.store(true, Ordering::Release);
                    if !(alone && verified) {
                        return self.meet(&cx);
                    }
                    left = true;
                }
            }
            if !verified {
                self.verify(&cx, entry)?;
                // What is done once is no part of the step's time.
                begun = Instant::now();
                if self.stopped.load(Ordering::Acquire) {
                    return Ok(());
                }
            }
            if !left {
                self.make(if alone { &solo } else { &cx }, entry)?;
            }
            if alone && self.entries.get(index + 1).is_some_and(|next| !next.alone) {
                self.meet(&cx)?;
            }
            let stopped = self.stopped.load(Ordering::Acquire);
            if crew.worker == 0 && !left {
                entry.tables.iter().for_each(|range| self.weights.unmap(range.clone()));
                entry.passing.iter().for_each(|range| self.weights.release(range.clone()));
                let now = Instant::now();
                let spent = now.duration_since(begun).as_nanos() as u64;
                entry.nanoseconds.fetch_add(spent, Ordering::Relaxed);
                begun = now;
                if !stopped && crew.report(index) == ControlFlow::Break(()) {
                    self.cancelled.store(true, Ordering::Release);
                }
            }
            if stopped || (crew.workers == 1 && self.cancelled.load(Ordering::Acquire)) {
                return Ok(());
            }
        }
        self.high_water.fetch_max(solo.high_water.get(), Ordering::AcqRel);
        self.high_water.fetch_max(cx.high_water.get(), Ordering::AcqRel);
        Ok(())
    }

    fn abandon(&self) {
        if let Some(stream) = &self.stream {
            stream.fail("a worker thread panicked");
        }
    }
}

/// Tables that are let go after a step.
fn passing(residency: Option<&Residency>, step: usize) -> Vec<Range<usize>> {
    let tables = residency.iter().flat_map(|residency| &residency.tables);
    tables.filter(|(last, _)| *last == step).map(|(_, range)| range.clone()).collect()
}

/// How many tokens of each sample a mask of ones and zeros lets count, the last one of any sample included; nothing if it
/// holds other numbers, or no token of some sample counts.
fn counting(mask: &[f32], tokens: usize) -> Option<usize> {
    if mask.iter().any(|&value| value != 0.0 && value != 1.0) {
        return None;
    }
    let used = |sample: &[f32]| sample.iter().rposition(|&value| value == 1.0).map(|last| last + 1);
    mask.chunks_exact(tokens).map(used).try_fold(0, |most, used| Some(most.max(used?)))
}
