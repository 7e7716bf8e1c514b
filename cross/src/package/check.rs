//! Installs a package into an empty root and tries what it brings, as an ordinary user.

use crate::command::{Run, find_program};
use crate::compile;
use crate::target::Target;
use crate::workspace;
use anyhow::{Context, Result, bail};
use std::path::Path;

/// Exposure that `systemd-analyze security` may give the service: below 5.0 it says "OK" or better.
const EXPOSURE_MAX: f32 = 5.0;

/// Installs with dpkg, draws a picture with what was installed, and has systemd judge the unit.
pub fn run(deb: &Path, target: &Target) -> Result<()> {
    let root = tempfile::tempdir()?;
    install(deb, root.path())?;
    draw(root.path(), target)?;
    judge(&root.path().join("usr/lib/systemd/system/plantain.service"))
}

/// `dpkg -i` with a data base of its own. The maintainer scripts find no running systemd there and leave it alone.
fn install(deb: &Path, root: &Path) -> Result<()> {
    for folder in ["var/lib/dpkg/info", "var/lib/dpkg/updates", "var/lib/dpkg/triggers"] {
        std::fs::create_dir_all(root.join(folder))?;
    }
    std::fs::write(root.join("var/lib/dpkg/status"), "")?;
    let dpkg = |arguments: &[&str]| {
        Run::new("fakeroot")
            .args(["dpkg", "--force-architecture", "--force-script-chrootless"])
            .arg(format!("--root={}", root.display()))
            .args(arguments)
    };
    dpkg(&["-i"])
        .arg(deb)
        .output()
        .context("installing the package into an empty root (Debian: fakeroot)")?;
    let status = std::fs::read_to_string(root.join("var/lib/dpkg/status"))?;
    if !status.contains("Status: install ok installed") {
        bail!("dpkg did not install {}: {status}", deb.display());
    }
    println!("{}: installs into an empty root", deb.display());
    Ok(())
}

/// Draws as an ordinary user with the installed binary and the installed pack.
fn draw(root: &Path, target: &Target) -> Result<()> {
    let binary = root.join("usr/bin/plantain");
    let picture = workspace::target_dir().join("packages").join("check.png");
    let _ = std::fs::remove_file(&picture);
    let run = match &target.emulator {
        Some(_) => Run::new(compile::emulator(target)?).arg(&binary),
        None => Run::new(&binary),
    };
    run.args(["generate", "a red apple", "--seed", "7", "-o"])
        .arg(&picture)
        .output()
        .context("the installed binary draws with the installed pack")?;
    println!("{} bytes were drawn by the installed package", std::fs::metadata(&picture)?.len());
    Ok(())
}

/// The unit is valid and shut tight enough.
fn judge(unit: &Path) -> Result<()> {
    if find_program("systemd-analyze").is_none() {
        println!("NOTE: without systemd-analyze (Debian: systemd) the unit is not judged");
        return Ok(());
    }
    let text = std::fs::read_to_string(unit)?;
    let dir = tempfile::tempdir()?;
    let copy = dir.path().join("plantain.service");
    // The program's path exists on the device only.
    std::fs::write(&copy, text.replace("/usr/bin/plantain", "/bin/true"))?;
    Run::new("systemd-analyze").args(["verify", "--man=no"]).arg(&copy).output()?;
    let report =
        Run::new("systemd-analyze").args(["security", "--offline=true"]).arg(&copy).output()?;
    let exposure = exposure(&report).context("systemd-analyze security gave no exposure level")?;
    if exposure >= EXPOSURE_MAX {
        bail!(
            "the unit's exposure is {exposure}, below {EXPOSURE_MAX} is required; see `systemd-analyze security`"
        );
    }
    println!("plantain.service: valid, exposure {exposure} of 10");
    Ok(())
}

/// The number in "Overall exposure level for plantain.service: 1.2 OK".
fn exposure(report: &str) -> Option<f32> {
    let line = report.lines().find(|line| line.contains("Overall exposure level"))?;
    line.rsplit_once(": ")?.1.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exposure_is_read() {
        let report = "table\n\n→ Overall exposure level for plantain.service: 1.2 OK 🙂\n";
        assert_eq!(exposure(report), Some(1.2));
        assert_eq!(exposure("nothing"), None);
    }

    #[test]
    fn the_unit_is_valid_and_shut() {
        judge(&workspace::root().join("daemon/packaging/plantain.service")).unwrap();
    }
}
