//! `zig cc` as linker and C compiler of the static targets, under the names that cargo is given.
//!
//! Cargo wants one program without arguments, and says the target in its own words; so this tool links itself to
//! `target/zig/TARGET-cc` and `TARGET-ar`, and acts as those when it is called by that name.

use crate::setup::venv;
use crate::workspace;
use anyhow::{Context, Result};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Installs Zig where it is missing, and makes the names for a target.
pub fn ensure(target: &str) -> Result<()> {
    venv::install(
        &workspace::target_dir().join("venv"),
        &workspace::root().join("cross/requirements.txt"),
    )
    .context("the static targets are linked by zig")?;
    let folder = workspace::target_dir().join("zig");
    std::fs::create_dir_all(&folder)?;
    // A copy: building the workspace may replace this program's own file while it runs.
    let own = std::path::Path::new("/proc/self/exe");
    for tool in ["cc", "ar"] {
        let path = folder.join(format!("{target}-{tool}"));
        // Another path may have built this tool before.
        let _ = std::fs::remove_file(&path);
        std::fs::copy(own, &path)?;
    }
    Ok(())
}

/// If this process was called as `TARGET-cc` or `TARGET-ar`: becomes Zig, and returns only the reason why it could not.
pub fn become_tool() -> Option<anyhow::Error> {
    let mut arguments = std::env::args_os();
    let called = PathBuf::from(arguments.next()?);
    if called.parent().and_then(Path::file_name)? != "zig" {
        return None;
    }
    let (target, tool) = called.file_name()?.to_str()?.rsplit_once('-')?;
    let mut zig = Command::new(workspace::venv_binary("python"));
    zig.args(["-m", "ziglang", tool]);
    if tool == "cc" {
        zig.args(["-target", target]);
    }
    let rest = arguments.filter_map(|argument| argument.into_string().ok());
    zig.args(rest.filter(|argument| !is_foreign(argument)));
    let error = zig.exec();
    Some(anyhow::Error::from(error).context("zig could not be started; run `cargo xtask setup`"))
}

/// Arguments of other compilers that Zig has its own word for.
fn is_foreign(argument: &str) -> bool {
    argument.starts_with("--target=")
        // Cortex-A53's erratum 843419 is the hardware linker's matter; Zig's linker does not know the flag.
        || argument == "-Wl,--fix-cortex-a53-843419"
        || argument.starts_with("-march=armv7")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_compilers_words_are_dropped() {
        assert!(is_foreign("--target=aarch64-unknown-linux-musl"));
        assert!(!is_foreign("-target"));
        assert!(!is_foreign("-Wl,--gc-sections"));
    }

    #[test]
    fn this_test_is_not_zig() {
        assert!(become_tool().is_none());
    }
}
