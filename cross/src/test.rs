//! Everything a change must pass, in the order that finds mistakes soonest.

use crate::command::Run;
use crate::setup::{self, Want};
use crate::{compile, instructions, licences, qemu, size, tidy, workspace};
use anyhow::{Context, Result, bail};
use std::path::PathBuf;
use std::time::Instant;

/// What happens to a check whose tools cannot be installed here.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// It is named, with what to install, and left out.
    IsNoted,
    /// It fails the run.
    IsAnError,
}

/// Processors of the boards, and one that has all that our kernels use: without SDOT (two), with SDOT and fp16, with I8MM.
const CPUS: [&str; 4] = ["cortex-a53", "cortex-a72", "cortex-a76", "max"];

/// The board that is emulated whole: the smallest.
const BOARD: &str = "rpi-zero2w";

/// Profile of the binaries that are tested.
const RELEASE: &str = "release";

/// Runs every check; `rest` goes to the closing `cargo test`.
pub fn run(rest: &[String], missing: Missing) -> Result<()> {
    let absent = prepare(missing)?;
    step("house rules", tidy::run)?;
    step("licences, bans, sources", licences::run)?;
    step("formatting", || Run::cargo().args(["fmt", "--all", "--check"]).run())?;
    if !absent.contains(&"Python for tests") {
        step("spelling", || {
            Run::new(workspace::venv_binary("typos")).dir(workspace::root()).run()
        })?;
    }
    step("lints", || {
        Run::cargo()
            .args(["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"])
            .run()
    })?;
    step("documentation", || {
        Run::cargo()
            .args(["doc", "--workspace", "--no-deps", "--quiet"])
            .env("RUSTDOCFLAGS", "-D warnings")
            .run()
    })?;
    step("binaries", || Run::cargo().args(["build", "--release", "--workspace", "--bins"]).run())?;
    let mut variables = vec![
        ("PLANTAIN_BIN", workspace::release_binary("plantain")),
        ("PLANTAIN_PACK_BIN", workspace::release_binary("plantain-pack")),
    ];
    if !absent.contains(&"Python for tests") {
        variables.push(("PLANTAIN_PYTHON", workspace::venv_binary("python")));
    }
    if !absent.contains(&setup::ARM) {
        step("ARM under emulation", || {
            variables.extend(arm(!absent.contains(&setup::MACHINES))?);
            Ok(())
        })?;
    }
    Run::cargo().args(["test", "--release", "--workspace"]).args(rest).envs(variables).run()?;
    if !absent.is_empty() {
        println!("NOTE: passed, without the checks that need {}; see above", absent.join(", "));
    }
    Ok(())
}

/// Installs what is missing; returns the parts that could not be.
fn prepare(missing: Missing) -> Result<Vec<&'static str>> {
    let mut absent = Vec::new();
    for (name, outcome) in setup::attempt(Want::Tests) {
        if let Err(error) = outcome {
            if missing == Missing::IsAnError {
                bail!("{name}: {error:#}");
            }
            println!("NOTE: without {name}, its checks are left out: {error:#}");
            absent.push(name);
        }
    }
    Ok(absent)
}

/// Runs the runtime's own tests as ARM code on each processor, draws the same picture on each and counts instructions;
/// then boots a whole board, which serves over MQTT and loses its power, and measures what boards are given. Returns
/// variables for the tests to come.
fn arm(machines: bool) -> Result<Vec<(&'static str, PathBuf)>> {
    let (target, toolchain) = setup::arm()?;
    let emulator = compile::emulator(&target)?;
    let expected = qemu::user::host_picture()?;
    let binary = compile::target(&target, RELEASE)?;
    for cpu in CPUS {
        qemu::user::runtime_tests(&target, toolchain, cpu)?;
        qemu::user::same_picture(&target, &binary, cpu, &expected)?;
    }
    instructions::check(&target, toolchain)?;
    if machines {
        let board = plantain_boards::find(BOARD)?;
        qemu::whole(board, &binary, board.ram_bytes, &expected)?;
    }
    size::report(plantain_boards::all(), RELEASE)?;
    Ok(vec![("PLANTAIN_AARCH64_BIN", binary), ("PLANTAIN_QEMU_AARCH64", emulator)])
}

fn step(name: &str, check: impl FnOnce() -> Result<()>) -> Result<()> {
    println!("\n== {name}");
    let start = Instant::now();
    check().with_context(|| format!("step `{name}`"))?;
    println!("   {name}: passed in {:.0} s", start.elapsed().as_secs_f64());
    Ok(())
}
