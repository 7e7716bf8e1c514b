//! The choice of plans for all networks of an engine inside one budget.
//!
//! Networks run in turn in one arena, so that memory is: the process, the arena of the hungriest network, and
//! weights. Weights of all networks stay in memory if that fits; else those of the network that runs; else only
//! the window around the step that runs. Smaller arenas (less scratch, strips) come before streaming for a
//! network that runs many times, after it for one that runs once; of the first one's weights, those that there is room for
//! stay until another network runs. What a network keeps over many runs ([`SteadyInputs`]) lies behind the arena; where that
//! would make its weights stream, or finds no room, it is computed every time.
//!
//! [`SteadyInputs`]: super::SteadyInputs

use std::ops::Range;
use std::sync::Arc;

use crate::graph::{Binding, Graph, Op, ValueId, tensor_needs};
use crate::pack::{CACHE_BLOCK_BYTES, PAGE_BYTES};
use crate::plan::{
    PaddingMask, Plan, PlanOptions, PlanRecipe, Residency, Storage, TaskStep, Use, residency,
    weight_bytes,
};

use super::process::{MARGIN_BYTES, resident_bytes};
use super::weights::Weights;
use super::{EngineError, EngineOptions};

/// How a network's weights are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Holding {
    /// Never let go.
    Resident,
    /// Let go when another network runs.
    Kept,
    /// Read ahead and let go step by step.
    Streamed,
}

/// What an engine takes, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct MemoryReport {
    /// The budget that was given.
    pub budget_bytes: Option<u64>,
    /// Code, heap, stacks as measured, and the margin beside them.
    pub process_bytes: u64,
    /// Kept for the caller.
    pub reserve_bytes: u64,
    /// The arena, with what is kept over many runs behind it.
    pub arena_bytes: u64,
    /// The most bytes of weights at one time.
    pub weight_bytes: u64,
    /// By network: how its weights are held, the most bytes of them at one time, bytes that a run reads.
    pub networks: Vec<NetworkMemory>,
}

/// One network's part of a [`MemoryReport`].
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct NetworkMemory {
    /// Its name.
    pub network: String,
    /// How its weights are held.
    pub holding: Holding,
    /// Bytes of its arena.
    pub arena_bytes: u64,
    /// Bytes that it keeps over many runs, beside the arena.
    pub kept_bytes: u64,
    /// Most bytes of weights at one time.
    pub held_bytes: u64,
    /// Bytes of all its weights.
    pub weight_bytes: u64,
    /// Bytes that each run reads from storage; those of the first one where weights are not streamed.
    pub read_bytes: u64,
    /// The same of a run whose steady inputs are those of the one before.
    pub later_read_bytes: u64,
}

impl MemoryReport {
    /// All together.
    pub fn total_bytes(&self) -> u64 {
        self.process_bytes + self.reserve_bytes + self.arena_bytes + self.weight_bytes
    }
}

/// A planned network.
pub struct Planned {
    /// The graph.
    pub graph: Arc<Graph>,
    /// Its plan.
    pub plan: Plan,
    /// How its weights are held.
    pub holding: Holding,
    /// What is asked for and let go at each step, for streamed weights.
    pub residency: Option<Residency>,
    /// The same for a run that leaves the prologue out, by step of the body.
    pub later_residency: Option<Residency>,
    /// Runs of pages that hold its weights.
    pub ranges: Vec<Range<usize>>,
}

/// One way to run a network.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    recipe: usize,
    arena: usize,
    /// Bytes that are kept over many runs, beside the arena.
    kept: usize,
    holding: Holding,
    /// Steps that pages are asked for early.
    ahead: usize,
    held: usize,
    cost: u64,
}

/// Cost of streaming the weights of a network that runs many times.
const STREAMED_MANY: u64 = 100;
/// Cost of computing every time what could be kept: less than a smaller arena.
const RECOMPUTED: u64 = 2;

