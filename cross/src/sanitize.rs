//! `cargo xtask sanitize`: the runtime's tests and a whole picture under tools that watch every access to memory.
//!
//! AddressSanitizer sees all kernels that this processor runs, ThreadSanitizer the crew and the shared arena. Valgrind
//! knows neither AVX-512 nor AVX-VNNI: it sees the AVX2 and the scalar kernels, and also what is read before it was written.

use anyhow::{Context, Result, bail};

use crate::command::Run;
use crate::setup::debian;
use crate::workspace;

/// The compiler's watchers. The flags are not stable yet, hence `RUSTC_BOOTSTRAP`; ThreadSanitizer would also have the
/// standard library built with it, without which it sees less of that library and the same of ours.
const SANITIZERS: [(&str, &str); 2] = [
    ("address", "-Zsanitizer=address"),
    ("thread", "-Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer"),
];

/// Tests that start other programs: what these do is not watched, and a fork under a watcher may hang.
const SKIPPED: [&str; 2] = ["--skip", "exiftool_reads_the_mark"];

/// Tests of the files with unsafe code; emulated instructions are fifty times slower, so that the others are left out.
const UNSAFE: [&str; 3] = ["kernel::", "arena::", "pack::"];

/// What the arguments of Valgrind's memory checker say: be brief, and let an error fail the run.
const VALGRIND: &str = "valgrind --quiet --error-exitcode=99 --leak-check=no --fair-sched=yes";

/// Arguments of `sanitize`.
#[derive(clap::Args)]
pub struct Options {
    /// address, thread, valgrind; all if none is named.
    watchers: Vec<String>,
}

/// Builds, runs, compares the pictures.
pub fn run(options: &Options) -> Result<()> {
    let known: Vec<&str> = SANITIZERS.iter().map(|(name, _)| *name).chain(["valgrind"]).collect();
    if let Some(name) = options.watchers.iter().find(|name| !known.contains(&name.as_str())) {
        bail!("{name} is no watcher; name {}", known.join(", "));
    }
    let wanted =
        |name: &str| options.watchers.is_empty() || options.watchers.iter().any(|w| w == name);
    let triple = host()?;
    let expected = picture(&Watched { triple: &triple, watcher: None }, "1", None)?;
    for sanitizer in SANITIZERS.iter().filter(|(name, _)| wanted(name)) {
        let watched = Watched { triple: &triple, watcher: Some(Watcher::Compiled(sanitizer)) };
        watched.cargo("test").args(["--lib", "--"]).args(SKIPPED).run()?;
        for (threads, kernels) in [("1", None), ("4", None), ("2", Some("scalar"))] {
            same(&expected, &picture(&watched, threads, kernels)?)?;
        }
    }
    if wanted("valgrind") {
        debian::ensure(&["valgrind"])?;
        let watched = Watched { triple: &triple, watcher: Some(Watcher::Valgrind) };
        watched.cargo("test").args(["--lib", "--"]).args(UNSAFE).args(SKIPPED).run()?;
        same(&expected, &picture(&watched, "2", None)?)?;
    }
    println!("nothing found; the picture is {expected} each time");
    Ok(())
}

enum Watcher {
    Compiled(&'static (&'static str, &'static str)),
    Valgrind,
}

/// The runtime's code with what watches it.
struct Watched<'a> {
    triple: &'a str,
    watcher: Option<Watcher>,
}

impl Watched<'_> {
    fn cargo(&self, subcommand: &str) -> Run {
        let run = Run::cargo().args([subcommand, "--release", "--quiet", "--package", "plantain"]);
        match &self.watcher {
            None => run,
            Some(Watcher::Compiled((name, flags))) => run
                .args(["--target", self.triple, "--target-dir"])
                .arg(workspace::target_dir().join("sanitize").join(name))
                .env("RUSTC_BOOTSTRAP", "1")
                .env("RUSTFLAGS", flags)
                .env("TSAN_OPTIONS", suppressions())
                // Backtraces of tests that panic go through locks of the standard library, which ThreadSanitizer does not see.
                .env("RUST_BACKTRACE", "0"),
            Some(Watcher::Valgrind) => {
                let triple = self.triple.replace('-', "_").to_uppercase();
                // What rustix does without the C library it asks the kernel's own page for, which Valgrind hides.
                run.args(["--target-dir"])
                    .arg(workspace::target_dir().join("sanitize/valgrind"))
                    .env("RUSTFLAGS", "--cfg rustix_use_libc")
                    .env(format!("CARGO_TARGET_{triple}_RUNNER"), VALGRIND)
            }
        }
    }
}

/// Tells ThreadSanitizer what it cannot judge.
fn suppressions() -> String {
    let file = workspace::root().join("cross/thread_sanitizer.supp");
    format!("suppressions={}", file.display())
}

/// Draws the bundled pack's picture; returns the hash of its pixels.
fn picture(watched: &Watched<'_>, threads: &str, kernels: Option<&str>) -> Result<String> {
    let pack = workspace::root().join("models/packs/plantain-icons.safetensors");
    let out = workspace::target_dir().join("sanitized.png");
    let mut run = watched.cargo("run").args(["--example", "draw", "--"]).arg(pack);
    run = run.arg("a red apple").arg(&out).arg(threads);
    if let Some(kernels) = kernels {
        run = run.env("PLANTAIN_KERNELS", kernels);
    }
    Ok(run.output()?.trim().to_owned())
}

fn same(expected: &str, hash: &str) -> Result<()> {
    if hash != expected {
        bail!("the watched picture is {hash}, the other {expected}");
    }
    Ok(())
}

/// The triple of this machine.
fn host() -> Result<String> {
    let about = Run::new("rustc").arg("-vV").output()?;
    let line = about.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(line.context("rustc does not say what machine this is")?.to_owned())
}
