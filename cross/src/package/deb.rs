//! A Debian package: an `ar` of a version, the control files and the installed files.

use super::archive::{self, Entry};
use super::{MAINTAINER, VERSION, check, files, folder, time_stamp};
use crate::compile;
use crate::size::Bounds;
use crate::target::Target;
use anyhow::{Context, Result, bail};
use plantain_boards::Board;
use std::path::{Path, PathBuf};

const POSTINST: &str = "#!/bin/sh
set -e
if [ \"$1\" = configure ] && [ -d /run/systemd/system ]; then
    systemctl daemon-reload
    if [ -z \"$2\" ]; then
        systemctl enable --now plantain.service
    else
        systemctl try-restart plantain.service
    fi
fi
";

const PRERM: &str = "#!/bin/sh
set -e
if [ \"$1\" = remove ] && [ -d /run/systemd/system ]; then
    systemctl disable --now plantain.service
fi
";

const POSTRM: &str = "#!/bin/sh
set -e
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload
fi
if [ \"$1\" = purge ]; then
    rm -rf /var/lib/private/plantain
    rm -f /var/lib/plantain
fi
";

/// Builds the package for a board, tries it, and returns where it lies.
pub fn build(board: &Board, profile: &str) -> Result<PathBuf> {
    let target = Target::of_board(board)?;
    let binary = compile::cross(board, profile)?;
    compile::host()?;
    let deb = write(&target, &binary)?;
    check::run(&deb, &target)?;
    Ok(deb)
}

/// Writes the package of a built binary.
pub fn write(target: &Target, binary: &Path) -> Result<PathBuf> {
    let bytes = package(&files::installed(binary)?, &target.debian_arch, time_stamp())?;
    let bytes_max = Bounds::load()?.deb_bytes_max;
    if bytes.len() as u64 > bytes_max {
        bail!(
            "the package has {} bytes, at most {bytes_max} are allowed (cross/sizes.toml); look at the pack's size",
            bytes.len()
        );
    }
    std::fs::create_dir_all(folder())?;
    let path = path(target);
    std::fs::write(&path, &bytes)
        .with_context(|| format!("{} cannot be written", path.display()))?;
    println!("{}: {} bytes", path.display(), bytes.len());
    Ok(path)
}

/// Where a target's package is put.
pub fn path(target: &Target) -> PathBuf {
    folder().join(format!("plantain_{VERSION}_{}.deb", target.debian_arch))
}

fn package(files: &[Entry], architecture: &str, time: u64) -> Result<Vec<u8>> {
    let control = [
        Entry::text("control", control(files, architecture)),
        Entry::text("conffiles", conffiles(files)),
        Entry::program("postinst", POSTINST),
        Entry::program("prerm", PRERM),
        Entry::program("postrm", POSTRM),
    ];
    let control = archive::tar_gz(&control, "", time)?;
    let data = archive::tar_gz(files, "", time)?;
    let members: [(&str, &[u8]); 3] =
        [("debian-binary", b"2.0\n"), ("control.tar.gz", &control), ("data.tar.gz", &data)];
    Ok(archive::ar(&members, time))
}

fn control(files: &[Entry], architecture: &str) -> String {
    let bytes: usize = files.iter().map(|file| file.bytes.len()).sum();
    format!(
        "Package: plantain
Version: {VERSION}
Architecture: {architecture}
Maintainer: {MAINTAINER}
Installed-Size: {}
Section: graphics
Priority: optional
Suggests: mosquitto
Description: text-to-image on small devices
 Draws a picture for a prompt on the device itself, inside a memory budget,
 with an int8 model that is part of the package. Prompts and pictures travel
 over MQTT (plantain serve) or through the shell (plantain generate).
",
        bytes.div_ceil(1024)
    )
}

/// Files that the operator may change.
fn conffiles(files: &[Entry]) -> String {
    files
        .iter()
        .filter(|file| file.path.starts_with("etc/"))
        .map(|file| format!("/{}\n", file.path))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Run, find_program};

    #[test]
    fn dpkg_reads_the_package() {
        let files = [
            Entry::program("usr/bin/plantain", "binary"),
            Entry::text("etc/plantain/plantain.toml", "# settings\n"),
        ];
        let bytes = package(&files, "arm64", 1).unwrap();
        assert_eq!(bytes, package(&files, "arm64", 1).unwrap());
        if find_program("dpkg-deb").is_none() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.deb");
        std::fs::write(&path, bytes).unwrap();
        let fields = Run::new("dpkg-deb").arg("-f").arg(&path).output().unwrap();
        assert!(fields.contains("Architecture: arm64"), "{fields}");
        let contents = Run::new("dpkg-deb").arg("-c").arg(&path).output().unwrap();
        assert!(contents.contains("-rwxr-xr-x root/root"), "{contents}");
        assert!(contents.contains("etc/plantain/plantain.toml"), "{contents}");
    }
}
