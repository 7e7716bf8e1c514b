//! `plantain plan`: what this machine would do with a pack inside a budget, step by step, and the arena as a picture.
//!
//! Enters: a pack, a budget, a board's profile. Leaves: the plan, and with a board the estimate of what a picture takes
//! there. Never: runs a network, or calls an estimate a measurement.

mod estimate;

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use plantain::engine::{Engine, EngineOptions, MemoryReport, NetworkIndex};
use plantain::graph::{Binding, Graph};
use plantain::pack::Pack;
use plantain::pipeline::{Options, Pipeline, PipelineSpec};
use plantain::plan::{Plan, PlanReport, svg};
use plantain::units::Bytes;
use plantain_boards::Board;
use serde_json::json;

use super::bench::binding;
use super::boards;
use super::machine::MachineChoice;
use super::{Refusal, find_bundled_pack, refuse};
use estimate::Estimate;

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
/// A refusal if the pack is not usable or does not fit the budget or the board.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let board = args.machine.board.as_deref().map(boards::named).transpose()?;
    let path = match &args.pack {
        Some(path) => path.clone(),
        None => find_bundled_pack()?,
    };
    let machine = args.machine.settle()?;
    let pack = Arc::new(Pack::open(&path).map_err(refuse)?);
    let does_not_fit = |error: &dyn std::fmt::Display| match &board {
        Some(board) => {
            refuse(format!("{} does not fit on {}: {error}", path.display(), board.title))
        }
        None => refuse(error),
    };
    if pack.pipeline().is_ok() {
        let options = Options {
            budget_bytes: machine.budget_bytes,
            threads: machine.threads,
            ..Options::default()
        };
        let pipeline = Pipeline::new(pack, options).map_err(|error| does_not_fit(&error))?;
        let engine = pipeline.engine().context("the networks are not loaded")?;
        return show(engine, args, board.as_ref(), Some(pipeline.spec()));
    }
    let graphs: Vec<Graph> = pack.graphs().to_vec();
    let networks: Vec<(&Graph, Binding)> =
        graphs.iter().map(|graph| (graph, args.binding)).collect();
    let options = EngineOptions {
        budget_bytes: machine.budget_bytes,
        ..EngineOptions::new(machine.threads.unwrap_or(1))
    };
    let engine =
        Engine::load(pack.clone(), &networks, &options).map_err(|error| does_not_fit(&error))?;
    show(&engine, args, board.as_ref(), None)
}

fn show(
    engine: &Engine,
    args: &Args,
    board: Option<&Board>,
    spec: Option<&PipelineSpec>,
) -> anyhow::Result<()> {
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
    let estimate = board.map(|board| Estimate::new(board, &reports, engine.memory(), spec));
    let mut out = std::io::stdout().lock();
    if args.json {
        let mut value = json!({"memory": engine.memory(), "networks": reports});
        if let Some(estimate) = &estimate {
            value["estimate"] = json!(estimate);
        }
        writeln!(out, "{}", serde_json::to_string_pretty(&value)?)?;
    } else {
        for report in &reports {
            writeln!(out, "{}", report.text())?;
        }
        write_memory(&mut out, engine.memory())?;
        if let Some(estimate) = &estimate {
            write!(out, "{}", estimate.text())?;
        }
    }
    match estimate {
        Some(estimate) if !estimate.fits => Err(Refusal(format!(
            "{} are needed but {} has {}, of which a quarter is left to the system; choose a smaller --budget",
            Bytes(estimate.needed_bytes),
            estimate.title,
            Bytes(estimate.ram_bytes)
        ))
        .into()),
        _ => Ok(()),
    }
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
            "  {:<22} {:>12} of weights, {:?}, {} at a time{}",
            network.network,
            Bytes(network.weight_bytes).to_string(),
            network.holding,
            Bytes(network.held_bytes),
            match network.kept_bytes {
                0 => String::new(),
                bytes => format!("; {} kept a prompt", Bytes(bytes)),
            }
        )?;
    }
    Ok(())
}