/// Plans networks: the fastest that is within the budget.
///
/// # Errors
/// [`EngineError::Budget`] with the smallest budget that works.
pub fn plan_networks(
    weights: &dyn Weights,
    networks: &[(&Graph, Binding)],
    options: &EngineOptions,
) -> Result<(Vec<Planned>, MemoryReport), EngineError> {
    let process_bytes = match options.process_bytes {
        Some(bytes) => bytes,
        None => resident_bytes().unwrap_or(8 << 20) + MARGIN_BYTES,
    };
    let fixed = process_bytes + options.reserve_bytes;
    let limit = options.budget_bytes.unwrap_or(u64::MAX);
    let allowed = usize::try_from(limit.saturating_sub(fixed)).unwrap_or(usize::MAX);
    let mut search =
        Search { weights, networks, options, allowed, candidates: Vec::new(), totals: Vec::new() };
    let mut choice = None;
    for recipe in 0..PlanRecipe::ALL.len() {
        search.extend(recipe, false)?;
        choice = search.choose();
        let streams = |choice: &Vec<Candidate>| choice.iter().any(|c| c.cost >= STREAMED_MANY);
        if choice.as_ref().is_none_or(streams) && search.keeps() {
            search.extend(recipe, true)?;
            choice = search.choose();
        }
        if choice.is_some() {
            break;
        }
    }
    let Some(choice) = choice else {
        let needed = search.smallest();
        return Err(EngineError::Budget {
            budget_bytes: limit,
            needed_bytes: fixed + needed.0 as u64 + needed.1 as u64,
            process_bytes: fixed,
            arena_bytes: needed.0 as u64,
            weight_bytes: needed.1 as u64,
        });
    };
    search.build(&choice, process_bytes)
}

/// One of a graph's inputs or outputs by its name.
fn find(
    graph: &Graph,
    what: &'static str,
    name: &str,
    among: &[ValueId],
) -> Result<ValueId, EngineError> {
    among.iter().copied().find(|&id| graph.value(id).name == name).ok_or_else(|| {
        EngineError::Value {
            network: graph.name.clone(),
            what,
            name: name.to_owned(),
            has: super::names(graph, among),
        }
    })
}

struct Search<'a> {
    weights: &'a dyn Weights,
    networks: &'a [(&'a Graph, Binding)],
    options: &'a EngineOptions,
    /// Bytes of arena and weights.
    allowed: usize,
    /// By network.
    candidates: Vec<Vec<Candidate>>,
    /// By network: bytes of all weights.
    totals: Vec<usize>,
}

