//! `plantain bench`: seconds of each network and of the whole, work by kind of op, against this core's own peak.

mod pictures;
mod profile;

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use plantain::engine::{Engine, EngineOptions, NetworkIndex};
use plantain::graph::{Binding, DType, Graph, bind_shape};
use plantain::kernel::Kernels;
use plantain::pack::Pack;
use plantain::pipeline::{Options, peak_rss_bytes};
use plantain::rng;
use serde_json::{Value, json};

use super::machine::{MachineChoice, PinChoice};
use super::{find_bundled_pack, refuse};
use profile::{OpTimes, Peak};

/// Arguments of `plantain bench`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Pack to measure [default: the bundled one]
    #[arg(value_name = "PACK", env = "PLANTAIN_PACK")]
    pack: Option<PathBuf>,
    /// Runs that are measured, after one that is not
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    runs: u32,
    /// Batch, height and width of a pack that holds a single network
    #[arg(long, value_name = "B,H,W", default_value = "1,64,64", value_parser = binding)]
    binding: Binding,
    /// Denoising steps of a picture [default: the pack's]
    #[arg(long)]
    steps: Option<u32>,
    /// Draw each picture once more with the denoiser run at every so many steps only: seconds, and what it costs in likeness
    #[arg(long, value_name = "N")]
    step_cache: Option<u32>,
    #[command(flatten)]
    machine: MachineChoice,
    #[command(flatten)]
    pin: PinChoice,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn binding(text: &str) -> Result<Binding, String> {
    let numbers: Vec<u32> =
        text.split(',').filter_map(|number| number.trim().parse().ok()).collect();
    match numbers[..] {
        [batch, height, width] => Ok(Binding { batch, height, width }),
        _ => Err(format!("{text:?} is not three numbers such as 1,64,64")),
    }
}

/// Measures and prints.
///
/// # Errors
/// A refusal if the pack or the budget is not usable.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let path = match &args.pack {
        Some(path) => path.clone(),
        None => find_bundled_pack()?,
    };
    let machine = args.machine.settle()?;
    let pack = Arc::new(Pack::open(&path).map_err(refuse)?);
    let kernels = Kernels::chosen().map_err(refuse)?;
    let peak = Peak::new(kernels);
    let mut value = if pack.pipeline().is_ok() {
        let options = Options {
            budget_bytes: machine.budget_bytes,
            threads: machine.threads,
            cores: args.pin.cores(&machine)?,
            ..Options::default()
        };
        pictures::measure(&pack, &options, args, &peak)?
    } else {
        let cores = args.pin.cores(&machine)?;
        let threads = machine.threads.unwrap_or(cores.len().max(1));
        let options = EngineOptions {
            budget_bytes: machine.budget_bytes,
            cores,
            ..EngineOptions::new(threads)
        };
        lone(pack, args, &options, &peak)?
    };
    value["kernels"] = kernels.name.into();
    profile::add_shares(&mut value, &peak);
    value["runs"] = args.runs.into();
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&value)?)?;
    } else {
        print(&mut out, &value)?;
    }
    Ok(())
}

