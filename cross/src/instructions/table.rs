//! The table of counts, its file and its bounds.

use super::count::CPUS;
use crate::workspace;
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::path::PathBuf;

/// A count varies by some hundred instructions from run to run.
const NOISE: u64 = 1000;
/// Percent by which a count may be above the table's.
const SLACK: u64 = 2;
/// The same for code of another compiler or C library.
const SLACK_OF_OTHER_COMPILER: u64 = 10;

/// What was counted.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// What built the program: `rustc 1.96.0 for aarch64-unknown-linux-musl`.
    pub compiler: String,
    /// In the order in which they ran.
    #[serde(rename = "case")]
    pub cases: Vec<Case>,
}

/// One kernel, op or network on fixed shapes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// What ran, and its shapes.
    #[serde(rename = "case")]
    pub name: String,
    /// Multiply-adds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub macs: Option<u64>,
    /// Values that came out, where nothing is multiplied and added.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub values: Option<u64>,
    /// By processor.
    #[serde(default)]
    pub instructions: BTreeMap<String, u64>,
}

impl Case {
    /// Multiply-adds, or values, an instruction.
    fn work_per_instruction(&self, cpu: &str) -> f64 {
        let work = self.macs.or(self.values).unwrap_or(0) as f64;
        let instructions = self.instructions.get(cpu).copied().unwrap_or(0);
        work / instructions.max(1) as f64
    }
}

impl Table {
    fn path() -> PathBuf {
        workspace::root().join("cross/instructions.toml")
    }

    /// Reads the file.
    pub fn load() -> Result<Self> {
        let path = Self::path();
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("{} cannot be read", path.display()))?;
        toml::from_str(&text).context("cross/instructions.toml")
    }

    /// Writes the file.
    pub fn write(&self) -> Result<()> {
        let path = Self::path();
        std::fs::write(&path, self.text())?;
        println!("wrote {} cases to {}", self.cases.len(), path.display());
        Ok(())
    }

    fn text(&self) -> String {
        let mut text = format!(
            "# Instructions of one call on an emulated processor, written by `cargo xtask instructions --update`. `cargo xtask test` fails\n\
             # where more than {SLACK}% and {NOISE} are added. Behind each count: multiply-adds, or values, an instruction.\n\n\
             compiler = {:?}\n",
            self.compiler
        );
        for case in &self.cases {
            let (unit, work) = match (case.macs, case.values) {
                (Some(macs), _) => ("macs", macs),
                (None, values) => ("values", values.unwrap_or(0)),
            };
            let _ = write!(text, "\n[[case]]\ncase = {:?}\n{unit} = {work}\n", case.name);
            let _ = writeln!(text, "[case.instructions]");
            for (cpu, instructions) in &case.instructions {
                let per_instruction = case.work_per_instruction(cpu);
                let _ = writeln!(text, "{cpu} = {instructions} # {per_instruction:.2}");
            }
        }
        text
    }

    /// Holds what was counted against a table. Returns what became better, a sentence each.
    ///
    /// # Errors
    /// All cases that are above their bound or not in the table, and those of the table that were not counted.
    pub fn within(&self, table: &Table) -> Result<Vec<String>> {
        let same = self.compiler == table.compiler;
        let percent = if same { SLACK } else { SLACK_OF_OTHER_COMPILER };
        let slack = |count: u64| count * percent / 100 + NOISE;
        let (mut faults, mut better) = (Vec::new(), Vec::new());
        for case in &self.cases {
            let known = table.cases.iter().find(|known| known.name == case.name);
            for (cpu, &now) in &case.instructions {
                let Some(&before) = known.and_then(|known| known.instructions.get(cpu)) else {
                    faults.push(format!("{}: the table has no count for {cpu}", case.name));
                    continue;
                };
                let told =
                    format!("{} on {cpu}: {now} instructions, {before} in the table", case.name);
                if now > before + slack(before) {
                    faults.push(told);
                } else if now + slack(before) < before {
                    better.push(told);
                }
            }
        }
        for known in &table.cases {
            if !self.cases.iter().any(|case| case.name == known.name) {
                faults.push(format!("{}: in the table, but not counted", known.name));
            }
        }
        if !faults.is_empty() {
            bail!(
                "{}\nmore than {percent}% and {NOISE} above cross/instructions.toml (of {}, this is {}): make it cheaper, or \
                 run `cargo xtask instructions --update` if it is meant",
                faults.join("\n"),
                table.compiler,
                self.compiler
            );
        }
        if same && !better.is_empty() {
            better.push("keep it so: cargo xtask instructions --update".into());
        }
        Ok(better)
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<52} {:>11}", "CASE", "WORK")?;
        CPUS.iter().try_for_each(|cpu| write!(f, " {:>22}", format!("{cpu}, work each")))?;
        for case in &self.cases {
            let work = case.macs.or(case.values).unwrap_or(0);
            write!(f, "\n{:<52} {work:>11}", case.name)?;
            for cpu in CPUS {
                let instructions = case.instructions.get(cpu).copied().unwrap_or(0);
                write!(f, " {instructions:>14} {:>7.2}", case.work_per_instruction(cpu))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(compiler: &str, name: &str, instructions: u64) -> Table {
        let instructions = BTreeMap::from([("cortex-a53".to_owned(), instructions)]);
        let case = Case { name: name.into(), macs: Some(500_000), values: None, instructions };
        Table { compiler: compiler.into(), cases: vec![case] }
    }

    #[test]
    fn what_became_dearer_is_named_with_both_numbers() {
        let known = table("rustc 1", "gemm", 100_000);
        for within in [100_000, 103_000, 97_000] {
            assert_eq!(table("rustc 1", "gemm", within).within(&known).unwrap(), [""; 0]);
        }
        let error = table("rustc 1", "gemm", 103_001).within(&known).unwrap_err().to_string();
        for word in ["gemm", "cortex-a53", "103001", "100000", "--update"] {
            assert!(error.contains(word), "{word} in {error}");
        }
        assert!(table("rustc 2", "gemm", 111_000).within(&known).is_ok());
        assert!(table("rustc 2", "gemm", 111_001).within(&known).is_err());
    }

    #[test]
    fn what_became_cheaper_is_told() {
        let better = table("rustc 1", "gemm", 96_999).within(&table("rustc 1", "gemm", 100_000));
        assert!(better.unwrap().last().unwrap().contains("--update"));
    }

    #[test]
    fn a_case_that_only_one_side_has_fails() {
        let error = table("rustc 1", "a", 1).within(&table("rustc 1", "b", 1)).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("a: the table has no") && text.contains("b: in the table"), "{text}");
    }

    #[test]
    fn the_file_is_read_as_it_was_written() {
        let written = table("rustc 1 for aarch64", "gemm_i8 36 x 320 x 64", 187_969);
        let text = written.text();
        assert!(text.contains("cortex-a53 = 187969 # 2.66"), "{text}");
        assert_eq!(toml::from_str::<Table>(&text).unwrap(), written);
    }

    #[test]
    fn the_table_of_the_repository_has_every_processor() {
        let table = Table::load().unwrap();
        assert!(!table.cases.is_empty());
        for case in table.cases {
            assert!(CPUS.iter().all(|&cpu| case.instructions.contains_key(cpu)), "{}", case.name);
        }
    }
}
