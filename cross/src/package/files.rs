//! What is installed, and where.

use super::archive::{Entry, gzip};
use super::{MAINTAINER, VERSION, time_stamp};
use crate::command::Run;
use crate::qemu::bundled_pack;
use crate::workspace;
use anyhow::{Context, Result};
use std::path::Path;

/// What `lintian` would say of decisions: one static binary for every system, and systemd without Debian's helpers.
const OVERRIDES: &str = "plantain: statically-linked-binary [usr/bin/plantain]
plantain: maintainer-script-calls-systemctl *
";

/// Files of an installation: the board's binary, the pack, and the texts that this machine's binary prints.
pub fn installed(binary: &Path) -> Result<Vec<Entry>> {
    let here = workspace::release_binary("plantain");
    let says = |arguments: &[&str]| {
        Run::new(&here).args(arguments).output().with_context(|| {
            format!("`plantain {}` writes a file of the package", arguments.join(" "))
        })
    };
    let completions = |shell| says(&["completions", shell]);
    let packaging = |name| read(&format!("daemon/packaging/{name}"));
    let pack = bundled_pack()?;
    let pack_name = pack.file_name().unwrap_or_default().to_string_lossy();
    Ok(vec![
        Entry::program("usr/bin/plantain", read_file(binary)?),
        Entry::text(&format!("usr/share/plantain/{pack_name}"), read_file(&pack)?),
        Entry::text("etc/plantain/plantain.toml", says(&["serve", "--print-config"])?),
        Entry::text("usr/lib/systemd/system/plantain.service", packaging("plantain.service")?),
        Entry::text("usr/share/doc/plantain/accelerators.conf", packaging("accelerators.conf")?),
        Entry::text("usr/share/doc/plantain/copyright", copyright()?),
        Entry::text("usr/share/doc/plantain/CHANGELOG.md.gz", gzip(&read("CHANGELOG.md")?)?),
        Entry::text(
            "usr/share/doc/plantain/changelog.gz",
            gzip(changelog(time_stamp())?.as_bytes())?,
        ),
        Entry::text("usr/share/lintian/overrides/plantain", OVERRIDES),
        Entry::text(
            "usr/share/man/man1/plantain.1.gz",
            gzip(says(&["completions", "man"])?.as_bytes())?,
        ),
        Entry::text("usr/share/bash-completion/completions/plantain", completions("bash")?),
        Entry::text("usr/share/zsh/vendor-completions/_plantain", completions("zsh")?),
        Entry::text("usr/share/fish/vendor_completions.d/plantain.fish", completions("fish")?),
    ])
}

/// The licences; Debian has the second one's text already.
fn copyright() -> Result<Vec<u8>> {
    let mut text = b"plantain is licensed under MIT or Apache-2.0, as you choose.\n\n".to_vec();
    text.extend(read("LICENSE-MIT")?);
    text.extend(b"\nApache License, version 2.0: see /usr/share/common-licenses/Apache-2.0.\n");
    Ok(text)
}

/// The one entry that Debian's form asks for.
fn changelog(time: u64) -> Result<String> {
    let date = Run::new("date")
        .args(["-u", "-R", "-d", &format!("@{time}")])
        .env("LC_ALL", "C")
        .output()
        .context("the package's changelog needs a date")?;
    Ok(format!(
        "plantain ({VERSION}) unstable; urgency=medium\n\n  * See CHANGELOG.md.gz.\n\n -- {MAINTAINER}  {}\n",
        date.trim()
    ))
}

fn read(path: &str) -> Result<Vec<u8>> {
    read_file(&workspace::root().join(path))
}

fn read_file(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("{} cannot be read", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_changelog_has_debians_form() {
        let text = changelog(1_700_000_000).unwrap();
        assert!(text.starts_with(&format!("plantain ({VERSION}) unstable; urgency=")), "{text}");
        assert!(text.ends_with("  Tue, 14 Nov 2023 22:13:20 +0000\n"), "{text}");
    }
}
