//! The command line of `plantain-pack`.
//!
//! Enters: arguments. Leaves: what to do, checked. Never: the doing.

mod pack;
mod verify;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Turns ONNX networks into one int8 pack that plantain runs on small devices.
#[derive(Debug, Parser)]
#[command(
    name = "plantain-pack",
    version,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true
)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    pack: PackArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Compare a pack with the ONNX networks it was made from: the engine against tract's float run.
    Verify(VerifyArgs),
}

#[derive(Debug, Args)]
struct PackArgs {
    /// A folder in diffusers' layout (model_index.json, text_encoder/, unet/ or transformer/, vae_decoder/,
    /// tokenizer/, scheduler/, optional refiner/ and enlarger/), or one .onnx file.
    #[arg(value_name = "ONNX_DIR", required = true)]
    source: Option<PathBuf>,
    /// Where the pack goes; it appears whole or not at all.
    #[arg(short, long, value_name = "FILE", required = true)]
    out: Option<PathBuf>,
    /// A TOML file with what the folder does not say: title, licence, styles, words, sizes, how to quantise.
    #[arg(long, value_name = "FILE")]
    recipe: Option<PathBuf>,
    /// Write the report here: error by layer and by network against float, what stayed f16 and why. JSON if the
    /// name ends in .json, else text.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Keep layers in f16 whose network/node name matches; * stands for anything. May be given again.
    #[arg(long, value_name = "PATTERN")]
    keep_f16: Vec<String>,
    /// Remove this share of a picture's multiply-adds, such as 0.3: hidden channels, heads and branches that change pictures
    /// least. The rest is fitted again, and the report says what it saves and what it costs.
    #[arg(long, value_name = "R")]
    prune: Option<f64>,
    /// Calibrate on these prompts, one a line, instead of the model's own words.
    #[arg(long, value_name = "FILE")]
    calibrate_prompts: Option<PathBuf>,
    /// Say what the pack takes with this board's threads beside its budget; a name (see `plantain boards`) or FILE.toml.
    /// Packs are the same for all boards.
    #[arg(long, value_name = "NAME", env = "PLANTAIN_BOARD")]
    board: Option<String>,
    /// Say nothing while it works.
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Debug, Args)]
struct VerifyArgs {
    /// The pack.
    pack: PathBuf,
    /// The folder, or the .onnx file, that it was made from.
    #[arg(long, value_name = "ONNX_DIR")]
    against: PathBuf,
    /// Pictures to draw with both sides, each with another prompt and seed.
    #[arg(long, value_name = "N", default_value_t = 16)]
    pictures: usize,
    /// Draw these prompts, one a line, instead of the model's own words.
    #[arg(long, value_name = "FILE")]
    prompts: Option<PathBuf>,
    /// Fail if the median PSNR of the pictures is below this.
    #[arg(long, value_name = "DB", default_value_t = 28.0)]
    psnr_min: f64,
    /// Threads of the engine.
    #[arg(long, value_name = "N", default_value_t = 1)]
    threads: usize,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// Say nothing while it works.
    #[arg(short, long)]
    quiet: bool,
}

impl Cli {
    /// Does what the arguments say.
    ///
    /// # Errors
    /// One sentence.
    pub fn run(self) -> anyhow::Result<()> {
        match self.command {
            Some(Command::Verify(args)) => verify::run(&args),
            None => pack::run(&self.pack),
        }
    }
}

/// Progress lines on standard error.
fn progress(quiet: bool) -> impl FnMut(&str) {
    move |line| {
        if !quiet {
            eprintln!("{line}");
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
        assert!(Cli::try_parse_from(["plantain-pack"]).is_err());
        assert!(Cli::try_parse_from(["plantain-pack", "folder"]).is_err());
        let cli =
            Cli::try_parse_from(["plantain-pack", "folder", "-o", "pack", "--keep-f16", "a/*"]);
        assert_eq!(cli.unwrap().pack.keep_f16, ["a/*"]);
        let cli = Cli::try_parse_from(["plantain-pack", "verify", "pack", "--against", "folder"]);
        assert!(matches!(cli.unwrap().command, Some(Command::Verify(args)) if args.pictures == 16));
    }
}