impl Search<'_> {
    fn plan(&self, network: usize, recipe: usize, recompute: bool) -> Result<Plan, EngineError> {
        let (graph, binding) = self.networks[network];
        let options = PlanOptions {
            steady: self.steady(network)?,
            recompute,
            padding: self.padding(network)?,
            ..PlanOptions::new(binding, self.options.threads)
        };
        Ok(Plan::of_recipe(graph, &options, PlanRecipe::ALL[recipe])?)
    }

    /// Inputs of a network that stay the same over many runs.
    fn steady(&self, network: usize) -> Result<Vec<ValueId>, EngineError> {
        let graph = self.networks[network].0;
        let Some(steady) = &self.options.steady else { return Ok(Vec::new()) };
        if steady.network != graph.name {
            return Ok(Vec::new());
        }
        steady.inputs.iter().map(|name| find(graph, "input", name, &graph.inputs)).collect()
    }

    /// What tells padding from tokens that count.
    fn padding(&self, network: usize) -> Result<Option<PaddingMask>, EngineError> {
        let graph = self.networks[network].0;
        let Some(known) = self.options.padding.iter().find(|known| known.network == graph.name)
        else {
            return Ok(None);
        };
        let mask = find(graph, "input", &known.mask, &graph.inputs)?;
        let outputs = known.outputs.iter();
        let outputs = outputs
            .map(|name| find(graph, "output", name, &graph.outputs))
            .collect::<Result<_, _>>()?;
        Ok(Some(PaddingMask { mask, outputs }))
    }

    /// Whether some candidate keeps something.
    fn keeps(&self) -> bool {
        self.candidates.iter().flatten().any(|candidate| candidate.kept > 0)
    }

    fn uses(&self, network: usize, plan: &Plan) -> Result<Vec<Vec<Use>>, EngineError> {
        uses(self.weights, self.networks[network].0, plan)
    }

    /// Adds the candidates of one more recipe; with `recompute` those that keep nothing, of networks that could.
    fn extend(&mut self, recipe: usize, recompute: bool) -> Result<(), EngineError> {
        for network in 0..self.networks.len() {
            if recompute && self.candidates[network].iter().all(|c| c.kept == 0) {
                continue;
            }
            let plan = self.plan(network, recipe, recompute)?;
            if plan.arena_bytes > self.options.arena_bytes_max && recipe + 1 < PlanRecipe::ALL.len()
            {
                if self.candidates.len() == network {
                    self.candidates.push(Vec::new());
                    let uses = self.uses(network, &plan)?;
                    self.totals.push(weight_bytes(&uses));
                }
                continue;
            }
            let uses = self.uses(network, &plan)?;
            if self.candidates.len() == network {
                self.candidates.push(Vec::new());
                self.totals.push(weight_bytes(&uses));
            }
            let (total, arena, kept) = (self.totals[network], plan.arena_bytes, plan.kept_bytes);
            // A network that runs many times would read its weights from storage as often.
            let many = self.networks[network].0.name == "denoiser";
            for (holding, ahead, held, cost) in [
                (Holding::Kept, 0, total, 1),
                (
                    Holding::Streamed,
                    1,
                    residency(&uses, 1, &(0..0)).window_bytes,
                    if many { STREAMED_MANY } else { 0 },
                ),
                (
                    Holding::Streamed,
                    0,
                    residency(&uses, 0, &(0..0)).window_bytes,
                    if many { 2 * STREAMED_MANY } else { 2 },
                ),
            ] {
                let cost = cost + 3 * recipe as u64 + if recompute { RECOMPUTED } else { 0 };
                let candidate = Candidate { recipe, arena, kept, holding, ahead, held, cost };
                self.candidates[network].push(candidate);
            }
        }
        Ok(())
    }

    /// The cheapest candidates that fit together.
    fn choose(&self) -> Option<Vec<Candidate>> {
        let allowed = self.allowed;
        let everything: usize = self.totals.iter().sum();
        let kept = |list: &Vec<Candidate>| list.iter().map(|c| c.kept).max().unwrap_or(0);
        let kept: usize = self.candidates.iter().map(kept).sum();
        let mut arenas: Vec<usize> = self.candidates.iter().flatten().map(|c| c.arena).collect();
        arenas.sort_unstable();
        arenas.dedup();
        let mut best: Option<(u64, Vec<Candidate>)> = None;
        let choices = arenas.iter().flat_map(|&arena| [(arena, kept), (arena, 0)]);
        for (arena, kept) in choices.filter(|&(arena, kept)| arena + kept <= allowed) {
            let left = allowed - arena - kept;
            // All weights stay if they fit, and cost nothing after the first picture.
            let picks: Option<Vec<Candidate>> = self
                .candidates
                .iter()
                .map(|list| {
                    let fits = list.iter().filter(|c| c.arena <= arena && c.kept <= kept);
                    if everything <= left {
                        let kept = fits.filter(|c| c.holding == Holding::Kept);
                        kept.min_by_key(|c| c.cost).map(|c| Candidate {
                            holding: Holding::Resident,
                            cost: c.cost - 1,
                            ..*c
                        })
                    } else {
                        fits.filter(|c| c.held <= left).min_by_key(|c| (c.cost, c.held)).copied()
                    }
                })
                .collect();
            if let Some(picks) = picks {
                let cost: u64 = picks.iter().map(|c| c.cost).sum();
                if best.as_ref().is_none_or(|&(least, _)| cost < least) {
                    best = Some((cost, picks));
                }
            }
        }
        best.map(|(_, picks)| picks)
    }

    /// Arena and weights of the smallest combination, which keeps nothing.
    fn smallest(&self) -> (usize, usize) {
        let small: Vec<Vec<Candidate>> = self
            .candidates
            .iter()
            .map(|list| list.iter().filter(|c| c.kept == 0).copied().collect())
            .collect();
        let mut arenas: Vec<usize> = small.iter().flatten().map(|c| c.arena).collect();
        arenas.sort_unstable();
        arenas
            .into_iter()
            .filter_map(|arena| {
                let held: Option<Vec<usize>> = small
                    .iter()
                    .map(|list| list.iter().filter(|c| c.arena <= arena).map(|c| c.held).min())
                    .collect();
                Some((arena, held?.into_iter().max().unwrap_or(0)))
            })
            .min_by_key(|&(arena, held)| arena + held)
            .unwrap_or((0, 0))
    }

    /// The pages of a streamed network that stay in memory between its runs: the first ones, as many as the budget has
    /// room for beside the window.
    fn stays(&self, network: usize, choice: &[Candidate], uses: &[Vec<Use>]) -> Range<usize> {
        let candidate = choice[network];
        let many = self.networks.len() == 1 || self.networks[network].0.name == "denoiser";
        let ranges = crate::plan::weight_ranges(uses);
        let (Some(first), Some(last)) = (ranges.first(), ranges.last()) else { return 0..0 };
        if !many || candidate.holding != Holding::Streamed {
            return first.start..first.start;
        }
        let arena = choice.iter().map(|c| c.arena).max().unwrap_or(0);
        let kept: usize = choice.iter().map(|c| c.kept).sum();
        // The page cache holds whole blocks, so that the last page that stays may hold some that should go.
        let taken = arena + kept + candidate.held + CACHE_BLOCK_BYTES;
        let spare = self.allowed.saturating_sub(taken) / PAGE_BYTES * PAGE_BYTES;
        first.start..last.end.min(first.start + spare)
    }

    fn build(
        &self,
        choice: &[Candidate],
        process_bytes: u64,
    ) -> Result<(Vec<Planned>, MemoryReport), EngineError> {
        let (mut planned, mut reports) = (Vec::new(), Vec::new());
        let (mut arena_bytes, mut window) = (0u64, 0u64);
        for (network, candidate) in choice.iter().enumerate() {
            let keeps = self.candidates[network].iter().any(|c| c.kept > 0);
            let plan = self.plan(network, candidate.recipe, keeps && candidate.kept == 0)?;
            let uses = self.uses(network, &plan)?;
            let streamed = candidate.holding == Holding::Streamed;
            let stays = self.stays(network, choice, &uses);
            let of =
                |steps: &[Vec<Use>]| streamed.then(|| residency(steps, candidate.ahead, &stays));
            let (residency, later) = (of(&uses), of(&uses[plan.prologue_steps..]));
            let total = self.totals[network] as u64;
            arena_bytes = arena_bytes.max(plan.arena_bytes as u64);
            let held = (candidate.held + stays.len()) as u64;
            window = match candidate.holding {
                Holding::Resident => window + total,
                _ => window.max(held),
            };
            reports.push(NetworkMemory {
                network: plan.network.clone(),
                holding: candidate.holding,
                arena_bytes: plan.arena_bytes as u64,
                kept_bytes: plan.kept_bytes as u64,
                held_bytes: held,
                weight_bytes: total,
                read_bytes: residency.as_ref().map_or(total, |r| (r.bytes + r.kept_bytes) as u64),
                later_read_bytes: later.as_ref().map_or(0, |r| r.bytes as u64),
            });
            planned.push(Planned {
                graph: Arc::new(self.networks[network].0.clone()),
                holding: candidate.holding,
                residency,
                later_residency: later,
                ranges: crate::plan::weight_ranges(&uses),
                plan,
            });
        }
        for Planned { plan, .. } in &mut planned {
            plan.move_kept(arena_bytes as usize);
            arena_bytes += plan.kept_bytes as u64;
        }
        let report = MemoryReport {
            budget_bytes: self.options.budget_bytes,
            process_bytes,
            reserve_bytes: self.options.reserve_bytes,
            arena_bytes,
            weight_bytes: window,
            networks: reports,
        };
        Ok((planned, report))
    }
}

