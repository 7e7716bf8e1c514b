//! The engine: runs planned networks in one arena with a fixed crew of threads.
//!
//! Enters: graphs, weights, plans. Leaves: values of outputs, and where time went. Never: an allocation after
//! load, a thread after load, a result that depends on threads, tiling or budget.
//!
//! Every worker walks the same steps, takes its share of rows or panels and meets the others at a barrier
//! after each step; steps that take less time than a meeting are made by worker 0 alone. Networks of one engine run in turn in one arena, as large as the largest needs.

mod context;
mod error;
mod gate;
mod memory;
mod options;
mod pin;
mod pool;
mod process;
mod profile;
mod program;
mod resolve;
mod search;
mod step;
mod stream;
#[cfg(test)]
mod tests;
mod weights;

use std::cell::RefCell;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use half::f16;

use crate::arena::Arena;
use crate::graph::{Binding, DType, Graph, ValueId};
use crate::kernel::Kernels;
use crate::plan::{Plan, Residency, Step};

pub use error::EngineError;
pub use memory::{Holding, MemoryReport, NetworkMemory, Planned, plan_networks};
pub use options::{EngineOptions, PaddedTokens, SteadyInputs};
pub use pool::Stopped;
pub use process::{MARGIN_BYTES, resident_bytes};
pub use profile::OpProfile;
pub use weights::{MemoryWeights, Weights};

use pool::{Job, Pool};
use program::Program;
use stream::Stream;

/// A network of an engine, in the order in which they were given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NetworkIndex(pub usize);

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Steps that are done.
    pub done: usize,
    /// Steps in all.
    pub steps: usize,
}

/// Networks that share one arena and one crew.
pub struct Engine {
    pool: Pool,
    arena: Arc<Arena>,
    /// Where weights are that are streamed.
    window: Arc<Arena>,
    programs: Vec<Arc<Program>>,
    /// By network: all runs, and those with the prologue.
    runs: Vec<[u64; 2]>,
    kernels: &'static Kernels,
    memory: MemoryReport,
    /// The network that ran last.
    last: Option<usize>,
}

impl Engine {
    /// Plans networks, makes the arena and starts the threads.
    ///
    /// # Errors
    /// [`EngineError`]; nothing is left behind.
    pub fn load(
        weights: Arc<dyn Weights>,
        networks: &[(&Graph, Binding)],
        options: &EngineOptions,
    ) -> Result<Self, EngineError> {
        let (planned, memory) = plan_networks(&*weights, networks, options)?;
        Self::of_planned(weights, planned, memory, options)
    }

    /// As [`Engine::load`], with plans that [`plan_networks`] made for the same options.
    ///
    /// # Errors
    /// [`EngineError`].
    pub fn of_planned(
        weights: Arc<dyn Weights>,
        planned: Vec<Planned>,
        memory: MemoryReport,
        options: &EngineOptions,
    ) -> Result<Self, EngineError> {
        let kernels = match options.kernels {
            Some(kernels) => kernels,
            None => Kernels::chosen()?,
        };
        let bytes = planned.iter().map(|planned| planned.plan.end_bytes()).max().unwrap_or(0);
        let threads = planned.iter().map(|planned| planned.plan.options.threads).max().unwrap_or(1);
        let streams = planned.iter().any(|planned| planned.holding == Holding::Streamed);
        let arena = Arc::new(Arena::new(bytes)?);
        let window = |planned: &Planned| planned.residency.as_ref().map(|r| r.window_bytes);
        let window = Arc::new(Arena::new(planned.iter().filter_map(window).max().unwrap_or(0))?);
        // Zeroing has touched its pages, which nobody needs before a run.
        window.give_back();
        let stream = match streams {
            true => Some(Arc::new(Stream::new(weights.clone(), window.clone())?)),
            false => None,
        };
        let programs = planned
            .into_iter()
            .map(|planned| {
                let stream = stream.clone().filter(|_| planned.residency.is_some());
                let (weights, arena) = (weights.clone(), arena.clone());
                Program::new(planned, kernels, weights, arena, (window.clone(), stream))
                    .map(Arc::new)
            })
            .collect::<Result<Vec<_>, _>>()?;
        // Where pages are let go by plan, what the system reads ahead on its own would stay behind.
        weights.read_ahead(!streams);
        if !options.cores.is_empty() && options.cores.len() != threads {
            return Err(EngineError::Cores { threads, cores: options.cores.len() });
        }
        let pool = Pool::new(threads, &options.cores)?;
        let runs = vec![[0; 2]; programs.len()];
        Ok(Engine { pool, arena, window, programs, runs, kernels, memory, last: None })
    }

