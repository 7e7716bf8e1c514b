//! Instructions that kernels, ops and networks take on 64-bit ARM, counted without hardware and held against a table.
//!
//! Enters: the runtime's example `instructions`, built for ARM, and the bundled pack. Leaves: `cross/instructions.toml`, or a
//! verdict on it. Never a statement about time: how many instructions a core ends in a cycle is not known here.

mod count;
mod table;

use crate::compile::Toolchain;
use crate::setup;
use crate::target::Target;
use anyhow::Result;
use table::Table;

/// What `cargo xtask instructions` is asked for.
#[derive(clap::Args)]
pub struct Options {
    /// Write what is counted to the table instead of comparing.
    #[arg(long)]
    update: bool,
}

/// Counts and prints; then compares, or writes the table.
pub fn run(options: &Options) -> Result<()> {
    let (target, toolchain) = setup::arm()?;
    let counted = count::table(&target, toolchain)?;
    println!("{counted}");
    if options.update { counted.write() } else { compare(&counted) }
}

/// Counts and compares with the table.
///
/// # Errors
/// If something takes more instructions than its bound, or the table does not name what was counted.
pub fn check(target: &Target, toolchain: Toolchain) -> Result<()> {
    compare(&count::table(target, toolchain)?)
}

fn compare(counted: &Table) -> Result<()> {
    let better = counted.within(&Table::load()?)?;
    println!("instructions: {} cases within their bounds", counted.cases.len());
    for improved in better {
        println!("NOTE: {improved}");
    }
    Ok(())
}
