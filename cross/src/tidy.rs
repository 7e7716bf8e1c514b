//! House rules that a machine can check: they hold for every tracked file.

use crate::command::Run;
use crate::workspace;
use anyhow::{Result, bail};
use std::path::Path;

/// Longest source file.
const LINES_MAX: usize = 600;

/// Folders and files that may stand at the top.
const HOUSE: [&str; 23] = [
    ".cargo",
    ".ci",
    ".gitattributes",
    ".github",
    ".gitignore",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "README.md",
    "SECURITY.md",
    "clippy.toml",
    "deny.toml",
    "docs",
    "rust-toolchain.toml",
    "rustfmt.toml",
    "typos.toml",
    "NOTICE",
    "Cross.toml",
];

/// The crates' folders.
const CRATES: [&str; 6] = ["runtime", "models", "daemon", "boards", "cross", "tests"];

/// Where unsafe code may stand.
const UNSAFE: [&str; 7] = [
    "runtime/src/pack/map.rs",
    "runtime/src/arena/region.rs",
    "runtime/src/kernel/lanes/instantiate.rs",
    "runtime/src/kernel/x86_64/",
    "runtime/src/kernel/aarch64/",
    "runtime/examples/tract/mod.rs",
    "tests/",
];

/// Names that stay inside the folders given.
const CONFINED: [(&str, &[&str]); 3] = [
    (
        "tract_linalg::",
        &[
            "runtime/examples/tract/mod.rs",
            "runtime/examples/tract_kernels.rs",
            "runtime/examples/instructions/kernels.rs",
        ],
    ),
    ("tract_onnx::", &["models/", "tests/"]),
    ("rumqttc::", &["daemon/src/mqtt/", "daemon/src/demo.rs", "daemon/tests/"]),
];

/// Checks every tracked file.
pub fn run() -> Result<()> {
    let root = workspace::root();
    let listed = Run::new("git").args(["ls-files", "-z"]).dir(root).output()?;
    let mut findings = Vec::new();
    let mut files = 0;
    for path in listed.split('\0').filter(|path| !path.is_empty()) {
        files += 1;
        findings.extend(place(path));
        // A file that is staged for deletion, or that is no text, has no lines to check.
        if let Ok(text) = std::fs::read_to_string(root.join(path)) {
            findings.extend(lines(path, &text));
        }
    }
    if !findings.is_empty() {
        bail!("house rules:\n{}", findings.join("\n"));
    }
    println!("tidy: {files} files");
    Ok(())
}

/// Whether a file stands where files stand.
fn place(path: &str) -> Option<String> {
    let top = path.split('/').next().unwrap_or_default();
    (!HOUSE.contains(&top) && !CRATES.contains(&top))
        .then(|| format!("{path}: `{top}` is no part of the house; put it into one of {CRATES:?}"))
}

fn lines(path: &str, text: &str) -> Vec<String> {
    let extension = Path::new(path).extension().and_then(|e| e.to_str()).unwrap_or_default();
    let source = matches!(extension, "rs" | "py" | "sh");
    let prose = matches!(extension, "md" | "toml" | "service") || path == ".ci/run";
    let mut findings = Vec::new();
    if path == "Cargo.lock" || !(source || prose) {
        return findings;
    }
    let mut find = |line: usize, what: String| findings.push(format!("{path}:{line}: {what}"));
    if source && text.lines().count() > LINES_MAX {
        find(1, format!("{} lines, at most {LINES_MAX}; split it", text.lines().count()));
    }
    if path.ends_with("/mod.rs") && !text.starts_with("//!") {
        find(1, "a mod.rs opens with what enters, what leaves, what it never does".into());
    }
    if !text.is_empty() && !text.ends_with('\n') {
        find(text.lines().count(), "no newline at the end".into());
    }
    for (index, line) in text.lines().enumerate() {
        let number = index + 1;
        if line.ends_with([' ', '\t']) && extension != "md" {
            find(number, "space at the end of the line".into());
        }
        for marker in markers() {
            if source && line.contains(&marker) {
                find(number, format!("`{marker}`: finish it or file it, nothing half-done stays"));
            }
        }
        for place in machine_places() {
            if names(line, &place) {
                find(number, format!("`{place}` is a place on one machine"));
            }
        }
        if extension == "rs" {
            for (name, homes) in CONFINED {
                let home = homes.iter().any(|home| path.starts_with(home));
                if line.contains(name) && !home && path != "cross/src/tidy.rs" {
                    find(number, format!("`{name}` stays in {homes:?}"));
                }
            }
            let allowed = UNSAFE.iter().any(|place| path.starts_with(place));
            if !allowed && is_unsafe(line) {
                find(number, "unsafe code stands only where ARCHITECTURE.md lists it".into());
            }
        }
    }
    findings
}

