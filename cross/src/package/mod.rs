//! What is handed to users: Debian packages, tarballs, checksums, a bill of materials.
//!
//! Enters: a board's binary, the bundled pack, texts that the binary itself prints. Leaves: files whose bytes depend on
//! the source alone: sorted names, one time stamp, no owner, no machine's paths.

pub mod archive;
mod check;
pub mod deb;
pub mod dist;
mod files;
mod root;
mod sbom;

use crate::command::Run;
use crate::workspace;
use std::path::PathBuf;

/// The one time stamp in packages, seconds since 1970: `SOURCE_DATE_EPOCH`, or that of the commit.
pub fn time_stamp() -> u64 {
    let given = std::env::var("SOURCE_DATE_EPOCH").ok();
    let committed =
        || Run::new("git").args(["log", "-1", "--format=%ct"]).dir(workspace::root()).output().ok();
    given.or_else(committed).and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

/// Where packages are put.
pub fn folder() -> PathBuf {
    workspace::target_dir().join("packages")
}

/// Who answers for packages.
const MAINTAINER: &str = "plantain <dev@plantain.invalid>";

/// The version of everything in the workspace.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
