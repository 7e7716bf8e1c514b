//! Installs a package and tries what it brings: drawing as an ordinary user, the service's command, the unit.

use super::root::{As, PROGRAMS, Root};
use crate::command::{Run, find_program};
use crate::compile;
use crate::qemu::broker::Broker;
use crate::qemu::user::{PROMPT, SEED, hash, host_picture};
use crate::qemu::watch::Watch;
use crate::target::Target;
use anyhow::{Context, Result, bail};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Exposure that `systemd-analyze security` may give the service: below 5.0 it says "OK" or better.
const EXPOSURE_MAX: f32 = 5.0;

/// Longest time until the service says that it is ready, emulated.
const PATIENCE: Duration = Duration::from_secs(120);

const UNIT: &str = "usr/lib/systemd/system/plantain.service";
const SETTINGS: &str = "etc/plantain/plantain.toml";

/// Installs with dpkg, draws a picture with what was installed, starts the service, and has systemd judge the unit.
pub fn run(deb: &Path, target: &Target) -> Result<()> {
    let expected = host_picture()?;
    if target.debian_root {
        let root = Root::new(target)?;
        install(deb, &root, target)?;
        draw(&root, target, &expected)?;
        serve(&root)?;
        return judge(&root.path(UNIT));
    }
    println!("NOTE: {} gets an empty root instead of a Debian of its own", target.debian_arch);
    let root = tempfile::tempdir()?;
    install_empty(deb, root.path())?;
    draw_empty(root.path(), target, &expected)?;
    judge(&root.path().join(UNIT))
}

/// `dpkg -i` by the architecture's own dpkg, with the package's scripts.
fn install(deb: &Path, root: &Root, target: &Target) -> Result<()> {
    root.bring(deb, "tmp/plantain.deb")?;
    root.run(As::Root)
        .args(["/usr/bin/dpkg", "-i", "/tmp/plantain.deb"])
        .output()
        .with_context(|| format!("installing the package into a Debian for {}", target.name))?;
    installed(&std::fs::read_to_string(root.path("var/lib/dpkg/status"))?, deb)?;
    println!("{}: dpkg -i in a Debian root of {}", deb.display(), target.debian_arch);
    Ok(())
}

/// Draws as an ordinary user with the installed binary and the installed pack: the picture is the one drawn here.
fn draw(root: &Root, target: &Target, expected: &str) -> Result<()> {
    root.run(As::User)
        .args(["/usr/bin/plantain", "generate", PROMPT, "--seed", SEED, "-o", "/tmp/check.png"])
        .output()
        .context("the installed binary draws with the installed pack as an ordinary user")?;
    same(&root.path("tmp/check.png"), expected)?;
    println!("{}: an ordinary user draws the same picture as here", target.debian_arch);
    Ok(())
}

/// Starts the unit's command as an ordinary user, with what systemd would give it, until it says that it is ready.
fn serve(root: &Root) -> Result<()> {
    let unit = std::fs::read_to_string(root.path(UNIT))?;
    let command = unit
        .lines()
        .find_map(|line| line.strip_prefix("ExecStart="))
        .context("the unit has no ExecStart")?;
    let folder = tempfile::tempdir()?;
    let broker = Broker::start(folder.path())?;
    let settings = std::fs::read_to_string(root.path(SETTINGS))?;
    let here = format!("mqtt://127.0.0.1:{}", broker.port);
    std::fs::write(root.path(SETTINGS), settings.replace("mqtt://127.0.0.1:1883", &here))?;
    let state = root.path("var/lib/plantain");
    std::fs::create_dir_all(&state)?;
    std::fs::set_permissions(&state, PermissionsExt::from_mode(0o777))?;
    let socket = root.path("tmp/notify");
    let manager = UnixDatagram::bind(&socket)?;
    std::fs::set_permissions(&socket, PermissionsExt::from_mode(0o777))?;
    manager.set_read_timeout(Some(PATIENCE))?;

    let words = root.words(As::User);
    let mut run = Command::new(&words[0]);
    run.args(&words[1..])
        .args(command.split_whitespace())
        .env("PATH", PROGRAMS)
        .env("NOTIFY_SOCKET", "/tmp/notify")
        .env("STATE_DIRECTORY", "/var/lib/plantain");
    let mut service = Watch::start(run, "the service", "run `cargo xtask setup`")?;
    let mut message = [0; 256];
    let said = manager.recv(&mut message);
    service.listen(Duration::from_millis(200));
    let length = said.with_context(|| {
        format!("the service did not say in {PATIENCE:?} that it is ready:\n{}", service.tail())
    })?;
    let said = String::from_utf8_lossy(&message[..length]).into_owned();
    if !said.contains("READY=1") {
        bail!("the service said {said:?} instead of READY=1:\n{}", service.tail());
    }
    println!("`{command}`: started as an ordinary user, READY=1");
    service.terminate(PATIENCE)
}