/// By step of a plan: what it reads of the pack.
pub(super) fn uses(
    weights: &dyn Weights,
    graph: &Graph,
    plan: &Plan,
) -> Result<Vec<Vec<Use>>, EngineError> {
    plan.steps
        .iter()
        .map(|step| {
            let mut uses = Vec::new();
            for TaskStep { task, .. } in step.task_steps() {
                let task = &plan.tasks.tasks[*task];
                let node = &graph.nodes[task.node];
                let error = |tensor: &str| EngineError::Tensor {
                    network: graph.name.clone(),
                    node: node.name.clone(),
                    tensor: tensor.to_owned(),
                };
                let needs = tensor_needs(graph, node).map_err(|fault| EngineError::Graph {
                    network: graph.name.clone(),
                    node: node.name.clone(),
                    fault,
                })?;
                let rows = matches!(node.op, Op::Gather { .. })
                    .then(|| plan.tasks.layouts[task.output].rows);
                for need in needs {
                    let range = weights.find(need.name).ok_or_else(|| error(need.name))?;
                    uses.push(Use { range, rows });
                }
                for &slot in &task.inputs {
                    if let Storage::Tensor(name) = &plan.storage[slot] {
                        let range = weights.find(name).ok_or_else(|| error(name))?;
                        uses.push(Use { range, rows: None });
                    }
                }
            }
            Ok(uses)
        })
        .collect()
}
