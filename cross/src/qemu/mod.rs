//! A board that is not there: its processor and its memory, emulated.
//!
//! Enters: a board's profile, the binary and the pack. Leaves: a verdict, with the hash of the picture that the emulated
//! board drew. Never a statement about speed: emulation proves what is computed, not how fast.

pub mod broker;
mod guest;
mod initramfs;
mod machine;
mod system;
pub mod user;
pub mod watch;

pub use system::bundled_pack;

use crate::compile::{self, Toolchain};
use crate::setup::{self, debian};
use crate::target::Target;
use anyhow::{Result, bail};
use plantain_boards::Board;
use std::path::{Path, PathBuf};

/// What `cargo xtask qemu` is asked for.
#[derive(clap::Args)]
pub struct Options {
    /// A board's name (see `plantain boards`) or FILE.toml.
    pub board: String,
    /// Emulate the processor only, not the whole machine.
    #[arg(long)]
    pub user_only: bool,
    /// Memory of the emulated machine in MiB; the board's own without it.
    #[arg(long, value_name = "MIB")]
    pub ram: Option<u64>,
    /// Test this binary, against target/release/plantain as it stands, instead of building both.
    #[arg(long, value_name = "FILE")]
    pub binary: Option<PathBuf>,
}

/// Tests a board's binary on the emulated board.
pub fn run(options: &Options) -> Result<()> {
    let board = plantain_boards::load(&options.board)?;
    if !board.triple.starts_with("aarch64") {
        bail!("{} is {}: only 64-bit ARM boards are emulated here", board.name, board.triple);
    }
    let target = Target::of_board(&board)?;
    let binary = match &options.binary {
        Some(binary) => std::path::absolute(binary)?,
        None => {
            let toolchain = Toolchain::ensure(&target)?;
            user::runtime_tests(&target, toolchain, &board.qemu.user_cpu)?;
            compile::host()?;
            compile::target(&target, "release")?
        }
    };
    let expected = user::host_picture()?;
    user::same_picture(&target, &binary, &board.qemu.user_cpu, &expected)?;
    if options.user_only {
        return Ok(());
    }
    let ram_bytes = options.ram.map_or(board.ram_bytes, |mebibytes| mebibytes << 20);
    whole(&board, &binary, ram_bytes, &expected)
}

/// Installs what emulated boards need: the emulator, a kernel and a root for them, the broker that they talk to.
pub fn ensure() -> Result<()> {
    debian::ensure(&setup::SYSTEM_EMULATION_PACKAGES)?;
    debian::ensure(&setup::BROKER_PACKAGES)?;
    guest::Base::ensure().map(|_| ())
}

/// Tests a board's binary on the whole emulated board.
pub fn whole(board: &Board, binary: &Path, ram_bytes: u64, expected: &str) -> Result<()> {
    ensure()?;
    println!("{}: every instruction is emulated, KVM is neither needed nor used", board.title);
    system::run(board, binary, ram_bytes, expected)
}