/// Each network of a pack without a pipeline, on random input.
fn lone(
    pack: Arc<Pack>,
    args: &Args,
    options: &EngineOptions,
    peak: &Peak,
) -> anyhow::Result<Value> {
    let graphs: Vec<Graph> = pack.graphs().to_vec();
    let networks: Vec<(&Graph, Binding)> =
        graphs.iter().map(|graph| (graph, args.binding)).collect();
    let mut engine = Engine::load(pack.clone(), &networks, options).map_err(refuse)?;
    let mut values = Vec::new();
    for (index, graph) in graphs.iter().enumerate() {
        let network = NetworkIndex(index);
        let (mut seconds, mut cpu_seconds) = (Vec::new(), Vec::new());
        let mut ops = OpTimes::default();
        for run in 0..=args.runs {
            feed(&mut engine, network, graph, args.binding, u64::from(run))?;
            let (start, cpu_start) = (Instant::now(), cpu_seconds_now());
            engine.run(network).map_err(refuse)?;
            if run > 0 {
                seconds.push(start.elapsed().as_secs_f64());
                cpu_seconds.push(cpu_seconds_now() - cpu_start);
            }
            ops.take(&engine, network, run > 0);
        }
        peak.measure();
        let mut value = ops.value(&engine, network);
        value["seconds_median"] = json!(round(median(&mut seconds)));
        value["cpu_seconds_median"] = json!(round(median(&mut cpu_seconds)));
        values.push(value);
    }
    Ok(json!({
        "threads": engine.threads(),
        "arena_bytes": engine.arena_bytes(),
        "peak_rss_bytes": peak_rss_bytes(),
        "networks": values,
    }))
}

/// Seconds that all threads of this process have computed.
fn cpu_seconds_now() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

/// Normal noise for floats, zeros for ids.
fn feed(
    engine: &mut Engine,
    network: NetworkIndex,
    graph: &Graph,
    binding: Binding,
    seed: u64,
) -> anyhow::Result<()> {
    for &id in &graph.inputs {
        let value = graph.value(id);
        let length = bind_shape(&value.shape, binding).map_err(refuse)?.iter().product();
        let fed = if value.dtype == DType::I32 {
            engine.set_ids(network, &value.name, &vec![0; length])
        } else {
            let mut noise = vec![0.0; length];
            rng::fill_normal(seed, rng::Stream::Latent, &mut noise);
            engine.set_input(network, &value.name, &noise)
        };
        fed.map_err(refuse)?;
    }
    Ok(())
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

fn round(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}

fn print(out: &mut impl Write, value: &Value) -> std::io::Result<()> {
    let number = |value: &Value| value.as_f64().unwrap_or(0.0);
    for (what, key) in
        [("picture", "picture_seconds_median"), ("enlarged", "enlarged_picture_seconds_median")]
    {
        if let Some(seconds) = value[key].as_f64() {
            let runs = &value["runs"];
            writeln!(out, "{what:<14}{:>9.1} ms at the median of {runs} runs", seconds * 1e3)?;
        }
    }
    if let Some(cached) = value.get("step_cache") {
        writeln!(
            out,
            "step cache {:<3}{:>9.1} ms; likeness to the picture without it {:.1} dB at the median, {:.1} dB at worst",
            cached["every"],
            number(&cached["picture_seconds_median"]) * 1e3,
            number(&cached["psnr_db_median"]),
            number(&cached["psnr_db_min"])
        )?;
    }
    writeln!(
        out,
        "kernels {}, {} threads, int8 peak of one core {:.0} GMAC/s",
        value["kernels"].as_str().unwrap_or_default(),
        value["threads"],
        number(&value["peak_gmacs_per_second"])
    )?;
    for network in value["networks"].as_array().into_iter().flatten() {
        writeln!(
            out,
            "\n{:<14}{:>9.1} ms  {:>7.1} GMAC/s {:>4.0}% of peak",
            network["network"].as_str().unwrap_or_default(),
            number(&network["seconds_median"]) * 1e3,
            number(&network["gmacs_per_second"]),
            number(&network["share_of_peak"]) * 100.0
        )?;
        for op in network["ops"].as_array().into_iter().flatten() {
            let share = match number(&op["macs"]) {
                0.0 => String::new(),
                _ => format!(
                    "{:>8.1} GMAC/s {:>4.0}% of peak",
                    number(&op["gmacs_per_second"]),
                    number(&op["share_of_peak"]) * 100.0
                ),
            };
            writeln!(
                out,
                "  {:<16}{:>7} steps {:>9.2} ms{share}",
                op["op"].as_str().unwrap_or_default(),
                op["steps"],
                number(&op["seconds"]) * 1e3
            )?;
        }
    }
    Ok(())
}
