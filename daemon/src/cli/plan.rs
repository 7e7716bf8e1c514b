//! `plantain plan`: what this machine would do with a pack inside a budget, step by step, and the arena as a picture.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use plantain::engine::{Engine, EngineOptions, MemoryReport, NetworkIndex};
use plantain::graph::{Binding, Graph};
use plantain::pack::Pack;
use plantain::pipeline::{Options, Pipeline};
use plantain::plan::{Plan, PlanReport, svg};
use plantain::units::Bytes;
use serde_json::json;

use super::bench::binding;
use super::machine::MachineChoice;
use super::{find_bundled_pack, refuse};

/// Arguments of `plantain plan`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Pack to plan [default: the bundled one]
    #[arg(value_name = "PACK", env = "PLANTAIN_PACK")]
    pack: Option<PathBuf>,
    /// Batch, height and width of a pack that holds a single network
    #[arg(long, value_name = "B,H,W", default_value = "1,64,64", value_parser = binding)]
    binding: Binding,
    #[command(flatten)]
    machine: MachineChoice,
    /// Draw the arena over time
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Plans and prints.
///
/// # Errors
/// A refusal if the pack is not usable or the budget too small.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let path = match &args.pack {
        Some(path) => path.clone(),
        None => find_bundled_pack()?,
    };
    let machine = args.machine.settle()?;
    let pack = Arc::new(Pack::open(&path).map_err(refuse)?);
    if pack.pipeline().is_ok() {
        let options = Options {
            budget_bytes: machine.budget_bytes,
            threads: machine.threads,
            ..Options::default()
        };
        let pipeline = Pipeline::new(pack, options).map_err(refuse)?;
        let engine = pipeline.engine().context("the networks are not loaded")?;
        return show(engine, args);
    }
    let graphs: Vec<Graph> = pack.graphs().to_vec();
    let networks: Vec<(&Graph, Binding)> =
        graphs.iter().map(|graph| (graph, args.binding)).collect();
    let options = EngineOptions {
        budget_bytes: machine.budget_bytes,
        ..EngineOptions::new(machine.threads.unwrap_or(1))
    };
    let engine = Engine::load(pack.clone(), &networks, &options).map_err(refuse)?;
    show(&engine, args)
}

fn show(engine: &Engine, args: &Args) -> anyhow::Result<()> {
    let networks: Vec<NetworkIndex> = (0..engine.networks()).map(NetworkIndex).collect();
    let reports: Vec<PlanReport> = networks
        .iter()
        .map(|&n| PlanReport::new(engine.graph(n), engine.plan(n), engine.residency(n)))
        .collect();
    if let Some(path) = &args.svg {
        let plans: Vec<(&Graph, &Plan)> =
            networks.iter().map(|&n| (engine.graph(n), engine.plan(n))).collect();
        std::fs::write(path, svg(&plans))
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    let mut out = std::io::stdout().lock();
    if args.json {
        let value = json!({"memory": engine.memory(), "networks": reports});
        writeln!(out, "{}", serde_json::to_string_pretty(&value)?)?;
        return Ok(());
    }
    for report in &reports {
        writeln!(out, "{}", report.text())?;
    }
    write_memory(&mut out, engine.memory())?;
    Ok(())
}

fn write_memory(out: &mut impl Write, memory: &MemoryReport) -> std::io::Result<()> {
    let budget = memory.budget_bytes.map_or("none".to_owned(), |budget| Bytes(budget).to_string());
    writeln!(out, "memory: {} of a budget of {budget}", Bytes(memory.total_bytes()))?;
    for (what, bytes) in [
        ("process", memory.process_bytes),
        ("buffers and encoding", memory.reserve_bytes),
        ("arena", memory.arena_bytes),
        ("weights at a time", memory.weight_bytes),
    ] {
        writeln!(out, "  {what:<22} {:>12}", Bytes(bytes).to_string())?;
    }
    for network in &memory.networks {
        writeln!(
            out,
            "  {:<22} {:>12} of weights, {:?}, {} at a time",
            network.network,
            Bytes(network.weight_bytes).to_string(),
            network.holding,
            Bytes(network.held_bytes)
        )?;
    }
    Ok(())
}
