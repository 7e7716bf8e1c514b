//! The built `plantain`, as a user runs it.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::process::{Command, Output};

/// The repository's root.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The bundled pack.
pub fn bundled_pack() -> PathBuf {
    root().join("models/packs/plantain-icons.safetensors")
}

/// The binary that `cargo xtask test` has built; without it, the usual place of a release build.
pub fn plantain() -> PathBuf {
    built("PLANTAIN_BIN", "plantain")
}

/// The packer's binary, likewise.
pub fn plantain_pack() -> PathBuf {
    built("PLANTAIN_PACK_BIN", "plantain-pack")
}

fn built(variable: &str, name: &str) -> PathBuf {
    let path = std::env::var_os(variable).map(PathBuf::from);
    let path = path.unwrap_or_else(|| root().join("target/release").join(name));
    assert!(path.is_file(), "{} is not built; run `cargo xtask test`", path.display());
    path
}

/// How a command ended.
#[derive(Debug)]
pub struct Ended {
    /// Exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ended { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
    }
}

/// Runs `plantain`, with the bundled pack unless the arguments name another.
pub fn run<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Ended {
    run_with(&[plantain().into_os_string()], args)
}

/// As [`run`], with words before the arguments: the binary, perhaps behind an emulator or `unshare -n`.
pub fn run_with<S: AsRef<OsStr>>(words: &[OsString], args: impl IntoIterator<Item = S>) -> Ended {
    let (program, rest) = words.split_first().expect("a program");
    let mut command = Command::new(program);
    command.args(rest).args(args);
    command.env_remove("PLANTAIN_BOARD").env("PLANTAIN_PACK", pack());
    command.output().expect("the binary starts").into()
}

/// The pack that tests draw with: the bundled one, or what `PLANTAIN_PACK` names.
pub fn pack() -> PathBuf {
    std::env::var_os("PLANTAIN_PACK").map_or_else(bundled_pack, PathBuf::from)
}
