//! `cargo xtask bench-peers`: plantain beside ONNX Runtime and tract, on the same networks, in one run, on one thread.
//!
//! Enters: names of networks with random weights, or folders of ONNX networks. Leaves: medians, ratios, peak memory,
//! and plantain's share of the core's int8 peak by kind of op. Never: a figure of an earlier run. Sides take turns,
//! so that what else the machine does falls on all alike; CPU seconds are compared at the median.

mod side;
mod subject;
mod tools;

use anyhow::Result;

use side::Side;
use subject::{DEFAULT, Subject};
use tools::Tools;

/// Arguments of `bench-peers`.
#[derive(clap::Args)]
pub struct Options {
    /// taesd, bk-sdm-tiny, sd15, or a folder in diffusers' layout whose networks all run once a picture; the first two
    /// if none is named.
    networks: Vec<String>,
    /// Turns that each side gets.
    #[arg(long, default_value_t = 3)]
    turns: usize,
}

/// Exports, packs, measures, prints.
pub fn run(options: &Options) -> Result<()> {
    let tools = Tools::new()?;
    let names: Vec<String> = match options.networks.as_slice() {
        [] => DEFAULT.map(str::to_owned).to_vec(),
        named => named.to_vec(),
    };
    // What takes long or may fail comes before what is measured.
    let subjects: Vec<Subject> =
        names.iter().map(|name| Subject::prepare(&tools, name)).collect::<Result<_>>()?;
    println!("{}; one thread, medians of {} turns", tools::machine(), options.turns);
    for subject in &subjects {
        let mut plantain = Side::new("plantain");
        let mut peers: Vec<Side> = subject.peers.iter().map(|peer| Side::new(peer.name)).collect();
        for _ in 0..options.turns {
            plantain.take(&tools.plantain(subject)?)?;
            for (side, peer) in peers.iter_mut().zip(&subject.peers) {
                side.take(&tools.peer(peer, subject.runs)?)?;
            }
        }
        print(subject, &plantain, &peers);
    }
    Ok(())
}

fn print(subject: &Subject, plantain: &Side, peers: &[Side]) {
    println!("\n{}: {}, {} runs a turn", subject.name, subject.what, subject.runs);
    println!(
        "  {:<18} {:>9} {:>9} {:>8} {:>12} {:>8}",
        "", "CPU s", "wall s", "times", "peak MiB", "times"
    );
    for side in std::iter::once(plantain).chain(peers) {
        println!(
            "  {:<18} {:>9.4} {:>9.4} {:>8.2} {:>12.1} {:>8.2}",
            side.name,
            side.cpu_seconds(),
            side.wall_seconds(),
            side.cpu_seconds() / plantain.cpu_seconds(),
            side.peak_rss_bytes() as f64 / f64::from(1 << 20),
            side.peak_rss_bytes() as f64 / plantain.peak_rss_bytes() as f64,
        );
    }
    println!(
        "  plantain by kind of op, {} kernels, int8 peak of this core {:.0} GMAC/s:",
        plantain.kernels(),
        plantain.peak_gmacs_per_second()
    );
    for op in plantain.ops() {
        let share = match op.gmacs {
            0.0 => String::new(),
            _ => format!(
                "{:>9.2} GMAC {:>7.1} GMAC/s {:>5.0}% of peak",
                op.gmacs,
                op.gmacs / op.seconds,
                op.share_of_peak * 100.0
            ),
        };
        println!("    {:<18} {:>9.2} ms{share}", op.name, op.seconds * 1e3);
    }
}
