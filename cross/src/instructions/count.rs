//! Counts: the example under QEMU with a plugin, on one emulated processor beside the other.

use super::table::{Case, Table};
use crate::command::Run;
use crate::compile::{self, Toolchain};
use crate::qemu::bundled_pack;
use crate::target::Target;
use crate::workspace;
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};

/// Processors by what they add: NEON alone, dot products, matrix products.
pub const CPUS: [&str; 3] = ["cortex-a53", "cortex-a76", "max"];

/// The plugin of QEMU.
const PLUGIN: &str = include_str!("count.c");

/// Builds the example and counts on each processor.
pub fn table(target: &Target, toolchain: Toolchain) -> Result<Table> {
    let run = toolchain.cargo(target, "build").args(["--release", "--quiet"]);
    run.args(["--package", "plantain", "--example", "instructions"]).run()?;
    let program = toolchain.output_dir(target, "release").join("examples/instructions");
    let emulator = compile::emulator(target)?;
    let plugin = plugin()?;
    let counted = std::thread::scope(|scope| {
        let runs = CPUS.map(|cpu| scope.spawn(|| on(&emulator, &plugin, &program, cpu)));
        runs.map(|run| run.join().expect("counting does not panic"))
    });
    let mut cases: Vec<Case> = Vec::new();
    for (cpu, counted) in CPUS.iter().zip(counted) {
        for (index, (line, instructions)) in counted?.into_iter().enumerate() {
            if index == cases.len() {
                cases.push(serde_json::from_str(&line).with_context(|| line.clone())?);
            }
            cases[index].instructions.insert(cpu.to_string(), instructions);
        }
    }
    Ok(Table { compiler: toolchain.compiler(target)?, cases })
}

/// Compiles the plugin.
fn plugin() -> Result<PathBuf> {
    let folder = workspace::target_dir().join("instructions");
    std::fs::create_dir_all(&folder)?;
    let (source, plugin) = (folder.join("count.c"), folder.join("count.so"));
    std::fs::write(&source, PLUGIN)?;
    let run = Run::new("cc").args(["-O2", "-shared", "-fPIC", "-o"]).arg(&plugin).arg(&source);
    run.output().context("the plugin that counts needs a C compiler")?;
    Ok(plugin)
}

/// The lines that the example writes behind its cases, with the instructions of each.
fn on(emulator: &Path, plugin: &Path, program: &Path, cpu: &str) -> Result<Vec<(String, u64)>> {
    let counts = plugin.with_file_name(format!("{cpu}.txt"));
    let plugin = format!("{},out={}", plugin.display(), counts.display());
    // Nothing of this machine's environment moves the guest's stack.
    let run = Run::new("env").arg("-i").arg(emulator);
    let run = run.args(["-seed", "1", "-cpu", cpu, "-plugin", &plugin]).arg(program);
    let lines = run.arg(bundled_pack()?).output().with_context(|| {
        format!("counting on an emulated {cpu}; it needs QEMU 6 to 8 with plugins (Debian's qemu-user 7.2 has them)")
    })?;
    let counts = std::fs::read_to_string(&counts)?;
    pair(&lines, &counts)
}

/// An empty line is written before the work of a case, its line behind it; the plugin writes a count for each.
fn pair(lines: &str, counts: &str) -> Result<Vec<(String, u64)>> {
    let counts = counts.lines().map(str::parse).collect::<Result<Vec<u64>, _>>()?;
    if lines.lines().count() != counts.len() {
        bail!("{} lines were written, {} counted", lines.lines().count(), counts.len());
    }
    let before = [0].iter().chain(&counts);
    let spent = counts.iter().zip(before).map(|(after, before)| after - before);
    let lines = lines.lines().zip(spent).filter(|(line, _)| !line.is_empty());
    Ok(lines.map(|(line, spent)| (line.to_owned(), spent)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_has_what_was_run_since_the_line_before() {
        let pairs = pair("\n\nfirst\n\nsecond\n", "9\n20\n120\n150\n151\n").unwrap();
        assert_eq!(pairs, [("first".to_owned(), 100), ("second".to_owned(), 1)]);
        let error = pair("\nfirst\n", "9\n").unwrap_err().to_string();
        assert!(error.contains("2 lines") && error.contains("1 counted"), "{error}");
        assert!(pair("\n", "x\n").is_err());
    }
}
