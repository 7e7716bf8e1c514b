//! The project's one tool: `cargo xtask COMMAND`.
//!
//! Enters: the source tree, `boards/profiles/`, `cross/targets/`. Leaves: checked, built, packaged and emulated
//! binaries under `target/`. Nothing here runs on a device.

mod command;
mod compile;
mod licences;
mod setup;
mod target;
mod test;
mod tidy;
mod workspace;

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Set-up, tests, cross-building, QEMU and packaging.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what building, testing and emulating need; does nothing where all is there.
    Setup,
    /// Everything a change must pass: house rules, formatting, lints, docs, licences, spelling, emulated ARM, tests.
    Test {
        /// Arguments for the final `cargo test`, e.g. a test's name.
        #[arg(last = true)]
        rest: Vec<String>,
    },
    /// The same as `test`, where a step that cannot run is an error instead of a note.
    Ci,
    /// Check the house rules only (a second).
    Tidy,
    /// Check licences, banned crates and sources against deny.toml.
    Licences,
}

fn main() -> ExitCode {
    match run(Cli::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<()> {
    match task {
        Task::Setup => setup::run(setup::Want::Everything),
        Task::Test { rest } => test::run(&rest, test::Missing::IsNoted),
        Task::Ci => test::run(&[], test::Missing::IsAnError),
        Task::Tidy => tidy::run(),
        Task::Licences => licences::run(),
    }
}
