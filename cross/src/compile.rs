//! Cargo for another machine: which Rust, which linker, which flags.

use crate::command::{Run, find_program};
use crate::setup::debian;
use crate::target::Target;
use crate::workspace;
use anyhow::{Context, Result, bail};
use plantain_boards::Board;
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
        if let Some(zig) = &target.zig {
            crate::zig::ensure(zig)?;
        }
        if let Some(found) = Self::find(target) {
            return Ok(found);
        }
        println!("setup: rustup target add {}", target.triple);
        let added = Run::new("rustup").args(["target", "add", &target.triple]).output();
        if let Err(error) = added {
            println!("setup: {}; Debian's Rust is taken instead", in_short(&error));
            debian::ensure(&target.debian_std).with_context(|| {
                format!("no Rust for {}: rustup cannot add it here", target.triple)
            })?;
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

    /// The device's binary for a target, if it is built: by this toolchain or the other, the newest.
    pub fn built(target: &Target, profile: &str) -> Option<PathBuf> {
        [Self::Rustup, Self::Debian]
            .map(|toolchain| toolchain.output_dir(target, profile).join("plantain"))
            .into_iter()
            .filter(|path| path.is_file())
            .max_by_key(|path| std::fs::metadata(path).and_then(|file| file.modified()).ok())
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

    /// What it compiles with, and for what: `rustc 1.96.0 for aarch64-unknown-linux-musl`.
    pub fn compiler(self, target: &Target) -> Result<String> {
        let program = if self == Self::Rustup { "rustc" } else { DEBIAN_RUSTC };
        let version = Run::new(program).arg("--version").output()?;
        let words: Vec<&str> = version.split_whitespace().take(2).collect();
        Ok(format!("{} for {}", words.join(" "), target.triple))
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
        // Tests of the binary run in little memory; the symbols of `release` would fill it.
        run = run
            .env("CARGO_PROFILE_RELEASE_STRIP", "symbols")
            .env("CARGO_PROFILE_RELEASE_DEBUG", "none");
        let flags: Vec<String> = target.rustflags.iter().cloned().chain(remapped()).collect();
        run = run.env(format!("CARGO_TARGET_{triple}_RUSTFLAGS"), flags.join(" "));
        let (linker, cc, ar) = tools(target);
        if let Some(linker) = linker {
            run = run.env(format!("CARGO_TARGET_{triple}_LINKER"), linker);
        }
        if let Some(cc) = cc {
            run = run.env(format!("CC_{lower}"), cc);
        }
        if let Some(ar) = ar {
            run = run.env(format!("AR_{lower}"), ar);
        }
        run
    }
}

/// What went wrong, without the program's whole report.
fn in_short(error: &anyhow::Error) -> String {
    let text = error.to_string();
    let line = text.lines().find_map(|line| line.trim().strip_prefix("error: "));
    line.or(text.lines().next()).unwrap_or_default().to_string()
}

/// Flags that keep this machine's paths out of what is built.
fn remapped() -> impl Iterator<Item = String> {
    let home = |variable: &str, folder: &str| {
        std::env::var_os(variable)
            .map(PathBuf::from)
            .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(folder)))
            .map(|path| (path, folder.trim_start_matches('.').to_string()))
    };
    [Some((workspace::root().to_path_buf(), "plantain".into())), home("CARGO_HOME", ".cargo")]
        .into_iter()
        .flatten()
        .map(|(path, name)| format!("--remap-path-prefix={}={name}", path.display()))
}

/// Linker, C compiler and archiver of a target, where they are not the host's.
fn tools(target: &Target) -> (Option<PathBuf>, Option<PathBuf>, Option<PathBuf>) {
    match &target.zig {
        Some(zig) => {
            let tool = |name: &str| Some(workspace::target_dir().join(format!("zig/{zig}-{name}")));
            (tool("cc"), tool("cc"), tool("ar"))
        }
        None => {
            let path = |name: &Option<String>| name.as_ref().map(PathBuf::from);
            (path(&target.linker), path(&target.cc), path(&target.ar))
        }
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

/// Builds this machine's own binary, with the features that the whole workspace has: tests find their crates built.
pub fn host() -> Result<()> {
    Run::cargo().args(["build", "--release", "--workspace", "--bin", "plantain"]).run()
}

/// Builds the device's binary for a board and returns where it lies.
pub fn cross(board: &Board, profile: &str) -> Result<PathBuf> {
    target(&Target::of_board(board)?, profile)
}

/// Builds the device's binary for a target and returns where it lies; refuses one that grew too large.
pub fn target(target: &Target, profile: &str) -> Result<PathBuf> {
    let toolchain = Toolchain::ensure(target)?;
    let run = toolchain.cargo(target, "build").args(["--profile", profile]);
    run.args(["--package", "plantain-daemon", "--bin", "plantain", "--no-default-features"])
        .run()?;
    let binary = toolchain.output_dir(target, profile).join("plantain");
    let bytes = std::fs::metadata(&binary)?.len();
    println!("{}: {bytes} bytes ({:.2} MiB)", binary.display(), mebibytes(bytes));
    if profile == DIST && bytes > target.binary_bytes_max {
        bail!(
            "the binary for {} is {bytes} bytes, at most {} are allowed; see cross/targets/{}.toml",
            target.triple,
            target.binary_bytes_max,
            target.name
        );
    }
    Ok(binary)
}

/// The profile of what is shipped: stripped, optimised as a whole.
pub const DIST: &str = "dist";

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// The emulator of a target, with its full path.
pub fn emulator(target: &Target) -> Result<PathBuf> {
    let name = target.emulator.as_deref().context("this target needs no emulator")?;
    find_program(name).with_context(|| format!("{name} is missing; run `cargo xtask setup`"))
}
