//! Cargo for another machine: which Rust, which linker, which flags.

use crate::command::{Run, find_program};
use crate::setup::debian;
use crate::target::Target;
use crate::workspace;
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};

const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_RUSTLIB: &str = "/usr/lib/rustlib";

/// The Rust that builds for a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Toolchain {
    /// The one that built this tool, with the target's standard library installed by rustup.
    Rustup,
    /// Debian's compiler, driven by this cargo, with Debian's standard library for the target.
    Debian,
    /// Debian's compiler, building the standard library from Debian's source.
    DebianFromSource,
}

impl Toolchain {
    /// Finds a toolchain for the target and installs what it lacks: rustup's target first, Debian's packages second.
    pub fn ensure(target: &Target) -> Result<Self> {
        debian::ensure(&target.debian_packages)?;
        if let Some(found) = Self::find(target) {
            return Ok(found);
        }
        println!("setup: rustup target add {}", target.triple);
        let added = Run::new("rustup").args(["target", "add", &target.triple]).output();
        if let Err(error) = added {
            debian::ensure(&target.debian_std)
                .with_context(|| format!("no Rust for {}: {error}", target.triple))?;
        }
        Self::find(target)
            .with_context(|| format!("no Rust standard library for {} was found", target.triple))
    }

    /// The toolchain that is there already.
    fn find(target: &Target) -> Option<Self> {
        let own = Run::new("rustc")
            .args(["--print", "target-libdir", "--target", &target.triple])
            .output()
            .is_ok_and(|path| has_std(Path::new(path.trim())));
        let debian = Path::new(DEBIAN_RUSTLIB);
        let wants_source = target.debian_std.iter().any(|package| package == "rust-web-src");
        if own {
            Some(Self::Rustup)
        } else if !Path::new(DEBIAN_RUSTC).exists() {
            None
        } else if has_std(&debian.join(&target.triple).join("lib")) {
            Some(Self::Debian)
        } else {
            let source = debian.join("src/rust/library/std/Cargo.toml");
            (wants_source && source.exists()).then_some(Self::DebianFromSource)
        }
    }

    /// Where this toolchain's outputs for a target lie.
    pub fn output_dir(self, target: &Target, profile: &str) -> PathBuf {
        self.target_dir().join(&target.triple).join(profile)
    }

    /// Two compilers never share a folder.
    fn target_dir(self) -> PathBuf {
        match self {
            Self::Rustup => workspace::target_dir(),
            Self::Debian | Self::DebianFromSource => workspace::target_dir().join("debian"),
        }
    }

    /// A cargo command for the target; sub-command and further arguments are appended by the caller.
    pub fn cargo(self, target: &Target, subcommand: &str) -> Run {
        let triple = target.env_triple();
        let lower = target.triple.replace('-', "_");
        let mut run = Run::cargo()
            .arg(subcommand)
            .args(["--target", &target.triple, "--target-dir"])
            .arg(self.target_dir());
        if self != Self::Rustup {
            run = run.env("RUSTC", DEBIAN_RUSTC).env("RUSTDOC", "/usr/bin/rustdoc");
        }
        if self == Self::DebianFromSource {
            run = run.arg("-Zbuild-std=std,panic_abort").env("RUSTC_BOOTSTRAP", "1");
        }
        if !target.rustflags.is_empty() {
            run = run.env(format!("CARGO_TARGET_{triple}_RUSTFLAGS"), target.rustflags.join(" "));
        }
        if let Some(linker) = &target.linker {
            run = run.env(format!("CARGO_TARGET_{triple}_LINKER"), linker);
        }
        if let Some(cc) = &target.cc {
            run = run.env(format!("CC_{lower}"), cc);
        }
        if let Some(ar) = &target.ar {
            run = run.env(format!("AR_{lower}"), ar);
        }
        run
    }
}

fn has_std(lib: &Path) -> bool {
    std::fs::read_dir(lib).is_ok_and(|entries| {
        entries.filter_map(Result::ok).any(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            name.starts_with("libstd-") && name.ends_with(".rlib")
        })
    })
}

/// The emulator of a target, with its full path.
pub fn emulator(target: &Target) -> Result<PathBuf> {
    let name = target.emulator.as_deref().context("this target needs no emulator")?;
    find_program(name).with_context(|| format!("{name} is missing; run `cargo xtask setup`"))
}