/// `dpkg -i` with a data base of its own. The maintainer scripts find no running systemd there and leave it alone.
fn install_empty(deb: &Path, root: &Path) -> Result<()> {
    for folder in ["var/lib/dpkg/info", "var/lib/dpkg/updates", "var/lib/dpkg/triggers"] {
        std::fs::create_dir_all(root.join(folder))?;
    }
    std::fs::write(root.join("var/lib/dpkg/status"), "")?;
    Run::new("fakeroot")
        .args(["dpkg", "--force-architecture", "--force-script-chrootless"])
        .arg(format!("--root={}", root.display()))
        .arg("-i")
        .arg(deb)
        .output()
        .context("installing the package into an empty root (Debian: fakeroot)")?;
    installed(&std::fs::read_to_string(root.join("var/lib/dpkg/status"))?, deb)?;
    println!("{}: installs into an empty root", deb.display());
    Ok(())
}

/// Draws with the installed binary and the installed pack.
fn draw_empty(root: &Path, target: &Target, expected: &str) -> Result<()> {
    let binary = root.join("usr/bin/plantain");
    let picture = root.join("check.png");
    let run = match &target.emulator {
        Some(_) => Run::new(compile::emulator(target)?).arg(&binary),
        None => Run::new(&binary),
    };
    run.args(["generate", PROMPT, "--seed", SEED, "-o"])
        .arg(&picture)
        .output()
        .context("the installed binary draws with the installed pack")?;
    if target.same_bytes {
        same(&picture, expected)?;
    }
    println!("{} bytes were drawn by the installed package", std::fs::metadata(&picture)?.len());
    Ok(())
}

/// Whether dpkg's data base says that the package is installed.
fn installed(status: &str, deb: &Path) -> Result<()> {
    if !status.contains("Status: install ok installed") {
        bail!("dpkg did not install {}: {status}", deb.display());
    }
    Ok(())
}

fn same(picture: &Path, expected: &str) -> Result<()> {
    let drawn = hash(&std::fs::read(picture)?);
    if drawn != expected {
        bail!("the installed package drew {drawn}, this machine {expected}");
    }
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
    use crate::workspace;

    #[test]
    fn the_exposure_is_read() {
        let report = "table\n\n→ Overall exposure level for plantain.service: 1.2 OK 🙂\n";
        assert_eq!(exposure(report), Some(1.2));
        assert_eq!(exposure("nothing"), None);
    }

    #[test]
    fn a_package_that_is_not_configured_is_not_installed() {
        let deb = Path::new("a.deb");
        assert!(installed("Package: plantain\nStatus: install ok installed\n", deb).is_ok());
        let error = installed("Status: install ok unpacked\n", deb).unwrap_err().to_string();
        assert!(error.contains("did not install a.deb"), "{error}");
    }

    #[test]
    fn the_unit_is_valid_and_shut() {
        judge(&workspace::root().join("daemon/packaging/plantain.service")).unwrap();
    }
}
