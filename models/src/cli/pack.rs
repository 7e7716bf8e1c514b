//! `plantain-pack ONNX_DIR -o FILE`

use std::path::Path;
use std::sync::Arc;

use anyhow::{anyhow, bail};
use plantain::pack::Pack;
use plantain::pipeline::{Options, Pipeline};
use plantain::units::Bytes;
use plantain_boards::Board;
use plantain_pack::packing::{PackRequest, pack, read_prompts};
use plantain_pack::recipe::Recipe;

use super::{PackArgs, progress};

pub(super) fn run(args: &PackArgs) -> anyhow::Result<()> {
    let (Some(source), Some(out)) = (&args.source, &args.out) else {
        bail!("name a folder and, with -o, the pack");
    };
    // Before the work, which takes minutes.
    let board = args.board.as_deref().map(plantain_boards::load).transpose()?;
    let recipe = args.recipe.as_deref().map(Recipe::read).transpose()?.unwrap_or_default();
    let prompts = args.calibrate_prompts.as_deref().map(read_prompts).transpose()?;
    let request = PackRequest {
        source: source.clone(),
        out: out.clone(),
        recipe,
        keep_f16: args.keep_f16.clone(),
        prompts,
        prune: args.prune,
    };
    let (pack, report) = pack(&request, &mut progress(args.quiet))?;
    if let Some(path) = &args.report {
        let text = match path.extension().is_some_and(|extension| extension == "json") {
            true => serde_json::to_string_pretty(&report)? + "\n",
            false => report.to_string(),
        };
        std::fs::write(path, text)
            .map_err(|error| anyhow!("cannot write {}: {error}", path.display()))?;
    }
    for network in &report.networks {
        let kept = network.layers.iter().filter(|layer| layer.kept_f16.is_some()).count();
        println!(
            "{}: {:.1} dB against float, {} layers in int8, {kept} in f16",
            network.network,
            network.outputs.snr_db,
            network.layers.len() - kept,
        );
    }
    if let Some(pruning) = &report.pruning {
        println!("pruned: {pruning}");
    }
    println!("{}: {} bytes, {}", out.display(), pack.bytes(), pack.hash());
    match board {
        Some(board) => show_board(pack, out, &board),
        None => Ok(()),
    }
}

/// What pictures take beside the process itself, whose size only the device knows.
fn show_board(pack: Pack, path: &Path, board: &Board) -> anyhow::Result<()> {
    let (name, path) = (&board.name, path.display());
    if pack.pipeline().is_err() {
        println!(
            "{name}: `plantain plan {path} --board {name} --binding B,H,W` says what it takes"
        );
        return Ok(());
    }
    let threads = Some(board.defaults.threads as usize);
    let pipeline = Pipeline::new(Arc::new(pack), Options { threads, ..Options::default() })?;
    let engine = pipeline.engine().ok_or_else(|| anyhow!("the networks are not loaded"))?;
    let (memory, budget) = (engine.memory(), board.defaults.budget_bytes);
    let weights: u64 = memory.networks.iter().map(|network| network.weight_bytes).sum();
    let whole = memory.arena_bytes + memory.reserve_bytes + weights;
    let held = if whole <= budget { "" } else { ", so weights are read anew for each picture" };
    println!(
        "{name}: {} of arena and buffers and {} of weights, of a budget of {} with the process{held}; \
         `plantain plan {path} --board {name}` says all",
        Bytes(memory.arena_bytes + memory.reserve_bytes),
        Bytes(weights),
        Bytes(budget),
    );
    Ok(())
}
