//! A small Debian of the device's architecture in a folder, and programs that run in it as root or as a user.
//!
//! PRoot stands for chroot and for the kernel's table of emulators, so that none of it needs root.

use crate::command::{Run, find_program};
use crate::compile;
use crate::setup::debian;
use crate::target::Target;
use crate::workspace;
use anyhow::{Context, Result};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// What dpkg needs to install a package whose scripts are shell scripts.
const PACKAGES: [&str; 20] = [
    "base-files",
    "coreutils",
    "dash",
    "diffutils",
    "dpkg",
    "libacl1",
    "libattr1",
    "libbz2-1.0",
    "libc-bin",
    "libc6",
    "libgcc-s1",
    "libgmp10",
    "liblzma5",
    "libmd0",
    "libpcre2-8-0",
    "libselinux1",
    "libssl3",
    "libzstd1",
    "tar",
    "zlib1g",
];

/// Where the root's programs lie, those of root among them.
pub const PROGRAMS: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Number of the ordinary user, in the root and, where this tool runs as root, outside of it.
const USER: &str = "65534:65534";

/// Who runs a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum As {
    /// Root, as the programs see it; on this machine it is whoever runs this tool.
    Root,
    /// A user without rights, here and there.
    User,
}

/// The folder, gone when this is dropped.
pub struct Root {
    folder: tempfile::TempDir,
    emulator: Option<PathBuf>,
}

impl Root {
    /// Fetches Debian's packages once, and unpacks them into a new folder.
    pub fn new(target: &Target) -> Result<Self> {
        debian::ensure(&["proot"]).context("a root for the package's trial needs PRoot")?;
        let debs =
            workspace::target_dir().join("qemu").join(format!("root-{}", target.debian_arch));
        let stamp = debs.join("complete");
        if !stamp.exists() {
            std::fs::create_dir_all(&debs)?;
            let names: Vec<String> =
                PACKAGES.iter().map(|name| format!("{name}:{}", target.debian_arch)).collect();
            debian::download(&debs, &names, &target.debian_arch)?;
            std::fs::write(&stamp, names.join("\n"))?;
        }
        let folder = tempfile::Builder::new().prefix("plantain-root-").tempdir()?;
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755))?;
        for entry in std::fs::read_dir(&debs)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "deb") {
                Run::new("dpkg-deb").arg("-x").arg(&path).arg(folder.path()).output()?;
            }
        }
        for database in ["info", "updates", "triggers"] {
            std::fs::create_dir_all(folder.path().join("var/lib/dpkg").join(database))?;
        }
        std::fs::write(folder.path().join("var/lib/dpkg/status"), "")?;
        std::fs::set_permissions(folder.path().join("tmp"), PermissionsExt::from_mode(0o1777))?;
        let emulator = match target.emulator {
            Some(_) => Some(compile::emulator(target)?),
            None => None,
        };
        Ok(Self { folder, emulator })
    }

    /// A file of the root as it is found from here.
    pub fn path(&self, inside: &str) -> PathBuf {
        self.folder.path().join(inside.trim_start_matches('/'))
    }

    /// A program's first words; the program as it is called inside, and its arguments, are appended by the caller.
    pub fn words(&self, who: As) -> Vec<String> {
        let mut words = Vec::new();
        if who == As::User && is_root() {
            let (user, group) = USER.split_once(':').unwrap_or((USER, USER));
            words.extend(["setpriv".into(), format!("--reuid={user}"), format!("--regid={group}")]);
            words.push("--clear-groups".into());
        }
        words.push("proot".into());
        if let Some(emulator) = &self.emulator {
            words.extend(["-q".into(), emulator.display().to_string()]);
        }
        words.extend(["-r".into(), self.folder.path().display().to_string()]);
        words.extend(["-b", "/dev", "-b", "/proc", "-w", "/tmp", "-i"].map(String::from));
        words.push(if who == As::Root { "0:0".into() } else { USER.into() });
        words
    }

    /// Runs a program in the root.
    pub fn run(&self, who: As) -> Run {
        let words = self.words(who);
        Run::new(&words[0]).args(&words[1..]).env("PATH", PROGRAMS)
    }

    /// Puts a file of this machine into the root.
    pub fn bring(&self, file: &Path, inside: &str) -> Result<()> {
        std::fs::copy(file, self.path(inside))
            .with_context(|| format!("{} cannot be copied", file.display()))?;
        Ok(())
    }
}

/// Whether this tool runs as root, whose rights the user must not have.
fn is_root() -> bool {
    find_program("setpriv").is_some()
        && Run::new("id").arg("-u").output().is_ok_and(|user| user.trim() == "0")
}
