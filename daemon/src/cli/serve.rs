//! `plantain serve`: the daemon.

use std::io::Write;
use std::path::{Path, PathBuf};

use plantain::pipeline::{Options, Pipeline};

use super::machine::{MachineChoice, PinChoice};
use super::{Refusal, find_bundled_pack, refuse};
use crate::serve::artist::PipelineArtist;
use crate::serve::config::{Config, Layer};
use crate::serve::logger;
use crate::serve::run::{self, Parts, Sources};
use crate::serve::sensors::Sensors;
use crate::serve::status::Model;

/// What the package installs.
const UNIT: &str = include_str!("../../packaging/plantain.service");

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
    /// Print the systemd unit with MemoryMax set to the budget, and stop
    #[arg(long)]
    print_unit: bool,
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
        write!(std::io::stdout(), "{}", config.print())?;
        return Ok(());
    }
    if args.print_unit {
        write!(std::io::stdout(), "{}", unit(&config)?)?;
        return Ok(());
    }
    logger::start(&config.log_level, &config.log_format);
    #[cfg(feature = "demo")]
    let demo = if args.demo { Some(demo(&args, &mut config)?) } else { None };
    let (artist, model, sensors) = open(&mut config)?;
    if args.check {
        run::check(&config)?;
        writeln!(std::io::stdout(), "the settings are usable")?;
        return Ok(());
    }
    let parts = Parts { artist, model, sensors };
    #[cfg(feature = "demo")]
    if let Some((demo, _folder)) = demo {
        let topics = crate::mqtt::topic::Topics::new(&config.base, &config.device, &config.group);
        return run::run(&sources, config, parts, crate::demo::ask(demo, topics));
    }
    run::run(&sources, config, parts, std::future::pending())
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

/// The packaged unit, with the budget as the limit that the kernel keeps.
fn unit(config: &Config) -> anyhow::Result<String> {
    let Some(budget_bytes) = machine_choice(config).settle()?.budget_bytes else {
        let message = "there is no budget to set MemoryMax to; name one with --budget 64M or a board with --board";
        return Err(Refusal(message.into()).into());
    };
    let limited = |line: &str| match line.starts_with("MemoryMax=") {
        true => format!("MemoryMax={budget_bytes}\n"),
        false => format!("{line}\n"),
    };
    Ok(UNIT.lines().map(limited).collect())
}

fn machine_choice(config: &Config) -> MachineChoice {
    MachineChoice {
        budget: (!config.budget.is_empty()).then(|| config.budget.clone()),
        threads: (config.threads > 0).then_some(config.threads),
        board: (!config.board.is_empty()).then(|| config.board.clone()),
    }
}

/// Opens the pack with the board's defaults where the settings name none.
fn open(config: &mut Config) -> anyhow::Result<(Box<PipelineArtist>, Model, Sensors)> {
    if config.pack.as_os_str().is_empty() {
        config.pack = find_bundled_pack()?;
    }
    let machine = machine_choice(config).settle()?;
    let options = Options {
        budget_bytes: machine.budget_bytes,
        threads: machine.threads,
        cores: PinChoice { pin: (!config.pin.is_empty()).then(|| config.pin.clone()) }
            .cores(&machine)?,
        step_cache: (config.step_cache > 0).then_some(config.step_cache),
        ..Options::default()
    };
    let pipeline = Pipeline::open(&config.pack, options).map_err(refuse)?;
    let model = Model {
        name: config.pack.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
        sha256: pipeline.pack().hash(),
        styles: pipeline.spec().styles.iter().map(|style| style.name.clone()).collect(),
        sizes: pipeline.spec().size.clone(),
        board: machine.board.as_ref().map_or_else(|| "generic".into(), |board| board.name.clone()),
        accelerators: Vec::new(),
        budget_bytes: machine.budget_bytes.unwrap_or(0),
    };
    if !config.style.is_empty() && !model.has_style(&config.style) {
        let message = format!("style is {:?}; there are {}", config.style, model.style_list());
        return Err(Refusal(message).into());
    }
    run::rules(config, &model).map_err(refuse)?;
    let sensors = Sensors::find(machine.board.as_ref(), Path::new("/"));
    let artist = PipelineArtist::new(pipeline, config, sensors.clone());
    Ok((Box::new(artist), model, sensors))
}
