//! The command line: one subcommand a file.
//!
//! Enters: arguments. Leaves: what a person or a script reads, and an exit code: 0 done, 1 failed, 2 refused (bad
//! arguments, bad input, a budget that is too small). Never: a panic on bad input.

pub mod bench;
mod boards;
mod bundled;
mod completions;
mod doctor;
pub mod generate;
pub mod inspect;
pub mod machine;
pub mod output;
pub mod plan;
pub mod serve;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use bundled::{PackChoice, find_bundled_pack};

/// Text-to-image on small devices: local, offline, inside a fixed memory budget.
#[derive(Debug, Parser)]
#[command(name = "plantain", version, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Draw a picture
    Generate(Box<generate::Args>),
    /// Take prompts over MQTT and publish pictures
    Serve(Box<serve::Args>),
    /// Show what this machine would do: steps, arena, weights
    Plan(plan::Args),
    /// Time each network and the whole
    Bench(bench::Args),
    /// List the boards that have profiles, or show one
    Boards(boards::Args),
    /// Compare this machine with a board's profile and say what to do
    Doctor(doctor::Args),
    /// Show what a pack holds: networks, shapes, sizes, precision, pipeline, licence, hash
    Inspect(inspect::Args),
    /// Print shell completions
    Completions(completions::Args),
}

/// A refusal: what was asked for cannot be done as it stands. Exits with 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Refusal(pub String);

/// Any error as a refusal.
pub fn refuse(error: impl std::fmt::Display) -> anyhow::Error {
    Refusal(error.to_string()).into()
}

/// Runs the command that the arguments name.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read the output has seen enough: `plantain plan | head`.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("plantain: {error:#}");
            ExitCode::from(if error.is::<Refusal>() { 2 } else { 1 })
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<std::io::Error>()
        .is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

fn run(cli: Cli) -> anyhow::Result<()> {
    match cli.command {
        Command::Generate(args) => generate::run(&args),
        Command::Serve(args) => serve::run(*args),
        Command::Plan(args) => plan::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Boards(args) => boards::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Completions(args) => completions::run(&args),
    }
}
