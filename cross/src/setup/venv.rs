//! Python packages of the tests, in `target/venv`, from `tests/requirements.txt`.

use super::debian;
use crate::command::{Run, find_program};
use crate::workspace;
use anyhow::{Context, Result};
use std::path::Path;

/// Makes the environment, or brings it up to date with the requirements.
pub fn ensure() -> Result<()> {
    let requirements = workspace::root().join("tests/requirements.txt");
    install(&workspace::target_dir().join("venv"), &requirements)
}

/// Installs a requirements file into an environment, unless that was done before.
pub fn install(venv: &Path, requirements: &Path) -> Result<()> {
    let wanted = std::fs::read_to_string(requirements)
        .with_context(|| format!("{} cannot be read", requirements.display()))?;
    let name = requirements.parent().and_then(Path::file_name).unwrap_or_default();
    let stamp = venv.join(format!("installed-{}.txt", name.to_string_lossy()));
    if std::fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    let python = venv.join("bin/python");
    if !Run::new(&python).args(["-m", "pip", "--version"]).succeeds() {
        if find_program("python3").is_none() {
            debian::ensure(&["python3", "python3-venv"])?;
        }
        let make = || Run::new("python3").args(["-m", "venv", "--clear"]).arg(venv).output();
        if make().is_err() {
            debian::ensure(&["python3-venv"])?;
            make().context("Python cannot make virtual environments; install python3-venv")?;
        }
    }
    println!("setup: installing {} into {}", requirements.display(), venv.display());
    Run::new(&python)
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"])
        .arg(requirements)
        .output()
        .context("Python packages of the tests")?;
    std::fs::write(&stamp, wanted)?;
    Ok(())
}
