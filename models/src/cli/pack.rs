//! `plantain-pack ONNX_DIR -o FILE`

use anyhow::{anyhow, bail};
use plantain_pack::packing::{PackRequest, pack, read_prompts};
use plantain_pack::recipe::Recipe;

use super::{PackArgs, progress};

pub(super) fn run(args: &PackArgs) -> anyhow::Result<()> {
    let (Some(source), Some(out)) = (&args.source, &args.out) else {
        bail!("name a folder and, with -o, the pack");
    };
    let recipe = args.recipe.as_deref().map(Recipe::read).transpose()?.unwrap_or_default();
    let prompts = args.calibrate_prompts.as_deref().map(read_prompts).transpose()?;
    let request = PackRequest {
        source: source.clone(),
        out: out.clone(),
        recipe,
        keep_f16: args.keep_f16.clone(),
        prompts,
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
    println!("{}: {} bytes, {}", out.display(), pack.bytes(), pack.hash());
    Ok(())
}