    /// A network by name.
    ///
    /// # Errors
    /// [`EngineError::Network`].
    pub fn network(&self, name: &str) -> Result<NetworkIndex, EngineError> {
        let mut found = (0..self.programs.len()).filter(|&i| self.programs[i].graph.name == name);
        match (found.next(), found.next()) {
            (Some(index), None) => Ok(NetworkIndex(index)),
            _ => {
                let names: Vec<&str> = self.programs.iter().map(|p| &*p.graph.name).collect();
                Err(EngineError::Network { name: name.to_owned(), has: names.join(", ") })
            }
        }
    }

    /// The plan of a network.
    pub fn plan(&self, network: NetworkIndex) -> &Plan {
        &self.programs[network.0].plan
    }

    /// What its weights are asked for and let go at each step, if they are streamed.
    pub fn residency(&self, network: NetworkIndex) -> Option<&Residency> {
        self.programs[network.0].residency.as_ref()
    }

    /// Networks.
    pub fn networks(&self) -> usize {
        self.programs.len()
    }

    /// The graph of a network.
    pub fn graph(&self, network: NetworkIndex) -> &Graph {
        &self.programs[network.0].graph
    }

    /// The kernels that run.
    pub fn kernels(&self) -> &'static Kernels {
        self.kernels
    }

    /// Workers, the caller counted.
    pub fn threads(&self) -> usize {
        self.pool.workers()
    }

    /// What the engine takes, as planned.
    pub fn memory(&self) -> &MemoryReport {
        &self.memory
    }

    /// Bytes of the arena.
    pub fn arena_bytes(&self) -> usize {
        self.arena.bytes()
    }

    /// The highest byte of the arena that a run of this network has touched so far.
    pub fn high_water_bytes(&self, network: NetworkIndex) -> usize {
        self.programs[network.0].high_water.load(Ordering::Acquire)
    }

    /// Writes a float input, rounded to its stored type. Inputs are used up: every run needs all of them anew,
    /// and no other network may run between.
    ///
    /// # Errors
    /// [`EngineError::Value`] or [`EngineError::Length`].
    pub fn set_input(
        &mut self,
        network: NetworkIndex,
        name: &str,
        values: &[f32],
    ) -> Result<(), EngineError> {
        let (offset, length, dtype) = self.input(network, name, "input", false)?;
        self.check_length(network, name, length, values.len())?;
        self.programs[network.0].see(name, values);
        match dtype {
            DType::F16 => {
                (self.kernels.store_f16)(values, self.arena.write::<f16>(0, offset, length));
            }
            DType::F32 => self.arena.write::<f32>(0, offset, length).copy_from_slice(values),
            DType::I32 => {
                let slots = self.arena.write::<i32>(0, offset, length);
                slots.iter_mut().zip(values).for_each(|(slot, &value)| *slot = value as i32);
            }
        }
        self.arena.next_phase();
        Ok(())
    }

    /// Writes an input of ids; see [`Engine::set_input`].
    ///
    /// # Errors
    /// [`EngineError::Value`] or [`EngineError::Length`].
    pub fn set_ids(
        &mut self,
        network: NetworkIndex,
        name: &str,
        ids: &[i32],
    ) -> Result<(), EngineError> {
        let (offset, length, _) = self.input(network, name, "id input", true)?;
        self.check_length(network, name, length, ids.len())?;
        self.arena.write::<i32>(0, offset, length).copy_from_slice(ids);
        self.arena.next_phase();
        Ok(())
    }

    /// Runs a network on its inputs.
    ///
    /// # Errors
    /// [`EngineError::Weights`] or [`EngineError::Stopped`].
    pub fn run(&mut self, network: NetworkIndex) -> Result<(), EngineError> {
        self.run_job(network, None)
    }

    /// As [`Engine::run`]; `observer` is called after each step and may stop the run.
    ///
    /// # Errors
    /// [`EngineError::Cancelled`] if it did.
    pub fn run_observed(
        &mut self,
        network: NetworkIndex,
        observer: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<(), EngineError> {
        let first = self.programs[network.0].first_step();
        let steps = self.programs[network.0].entries.len() - first;
        let observer = RefCell::new(observer);
        let report =
            |step: usize| (observer.borrow_mut())(Progress { done: step + 1 - first, steps });
        self.run_job(network, Some(&report))
    }

    fn run_job(
        &mut self,
        network: NetworkIndex,
        observer: Option<&pool::Observer<'_>>,
    ) -> Result<(), EngineError> {
        let anew = self.last != Some(network.0);
        if anew {
            // The networks' weights take turns in memory, wherever they lie.
            self.window.give_back();
            let before = self.last.map(|last| &self.programs[last]);
            if let Some(before) = before.filter(|program| program.keeps_weights()) {
                before.let_go();
            }
            if self.programs[network.0].keeps_weights() {
                self.programs[network.0].fetch();
            }
            self.last = Some(network.0);
        }
        let program = &self.programs[network.0];
        program.reset();
        // A clone counts a reference; the job itself was made at load.
        let job: Arc<dyn Job> = program.clone();
        program.start(anew);
        let stopped = self.pool.run(&job, observer);
        self.arena.next_phase();
        let outcome = program.outcome();
        stopped?;
        outcome?;
        let [runs, whole] = &mut self.runs[network.0];
        *runs += 1;
        *whole += u64::from(program.first_step() == 0);
        program.keep();
        Ok(())
    }

    /// Says that steady inputs of a network change ([`EngineOptions::steady`]): its next run computes anew what it keeps.
    /// A network that never ran has nothing to forget.
    pub fn forget(&mut self, network: NetworkIndex) {
        self.programs[network.0].forget();
    }

    /// Whether a run of this network would find what it keeps.
    pub fn remembers(&self, network: NetworkIndex) -> bool {
        self.programs[network.0].first_step() > 0
    }

    /// Values of an output.
    ///
    /// # Panics
    /// If there are not that many outputs.
    pub fn output_len(&self, network: NetworkIndex, index: usize) -> usize {
        let program = &self.programs[network.0];
        program.plan.tasks.layouts[program.graph.outputs[index].index()].len()
    }

    /// Reads an output, widened to f32, after a run and before any other. Rows of padding that the run did without
    /// ([`EngineOptions::padding`]) are zeros.
    ///
    /// # Errors
    /// [`EngineError::Value`] if there is no such output or it holds ids; [`EngineError::Length`].
    pub fn read_output(
        &mut self,
        network: NetworkIndex,
        index: usize,
        out: &mut [f32],
    ) -> Result<(), EngineError> {
        let program = &self.programs[network.0];
        let place = program.graph.outputs.get(index).and_then(|&id| program.place(id));
        let Some((offset, length, dtype @ (DType::F16 | DType::F32))) = place else {
            return Err(EngineError::Value {
                network: program.graph.name.clone(),
                what: "float output",
                name: index.to_string(),
                has: names(&program.graph, &program.graph.outputs),
            });
        };
        let name = &program.graph.value(program.graph.outputs[index]).name;
        self.check_length(network, name, length, out.len())?;
        match dtype {
            DType::F16 => (self.kernels.load_f16)(self.arena.read::<f16>(0, offset, length), out),
            _ => out.copy_from_slice(self.arena.read::<f32>(0, offset, length)),
        }
        program.blank(program.graph.outputs[index], out);
        self.arena.next_phase();
        Ok(())
    }

    /// Time and work by kind of op, all runs together, the longest first.
    pub fn profile(&self, network: NetworkIndex) -> Vec<OpProfile> {
        let program = &self.programs[network.0];
        let (plan, [all_runs, whole_runs]) = (&program.plan, self.runs[network.0]);
        let mut profiles: Vec<OpProfile> = Vec::new();
        for (index, (step, entry)) in plan.steps.iter().zip(&program.entries).enumerate() {
            let kept = plan.kept_bytes > 0 && index < plan.prologue_steps;
            let runs = if kept { whole_runs } else { all_runs };
            let seconds = entry.nanoseconds.load(Ordering::Relaxed) as f64 / 1e9;
            let op = match step {
                Step::Segment { .. } => "segment",
                Step::Task(step) => program.graph.nodes[plan.tasks.tasks[step.task].node].op.name(),
            };
            let index = profiles.iter().position(|p| p.op == op).unwrap_or_else(|| {
                profiles.push(OpProfile { op, steps: 0, seconds: 0.0, macs: 0 });
                profiles.len() - 1
            });
            profiles[index].steps += runs;
            profiles[index].seconds += seconds;
            profiles[index].macs += entry.macs.load(Ordering::Relaxed);
        }
        profiles.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
        profiles
    }

    fn input(
        &self,
        network: NetworkIndex,
        name: &str,
        what: &'static str,
        ids: bool,
    ) -> Result<(usize, usize, DType), EngineError> {
        let program = &self.programs[network.0];
        program
            .graph
            .input(name)
            .and_then(|id| program.place(id))
            .filter(|&(_, _, dtype)| !ids || dtype == DType::I32)
            .ok_or_else(|| EngineError::Value {
                network: program.graph.name.clone(),
                what,
                name: name.to_owned(),
                has: names(&program.graph, &program.graph.inputs),
            })
    }

    fn check_length(
        &self,
        network: NetworkIndex,
        name: &str,
        expected: usize,
        actual: usize,
    ) -> Result<(), EngineError> {
        if expected == actual {
            return Ok(());
        }
        let network = self.programs[network.0].graph.name.clone();
        Err(EngineError::Length { network, name: name.to_owned(), expected, actual })
    }
}

fn names(graph: &Graph, ids: &[ValueId]) -> String {
    let names: Vec<String> = ids.iter().map(|&id| format!("{:?}", graph.value(id).name)).collect();
    names.join(", ")
}
