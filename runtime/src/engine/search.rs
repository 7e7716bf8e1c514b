//! The search for the cheapest way to run all networks of an engine together.

use std::sync::Arc;

use crate::graph::{Binding, Graph, ValueId};
use crate::plan::{
    PaddingMask, Plan, PlanOptions, PlanRecipe, Residency, Use, weight_bytes, weight_ranges,
};

use super::memory::{Holding, MemoryReport, NetworkMemory, Planned, uses};
use super::weights::Weights;
use super::{EngineError, EngineOptions};

/// One way to run a network.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    recipe: usize,
    arena: usize,
    /// Bytes that are kept over many runs, beside the arena.
    kept: usize,
    holding: Holding,
    /// Steps that weights are read early at least.
    ahead: usize,
    held: usize,
    cost: u64,
}

impl Candidate {
    /// Whether it reads weights from storage over and over.
    pub fn streams_often(&self) -> bool {
        self.cost >= STREAMED_MANY
    }
}

/// Cost of streaming the weights of a network that runs many times.
const STREAMED_MANY: u64 = 100;
/// Cost of computing every time what could be kept: less than a smaller arena.
const RECOMPUTED: u64 = 2;

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

/// All networks of an engine, and the ways to run each.
pub(super) struct Search<'a> {
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

impl<'a> Search<'a> {
    /// No candidates yet.
    pub fn new(
        weights: &'a dyn Weights,
        networks: &'a [(&'a Graph, Binding)],
        options: &'a EngineOptions,
        allowed: usize,
    ) -> Self {
        Search { weights, networks, options, allowed, candidates: Vec::new(), totals: Vec::new() }
    }

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
    pub fn keeps(&self) -> bool {
        self.candidates.iter().flatten().any(|candidate| candidate.kept > 0)
    }

    fn uses(&self, network: usize, plan: &Plan) -> Result<Vec<Vec<Use>>, EngineError> {
        uses(self.weights, self.networks[network].0, plan)
    }

    /// Adds the candidates of one more recipe; with `recompute` those that keep nothing, of networks that could.
    pub fn extend(&mut self, recipe: usize, recompute: bool) -> Result<(), EngineError> {
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
            let streamed = |ahead| Residency::streamed(&uses, ahead).held_bytes();
            for (holding, ahead, held, cost) in [
                (Holding::Kept, 0, total, 1),
                (Holding::Streamed, 1, streamed(1), if many { STREAMED_MANY } else { 0 }),
                (Holding::Streamed, 0, streamed(0), if many { 2 * STREAMED_MANY } else { 2 }),
            ] {
                let cost = cost + 3 * recipe as u64 + if recompute { RECOMPUTED } else { 0 };
                let candidate = Candidate { recipe, arena, kept, holding, ahead, held, cost };
                self.candidates[network].push(candidate);
            }
        }
        Ok(())
    }

    /// The cheapest candidates that fit together.
    pub fn choose(&self) -> Option<Vec<Candidate>> {
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
    pub fn smallest(&self) -> (usize, usize) {
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

    /// What a streamed network reads when, and what stays between its runs: as much as the budget has room for.
    fn residency(
        &self,
        network: usize,
        choice: &[Candidate],
        uses: &[Vec<Use>],
        prologue: usize,
    ) -> Residency {
        let candidate = choice[network];
        let many = self.networks.len() == 1 || self.networks[network].0.name == "denoiser";
        if !many {
            return Residency::streamed(uses, candidate.ahead);
        }
        let arena = choice.iter().map(|c| c.arena).max().unwrap_or(0);
        let kept: usize = choice.iter().map(|c| c.kept).sum();
        Residency::within(uses, candidate.ahead, prologue, self.allowed - arena - kept)
    }

    pub fn build(
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
            let residency =
                streamed.then(|| self.residency(network, choice, &uses, plan.prologue_steps));
            let total = self.totals[network] as u64;
            arena_bytes = arena_bytes.max(plan.arena_bytes as u64);
            let held = residency.as_ref().map_or(candidate.held, Residency::held_bytes) as u64;
            window = match candidate.holding {
                Holding::Resident => window + total,
                _ => window.max(held),
            };
            let ranges = if streamed { Vec::new() } else { weight_ranges(&uses) };
            reports.push(NetworkMemory {
                network: plan.network.clone(),
                holding: candidate.holding,
                arena_bytes: plan.arena_bytes as u64,
                kept_bytes: plan.kept_bytes as u64,
                held_bytes: held,
                weight_bytes: total,
                read_bytes: residency.as_ref().map_or(total, |r| r.bytes() as u64),
                later_read_bytes: residency
                    .as_ref()
                    .map_or(0, |r| r.later_bytes(plan.prologue_steps) as u64),
            });
            planned.push(Planned {
                graph: Arc::new(self.networks[network].0.clone()),
                holding: candidate.holding,
                residency,
                ranges,
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