/// Whether a line of code opens an unsafe block, function or implementation.
fn is_unsafe(line: &str) -> bool {
    let code = line.trim_start();
    if code.starts_with("//") {
        return false;
    }
    let word = concat!("un", "safe");
    ["{", "fn ", "impl ", "extern "].iter().any(|next| code.contains(&format!("{word} {next}")))
}

/// Words that mark unfinished work. Written apart, so that this file passes its own check.
fn markers() -> [String; 4] {
    [["to", "do!("], ["unimple", "mented!("], ["FIX", "ME"], ["X", "XX"]]
        .map(|parts| parts.concat())
}

/// Paths and hosts that exist on one machine only.
fn machine_places() -> [String; 6] {
    [
        ["/wo", "rk/"],
        ["/ro", "ot/"],
        ["/home", "/user"],
        ["//deb.", "debian.org"],
        ["//index.", "crates.io"],
        ["//static.", "rust-lang.org"],
    ]
    .map(|parts| parts.concat())
}

/// Whether a line names a place as a path of its own, not as the tail of a longer one (`models/work/`).
fn names(line: &str, place: &str) -> bool {
    line.match_indices(place).any(|(at, _)| {
        !line[..at].ends_with(|c: char| {
            c.is_alphanumeric() || matches!(c, '_' | '.' | '-' | '/' | '~' | '}')
        }) || place.starts_with("//")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(path: &str, text: &str) -> usize {
        lines(path, text).len()
    }

    #[test]
    fn places() {
        assert_eq!(place("runtime/src/lib.rs"), None);
        assert_eq!(place("README.md"), None);
        assert!(place("scripts/x.sh").is_some());
        assert!(place("notes.txt").is_some());
    }

    #[test]
    fn long_and_unfinished_files() {
        assert_eq!(findings("a/b.rs", &"let x;\n".repeat(LINES_MAX)), 0);
        assert_eq!(findings("a/b.rs", &"let x;\n".repeat(LINES_MAX + 1)), 1);
        assert_eq!(findings("a/b.md", &"word\n".repeat(LINES_MAX + 1)), 0);
        assert_eq!(findings("a/b.rs", &format!("{}x)\n", markers()[0])), 1);
        assert_eq!(findings("a/b.rs", "let x; \n"), 1);
        assert_eq!(findings("a/b.rs", "let x;"), 1);
    }

    #[test]
    fn machine_paths() {
        let place = &machine_places()[0];
        assert_eq!(findings("a/b.md", &format!("see {place}main\n")), 1);
        assert_eq!(findings("a/b.md", &format!("see models{place}main\n")), 0);
        assert_eq!(findings("a/b.md", &format!("http:{}\n", machine_places()[3])), 1);
    }

    #[test]
    fn unsafe_code_and_confined_names() {
        let block = concat!("    un", "safe { x() };\n");
        assert_eq!(findings("daemon/src/main.rs", block), 1);
        assert_eq!(findings("runtime/src/pack/map.rs", block), 0);
        assert_eq!(findings("daemon/src/main.rs", &format!("// {block}")), 0);
        assert_eq!(findings("runtime/src/plan/mod.rs", "//! x\nuse tract_onnx::prelude;\n"), 1);
        assert_eq!(findings("models/src/import/mod.rs", "//! x\nuse tract_onnx::prelude;\n"), 0);
    }

    #[test]
    fn module_files_introduce_themselves() {
        assert_eq!(findings("runtime/src/plan/mod.rs", "mod order;\n"), 1);
        assert_eq!(findings("runtime/src/plan/mod.rs", "//! Enters.\nmod order;\n"), 0);
    }
}
