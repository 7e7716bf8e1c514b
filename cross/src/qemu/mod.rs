//! A board that is not there: its processor and its memory, emulated.
//!
//! Enters: a board's profile, the binary and the pack. Leaves: a verdict, with the hash of the picture that the emulated
//! board drew. Never a statement about speed: emulation proves what is computed, not how fast.

mod broker;
mod guest;
mod initramfs;
mod machine;
mod system;
pub mod user;
mod watch;

pub use system::bundled_pack;

use crate::compile::{self, Toolchain};
use crate::setup::{self, debian};
use crate::target::Target;
use crate::workspace;
use anyhow::{Result, bail};

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
}

/// Tests a board's binary on the emulated board.
pub fn run(options: &Options) -> Result<()> {
    let board = plantain_boards::load(&options.board)?;
    if !board.triple.starts_with("aarch64") {
        bail!("{} is {}: only 64-bit ARM boards are emulated here", board.name, board.triple);
    }
    let target = Target::of_board(&board)?;
    let toolchain = Toolchain::ensure(&target)?;
    user::runtime_tests(&target, toolchain, &board.qemu.user_cpu)?;
    let binary = compile::cross(&board, "release")?;
    compile::host()?;
    let folder = workspace::target_dir().join("qemu");
    let here = workspace::release_binary("plantain");
    let expected = user::host_picture(&here, &folder.join("host.png"))?;
    user::same_picture(&board, &target, &binary, &expected)?;
    if options.user_only {
        return Ok(());
    }
    debian::ensure(&setup::SYSTEM_EMULATION_PACKAGES)?;
    let ram_bytes = options.ram.map_or(board.ram_bytes, |mebibytes| mebibytes << 20);
    system::run(&board, &binary, ram_bytes, &expected)
}
