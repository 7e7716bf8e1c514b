//! Debian packages by name.

use crate::command::{Run, find_program};
use anyhow::{Context, Result, bail};
use std::path::Path;

/// Installs those of `packages` that are missing.
///
/// A package of another architecture (`name:arm64`) adds that architecture first.
pub fn ensure<S: AsRef<str>>(packages: &[S]) -> Result<()> {
    let missing: Vec<&str> = packages.iter().map(AsRef::as_ref).filter(|p| !installed(p)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    if find_program("apt-get").is_none() {
        bail!(
            "there is no apt-get here; install what Debian calls {}, then run this again",
            missing.join(", ")
        );
    }
    let Some(root) = Root::find() else {
        bail!("{}", by_hand(&missing));
    };
    for package in &missing {
        if let Some((_, architecture)) = package.split_once(':') {
            add_architecture(&root, architecture)?;
        }
    }
    println!("setup: installing {}", missing.join(", "));
    // A mirror that lacks one index of another package's architecture fails the update, not the installation.
    let update = root.run("apt-get").args(["update", "-q"]).output();
    root.run("apt-get")
        .args(["install", "-y", "-q", "--no-install-recommends"])
        .args(&missing)
        .output()
        .with_context(|| match update {
            Ok(_) => by_hand(&missing),
            Err(error) => format!("{error}; {}", by_hand(&missing)),
        })?;
    Ok(())
}

/// Downloads Debian's kernel for emulated arm64 boards, and a static busybox, into a folder.
///
/// Needs no root where arm64 packages are known already.
pub fn download_kernel_and_busybox(folder: &Path) -> Result<()> {
    const KERNEL: &str = "linux-image-cloud-arm64:arm64";
    const BUSYBOX: &str = "busybox-static:arm64";
    let advice = "emulated boards boot Debian's kernel, which apt-get downloads";
    if find_program("apt-get").is_none() {
        bail!("{advice}; there is no apt-get here, so run this in a Debian or Ubuntu container");
    }
    let depends = || {
        let text = Run::new("apt-cache").args(["depends", KERNEL]).output().ok()?;
        let line = text.lines().find_map(|line| line.trim().strip_prefix("Depends: "))?.to_string();
        Some(line)
    };
    let kernel = match depends() {
        Some(kernel) => kernel,
        None => {
            let root = Root::find().with_context(|| {
                format!("{advice}; run: sudo dpkg --add-architecture arm64 && sudo apt-get update")
            })?;
            add_architecture(&root, "arm64")?;
            root.run("apt-get").args(["update", "-q"]).output()?;
            depends().with_context(|| format!("{advice}, and it does not know {KERNEL}"))?
        }
    };
    Run::new("apt-get").args(["download", "-q", &kernel, BUSYBOX]).dir(folder).output()?;
    Ok(())
}

/// Whether dpkg knows the package as installed.
fn installed(package: &str) -> bool {
    Run::new("dpkg-query")
        .args(["-W", "-f", "${Status}", package])
        .output()
        .is_ok_and(|status| status.contains("install ok installed"))
}

fn by_hand(missing: &[&str]) -> String {
    let architectures: String = missing
        .iter()
        .filter_map(|package| package.split_once(':'))
        .map(|(_, architecture)| format!("sudo dpkg --add-architecture {architecture} && "))
        .take(1)
        .collect();
    format!(
        "these packages need root to install: {architectures}sudo apt-get update && sudo apt-get install {}",
        missing.join(" ")
    )
}

fn add_architecture(root: &Root, architecture: &str) -> Result<()> {
    let foreign = Run::new("dpkg").arg("--print-foreign-architectures").output()?;
    if !foreign.lines().any(|line| line == architecture) {
        root.run("dpkg").args(["--add-architecture", architecture]).output()?;
    }
    Ok(())
}

/// A way to be root.
enum Root {
    Already,
    Sudo,
}

impl Root {
    /// Root itself, or sudo where it asks no password.
    fn find() -> Option<Self> {
        let user = Run::new("id").arg("-u").output().ok()?;
        if user.trim() == "0" {
            Some(Self::Already)
        } else {
            Run::new("sudo").args(["-n", "true"]).succeeds().then_some(Self::Sudo)
        }
    }

    fn run(&self, program: &str) -> Run {
        let run = match self {
            Self::Already => Run::new("env"),
            Self::Sudo => Run::new("sudo").args(["-n", "env"]),
        };
        run.arg("DEBIAN_FRONTEND=noninteractive").arg(program)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_is_a_command_to_paste() {
        let text = by_hand(&["qemu-user", "libstd-rust-web-dev:arm64"]);
        assert!(
            text.ends_with("sudo apt-get install qemu-user libstd-rust-web-dev:arm64"),
            "{text}"
        );
        assert!(text.contains("--add-architecture arm64"), "{text}");
        assert!(!by_hand(&["qemu-user"]).contains("architecture"));
    }

    #[test]
    fn nothing_missing_needs_no_root() {
        ensure::<&str>(&[]).unwrap();
        assert!(!installed("no-such-package-here"));
    }
}
