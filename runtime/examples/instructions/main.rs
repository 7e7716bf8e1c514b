//! Work for `cargo xtask instructions`, which counts what it takes on an emulated processor: each kernel (and the int8 products by
//! tract's kernels beside ours), each op of the engine and each network of a pack, once, on one thread.
//!
//! Writes two lines a case to standard output, an empty one just before the work and the case as JSON just behind
//! it. An emulator that notes how many instructions it has run at each of these writes has the case's count. Everything
//! ran once before, so that what happens at first use only is in no count.

mod kernels;
mod networks;
mod ops;
#[path = "../tract/mod.rs"]
mod tract;

use std::error::Error;
use std::io::Write;

/// What the instructions of a case are set against.
#[derive(Clone, Copy)]
pub enum Work {
    /// Multiply-adds.
    Macs(usize),
    /// Values that come out.
    Values(usize),
}

/// The line that stands behind the work of a case.
pub fn line(case: &str, work: Work) -> String {
    let (unit, amount) = match work {
        Work::Macs(macs) => ("macs", macs),
        Work::Values(values) => ("values", values),
    };
    serde_json::json!({ "case": case, unit: amount }).to_string()
}

/// Writes one line with one call of the system.
pub fn mark(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").expect("standard output takes a line");
}

/// One case whose call can be repeated as it is.
pub fn count(case: &str, work: Work, mut call: impl FnMut()) {
    let line = line(case, work);
    call();
    mark("");
    call();
    mark(&line);
}

fn main() -> Result<(), Box<dyn Error>> {
    let Some(pack) = std::env::args_os().nth(1) else {
        return Err("give the path of a pack: instructions PACK".into());
    };
    // The first write makes the buffer.
    mark("");
    let kernels = plantain::kernel::Kernels::chosen()?;
    kernels::count_all(kernels);
    ops::count_all()?;
    networks::count_all(pack.as_ref())
}
