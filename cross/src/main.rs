//! The project's one tool: `cargo xtask COMMAND`.
//!
//! Enters: the source tree, `boards/profiles/`, `cross/targets/`. Leaves: checked, built, packaged and emulated
//! binaries under `target/`. Nothing here runs on a device.

mod command;
mod compile;
mod instructions;
mod licences;
mod package;
mod peers;
mod qemu;
mod sanitize;
mod setup;
mod size;
mod target;
mod test;
mod tidy;
mod workspace;
mod zig;

use crate::target::Target;
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
    /// Build the device's binary for a board: static, stripped.
    Cross {
        /// A board's name (see `plantain boards`) or FILE.toml.
        #[arg(required_unless_present = "target")]
        board: Option<String>,
        /// Build for a target of cross/targets/ instead.
        #[arg(long, conflicts_with = "board")]
        target: Option<String>,
        /// Cargo profile: `dist` is what is shipped, `release` builds sooner.
        #[arg(long, default_value = compile::DIST)]
        profile: String,
    },
    /// Build a Debian package for a board: binary, pack, unit, settings, manual, completions.
    Deb {
        /// A board's name (see `plantain boards`) or FILE.toml.
        board: String,
        /// Cargo profile of the binary.
        #[arg(long, default_value = compile::DIST)]
        profile: String,
    },
    /// Build a release: packages, tarballs, checksums and bills of materials in target/packages.
    Dist {
        /// Targets, as in cross/targets/; all static ones if none is named.
        targets: Vec<String>,
    },
    /// Test a board's binary on the emulated board: its processor, then its kernel, memory and disks.
    Qemu(qemu::Options),
    /// Print the bytes of binary, pack, package and arena by board; fails where one is beyond its bound.
    Size(size::Options),
    /// Count the instructions of kernels, ops and networks on emulated ARM processors, against cross/instructions.toml.
    Instructions(instructions::Options),
    /// Measure plantain beside ONNX Runtime and tract on networks of Stable Diffusion's shapes, or on a folder's, in one run.
    BenchPeers(peers::Options),
    /// Run the runtime's tests and draw a picture under AddressSanitizer, ThreadSanitizer and Valgrind.
    Sanitize(sanitize::Options),
    /// Check the house rules only (a second).
    Tidy,
    /// Check licences, banned crates and sources against deny.toml.
    Licences,
}

fn main() -> ExitCode {
    if let Some(error) = zig::become_tool() {
        eprintln!("xtask: {error:#}");
        return ExitCode::FAILURE;
    }
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
        Task::Cross { board, target, profile } => {
            let target = match (board, target) {
                (Some(board), _) => Target::of_board(&plantain_boards::load(&board)?)?,
                (None, target) => Target::load(&target.unwrap_or_default())?,
            };
            compile::target(&target, &profile).map(|_| ())
        }
        Task::Deb { board, profile } => {
            package::deb::build(&plantain_boards::load(&board)?, &profile).map(|_| ())
        }
        Task::Dist { targets } => package::dist::run(&targets),
        Task::Qemu(options) => qemu::run(&options),
        Task::Size(options) => size::run(&options),
        Task::Instructions(options) => instructions::run(&options),
        Task::BenchPeers(options) => peers::run(&options),
        Task::Sanitize(options) => sanitize::run(&options),
        Task::Tidy => tidy::run(),
        Task::Licences => licences::run(),
    }
}
