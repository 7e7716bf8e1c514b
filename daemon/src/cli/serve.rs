//! `plantain serve`: the daemon.

use std::path::PathBuf;

use plantain::pipeline::{Options, Pipeline};

use super::machine::MachineChoice;
use super::{Refusal, find_bundled_pack, refuse};
use crate::serve::artist::PipelineArtist;
use crate::serve::config::{Config, Layer};
use crate::serve::logger;
use crate::serve::run::{self, Sources};
use crate::serve::status::Model;

/// Arguments of `plantain serve`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// TOML file with any of the settings below; flags win over it
    #[arg(long, value_name = "FILE", env = "PLANTAIN_CONFIG")]
    config: Option<PathBuf>,
    /// Check the settings, the pack and the TLS files, and stop
    #[arg(long)]
    check: bool,
    /// Print all settings as a commented TOML file, and stop
    #[arg(long)]
    print_config: bool,
    /// Start a broker inside the process, draw one prompt through it, save the picture, and stop
    #[cfg(feature = "demo")]
    #[arg(long)]
    demo: bool,
    /// What --demo draws
    #[cfg(feature = "demo")]
    #[arg(long, value_name = "PROMPT", default_value = "a red apple", requires = "demo")]
    demo_prompt: String,
    /// Where --demo saves it
    #[cfg(feature = "demo")]
    #[arg(long, value_name = "FILE", default_value = "demo.png", requires = "demo")]
    demo_output: PathBuf,
    #[command(flatten)]
    layer: Layer,
}

/// Runs the daemon until it is told to stop.
///
/// # Errors
/// A [`Refusal`] if a setting cannot be; another error if it cannot start.
pub fn run(args: Args) -> anyhow::Result<()> {
    let sources = Sources { flags: args.layer.clone(), file: args.config.clone() };
    let mut config = sources.settle().map_err(|error| Refusal(format!("{error:#}")))?;
    if args.print_config {
        print!("{}", config.print());
        return Ok(());
    }
    logger::start(&config.log_level, &config.log_format);
    #[cfg(feature = "demo")]
    let demo = if args.demo { Some(demo(&args, &mut config)?) } else { None };
    let (artist, model) = open(&mut config)?;
    if args.check {
        run::check(&config)?;
        println!("the settings are usable");
        return Ok(());
    }
    #[cfg(feature = "demo")]
    if let Some((demo, _folder)) = demo {
        let topics = crate::mqtt::topic::Topics::new(&config.base, &config.device, &config.group);
        return run::run(&sources, config, artist, model, crate::demo::ask(demo, topics));
    }
    run::run(&sources, config, artist, model, std::future::pending())
}

/// The demo's broker and a state folder that goes when it ends.
#[cfg(feature = "demo")]
fn demo(
    args: &Args,
    config: &mut Config,
) -> anyhow::Result<(crate::demo::Demo, tempfile::TempDir)> {
    super::output::check_folder(&args.demo_output)?;
    let port = crate::demo::start_broker()?;
    let folder = tempfile::tempdir()?;
    config.broker = format!("mqtt://127.0.0.1:{port}");
    config.state_dir = folder.path().join("state");
    config.home_assistant = false;
    let (prompt, output) = (args.demo_prompt.clone(), args.demo_output.clone());
    Ok((crate::demo::Demo { port, prompt, output }, folder))
}

/// Opens the pack with the board's defaults where the settings name none.
fn open(config: &mut Config) -> anyhow::Result<(Box<PipelineArtist>, Model)> {
    if config.pack.as_os_str().is_empty() {
        config.pack = find_bundled_pack()?;
    }
    let choice = MachineChoice {
        budget: (!config.budget.is_empty()).then(|| config.budget.clone()),
        threads: (config.threads > 0).then_some(config.threads),
        board: (!config.board.is_empty()).then(|| config.board.clone()),
    };
    let machine = choice.settle()?;
    let options = Options {
        budget_bytes: machine.budget_bytes,
        threads: machine.threads,
        ..Options::default()
    };
    let pipeline = Pipeline::open(&config.pack, options).map_err(refuse)?;
    let model = Model {
        name: config.pack.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
        sha256: pipeline.pack().hash(),
        styles: pipeline.spec().styles.iter().map(|style| style.name.clone()).collect(),
        board: machine.board.unwrap_or_else(|| "generic".into()),
        accelerators: Vec::new(),
        budget_bytes: machine.budget_bytes.unwrap_or(0),
    };
    if !config.style.is_empty() && !model.styles.contains(&config.style) {
        let message =
            format!("style is {:?}; the pack has {}", config.style, model.styles.join(", "));
        return Err(Refusal(message).into());
    }
    Ok((Box::new(PipelineArtist::new(pipeline, config)), model))
}
