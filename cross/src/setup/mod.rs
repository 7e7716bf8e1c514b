//! Installs what building, testing and emulating need, and only what is missing.
//!
//! Enters: names of Debian packages, Rust components, a requirements file. Leaves: a machine that has them, or one
//! sentence that says what to install by hand. Never removes or upgrades anything.

pub mod debian;
pub mod venv;

use crate::command::Run;
use crate::compile::Toolchain;
use crate::target::Target;
use anyhow::{Context, Result};

/// How much to set up.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// What `cargo xtask test` uses.
    Tests,
    /// Also what packages are tried in.
    Everything,
}

/// The broker that the daemon's tests talk to.
pub const BROKER_PACKAGES: [&str; 2] = ["mosquitto", "mosquitto-clients"];

/// Emulation of whole machines, and what makes disks for them.
pub const SYSTEM_EMULATION_PACKAGES: [&str; 2] = ["qemu-system-arm", "e2fsprogs"];

/// One part of the set-up: its name, and what it does.
type Part = (&'static str, fn() -> Result<()>);

const TEST_PARTS: [Part; 5] = [
    ("rustfmt and clippy", components),
    ("Python for tests", venv::ensure),
    ("MQTT broker", || debian::ensure(&BROKER_PACKAGES)),
    (ARM, || arm().map(|_| ())),
    (MACHINES, crate::qemu::ensure),
];

/// Name of the part that builds for ARM and runs it on emulated processors.
pub const ARM: &str = "ARM compiler and emulator";

/// Name of the part that emulates whole boards.
pub const MACHINES: &str = "emulated machines";

/// What a package is tried in.
const EXTRA_PARTS: [Part; 1] =
    [("package trials", || debian::ensure(&["proot", "fakeroot", "systemd"]))];

/// Sets everything up; the first part that fails is the error.
pub fn run(want: Want) -> Result<()> {
    for (name, outcome) in attempt(want) {
        outcome.context(name)?;
        println!("setup: {name}: ready");
    }
    Ok(())
}

/// Sets everything up and returns the outcome of each part.
pub fn attempt(want: Want) -> Vec<(&'static str, Result<()>)> {
    let extra = if want == Want::Everything { &EXTRA_PARTS[..] } else { &[] };
    TEST_PARTS.iter().chain(extra).map(|(name, part)| (*name, part())).collect()
}

/// The ARM target of the tests with the toolchain that builds it.
pub fn arm() -> Result<(Target, Toolchain)> {
    let target = Target::load("aarch64-musl")?;
    let toolchain = Toolchain::ensure(&target)?;
    Ok((target, toolchain))
}

fn components() -> Result<()> {
    for (command, component) in [("fmt", "rustfmt"), ("clippy", "clippy")] {
        if !Run::cargo().args([command, "--version"]).succeeds() {
            Run::new("rustup").args(["component", "add", component]).run().with_context(|| {
                format!("cargo {command} is missing; install {component} for this toolchain")
            })?;
        }
    }
    Ok(())
}
