//! Where things lie.

use std::path::{Path, PathBuf};

/// The repository's root.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("cross/ lies in the repository")
}

/// The folder of build outputs: `CARGO_TARGET_DIR` or `target/`.
pub fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// A host binary of the release profile.
pub fn release_binary(name: &str) -> PathBuf {
    target_dir().join("release").join(format!("{name}{}", std::env::consts::EXE_SUFFIX))
}

/// Python of the tests' virtual environment.
pub fn venv_binary(name: &str) -> PathBuf {
    target_dir().join("venv").join("bin").join(name)
}
