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

/// Downloads packages of an architecture, not what they depend on, into a folder.
///
/// Needs no root where packages of that architecture are known already.
pub fn download(folder: &Path, packages: &[String], architecture: &str) -> Result<()> {
    let advice = format!("packages of {architecture} are downloaded by apt-get");
    if find_program("apt-get").is_none() {
        bail!("{advice}; there is no apt-get here, so run this in a Debian or Ubuntu container");
    }
    let first = packages.first().map(String::as_str).unwrap_or_default();
    let known = || Run::new("apt-cache").args(["show", "--no-all-versions", first]).succeeds();
    if !known() {
        let root = Root::find().with_context(|| {
            format!(
                "{advice}; run: sudo dpkg --add-architecture {architecture} && sudo apt-get update"
            )
        })?;
        add_architecture(&root, architecture)?;
        root.run("apt-get").args(["update", "-q"]).output()?;
        if !known() {
            bail!("{advice}, and it does not know {first}");
        }
    }
    Run::new("apt-get").args(["download", "-q"]).args(packages).dir(folder).output()?;
    Ok(())
}

/// The package that a name for the newest version of something stands for.
pub fn stands_for(package: &str) -> Result<String> {
    let text = Run::new("apt-cache").args(["depends", package]).output()?;
    text.lines()
        .find_map(|line| line.trim().strip_prefix("Depends: "))
        .map(String::from)
        .with_context(|| format!("apt-cache does not say what {package} stands for"))
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
