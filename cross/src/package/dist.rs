//! A release: for every target a tarball and, where Debian has the architecture, a package; checksums; bills of materials.

use super::archive::{self, Entry};
use super::{VERSION, deb, files, folder, sbom, time_stamp};
use crate::compile;
use crate::qemu::user::hash;
use crate::target::{self, Target};
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};

/// Builds the release of the named targets, or of all that devices get.
pub fn run(names: &[String]) -> Result<()> {
    let names = if names.is_empty() { device_targets()? } else { names.to_vec() };
    compile::host()?;
    std::fs::create_dir_all(folder())?;
    let mut written = Vec::new();
    for name in &names {
        let target = Target::load(name)?;
        let binary = compile::target(&target, compile::DIST)?;
        written.push(deb::write(&target, &binary)?);
        written.push(tarball(&target, &binary)?);
        let bill = folder().join(format!("plantain-{VERSION}-{name}.cdx.json"));
        std::fs::write(&bill, sbom::write(&target.triple)?)?;
        written.push(bill);
    }
    let sums = checksums(&written)?;
    std::fs::write(folder().join("SHA256SUMS"), &sums)?;
    print!("{sums}");
    Ok(())
}

/// Targets that are linked by zig: static, for devices. The others are for tests.
fn device_targets() -> Result<Vec<String>> {
    let mut names = target::names()?;
    names.retain(|name| Target::load(name).is_ok_and(|target| target.zig.is_some()));
    Ok(names)
}

/// Everything of the package under one folder, for systems without dpkg.
fn tarball(target: &Target, binary: &Path) -> Result<PathBuf> {
    let mut entries = files::installed(binary)?;
    for name in ["README.md", "LICENSE-APACHE"] {
        entries.push(Entry::text(name, std::fs::read(crate::workspace::root().join(name))?));
    }
    let name = format!("plantain-{VERSION}-{}", target.name);
    let bytes = archive::tar_gz(&entries, &format!("{name}/"), time_stamp())?;
    let path = folder().join(format!("{name}.tar.gz"));
    std::fs::write(&path, bytes)
        .with_context(|| format!("{} cannot be written", path.display()))?;
    Ok(path)
}

/// Lines as `sha256sum` writes and checks them.
fn checksums(files: &[PathBuf]) -> Result<String> {
    let mut lines = Vec::new();
    for file in files {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        lines.push(format!("{}  {name}\n", hash(&std::fs::read(file)?)));
    }
    lines.sort_by(|a, b| a[66..].cmp(&b[66..]));
    Ok(lines.concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_sorted_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, name).unwrap();
            path
        };
        let sums = checksums(&[file("b"), file("a")]).unwrap();
        let names: Vec<&str> = sums.lines().map(|line| line.split_once("  ").unwrap().1).collect();
        assert_eq!(names, ["a", "b"]);
    }

    #[test]
    fn devices_get_static_targets() {
        let names = device_targets().unwrap();
        assert!(names.contains(&"aarch64-musl".into()) && !names.contains(&"aarch64-gnu".into()));
    }
}
